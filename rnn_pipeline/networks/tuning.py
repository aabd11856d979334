"""A search for better settings, inside the training span of one fold.

The one idea: whoever tries fifty networks and keeps the best has looked at whatever they were
compared on. So a trial trains and is valued within the fold's training span alone
(:func:`~rnn_pipeline.features.folds.inner_folds`), and every trial is counted.

Trials are trained one by one and not as a fleet: a pruned trial ends after the epoch that showed it
to be hopeless, and the next one depends on it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from rnn_pipeline.features.folds import Fold, inner_folds
from rnn_pipeline.features.windows import FoldData, ModelMatrix, fold_data, fold_status
from rnn_pipeline.networks.backends import unavailable
from rnn_pipeline.networks.checkpoints import code_version
from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember
from rnn_pipeline.networks.kernels import cpu, reference
from rnn_pipeline.networks.training import NotFinite

if TYPE_CHECKING:
    import optuna

    from rnn_pipeline.settings import NetworkSpec, TrainingSpec, TuningSpec

STARTUP_TRIALS = 5
"""Trials that are neither pruned nor chosen by what earlier ones were worth."""

MIN_COMPLETE = 8
"""Complete trials that it takes to say which parameter matters."""

TRIALS = ("study", "ticker", "model", "fold", "trial", "state", "value", "params", "epochs")


@dataclass(frozen=True)
class Candidate:
    """What a trial is a choice of: everything else stays as the settings have it."""

    network: NetworkSpec
    training: TrainingSpec
    lookback: int

    @property
    def params(self) -> dict[str, Any]:
        """The choice as Optuna names it."""
        sizes = self.network.hidden_sizes
        return {
            "cell": self.network.cell,
            "n_layers": len(sizes),
            **{f"hidden_size_{depth}": size for depth, size in enumerate(sizes)},
            "dropout": self.network.dropout,
            "learning_rate": self.training.learning_rate,
            "lookback": self.lookback,
        }

    def changed(self, params: dict[str, Any]) -> Candidate:
        """This candidate with the given choice."""
        sizes = [params[f"hidden_size_{depth}"] for depth in range(params["n_layers"])]
        chosen = {
            "cell": params["cell"],
            "hidden_sizes": tuple(sizes),
            "dropout": params["dropout"],
        }
        learning = {"learning_rate": params["learning_rate"]}
        return Candidate(
            self.network.model_copy(update=chosen),
            self.training.model_copy(update=learning),
            params["lookback"],
        )

    def to_toml(self, model: str) -> str:
        """The choice as a fragment of ``rnn_pipeline.toml`` that makes it the network ``model``."""
        network = self.network
        return (
            f"[model]\nlookback = {self.lookback}\n\n"
            f"[model.networks.{model}]\n"
            f'cell = "{network.cell}"\n'
            f"hidden_sizes = {list(network.hidden_sizes)}\n"
            f"dropout = {network.dropout!r}\n\n"
            f"[model.training]\nlearning_rate = {self.training.learning_rate!r}\n"
        )


@dataclass(frozen=True)
class Tuned:
    """What a search has found.

    Attributes:
        trials: study, ticker, model, fold, trial (from 0), state ("complete", "pruned"), value,
            params (JSON), epochs (over all splits), finished_at; one row per trial. The value is
            the mean over the splits of the best epoch's validation loss, as a share of the squared
            error of forecasting a return of 0; of a pruned trial, as far as it came.
        importances: share by which each parameter tells the best quarter of the complete trials
            from the rest, largest first (PED-ANOVA, Watanabe et al. 2023); empty where they are
            fewer than ``MIN_COMPLETE``.
        best: the complete trial of the smallest value.
    """

    trials: pd.DataFrame
    importances: pd.Series
    best: Candidate

    @property
    def best_value(self) -> float:
        """The value of ``best``."""
        return float(self.trials.loc[self.trials["state"] == "complete", "value"].min())


def left_out(
    matrix: ModelMatrix, index: pd.DataFrame, fold: Fold, spec: TuningSpec, horizon: int
) -> dict[str, str]:
    """Why each ticker of a matrix cannot be searched on in a fold; "" where it can.

    Args:
        matrix: the features.
        index: its windows, as for `inner_datasets`.
        fold: whose training span.
        spec: number and size of the splits.
        horizon: sessions from a forecast to the end of its label.
    """
    inner = inner_folds(fold, spec.splits, spec.val_share, horizon)
    status = fold_status(matrix, index, inner)
    return status.groupby("ticker")["reason"].max().to_dict()


def inner_datasets(
    matrix: ModelMatrix,
    index: pd.DataFrame,
    fold: Fold,
    ticker: str,
    spec: TuningSpec,
    horizon: int,
) -> list[FoldData]:
    """A ticker's share of each inner fold; nothing of the fold's validation and test is in it.

    Args:
        matrix: the features.
        index: its windows, of the longest lookback that is searched (``spec.lookback``). Shorter
            ones are judged on the same rows with the same scales, so that values can be compared.
        fold: whose training span is cut.
        ticker: whose rows.
        spec: number and size of the splits.
        horizon: sessions from a forecast to the end of its label.

    Raises:
        ValueError: the span is too short, or the ticker has too few windows in it.
    """
    inner = inner_folds(fold, spec.splits, spec.val_share, horizon)
    return [fold_data(matrix, index, split, ticker) for split in inner]


def tune(
    model: str,
    fold: int,
    datasets: Sequence[FoldData],
    start: Candidate,
    spec: TuningSpec,
    storage: Path,
    compute: Compute,
    *,
    on_trial: Callable[[pd.DataFrame], None] = lambda _trials: None,
) -> Tuned:
    """Search until the study has ``spec.n_trials`` trials, or its time is up.

    Trial ``k`` is a function of data, specification and the trials before it. A study continues
    where it was when the process was killed: a trial is stored when it is done, one that was cut
    off is made again, and so a study in pieces has the trials of one that was never interrupted.

    The first trial is ``start`` where that lies within the ranges, so what is found can be held
    against what was there.

    Args:
        model: name of the network that is tuned.
        fold: number of the fold whose training span ``datasets`` come from.
        datasets: the splits (`inner_datasets`).
        start: what the settings say now; a trial changes what is searched.
        spec: ranges, trials, time, seed.
        storage: Optuna's SQLite file, of any number of studies.
        compute: where and how to train. On a CPU "auto" is the fused kernel wherever it can run:
            a trial must not depend on a measurement. Its values are the reference's to rounding.
        on_trial: called after each trial with all of them, as in ``Tuned.trials``.

    Raises:
        ValueError: no trial was completed, or the kernel was asked for and cannot run here.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ticker = datasets[0].ticker
    name = f"{ticker}/{model}/{fold}/{_recipe(datasets, start, spec, compute)}"
    storage.parent.mkdir(parents=True, exist_ok=True)
    kept = optuna.create_study(storage=f"sqlite:///{storage}", study_name=name, load_if_exists=True)
    # The search itself runs in memory: a report per epoch would cost SQLite more than the epoch.
    study = optuna.create_study(
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    )
    study.add_trials(kept.get_trials())
    done = len(study.trials)
    if done == 0 and _within(spec, start):
        study.enqueue_trial(start.params)

    def table() -> pd.DataFrame:
        known = [_row(trial) for trial in study.get_trials(deepcopy=False)]
        rows = pd.DataFrame(known).assign(study=name, ticker=ticker, model=model, fold=fold)
        return rows[[*TRIALS, "finished_at"]]

    began = time.monotonic()
    with numerics(compute.device, compute.precision, compute.deterministic):
        for number in range(done, spec.n_trials):
            # A sampler of its own: what a trial tries must not depend on which process made it.
            seed = int(np.random.SeedSequence([spec.seed, number]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
            study.optimize(lambda trial: _value(trial, datasets, start, spec, compute), n_trials=1)
            kept.add_trial(study.get_trials()[-1])
            on_trial(table())
            if spec.timeout is not None and time.monotonic() - began > spec.timeout:
                break
    trials = table()
    complete = trials[trials["state"] == "complete"]
    if complete.empty:
        raise ValueError(
            f"none of the {len(trials)} trials of {name} was completed, last:"
            f" {study.trials[-1].user_attrs.get('failure', 'pruned')}; lower the learning rates"
            " that are searched, or raise the number of trials"
        )
    return Tuned(trials, _importances(study), start.changed(study.best_params))


def _recipe(
    datasets: Sequence[FoldData], start: Candidate, spec: TuningSpec, compute: Compute
) -> str:
    """Short hash of all that decides a study's trials, save how many there are."""
    decides = [
        [data.training_hash for data in datasets],
        start.network.model_dump(mode="json"),
        start.training.model_dump(mode="json"),
        start.lookback,
        spec.model_dump(mode="json", exclude={"n_trials", "timeout"}),
        compute.precision,
        _trainer(compute),
        code_version(),
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _trainer(compute: Compute) -> Literal["reference", "cpu"]:
    """Who trains all trials of a study."""
    if compute.backend == "cpu" or (compute.backend == "auto" and compute.device.type == "cpu"):
        reason = unavailable("cpu", compute)
        if reason is None:
            return "cpu"
        if compute.backend == "cpu":
            raise ValueError(f"backend 'cpu' cannot run here: {reason}; set the backend to auto")
    return "reference"


def train_member(
    member: Member, compute: Compute, on_epoch: Callable[[int, float, float], None]
) -> TrainedMember:
    """Train one network on this thread; see :func:`~rnn_pipeline.networks.training.fit`."""
    if _trainer(compute) == "cpu":
        return cpu.train_member(member, on_epoch)
    return reference.train_member(member, compute.device, compute.precision, on_epoch)


def _suggest(trial: optuna.Trial, spec: TuningSpec) -> dict[str, Any]:
    """Choose within the ranges; widths and rates on a logarithmic scale."""
    n_layers = trial.suggest_int("n_layers", *spec.n_layers)
    return {
        "cell": trial.suggest_categorical("cell", spec.cells),
        "n_layers": n_layers,
        **{
            name: trial.suggest_int(name, *spec.hidden_size, log=True)
            for name in (f"hidden_size_{depth}" for depth in range(n_layers))
        },
        "dropout": trial.suggest_float("dropout", *spec.dropout),
        "learning_rate": trial.suggest_float("learning_rate", *spec.learning_rate, log=True),
        "lookback": trial.suggest_int("lookback", *spec.lookback),
    }


def _within(spec: TuningSpec, start: Candidate) -> bool:
    """Whether a candidate is one that `_suggest` could choose."""
    sizes = start.network.hidden_sizes
    searched: list[tuple[float, tuple[float, float]]] = [
        (len(sizes), spec.n_layers),
        *((size, spec.hidden_size) for size in sizes),
        (start.network.dropout, spec.dropout),
        (start.training.learning_rate, spec.learning_rate),
        (start.lookback, spec.lookback),
    ]
    inside = all(low <= value <= high for value, (low, high) in searched)
    return inside and start.network.cell in spec.cells


def _value(
    trial: optuna.Trial,
    datasets: Sequence[FoldData],
    start: Candidate,
    spec: TuningSpec,
    compute: Compute,
) -> float:
    """Train a trial's network on each split, as long as it is promising, and value it."""
    import optuna

    candidate = start.changed(_suggest(trial, spec))
    epochs = candidate.training.epochs
    values: list[float] = []
    for split, data in enumerate(datasets):
        zero = data.target_scaler.transform(np.zeros(()))
        unit = float(np.mean((data.targets[data.val_ends] - zero) ** 2))
        values.append(np.inf)

        def report(
            epoch: int, _train: float, val: float, split: int = split, unit: float = unit
        ) -> None:
            values[split] = min(values[split], val / unit)
            trial.report(float(np.mean(values)), split * epochs + epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        member = Member(
            key=f"{data.ticker}/trial {trial.number}/{split}",
            network=candidate.network,
            training=candidate.training,
            inputs=data.inputs,
            targets=data.targets,
            train_ends=data.train_ends,
            val_ends=data.val_ends,
            lookback=candidate.lookback,
            seed=spec.seed,
        )
        try:
            train_member(member, compute, report)
        except NotFinite as error:
            trial.set_user_attr("failure", str(error))
            raise optuna.TrialPruned from None
    return float(np.mean(values))


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """One line of ``Tuned.trials``."""
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": np.nan if trial.value is None else trial.value,
        "params": json.dumps(trial.params),
        "epochs": len(trial.intermediate_values),
        # Optuna's times are local and say nothing of their zone.
        "finished_at": trial.datetime_complete and trial.datetime_complete.astimezone(UTC),
    }


def _importances(study: optuna.Study) -> pd.Series:
    """See ``Tuned.importances``."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(complete) < MIN_COMPLETE:
        return pd.Series(dtype="float64")
    # Optuna's own choice, fANOVA, needs scikit-learn.
    best_quarter = PedAnovaImportanceEvaluator(target_quantile=0.25)
    return pd.Series(get_param_importances(study, evaluator=best_quarter), dtype="float64")
