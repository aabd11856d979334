from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def make_forecasts() -> Callable[..., pd.DataFrame]:
    """Forecasts that correlate with the outcome by ``skill``; folds of ``test_size`` sessions."""

    def make(
        tickers: Sequence[str] = ("AAA",),
        sessions: int = 60,
        test_size: int = 20,
        models: Sequence[str] = ("lstm",),
        seeds: Sequence[int] = (0, 1),
        horizon: int = 1,
        skill: float = 0.0,
        random_seed: int = 0,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(random_seed)
        axis = pd.bdate_range("2010-01-04", periods=sessions)
        index = pd.MultiIndex.from_product(
            [tickers, axis, models, seeds], names=["ticker", "session", "model", "seed"]
        )
        frame = index.to_frame(index=False)
        per_session = len(models) * len(seeds)
        outcome = rng.standard_normal(len(tickers) * sessions)
        noise = rng.standard_normal((len(outcome), per_session))
        forecast = skill * outcome[:, None] + np.sqrt(1 - skill**2) * noise
        fold = np.repeat(np.arange(sessions) // test_size, per_session)
        return frame.assign(
            fold=np.tile(fold, len(tickers)),
            horizon=horizon,
            forecast=0.002 * forecast.ravel(),
            actual=0.01 * np.repeat(outcome, per_session),
            known_at=frame["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21),
            model_hash="test",
        )

    return make
