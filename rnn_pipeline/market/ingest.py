"""Fetch, keep the raw answer, validate, say what changed, commit.

Every source goes through this one path. A chunk of tickers is one transaction: after a crash its
rows, its quarantine and its ledger lines are all there or all absent, and running again completes
the work. What an earlier run already knows is recognised, so running twice changes nothing.

When a row counts as known. What happened after its ticker was first asked for was watched: its
row is ``observed``, known from the moment it was fetched. History loaded for the first time was
not watched: its rows are ``assumed`` to have been known at the session's close (a headline: when
it was published). A row that an earlier answer should have held and did not is a late arrival, and
late arrivals are always ``observed``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_pipeline.market.quality import Verdict, check_bars, check_headlines
from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    BarSource,
    NewsSource,
    Payload,
    SourceUnavailable,
)
from rnn_pipeline.warehouse import Batch, PayloadStore, Warehouse

if TYPE_CHECKING:
    import pandas as pd

    from rnn_pipeline.market.calendar import SessionCalendar

#: Identical requests to Yahoo differ near the seventh digit: less than this is no change.
RELATIVE_TOLERANCE = 5e-6

#: Tickers that share a transaction: enough to make its cost small, few enough to lose little.
TICKERS_PER_BATCH = 32

_VALUES = ["open", "high", "low", "close", "adj_close", "volume"]


class IngestError(RuntimeError):
    """No ticker could be ingested; the message holds the first reason and what to do."""


@dataclass(frozen=True)
class Request:
    """One ingestion: which tickers and sessions, at what moment, for which run."""

    tickers: Sequence[str]
    first: date
    last: date
    now: datetime
    run_id: str


@dataclass(frozen=True)
class Ingested:
    """What ingestion did to one ticker: a line of ``ingest_ledger``.

    ``status`` is ``ok``, ``no data``, or why the ticker failed.
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
        keys: columns that name a row across its revisions.
        moment: the column that says when the row's event was over (UTC).
        judge: good rows, and bad rows with the rule they broke.
        changed: which rows of ``rows joined with what is known`` differ from what is known.
        reason: why a revised row was revised.
    """

    table: str
    columns: tuple[str, ...]
    keys: list[str]
    moment: str
    fetch: Callable[[str, date, date], Payload]
    parse: Callable[[Payload, str], pd.DataFrame]
    judge: Callable[[pd.DataFrame], Verdict]
    changed: Callable[[pd.DataFrame], np.ndarray]
    reason: Callable[[pd.DataFrame], pd.Series]


def ingest_bars(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: BarSource,
    calendar: SessionCalendar,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Ingested]:
    """Bring the bars of a request into ``raw_ohlcv``, and their actions into their own table.

    Returns:
        One entry per ticker; a ticker that failed alone carries the reason as its status.

    Raises:
        IngestError: every ticker failed.
    """
    sessions = calendar.sessions(request.first, request.last)
    closes = calendar.closes(sessions)
    close_of = dict(zip(sessions, closes, strict=True))

    def judge(rows: pd.DataFrame) -> Verdict:
        # A source may answer with more than it was asked for.
        asked = rows["session"].between(str(request.first), str(request.last))
        verdict = check_bars(rows[asked], sessions, closes, request.now)
        good = verdict.good.assign(close_at=verdict.good["session"].map(close_of), is_final=True)
        return Verdict(good, verdict.bad, verdict.summary)

    feed = _Feed(
        table="raw_ohlcv",
        columns=BAR_COLUMNS,
        keys=["ticker", "session"],
        moment="close_at",
        fetch=source.fetch_bars,
        parse=source.parse_bars,
        judge=judge,
        changed=_bar_changed,
        reason=_restatement,
    )
    return _ingest(warehouse, payloads, source.name, feed, request, progress)


def ingest_headlines(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: NewsSource,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Ingested]:
    """Bring the headlines of a request into ``raw_news``; returns and raises as for bars."""

    def judge(rows: pd.DataFrame) -> Verdict:
        return check_headlines(rows, request.now)

    feed = _Feed(
        table="raw_news",
        columns=HEADLINE_COLUMNS,
        keys=["ticker", "news_id"],
        moment="published_at",
        fetch=source.fetch_headlines,
        parse=source.parse_headlines,
        judge=judge,
        changed=lambda rows: (
            (rows["title"] != rows["title_known"]) | (rows["summary"] != rows["summary_known"])
        ).to_numpy(),
        reason=lambda rows: rows["ticker"].map(lambda _: "edited"),
    )
    return _ingest(warehouse, payloads, source.name, feed, request, progress)


def _ingest(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: str,
    feed: _Feed,
    request: Request,
    progress: Callable[[str], None],
) -> list[Ingested]:
    results: list[Ingested] = []
    for start in range(0, len(request.tickers), TICKERS_PER_BATCH):
        chunk = request.tickers[start : start + TICKERS_PER_BATCH]
        progress(f"{feed.table}: {source} {', '.join(chunk)} {request.first} to {request.last}")
        answers, failed = _fetch(payloads, source, feed, request, chunk)
        results += failed
        if answers:
            results += _commit(warehouse, feed, request, answers)
    if results and all(result.status not in {"ok", "no data"} for result in results):
        raise IngestError(results[0].status)
    return results


def _fetch(
    payloads: PayloadStore, source: str, feed: _Feed, request: Request, tickers: Sequence[str]
) -> tuple[list[tuple[dict[str, Any], pd.DataFrame]], list[Ingested]]:
    """Ask for each ticker; an answer is its line of ``raw_fetch`` and its rows in the range."""
    answers, failed = [], []
    for place, ticker in enumerate(tickers):
        try:
            payload = feed.fetch(ticker, request.first, request.last)
            sha256 = payloads.put(payload.content)
            rows = feed.parse(payload, ticker)
        except SourceUnavailable as error:
            # Whoever cannot be reached for one ticker will not be for the next.
            failed += [Ingested(feed.table, each, status=str(error)) for each in tickers[place:]]
            break
        except ValueError as error:
            failed.append(Ingested(feed.table, ticker, status=str(error)))
            continue
        fetch = {
            "fetch_id": uuid.uuid4().hex,
            "kind": feed.table,
            "source": source,
            "ticker": ticker,
            "first": request.first,
            "last": request.last,
            "fetched_at": request.now,
            "media_type": payload.media_type,
            "url": payload.url,
            "payload_sha256": sha256,
            "payload_bytes": len(payload.content),
        }
        answers.append((fetch, rows[list(feed.columns)].assign(fetch_id=fetch["fetch_id"])))
    return answers, failed


def _commit(
    warehouse: Warehouse,
    feed: _Feed,
    request: Request,
    answers: list[tuple[dict[str, Any], pd.DataFrame]],
) -> list[Ingested]:
    import pandas as pd

    fetches = pd.DataFrame([fetch for fetch, _ in answers])
    filled = [rows for _, rows in answers if len(rows)]
    rows = pd.concat(filled, ignore_index=True) if filled else answers[0][1]
    verdict = feed.judge(rows)
    with warehouse.batch() as batch:
        asked = _earlier_fetches(batch, feed.table, fetches["ticker"])
        batch.append("raw_fetch", fetches)
        stamped = _stamp(verdict.good, feed.moment, asked, request.now)
        judged = _classify(batch, feed, stamped)
        batch.append(feed.table, judged[judged["change"] != "unchanged"])
        if feed.table == "raw_ohlcv":
            _record_actions(batch, stamped)
        batch.append("quarantine", _quarantined(verdict.bad, feed.table, request.now))
        results = [
            _summarise(feed.table, ticker, rows, judged, verdict.bad)
            for ticker in fetches["ticker"]
        ]
        ledger = pd.DataFrame([asdict(result) for result in results]).assign(
            run_id=request.run_id,
            first=request.first,
            last=request.last,
            committed_at=request.now,
        )
        batch.append("ingest_ledger", ledger)
    return results


def _earlier_fetches(batch: Batch, table: str, tickers: Iterable[str]) -> pd.DataFrame:
    return batch.read(
        "SELECT ticker, first, last, fetched_at FROM raw_fetch"
        " WHERE kind = ? AND list_contains(?, ticker)",
        [table, list(tickers)],
    )


def _stamp(rows: pd.DataFrame, moment: str, asked: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Add ``known_at``, ``first_seen_at``, ``usable_at`` and ``provenance`` (see the module)."""
    import pandas as pd

    happened = pd.to_datetime(rows[moment], utc=True)
    day = happened.dt.tz_localize(None).dt.normalize()
    observed = np.zeros(len(rows), dtype=bool)
    for ticker, fetches in asked.groupby("ticker"):
        mine = (rows["ticker"] == ticker).to_numpy()
        observed |= mine & (happened >= fetches["fetched_at"].min()).to_numpy()
        for fetch in fetches.drop_duplicates(["first", "last"]).itertuples():
            missed = (day >= fetch.first) & (day <= fetch.last) & (happened < fetch.fetched_at)
            observed |= mine & missed.to_numpy()
    known_at = happened.where(~observed, pd.Timestamp(now))
    return rows.assign(
        known_at=known_at,
        first_seen_at=known_at,
        usable_at=known_at,
        provenance=np.where(observed, "observed", "assumed"),
        seen_at=pd.Timestamp(now),
    )


def _classify(batch: Batch, feed: _Feed, rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``change`` (inserted, revised, unchanged), ``revision`` and ``reason``."""
    keys = ", ".join(feed.keys)
    known = batch.read(
        f"SELECT * FROM {feed.table} WHERE list_contains(?, ticker)"
        f" QUALIFY revision = max(revision) OVER (PARTITION BY {keys})",
        [rows["ticker"].unique().tolist()],
    )
    joined = rows.merge(
        known.drop(columns=["fetch_id", "provenance"]),
        on=feed.keys,
        how="left",
        suffixes=("", "_known"),
    )
    new = joined["revision"].isna()
    revised = ~new & feed.changed(joined)
    joined["change"] = np.select([new, revised], ["inserted", "revised"], "unchanged")
    joined["revision"] = joined["revision"].fillna(-1).astype(int) + 1
    joined["reason"] = feed.reason(joined).where(revised, "first load")
    # A revision was not known before it was seen, however old the row that it corrects.
    for column in ("known_at", "first_seen_at", "usable_at"):
        joined[column] = joined[column].where(~revised, joined["seen_at"])
    joined.loc[revised, "provenance"] = "observed"
    return joined


def _bar_changed(rows: pd.DataFrame) -> np.ndarray:
    known = rows[[f"{name}_known" for name in _VALUES]].to_numpy(dtype=float)
    same = np.isclose(rows[_VALUES].to_numpy(dtype=float), known, rtol=RELATIVE_TOLERANCE, atol=0)
    return ~same.all(axis=1)


def _restatement(rows: pd.DataFrame) -> pd.Series:
    """Name what changed a bar: a split moves close, a dividend adj_close alone."""
    close = rows["close"] / rows["close_known"]
    moved = rows["change"].eq("revised") & ~np.isclose(close, 1, rtol=RELATIVE_TOLERANCE)
    # A split moves every bar of the overlap by one ratio; a single moved bar is a correction.
    spread = close.where(moved).groupby(rows["ticker"]).transform(lambda r: r.max() - r.min())
    count = moved.groupby(rows["ticker"]).transform("sum")
    split = moved & (count > 1) & (spread < 1e-3)
    dividend = ~moved & ~np.isclose(
        rows["adj_close"], rows["adj_close_known"], rtol=RELATIVE_TOLERANCE
    )
    names = np.select([split, dividend], ["split", "dividend"], "correction")
    return rows["ticker"].mask(rows["ticker"].notna(), names)


def _record_actions(batch: Batch, rows: pd.DataFrame) -> None:
    actions = rows.melt(
        id_vars=["ticker", "session", "known_at", "fetch_id"],
        value_vars=["split", "dividend"],
        var_name="kind",
    )
    actions = actions[actions["value"] != 0]
    known = batch.read("SELECT ticker, session, kind, TRUE AS stored FROM corporate_actions")
    actions = actions.merge(known, on=["ticker", "session", "kind"], how="left")
    batch.append("corporate_actions", actions[actions["stored"].isna()])


def _quarantined(bad: pd.DataFrame, table: str, now: datetime) -> pd.DataFrame:
    """Rejected rows for ``quarantine``: the row as JSON, its rule, and the fetch it came with."""
    return bad[["ticker", "rule", "fetch_id"]].assign(
        quarantine_id=[uuid.uuid4().hex for _ in range(len(bad))],
        table_name=table,
        row_json=[
            row.to_json(date_format="iso")
            for _, row in bad.drop(columns=["rule", "fetch_id"]).iterrows()
        ],
        quarantined_at=now,
    )


def _summarise(
    table: str, ticker: str, rows: pd.DataFrame, judged: pd.DataFrame, bad: pd.DataFrame
) -> Ingested:
    rows_in = int((rows["ticker"] == ticker).sum())
    changes = judged.loc[judged["ticker"] == ticker, "change"].value_counts()
    return Ingested(
        table_name=table,
        ticker=ticker,
        status="ok" if rows_in else "no data",
        rows_in=rows_in,
        inserted=int(changes.get("inserted", 0)),
        revised=int(changes.get("revised", 0)),
        unchanged=int(changes.get("unchanged", 0)),
        quarantined=int((bad["ticker"] == ticker).sum()),
    )
