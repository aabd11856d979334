"""What a network must beat, on exactly the windows, folds and sessions that it forecasts.

Four baselines follow from past returns alone; those of
:mod:`~rnn_pipeline.evidence.learned_baselines` are fitted. None of them is ever traded: they are
kept in a table of their own, which fusion does not read.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import FORECAST_COLUMNS, require
from rnn_pipeline.evidence.learned_baselines import (
    LEARNED,
    learned_forecasts,
    recipe,
    window_hashes,
)
from rnn_pipeline.features.windows import FoldData

RULES = ("zero", "persistence", "reversal", "momentum")
BASELINES = (*RULES, *LEARNED)

_TYPES = {
    "ticker": "str",
    "session": "datetime64[s]",
    "fold": "int64",
    "model": "str",
    "seed": "int64",
    "forecast": "float64",
    "model_hash": "str",
    "window_hash": "str",
}
_COLUMNS = list(_TYPES)


def walk_forward_baselines(
    datasets: Iterable[FoldData], targets: pd.DataFrame, known: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, int]:
    """Forecast every fold's test sessions with every baseline.

    Args:
        datasets: each ticker's share of each fold, as the networks get it; those without a test
            window are left out.
        targets: ticker, session, target, target_session of one horizon.
        known: an earlier result. A fold is fitted again only where its windows or the code have
            changed; the same fit gives the same bits.

    Returns:
        ticker, session, fold, model, seed (0), forecast (log return), model_hash (the recipe of a
        fitted baseline, "rule" for the others), window_hash (of the window that was forecast from),
        sorted by ticker, session and model; and how many folds were fitted now.

    Raises:
        ValueError: see :func:`rule_forecasts`.
    """
    earlier = {} if known is None else dict(iter(known.groupby(["ticker", "fold"])))
    frames, rows, lookback, fitted = [], [], 1, 0
    for data in datasets:
        if not len(data.test_ends):
            continue
        lookback = data.lookback
        tested = pd.DataFrame(
            {
                "ticker": data.ticker,
                "session": pd.DatetimeIndex(data.sessions[data.test_ends]),
                "fold": data.fold,
                "window_hash": pd.Series(window_hashes(data), dtype="str"),
            }
        )
        rows.append(tested)
        made_by = recipe(data)
        kept = _kept(earlier.get((data.ticker, data.fold)), tested, made_by)
        if kept is None:
            fitted += 1
            kept = _long(tested, learned_forecasts(data), made_by)
        frames.append(kept)
    if not rows:
        # Joins look at the types of a frame without rows, too.
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _TYPES.items()}), 0
    every = pd.concat(rows, ignore_index=True)
    frames.append(_long(every, rule_forecasts(targets, every, lookback), "rule"))
    order = ["ticker", "session", "model"]
    return pd.concat(frames, ignore_index=True).sort_values(order, ignore_index=True), fitted


def rule_forecasts(
    targets: pd.DataFrame, rows: pd.DataFrame, lookback: int
) -> dict[str, np.ndarray]:
    """Forecast from past returns, each as it was known when it came.

    ``zero`` expects no return, ``persistence`` that of the last ``horizon`` sessions again,
    ``reversal`` its negative, ``momentum`` the mean of the last ``lookback`` returns that were
    known (time-series momentum, Moskowitz, Ooi and Pedersen 2012, over the networks' window).

    Args:
        targets: ticker, session, target, target_session of one horizon: the return of ``session``
            is the past one of its ``target_session``.
        rows: ticker, session.
        lookback: returns that momentum averages; fewer at the start of a history.

    Returns:
        Name to (len(rows),) log returns.

    Raises:
        ValueError: a row whose past return is not among the targets.
    """
    keys = ["ticker", "target_session"]
    require(targets, "targets", (*keys, "session", "target"), unique=("ticker", "session"))
    past = targets.dropna(subset="target").sort_values(["ticker", "session"])
    # A bar that arrived late has a target that ends where its predecessor's does.
    past = past.drop_duplicates(keys).sort_values(keys, ignore_index=True)
    means = [
        _trailing_mean(own["target"].to_numpy(), lookback) for _, own in past.groupby("ticker")
    ]
    past["momentum"] = np.concatenate(means) if means else np.empty(0)
    past = past[[*keys, "target", "momentum"]].rename(columns={"target_session": "session"})
    found = rows[["ticker", "session"]].merge(past, on=["ticker", "session"], how="left")
    require(found, "returns known at the forecasts' sessions", ("target",), finite=("target",))
    last = found["target"].to_numpy()
    return {
        "zero": np.zeros(len(found)),
        "persistence": last,
        "reversal": -last,
        "momentum": found["momentum"].to_numpy(),
    }


def sentiment_forecasts(news_sentiment: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """Lay sentiment out as the forecasts of a model named "sentiment".

    The level (-1..1) is no log return: its rank and its sign can be held against the outcomes, its
    squared error cannot.

    Args:
        news_sentiment: ticker, session, sentiment.
        forecasts: the networks' forecasts; their tickers, sessions, folds, horizons and outcomes
            are taken over, of several horizons the shortest: a level has none of its own, and held
            against two outcomes it would count twice. Rows without a sentiment are left out.

    Returns:
        A forecasts frame with ``seed`` 0 and ``model_hash`` "sentiment".
    """
    require(
        news_sentiment,
        "news_sentiment",
        ("ticker", "session", "sentiment"),
        unique=("ticker", "session"),
    )
    keys = ["ticker", "session", "fold", "horizon"]
    require(forecasts, "forecasts", (*keys, "actual", "known_at"))
    rows = forecasts.groupby(keys, as_index=False).agg(
        actual=("actual", "first"), known_at=("known_at", "max")
    )
    rows = rows[rows["horizon"] == rows.groupby(["ticker", "session"])["horizon"].transform("min")]
    level = rows.merge(
        news_sentiment[["ticker", "session", "sentiment"]], on=["ticker", "session"]
    ).rename(columns={"sentiment": "forecast"})
    level = level.assign(model="sentiment", seed=0, model_hash="sentiment")
    return level[list(FORECAST_COLUMNS)].sort_values(keys, ignore_index=True)


def _kept(known: pd.DataFrame | None, tested: pd.DataFrame, made_by: str) -> pd.DataFrame | None:
    """The stored forecasts of one fold's fitted baselines, where they are just what is asked."""
    if known is None:
        return None
    fitted = known[known["model_hash"] == made_by].sort_values("session")
    complete = all(
        np.array_equal(own["session"], tested["session"])
        and np.array_equal(own["window_hash"], tested["window_hash"])
        for own in (fitted[fitted["model"] == name] for name in LEARNED)
    )
    return fitted[_COLUMNS] if complete else None


def _long(rows: pd.DataFrame, by_model: dict[str, np.ndarray], made_by: str) -> pd.DataFrame:
    """One row per row and model."""
    frames = [
        rows.assign(model=model, seed=0, forecast=forecast, model_hash=made_by)
        for model, forecast in by_model.items()
    ]
    return pd.concat(frames, ignore_index=True)[_COLUMNS]


def _trailing_mean(values: np.ndarray, length: int) -> np.ndarray:
    """Mean of the last ``length`` values, fewer at the start; each from its own window alone."""
    padded = np.concatenate([np.zeros(length - 1), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)
    counts = np.minimum(np.arange(1, len(values) + 1), length)
    return np.ascontiguousarray(windows).sum(axis=1) / counts
