"""The information coefficient, and how sure one may be of it.

A correlation of forecasts with outcomes is a sum over sessions, and sessions are not independent:
outcomes over several sessions overlap, volatility clusters, tickers move together. So the variance
of the sum is estimated from the sums of each session by Newey and West (1987), which holds whatever
the volatility and the tails, and is never taken below what independent outcomes would give.

Nor is the sum centred on zero where nothing can be forecast. Forecasts follow from past outcomes,
and a forecast that bets on reversal lies above its own mean after outcomes below theirs: measured
from the sample's means, the two agree a little by construction (Kendall 1954, Stambaugh 1999).
``feedback`` takes that out.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

#: By how much chance favours a reversal, in covariances with past outcomes: half of one more comes
#: from dividing by the sample's own spread, for forecasts that remember more than a few days.
SPREAD_SHARE = 1.5

#: Lags in multiples of the horizon: Bartlett's weights see five sixths of the variance of sums that
#: overlap fully with two horizons, and eight ninths with three.
LAGS_PER_HORIZON = 3


def newey_west_lags(n: int, horizon: int) -> int:
    """Autocovariances counted for ``n`` sessions of overlapping outcomes.

    The larger of 4 (n / 100)^(2/9) (Newey and West 1994) and three horizons, below ``n``.
    """
    return min(max(int(4 * (n / 100) ** (2 / 9)), LAGS_PER_HORIZON * horizon), n - 1)


def newey_west_variance(series: np.ndarray, lags: int) -> float:
    """Variance of the sum of a series, divided by its length, with Bartlett's weights.

    Args:
        series: (n,) in order of time, n >= 1.
        lags: autocovariances counted, below n.
    """
    centred = series - series.mean()
    variance = _dot(centred, centred)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * _dot(centred[lag:], centred[:-lag])
    return variance / len(series)


def _dot(one: np.ndarray, two: np.ndarray) -> float:
    """Sum of products in NumPy's order: a BLAS may choose its own by size and threads."""
    return float(np.sum(one * two))


def normal_score(t: float, degrees: float) -> float:
    """The normal deviate as unlikely as Student's ``t`` (Wallace 1959; error below 0.02).

    The quantile of a probability would do for small t only: far out the probability underflows.
    """
    shrunk = (8 * degrees + 1) / (8 * degrees + 3)
    return math.copysign(shrunk * math.sqrt(degrees * math.log1p(t * t / degrees)), t)


def mean_t(series: np.ndarray, horizon: int = 1) -> float:
    """t-statistic of a mean under autocorrelation, as a normal deviate; NaN where it has none.

    The variance is the larger of Newey and West's and that of n / ``horizon`` independent values.
    Student's degrees of freedom are those of Bartlett's kernel, 1.5 n / (lags + 1).

    Args:
        series: (n,) one value per session, in order of time.
        horizon: sessions over which values overlap.
    """
    n = len(series)
    if n < 3 * horizon:
        return math.nan
    lags = newey_west_lags(n, horizon)
    variance = max(newey_west_variance(series, lags), horizon * float(series.var()))
    if variance <= 0:
        return math.nan
    t = float(series.mean()) / math.sqrt(variance / n)
    return normal_score(t, 1.5 * n / (lags + 1))


def feedback(forecast: np.ndarray, actual: np.ndarray, rows: int) -> float:
    """What centring both series takes from the sum of their products where nothing is forecast.

    Centred series of n sessions have sum(f y) expected at -1/n times the covariance of each
    forecast with all earlier outcomes. That is estimated over the lags up to n / 2, whose own
    centring is undone, and raised by :data:`SPREAD_SHARE`. Positive: the sum came out too small.

    Args:
        forecast: (n,) centred, per session, in order of time.
        actual: (n,) likewise; ``actual[t]`` follows ``forecast[t]``.
        rows: forecasts that were centred together: n times the tickers.
    """
    n = len(actual)
    reach = n // 2
    total = np.concatenate([[0.0], np.cumsum(actual)])
    earlier = total[:-1] - np.concatenate([np.zeros(reach), total])[:n]
    counted = 1 - reach * (1 - (reach + 1) / (2 * n)) / n
    return SPREAD_SHARE * _dot(forecast, earlier) / rows / counted


def ic_t(
    forecast: np.ndarray, actual: np.ndarray, product: np.ndarray, rows: int, horizon: int
) -> float:
    """t-statistic of a pooled information coefficient, by :func:`mean_t` and :func:`feedback`.

    Args:
        forecast: (n,) centred ranks of the forecasts, summed within each session.
        actual: (n,) likewise of the outcomes.
        product: (n,) products of both ranks, summed within each session.
        rows: forecasts that were ranked together.
        horizon: sessions over which outcomes overlap.
    """
    n = len(product)
    return mean_t(product + feedback(forecast, actual, rows) / n, horizon)


def cross_sectional_ic(forecasts: pd.DataFrame, min_tickers: int = 5) -> pd.DataFrame:
    """Rank correlation across tickers, session by session (one value per model and session).

    Pooled over time a model may earn its coefficient by telling good weeks from bad ones; this one
    is earned only by telling tickers apart within a session.

    Args:
        forecasts: of :func:`~rnn_pipeline.evidence.metrics.average_seeds`.
        min_tickers: fewest tickers with a known outcome that make a session count.

    Returns:
        model, horizon, session, ic, n_tickers, in that order; sessions in which all forecasts or
        all outcomes are equal are left out.
    """
    keys = ["model", "horizon", "session"]
    rows = forecasts[forecasts["actual"].notna()]
    size = rows.groupby(keys)["actual"].transform("size")
    rows = rows[size >= min_tickers]
    groups = rows.groupby(keys)
    middle = (groups["actual"].transform("size") + 1) / 2
    forecast, actual = (groups[name].rank() - middle for name in ("forecast", "actual"))
    sums = (
        pd.DataFrame({"both": forecast * actual, "f": forecast**2, "a": actual**2, "n_tickers": 1})
        .groupby([rows[key] for key in keys])
        .sum()
    )
    sums = sums[(sums["f"] > 0) & (sums["a"] > 0)]
    ic = sums["both"] / np.sqrt(sums["f"] * sums["a"])
    return sums.assign(ic=ic)[["ic", "n_tickers"]].reset_index()


def mean_cross_sectional_ic(forecasts: pd.DataFrame, min_tickers: int = 5) -> pd.DataFrame:
    """Mean of :func:`cross_sectional_ic` over sessions, with its t-statistic (:func:`mean_t`).

    Returns:
        model, horizon, sessions, mean_ic, mean_ic_t.
    """
    by_session = cross_sectional_ic(forecasts, min_tickers)
    lines = [
        {
            "model": model,
            "horizon": horizon,
            "sessions": len(own),
            "mean_ic": own["ic"].mean(),
            "mean_ic_t": mean_t(own["ic"].to_numpy(), int(horizon)),
        }
        for (model, horizon), own in by_session.groupby(["model", "horizon"])
    ]
    return pd.DataFrame(lines, columns=["model", "horizon", "sessions", "mean_ic", "mean_ic_t"])
