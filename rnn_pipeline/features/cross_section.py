"""Features that compare a ticker with the market: means and ranks over one session's rows.

The cross-section of a row is every ticker whose row of that session was known by the time its own
was. It therefore needs the rows of the whole universe, whichever tickers a run is about, and a
ticker whose bar arrives late compares itself with the others while they never change. Only the rows
of the session itself enter, so that a day computed alone equals the day computed with all history.

Sums run over the tickers in order of their names, one after the other: a ticker that was not there
adds an exact zero, and the bits of a row do not depend on who was listed before or after.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Table = NDArray[np.float64]
"""(sessions, tickers), NaN where a ticker has no row or no value."""

_KEYS = ["ticker", "session"]


@dataclass(frozen=True)
class CrossFeature:
    """One declared column.

    Attributes:
        name: The column's name.
        formula: What it is, in plain text.
        base: The feature that is compared; where it is NaN, so is this.
        compute: From a table of the base to a table of this.
        bounds: Smallest and largest value the formula can give.
    """

    name: str
    formula: str
    base: str
    compute: Callable[[Table], Table]
    bounds: tuple[float, float] | None = None


def _mean(table: Table) -> Table:
    total = np.zeros((len(table), 1))
    count = np.zeros((len(table), 1))
    for column in table.T:
        present = ~np.isnan(column)
        total[:, 0] += np.where(present, column, 0.0)
        count[:, 0] += present
    return total / np.maximum(count, 1.0)


def market_mean(table: Table) -> Table:
    """The equally weighted mean of the session, for every ticker that has a value."""
    return np.where(np.isnan(table), np.nan, _mean(table))


def less_market(table: Table) -> Table:
    """What is left of a value without the mean of the session."""
    return table - _mean(table)


def breadth(table: Table) -> Table:
    """Share of the session's values that are above zero."""
    return np.where(np.isnan(table), np.nan, _mean(np.where(np.isnan(table), np.nan, table > 0.0)))


def rank(table: Table) -> Table:
    """Rank within the session from 0 (smallest) to 1; ties share theirs; alone it is 0.5."""
    places = pd.DataFrame(table).rank(axis=1).to_numpy()
    others = (~np.isnan(table)).sum(axis=1, keepdims=True) - 1.0
    return np.where(others > 0, (places - 1.0) / np.maximum(others, 1.0), places * 0.5)


CROSS_FEATURES: tuple[CrossFeature, ...] = (
    CrossFeature("market_return_1", "mean of return_1 over tickers", "return_1", market_mean),
    CrossFeature(
        "market_breadth", "share of tickers with return_1 > 0", "return_1", breadth, (0.0, 1.0)
    ),
    *(
        CrossFeature(
            f"return_{n}_less_market",
            f"return_{n} - its mean over tickers",
            f"return_{n}",
            less_market,
        )
        for n in (1, 5, 20)
    ),
    *(
        CrossFeature(
            f"{base}_rank", f"rank of {base} among tickers, 0 to 1", base, rank, (0.0, 1.0)
        )
        for base in ("return_1", "return_20", "volatility_20", "log_dollar_volume_20")
    ),
)


def base_columns(features: Sequence[CrossFeature]) -> tuple[str, ...]:
    """The features that must be there of the whole universe."""
    return tuple(dict.fromkeys(feature.base for feature in features))


def cross_features(
    universe: pd.DataFrame, features: Sequence[CrossFeature] = CROSS_FEATURES
) -> pd.DataFrame:
    """Compare tickers session by session.

    Args:
        universe: ticker, session, known_at and the base columns of every ticker of the universe, in
            any order.
        features: The columns to compute.

    Returns:
        ticker, session and one float64 column per feature, sorted by ticker and session; NaN where
        the base is.

    Raises:
        ValueError: a column is missing, or a ticker and session stands twice.
    """
    missing = {*_KEYS, "known_at", *base_columns(features)} - set(universe.columns)
    if missing:
        raise ValueError(f"universe lacks the columns {sorted(missing)}")
    ticker, names = pd.factorize(universe["ticker"], sort=True)
    session, _ = pd.factorize(universe["session"], sort=True)
    order = np.lexsort((session, ticker))
    rows, ticker, session = universe.iloc[order], ticker[order], session[order]
    twice = np.flatnonzero((np.diff(ticker) == 0) & (np.diff(session) == 0))
    if len(twice):
        row = rows.iloc[twice[0]]
        raise ValueError(
            f"universe: {row['ticker']} on {row['session']:%Y-%m-%d} stands twice; give one row"
            " per ticker and session"
        )
    rows = rows.reset_index(drop=True)
    known_at = pd.factorize(rows["known_at"], sort=True)[0]
    values = {name: np.full((len(rows)), np.nan) for name in (f.name for f in features)}

    def fill(members: NDArray[np.intp], wanted: NDArray[np.intp]) -> None:
        """Compute with some rows, and keep some of them."""
        places, line = np.unique(session[members], return_inverse=True)
        own = pd.Series(np.arange(len(members)), index=members)[wanted].to_numpy()
        for base in base_columns(features):
            table = np.full((len(places), len(names)), np.nan)
            table[line, ticker[members]] = rows[base].to_numpy()[members]
            for feature in features:
                if feature.base == base:
                    result = feature.compute(table)
                    values[feature.name][wanted] = result[line[own], ticker[wanted]]

    # Where all rows of a session were known together, as they nearly always are, one table serves.
    by_session = pd.Series(known_at).groupby(session)
    mixed = (by_session.transform("max") != by_session.transform("min")).to_numpy()
    together = np.flatnonzero(~mixed)
    if len(together):
        fill(together, together)
    for day in np.unique(session[mixed]):
        own = np.flatnonzero(session == day)
        for moment in np.unique(known_at[own]):
            fill(own[known_at[own] <= moment], own[known_at[own] == moment])
    return pd.concat([rows[_KEYS], pd.DataFrame(values)], axis=1)


def cross_set_hash(features: Sequence[CrossFeature]) -> str:
    """Name exactly what made the columns: 16 hex digits over declarations and this module."""
    declared = [(feature.name, feature.formula, feature.base) for feature in features]
    source = inspect.getsource(inspect.getmodule(cross_set_hash))  # type: ignore[arg-type]
    return hashlib.sha256(f"{declared} {source}".encode()).hexdigest()[:16]
