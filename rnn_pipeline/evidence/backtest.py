"""What positions would have earned, after costs, with the fills one could have had.

A position decided at the close of session t is filled at the open of t+1 and held to the open of
t+2. Row s of the account is its state just after the open of s: it uses no price after that open,
so nothing that happens later can move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import BacktestSpec

Fill = Literal["open", "close"]
FILL_LABELS: dict[Fill, str] = {
    "open": "filled at the next open",
    "close": "filled at the same close (optimistic)",
}


@dataclass(frozen=True)
class Backtest:
    """An account that began with 1.

    Attributes:
        frame: one row per session: session, gross_return, cost, net_return (fractions of the
            account), turnover (traded weight), exposure (sum of absolute weights after the fill),
            equity.
        fill: where orders were filled; ``label`` says it in words.
        sessions_per_year: what annual figures are scaled by.
    """

    frame: pd.DataFrame
    fill: Fill
    sessions_per_year: int

    @property
    def label(self) -> str:
        """How orders were filled, for tables and plots."""
        return FILL_LABELS[self.fill]

    def summary(self) -> dict[str, float]:
        """Key figures: fractions, not percent; turnover and exposure are means per session.

        ``sharpe_ratio`` is mean / standard deviation of net returns, annualised, with a risk-free
        rate of zero (Sharpe 1994), and NaN for an account that never moved. ``max_drawdown`` is the
        largest fall from a peak (the start included), zero or negative.
        """
        # empyrical-reloaded has these figures, but its releases either cap peewee below the version
        # that comes with yfinance or import yfinance themselves; quantstats brings plotting along.
        net, equity = self.frame["net_return"], self.frame["equity"]
        final = float(equity.iloc[-1])
        deviation = float(net.std())
        peak = np.maximum.accumulate(np.maximum(equity.to_numpy(), 1.0))
        root = float(np.sqrt(self.sessions_per_year))
        return {
            "total_return": final - 1.0,
            "annual_return": final ** (self.sessions_per_year / len(net)) - 1.0,
            "annual_volatility": deviation * root,
            "sharpe_ratio": float(net.mean()) / deviation * root if deviation > 0 else np.nan,
            "max_drawdown": float((equity.to_numpy() / peak).min()) - 1.0,
            "turnover": float(self.frame["turnover"].mean()),
            "exposure": float(self.frame["exposure"].mean()),
            "cost_paid": float(self.frame["cost"].sum()),
        }


def backtest(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Trade the positions, charging ``spec.cost_bps`` on every traded weight, the first included.

    Weights are fractions of the account, restored at every fill; restoring what prices moved is not
    charged. A ticker without a row in a session is held at weight 0; one without a bar keeps its
    last price. An account that has lost everything stays at zero.

    Args:
        positions: ticker, session, position (weight decided at the close of session).
        bars: ticker, session, open, close, adj_close; one row per ticker and session. Opens are
            put on the adjusted scale by adj_close / close.
        spec: cost and the sessions of a year.
        fill: "open" of the next session, or the same "close" that the decision has just seen, which
            nobody can trade: an upper bound, to be labelled as such.

    Returns:
        The account from the first session of ``positions`` to the last session of ``bars``.

    Raises:
        ValueError: no positions, one that is not finite, or one for a session without a bar.
    """
    keys = ["ticker", "session"]
    require(positions, "positions", (*keys, "position"), unique=keys, finite=("position",))
    if positions.empty:
        raise ValueError("positions is empty: there is nothing to trade")
    bars = bars[bars["ticker"].isin(positions["ticker"])]
    prices = ("open", "close", "adj_close")
    require(bars, "bars", (*keys, *prices), unique=keys, finite=prices)
    unpriced = positions[keys].merge(bars[keys], how="left", indicator=True)
    unpriced = unpriced[unpriced["_merge"] == "left_only"]
    if len(unpriced):
        ticker, session = unpriced[keys].iloc[0]
        raise ValueError(f"{ticker} has a position but no bar on {session:%Y-%m-%d}; pass its bar")

    if fill == "open":
        price, delay = bars["open"] * (bars["adj_close"] / bars["close"]), 1
    else:
        price, delay = bars["adj_close"], 0
    path = bars.assign(price=price).pivot(index="session", columns="ticker", values="price").ffill()
    path = path.loc[path.index >= positions["session"].min()]
    returns = (path / path.shift(1) - 1).fillna(0.0)
    weights = positions.pivot(index="session", columns="ticker", values="position")
    weights = weights.reindex(index=path.index, columns=path.columns).fillna(0.0)
    after = weights.shift(delay, fill_value=0.0)
    before = after.shift(1, fill_value=0.0)

    gross_return = _sum_over_tickers(before * returns)
    turnover = _sum_over_tickers((after - before).abs())
    cost = turnover * (spec.cost_bps / 1e4)
    net_return = gross_return - cost
    frame = pd.DataFrame(
        {
            "session": path.index,
            "gross_return": gross_return,
            "cost": cost,
            "net_return": net_return,
            "turnover": turnover,
            "exposure": _sum_over_tickers(after.abs()),
            "equity": np.cumprod(np.maximum(1.0 + net_return, 0.0)),
        }
    )
    return Backtest(frame, fill, spec.sessions_per_year)


def buy_and_hold(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Hold all tickers of ``positions`` at equal weight over the same sessions (a benchmark).

    Exactly buy and hold for one ticker; for several, equal weights are restored every session.
    """
    tickers = positions.groupby("session")["ticker"].transform("size")
    return backtest(positions.assign(position=1.0 / tickers), bars, spec, fill)


def cash(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Hold nothing over the same sessions (the other benchmark)."""
    return backtest(positions.assign(position=0.0), bars, spec, fill)


def _sum_over_tickers(table: pd.DataFrame) -> np.ndarray:
    """Sum each row of a (sessions, tickers) table; row-major, so a row's sum is its own affair."""
    return np.ascontiguousarray(table.to_numpy(dtype=np.float64)).sum(axis=1)
