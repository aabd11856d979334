"""The frames that evidence and trading exchange: their columns, and the checks at their door."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

FORECAST_COLUMNS = (
    "ticker",
    "session",
    "fold",
    "model",
    "seed",
    "horizon",
    "forecast",
    "actual",
    "known_at",
    "model_hash",
)
EVIDENCE_COLUMNS = (
    "ticker",
    "model",
    "fold",
    "n",
    "n_effective",
    "ic",
    "ic_t",
    "hit_rate",
    "hit_low",
    "hit_high",
    "r2_vs_zero",
    "forecast_std",
    "seed_dispersion",
    "sign_flip_rate",
    "trials",
    "p_value",
    "grade",
    "known_at",
)


def require(
    frame: pd.DataFrame,
    name: str,
    columns: Sequence[str],
    *,
    unique: Sequence[str] = (),
    finite: Sequence[str] = (),
) -> None:
    """Check a frame where it enters, so that a fault is named before it becomes a number.

    Raises:
        ValueError: a column is missing, a key of ``unique`` stands twice, or a column of ``finite``
            holds NaN or infinity; the message names the first offending row.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name} lacks the columns {missing}; it has {list(frame.columns)}")
    for column in finite:
        broken = ~np.isfinite(frame[column].to_numpy(dtype=np.float64))
        if broken.any():
            row = frame.loc[broken].iloc[0]
            raise ValueError(
                f"{name}: {column} is {row[column]} for {row['ticker']} on"
                f" {row['session']:%Y-%m-%d}; leave rows without a value out"
            )
    if unique:
        twice = frame.duplicated(list(unique))
        if twice.any():
            key = ", ".join(f"{part}={frame.loc[twice, part].iloc[0]}" for part in unique)
            raise ValueError(f"{name} has more than one row for {key}; pass each row once")
