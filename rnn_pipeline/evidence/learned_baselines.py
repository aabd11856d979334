"""Ridge, logistic regression and LightGBM on the very windows and folds that the networks have.

Each is fitted per ticker and fold on the training windows, flattened. The validation windows choose
the strength of the penalty, or when to stop adding trees, and nothing else; the test windows are
only asked for forecasts. Everything runs on one thread, so that a forecast is the same bits on any
machine load, and each row is forecast by sums of its own, so that its bits depend on no other row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rnn_pipeline.features.windows import FoldData, gather

Floats = NDArray[np.float64]

RIDGE_PENALTIES = (1e3, 1e4, 1e5, 1e6)
"""Squared slopes cost this many squared errors; a training span has about a thousand rows."""
LOGISTIC_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
TREES, PATIENCE = 200, 20
LIGHTGBM = {
    "objective": "l2",
    "learning_rate": 0.03,
    "num_leaves": 7,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.5,
    "max_bin": 63,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
"""Small trees: there are few rows and little signal."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows of one role, flattened, and their log returns.

    Attributes:
        x: (n, lookback * n_features) scaled inputs, oldest row first.
        y: (n,) log returns.
    """

    x: Floats
    y: Floats

    @classmethod
    def of(cls, data: FoldData, ends: NDArray[np.int64]) -> Samples:
        """Copy the windows that end at the given rows."""
        windows = gather(data.inputs, ends, data.lookback).reshape(len(ends), -1)
        # A return of zero comes back from its scaled float32 as one of 1e-9, on either side.
        returns = data.target_scaler.inverse(data.targets[ends]).round(7)
        return cls(windows.astype(np.float64), returns)

    @property
    def rose(self) -> NDArray[np.bool_]:
        """Whether each return was positive."""
        return self.y > 0


def majority(train: Samples, val: Samples, x: Floats) -> Floats:
    """Forecast the direction that most training returns had, by :func:`expected_return`."""
    share = train.rose.sum() / np.count_nonzero(train.y) if train.y.any() else 0.5
    return expected_return(np.full(len(x), share), train)


def ridge(train: Samples, val: Samples, x: Floats) -> Floats:
    """Ridge regression (Hoerl and Kennard 1970) of the return, its penalty chosen on validation."""
    from sklearn.linear_model import Ridge

    # Returns in units of their own deviation, so that the penalties mean the same for all tickers.
    scale = train.y.std() or 1.0
    fits = [Ridge(alpha=penalty).fit(train.x, train.y / scale) for penalty in RIDGE_PENALTIES]
    errors = [
        np.mean((scale * _linear(fit.coef_, fit.intercept_, val.x) - val.y) ** 2) for fit in fits
    ]
    best = fits[int(np.argmin(errors))]
    return scale * _linear(best.coef_, best.intercept_, x)


def logistic(train: Samples, val: Samples, x: Floats) -> Floats:
    """Logistic regression of the direction, as a return by :func:`expected_return`.

    The strength is the one with the least log loss on validation. Where all training returns have
    one sign there is nothing to learn, and the majority is forecast.
    """
    from sklearn.linear_model import LogisticRegression

    if train.rose.all() or not train.rose.any():
        return majority(train, val, x)
    fits = [
        LogisticRegression(C=strength, max_iter=500).fit(train.x, train.rose)
        for strength in LOGISTIC_STRENGTHS
    ]
    sides = np.where(val.rose, 1.0, -1.0)
    losses = [
        np.logaddexp(0.0, -sides * _linear(fit.coef_[0], fit.intercept_[0], val.x)).mean()
        for fit in fits
    ]
    best = fits[int(np.argmin(losses))]
    return expected_return(expit(_linear(best.coef_[0], best.intercept_[0], x)), train)


def lightgbm(train: Samples, val: Samples, x: Floats) -> Floats:
    """Gradient-boosted trees (Ke et al. 2017) of the return, stopped early on validation."""
    import lightgbm as library

    scale = train.y.std() or 1.0
    rows = library.Dataset(train.x, train.y / scale, params=LIGHTGBM, free_raw_data=False)
    booster = library.train(
        LIGHTGBM,
        rows,
        TREES,
        valid_sets=[rows.create_valid(val.x, val.y / scale)],
        callbacks=[library.early_stopping(PATIENCE, verbose=False)],
    )
    return scale * np.asarray(booster.predict(x, num_threads=1))


def expected_return(share_up: Floats, train: Samples) -> Floats:
    """Expected log return of rising with a probability: (2 p - 1) times the mean size of a move.

    It has the sign of the likelier direction, and the scale of a return, so that a model of
    directions can be scored beside the others.
    """
    return (2.0 * share_up - 1.0) * np.abs(train.y).mean()


LEARNED: dict[str, Callable[[Samples, Samples, Floats], Floats]] = {
    "majority": majority,
    "ridge": ridge,
    "logistic": logistic,
    "lightgbm": lightgbm,
}
"""Name to a function of training samples, validation samples and the windows to forecast."""


def learned_forecasts(data: FoldData) -> dict[str, Floats]:
    """Fit every learned baseline on one fold and forecast its test windows.

    Returns:
        Name to (n_test,) log returns, in the order of ``data.test_ends``.
    """
    from threadpoolctl import threadpool_limits

    train, val = Samples.of(data, data.train_ends), Samples.of(data, data.val_ends)
    x = Samples.of(data, data.test_ends).x
    with threadpool_limits(1):
        return {name: fit(train, val, x) for name, fit in LEARNED.items()}


def recipe(data: FoldData) -> str:
    """Short hash of all that decides a fold's fits: its windows, this code, the libraries."""
    digest = hashlib.sha256(_code().encode())
    for ends in (data.train_ends, data.val_ends):
        samples = Samples.of(data, ends)
        for array in (samples.x, samples.y):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def window_hashes(data: FoldData) -> list[str]:
    """Short hash of each test window, in the order of ``data.test_ends``."""
    windows = gather(data.inputs, data.test_ends, data.lookback)
    return [hashlib.sha256(window.data).hexdigest()[:16] for window in windows]


@cache
def _code() -> str:
    versions = [version(name) for name in ("numpy", "scikit-learn", "lightgbm")]
    return f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {versions}"


def _linear(slopes: Floats, intercept: float, x: Floats) -> Floats:
    """Intercept plus slopes times each row, row by row: a matrix product's bits depend on shape."""
    return (x * slopes).sum(axis=1) + intercept
