"""What positions would have earned, after costs, with the fills one could have had.

A position decided at the close of session t is filled at the open of t+1 and held to the open of
t+2. Row s of the account is its state just after the open of s: it uses no price after that open,
so nothing that happens later can move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
COST_LEVELS = (0.0, 2.0, 5.0, 10.0, 20.0)
"""Costs per traded weight, in basis points, that results are shown at."""
VOLUME_SESSIONS = 20

_TRADED = ("gross_return", "turnover", "exposure")
_RUIN = 1e-12 - 1.0
"""As good as all: the logarithm of nothing has no number."""
_NO_TRADE = 1e-12
"""Weights that differ by less are the same after rounding."""


@dataclass(frozen=True)
class Backtest:
    """An account that began with 1.

    Attributes:
        frame: one row per session: session, gross_return, turnover (traded weight), exposure
            (sum of absolute weights after the fill), cost, net_return (fractions of the account),
            equity.
        fill: where orders were filled; ``label`` says it in words.
        sessions_per_year: what annual figures are scaled by.
        cost_bps: what a traded weight was charged.
    """

    frame: pd.DataFrame
    fill: Fill
    sessions_per_year: int
    cost_bps: float

    @property
    def label(self) -> str:
        """How orders were filled, for tables and plots."""
        return FILL_LABELS[self.fill]

    def summary(self) -> dict[str, float]:
        """Key figures: fractions, not percent; turnover and exposure are means per session.

        ``sharpe_ratio`` is mean / standard deviation of net returns, annualised, with a risk-free
        rate of zero (Sharpe 1994), ``sortino_ratio`` the same over the root mean square of the
        losses (Sortino and van der Meer 1991); both are NaN for an account that never moved, or
        never lost. ``max_drawdown`` is the largest fall from a peak (the start included), zero or
        negative. ``break_even_bps`` is :meth:`break_even_bps`.
        """
        # quantstats has these figures, and tests compare with it. It is not used here: it takes
        # what lies above 1 for prices, and it brings plotting along. empyrical-reloaded caps peewee
        # below the version that comes with yfinance, or imports yfinance itself.
        net, equity = self.frame["net_return"], self.frame["equity"]
        final = float(equity.iloc[-1])
        deviation = float(net.std())
        downside = float(np.sqrt((net.clip(upper=0.0) ** 2).mean()))
        peak = np.maximum.accumulate(np.maximum(equity.to_numpy(), 1.0))
        root = float(np.sqrt(self.sessions_per_year))
        return {
            "total_return": final - 1.0,
            "annual_return": final ** (self.sessions_per_year / len(net)) - 1.0,
            "annual_volatility": deviation * root,
            "sharpe_ratio": float(net.mean()) / deviation * root if deviation > 0 else np.nan,
            "sortino_ratio": float(net.mean()) / downside * root if downside > 0 else np.nan,
            "max_drawdown": float((equity.to_numpy() / peak).min()) - 1.0,
            "turnover": float(self.frame["turnover"].mean()),
            "exposure": float(self.frame["exposure"].mean()),
            "cost_paid": float(self.frame["cost"].sum()),
            "break_even_bps": self.break_even_bps(),
        }

    def at_cost(self, cost_bps: float) -> Backtest:
        """The same trades at another cost per traded weight."""
        frame = self.frame
        return replace(
            self, frame=_after_costs(frame[["session", *_TRADED]], cost_bps), cost_bps=cost_bps
        )

    def cost_sensitivity(self, levels: Sequence[float] = COST_LEVELS) -> pd.DataFrame:
        """Key figures at several costs: cost_bps and the columns of :meth:`summary`."""
        return pd.DataFrame(
            [{"cost_bps": level} | self.at_cost(level).summary() for level in levels]
        )

    def break_even_bps(self) -> float:
        """The cost per traded weight, in basis points, at which nothing would have been earned.

        Zero for an account that loses even when trading is free, NaN for one that never traded.
        """
        from scipy.optimize import brentq

        gross, turnover = (self.frame[name].to_numpy() for name in ("gross_return", "turnover"))
        if not turnover.any():
            return np.nan

        def growth(cost: float) -> float:
            return float(np.log1p(np.maximum(gross - cost * turnover, _RUIN)).sum())

        if growth(0.0) <= 0:
            return 0.0
        dear = 1e-4
        while growth(dear) > 0:
            dear *= 2
        return float(brentq(growth, 0.0, dear)) * 1e4


def backtest(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Trade the positions, charging ``spec.cost_bps`` on every traded weight, the first included.

    Weights are fractions of the account, restored at every fill; what prices have moved since the
    last one is traded back, and charged. A ticker without a row in a session is held at weight 0;
    one without a bar keeps its last price. An account that has lost everything stays at zero.

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
    path = _prices(positions, bars, fill)
    return _account(path, _weights(positions, path, fill), spec, fill)


def equal_weight(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Hold all tickers of ``positions`` at equal weights, restored every session (a benchmark)."""
    tickers = positions.groupby("session")["ticker"].transform("size")
    return backtest(positions.assign(position=1.0 / tickers), bars, spec, fill)


def buy_and_hold(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Put the same amount into every ticker of ``positions`` and never trade again (a benchmark).

    A ticker is bought at the first fill that it has a position for; until then its share is cash.
    """
    path = _prices(positions, bars, fill)
    told = _weights(positions.assign(position=1.0), path, fill)
    held = told.cummax().astype(bool)
    entry = path.where(held).bfill().iloc[0]
    value = (path / entry).where(held, 1.0)
    return _account(path, value.where(held, 0.0).div(value.sum(axis=1), axis=0), spec, fill)


def cash(
    positions: pd.DataFrame, bars: pd.DataFrame, spec: BacktestSpec, fill: Fill = "open"
) -> Backtest:
    """Hold nothing over the same sessions (the other benchmark)."""
    return backtest(positions.assign(position=0.0), bars, spec, fill)


def sign_positions(forecasts: pd.DataFrame) -> pd.DataFrame:
    """What a forecast is worth on its own: all tickers, long where it is positive, short below.

    Args:
        forecasts: ticker, session, forecast of one model and horizon, one row per ticker and
            session (see :func:`~rnn_pipeline.evidence.metrics.average_seeds`).

    Returns:
        ticker, session, position: +1, 0 or -1 divided by the tickers of the session.
    """
    tickers = forecasts.groupby("session")["ticker"].transform("size")
    rows = forecasts[["ticker", "session"]]
    return rows.assign(position=np.sign(forecasts["forecast"]) / tickers)


def capacity(
    positions: pd.DataFrame,
    bars: pd.DataFrame,
    participation: float = 0.01,
    share: float = 0.95,
) -> float:
    """The largest account that could have traded so without being the market.

    With it, ``share`` of the trades (by number) take at most ``participation`` of the ticker's mean
    dollar volume over the :data:`VOLUME_SESSIONS` sessions up to the decision.

    Args:
        positions: as in :func:`backtest`; filled at the next open.
        bars: those of :func:`backtest`, with volume.
        participation: part of the volume, 0 to 1.
        share: of the trades that must fit, 0 to 1.

    Returns:
        In the currency of the bars; NaN where nothing is traded.
    """
    require(bars, "bars", ("ticker", "session", "close", "volume"), unique=("ticker", "session"))
    path = _prices(positions, bars, "open")
    traded = _traded(path, _weights(positions, path, "open")).to_numpy()
    dollars = bars.assign(dollars=bars["close"] * bars["volume"]).pivot(
        index="session", columns="ticker", values="dollars"
    )
    volume = dollars.rolling(VOLUME_SESSIONS, min_periods=1).mean().shift(1)
    volume = volume.reindex(index=path.index, columns=path.columns).to_numpy()
    trades = traded > _NO_TRADE
    if not trades.any():
        return np.nan
    return float(np.nanquantile(participation * volume[trades] / traded[trades], 1 - share))


def _prices(positions: pd.DataFrame, bars: pd.DataFrame, fill: Fill) -> pd.DataFrame:
    """Adjusted fill prices (sessions, tickers) from the first position on, gaps filled forward."""
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
    price = bars["adj_close"]
    if fill == "open":
        price = bars["open"] * (bars["adj_close"] / bars["close"])
    path = bars.assign(price=price).pivot(index="session", columns="ticker", values="price").ffill()
    return path.loc[path.index >= positions["session"].min()]


def _weights(positions: pd.DataFrame, path: pd.DataFrame, fill: Fill) -> pd.DataFrame:
    """Weights just after the fill of each session, laid out as its prices."""
    weights = positions.pivot(index="session", columns="ticker", values="position")
    weights = weights.reindex(index=path.index, columns=path.columns).fillna(0.0)
    return weights.shift(1 if fill == "open" else 0, fill_value=0.0)


def _moves(path: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Weights held before each fill, and the returns that they had since the fill before."""
    return after.shift(1, fill_value=0.0), (path / path.shift(1) - 1).fillna(0.0)


def _traded(path: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Absolute weight traded at each fill, from where prices had carried the last weights."""
    before, returns = _moves(path, after)
    growth = 1.0 + _sum_over_tickers(before * returns)
    drifted = (before * (1.0 + returns)).div(np.where(growth > 0, growth, np.inf), axis=0)
    return (after - drifted).abs()


def _account(path: pd.DataFrame, after: pd.DataFrame, spec: BacktestSpec, fill: Fill) -> Backtest:
    before, returns = _moves(path, after)
    frame = pd.DataFrame(
        {
            "session": path.index,
            "gross_return": _sum_over_tickers(before * returns),
            "turnover": _sum_over_tickers(_traded(path, after)),
            "exposure": _sum_over_tickers(after.abs()),
        }
    )
    return Backtest(_after_costs(frame, spec.cost_bps), fill, spec.sessions_per_year, spec.cost_bps)


def _after_costs(frame: pd.DataFrame, cost_bps: float) -> pd.DataFrame:
    cost = frame["turnover"] * (cost_bps / 1e4)
    net_return = frame["gross_return"] - cost
    equity = np.cumprod(np.maximum(1.0 + net_return, 0.0))
    return frame.assign(cost=cost, net_return=net_return, equity=equity)


def _sum_over_tickers(table: pd.DataFrame) -> np.ndarray:
    """Sum each row of a (sessions, tickers) table; row-major, so a row's sum is its own affair."""
    return np.ascontiguousarray(table.to_numpy(dtype=np.float64)).sum(axis=1)
