"""One model's networks of one ticker, over all folds and seeds: trained, kept, asked to forecast.

A network is trained once. What it learned from is hashed, and a fold whose training rows, network,
training and code are what they were is taken from its checkpoint: a new session lengthens a test
span and trains nothing, a new fold trains alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rnn_pipeline.features.windows import FoldData, ModelMatrix, Scaler, window_ends
from rnn_pipeline.networks.checkpoints import (
    code_version,
    load_members,
    load_metadata,
    save_members,
    weights_hash,
)
from rnn_pipeline.networks.devices import Precision
from rnn_pipeline.networks.fleet import Member, TrainedMember, train_members
from rnn_pipeline.networks.inference import predict_member
from rnn_pipeline.networks.tensorboard import log_history
from rnn_pipeline.networks.training import learning_rates

if TYPE_CHECKING:
    import torch

    from rnn_pipeline.settings import NetworkSpec, TrainingSpec

FORECASTS = ("ticker", "session", "fold", "model", "seed", "forecast", "model_hash")


@dataclass(frozen=True)
class FoldScales:
    """What turns a fold's features into its networks' inputs, and their outputs into returns."""

    inputs: Scaler
    target: Scaler

    def to_dict(self) -> dict[str, Any]:
        """For the checkpoint's metadata."""
        return {"inputs": self.inputs.to_dict(), "target": self.target.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FoldScales:
        """Undo ``to_dict``."""
        return cls(Scaler.from_dict(stored["inputs"]), Scaler.from_dict(stored["target"]))


@dataclass(frozen=True)
class Forecaster:
    """One model of one ticker.

    Attributes:
        ticker: whose returns it forecasts.
        model: its name.
        members: the trained network of each (fold, seed).
        scales: of each fold.
        recipes: hash of what each (fold, seed) was trained from and how.
        columns: names of the features, in the order the networks were trained on.
        tested_until: last session that the newest fold tested when it was trained; later ones are
            for :meth:`forecast_new`.
    """

    ticker: str
    model: str
    columns: tuple[str, ...]
    members: Mapping[tuple[int, int], TrainedMember]
    scales: Mapping[int, FoldScales]
    recipes: Mapping[tuple[int, int], str]
    tested_until: pd.Timestamp

    @property
    def last_fold(self) -> int:
        """The newest fold, whose networks forecast new sessions."""
        return max(self.scales)

    @property
    def history(self) -> pd.DataFrame:
        """Loss curves: ticker, model, fold, seed, epoch, train_loss, val_loss."""
        curves = [
            pd.DataFrame(
                {
                    "ticker": self.ticker,
                    "model": self.model,
                    "fold": fold,
                    "seed": seed,
                    "epoch": range(len(member.history.train_loss)),
                    "train_loss": member.history.train_loss,
                    "val_loss": member.history.val_loss,
                }
            )
            for (fold, seed), member in self.members.items()
        ]
        return pd.concat(curves, ignore_index=True)

    def forecast(
        self, fold: int, inputs: np.ndarray, ends: np.ndarray, sessions: np.ndarray
    ) -> pd.DataFrame:
        """Forecast log returns with every seed of one fold.

        Args:
            fold: whose networks to ask.
            inputs: (rows, n_features) scaled with this fold's scales.
            ends: (n,) rows where the windows end, inclusive.
            sessions: (rows,) datetime64.

        Returns:
            ticker, session, fold, model, seed, forecast (log return), model_hash; n rows per seed.
        """
        frames = []
        for (number, seed), member in self.members.items():
            if number != fold:
                continue
            scaled = predict_member(member, inputs, ends)
            frames.append(
                pd.DataFrame(
                    {
                        "ticker": self.ticker,
                        "session": pd.DatetimeIndex(sessions[ends]),
                        "fold": fold,
                        "model": self.model,
                        "seed": seed,
                        "forecast": self.scales[fold].target.inverse(scaled),
                        "model_hash": weights_hash(member.state)[:16],
                    },
                    columns=list(FORECASTS),
                )
            )
        return pd.concat(frames, ignore_index=True)

    def forecast_test(self, data: FoldData) -> pd.DataFrame:
        """Forecast the test sessions of one fold (see :meth:`forecast`)."""
        return self.forecast(data.fold, data.inputs, data.test_ends, data.sessions)

    def forecast_new(
        self, matrix: ModelMatrix, lookback: int, sessions: pd.DatetimeIndex, first: pd.Timestamp
    ) -> pd.DataFrame:
        """Forecast the sessions from ``first`` on with the newest fold's networks.

        Args:
            matrix: features of this ticker, ``lookback - 1`` rows before ``first`` included.
            lookback: rows in one window.
            sessions: every session of the exchange that the matrix spans.
            first: the first session to forecast.

        Returns:
            As :meth:`forecast`; no rows for sessions without a complete window.

        Raises:
            ValueError: the matrix has other features than the networks were trained on.
        """
        if matrix.columns != self.columns:
            raise ValueError(
                f"{self.model} of {self.ticker} was trained on other features than there are now"
                f" ({sorted(set(matrix.columns) ^ set(self.columns)) or 'in another order'}):"
                " retrain it"
            )
        rows = matrix.rows_of(self.ticker)
        ends = window_ends(matrix, lookback, sessions)
        ends = ends[(ends >= rows.start) & (ends < rows.stop)] - rows.start
        own = matrix.sessions[rows]
        ends = ends[own[ends] >= np.datetime64(first, "D")]
        inputs = self.scales[self.last_fold].inputs.transform(matrix.values[rows])
        return self.forecast(self.last_fold, inputs, ends, own)

    def save(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write all networks to one file, with all that is needed to use them again."""
        save_members(
            path,
            list(self.members.values()),
            {
                "ticker": self.ticker,
                "model": self.model,
                "columns": list(self.columns),
                "tested_until": self.tested_until.isoformat(),
                "scales": {str(fold): scale.to_dict() for fold, scale in self.scales.items()},
                "members": [
                    {
                        "key": member.key,
                        "fold": fold,
                        "seed": seed,
                        "recipe": self.recipes[fold, seed],
                    }
                    for (fold, seed), member in self.members.items()
                ],
                "provenance": dict(provenance),
            },
        )

    @classmethod
    def load(cls, path: Path, folds: Iterable[int] | None = None) -> Forecaster:
        """Read the networks back: of the given folds, or of all.

        Raises:
            ValueError: the file is missing or damaged.
        """
        metadata = load_metadata(path)
        wanted = None if folds is None else set(folds)
        entries = [
            entry for entry in metadata["members"] if wanted is None or entry["fold"] in wanted
        ]
        members = load_members(path, [entry["key"] for entry in entries])
        return cls(
            ticker=metadata["ticker"],
            model=metadata["model"],
            columns=tuple(metadata["columns"]),
            members={
                (entry["fold"], entry["seed"]): member
                for entry, member in zip(entries, members, strict=True)
            },
            scales={
                int(fold): FoldScales.from_dict(scale)
                for fold, scale in metadata["scales"].items()
                if wanted is None or int(fold) in wanted
            },
            recipes={(entry["fold"], entry["seed"]): entry["recipe"] for entry in entries},
            tested_until=pd.Timestamp(metadata["tested_until"]),
        )

    @classmethod
    def load_newest(cls, path: Path) -> Forecaster:
        """Read the networks of the newest fold alone.

        Raises:
            ValueError: the file is missing or damaged.
        """
        return cls.load(path, [max(map(int, load_metadata(path)["scales"]))])


def train_walk_forward(
    model: str,
    columns: Sequence[str],
    datasets: Iterable[FoldData],
    network: NetworkSpec,
    training: TrainingSpec,
    seeds: Sequence[int],
    device: torch.device,
    known: Mapping[str, Forecaster],
    *,
    deterministic: bool = True,
    precision: Precision = "float32",
    log_dir: Path | None = None,
    on_trained: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[dict[str, Forecaster], int]:
    """Train one model on every ticker, fold and seed that is not known already.

    Args:
        model: its name.
        columns: names of the features in ``datasets``.
        datasets: each ticker's share of each fold, a ticker's folds in order of time.
        network: the architecture.
        training: how it learns.
        seeds: one network per seed.
        device: where.
        known: forecasters of earlier runs by ticker; their networks are kept where nothing that
            training can see has changed.
        deterministic: see :func:`~rnn_pipeline.networks.fleet.train_members`.
        precision: likewise.
        log_dir: where TensorBoard finds the networks trained now, by ticker, model, fold and seed;
            None writes no logs.
        on_trained: called with how many networks are trained and how many there are to train.

    Returns:
        The forecaster of each ticker, and how many networks were trained for it now.
    """
    shared = json.dumps(
        [
            list(columns),
            network.model_dump(mode="json"),
            training.model_dump(mode="json"),
            code_version(),
        ],
        sort_keys=True,
    )
    scales: dict[str, dict[int, FoldScales]] = {}
    recipes: dict[str, dict[tuple[int, int], str]] = {}
    members: dict[str, dict[tuple[int, int], TrainedMember]] = {}
    tested_until: dict[str, pd.Timestamp] = {}
    missing: list[tuple[str, int, int]] = []
    to_train: list[Member] = []
    for data in datasets:
        fold_scales = FoldScales(data.input_scaler, data.target_scaler)
        scales.setdefault(data.ticker, {})[data.fold] = fold_scales
        tested_until[data.ticker] = pd.Timestamp(data.sessions[data.test_ends[-1]])
        for seed in seeds:
            place = (data.fold, seed)
            recipe = hashlib.sha256(f"{data.training_hash} {seed} {shared}".encode()).hexdigest()
            recipes.setdefault(data.ticker, {})[place] = recipe
            earlier = known.get(data.ticker)
            if earlier is not None and earlier.recipes.get(place) == recipe:
                members.setdefault(data.ticker, {})[place] = earlier.members[place]
                continue
            missing.append((data.ticker, *place))
            to_train.append(
                Member(
                    key=f"{data.ticker}/{model}/{data.fold}/{seed}",
                    network=network,
                    training=training,
                    inputs=data.inputs,
                    targets=data.targets,
                    train_ends=data.train_ends,
                    val_ends=data.val_ends,
                    lookback=data.lookback,
                    seed=seed,
                )
            )
    done = 0

    def count(place: int, member: TrainedMember) -> None:
        nonlocal done
        if log_dir is not None:
            rates = learning_rates(training, len(to_train[place].train_ends))
            log_history(log_dir / member.key, member.history, rates)
        done += 1
        on_trained(done, len(to_train))

    trained = train_members(to_train, device, deterministic, count, precision)
    for (ticker, fold, seed), member in zip(missing, trained, strict=True):
        members.setdefault(ticker, {})[fold, seed] = member
    return {
        ticker: Forecaster(
            ticker,
            model,
            tuple(columns),
            dict(sorted(members[ticker].items())),
            scales[ticker],
            recipes[ticker],
            tested_until[ticker],
        )
        for ticker in members
    }, len(to_train)


def walk_forward_forecasts(
    datasets: Iterable[FoldData], models: Sequence[Mapping[str, Forecaster]]
) -> pd.DataFrame:
    """Forecast every fold's test sessions with every model that was trained for its ticker.

    Args:
        datasets: each ticker's share of each fold.
        models: forecasters by ticker, one mapping per model.

    Returns:
        As :meth:`Forecaster.forecast`.
    """
    tests = [
        model[data.ticker].forecast_test(data)
        for data in datasets
        for model in models
        if data.ticker in model
    ]
    return pd.concat(tests, ignore_index=True) if tests else no_forecasts()


def stamped(forecasts: pd.DataFrame, features: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Add to forecasts when they could be made, and by which features and code.

    Args:
        forecasts: as :meth:`Forecaster.forecast` gives them.
        features: ticker, session, known_at, feature_set_hash of the sessions forecast from.
        horizon: sessions ahead.
    """
    lineage = features[["ticker", "session", "known_at", "feature_set_hash"]]
    return forecasts.merge(lineage, on=["ticker", "session"]).assign(
        horizon=horizon, code_version=code_version()
    )


def no_forecasts() -> pd.DataFrame:
    """The frame of no forecast at all, of the types that :meth:`Forecaster.forecast` gives.

    A partition may hold no session (a holiday, a ticker before its first day): that is an answer,
    and joins with others must accept it.
    """
    types = dict.fromkeys(FORECASTS, "str") | {
        "session": "datetime64[s]",
        "fold": "int64",
        "seed": "int64",
        "forecast": "float64",
    }
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in types.items()})
