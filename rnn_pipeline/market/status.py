"""Whether a ticker can be relied on, and which of its sessions are missing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.warehouse import Batch, Entry

#: Sessions behind the newest one that was asked for after which a ticker counts as stale.
STALE_AFTER = 5


def record_status(batch: Batch, entry: Entry) -> None:
    """Bring ``ticker_status`` and ``missing_sessions`` of an entry's tickers up to date.

    The status is ``ok``; ``stale`` (its newest bar lies :data:`STALE_AFTER` sessions or more behind
    what was asked for: suspended, delisted, or the source is late); ``no data`` (known, but without
    a bar); ``unknown`` (the source has no such ticker); ``delisted`` (it had once: delisted or
    renamed). A ticker that could not be asked for keeps its status. Nothing is ever filled in.
    """
    outcomes = {fetch.ticker: fetch for fetch in entry.fetches if fetch.outcome != "failed"}
    stored = _stored(batch, entry, list(outcomes))
    calendar = SessionCalendar(entry.exchange)
    closed = calendar.last_closed(pd.Timestamp(entry.asked_at))
    rows, gaps = [], []
    for ticker in sorted((outcomes.keys() | set(stored.index)) - {""}):
        fetch = outcomes.get(ticker)
        if ticker not in stored.index:
            unknown = fetch is not None and fetch.outcome == "unknown"
            rows.append({"ticker": ticker, "status": "unknown" if unknown else "no data"})
            rows[-1]["reason"] = fetch.reason if fetch else ""
            continue
        bars = stored.loc[ticker]
        expected = calendar.sessions(bars["first_session"], bars["last_session"])
        missing = len(expected) - bars["sessions"]
        if missing:
            gaps.append(_missing(batch, ticker, expected))
        status, reason = "ok", ""
        if fetch is not None and fetch.outcome == "unknown":
            status, reason = "delisted", fetch.reason
        elif fetch is not None and fetch.last is not None:
            wanted = min(pd.Timestamp(fetch.last), closed)
            behind = len(calendar.sessions(bars["last_session"], wanted)) - 1
            if behind >= STALE_AFTER:
                status = "stale"
                reason = f"the newest bar is {behind} sessions older than what was asked for"
        rows.append({"ticker": ticker, "status": status, "reason": reason, "missing": missing})
        rows[-1] |= bars.to_dict()
    if not rows:
        return
    checked = pd.DataFrame(rows).assign(checked_at=entry.fetched_at)
    batch.upsert("ticker_status", checked)
    empty = pd.DataFrame({"ticker": [], "session": []})
    days = pd.concat(gaps or [empty]).assign(checked_at=entry.fetched_at)
    batch.replace("missing_sessions", days, ticker=checked["ticker"].tolist())


def _stored(batch: Batch, entry: Entry, tickers: list[str]) -> pd.DataFrame:
    """First and last stored session and their number, by ticker; a file brings its tickers."""
    return batch.read(
        "SELECT ticker, min(session) AS first_session, max(session) AS last_session,"
        "       count(*) AS sessions"
        " FROM raw_ohlcv WHERE revision = 0 AND (list_contains(?, ticker) OR ticker IN"
        "   (SELECT ticker FROM raw_fetch WHERE entry = ?))"
        " GROUP BY ticker ORDER BY ticker",
        [tickers, entry.number],
    ).set_index("ticker")


def _missing(batch: Batch, ticker: str, expected: pd.DatetimeIndex) -> pd.DataFrame:
    there = batch.read(
        "SELECT DISTINCT session FROM raw_ohlcv WHERE ticker = ? ORDER BY session", [ticker]
    )
    days = expected[~np.isin(expected, pd.DatetimeIndex(there["session"]))]
    return pd.DataFrame({"ticker": ticker, "session": days})
