"""The account that trades the decisions: what it is worth, and what its past forbids.

Limits on turnover and the stop on drawdown depend on what was decided before. `advance` carries an
account from one session to the next, on what was known at that session's close alone, so a history
decided at once and the same history decided day by day, from stored rows, are the same bits. Sums
are exact (``math.fsum``): they do not depend on which tickers without a position stand beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import fsum

import pandas as pd

from rnn_pipeline.settings import TradingSpec

Weights = Mapping[str, float]
"""Ticker to fraction of the account; tickers at zero are left out."""

ACCOUNT_COLUMNS = (
    "session", "equity", "peak", "drawdown", "cash_sessions", "gross", "net", "turnover",
    "known_at",
)  # fmt: skip


@dataclass(frozen=True)
class Account:
    """An account after the close of a session. It began with 1.

    Attributes:
        equity: its worth just after the session's open, where the last decision was filled.
        peak: its highest worth since the start, or since the last stop on drawdown ended.
        cash_sessions: sessions, this one included, that it still has to stay in cash.
        filled: weights since the session's open.
        decided: weights decided at the session's close, to be filled at the next open.
    """

    equity: float = 1.0
    peak: float = 1.0
    cash_sessions: int = 0
    filled: Weights = field(default_factory=dict)
    decided: Weights = field(default_factory=dict)

    @property
    def drawdown(self) -> float:
        """The fall since the peak, zero or negative; of nothing nothing can fall."""
        return self.equity / self.peak - 1.0 if self.peak > 0 else 0.0

    @classmethod
    def resume(cls, accounts: pd.DataFrame, decisions: pd.DataFrame) -> Account:
        """The account as stored rows leave it.

        Args:
            accounts: the last two rows of trading_account; empty where nothing was decided yet.
            decisions: trading_decisions of their sessions: ticker, session, position.
        """
        if accounts.empty:
            return cls()
        ordered = accounts.sort_values("session")
        last = ordered.iloc[-1]
        weights = {
            session: dict(zip(own["ticker"], own["position"].tolist(), strict=True))
            for session, own in decisions[decisions["position"] != 0].groupby("session")
        }
        before = ordered["session"].iloc[-2] if len(ordered) > 1 else None
        return cls(
            float(last["equity"]),
            float(last["peak"]),
            int(last["cash_sessions"]),
            weights.get(before, {}),
            weights.get(last["session"], {}),
        )

    def opened(self, returns: Mapping[str, float], cost_bps: float) -> Account:
        """Fill the last decision at the next session's open, and pay for it.

        What was held earns its return from the last open to this one; weights are restored, so what
        prices moved is traded back. An account that has lost everything stays at zero.

        Args:
            returns: since the open of a ticker's bar before; one without a bar stands still.
            cost_bps: of a traded weight, in basis points.
        """
        grown = {
            ticker: held * (1.0 + returns.get(ticker, 0.0)) for ticker, held in self.filled.items()
        }
        gross = fsum([*grown.values(), *(-held for held in self.filled.values())])
        growth = 1.0 + gross
        before = {ticker: worth / growth if growth > 0 else 0.0 for ticker, worth in grown.items()}
        net = gross - traded(before, self.decided) * cost_bps / 1e4
        equity = self.equity * max(1.0 + net, 0.0)
        return Account(
            equity, max(self.peak, equity), self.cash_sessions, dict(self.decided), self.decided
        )

    def stopped(self, spec: TradingSpec) -> Account:
        """Count the sessions in cash, and begin to where the drawdown exceeds its limit.

        After ``stop_sessions`` the account trades again, and its peak is counted from what is left:
        an account in cash would never make up for its losses.
        """
        left = max(self.cash_sessions - 1, 0)
        counted = replace(self, cash_sessions=left)
        if self.cash_sessions and not left:
            counted = replace(counted, peak=self.equity)
        if not left and spec.max_drawdown is not None and counted.drawdown <= -spec.max_drawdown:
            counted = replace(counted, cash_sessions=spec.stop_sessions)
        return counted


def within_limits(
    asked: Weights, before: Weights, spec: TradingSpec, *, in_cash: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Apply the limits that look at all tickers of a session, in this order.

    1. ``max_gross``: all weights are scaled down alike.
    2. ``max_drawdown``: nothing is held while the account is in cash.
    3. ``max_turnover``: what adds to a position is scaled down alike until all trades fit. What
       reduces one is never held up, even where it alone takes more.
    4. ``max_net``: the weights of the heavier side are scaled down alike.

    Each leaves every weight between zero and what was asked for, so none breaks an earlier limit.

    Args:
        asked: weight by ticker, within the limits of each ticker.
        before: the weights decided a session earlier.
        spec: the limits.
        in_cash: whether the stop on drawdown is in force.

    Returns:
        Weight by ticker, and the limit that was the last to change it, for those that one did.
    """
    limited: dict[str, str] = {}
    weights = {ticker: weight for ticker, weight in asked.items() if weight}

    def put(changed: Mapping[str, float], limit: str) -> None:
        for ticker, weight in changed.items():
            if weight != weights.get(ticker, 0.0):
                weights[ticker] = weight
                limited[ticker] = limit

    gross = fsum(map(abs, weights.values()))
    if gross > spec.max_gross:
        put({t: w * spec.max_gross / gross for t, w in weights.items()}, "max_gross")
    if in_cash:
        put(dict.fromkeys(weights, 0.0), "max_drawdown")
    if spec.max_turnover is not None:
        kept = {t: _kept(before.get(t, 0.0), weights.get(t, 0.0)) for t in {*before, *weights}}
        room = max(spec.max_turnover - traded(before, kept), 0.0)
        added = traded(kept, weights)
        if added > room:
            share = room / added
            put(
                {t: kept[t] + share * (w - kept[t]) for t, w in weights.items() if w != kept[t]},
                "max_turnover",
            )
    if spec.max_net is not None:
        net = fsum(weights.values())
        side = {t: w for t, w in weights.items() if w * net > 0}
        excess = abs(net) - spec.max_net
        if excess > 0:
            share = 1.0 - excess / abs(fsum(side.values()))
            put({t: w * share for t, w in side.items()}, "max_net")
    return {ticker: weight for ticker, weight in weights.items() if weight}, limited


def traded(before: Weights, after: Weights) -> float:
    """Sum of absolute changes from one set of weights to another."""
    return fsum(abs(after.get(t, 0.0) - before.get(t, 0.0)) for t in {*before, *after})


def as_row(account: Account, before: Weights, known_at: pd.Timestamp) -> dict[str, object]:
    """A row of trading_account but for its session: worth, stop, and what was decided.

    Args:
        account: after its session's decisions.
        before: the weights decided a session earlier.
        known_at: when the session's rows were known.
    """
    weights: Iterable[float] = account.decided.values()
    return {
        "equity": account.equity,
        "peak": account.peak,
        "drawdown": account.drawdown,
        "cash_sessions": account.cash_sessions,
        "gross": fsum(map(abs, weights)),
        "net": fsum(weights),
        "turnover": traded(before, account.decided),
        "known_at": known_at,
    }


def _kept(before: float, asked: float) -> float:
    """What stays of a position before anything is added: the nearer to zero of the same side."""
    if before * asked <= 0:
        return 0.0
    return before if abs(before) < abs(asked) else asked
