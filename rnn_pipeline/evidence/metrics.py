"""Forecasts against what happened: errors, hit rate and information coefficient.

Every figure that says how sure one may be counts *effective* observations: forecasts of ``horizon``
sessions overlap, and tickers of one session move together, so a group is worth its number of
distinct sessions divided by its horizon, however many rows it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from rnn_pipeline.evidence.information import ic_t
from rnn_pipeline.evidence.layouts import require

FORECAST_KEYS = ("ticker", "session", "fold", "model", "horizon")
_Z95 = float(ndtri(0.975))


def average_seeds(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Average each model's forecast over its seeds.

    Args:
        forecasts: ticker, session, fold, model, seed, horizon, forecast, actual, known_at.

    Returns:
        One row per ticker, session, fold, model and horizon, sorted by them: forecast, actual,
        known_at (the latest of the seeds').

    Raises:
        ValueError: a column is missing, a forecast is not finite, or a row stands twice.
    """
    return (
        _ordered(forecasts)
        .groupby(list(FORECAST_KEYS), as_index=False)
        .agg(
            forecast=("forecast", "mean"), actual=("actual", "first"), known_at=("known_at", "max")
        )
    )


def _ordered(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Check the frame and sort it, so that no result depends on the order of its rows."""
    require(
        forecasts,
        "forecasts",
        (*FORECAST_KEYS, "seed", "forecast", "actual", "known_at"),
        unique=(*FORECAST_KEYS, "seed"),
        finite=("forecast",),
    )
    return forecasts.sort_values([*FORECAST_KEYS, "seed"])


def wilson_interval(hits: pd.Series, n: pd.Series) -> tuple[pd.Series, pd.Series]:
    """95 % interval of a proportion, ``hits`` of ``n`` (Wilson 1927); NaN where n is 0.

    ``scipy.stats.binomtest`` has the same interval for whole counts of one sample; here counts are
    effective, so fractional, and there is one sample per group.
    """
    share = hits / n
    spread = _Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return (centre - half).clip(lower=0.0), (centre + half).clip(upper=1.0)


def group_statistics(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Score rows with a known ``actual``, per group of ``by`` (which becomes the index).

    Set-based: ranks within groups and exact sums of them, so a group's figures depend on nothing
    but its own rows, to the last bit. :func:`forecast_metrics` documents the columns.
    """
    keys = list(by)
    forecast, actual = rows["forecast"], rows["actual"]
    error = forecast - actual
    signed = (forecast != 0) & (actual != 0)
    groups = rows.groupby(keys)
    middle = (groups["forecast"].transform("size") + 1) / 2
    ranks = pd.DataFrame({name: groups[name].rank() - middle for name in ("forecast", "actual")})
    ranks["product"] = ranks["forecast"] * ranks["actual"]
    sums = (
        pd.DataFrame(
            {
                "squared_error": error**2,
                "absolute_error": error.abs(),
                "squared_actual": actual**2,
                "signed": signed.astype(np.int64),
                "hits": (signed & ((forecast > 0) == (actual > 0))).astype(np.int64),
                "covariance": ranks["product"],
                "forecast_variance": ranks["forecast"] ** 2,
                "actual_variance": ranks["actual"] ** 2,
            }
        )
        .groupby([rows[key] for key in keys])
        .sum()
    )
    n = groups.size()
    n_effective = groups["session"].nunique() / groups["horizon"].max()
    variances = sums["forecast_variance"] * sums["actual_variance"]
    ic = (sums["covariance"] / np.sqrt(variances)).where(variances > 0).clip(-1.0, 1.0)
    hit_rate = sums["hits"] / sums["signed"]
    n_signed_effective = sums["signed"] * n_effective / n
    hit_low, hit_high = wilson_interval(hit_rate * n_signed_effective, n_signed_effective)
    return pd.DataFrame(
        {
            "n": n,
            "n_effective": n_effective,
            "mse": sums["squared_error"] / n,
            "mae": sums["absolute_error"] / n,
            "r2_vs_zero": (1 - sums["squared_error"] / sums["squared_actual"]).where(
                sums["squared_actual"] > 0
            ),
            "n_signed": sums["signed"],
            "hit_rate": hit_rate,
            "hit_low": hit_low,
            "hit_high": hit_high,
            "ic": ic,
            "ic_t": _ic_t(ranks, groups, rows["session"]).where(variances > 0),
        }
    )


def _ic_t(ranks: pd.DataFrame, groups: Any, sessions: pd.Series) -> pd.Series:
    """t-statistic of each group's coefficient, from the sums of its sessions in order of time."""
    shapes = groups["horizon"].agg(["size", "max"])
    by_session = ranks.groupby([groups.ngroup(), sessions]).sum()
    number = by_session.index.get_level_values(0)
    bounds = np.searchsorted(number, np.arange(len(shapes) + 1))
    forecast, actual, product = (
        by_session[name].to_numpy() for name in ("forecast", "actual", "product")
    )
    values = []
    for place, (size, horizon) in enumerate(shapes.to_numpy()):
        own = slice(bounds[place], bounds[place + 1])
        values.append(ic_t(forecast[own], actual[own], product[own], int(size), int(horizon)))
    return pd.Series(values, index=shapes.index, dtype=np.float64)


def forecast_metrics(forecasts: pd.DataFrame, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Score forecasts per group, over the rows whose outcome is known.

    A group that holds several seeds is scored on their average per ticker, session and model, which
    is what trading uses; put ``seed`` into ``by`` to score each seed for itself.

    Args:
        forecasts: the forecasts frame (log returns); ``actual`` is NaN while unknown.
        by: columns that make a group, for example ``("model", "fold")``.

    Returns:
        One row per group with a known outcome, sorted by ``by``:

        - n, n_effective: rows, and distinct sessions / horizon (see the module's docstring)
        - mse, mae: of the log return
        - r2_vs_zero: 1 - SSE / sum(actual^2), the share of squared error saved against forecasting
          zero (out-of-sample R2 of Gu, Kelly and Xiu 2020)
        - n_signed, hit_rate, hit_low, hit_high: share of right signs with its 95 % Wilson interval,
          over rows where neither forecast nor actual is 0
        - ic, ic_t: Spearman's rank correlation, and its t-statistic under autocorrelation as a
          normal deviate (see :mod:`~rnn_pipeline.evidence.information`)

        What a group cannot tell is NaN: a constant forecast has no ic, a zero forecast no hit rate.

    Raises:
        ValueError: a column is missing, a forecast is not finite, or a row stands twice.
    """
    rows = _ordered(forecasts) if "seed" in by else average_seeds(forecasts)
    return group_statistics(rows[rows["actual"].notna()], by).reset_index()


def rolling_ic(forecasts: pd.DataFrame, sessions: int = 250, points: int = 60) -> pd.DataFrame:
    """Information coefficient through time: of the last ``sessions`` sessions, all tickers pooled.

    Args:
        forecasts: the forecasts frame; seeds are averaged, unknown outcomes left out.
        sessions: length of the window; earlier ends are not reported.
        points: at about how many sessions, evenly spaced, it is taken.

    Returns:
        model, session (the window's last), ic, by model and session; a constant forecast has none.
    """
    from scipy.stats import spearmanr  # half a second that loading the pipeline need not take

    rows = average_seeds(forecasts)
    rows = rows[rows["actual"].notna()]
    axis = np.sort(rows["session"].unique())
    ends = range(sessions - 1, len(axis), max((len(axis) - sessions) // points, 1))
    found = []
    for model, own in rows.groupby("model"):
        own = own.sort_values("session")
        forecast, actual = own["forecast"].to_numpy(), own["actual"].to_numpy()
        starts = np.searchsorted(own["session"].to_numpy(), axis)
        starts = np.append(starts, len(own))
        for end in ends:
            window = slice(starts[end - sessions + 1], starts[end + 1])
            if np.ptp(forecast[window]) > 0 and np.ptp(actual[window]) > 0:
                ic = spearmanr(forecast[window], actual[window]).statistic
                found.append((model, axis[end], float(ic)))
    return pd.DataFrame(found, columns=["model", "session", "ic"])
