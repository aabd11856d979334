"""Forecasters that need no pipeline: a series or a frame in, a trained network and forecasts out.

A window is ``lookback`` rows in order of time, and its target stands in the row behind it. The last
``validation_split`` of the rows validates: each of those rows is the target of one validation
window. Training windows and their targets end before the row from which the first of these
forecasts is made. What the network is fed is scaled by the mean and deviation of training rows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Unpack, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from rnn_pipeline.features.windows import Scaler
from rnn_pipeline.networks.backends import SMALL_S, choose, reference_seconds
from rnn_pipeline.networks.base import Estimator, Options
from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember, windows_of
from rnn_pipeline.networks.inference import infer
from rnn_pipeline.networks.kernels import cpu, reference
from rnn_pipeline.networks.recurrent import (
    Cell,
    GRUNet,
    LSTMNet,
    RecurrentNetwork,
    StackedLSTM,
)
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

_Rows = NDArray[np.float64]

_log = logging.getLogger(__name__)

WrapperBackend = Literal["auto", "reference", "cpu"]
"""See :mod:`~rnn_pipeline.networks.backends`; the others train many networks at once."""


class WindowOptions(Options, total=False):
    """Arguments that every forecaster of windows takes."""

    backend: WrapperBackend
    """Who trains. "reference" is torch, on ``device``; "cpu" the fused kernel, which Numba compiles
    on first use, about 20 s once per machine. "auto" is the reference on a GPU and for a few
    seconds of work, else the faster of the two: measured once per process and architecture, because
    they agree with each other to rounding, and each with itself to the bit."""


class _WindowForecaster(Estimator):
    """What forecasters of the next row share: windows, their split in time, training, inference.

    Args:
        backend: see :class:`WindowOptions`.
        options: see :class:`~rnn_pipeline.networks.base.Estimator`.

    Raises:
        ValueError: the backend is unknown.
    """

    lookback: int = 0

    def __init__(self, *, backend: WrapperBackend = "auto", **options: Unpack[Options]) -> None:
        super().__init__(**options)
        if backend not in get_args(WrapperBackend):
            raise ValueError(
                f"backend {backend!r} is unknown; use {', '.join(get_args(WrapperBackend))}"
            )
        self.backend: WrapperBackend = backend

    def _fit_windows(
        self,
        network: RecurrentNetwork,
        cell: Cell,
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        split: _Split,
        spec: TrainingSpec,
    ) -> dict[str, list[float]]:
        """Train ``network`` on scaled ``inputs`` (rows, n_features) and ``targets`` (rows,)."""
        member = Member(
            key=type(self).__name__,
            network=NetworkSpec(
                cell=cell,
                hidden_sizes=tuple(layer.hidden_size for layer in network.recurrent.layers),
                dropout=network.dropout.p,
            ),
            training=spec,
            inputs=inputs[:-1],
            targets=targets[1:],
            train_ends=split.train,
            val_ends=split.val,
            lookback=split.lookback,
            seed=self.seed,
        )
        with self._shown(spec.epochs) as on_epoch:
            trained = self._train(member, on_epoch)
        network.load_state_dict(trained.state)
        self.model = network.to(self.device).eval()
        self.lookback = split.lookback
        history = trained.history
        self.history = {"train_loss": history.train_loss, "val_loss": history.val_loss}
        return self.history

    def _train(
        self, member: Member, on_epoch: Callable[[int, float, float], None] | None
    ) -> TrainedMember:
        """Train on this thread with the backend asked for."""
        # ``choose`` would keep to what it decided for an architecture whose first fit was small.
        leave = self.device.type != "cpu" or reference_seconds(member) < SMALL_S
        backend = "reference" if self.backend == "auto" and leave else self.backend
        compute = Compute(self.device, backend, self.precision)
        if choose([member], compute, 1, _log.info) == "cpu":
            return cpu.train_member(member, on_epoch)
        with numerics(self.device, self.precision):
            return reference.train_member(member, self.device, self.precision, on_epoch)

    def _forecast(self, inputs: NDArray[np.float32]) -> _Rows:
        """Forecast from every window of scaled ``inputs`` (rows, n_features).

        One window per call, so that a forecast's bits depend on nothing but its window.

        Returns:
            (rows,) float64, scaled; NaN where no window ends or the window holds a NaN.
        """
        network, lookback = self._trained(), self.lookback
        forecasts = np.full(len(inputs), np.nan)
        finite = np.isfinite(inputs).all(axis=1)
        whole = np.convolve(finite, np.ones(lookback, dtype=np.int64))[: len(inputs)] == lookback
        starts = np.flatnonzero(whole) - (lookback - 1)
        if len(starts):
            windows = windows_of(torch.tensor(inputs, device=self.device), lookback)
            rows = torch.tensor(starts, device=self.device)
            made = infer(lambda row: network(windows.index_select(0, row)), rows)
            forecasts[whole] = made[:, 0].double().cpu().numpy()
        return forecasts

    def _enough(self, n_rows: int) -> None:
        """Refuse to forecast from less than one window."""
        if n_rows < self.lookback:
            raise ValueError(
                f"{n_rows} rows are less than one window: give the last {self.lookback} or more"
            )


class TradingLSTM(_WindowForecaster):
    """Forecast a series from its own past with LSTM layers.

    Args:
        hidden_dim: units of each layer.
        num_layers: layers on top of each other.
        dropout: between layers and before the head.
        options: backend, see :class:`WindowOptions`; seed, device, training, precision, progress,
            see :class:`~rnn_pipeline.networks.base.Estimator`.

    Attributes:
        lookback: rows in one window; 0 before ``fit``.
        mean: of the training rows.
        std: their population standard deviation.
    """

    network: ClassVar[type[LSTMNet | GRUNet]] = LSTMNet

    def __init__(
        self,
        *,
        hidden_dim: int = 64,
        num_layers: int = 2,
        dropout: float = 0.2,
        **options: Unpack[WindowOptions],
    ) -> None:
        super().__init__(**options)
        self.size: dict[str, Any] = {
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "dropout": dropout,
        }
        self.mean: float | None = None
        self.std: float | None = None

    def prepare_sequences(self, series: ArrayLike, lookback: int) -> tuple[_Rows, _Rows]:
        """Cut a series into windows and the value that follows each.

        Returns:
            X (n, lookback, 1) and y (n,) with n = len(series) - lookback, oldest first, unscaled.

        Raises:
            ValueError: the series is not one-dimensional or has no value behind a first window.
        """
        values = _series(series)
        return _windows(values[:, None], lookback), values[lookback:].copy()

    def fit(
        self,
        series: ArrayLike,
        lookback: int = 20,
        epochs: int = 50,
        lr: float = 0.001,
        batch_size: int = 32,
        validation_split: float = 0.2,
    ) -> dict[str, list[float]]:
        """Train on a series; the weights of the epoch with the least validation loss are kept.

        Args:
            series: (n,) values in order of time.
            lookback: values in one window.
            epochs: passes over the training windows.
            lr: Adam's step size.
            batch_size: windows per step; the last, smaller batch counts too.
            validation_split: share of the values, the last ones, that validates.

        Returns:
            ``train_loss`` and ``val_loss``: mean squared error of the scaled series, per epoch.

        Raises:
            ValueError: too few values, one that is not finite, training values that are all equal,
                or a parameter out of range.
        """
        spec = self._training(epochs, batch_size, lr)
        values = _series(series)
        _refuse_gaps(values[:, None], ["the series"])
        split = _Split(len(values), lookback, validation_split)
        scaler = Scaler.fit(values[: split.n_train_rows])
        _refuse_constant(values[: split.n_train_rows, None], ["the series"])
        scaled = scaler.transform(values)
        network = self.network(input_dim=1, **self.size)
        history = self._fit_windows(
            network, self.network.cell, scaled[:, None], scaled, split, spec
        )
        self.mean, self.std = float(scaler.mean), float(scaler.std)
        return history

    def predict(self, series: ArrayLike, steps: int = 1) -> _Rows:
        """Forecast the values behind the end of a series, each from those forecast before it.

        Args:
            series: at least ``lookback`` values, the newest last.
            steps: values to forecast.

        Returns:
            (steps,) in the units of the series.

        Raises:
            ValueError: not trained, too few values, or one of the last ``lookback`` not finite.
        """
        scaler = self._scaler()
        values = _series(series)
        self._enough(len(values))
        if steps < 1:
            raise ValueError(f"steps {steps}: forecast at least 1")
        window = values[-self.lookback :, None]
        _refuse_gaps(window, ["the last window of the series"])
        scaled = scaler.transform(window)
        forecasts = []
        for _ in range(steps):
            forecasts.append(self._forecast(scaled)[-1])
            scaled = np.append(scaled[1:], np.full((1, 1), forecasts[-1], np.float32), axis=0)
        return scaler.inverse(np.array(forecasts))

    def predict_all(self, series: ArrayLike) -> _Rows:
        """Forecast one step from every row.

        Returns:
            (len(series),): entry ``t`` is the forecast of value ``t + 1`` from the window that ends
            at ``t``, the one that ``predict(series[: t + 1])`` gives, bit for bit; NaN before the
            first full window and where a window holds a value that is not finite.

        Raises:
            ValueError: not trained, or less than one window.
        """
        scaler = self._scaler()
        values = _series(series)
        self._enough(len(values))
        return scaler.inverse(self._forecast(scaler.transform(values[:, None])))

    def _scaler(self) -> Scaler:
        self._trained()
        return Scaler(np.asarray(self.mean), np.asarray(self.std))

    def _describe(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "lookback": self.lookback,
            "mean": self.mean,
            "std": self.std,
        }

    def _restore(self, description: dict[str, Any]) -> nn.Module:
        self.size = description["size"]
        self.lookback = description["lookback"]
        self.mean, self.std = description["mean"], description["std"]
        return self.network(input_dim=1, **self.size)


class TradingGRU(TradingLSTM):
    """Forecast a series from its own past with GRU layers; otherwise :class:`TradingLSTM`."""

    network = GRUNet


class MultivariateLSTM(_WindowForecaster):
    """Forecast one column of a frame from the others with stacked LSTM layers.

    The target column is no input: where its own past should be seen, put a copy of it, or better
    its change, among the features.

    Args:
        dropout: between layers and before the head.
        options: as for :class:`TradingLSTM`.

    Attributes:
        lookback: rows in one window; 0 before ``fit``.
        feature_columns: names of the inputs, in the network's order.
        target_col: name of the target.
        hidden_dims: units of each layer.
        input_scaler: mean and deviation of each feature over the training rows.
        target_scaler: likewise of the training targets.
    """

    feature_columns: tuple[str, ...] = ()
    target_col: str = ""
    hidden_dims: tuple[int, ...] = ()
    input_scaler: Scaler
    target_scaler: Scaler

    def __init__(self, *, dropout: float = 0.2, **options: Unpack[WindowOptions]) -> None:
        super().__init__(**options)
        self.dropout = dropout

    def prepare_sequences(
        self, features: ArrayLike, target: ArrayLike, lookback: int
    ) -> tuple[_Rows, _Rows]:
        """Cut rows into windows and the target that stands in the row behind each.

        Args:
            features: (rows, n_features).
            target: (rows,).
            lookback: rows in one window.

        Returns:
            X (n, lookback, n_features) and y (n,) with n = rows - lookback, oldest first, unscaled.

        Raises:
            ValueError: shapes that do not fit, or no row behind a first window.
        """
        rows, values = np.asarray(features, dtype=np.float64), _series(target)
        if rows.ndim != 2 or len(rows) != len(values):
            raise ValueError(
                f"features {rows.shape} and target {values.shape} must be (rows, n_features) and"
                " (rows,)"
            )
        return _windows(rows, lookback), values[lookback:].copy()

    def fit(
        self,
        features_df: pd.DataFrame,
        target_col: str,
        lookback: int = 20,
        epochs: int = 50,
        lr: float = 0.001,
        batch_size: int = 32,
        validation_split: float = 0.2,
        hidden_dims: Sequence[int] = (64, 32),
    ) -> dict[str, list[float]]:
        """Train on a frame; the weights of the epoch with the least validation loss are kept.

        Args:
            features_df: numeric columns, rows in order of time.
            target_col: the column to forecast; all others are inputs.
            lookback: rows in one window.
            epochs: passes over the training windows.
            lr: Adam's step size.
            batch_size: windows per step; the last, smaller batch counts too.
            validation_split: share of the rows, the last ones, that validates.
            hidden_dims: units of each layer, the first layer's first.

        Returns:
            ``train_loss`` and ``val_loss``: mean squared error of the scaled target, per epoch.

        Raises:
            ValueError: no such column, no other column, one that is not numeric, not finite, or
                constant over the training rows, rows out of order, too few of them, or a parameter
                out of range.
        """
        spec = self._training(epochs, batch_size, lr)
        features = tuple(name for name in features_df.columns if name != target_col)
        if not features:
            raise ValueError(f"no feature columns beside {target_col!r}: add at least one")
        rows = _columns(features_df, [*features, target_col])
        _refuse_gaps(rows, [*features, target_col])
        split = _Split(len(rows), lookback, validation_split)
        training = rows[: split.n_train_rows]
        _refuse_constant(training, [*features, target_col])
        # The newest training row is a target only: no training window holds its features.
        input_scaler = Scaler.fit(training[:-1, :-1])
        target_scaler = Scaler.fit(training[lookback:, -1])
        network = StackedLSTM(len(features), hidden_dims, dropout=self.dropout)
        history = self._fit_windows(
            network,
            "lstm",
            input_scaler.transform(rows[:, :-1]),
            target_scaler.transform(rows[:, -1]),
            split,
            spec,
        )
        self.feature_columns, self.target_col = features, target_col
        self.hidden_dims = tuple(hidden_dims)
        self.input_scaler, self.target_scaler = input_scaler, target_scaler
        return history

    def predict(self, features_df: pd.DataFrame) -> _Rows:
        """Forecast the target of the row behind the last one.

        Args:
            features_df: the features it was trained on, in any order, at least ``lookback`` rows,
                the newest last; other columns, the target's too, are not looked at.

        Returns:
            (1,) in the units of the target.

        Raises:
            ValueError: not trained, a column is missing or not numeric, too few rows, rows out of
                order, or a value among the last ``lookback`` rows that is not finite.
        """
        rows = self._inputs(features_df)[-self.lookback :]
        _refuse_gaps(rows, self.feature_columns)
        return self.target_scaler.inverse(self._forecast(self.input_scaler.transform(rows))[-1:])

    def predict_all(self, features_df: pd.DataFrame) -> pd.Series:
        """Forecast from every row.

        Returns:
            One value per row, under the frame's own index: at row ``t`` the forecast of the target
            of row ``t + 1`` from the window that ends at ``t``, the one that
            ``predict(features_df[: t + 1])`` gives, bit for bit. NaN before the first full window
            and where a window holds a value that is not finite.

        Raises:
            ValueError: not trained, a column is missing or not numeric, too few rows, or rows out
                of order.
        """
        rows = self._inputs(features_df)
        forecasts = self.target_scaler.inverse(self._forecast(self.input_scaler.transform(rows)))
        return pd.Series(forecasts, index=features_df.index, name=self.target_col)

    def _inputs(self, features_df: pd.DataFrame) -> _Rows:
        self._trained()
        rows = _columns(features_df, self.feature_columns)
        self._enough(len(rows))
        return rows

    def _describe(self) -> dict[str, Any]:
        return {
            "lookback": self.lookback,
            "feature_columns": list(self.feature_columns),
            "target_col": self.target_col,
            "hidden_dims": list(self.hidden_dims),
            "dropout": self.dropout,
            "input_scaler": self.input_scaler.to_dict(),
            "target_scaler": self.target_scaler.to_dict(),
        }

    def _restore(self, description: dict[str, Any]) -> nn.Module:
        self.lookback = description["lookback"]
        self.feature_columns = tuple(description["feature_columns"])
        self.target_col = description["target_col"]
        self.hidden_dims = tuple(description["hidden_dims"])
        self.dropout = description["dropout"]
        self.input_scaler = Scaler.from_dict(description["input_scaler"])
        self.target_scaler = Scaler.from_dict(description["target_scaler"])
        return StackedLSTM(len(self.feature_columns), self.hidden_dims, dropout=self.dropout)


class _Split:
    """Which windows train and which validate, by the rows at which they end.

    Attributes:
        lookback: rows in one window.
        n_train_rows: rows that training windows and their targets take, from the first on.
        train: (n,) int64.
        val: (m,) int64.
    """

    def __init__(self, n_rows: int, lookback: int, validation_split: float) -> None:
        if lookback < 1:
            raise ValueError(f"lookback {lookback}: a window has at least 1 row")
        if not 0.0 < validation_split < 1.0:
            raise ValueError(
                f"validation_split {validation_split} must lie between 0 and 1: the weights to keep"
                " are chosen by the validation loss"
            )
        first_val_target = n_rows - max(1, round(validation_split * n_rows))
        # The first validation forecast is made at the row before its target; training, targets
        # included, ends before that row, as in the pipeline's folds.
        self.n_train_rows = first_val_target - 1
        if self.n_train_rows <= lookback:
            enough = math.ceil((lookback + 2.5) / (1.0 - validation_split))
            raise ValueError(
                f"{n_rows} rows are too few for windows of {lookback} and a validation_split of"
                f" {validation_split:g}: give {enough} or more, or a smaller lookback"
            )
        self.lookback = lookback
        self.train = np.arange(lookback - 1, self.n_train_rows - 1)
        self.val = np.arange(first_val_target - 1, n_rows - 1)


def _series(values: ArrayLike) -> _Rows:
    """One-dimensional float64; a single column counts as one."""
    _refuse_disorder(values)
    series = np.asarray(values, dtype=np.float64)
    if series.ndim == 2 and series.shape[1] == 1:
        series = series[:, 0]
    if series.ndim != 1:
        raise ValueError(f"a series of shape {series.shape}: expected (n,)")
    return series


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> _Rows:
    """(rows, len(names)) float64."""
    if absent := [name for name in names if name not in frame]:
        raise ValueError(f"columns {absent} are missing; there are {list(frame.columns)}")
    _refuse_disorder(frame)
    columns = frame[list(names)]
    if columns.shape[1] != len(names):
        raise ValueError(f"columns {list(columns.columns)}: a name stands twice; rename or drop it")
    if wrong := [name for name in names if not pd.api.types.is_numeric_dtype(columns[name])]:
        raise ValueError(f"columns {wrong} are not numeric: convert or drop them")
    return columns.to_numpy(dtype=np.float64, na_value=np.nan)


def _windows(rows: _Rows, lookback: int) -> _Rows:
    """Every window of ``rows`` (n, n_features) that has a row behind it, as a copy."""
    if not 1 <= lookback < len(rows):
        raise ValueError(
            f"lookback {lookback} with {len(rows)} rows: it must be at least 1 and leave a row"
            " behind the first window"
        )
    windows = np.lib.stride_tricks.sliding_window_view(rows[:-1], lookback, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 2, 1))


def _refuse_disorder(values: object) -> None:
    index = getattr(values, "index", None)
    if isinstance(index, pd.DatetimeIndex) and not index.is_monotonic_increasing:
        raise ValueError("the rows are not in order of time: sort_index() first")


def _refuse_gaps(rows: _Rows, names: Sequence[str]) -> None:
    gaps = ~np.isfinite(rows)
    if gaps.any():
        row, column = np.argwhere(gaps)[0]
        raise ValueError(
            f"{int(gaps.sum())} values are NaN or infinite, first in row {row} of"
            f" {names[column]}: drop or fill them"
        )


def _refuse_constant(rows: _Rows, names: Sequence[str]) -> None:
    constant = rows.max(axis=0) == rows.min(axis=0)
    if constant.any():
        named = [name for name, is_so in zip(names, constant, strict=True) if is_so]
        raise ValueError(
            f"{', '.join(named)} never changes over the {len(rows)} training rows: there is nothing"
            " to learn from it; give other rows or leave it out"
        )
