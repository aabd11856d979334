"""What to do and why: one decision per ticker and session, in words a person understands."""

from __future__ import annotations

import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.trading.fusion import TRADING_SIGNAL_COLUMNS, percent
from rnn_pipeline.trading.positions import POSITION_COLUMNS

DECISION_COLUMNS = (
    "ticker",
    "session",
    "forecast",
    "sentiment",
    "signal",
    "label",
    "grade",
    "policy",
    "position",
    "previous_position",
    "limited_by",
    "action",
    "reason",
    "known_at",
)
LIMIT_REASONS = {
    "weak_signal": "that is too weak to act on",
    "volatility_unknown": "nothing is risked while the volatility is unknown",
    "forecast_opposes": "nothing is bet on a forecast that points the other way",
    "long_only": "short positions are not allowed, so nothing is held",
    "max_weight": "the limit per ticker sets the weight",
    "max_volume_share": "the ticker's trading volume sets the weight",
    "max_gross": "the limit on gross exposure sets the weight",
    "max_drawdown": "the account is in cash after its drawdown",
    "max_turnover": "the limit on turnover sets the weight",
    "max_net": "the limit on net exposure sets the weight",
    "volatility": "the volatility target sets the weight",
    "kelly": "a fraction of the Kelly bet sets the weight",
}
_KEYS = ["ticker", "session"]


def decide(signals: pd.DataFrame, positions: pd.DataFrame) -> pd.DataFrame:
    """Say what to do at the next open, how much, and why.

    Args:
        signals: the trading_signals frame.
        positions: from :func:`~rnn_pipeline.trading.positions.size_positions`; rows of other
            tickers and sessions are left out.

    Returns:
        A trading_decisions frame with one row per row of ``signals``, sorted by ticker and session.

    Raises:
        ValueError: a column is missing, a row stands twice, or a signal has no position.
    """
    require(signals, "signals", TRADING_SIGNAL_COLUMNS, unique=_KEYS)
    require(positions, "positions", POSITION_COLUMNS, unique=_KEYS, finite=("position",))
    frame = signals.sort_values(_KEYS, ignore_index=True).merge(
        positions[list(POSITION_COLUMNS)], on=_KEYS, how="left"
    )
    require(frame, "positions at the signals' sessions", ("position",), finite=("position",))
    actions = [
        _action(position, previous)
        for position, previous in zip(frame["position"], frame["previous_position"], strict=True)
    ]
    columns = ["forecast", "sentiment", "signal", "label", "grade", "agreement", "limited_by"]
    reasons = [_reason(*row) for row in frame[columns].itertuples(index=False, name=None)]
    return frame.assign(
        action=pd.Series(actions, dtype="str"), reason=pd.Series(reasons, dtype="str")
    )[list(DECISION_COLUMNS)]


def current_decisions(decisions: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest session."""
    return decisions[decisions["session"] == decisions["session"].max()].reset_index(drop=True)


def _action(position: float, previous: float) -> str:
    """Name the trade; weights are compared as they are shown, to a tenth of a percent."""
    new, old = round(position, 3), round(previous, 3)
    if new == 0 and old == 0:
        return "stay in cash"
    if old == 0:
        return f"open {_holding(new)}"
    if new == 0:
        return f"close {_holding(old)}"
    if new == old:
        return f"hold {_holding(new)}"
    if (new > 0) != (old > 0):
        return f"turn {_holding(old)} into {_holding(new)}"
    verb = "increase" if abs(new) > abs(old) else "reduce"
    return f"{verb} {_holding(old)} to {percent(abs(new), 1, sign=False)}"


def _holding(weight: float) -> str:
    return f"{'long' if weight > 0 else 'short'} {percent(abs(weight), 1, sign=False)}"


def _reason(
    forecast: float,
    sentiment: float,
    signal: float,
    label: str,
    grade: str,
    agreement: float,
    limited_by: str,
) -> str:
    known = f"The forecast is {percent(forecast)} and sentiment {sentiment:+z.2f}"
    if limited_by == "evidence":
        return f"{known}, but neither has shown evidence, so nothing is risked."
    if limited_by == "disagreement":
        share = percent(agreement, 0, sign=False)
        return f"{known}, but only {share} of the networks take that side, so nothing is risked."
    return (
        f"{known}; with {grade} evidence the signal is {signal:+z.2f} ({label}), and"
        f" {LIMIT_REASONS[limited_by]}."
    )
