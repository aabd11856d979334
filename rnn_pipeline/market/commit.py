"""From a journal entry to rows: read, judge, compare, write; the only way into the raw tables.

The raw tables are a pure function of the journal and its payloads. Live batches and replayed ones
take this same road, so whatever a crash took from the database can be played again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.market import revisions
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.listing import part_strangers
from rnn_pipeline.market.quality import Verdict, check_bars, check_headlines
from rnn_pipeline.market.quarantine import (
    NotReleasable,
    put_aside,
    refusal,
    take_back,
    waiting_rows,
)
from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    LISTING_COLUMNS,
    BadPayload,
    BarSource,
    NewsSource,
    Payload,
)
from rnn_pipeline.market.status import record_status
from rnn_pipeline.market.stories import STORY_SPAN, as_stories
from rnn_pipeline.warehouse import Batch, Entry, Fetch, PayloadStore, Warehouse


class IngestError(RuntimeError):
    """No ticker could be ingested; the message holds the first reason and what to do."""


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
class Feed:
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


def bars_feed(source: BarSource | FileSource, exchange: str) -> Feed:
    """How bars go the common path."""
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

    return Feed(
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


def news_feed(source: NewsSource | FileSource) -> Feed:
    """How headlines go the common path."""
    return Feed(
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


def _feed_of(entry: Entry, source: Any) -> Feed:
    return bars_feed(source, entry.exchange) if entry.kind == "raw_ohlcv" else news_feed(source)


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


def commit(
    warehouse: Warehouse, payloads: PayloadStore, feed: Feed, entry: Entry
) -> list[Ingested]:
    """Write an entry into the journal and, in one transaction, its rows into the warehouse."""
    prepared = _read(payloads, feed, entry)
    with _journalled(warehouse, payloads, entry) as (batch, numbered):
        return _apply(batch, feed, numbered, *prepared)


@contextmanager
def _journalled(
    warehouse: Warehouse, payloads: PayloadStore, entry: Entry
) -> Iterator[tuple[Batch, Entry]]:
    """A batch whose entry is in the journal before it commits, and out of it if it fails."""
    journal = payloads.journal
    with warehouse.batch() as batch:
        if last_entry(batch) != journal.last_number():
            raise IngestError(
                f"the journal {journal.folder} has run ahead of the warehouse: another process was"
                " stopped in the middle of a batch; run again"
            )
        numbered = journal.append(entry)
        try:
            yield batch, numbered
        except BaseException:
            journal.withdraw(numbered)
            raise


def last_entry(store: Batch | Warehouse) -> int:
    """Number of the newest journal entry that is in the warehouse; 0 if none is."""
    newest = store.read("SELECT coalesce(max(entry), 0) AS entry FROM ingest_ledger")
    return int(newest["entry"].item())


def parse(payloads: PayloadStore, feed: Feed, fetch: Fetch) -> pd.DataFrame:
    """Read a kept answer; rows that were not asked for are left out."""
    content = payloads.get(fetch.payload_sha256)
    rows = feed.parse(Payload(content, fetch.media_type, fetch.url), fetch.ticker)
    rows = rows[[*feed.columns, *rows.columns.intersection(LISTING_COLUMNS)]]
    if feed.day == "session" and fetch.first is not None:
        days = rows["session"]
        asked = days.between(pd.Timestamp(fetch.first), pd.Timestamp(fetch.last))
        rows = rows[asked | days.isna()]
    return rows


def _read(
    payloads: PayloadStore, feed: Feed, entry: Entry
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
            rows = parse(payloads, feed, fetch)
        except BadPayload as error:
            failed.append(Ingested(feed.table, fetch.ticker or fetch.url, status=str(error)))
            continue
        parts = _by_ticker(feed, fetch, rows) if not fetch.ticker else [asdict(fetch)]
        of_part = 0 if fetch.ticker else pd.factorize(rows["ticker"], sort=True)[0]
        answers.append(rows.assign(place=len(lines) + of_part))
        lines += [{"rows_in": len(rows), **_listing(rows), **part} for part in parts]
    filled = [rows for rows in answers if len(rows)]
    verdict = feed.judge(pd.concat(filled, ignore_index=True), entry) if filled else None
    return verdict, pd.DataFrame(lines).assign(place=range(len(lines))), failed


def _listing(rows: pd.DataFrame) -> dict[str, str | None]:
    """What an answer says beside its bars; None where it says nothing."""
    return {
        name: rows[name].iloc[0] if name in rows and len(rows) else None for name in LISTING_COLUMNS
    }


def _by_ticker(feed: Feed, fetch: Fetch, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A file counts as one answer per ticker, about the days from its first row to its last."""
    spans = rows.groupby("ticker", sort=True)[feed.day].agg(["min", "max", "size"])
    return [
        asdict(fetch)
        | {"ticker": span.Index, "first": _day(span.min), "last": _day(span.max)}
        | {"rows_in": span.size}
        for span in spans.itertuples()
    ]


def _day(moment: Any) -> date | None:
    return None if pd.isna(moment) else pd.Timestamp(moment).date()


def _apply(
    batch: Batch,
    feed: Feed,
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
        if verdict is not None and feed.table == "raw_ohlcv":
            verdict = part_strangers(batch, verdict, lines)
        judged, bad = pd.DataFrame({"ticker": [], "change": []}), pd.DataFrame({"ticker": []})
        ids = lines["fetch_id"].to_numpy()
        if verdict is not None and len(verdict.bad):
            bad = verdict.bad.assign(fetch_id=ids[verdict.bad["place"]])
            put_aside(batch, bad, entry)
        if verdict is not None and len(verdict.good):
            good = verdict.good.assign(fetch_id=ids[verdict.good["place"]])
            judged = _revise(batch, feed, entry, good, asked)
        results += _counted(feed.table, lines, judged, bad)
    if feed.table == "raw_ohlcv":
        record_status(batch, entry)
    _write_ledger(batch, entry, results)
    return results


def _write_ledger(batch: Batch, entry: Entry, results: Sequence[Ingested]) -> None:
    lines = pd.DataFrame([asdict(result) for result in results])
    batch.append(
        "ingest_ledger",
        lines.assign(
            entry=entry.number,
            run_id=entry.run_id,
            committed_at=entry.fetched_at,
            first=min((fetch.first for fetch in entry.fetches if fetch.first), default=None),
            last=max((fetch.last for fetch in entry.fetches if fetch.last), default=None),
        ),
    )


def release(
    warehouse: Warehouse, payloads: PayloadStore, ids: Sequence[str], run_id: str, now: datetime
) -> list[Ingested]:
    """Take quarantined rows in after all, as revisions known from now on.

    Returns:
        One ledger line per ticker and table.

    Raises:
        NotReleasable: an id is not in quarantine, or its row lacks what it needs.
    """
    held = waiting_rows(warehouse, list(ids))
    if strangers := sorted(set(ids) - set(held["quarantine_id"])):
        raise NotReleasable(
            f"{', '.join(strangers)} does not wait in quarantine: `rnn-pipeline quarantine list`"
            " shows what does"
        )
    if refused := [reason for row in held.itertuples() if (reason := refusal(row))]:
        raise NotReleasable("; ".join(refused))
    results = []
    for table, rows in held.groupby("table_name"):
        released = tuple(rows["quarantine_id"])
        entry = Entry(str(table), "", "", run_id, now, now, released=released)
        with _journalled(warehouse, payloads, entry) as (batch, numbered):
            results += _apply_release(batch, numbered)
    return results


def _apply_release(batch: Batch, entry: Entry) -> list[Ingested]:
    rows = take_back(batch, entry)
    keys, known_of = (
        (["ticker", "session"], _known_bars)
        if entry.kind == "raw_ohlcv"
        else (["ticker", "news_id"], _known_headlines)
    )
    known = known_of(batch, rows)
    revision = rows[keys].merge(known, on=keys, how="left")["revision"].fillna(-1).astype(int) + 1
    moment = pd.Timestamp(entry.fetched_at)
    batch.append(
        entry.kind,
        rows.assign(
            revision=revision.to_numpy(),
            known_at=moment,
            first_seen_at=moment,
            usable_at=moment,
            is_final=True,
            provenance="released",
            reason="released from quarantine",
        ),
    )
    results = [
        Ingested(
            entry.kind,
            ticker,
            "released",
            rows_in=len(mine),
            inserted=int((mine == 0).sum()),
            revised=int((mine > 0).sum()),
        )
        for ticker, mine in revision.groupby(rows["ticker"].to_numpy())
    ]
    _write_ledger(batch, entry, results)
    return results


def _revise(
    batch: Batch, feed: Feed, entry: Entry, good: pd.DataFrame, asked: pd.DataFrame
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
    for entry in payloads.journal.entries(after=last_entry(warehouse)):
        if entry.released:
            with warehouse.batch() as batch:
                if last_entry(batch) < entry.number:
                    _apply_release(batch, entry)
                    played += 1
            continue
        if entry.source not in readers:
            raise IngestError(
                f"batch {entry.number} of source {entry.source} is in the journal"
                f" {payloads.journal.folder} but not in the warehouse: run `rnn-pipeline rebuild`"
            )
        feed = _feed_of(entry, readers[entry.source])
        prepared = _read(payloads, feed, entry)
        with warehouse.batch() as batch:
            if last_entry(batch) < entry.number:
                _apply(batch, feed, entry, *prepared)
                played += 1
        progress(f"batch {entry.number} of {entry.fetched_at:%Y-%m-%d %H:%M} played again")
    return played
