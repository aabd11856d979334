"""Who trains a fleet: the backends, what they cost, and how one is chosen.

- ``reference``: one network at a time per thread, with torch; runs on any device.
- ``processes``: the same in processes, to the same bits, where Python's lock holds threads up.
- ``cpu``: a fused kernel, one network per thread.
- ``gpu``: members stacked on a GPU.
- ``auto``: on a GPU ``gpu``; on a CPU the faster of ``cpu`` and ``reference``, by measurement.

Backends agree to rounding, not to the bit, so ``auto`` decides once per architecture and process
and stays with it; with a file of choices a measurement is made once per machine. A few seconds of
work are left to the reference, unmeasured. A network with a ticker embedding is always the
reference's: kernels know of none.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from rnn_pipeline.networks.devices import Precision

if TYPE_CHECKING:
    from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember

_log = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "cpu", "processes", "gpu"]

Train = Callable[..., None]
"""Takes members and ``on_trained``: what to call with a member's number and itself, trained."""

SMALL_S = 2.0
"""Estimated seconds of work for the reference below which nothing is measured, nor a kernel
compiled for it. Compiling takes 15 to 25 seconds, but once per machine, and forecasts need the
kernel anyway."""

GATES = {"rnn": 1, "lstm": 4, "gru": 3}

# The reference's cost, fitted to one core that peaks at 116 GFLOP/s; where it peaks at 255, about
# half as much was measured. Overhead per optimizer step and per time step of a layer (torch's GRU
# runs operation by operation under autograd), and arithmetic.
_STEP_S = 4e-4
_TIME_STEP_S = {"rnn": 3e-5, "lstm": 3e-5, "gru": 1.5e-4}
_FLOPS_PER_S = 7e10


@dataclass(frozen=True)
class Architecture:
    """What the members of one call of a kernel have in common."""

    cell: str
    hidden_sizes: tuple[int, ...]
    quantiles: tuple[float, ...]
    n_features: int
    lookback: int
    n_horizons: int
    batch_size: int
    ticker_embedding: int


def architecture(member: Member) -> Architecture:
    """The group that a member belongs to."""
    return Architecture(
        member.network.cell,
        tuple(member.network.hidden_sizes),
        tuple(member.network.quantiles),
        member.inputs.shape[1],
        member.lookback,
        member.n_horizons,
        member.training.batch_size,
        _embedding(member),
    )


def _embedding(member: Member) -> int:
    """Columns that a ticker embedding adds to a member's inputs."""
    return member.network.ticker_embedding if member.tickers else 0


def reference_seconds(member: Member) -> float:
    """About how long the reference trains a member on one core, all epochs run."""
    network, rows = member.network, len(member.train_ends)
    steps = member.training.epochs * math.ceil(rows / member.training.batch_size)
    # A validation row is a forward pass: a third of the arithmetic of a training row.
    row_passes = member.training.epochs * (rows + len(member.val_ends) / 3)
    widths = [member.inputs.shape[1] + _embedding(member), *network.hidden_sizes]
    flops = sum(
        6 * member.lookback * GATES[network.cell] * hidden * (below + hidden)
        for below, hidden in itertools.pairwise(widths)
    )
    overhead = _STEP_S + _TIME_STEP_S[network.cell] * member.lookback * len(network.hidden_sizes)
    return steps * overhead + row_passes * flops / _FLOPS_PER_S


def n_weights(member: Member) -> int:
    """Parameters of a member's network."""
    told = _embedding(member)
    widths = [member.inputs.shape[1] + told, *member.network.hidden_sizes]
    recurrent = sum(
        GATES[member.network.cell] * hidden * (below + hidden + 2)
        for below, hidden in itertools.pairwise(widths)
    )
    return recurrent + (widths[-1] + 1) * member.n_outputs + told * len(member.tickers)


_OBJECTS = 2**15
"""Bytes that a member and its result take beside their arrays: measured with a thousand."""


def member_bytes(member: Member) -> int:
    """Memory that a member of a chunk takes, about: its data, while it waits, and its result.

    The workspace of a backend belongs to its threads, or to the GPU, and does not grow with a
    chunk.
    """
    data = (member.inputs, member.targets, member.train_ends, member.val_ends)
    weights = 4 * n_weights(member)
    return sum(array.nbytes for array in data) + weights + 16 * member.training.epochs + _OBJECTS


def load(
    name: Backend, compute: Compute, workers: int, tell: Callable[[str], None] = _log.info
) -> Train:
    """The training function of a backend, to be called with members and ``on_trained``."""
    if compute.cluster is not None:
        from rnn_pipeline.networks import cluster

        return partial(
            cluster.train,
            cluster=compute.cluster,
            compute=replace(compute, backend=name, cluster=None, choices=None),
            tell=tell,
        )
    if name == "cpu":
        from rnn_pipeline.networks.kernels import cpu

        return partial(cpu.train, threads=workers)
    if name == "gpu":
        from rnn_pipeline.networks.kernels import gpu

        return partial(
            gpu.train,
            device=compute.device,
            precision=compute.precision,
            deterministic=compute.deterministic,
            memory=None if compute.memory_gb is None else int(compute.memory_gb * 2**30),
        )
    from rnn_pipeline.networks.kernels import reference

    return partial(
        reference.train,
        device=compute.device,
        workers=workers if compute.device.type == "cpu" else 1,
        processes=name == "processes",
        deterministic=compute.deterministic,
        precision=compute.precision,
    )


def unavailable(name: Backend, compute: Compute) -> str | None:
    """Why a backend cannot run here, in a few words; None where it can."""
    on_cpu = compute.device.type == "cpu"
    if compute.precision == "float64" and name != "reference":
        return "float64 is for the reference backend alone"
    if name == "cpu":
        from rnn_pipeline.networks.kernels import cpu

        return cpu.available()
    if name == "gpu":
        from rnn_pipeline.networks.kernels import gpu

        return "the device is the CPU" if on_cpu else gpu.available()
    if name == "processes" and not on_cpu:
        return "processes train on the CPU alone"
    return None


@dataclass(frozen=True)
class Choice:
    """A backend and why."""

    backend: Backend
    reason: str


_chosen: dict[tuple[Architecture, str, Precision], Choice] = {}


def choose(
    group: Sequence[Member], compute: Compute, workers: int, tell: Callable[[str], None]
) -> Backend:
    """The backend that trains a group of one architecture.

    Raises:
        ValueError: the one asked for cannot run here; the message says why.
    """
    if group[0].tickers and compute.backend != "processes":
        return "reference"
    if compute.cluster is not None and compute.cluster.gpus:
        return "gpu"
    if compute.backend != "auto":
        if reason := unavailable(compute.backend, compute):
            raise ValueError(
                f"backend {compute.backend!r} cannot run here: {reason}; set the"
                " backend to auto (RNN_PIPELINE_COMPUTE__BACKEND=auto)"
            )
        return compute.backend
    key = (architecture(group[0]), compute.device.type, compute.precision)
    if key not in _chosen:
        _chosen[key] = _choice(group, compute, workers, tell)
        tell(f"fleet: {_chosen[key].reason}")
    return _chosen[key].backend


def _choice(
    group: Sequence[Member], compute: Compute, workers: int, tell: Callable[[str], None]
) -> Choice:
    """Decide for the first group of an architecture in this process."""
    if compute.device.type != "cpu":
        if reason := unavailable("gpu", compute):
            return Choice("reference", f"one network at a time on {compute.device} ({reason})")
        return Choice("gpu", f"stacked on {compute.device}")
    place = f"on {workers} thread{'s' if workers > 1 else ''} of the CPU"
    reference = f"one network at a time {place}"
    known = _Choices(compute.choices)
    ratio = known.ratio(architecture(group[0]))
    work = sum(map(reference_seconds, group)) / workers
    if ratio is None and work < SMALL_S:
        return Choice("reference", f"{reference} (about {work:.0f} s of work)")
    if reason := unavailable("cpu", compute):
        return Choice("reference", f"{reference} ({reason})")
    if ratio is None:
        tell(
            "fleet: timing the fused kernel, which is compiled once per machine and version"
            " (about 20 s)"
        )
        ratio = _measured_ratio(group[0], compute)
        known.remember(architecture(group[0]), ratio)
    if ratio < 1:
        return Choice("reference", f"{reference}, {1 / ratio:.1f}x the fused kernel")
    return Choice("cpu", f"fused kernel {place}, {ratio:.1f}x one network at a time")


_ON_A_CPU: tuple[Backend, ...] = ("reference", "cpu")


def _measured_ratio(member: Member, compute: Compute, rounds: int = 3) -> float:
    """How many times faster the fused kernel trains a slice of a member than the reference."""
    batch_size = member.training.batch_size
    slice_ = replace(
        member, train_ends=member.train_ends[:batch_size], val_ends=member.val_ends[:1]
    )
    here = replace(compute, cluster=None)
    runs = {name: load(name, here, workers=1) for name in _ON_A_CPU}
    fastest = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for name, train in runs.items():
            # The first round compiles; the fastest of several forgets it.
            begun = time.perf_counter()
            train([slice_], on_trained=_ignore)
            fastest[name] = min(fastest[name], time.perf_counter() - begun)
    return fastest["reference"] / fastest["cpu"]


def _ignore(_number: int, _trained: TrainedMember) -> None:
    """Take a result that is only timed."""


class _Choices:
    """Measured ratios in a JSON file, by machine and architecture."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.machine = f"{platform.machine()} {_processor()}, torch {torch.__version__}"

    def ratio(self, of: Architecture) -> float | None:
        """The ratio measured on this machine, if one was."""
        return self._read().get(self.machine, {}).get(str(of))

    def remember(self, of: Architecture, ratio: float) -> None:
        """Add a ratio; the file is replaced in one step."""
        if self.path is None:
            return
        known = self._read()
        known.setdefault(self.machine, {})[str(of)] = round(ratio, 2)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        beside.write_text(json.dumps(known, indent=1, sort_keys=True))
        beside.replace(self.path)

    def _read(self) -> dict[str, dict[str, float]]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            return json.loads(self.path.read_text())
        except ValueError:
            return {}  # nothing but measurements is lost


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
