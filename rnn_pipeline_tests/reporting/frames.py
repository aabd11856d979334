"""Small frames with the columns of the contract."""

from __future__ import annotations

import numpy as np
import pandas as pd

MODELS = ("lstm", "gru", "zero", "persistence", "sentiment")


def walk(tickers: list[str], sessions: int = 300) -> pd.DataFrame:
    """Bars, signals and sentiment in one frame: the plots take the columns they need."""
    random = np.random.default_rng(0)
    axis = pd.bdate_range("2012-01-02", periods=sessions)
    frames = []
    for ticker in tickers:
        price, mood = random.normal(0, 0.3, (2, sessions)).clip(-0.4, 0.4)
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": axis,
                    "adj_close": 50 * np.exp(np.cumsum(random.normal(0, 0.02, sessions))),
                    "price_contribution": price,
                    "sentiment_contribution": mood,
                    "signal": price + mood,
                    "label": "HOLD",
                    "sentiment_mean_5": mood,
                    "news_count": random.integers(0, 4, sessions),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def scored(**by: list[object]) -> pd.DataFrame:
    """Metrics of every model for every value of one key; without a key, pooled."""
    [(key, values)] = by.items() if by else [("all", [0])]
    rows = [
        {key: value, "model": model, "n": 1234.0, "mse": 2e-4 if model == "zero" else 3e-4}
        | {"mae": 0.01, "r2_vs_zero": -0.5, "ic": 0.012, "ic_t": 0.4}
        | dict(zip(("hit_low", "hit_rate", "hit_high"), (0.48, 0.51, 0.54), strict=True))
        for value in values
        for model in MODELS
    ]
    frame = pd.DataFrame(rows)
    frame.loc[frame["model"] == "zero", ["hit_low", "hit_rate", "hit_high", "ic", "ic_t"]] = np.nan
    return frame if by else frame.drop(columns="all")


def rolling(points: int = 20) -> pd.DataFrame:
    """Information coefficients through time."""
    axis = pd.bdate_range("2012-01-02", periods=points, freq="21B")
    frames = [
        pd.DataFrame({"model": model, "session": axis, "ic": np.linspace(-0.02, height, points)})
        for model, height in (("lstm", 0.03), ("gru", 0.05), ("ridge", 0.01), ("momentum", 0.2))
    ]
    return pd.concat(frames, ignore_index=True)


def tenths() -> pd.DataFrame:
    """Mean outcomes of tenths of the forecasts."""
    frames = [
        pd.DataFrame(
            {
                "model": model,
                "bin": range(10),
                "forecast": np.linspace(-0.001, 0.001, 10),
                "actual": np.linspace(-0.002, 0.001, 10),
            }
        )
        for model in ("lstm", "gru", "lightgbm", "sentiment", "momentum")
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(low=frame["actual"] - 0.001, high=frame["actual"] + 0.001)


def coverage() -> pd.DataFrame:
    """Quantiles of two networks: one keeps its promises, one is too narrow."""
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    frames = [
        pd.DataFrame(
            {
                "model": model,
                "level": levels,
                "n": 1000,
                "coverage": 0.5 + narrow * (levels - 0.5),
                "pinball": pinball,
                "unconditional": 0.004,
                "skill": 1 - pinball / 0.004,
            }
        )
        for model, narrow, pinball in (("gru", 1.0, 0.003), ("lstm", 0.8, 0.005))
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(low=frame["coverage"] - 0.03, high=frame["coverage"] + 0.03)
