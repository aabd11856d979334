"""How much: a weight per ticker and session from the signal, its risk and the limits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import TradingSpec

POSITION_COLUMNS = ("ticker", "session", "position", "limited_by")


def size_positions(
    signals: pd.DataFrame, volatility: pd.DataFrame, spec: TradingSpec, sessions_per_year: int
) -> pd.DataFrame:
    """Size positions by a volatility target under limits per ticker and on gross exposure.

    The weight is signal * target_volatility / annual volatility (Moskowitz, Ooi and Pedersen 2012),
    cut at ``max_weight``, not below 0 when ``long_only``; then all weights of a session are scaled
    down alike until their absolute sum is at most ``max_gross``. The weight is 0 without evidence,
    for a signal that is labelled HOLD, and while the volatility is unknown or zero.

    Args:
        signals: ticker, session, signal (-1..1), grade.
        volatility: ticker, session, volatility_20 (standard deviation of daily log returns).
        spec: target and limits.
        sessions_per_year: scales daily volatility to annual.

    Returns:
        Sorted by ticker and session: position (fraction of the account, held from the next open),
        limited_by (what set it: "evidence", "weak_signal", "volatility_unknown", "long_only",
        "max_gross", "max_weight" or "volatility_target").

    Raises:
        ValueError: a column is missing, a signal is not finite, or a row stands twice.
    """
    keys = ["ticker", "session"]
    require(signals, "signals", (*keys, "signal", "grade"), unique=keys, finite=("signal",))
    require(volatility, "volatility", (*keys, "volatility_20"), unique=keys)
    frame = signals.sort_values(keys, ignore_index=True).merge(
        volatility[[*keys, "volatility_20"]], on=keys, how="left"
    )
    annual = frame["volatility_20"] * np.sqrt(sessions_per_year)
    graded, known = frame["grade"] != "none", annual > 0
    acts = ~frame["signal"].between(spec.sell_below, spec.buy_above)
    asked = (frame["signal"] * spec.target_volatility / annual.where(known)).where(
        graded & acts & known
    )
    asked = asked.fillna(0.0)
    allowed = asked.clip(lower=0.0) if spec.long_only else asked
    capped = allowed.clip(-spec.max_weight, spec.max_weight)
    gross = capped.abs().groupby(frame["session"]).transform("sum")
    crowded = gross > spec.max_gross
    position = (capped * spec.max_gross / gross).where(crowded, capped)
    limited_by = np.select(
        [~graded, ~acts, ~known, allowed != asked, crowded, capped != allowed],
        ["evidence", "weak_signal", "volatility_unknown", "long_only", "max_gross", "max_weight"],
        "volatility_target",
    )
    return frame.assign(position=position, limited_by=pd.Series(limited_by, dtype="str"))[
        list(POSITION_COLUMNS)
    ]
