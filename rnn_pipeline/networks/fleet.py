"""Many forecasters trained together, each as if it were alone.

A *member* is one small network with its data and its seed. Everything that trains forecasters goes
through :func:`train_each`; what becomes of a member depends on nothing else in the fleet, nor on
how the fleet is cut into chunks. :mod:`~rnn_pipeline.networks.backends` decides who does the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rnn_pipeline.networks.backends import Backend, architecture, choose, load, member_bytes
from rnn_pipeline.networks.devices import Precision

if TYPE_CHECKING:
    from rnn_pipeline.networks.training import History
    from rnn_pipeline.settings import NetworkSpec, TrainingSpec


@dataclass(frozen=True)
class Compute:
    """Where and how a fleet trains."""

    device: torch.device
    """See :func:`~rnn_pipeline.networks.devices.resolve_device`."""
    backend: Backend = "auto"
    """See :mod:`~rnn_pipeline.networks.backends`. Backends agree with each other to rounding, and
    bit for bit with themselves alone."""
    precision: Precision = "float32"
    """See :func:`~rnn_pipeline.networks.devices.numerics`; "float64" is for the reference alone."""
    deterministic: bool = True
    """Repeat bit for bit on a GPU, too; on a CPU it is always so."""
    memory_gb: float | None = None
    """What the members of a chunk may take, in the machine's memory and in the GPU's: their data
    and results, and on a GPU the workspace of those that train side by side. If not given,
    :data:`CHUNK_GB` of the machine's memory and most of what is free of the GPU's."""
    choices: Path | None = None
    """File that remembers which backend was measured to be fastest on this machine."""


CHUNK_GB = 4.0
"""Memory of the data and results of one chunk unless told otherwise."""

HAND_OVER_S = 20.0
"""Seconds of work at most that wait to be handed to the caller within a chunk."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Member:
    """One forecaster to be trained: its network, its data and its seed.

    Row ``i`` of ``inputs`` is a session; a window that ends at row ``e`` is
    ``inputs[e - lookback + 1 : e + 1]`` and its targets are ``targets[e]``.
    """

    key: str
    network: NetworkSpec
    training: TrainingSpec
    inputs: np.ndarray
    """(rows, n_features) float32, scaled."""
    targets: np.ndarray
    """(rows,) or (rows, n_horizons) float32, scaled; only the rows where a window ends need
    values."""
    train_ends: np.ndarray
    """Rows where training windows end, inclusive."""
    val_ends: np.ndarray
    """Rows where validation windows end, inclusive."""
    lookback: int
    seed: int
    initial: Mapping[str, Tensor] | None = None
    """Weights to start from, as :attr:`TrainedMember.state`; drawn from the seed if not given."""
    tickers: tuple[str, ...] = ()
    """Whom a network with a ticker embedding tells apart; none: it has no embedding."""
    owners: np.ndarray | None = None
    """(rows,) int64: with ``tickers``, the place there of the ticker that each row is of."""

    def __post_init__(self) -> None:
        if (
            self.inputs.ndim != 2
            or self.targets.ndim not in (1, 2)
            or len(self.targets) != len(self.inputs)
        ):
            raise ValueError(
                f"member {self.key!r}: inputs {self.inputs.shape} and targets"
                f" {self.targets.shape} must be (rows, n_features) and (rows,) or"
                " (rows, n_horizons)"
            )
        if self.tickers and (self.owners is None or self.owners.shape != self.inputs.shape[:1]):
            raise ValueError(
                f"member {self.key!r}: with tickers to tell apart, every one of the"
                f" {len(self.inputs)} rows needs its owner"
            )
        for role, ends in (("training", self.train_ends), ("validation", self.val_ends)):
            check_ends(f"{role} of member {self.key!r}", ends, self.lookback, len(self.inputs))

    @property
    def n_horizons(self) -> int:
        """Horizons forecast at once."""
        return 1 if self.targets.ndim == 1 else self.targets.shape[1]

    @property
    def n_outputs(self) -> int:
        """Columns of the head: a point and its quantiles for every horizon."""
        return self.n_horizons * (1 + len(self.network.quantiles))


@dataclass(frozen=True, eq=False)
class TrainedMember:
    """A trained forecaster: all that is needed to forecast with it again."""

    key: str
    network_spec: NetworkSpec
    n_features: int
    lookback: int
    state: dict[str, Tensor]
    """The best epoch's weights, on the CPU."""
    history: History
    tickers: tuple[str, ...] = ()
    """As of the member; see :func:`~rnn_pipeline.networks.pooled.for_ticker`."""

    @property
    def n_outputs(self) -> int:
        """Columns of the head."""
        return len(self.state["network.head.bias" if self.tickers else "head.bias"])


class Progress:
    """Tells how far a fleet is and about how long the rest takes.

    Args:
        of: how many networks there are to train.
        tell: takes a line.
        every_s: seconds from one line to the next.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        of: int,
        tell: Callable[[str], None],
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.of = of
        self.tell = tell
        self.done = 0
        self._every_s = every_s
        self._clock = clock
        self._begun: float | None = None
        self._told = 0.0

    def begin(self) -> None:
        """Start the clock: what was spent on choosing a backend says nothing of the rest."""
        if self._begun is None:
            self._begun = self._told = self._clock()

    def add(self, networks: int) -> None:
        """Count networks that are trained."""
        self.begin()
        self.done += networks
        now = self._clock()
        spent = now - (self._begun or now)
        if self.done >= self.of:
            self.tell(f"{self.done:,} networks trained in {_duration(spent)}")
        elif now - self._told >= self._every_s:
            self._told = now
            left = _duration(spent / self.done * (self.of - self.done))
            self.tell(f"{self.done:,} of {self.of:,} networks trained, about {left} left")


def _duration(seconds: float) -> str:
    """Seconds as a reader takes them in: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def check_ends(what: str, ends: np.ndarray, lookback: int, n_rows: int) -> None:
    """Refuse windows that would begin before the first row or end behind the last.

    Raises:
        ValueError: there are none, or one reaches outside; the message begins with ``what``.
    """
    if len(ends) == 0:
        raise ValueError(
            f"{what}: no windows among {n_rows} rows; with lookback {lookback} it takes more"
            " history or smaller folds"
        )
    if ends.min() < lookback - 1 or ends.max() >= n_rows:
        raise ValueError(
            f"{what}: windows end at rows {ends.min()} to {ends.max()}, but with lookback"
            f" {lookback} and {n_rows} rows they must end within {lookback - 1} to {n_rows - 1}"
        )


def windows_of(inputs: Tensor, lookback: int) -> Tensor:
    """All windows of ``inputs`` (rows, n_features) as a view, nothing copied.

    Returns:
        (rows - lookback + 1, lookback, n_features); window ``i`` ends at row ``i + lookback - 1``.
    """
    return inputs.unfold(0, lookback, 1).transpose(1, 2)


def train_members(
    members: Iterable[Member], compute: Compute, *, progress: Progress | None = None
) -> list[TrainedMember]:
    """Train forecasters and return them in their order, all in memory; see :func:`train_each`."""
    trained: dict[int, TrainedMember] = {}
    train_each(members, compute, trained.update, progress=progress)
    return [trained[place] for place in range(len(trained))]


def train_each(
    members: Iterable[Member],
    compute: Compute,
    on_trained: Callable[[Mapping[int, TrainedMember]], None],
    *,
    progress: Progress | None = None,
) -> None:
    """Train forecasters and hand them over; what becomes of one depends on nothing else there.

    Members are taken from the iterable as memory allows, a chunk at a time, grouped by
    architecture, and trained by one backend per architecture. On a CPU as many are trained at once
    as torch may use threads (``torch.get_num_threads()``), each on one thread. Nothing is kept of
    what was handed over.

    Args:
        members: what to train; an iterator need not hold their data before it is asked for it.
        compute: where and how.
        on_trained: called in this thread with the members trained since the last call, by their
            places in the iterable: after every chunk, before an error leaves, and every
            ``HAND_OVER_S`` seconds or so where a backend trains members one after another.
        progress: told how far it is.

    Raises:
        ValueError: a member's training failed; the message names its key. Or a backend was asked
            for that cannot run here; the message says why.
    """
    first = 0
    for chunk in _chunks(members, compute):
        _train_chunk(chunk, first, compute, on_trained, progress)
        first += len(chunk)
        chunk.clear()  # or its data would still be there while the next chunk's is made


def _train_chunk(
    chunk: Sequence[Member],
    first: int,
    compute: Compute,
    on_trained: Callable[[Mapping[int, TrainedMember]], None],
    progress: Progress | None,
) -> None:
    """Train the members from place ``first`` on, a group at a time."""
    groups: dict[object, list[int]] = {}
    for number, member in enumerate(chunk):
        groups.setdefault(architecture(member), []).append(number)
    workers = torch.get_num_threads()
    for numbers in groups.values():
        group = [chunk[number] for number in numbers]
        name = choose(group, compute, workers, progress.tell if progress else _log.info)
        train = load(name, compute, workers)
        if progress is not None:
            progress.begin()
        places = [first + number for number in numbers]
        with _HandOver(places, on_trained, progress) as hand_over:
            train(group, on_trained=hand_over.take)


class _HandOver:
    """Collects what a backend reports of one group and passes it on in batches."""

    def __init__(
        self,
        places: list[int],
        on_trained: Callable[[Mapping[int, TrainedMember]], None],
        progress: Progress | None,
    ) -> None:
        self.places = places
        self.on_trained = on_trained
        self.progress = progress
        self.waiting: dict[int, TrainedMember] = {}
        self.passed_at = time.monotonic()

    def take(self, number: int, member: TrainedMember) -> None:
        """Collect a member; what has waited long goes on."""
        self.waiting[self.places[number]] = member
        if time.monotonic() - self.passed_at >= HAND_OVER_S:
            self.pass_on()

    def pass_on(self) -> None:
        """Hand over what is there."""
        ready, self.waiting = self.waiting, {}
        if ready:
            self.on_trained(ready)
            if self.progress is not None:
                self.progress.add(len(ready))
        self.passed_at = time.monotonic()

    def __enter__(self) -> _HandOver:
        return self

    def __exit__(self, *_error: object) -> None:
        self.pass_on()


def _chunks(members: Iterable[Member], compute: Compute) -> Iterator[list[Member]]:
    """Cut a stream of members where the next one would no longer fit the budget."""
    budget = (compute.memory_gb or CHUNK_GB) * 2**30
    chunk: list[Member] = []
    taken = 0
    for member in members:
        size = member_bytes(member)
        if chunk and taken + size > budget:
            yield chunk
            chunk, taken = [], 0
        chunk.append(member)
        taken += size
    if chunk:
        yield chunk
