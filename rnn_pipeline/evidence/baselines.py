"""What a forecast must beat, on exactly the rows that the networks forecast."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import FORECAST_COLUMNS, require

BASELINES = ("zero", "persistence", "reversal")


def baseline_forecasts(bars: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """Forecast with the baselines: zero, persistence and reversal.

    ``zero`` expects no return, ``persistence`` that the log return of adjusted close over the last
    ``horizon`` sessions repeats itself, ``reversal`` its negative.

    Args:
        bars: ticker, session, adj_close; one row per ticker and session.
        forecasts: the networks' forecasts; their tickers, sessions, folds, horizons and outcomes
            are taken over.

    Returns:
        A forecasts frame with ``seed`` 0 and ``model_hash`` "baseline".

    Raises:
        ValueError: a forecast row has no bar, or no bar ``horizon`` sessions before it.
    """
    require(bars, "bars", ("ticker", "session", "adj_close"), unique=("ticker", "session"))
    rows = _forecast_rows(forecasts)
    ordered = bars[["ticker", "session", "adj_close"]].sort_values(["ticker", "session"])
    past = []
    for horizon, asked in rows.groupby("horizon"):
        before = ordered.groupby("ticker")["adj_close"].shift(int(horizon))
        moved = ordered.assign(past_return=np.log(ordered["adj_close"] / before))
        past.append(asked.merge(moved, on=["ticker", "session"], how="left"))
    rows = pd.concat(past, ignore_index=True) if past else rows.assign(past_return=0.0)
    require(rows, "bars at the forecasts' sessions", ("past_return",), finite=("past_return",))
    by_model = {"zero": 0.0, "persistence": rows["past_return"], "reversal": -rows["past_return"]}
    return _as_forecasts(
        [rows.assign(model=model, forecast=by_model[model]) for model in BASELINES], "baseline"
    )


def sentiment_forecasts(news_sentiment: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """Lay sentiment out as the forecasts of a model named "sentiment".

    The level (-1..1) is no log return: its rank and its sign can be held against the outcomes, its
    squared error cannot.

    Args:
        news_sentiment: ticker, session, sentiment.
        forecasts: the networks' forecasts; rows without a sentiment are left out.

    Returns:
        A forecasts frame with ``seed`` 0 and ``model_hash`` "sentiment".
    """
    require(
        news_sentiment,
        "news_sentiment",
        ("ticker", "session", "sentiment"),
        unique=("ticker", "session"),
    )
    rows = _forecast_rows(forecasts).merge(
        news_sentiment[["ticker", "session", "sentiment"]], on=["ticker", "session"]
    )
    level = rows.assign(model="sentiment", forecast=rows["sentiment"])
    return _as_forecasts([level], "sentiment")


def _forecast_rows(forecasts: pd.DataFrame) -> pd.DataFrame:
    """One row per ticker, session, fold and horizon, with its outcome and ``known_at``."""
    keys = ["ticker", "session", "fold", "horizon"]
    require(forecasts, "forecasts", (*keys, "actual", "known_at"))
    return forecasts.groupby(keys, as_index=False).agg(
        actual=("actual", "first"), known_at=("known_at", "max")
    )


def _as_forecasts(models: list[pd.DataFrame], model_hash: str) -> pd.DataFrame:
    frame = pd.concat(models, ignore_index=True).assign(seed=0, model_hash=model_hash)
    order = ["ticker", "session", "fold", "model", "horizon"]
    return frame[list(FORECAST_COLUMNS)].sort_values(order, ignore_index=True)
