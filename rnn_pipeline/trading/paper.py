"""The paper account: decisions traded on paper as bars arrive, and why it is not the backtest.

A decision of session t is an order for the open of t+1. The backtest fills it there at the very
weight decided, whatever happens. The paper account fills what could have been filled: an order
that is there before the open, in a ticker that trades, of the size computed at the last close,
at a price a little worse than the open, and pays for it. Row s is the account just after the open
of s and rests on no later price. Weights, returns and costs are fractions of the account, reckoned
as in :mod:`rnn_pipeline.evidence.backtest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.backtest import backtest
from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import BacktestSpec, PaperSpec

ORDER_COLUMNS = ("ticker", "session", "position", "known_at")

EXPLANATIONS = {
    "revised": "decisions as they stand today instead of those that were recorded",
    "missed": "orders that came too late, or met no bar or no volume",
    "drift": "orders sized at the last close, not at the open",
    "slippage": "fills worse than the open",
    "cost": "costs other than the backtest's",
}
"""What lies between the promise and the paper account, in the order in which it is added."""

ACCOUNT_COLUMNS = (
    *("session", "equity", "promise", *EXPLANATIONS),
    *("net_return", "gross_return", "turnover", "exposure"),
)
FILL_COLUMNS = (
    *("ticker", "session", "decided", "price", "weight_before", "weight_wanted", "weight_after"),
    *("cost", "slippage", "missed"),
)

_KEYS = ["ticker", "session"]
_PRICES = ("open", "close", "adj_close")
_NOTHING = 1e-12
"""Weights that differ by less are the same after rounding."""


@dataclass(frozen=True)
class PaperAccount:
    """An account that began with 1.

    Attributes:
        account: one row per session: equity, the backtest's ``promise``, what explains their
            difference (:data:`EXPLANATIONS`; promise + explanations = equity), and the account's
            net_return, gross_return, turnover and exposure.
        fills: one row per order: ticker, session it was for, session it was decided at, unadjusted
            open (NaN without a bar), weights before, as decided and after, cost and slippage paid,
            and why it was missed ("" where it was not).
    """

    account: pd.DataFrame
    fills: pd.DataFrame


def new_orders(
    recorded: pd.DataFrame, decisions: pd.DataFrame, spec: PaperSpec, now: datetime
) -> pd.DataFrame:
    """Decisions that are orders now; what was recorded is never changed.

    A ticker's orders follow its newest recorded one; a ticker without any begins with the newest
    session of the others. The first order of all is of ``spec.start``, and such a simulation takes
    every decision as made when its bars were known; without a start it is of the newest session,
    and a decision counts from the moment it is recorded.

    Args:
        recorded: ticker, session, position, known_at of all orders so far.
        decisions: the trading_decisions frame.
        spec: where to begin.
        now: zone-aware.
    """
    require(recorded, "recorded", ORDER_COLUMNS, unique=_KEYS)
    require(decisions, "decisions", ORDER_COLUMNS, unique=_KEYS, finite=("position",))
    if recorded.empty:
        begin = decisions["session"].max() if spec.start is None else pd.Timestamp(spec.start)
    else:
        begin = recorded["session"].max()
    begins = dict.fromkeys(decisions["ticker"], begin)
    begins |= recorded.groupby("ticker")["session"].max().to_dict()
    since = pd.to_datetime(decisions["ticker"].map(begins))
    mine = decisions.loc[decisions["session"] >= since, list(ORDER_COLUMNS)]
    known = mine.merge(recorded[_KEYS], how="left", indicator=True)["_merge"].array == "both"
    new = mine[~known].sort_values(_KEYS, ignore_index=True)
    if spec.start is None:
        new["known_at"] = new["known_at"].clip(lower=pd.Timestamp(now))
    return new


def paper_account(
    orders: pd.DataFrame,
    decisions: pd.DataFrame,
    bars: pd.DataFrame,
    opens: pd.Series,
    costs: BacktestSpec,
    spec: PaperSpec,
) -> PaperAccount:
    """Trade recorded orders on paper and lay the account beside the backtest.

    A ticker without a decision for a session, or whose order was missed, keeps what it holds. A
    ticker without a bar keeps its last price. Bars are those known today, as in the backtest: a
    corrected bar restates the account.

    Args:
        orders: ticker, session, position, known_at.
        decisions: today's trading_decisions; those before the first order are left out.
        bars: ticker, session, open, close, adj_close, volume; one row per ticker and session.
        opens: opening moment of every session of ``bars`` from the first order on, by session.
        costs: what the backtest charges.
        spec: what the paper account charges.

    Returns:
        The account from the first order's session to the last bar; empty without orders.

    Raises:
        ValueError: a column is missing, a row stands twice, or a session has no opening moment.
    """
    require(orders, "orders", ORDER_COLUMNS, unique=_KEYS, finite=("position",))
    require(bars, "bars", (*_KEYS, *_PRICES, "volume"), unique=_KEYS, finite=_PRICES)
    if orders.empty:
        return PaperAccount(
            pd.DataFrame(columns=list(ACCOUNT_COLUMNS)), pd.DataFrame(columns=list(FILL_COLUMNS))
        )
    market = _market(orders, bars, opens)
    told, extra = costs.cost_bps / 1e4, spec.slippage_bps / 1e4
    paid = told if spec.cost_bps is None else spec.cost_bps / 1e4
    everything = np.ones_like(market.fillable)
    promised = _promise(decisions, bars, costs, market.sessions)
    as_ordered = _trade(market, everything, sized_at_close=False)
    as_filled = _trade(market, market.fillable, sized_at_close=False)
    as_sized = _trade(market, market.fillable, sized_at_close=True)
    slipped = as_sized.equity_at(told + extra)
    equity = as_sized.equity_at(paid + extra)
    account = pd.DataFrame(
        {
            "session": market.sessions,
            "equity": equity,
            "promise": promised,
            "revised": as_ordered.equity_at(told) - promised,
            "missed": as_filled.equity_at(told) - as_ordered.equity_at(told),
            "drift": as_sized.equity_at(told) - as_filled.equity_at(told),
            "slippage": slipped - as_sized.equity_at(told),
            "cost": equity - slipped,
            "net_return": as_sized.net_return(paid + extra),
            "gross_return": as_sized.gross_return,
            "turnover": as_sized.traded.sum(axis=1),
            "exposure": np.abs(as_sized.after).sum(axis=1),
        }
    )
    return PaperAccount(account, _fills(market, as_sized, paid, extra))


@dataclass(frozen=True)
class _Market:
    """Prices and orders, all (sessions, tickers) with rows in the order of ``sessions``."""

    sessions: pd.DatetimeIndex
    tickers: pd.Index
    quoted: np.ndarray
    open: np.ndarray
    close: np.ndarray
    wanted: np.ndarray
    missed: np.ndarray

    @property
    def fillable(self) -> np.ndarray:
        return self.missed == ""


@dataclass(frozen=True)
class _Trades:
    """What an account did, whatever it was charged."""

    gross_return: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def traded(self) -> np.ndarray:
        return np.abs(self.after - self.before)

    def net_return(self, rate: float) -> np.ndarray:
        return self.gross_return - rate * self.traded.sum(axis=1)

    def equity_at(self, rate: float) -> np.ndarray:
        return np.cumprod(np.maximum(1.0 + self.net_return(rate), 0.0))


def _market(orders: pd.DataFrame, bars: pd.DataFrame, opens: pd.Series) -> _Market:
    bars = bars[bars["ticker"].isin(orders["ticker"])]
    adjustment = bars["adj_close"] / bars["close"]
    laid_out = bars.assign(quoted=bars["open"], open=bars["open"] * adjustment).pivot(
        index="session", columns="ticker", values=["quoted", "open", "adj_close", "volume"]
    )
    first = orders["session"].min()
    quoted, volume = laid_out["quoted"].loc[first:], laid_out["volume"].loc[first:]
    sessions, tickers = quoted.index, quoted.columns
    without = sessions.difference(opens.index)
    if len(without):
        raise ValueError(f"opens lacks {without[0]:%Y-%m-%d}: pass the opening of every session")

    def ordered(column: str) -> pd.DataFrame:
        table = orders.pivot(index="session", columns="ticker", values=column)
        return table.reindex(index=sessions, columns=tickers).shift(1)

    wanted, known_at = ordered("position"), ordered("known_at")
    opening = pd.DatetimeIndex(opens.reindex(sessions))
    late = known_at.gt(pd.Series(opening, index=sessions), axis=0)
    reasons = [
        (quoted.isna().to_numpy(), "no bar"),
        (~(volume > 0).to_numpy(), "no volume"),
        (wanted.isna().to_numpy(), "no decision"),
        (late.to_numpy(), "decided too late"),
    ]
    missed = np.select([where for where, _ in reasons], [name for _, name in reasons], "")
    path = laid_out.ffill().loc[first:]
    return _Market(
        sessions=pd.DatetimeIndex(sessions),
        tickers=tickers,
        quoted=quoted.to_numpy(),
        open=path["open"].to_numpy(),
        close=path["adj_close"].to_numpy(),
        wanted=wanted.fillna(0.0).to_numpy(dtype=np.float64),
        missed=missed,
    )


def _trade(market: _Market, fillable: np.ndarray, *, sized_at_close: bool) -> _Trades:
    """Go through the opens: what prices made of the weights, then what was filled.

    An order sized at the close buys the units that make up the decided weight there; by the open
    both its price and the account have moved.
    """
    opens, closes = market.open, market.close
    gross = np.zeros(len(opens))
    before, after = np.zeros_like(opens), np.zeros_like(opens)
    for row in range(1, len(opens)):
        held = after[row - 1]
        returns = np.nan_to_num(opens[row] / opens[row - 1] - 1.0)
        gross[row] = (held * returns).sum()
        growth = 1.0 + gross[row]
        if growth > 0:
            before[row] = held * (1.0 + returns) / growth
        target = market.wanted[row]
        if sized_at_close and growth > 0:
            by_close = np.nan_to_num(closes[row - 1] / opens[row - 1] - 1.0)
            overnight = np.nan_to_num(opens[row] / closes[row - 1], nan=1.0)
            target = target * overnight * (1.0 + (held * by_close).sum()) / growth
        after[row] = np.where(fillable[row], target, before[row])
    return _Trades(gross, before, after)


def _promise(
    decisions: pd.DataFrame, bars: pd.DataFrame, costs: BacktestSpec, sessions: pd.DatetimeIndex
) -> np.ndarray:
    """The backtest's equity at these sessions; cash where it has no row yet."""
    positions = decisions[decisions["session"] >= sessions[0]]
    if positions.empty:
        return np.ones(len(sessions))
    equity = backtest(positions, bars, costs).frame.set_index("session")["equity"]
    return equity.reindex(sessions, method="ffill").fillna(1.0).to_numpy()


def _fills(market: _Market, trades: _Trades, cost: float, slippage: float) -> pd.DataFrame:
    """One row per order that was there, filled or missed."""
    ordered = np.abs(np.where(market.fillable, trades.after, market.wanted) - trades.before)
    rows, columns = np.nonzero(ordered > _NOTHING)
    at = (rows, columns)
    return pd.DataFrame(
        {
            "ticker": market.tickers[columns],
            "session": market.sessions[rows],
            "decided": market.sessions[rows - 1],
            "price": market.quoted[at],
            "weight_before": trades.before[at],
            "weight_wanted": market.wanted[at],
            "weight_after": trades.after[at],
            "cost": cost * trades.traded[at],
            "slippage": slippage * trades.traded[at],
            "missed": pd.Series(market.missed[at], dtype="str"),
        }
    )
