"""What is new in an answer, what changed, and since when it counts as known.

What happened after its ticker was first asked for was watched: its row is ``observed``, known from
the moment it was fetched. History loaded for the first time was not watched: its rows are
``assumed`` to have been known at the session's close (a headline: when it was published). A row
that an earlier answer should have held and did not is a late arrival, and late arrivals and
revisions are always ``observed``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd

#: Identical requests to Yahoo differ near the seventh digit: less than this is no change.
RELATIVE_TOLERANCE = 5e-6

#: A restatement multiplies every price by one ratio, within what rounding to a cent leaves of it.
SAME_RATIO = 1e-3

_VALUES = ["open", "high", "low", "close", "adj_close", "volume", "dividend", "split"]


def stamp(rows: pd.DataFrame, moment: str, asked: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Say since when each row counts as known, and why.

    Args:
        rows: ticker, the column named by ``moment``, and more.
        moment: column with the moment (UTC) at which what the row tells was over.
        asked: earlier fetches of these tickers: ticker, first, last, fetched_at.
        now: when these rows were fetched (UTC).

    Returns:
        The rows with ``known_at``, ``first_seen_at``, ``usable_at``, ``seen_at``, ``provenance``.
    """
    happened = pd.to_datetime(rows[moment], utc=True)
    first_asked = asked.groupby("ticker")["fetched_at"].min().reindex(rows["ticker"]).array
    observed = (happened >= first_asked) | _asked_before(rows["ticker"], happened, asked)
    known_at = happened.where(~observed, pd.Timestamp(now))
    return rows.assign(
        known_at=known_at,
        first_seen_at=known_at,
        usable_at=known_at,
        provenance=np.where(observed, "observed", "assumed"),
        seen_at=pd.Timestamp(now),
    )


def _asked_before(tickers: pd.Series, happened: pd.Series, asked: pd.DataFrame) -> pd.Series:
    """Whether each row's day lies in a range that its ticker was asked for before."""
    days = happened.dt.tz_localize(None).dt.normalize()
    before = pd.Series(False, index=happened.index)
    # Ranges of successive runs overlap: merged, a ticker has one or a few.
    for ticker, ranges in _merged(asked).groupby("ticker"):
        mine = (tickers == ticker).to_numpy()
        place = ranges["first"].searchsorted(days[mine], "right") - 1
        before[mine] = (place >= 0) & (days[mine] <= ranges["last"].to_numpy()[place])
    return before


def _merged(asked: pd.DataFrame) -> pd.DataFrame:
    """Ranges of days that were asked for, joined where they overlap, in order by ticker."""
    ranges = asked[["ticker", "first", "last"]].drop_duplicates().sort_values(["ticker", "first"])
    reach = ranges.groupby("ticker")["last"].cummax()
    starts = ranges["first"] > reach.groupby(ranges["ticker"]).shift()
    block = (starts | ~ranges["ticker"].duplicated()).cumsum()
    return ranges.groupby(block).agg({"ticker": "first", "first": "min", "last": "max"})


def classify(
    rows: pd.DataFrame,
    known: pd.DataFrame,
    keys: list[str],
    changed: Callable[[pd.DataFrame], np.ndarray],
    reason: Callable[[pd.DataFrame], pd.Series],
) -> pd.DataFrame:
    """Compare stamped rows with the newest revision of what is known.

    Args:
        rows: from :func:`stamp`, each key once.
        known: newest revisions, with ``revision``.
        keys: columns that name a row across its revisions.
        changed: which joined rows differ from what is known (columns ending in ``_known``).
        reason: why a joined row was revised.

    Returns:
        The rows with ``change`` (inserted, revised, unchanged), ``revision`` and ``reason``.
    """
    joined = rows.merge(
        known.drop(columns=["fetch_id", "provenance"]),
        on=keys,
        how="left",
        suffixes=("", "_known"),
    )
    new = joined["revision"].isna()
    revised = ~new & changed(joined)
    joined["change"] = np.select([new, revised], ["inserted", "revised"], "unchanged")
    joined["revision"] = joined["revision"].fillna(-1).astype(int) + 1
    joined["reason"] = reason(joined).where(revised, "first load")
    # A revision was not known before it was seen, however old the row that it corrects.
    for column in ("known_at", "first_seen_at", "usable_at"):
        joined[column] = joined[column].where(~revised, joined["seen_at"])
    joined.loc[revised, "provenance"] = "observed"
    return joined


def bar_changed(joined: pd.DataFrame) -> np.ndarray:
    """Which bars differ from what is known by more than :data:`RELATIVE_TOLERANCE`."""
    known = joined[[f"{name}_known" for name in _VALUES]].to_numpy(dtype=float)
    same = np.isclose(joined[_VALUES].to_numpy(dtype=float), known, RELATIVE_TOLERANCE, atol=0)
    return ~same.all(axis=1)


def restatement(joined: pd.DataFrame) -> pd.Series:
    """Name what changed a bar: a split moves close, a dividend adj_close alone.

    Either moves several bars by one ratio, or is new on its own day; the rest are corrections.
    """
    close = joined["close"] / joined["close_known"]
    adj_close = joined["adj_close"] / joined["adj_close_known"]
    new_split = joined["split"] != joined["split_known"]
    new_dividend = joined["dividend"] != joined["dividend_known"]
    split = _moved_together(joined["ticker"], close) | new_split
    dividend = ~_moved(close) & (_moved_together(joined["ticker"], adj_close) | new_dividend)
    names = np.select([split, dividend], ["split", "dividend"], "correction")
    return pd.Series(names, index=joined.index)


def restated_tickers(rows: pd.DataFrame, known: pd.DataFrame) -> set[str]:
    """Tickers whose whole history a split or dividend has restated, judged by an overlap.

    Args:
        rows: fetched bars, good and bad.
        known: newest revisions of what is known.
    """
    prices = rows[["close", "adj_close"]]
    usable = rows[(prices > 0).all(axis=1) & np.isfinite(prices).all(axis=1)]
    joined = usable.merge(known, on=["ticker", "session"], suffixes=("", "_known"))
    moved = joined[bar_changed(joined)]
    return set(moved.loc[restatement(moved) != "correction", "ticker"])


def _moved(ratio: pd.Series) -> pd.Series:
    return ~pd.Series(np.isclose(ratio, 1, rtol=RELATIVE_TOLERANCE), index=ratio.index)


def _moved_together(tickers: pd.Series, ratio: pd.Series) -> pd.Series:
    """Where a ticker's values changed, several at once and by one ratio."""
    moved = ratio.where(_moved(ratio)).groupby(tickers)
    spread = moved.transform("max") / moved.transform("min")
    return _moved(ratio) & (moved.transform("count") > 1) & (spread < 1 + SAME_RATIO)
