"""Fetch, keep the raw answer, validate, say what changed, commit.

Every source goes through this one path. A chunk of tickers, or a file, is one transaction: after a
crash its rows, its quarantine and its ledger lines are all there or all absent, and running again
completes the work. What an earlier run already knows is recognised, so running twice changes
nothing.

The raw tables are a pure function of the journal and its payloads (:func:`replay`): live batches
and rebuilt ones take the same road, and whatever a crash took from the database is played again
before anything new is asked for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.market import revisions
from rnn_pipeline.market.breaker import CircuitBreaker
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.quality import Verdict, check_bars, check_headlines
from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    BadPayload,
    BarSource,
    NewsSource,
    Payload,
    SourceUnavailable,
)
from rnn_pipeline.market.status import record_status
from rnn_pipeline.market.stories import STORY_SPAN, as_stories
from rnn_pipeline.warehouse import Batch, Entry, Fetch, PayloadStore, Warehouse

#: Tickers that share a transaction: enough to make its cost small, few enough to lose little.
TICKERS_PER_BATCH = 32

#: Sessions before the wanted ones that are asked for again, to see whether history was restated.
OVERLAP = 10

#: Calendar days that surely hold the sessions of the overlap.
_OVERLAP_DAYS = pd.Timedelta(days=3 * OVERLAP)


class IngestError(RuntimeError):
    """No ticker could be ingested; the message holds the first reason and what to do."""


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


@dataclass(frozen=True)
class Ingested:
    """What ingestion did to one ticker: a line of ``ingest_ledger``.

    ``status`` is ``ok``, ``no data``, or why the ticker (or the file of that name) failed.
    """

    table_name: str
    ticker: str
    status: str
    rows_in: int = 0
    inserted: int = 0
    revised: int = 0
    unchanged: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class _Feed:
    """What differs between bars and headlines on the common path.

    Attributes:
        table: where good rows go.
        columns: what a parsed answer holds.
        keys: columns that name a row across its revisions.
        day: the column by which an answer is cut to what was asked for.
        moment: the column that says when the row's event was over (UTC).
        parse: reads a payload of a ticker, or of all tickers of a file.
        judge: good rows, and bad rows with the rule they broke.
        known: newest revisions that rows may have to be compared with.
        settle: rows as they are compared, given what is known.
        changed: which rows of ``rows joined with what is known`` differ from what is known.
        reason: why a revised row was revised.
    """

    table: str
    columns: tuple[str, ...]
    keys: list[str]
    day: str
    moment: str
    parse: Callable[[Payload, str], pd.DataFrame]
    judge: Callable[[pd.DataFrame, Entry], Verdict]
    known: Callable[[Batch | Warehouse, pd.DataFrame], pd.DataFrame]
    settle: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
    changed: Callable[[pd.DataFrame], np.ndarray]
    reason: Callable[[pd.DataFrame], pd.Series]


def ingest_bars(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: BarSource | FileSource,
    calendar: SessionCalendar,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
    breaker: CircuitBreaker | None = None,
) -> list[Ingested]:
    """Bring the bars of a request into ``raw_ohlcv``, and their actions into their own table.

    About ten sessions before the request are asked for again; where a split or a dividend has
    restated them, so is the ticker's whole history. A drop folder gives all its new files,
    whatever tickers and sessions they hold.

    Returns:
        One entry per ticker; a ticker that failed alone carries the reason as its status.

    Raises:
        IngestError: every ticker failed.
    """
    feed = _bars_feed(source, calendar.exchange)
    entries: Iterator[Entry]
    if isinstance(source, FileSource):
        entries = _take_files(warehouse, payloads, feed, source, calendar.exchange, request)
    else:
        asker = _Asker(
            warehouse, payloads, feed, source.name, request, source.fetch_bars, breaker, calendar
        )
        entries = asker.entries()
    return _ingest(warehouse, payloads, source, feed, request, entries, progress)


def ingest_headlines(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: NewsSource | FileSource,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
    breaker: CircuitBreaker | None = None,
) -> list[Ingested]:
    """Bring the headlines of a request into ``raw_news``; returns and raises as for bars."""
    feed = _news_feed(source)
    entries: Iterator[Entry]
    if isinstance(source, FileSource):
        entries = _take_files(warehouse, payloads, feed, source, "", request)
    else:
        fetch = source.fetch_headlines
        entries = _Asker(warehouse, payloads, feed, source.name, request, fetch, breaker).entries()
    return _ingest(warehouse, payloads, source, feed, request, entries, progress)


def replay(
    warehouse: Warehouse,
    payloads: PayloadStore,
    sources: Sequence[BarSource | NewsSource | FileSource],
    progress: Callable[[str], None] = lambda _: None,
) -> int:
    """Play the journal's entries that the warehouse does not hold, in their order.

    Returns:
        How many there were.

    Raises:
        IngestError: the entry of a source that is not among ``sources`` is missing.
        FileNotFoundError: a payload is gone.
    """
    readers = {source.name: source for source in sources}
    played = 0
    for entry in payloads.journal.entries(after=_last_entry(warehouse)):
        if entry.source not in readers:
            raise IngestError(
                f"batch {entry.number} of source {entry.source} is in the journal"
                f" {payloads.journal.folder} but not in the warehouse: run `rnn-pipeline rebuild`"
            )
        feed = _feed_of(entry, readers[entry.source])
        prepared = _read(payloads, feed, entry)
        with warehouse.batch() as batch:
            if _last_entry(batch) < entry.number:
                _apply(batch, feed, entry, *prepared)
                played += 1
        progress(f"batch {entry.number} of {entry.fetched_at:%Y-%m-%d %H:%M} played again")
    return played


def summary(results: Sequence[Ingested]) -> str:
    """One line on what an ingestion did: counts, and who failed and why."""
    counts = {
        name: sum(getattr(line, name) for line in results)
        for name in ("inserted", "revised", "unchanged", "quarantined")
    }
    failed: dict[str, list[str]] = {}
    for line in results:
        if line.status not in {"ok", "no data"}:
            failed.setdefault(line.status, []).append(line.ticker)
    words = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    reasons = "".join(
        f"; failed {', '.join(tickers[:5])}{' ...' if len(tickers) > 5 else ''}"
        f" ({len(tickers)}): {status}"
        for status, tickers in failed.items()
    )
    return f"{len(results):,} tickers: {words}{reasons}"


def _ingest(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: BarSource | NewsSource | FileSource,
    feed: _Feed,
    request: Request,
    entries: Iterator[Entry],
    progress: Callable[[str], None],
) -> list[Ingested]:
    if missing := replay(warehouse, payloads, [source], progress):
        progress(f"{missing} batches that a crash had taken from the warehouse were played again")
    results: list[Ingested] = []
    started = time.monotonic()
    for entry in entries:
        results += _commit(warehouse, payloads, feed, entry)
        progress(_progress(feed.table, len(results), len(request.tickers), started))
    progress(f"{feed.table}: {summary(results)}")
    if not isinstance(source, FileSource):
        bad = [line.status for line in results if line.status not in {"ok", "no data"}]
        if bad and len(bad) == len(results):
            raise IngestError(bad[0])
    return results


def _progress(table: str, done: int, total: int, started: float) -> str:
    """A bar, and how long it will take, for one line of a log or a terminal."""
    share = min(done / max(total, 1), 1.0)
    left = (time.monotonic() - started) * (1 - share) / share if share else 0.0
    bar = ("█" * round(20 * share)).ljust(20, "░")
    return f"{table}: {bar} {done:,} of {max(done, total):,} tickers, {left:.0f} s left"


def _bars_feed(source: BarSource | FileSource, exchange: str) -> _Feed:
    calendar = SessionCalendar(exchange)
    sessions = calendar.sessions(calendar.first_session, calendar.last_session)
    closes = calendar.closes(sessions)

    def judge(rows: pd.DataFrame, entry: Entry) -> Verdict:
        # A bar of the session under way is no fault: it will be final when asked for next.
        unfinished = sessions[closes.searchsorted(pd.Timestamp(entry.asked_at), "right")]
        rows = rows[rows["session"] != unfinished]
        verdict = check_bars(rows, sessions, closes, entry.asked_at)
        place = sessions.get_indexer(pd.DatetimeIndex(verdict.good["session"]))
        good = verdict.good.assign(close_at=closes[place], is_final=True)
        return Verdict(good, verdict.bad, verdict.summary)

    return _Feed(
        table="raw_ohlcv",
        columns=BAR_COLUMNS,
        keys=["ticker", "session"],
        day="session",
        moment="close_at",
        parse=source.parse_bars,
        judge=judge,
        known=_known_bars,
        settle=lambda rows, _known: rows,
        changed=revisions.bar_changed,
        reason=revisions.restatement,
    )


def _news_feed(source: NewsSource | FileSource) -> _Feed:
    return _Feed(
        table="raw_news",
        columns=HEADLINE_COLUMNS,
        keys=["ticker", "news_id"],
        day="published_at",
        moment="published_at",
        parse=source.parse_headlines,
        judge=lambda rows, entry: check_headlines(rows, entry.fetched_at),
        known=_known_headlines,
        settle=as_stories,
        changed=lambda rows: (
            (rows["title"] != rows["title_known"]) | (rows["summary"] != rows["summary_known"])
        ).to_numpy(),
        reason=lambda rows: pd.Series("edited", index=rows.index),
    )


def _feed_of(entry: Entry, source: Any) -> _Feed:
    return _bars_feed(source, entry.exchange) if entry.kind == "raw_ohlcv" else _news_feed(source)


def _known_bars(store: Batch | Warehouse, rows: pd.DataFrame) -> pd.DataFrame:
    return store.read(
        "SELECT * FROM raw_ohlcv WHERE list_contains(?, ticker) AND session BETWEEN ? AND ?"
        " QUALIFY revision = max(revision) OVER (PARTITION BY ticker, session)",
        [_tickers(rows), rows["session"].min(), rows["session"].max()],
    )


def _known_headlines(store: Batch | Warehouse, rows: pd.DataFrame) -> pd.DataFrame:
    return store.read(
        "SELECT * FROM raw_news WHERE list_contains(?, ticker)"
        "   AND (published_at >= ? OR list_contains(?, news_id))"
        " QUALIFY revision = max(revision) OVER (PARTITION BY ticker, news_id)",
        [_tickers(rows), rows["published_at"].min() - STORY_SPAN, rows["news_id"].tolist()],
    )


def _tickers(rows: pd.DataFrame) -> list[str]:
    return rows["ticker"].unique().tolist()


class _Asker:
    """Asks a source for one ticker after the other; a chunk of answers is an entry."""

    def __init__(
        self,
        warehouse: Warehouse,
        payloads: PayloadStore,
        feed: _Feed,
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
            return _parse(self.payloads, self.feed, fetch)
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


def _take_files(
    warehouse: Warehouse,
    payloads: PayloadStore,
    feed: _Feed,
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


def _commit(
    warehouse: Warehouse, payloads: PayloadStore, feed: _Feed, entry: Entry
) -> list[Ingested]:
    prepared = _read(payloads, feed, entry)
    journal = payloads.journal
    with warehouse.batch() as batch:
        if _last_entry(batch) != journal.last_number():
            raise IngestError(
                f"the journal {journal.folder} has run ahead of the warehouse: another process was"
                " stopped in the middle of a batch; run again"
            )
        entry = journal.append(entry)
        try:
            return _apply(batch, feed, entry, *prepared)
        except BaseException:
            journal.withdraw(entry)
            raise


def _last_entry(store: Batch | Warehouse) -> int:
    newest = store.read("SELECT coalesce(max(entry), 0) AS entry FROM ingest_ledger")
    return int(newest["entry"].item())


def _parse(payloads: PayloadStore, feed: _Feed, fetch: Fetch) -> pd.DataFrame:
    content = payloads.get(fetch.payload_sha256)
    rows = feed.parse(Payload(content, fetch.media_type, fetch.url), fetch.ticker)
    rows = rows[list(feed.columns)]
    if feed.day == "session" and fetch.first is not None:
        days = rows["session"]
        asked = days.between(pd.Timestamp(fetch.first), pd.Timestamp(fetch.last))
        rows = rows[asked | days.isna()]
    return rows


def _read(
    payloads: PayloadStore, feed: _Feed, entry: Entry
) -> tuple[Verdict | None, pd.DataFrame, list[Ingested]]:
    """Read an entry's payloads: the verdict on their rows, lines of ``raw_fetch``, failures.

    ``place`` numbers the lines, and says of each row which one it came with.
    """
    answers: list[pd.DataFrame] = []
    lines: list[dict[str, Any]] = []
    failed: list[Ingested] = []
    for fetch in entry.fetches:
        if not fetch.payload_sha256:
            failed.append(Ingested(feed.table, fetch.ticker, status=fetch.reason))
            continue
        try:
            rows = _parse(payloads, feed, fetch)
        except BadPayload as error:
            failed.append(Ingested(feed.table, fetch.ticker or fetch.url, status=str(error)))
            continue
        for line in [asdict(fetch)] if fetch.ticker else _lines_of_file(feed, fetch, rows):
            mine = rows if fetch.ticker else rows[rows["ticker"] == line["ticker"]]
            answers.append(mine.assign(place=len(lines)))
            lines.append({**line, "place": len(lines), "rows_in": len(mine)})
    filled = [rows for rows in answers if len(rows)]
    verdict = feed.judge(pd.concat(filled, ignore_index=True), entry) if filled else None
    return verdict, pd.DataFrame(lines), failed


def _lines_of_file(feed: _Feed, fetch: Fetch, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A file counts as one answer per ticker, about the days from its first row to its last."""
    spans = rows.groupby("ticker")[feed.day].agg(["min", "max"])
    return [
        {**asdict(fetch), "ticker": ticker, "first": _day(span.min), "last": _day(span.max)}
        for ticker, span in zip(spans.index, spans.itertuples(), strict=True)
    ]


def _day(moment: Any) -> date | None:
    return None if pd.isna(moment) else pd.Timestamp(moment).date()


def _apply(
    batch: Batch,
    feed: _Feed,
    entry: Entry,
    verdict: Verdict | None,
    lines: pd.DataFrame,
    failed: list[Ingested],
) -> list[Ingested]:
    """Write an entry, inside a transaction; the only way into the raw tables."""
    results = list(failed)
    if len(lines):
        lines["fetch_id"] = [f"{entry.number:08d}-{place:04d}" for place in lines["place"]]
        asked = _earlier_fetches(batch, feed.table, lines["ticker"].tolist())
        batch.append(
            "raw_fetch",
            lines.assign(
                entry=entry.number,
                kind=entry.kind,
                source=entry.source,
                fetched_at=entry.fetched_at,
            ),
        )
        judged, bad = pd.DataFrame({"ticker": [], "change": []}), pd.DataFrame({"ticker": []})
        ids = lines["fetch_id"].to_numpy()
        if verdict is not None and len(verdict.bad):
            bad = verdict.bad.assign(fetch_id=ids[verdict.bad["place"]]).drop(columns="place")
            _quarantine(batch, bad, entry)
        if verdict is not None and len(verdict.good):
            good = verdict.good.assign(fetch_id=ids[verdict.good["place"]])
            judged = _revise(batch, feed, entry, good, asked)
        results += _counted(feed.table, lines, judged, bad)
    if feed.table == "raw_ohlcv":
        record_status(batch, entry)
    ledger = pd.DataFrame([asdict(result) for result in results]).assign(
        entry=entry.number,
        run_id=entry.run_id,
        committed_at=entry.fetched_at,
        first=min((f.first for f in entry.fetches if f.first), default=None),
        last=max((f.last for f in entry.fetches if f.last), default=None),
    )
    batch.append("ingest_ledger", ledger)
    return results


def _revise(
    batch: Batch, feed: _Feed, entry: Entry, good: pd.DataFrame, asked: pd.DataFrame
) -> pd.DataFrame:
    """Write what is new or changed among good rows and return all of them with their change."""
    known = feed.known(batch, good)
    stamped = revisions.stamp(feed.settle(good, known), feed.moment, asked, entry.fetched_at)
    judged = revisions.classify(stamped, known, feed.keys, feed.changed, feed.reason)
    batch.append(feed.table, judged[judged["change"] != "unchanged"])
    if feed.table == "raw_ohlcv":
        _record_actions(batch, stamped)
    return judged


def _earlier_fetches(batch: Batch, table: str, tickers: list[str]) -> pd.DataFrame:
    return batch.read(
        "SELECT ticker, first, last, fetched_at FROM raw_fetch"
        " WHERE kind = ? AND list_contains(?, ticker)",
        [table, tickers],
    )


def _record_actions(batch: Batch, rows: pd.DataFrame) -> None:
    """Add splits and dividends that are new or changed, each change as a revision."""
    actions = rows.melt(
        ["ticker", "session", "known_at", "seen_at", "fetch_id"], ["split", "dividend"], "kind"
    ).query("value != 0")
    known = batch.read(
        "SELECT ticker, session, kind, revision, value AS value_known FROM corporate_actions"
        " WHERE list_contains(?, ticker)"
        " QUALIFY revision = max(revision) OVER (PARTITION BY ticker, session, kind)",
        [_tickers(rows)],
    )
    joined = actions.merge(known, on=["ticker", "session", "kind"], how="left")
    new = joined["revision"].isna()
    same = np.isclose(joined["value"], joined["value_known"], revisions.RELATIVE_TOLERANCE, atol=0)
    joined["revision"] = joined["revision"].fillna(-1).astype(int) + 1
    joined["known_at"] = joined["known_at"].where(new, joined["seen_at"])
    batch.append("corporate_actions", joined[new | ~same])


def _quarantine(batch: Batch, bad: pd.DataFrame, entry: Entry) -> None:
    """Put rejected rows aside, each once: as JSON, with its rules and the fetch it came with."""
    rows = bad[["ticker", "rule", "fetch_id"]].assign(
        table_name=entry.kind,
        row_json=[
            row.to_json(date_format="iso", double_precision=15)
            for _, row in bad.drop(columns=["rule", "fetch_id"]).iterrows()
        ],
        quarantined_at=entry.fetched_at,
    )
    rows["quarantine_id"] = [
        hashlib.sha256(f"{entry.kind} {row}".encode()).hexdigest()[:16] for row in rows["row_json"]
    ]
    known = batch.read(
        "SELECT quarantine_id FROM quarantine WHERE list_contains(?, quarantine_id)",
        [rows["quarantine_id"].tolist()],
    )
    new = ~rows["quarantine_id"].isin(known["quarantine_id"])
    batch.append("quarantine", rows[new].drop_duplicates("quarantine_id"))


def _counted(
    table: str, lines: pd.DataFrame, judged: pd.DataFrame, bad: pd.DataFrame
) -> list[Ingested]:
    changes = judged.groupby(["ticker", "change"]).size()
    rejected = bad.groupby("ticker").size()
    return [
        Ingested(
            table_name=table,
            ticker=line.ticker,
            status="ok" if line.rows_in else "no data",
            rows_in=int(line.rows_in),
            inserted=int(changes.get((line.ticker, "inserted"), 0)),
            revised=int(changes.get((line.ticker, "revised"), 0)),
            unchanged=int(changes.get((line.ticker, "unchanged"), 0)),
            quarantined=int(rejected.get(line.ticker, 0)),
        )
        for line in lines.itertuples()
    ]
