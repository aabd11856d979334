"""Asking: for one ticker after the other, with an overlap; or for the files of a drop folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pandas as pd

from rnn_pipeline.market import revisions
from rnn_pipeline.market.breaker import CircuitBreaker
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.commit import Feed, parse
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.sources import BadPayload, Payload, SourceUnavailable
from rnn_pipeline.warehouse import Entry, Fetch, PayloadStore, Warehouse

#: Tickers that share a transaction: enough to make its cost small, few enough to lose little.
TICKERS_PER_BATCH = 32

#: Sessions before the wanted ones that are asked for again, to see whether history was restated.
OVERLAP = 10

#: Calendar days that surely hold the sessions of the overlap.
_OVERLAP_DAYS = pd.Timedelta(days=3 * OVERLAP)


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Request:
    """One ingestion: which tickers and sessions, for which run, by which clock."""

    tickers: Sequence[str]
    first: date
    last: date
    run_id: str
    clock: Callable[[], datetime] = utc_now


class Asker:
    """Asks a source for one ticker after the other; a chunk of answers is an entry."""

    def __init__(
        self,
        warehouse: Warehouse,
        payloads: PayloadStore,
        feed: Feed,
        source: str,
        request: Request,
        fetch: Callable[[str, date, date], Payload],
        breaker: CircuitBreaker | None = None,
        calendar: SessionCalendar | None = None,
    ) -> None:
        self.warehouse = warehouse
        self.payloads = payloads
        self.feed = feed
        self.source = source
        self.request = request
        self.fetch = fetch
        self.breaker = breaker or CircuitBreaker()
        self.calendar = calendar

    def entries(self) -> Iterator[Entry]:
        """Entries in an order that lets a run which was cut short resume where it stopped."""
        tickers = self._longest_not_asked_first()
        for start in range(0, len(tickers), TICKERS_PER_BATCH):
            chunk = tickers[start : start + TICKERS_PER_BATCH]
            asked_at = self.request.clock()
            fetches = self._ask_with_overlap(chunk) if self.calendar else self._ask_all(chunk, {})
            yield Entry(
                kind=self.feed.table,
                source=self.source,
                exchange=self.calendar.exchange if self.calendar else "",
                run_id=self.request.run_id,
                asked_at=asked_at,
                fetched_at=self.request.clock(),
                fetches=tuple(fetches),
            )

    def _longest_not_asked_first(self) -> list[str]:
        answered = self.warehouse.read(
            "SELECT ticker, max(fetched_at) AS at FROM raw_fetch"
            " WHERE kind = ? AND list_contains(?, ticker) GROUP BY ticker",
            [self.feed.table, list(self.request.tickers)],
        )
        at = dict(zip(answered["ticker"], answered["at"], strict=True))
        never = pd.Timestamp.min.tz_localize("UTC")
        return sorted(self.request.tickers, key=lambda ticker: at.get(ticker, never))

    def _ask_with_overlap(self, tickers: Sequence[str]) -> list[Fetch]:
        """Ask from some sessions earlier on; from the beginning where history was restated."""
        beginnings = self._beginnings(tickers)
        fetches = self._ask_all(tickers, self._with_overlap(beginnings))
        restated = self._restated(fetches) & beginnings.keys()
        again = {
            fetch.ticker: fetch
            for fetch in self._ask_all([t for t in tickers if t in restated], beginnings)
        }
        return [again.get(fetch.ticker, fetch) for fetch in fetches]

    def _beginnings(self, tickers: Sequence[str]) -> dict[str, date]:
        """First stored session of the tickers that have any before the request."""
        rows = self.warehouse.read(
            "SELECT ticker, min(session) AS session FROM raw_ohlcv"
            " WHERE list_contains(?, ticker) AND session < ? GROUP BY ticker",
            [list(tickers), self.request.first],
        )
        return {row.ticker: row.session.date() for row in rows.itertuples()}

    def _with_overlap(self, beginnings: dict[str, date]) -> dict[str, date]:
        assert self.calendar is not None
        before = self.calendar.sessions(
            max(self.calendar.first_session, pd.Timestamp(self.request.first) - _OVERLAP_DAYS),
            self.request.first,
        )
        start = before[before < pd.Timestamp(self.request.first)][-OVERLAP:].min()
        return {ticker: max(begin, start.date()) for ticker, begin in beginnings.items()}

    def _restated(self, fetches: Sequence[Fetch]) -> set[str]:
        answers = [
            rows
            for fetch in fetches
            if fetch.payload_sha256 and len(rows := self._parsed_or_nothing(fetch))
        ]
        if not answers:
            return set()
        rows = pd.concat(answers, ignore_index=True)
        return revisions.restated_tickers(rows, self.feed.known(self.warehouse, rows))

    def _parsed_or_nothing(self, fetch: Fetch) -> pd.DataFrame:
        try:
            return parse(self.payloads, self.feed, fetch)
        except BadPayload:
            return pd.DataFrame()

    def _ask_all(self, tickers: Sequence[str], firsts: dict[str, date]) -> list[Fetch]:
        return [self._ask(ticker, firsts.get(ticker, self.request.first)) for ticker in tickers]

    def _ask(self, ticker: str, first: date) -> Fetch:
        last = self.request.last
        while not self.breaker.opened_by:
            try:
                payload = self.fetch(ticker, first, last)
            except SourceUnavailable as error:
                if not self.breaker.failed(error):
                    return Fetch(ticker, first, last, "failed", str(error))
            except ValueError as error:
                self.breaker.succeeded()
                return Fetch(ticker, first, last, "unknown", str(error))
            else:
                self.breaker.succeeded()
                return _kept(self.payloads, payload, ticker, first, last)
        reason = f"not asked for, the source is down: {self.breaker.opened_by}"
        return Fetch(ticker, first, last, "failed", reason)


def _kept(
    payloads: PayloadStore, payload: Payload, ticker: str, first: date | None, last: date | None
) -> Fetch:
    return Fetch(
        ticker=ticker,
        first=first,
        last=last,
        media_type=payload.media_type,
        url=payload.url,
        payload_sha256=payloads.put(payload.content),
        payload_bytes=len(payload.content),
    )


def take_files(
    warehouse: Warehouse,
    payloads: PayloadStore,
    feed: Feed,
    source: FileSource,
    exchange: str,
    request: Request,
) -> Iterator[Entry]:
    """One entry per file whose content was not taken in yet; bad files are moved aside."""
    taken = warehouse.read(
        "SELECT DISTINCT payload_sha256 FROM raw_fetch WHERE kind = ?", [feed.table]
    )
    seen = set(taken["payload_sha256"])
    for path in source.waiting(feed.table):
        asked_at = request.clock()
        payload = source.read(path)
        sha256 = hashlib.sha256(payload.content).hexdigest()
        if sha256 in seen:
            continue
        seen.add(sha256)
        fetch = _kept(payloads, payload, "", None, None)
        yield Entry(
            kind=feed.table,
            source=source.name,
            exchange=exchange,
            run_id=request.run_id,
            asked_at=asked_at,
            fetched_at=request.clock(),
            fetches=(fetch,),
        )
        try:
            feed.parse(payload, "")
        except BadPayload as error:
            source.put_aside(path, str(error))
