"""Figures too good to be true: daily data has never given them, so a leak is the likelier tale.

The look-ahead test proves what it can reach; a leak that lies before it (a universe of survivors, a
vendor's back-filled column) shows only in the figures. So a figure is held against a ceiling that
honest work on daily data stays below, and flagged once it is above by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require

MAX_IC = 0.10
"""Twice the best published daily information coefficients out of sample, 0.03 to 0.05."""
MAX_HIT_RATE = 0.60
"""Published accuracies on daily direction end there, with the small moves already left out."""
MAX_R2 = 0.05
"""Out-of-sample shares of daily variance are counted in tenths of a per cent."""
MAX_SHARPE = 5.0
"""Annual, before costs: above what any fund reports for daily holding periods."""
MIN_DEVIATES = 2.0
"""A figure must lie above its ceiling by so many standard errors."""

ADVICE = (
    "Look for information from the future before believing it: run `rnn-pipeline lookahead`, then"
    " check where the universe, the features and the labels come from"
)


def implausible(metrics: pd.DataFrame) -> pd.DataFrame:
    """Name the figures that are too good to be true.

    Args:
        metrics: rows of ``forecast_metrics`` and, where there is one, sharpe_ratio (annual) with
            sessions_per_year beside it.

    Returns:
        One row per offending figure: ticker and model where there are, figure, value, ceiling, and
        ``reason`` as a sentence.

    Raises:
        ValueError: a column is missing.
    """
    require(metrics, "metrics", ("n_effective", "ic", "ic_t", "hit_rate", "hit_low", "r2_vs_zero"))
    return pd.DataFrame(
        [line for _, row in metrics.iterrows() for line in _offences(row)],
        columns=[
            *(name for name in ("ticker", "model") if name in metrics),
            *("figure", "value", "ceiling", "reason"),
        ],
    )


def _offences(row: pd.Series) -> Iterator[dict[str, object]]:
    n = row["n_effective"]
    certain = 1 - MIN_DEVIATES / row["ic_t"] if row["ic_t"] > MIN_DEVIATES else 0.0
    lower = {
        "information coefficient": (row["ic"], row["ic"] * certain, MAX_IC),
        "hit rate": (row["hit_rate"], row["hit_low"], MAX_HIT_RATE),
        # Its standard error is about twice its root by the root of n (Olkin and Finn 1995).
        "R² against zero": (
            row["r2_vs_zero"],
            row["r2_vs_zero"] - MIN_DEVIATES * 2 * np.sqrt(max(row["r2_vs_zero"], 0.0) / n)
            if n > 0
            else np.nan,
            MAX_R2,
        ),
    }
    if "sharpe_ratio" in row.index:
        years = n / row["sessions_per_year"]
        error = np.sqrt((1 + row["sharpe_ratio"] ** 2 / row["sessions_per_year"] / 2) / years)
        low = row["sharpe_ratio"] - MIN_DEVIATES * error
        lower["Sharpe ratio"] = (row["sharpe_ratio"], low, MAX_SHARPE)
    named = {name: row[name] for name in ("ticker", "model") if name in row.index}
    of = " of ".join(str(part) for part in reversed(named.values()))
    for figure, (value, low, ceiling) in lower.items():
        if low > ceiling:
            yield named | {
                "figure": figure,
                "value": float(value),
                "ceiling": ceiling,
                "reason": f"{of}: {figure} {value:.2f} is above {ceiling:g}, which daily data does"
                " not give",
            }
