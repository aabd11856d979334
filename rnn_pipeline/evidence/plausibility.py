"""Figures too good to be true: daily data has never given them, so a leak is the likelier tale.

The look-ahead test proves what it can reach; a leak that lies before it (a universe of survivors, a
vendor's back-filled column) shows only in the figures. So a figure is held against a ceiling that
honest work on daily data stays below, and flagged once it is above by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.backtest import Backtest
from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.luck import sign_sharpe_ratios
from rnn_pipeline.evidence.metrics import forecast_metrics

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


_FORECASTS = ("n_effective", "ic", "ic_t", "hit_rate", "hit_low", "r2_vs_zero")
_ACCOUNTS = ("n_effective", "sharpe_ratio", "sessions_per_year")


def implausible(metrics: pd.DataFrame) -> pd.DataFrame:
    """Name the figures that are too good to be true.

    Args:
        metrics: n_effective (sessions, or independent forecasts), and rows of ``forecast_metrics``
            or sharpe_ratio (annual) with sessions_per_year, or both.

    Returns:
        One row per offending figure: ticker and model where there are, figure, value, ceiling, and
        ``reason`` as a sentence.

    Raises:
        ValueError: a column is missing.
    """
    told = [columns for columns in (_FORECASTS, _ACCOUNTS) if columns[1] in metrics]
    for columns in told or [_FORECASTS]:
        require(metrics, "metrics", columns)
    return pd.DataFrame(
        [line for _, row in metrics.iterrows() for line in _offences(row)],
        columns=[
            *(name for name in ("ticker", "model") if name in metrics),
            *("figure", "value", "ceiling", "reason"),
        ],
    )


def implausible_forecasts(forecasts: pd.DataFrame, sessions_per_year: int) -> pd.DataFrame:
    """Hold every figure of forecasts against its ceiling: each model's on each ticker, and on all.

    Args:
        forecasts: the forecasts frame; the Sharpe ratio is that of trading their signs for nothing.
        sessions_per_year: what it is scaled by.

    Returns:
        As :func:`implausible`.
    """
    return implausible(
        pd.concat(
            [
                forecast_metrics(forecasts, by).merge(
                    sign_sharpe_ratios(forecasts, by, sessions_per_year), on=list(by)
                )
                for by in (("ticker", "model"), ("model",))
            ]
        ).assign(sessions_per_year=sessions_per_year)
    )


def implausible_account(account: Backtest, name: str) -> pd.DataFrame:
    """Hold an account's Sharpe ratio against its ceiling, over the sessions that it held anything.

    Returns:
        As :func:`implausible`.
    """
    return implausible(
        pd.DataFrame(
            {
                "model": [name],
                "n_effective": [float((account.frame["exposure"] > 0).sum())],
                "sharpe_ratio": [account.summary()["sharpe_ratio"]],
                "sessions_per_year": [account.sessions_per_year],
            }
        )
    )


def _offences(row: pd.Series) -> Iterator[dict[str, object]]:
    n = row["n_effective"]
    named = {name: row[name] for name in ("ticker", "model") if name in row.index}
    # Rows of models beside rows of models on a ticker have no ticker.
    named = {name: value for name, value in named.items() if value == value}
    of = " of ".join(str(part) for part in reversed(named.values()))
    for figure, (value, low, ceiling) in _held_against(row, n).items():
        if low > ceiling:
            yield named | {
                "figure": figure,
                "value": float(value),
                "ceiling": ceiling,
                "reason": f"{of}: {figure} {value:.2f} is above {ceiling:g}, which daily data does"
                " not give",
            }


def _held_against(row: pd.Series, n: float) -> dict[str, tuple[float, float, float]]:
    """Figure to its value, what it surely is above, and its ceiling."""
    lower = {}
    if "ic" in row.index:
        certain = 1 - MIN_DEVIATES / row["ic_t"] if row["ic_t"] > MIN_DEVIATES else 0.0
        r2 = row["r2_vs_zero"]
        # Its standard error is about twice its root by the root of n (Olkin and Finn 1995).
        r2_error = 2 * np.sqrt(max(r2, 0.0) / n) if n > 0 else np.nan
        lower = {
            "information coefficient": (row["ic"], row["ic"] * certain, MAX_IC),
            "hit rate": (row["hit_rate"], row["hit_low"], MAX_HIT_RATE),
            "R² against zero": (r2, r2 - MIN_DEVIATES * r2_error, MAX_R2),
        }
    if "sharpe_ratio" in row.index and n > 0:
        years = n / row["sessions_per_year"]
        # Lo (2002), of independent returns.
        error = np.sqrt((1 + row["sharpe_ratio"] ** 2 / row["sessions_per_year"] / 2) / years)
        low = row["sharpe_ratio"] - MIN_DEVIATES * error
        lower["Sharpe ratio"] = (row["sharpe_ratio"], low, MAX_SHARPE)
    return lower
