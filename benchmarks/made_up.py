"""Made-up bars of any number of tickers, and settings under which the pipeline is soon through.

What benchmarks of cost share: what the bars say does not matter there, only how many there are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# What takes long to import comes with the function that needs it: imports are measured, too.
if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DAILY = 0.01
"""Standard deviation of simulated daily log returns."""

SOON_TRAINED = """
[model.training]
epochs = 1

[model.sentiment]
members = 1
least_steps = 0
embed_dim = 8
hidden_size = 8

[model.sentiment.training]
epochs = 1
"""
"""The end of a settings file: networks learn next to nothing, in next to no time."""


def garch(rng: np.random.Generator, n: int) -> np.ndarray:
    """GARCH(1, 1) without drift, with Student's t of four degrees of freedom."""
    from arch.univariate import GARCH, StudentsT, ZeroMean

    model = ZeroMean(volatility=GARCH(), distribution=StudentsT(seed=rng), rescale=False)
    # omega, alpha, beta: an unconditional variance of one; degrees of freedom.
    return DAILY * model.simulate([0.02, 0.10, 0.88, 4.0], n)["data"].to_numpy()


def universe(tickers: Sequence[str], sessions: pd.DatetimeIndex) -> pd.DataFrame:
    """Bars of tickers, as a file for the drop folder has them."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    frames = []
    for ticker in tickers:
        close = 50 * np.exp(np.cumsum(garch(rng, len(sessions))))
        open_ = close * np.exp(rng.normal(0, 0.004, len(sessions)))
        spread = np.exp(np.abs(rng.normal(0, 0.006, len(sessions))))
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": sessions,
                    "open": open_,
                    "high": np.maximum(open_, close) * spread,
                    "low": np.minimum(open_, close) / spread,
                    "close": close,
                    "adj_close": close,
                    "volume": rng.lognormal(13, 0.4, len(sessions)).round(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def drop(bars: pd.DataFrame, folder: Path, name: str) -> None:
    """Put bars into the drop folder, as old as a file must be to be taken in."""
    path = folder / f"{name}.parquet"
    bars.to_parquet(path)
    os.utime(path, (time.time() - 60,) * 2)


def environment(settings: Path, data: Path) -> dict[str, str]:
    """This process's environment with these settings and no others of the pipeline."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RNN_PIPELINE_")}
    return clean | {
        "RNN_PIPELINE_SETTINGS_FILE": str(settings),
        "RNN_PIPELINE_DATA_DIR": str(data),
        "DAGSTER_HOME": "",
    }
