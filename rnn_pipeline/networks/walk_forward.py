"""One model's networks over all folds and seeds: trained, kept for each ticker, asked to forecast.

A network is trained once. What it learned from is hashed, and a fold whose training rows, network,
training and code are what they were is taken from its checkpoint: a new session lengthens a test
span and trains nothing, a new fold trains alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from rnn_pipeline.features.windows import FoldData, ModelMatrix, Scaler
from rnn_pipeline.networks.checkpoints import (
    code_version,
    load_keys,
    load_members,
    load_metadata,
    save_members,
    weights_hash,
)
from rnn_pipeline.networks.fleet import (
    Compute,
    Member,
    Progress,
    TrainedMember,
    train_each,
)
from rnn_pipeline.networks.inference import predict_members
from rnn_pipeline.networks.pooled import PooledFold, for_ticker, pooled, starting_from
from rnn_pipeline.networks.tensorboard import log_history
from rnn_pipeline.networks.training import learning_rates

if TYPE_CHECKING:
    from rnn_pipeline.settings import NetworkSpec, TrainingSpec

TOGETHER = 256
"""Networks of complete forecasters that are handed over in one go, or somewhat more."""

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
        members: the trained network of each (fold, seed), as it was trained: a pooled one may serve
            other tickers, too.
        scales: of each fold.
        recipes: hash of what each (fold, seed) was trained from and how.
        columns: names of the features, in the order the networks were trained on.
        tested_until: last session that the newest fold tested when it was trained; later ones are
            for :meth:`asked_new`.
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
        members = list(self.members.items())
        epochs = [len(member.history.train_loss) for _, member in members]
        return pd.DataFrame(
            {
                "ticker": self.ticker,
                "model": self.model,
                "fold": np.repeat([fold for (fold, _), _ in members], epochs),
                "seed": np.repeat([seed for (_, seed), _ in members], epochs),
                "epoch": np.concatenate([np.arange(number) for number in epochs]),
                "train_loss": np.concatenate([m.history.train_loss for _, m in members]),
                "val_loss": np.concatenate([m.history.val_loss for _, m in members]),
            }
        )

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
            Of a network with quantiles, a column of log returns each: ``q0.05`` and so on.
        """
        return forecast_together([Question(self, fold, inputs, ends, sessions)])

    @property
    def lookback(self) -> int:
        """Rows in one window."""
        return next(iter(self.members.values())).lookback

    def asked_new(
        self, matrix: ModelMatrix, ends: np.ndarray, sessions: pd.DatetimeIndex
    ) -> Question:
        """The question for new sessions, to the newest fold's networks.

        Args:
            matrix: features of this ticker, ``lookback - 1`` rows before the first session
                included; others' rows may stand beside them.
            ends: of :func:`window_ends` on the whole matrix.
            sessions: those to forecast; one without a complete window is left out.

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
        first, last = np.searchsorted(ends, [rows.start, rows.stop])
        own = matrix.sessions[rows]
        wanted = ends[first:last] - rows.start
        wanted = wanted[np.isin(own[wanted], sessions.to_numpy().astype(own.dtype))]
        inputs = self.scales[self.last_fold].inputs.transform(matrix.values[rows])
        return Question(self, self.last_fold, inputs, wanted, own)

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


class StoredForecasters(Mapping[str, Forecaster]):
    """Forecasters by ticker in files, each read when it is asked for; the last one is kept.

    A universe has more networks than memory. What iterates over these holds one at a time.

    Args:
        paths: ticker to file.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._last: Forecaster | None = None

    def __getitem__(self, ticker: str) -> Forecaster:
        """Read a ticker's forecaster.

        Raises:
            KeyError: the ticker has none.
            ValueError: the file is missing or damaged.
        """
        path = self._paths[ticker]
        if self._last is None or self._last.ticker != ticker:
            self._last = Forecaster.load(path)
        return self._last

    def __contains__(self, ticker: object) -> bool:
        """Whether there is a file; nothing is read."""
        return ticker in self._paths

    def __iter__(self) -> Iterator[str]:
        """The tickers."""
        return iter(self._paths)

    def __len__(self) -> int:
        """How many tickers."""
        return len(self._paths)


@dataclass(frozen=True, eq=False)
class Question:
    """Sessions that the networks of one fold are asked to forecast.

    Attributes:
        forecaster: whose networks.
        fold: which of them.
        inputs: (rows, n_features) scaled with this fold's scales.
        ends: (n,) rows where the windows end, inclusive.
        sessions: (rows,) datetime64.
    """

    forecaster: Forecaster
    fold: int
    inputs: np.ndarray
    ends: np.ndarray
    sessions: np.ndarray


def forecast_together(questions: Iterable[Question]) -> pd.DataFrame:
    """Answer many questions, all networks of a thousand questions in one call.

    Returns:
        As :meth:`Forecaster.forecast`, in the order of the questions.
    """
    questions = iter(questions)
    frames = [no_forecasts()]
    while some := list(itertools.islice(questions, 1000)):
        asked = [
            (question, seed, member)
            for question in some
            for (fold, seed), member in question.forecaster.members.items()
            if fold == question.fold
        ]
        outputs = predict_members(
            [for_ticker(member, question.forecaster.ticker) for question, _, member in asked],
            [question.inputs for question, _, _ in asked],
            [question.ends for question, _, _ in asked],
        )
        rows = [len(made) for made in outputs]

        def spread(values: Sequence[Any], rows: Sequence[int] = rows) -> np.ndarray:
            return np.repeat(np.asarray(values), rows)

        if not sum(rows):
            continue
        frame = pd.DataFrame(
            {
                "ticker": spread([question.forecaster.ticker for question, _, _ in asked]),
                "session": np.concatenate([q.sessions[q.ends] for q, _, _ in asked]),
                "fold": spread([question.fold for question, _, _ in asked]),
                "model": spread([question.forecaster.model for question, _, _ in asked]),
                "seed": spread([seed for _, seed, _ in asked]),
                "forecast": np.concatenate(
                    [
                        question.forecaster.scales[question.fold].target.inverse(made[:, 0])
                        for (question, _, _), made in zip(asked, outputs, strict=True)
                    ]
                ),
                "model_hash": spread([weights_hash(member.state)[:16] for _, _, member in asked]),
            },
            columns=list(FORECASTS),
        )
        frames.append(frame.astype(frames[0].dtypes).assign(**_quantiles(asked, outputs)))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _quantiles(
    asked: Sequence[tuple[Question, int, TrainedMember]], outputs: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """A column per level that any of the networks forecasts; NaN where a network does not."""
    levels = {level for _, _, member in asked for level in member.network_spec.quantiles}

    def quantile(
        level: float, question: Question, member: TrainedMember, made: np.ndarray
    ) -> np.ndarray:
        own = list(member.network_spec.quantiles)
        if level not in own:
            return np.full(len(made), np.nan)
        return question.forecaster.scales[question.fold].target.inverse(
            made[:, 1 + own.index(level)]
        )

    return {
        f"q{level}": np.concatenate(
            [
                quantile(level, question, member, made)
                for (question, _, member), made in zip(asked, outputs, strict=True)
            ]
        )
        for level in sorted(levels)
    }


def quantile_rows(forecasts: pd.DataFrame) -> pd.DataFrame:
    """The quantiles of forecasts, a row each instead of a column.

    Args:
        forecasts: as :meth:`Forecaster.forecast` gives them, stamped or not.

    Returns:
        The same columns with ``level`` and ``quantile`` (log return) in the place of ``forecast``
        and of the quantiles' columns; no row where a network forecasts no quantiles.
    """
    levels = {name: float(name[1:]) for name in forecasts if re.fullmatch(r"q\d.*", name)}
    rest = [name for name in forecasts if name not in levels and name != "forecast"]
    # Without a level melt would take every other column for one.
    if not levels:
        return forecasts.iloc[:0][rest].assign(level=0.0, quantile=0.0)
    rows = forecasts.melt(rest, list(levels), "level", "quantile").dropna(subset="quantile")
    return rows.assign(level=rows["level"].map(levels).astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Job:
    """A network of one fold and seed, of one ticker or of all, and what it is made from."""

    key: str
    data: FoldData | PooledFold
    seed: int
    recipe: str
    before: _Job | None
    """The job whose network this one starts from."""


class Networks(Protocol):
    """Networks by recipe, the hash of all that training can see: a dictionary, or files."""

    def __contains__(self, recipe: object, /) -> bool:
        """Whether it is there."""

    def __getitem__(self, recipe: str, /) -> TrainedMember:
        """One of them."""

    def update(self, networks: Mapping[str, TrainedMember], /) -> None:
        """Add networks."""


def train_walk_forward(
    model: str,
    columns: Sequence[str],
    datasets: Iterable[FoldData],
    network: NetworkSpec,
    training: TrainingSpec,
    seeds: Sequence[int],
    compute: Compute,
    networks: Networks,
    on_complete: Callable[[Sequence[Forecaster]], None],
    *,
    warm_epochs: int | None = None,
    log_dir: Path | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> int:
    """Train one model on every ticker, fold and seed that is not known already.

    A ticker without a test window in a fold gets no network there; a pooled network learns from it
    nevertheless. Memory holds what ``compute.memory_gb`` allows of members and their results, and
    ``TOGETHER`` networks or so of forecasters that are complete: others wait in ``networks``.

    Args:
        model: its name.
        columns: names of the features in ``datasets``.
        datasets: each ticker's share of each fold, a ticker's folds together and in order of time.
        network: the architecture, and whether it is one for each ticker or pooled.
        training: how it learns.
        seeds: one network per seed.
        compute: where and how.
        networks: where those of earlier runs are found; those trained now are added while they
            wait for the rest of their forecaster, so that a kill loses none of them.
        on_complete: called with forecasters as soon as all their networks are there.
        warm_epochs: train a ticker's second and later folds for so many epochs, from the weights of
            the fold before; a recipe then holds the recipe of that fold.
        log_dir: where TensorBoard finds the networks trained now, by ticker, model, fold and seed;
            empty: it is not wanted.
        tell: takes lines of progress.

    Returns:
        How many networks were trained now.
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
    learned_from: Iterable[FoldData | PooledFold] = (
        pooled(datasets) if network.pooled else (data for data in datasets if len(data.test_ends))
    )
    jobs: dict[str, list[_Job]] = {}
    for data in learned_from:
        own = jobs.setdefault(data.ticker, [])
        newest = {job.seed: job for job in own[-len(seeds) :]} if warm_epochs else {}
        for seed in seeds:
            before = newest.get(seed)
            made_from = f"{data.training_hash} {seed} {shared}"
            if before is not None:
                made_from += f" {warm_epochs} {before.recipe}"
            recipe = hashlib.sha256(made_from.encode()).hexdigest()
            key = f"{data.ticker}/{model}/{data.fold}/{seed}"
            own.append(_Job(key, data, seed, recipe, before))

    every = [job for own in jobs.values() for job in own]
    there = {job.recipe for job in every if job.recipe in networks}
    missing = [job for job in every if job.recipe not in there]

    def complete(fresh: Mapping[str, TrainedMember]) -> None:
        """Put together the forecasters whose networks are all there, some at a time."""
        made: list[Forecaster] = []
        ready = [owner for owner, own in jobs.items() if all(job.recipe in there for job in own)]
        for owner in ready:
            own = jobs.pop(owner)
            found = {
                job.recipe: fresh[job.recipe] if job.recipe in fresh else networks[job.recipe]
                for job in own
            }
            made += _forecasters(model, columns, own, found)
            if sum(len(forecaster.members) for forecaster in made) >= TOGETHER:
                on_complete(made)
                made = []
        if made:
            on_complete(made)

    complete({})
    progress = Progress(len(missing), tell)
    for wave in _waves(missing):
        spec = training
        if wave[0].before is not None:
            warmup = min(training.warmup_epochs, warm_epochs or 0)
            spec = training.model_copy(update={"epochs": warm_epochs, "warmup_epochs": warmup})

        def take(
            trained: Mapping[int, TrainedMember],
            wave: Sequence[_Job] = wave,
            spec: TrainingSpec = spec,
        ) -> None:
            fresh = {wave[place].recipe: member for place, member in trained.items()}
            there.update(fresh)
            complete(fresh)
            waited_for = {job.recipe for own in jobs.values() for job in own}
            networks.update({r: member for r, member in fresh.items() if r in waited_for})
            if log_dir is not None:
                for place, member in trained.items():
                    rates = learning_rates(spec, len(wave[place].data.train_ends))
                    log_history(log_dir / wave[place].key, member.history, rates)

        train_each(_members(wave, network, spec, networks), compute, take, progress=progress)
    return len(missing)


def _members(
    jobs: Iterable[_Job],
    network: NetworkSpec,
    training: TrainingSpec,
    networks: Networks,
) -> Iterator[Member]:
    """What to train, made as it is asked for; jobs of the same data follow each other."""
    for data, own in itertools.groupby(jobs, lambda job: job.data):
        told = data if isinstance(data, PooledFold) and network.ticker_embedding else None
        first = Member(
            key="",
            network=network,
            training=training,
            inputs=data.inputs,
            targets=data.targets,
            train_ends=data.train_ends,
            val_ends=data.val_ends,
            lookback=data.lookback,
            seed=0,
            tickers=told.tickers if told else (),
            owners=told.owners if told else None,
        )
        for job in own:
            before = networks[job.before.recipe] if job.before else None
            initial = starting_from(before, first.tickers) if before else None
            yield replace(first, key=job.key, seed=job.seed, initial=initial)


def _waves(jobs: Iterable[_Job]) -> list[list[_Job]]:
    """Jobs in waves: those of one train side by side, from networks of earlier waves."""
    waves: dict[int, list[_Job]] = {}
    for job in jobs:
        depth, before = 0, job.before
        while before is not None:
            depth, before = depth + 1, before.before
        waves.setdefault(depth, []).append(job)
    return [waves[depth] for depth in sorted(waves)]


def _forecasters(
    model: str,
    columns: Sequence[str],
    jobs: Sequence[_Job],
    networks: Mapping[str, TrainedMember],
) -> list[Forecaster]:
    """Put the networks of a ticker together, or pooled ones for each ticker that they forecast."""
    shares: dict[str, list[tuple[FoldData, _Job]]] = {}
    for job in jobs:
        for data in job.data.shares if isinstance(job.data, PooledFold) else (job.data,):
            if len(data.test_ends):
                shares.setdefault(data.ticker, []).append((data, job))
    made = []
    for ticker, own in shares.items():
        members = {
            (data.fold, job.seed): replace(networks[job.recipe], key=job.key) for data, job in own
        }
        newest = own[-1][0]
        made.append(
            Forecaster(
                ticker,
                model,
                tuple(columns),
                dict(sorted(members.items())),
                {data.fold: FoldScales(data.input_scaler, data.target_scaler) for data, _ in own},
                {(data.fold, job.seed): job.recipe for data, job in own},
                pd.Timestamp(newest.sessions[newest.test_ends[-1]]),
            )
        )
    return made


class StoredNetworks:
    """Networks by recipe in files, each read when it is asked for.

    A forecaster's own file is written when all its networks are there. Until then they lie in files
    of one hand-over each, and a training that was killed finds them again.

    Args:
        unfinished: folder for the networks of one model that wait for the rest of their forecaster.
        complete: files of forecasters.

    Raises:
        ValueError: a file is missing or damaged.
    """

    def __init__(self, unfinished: Path, complete: Iterable[Path] = ()) -> None:
        self.unfinished = unfinished
        self._places = {
            entry["recipe"]: (path, entry["key"])
            for path in complete
            for entry in load_metadata(path)["members"]
        }
        for path in self._files():
            self._places |= {recipe: (path, recipe) for recipe in load_keys(path)}

    def __contains__(self, recipe: object, /) -> bool:
        """Whether a file holds it."""
        return recipe in self._places

    def __getitem__(self, recipe: str, /) -> TrainedMember:
        """Read a network.

        Raises:
            KeyError: no file holds it.
            ValueError: the file is damaged.
        """
        path, key = self._places[recipe]
        (member,) = load_members(path, [key])
        return member

    def update(self, networks: Mapping[str, TrainedMember], /) -> None:
        """Write networks that wait for the rest of their forecaster to one file."""
        if networks:
            path = self.unfinished / f"{uuid.uuid4().hex}.safetensors"
            tickers = {member.key.partition("/")[0] for member in networks.values()}
            save_members(
                path,
                [replace(member, key=recipe) for recipe, member in networks.items()],
                {"tickers": sorted(tickers)},
            )
            self._places |= {recipe: (path, recipe) for recipe in networks}

    def forget(self, tickers: Collection[str]) -> None:
        """Drop the files that hold networks of these tickers alone: their training has ended."""
        for path in self._files():
            if set(load_metadata(path)["tickers"]) <= set(tickers):
                path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.unfinished.glob("*.safetensors"))


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
    return forecast_together(
        Question(model[data.ticker], data.fold, inputs, data.test_ends, data.sessions)
        for data in datasets
        for inputs in (data.inputs,)
        for model in models
        if data.ticker in model
    )


def without(forecasts: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The forecasts of tickers, sessions and models that ``others`` have none of."""
    keys = ["ticker", "session", "model"]
    there = others[keys].drop_duplicates().assign(there=True)
    told = forecasts[keys].merge(there, on=keys, how="left")["there"]
    return forecasts[told.isna().to_numpy()]


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
