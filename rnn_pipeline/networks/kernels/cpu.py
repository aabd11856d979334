"""The fused kernel for the CPU: one small network per thread, compiled by Numba on first use.

What it computes, and to which layouts, is in :mod:`.cpu_kernel` and :mod:`.cpu_layout`; here is who
computes it and when. Whole epochs run without Python's lock, so threads share nothing but the
reading of data; what becomes of a member does not depend on them, bit for bit.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rnn_pipeline.networks.fleet import Member, TrainedMember
from rnn_pipeline.networks.randomness import Purpose, dropout_threshold, epoch_order, stream_key
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.networks.training import (
    History,
    NotFinite,
    learning_rates,
    require_finite,
)

if TYPE_CHECKING:
    from rnn_pipeline.networks.kernels.cpu_layout import Architecture, Plan

FORECAST_BATCH = 48
"""Windows in one forward pass without gradients: enough to fill the register tiles."""
TRAINING_COMPILE_S, FORECAST_COMPILE_S = 20, 6
"""About how long a first compilation takes."""
ANNOUNCE_AFTER_S = 2.0
"""When a load from the cache would be over."""

_log = logging.getLogger(__name__)


def available() -> str | None:
    """Why the kernel cannot run here, in a few words; None where it can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return None


def train(
    members: Sequence[Member],
    *,
    threads: int,
    on_trained: Callable[[int, TrainedMember], None],
) -> None:
    """Train members, each on one thread.

    Args:
        members: to be trained; they may differ in everything.
        threads: at most so many at once.
        on_trained: called in this thread with a member's place in the list as soon as it is
            trained, in whatever order that happens.

    Raises:
        ValueError: a member's loss is not finite; the message names it and the epoch.
    """
    compile_kernel(training=True)
    stop = np.zeros(1, np.bool_)
    workspaces = threading.local()

    def work(member: Member) -> TrainedMember:
        if not hasattr(workspaces, "own"):
            workspaces.own = Workspace()
        return _train(member, workspaces.own, stop)

    with ThreadPoolExecutor(max(1, min(threads, len(members)))) as pool:
        try:
            places = {pool.submit(work, member): place for place, member in enumerate(members)}
            for future in as_completed(places):
                on_trained(places[future], future.result())
        finally:
            stop[0] = True
            pool.shutdown(cancel_futures=True)


def train_member(
    member: Member, on_epoch: Callable[[int, float, float], None] | None = None
) -> TrainedMember:
    """Train one member on the calling thread.

    Args:
        member: what to train.
        on_epoch: see :func:`~rnn_pipeline.networks.training.fit`.

    Raises:
        ValueError: its loss is not finite; the message names it and the epoch.
    """
    compile_kernel(training=True)
    return _train(member, Workspace(), np.zeros(1, np.bool_), on_epoch)


def predict(
    members: Sequence[TrainedMember],
    inputs: Sequence[np.ndarray],
    ends: Sequence[np.ndarray],
    threads: int = 1,
) -> list[np.ndarray]:
    """Forecast with many members at once.

    A forecast's bits depend on nothing but its member and its window.

    Args:
        members: trained, wherever that was.
        inputs: one (rows, n_features) float32 series per member, scaled as its training inputs.
        ends: (n_i,) rows where the member's windows end, inclusive.
        threads: at most so many members at once.

    Returns:
        (n_i, n_outputs) float32 per member, in the network's order of outputs, scaled as its
        training targets were. A NaN in a window makes its forecast NaN.
    """
    compile_kernel(training=False)
    workspaces = threading.local()

    def work(member: TrainedMember, series: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not hasattr(workspaces, "own"):
            workspaces.own = Workspace()
        return _predict(member, series, rows, workspaces.own)

    jobs = (members, inputs, ends)
    if threads == 1:
        return list(map(work, *jobs))
    with ThreadPoolExecutor(max(1, min(threads, len(members)))) as pool:
        return list(pool.map(work, *jobs))


class Workspace:
    """The memory of one thread; it grows to what the largest network there took."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)

    def array(self, size: int) -> np.ndarray:
        """``size`` float32 values with whatever is in them, beginning on a cache line."""
        if len(self._memory) < size + _LINE:
            self._memory = np.empty(size + _LINE, np.float32)
        start = -(self._memory.ctypes.data // 4) % _LINE
        return self._memory[start : start + size]


_LINE = 16
"""float32 values in a cache line, as in the widest vector."""


@cache
def load_kernel() -> ModuleType:
    """The module of the compiled functions; they compile when they are first called."""
    import numba

    try:
        from rnn_pipeline.networks.kernels import cpu_kernel
    except RuntimeError:
        # Neither the package's folder nor the user's can be written: compile for this process.
        numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="rnn-pipeline-kernel-")
        atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)
        from rnn_pipeline.networks.kernels import cpu_kernel
    return cpu_kernel


@cache
def compile_kernel(training: bool) -> None:
    """Compile what forecasts (and trains), or load it from Numba's cache, by doing it once."""
    from rnn_pipeline.networks.kernels.cpu_layout import Architecture, plan_of

    seconds = TRAINING_COMPILE_S if training else FORECAST_COMPILE_S
    announcement = threading.Timer(
        ANNOUNCE_AFTER_S, _log.info, (f"fleet: compiling the kernel once, about {seconds} s",)
    )
    announcement.start()
    try:
        kernel = load_kernel()
        plan = plan_of(Architecture("lstm", 1, (1,), 1, 1), 1)
        work = np.zeros(plan.size, np.float32)
        series, none = np.zeros((1, 1), np.float32), np.zeros(0, np.float32)
        ends, stop = np.zeros(1, np.int64), np.zeros(1, np.bool_)
        rates, keys = np.zeros(1), np.zeros((1, 3), np.int64)
        data = (plan, work, series, series, none, ends)
        if training:
            kernel.train_epoch(*data, 1, 0, rates, keys, 0, 1.0, 0.0, 1.0, 0.0, stop)
        kernel.forecast(*data, series.copy())
    finally:
        announcement.cancel()


def _contiguous(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Of the one layout that the kernel is compiled for; copied where it is of another."""
    return np.require(array, dtype, ("C", "A", "W"))


def _train(
    member: Member,
    workspace: Workspace,
    stop: np.ndarray,
    on_epoch: Callable[[int, float, float], None] | None = None,
) -> TrainedMember:
    """Train one member on the calling thread, with the semantics of :func:`.training.fit`."""
    from rnn_pipeline.networks.kernels.cpu_layout import Architecture, plan_of

    kernel = load_kernel()
    spec, network = member.training, member.network
    series = _contiguous(member.inputs, np.float32)
    targets = _contiguous(member.targets.reshape(len(series), -1), np.float32)
    quantiles = np.array(network.quantiles, np.float32)
    train_ends = _contiguous(member.train_ends, np.int64)
    val_ends = _contiguous(member.val_ends, np.int64)
    architecture = Architecture(
        network.cell,
        series.shape[1],
        tuple(network.hidden_sizes),
        member.n_outputs,
        member.lookback,
    )
    plan = plan_of(architecture, max(min(spec.batch_size, len(train_ends)), FORECAST_BATCH))
    work = workspace.array(plan.size)
    weights = work[plan.weights : plan.weights + plan.n_weights]
    moments = work[plan.first_moments : plan.second_moments + plan.n_weights]

    state = first_weights(member) if member.initial is None else member.initial
    pack(state, architecture, plan, work)
    moments[:] = 0.0
    best = weights.copy()
    outputs = np.empty((len(val_ends), architecture.n_outputs), np.float32)

    train_losses: list[float] = []
    val_losses: list[float] = []
    best_epoch = 0
    rates = learning_rates(spec, len(train_ends))
    for epoch in range(spec.epochs):
        first_step = epoch * rates.shape[1]
        train_losses.append(
            kernel.train_epoch(
                plan,
                work,
                series,
                targets,
                quantiles,
                train_ends[epoch_order(member.seed, epoch, len(train_ends))],
                spec.batch_size,
                first_step,
                rates[epoch],
                stream_keys(member, first_step, rates.shape[1]),
                dropout_threshold(network.dropout),
                1.0 / (1.0 - network.dropout),
                spec.input_noise,
                math.inf if spec.clip_norm is None else spec.clip_norm,
                spec.weight_decay,
                stop,
            )
        )
        val_losses.append(
            kernel.forecast(plan, work, series, targets, quantiles, val_ends, outputs)
        )
        try:
            require_finite(epoch, train_losses[-1], val_losses[-1], spec)
        except NotFinite as error:
            raise NotFinite(f"member {member.key!r}: {error}") from None
        if on_epoch is not None:
            on_epoch(epoch, train_losses[-1], val_losses[-1])
        if epoch == 0 or val_losses[-1] < val_losses[best_epoch]:
            best_epoch = epoch
            best[:] = weights
        elif spec.patience is not None and epoch - best_epoch >= spec.patience:
            break
    return TrainedMember(
        member.key,
        network,
        architecture.n_features,
        member.lookback,
        unpack(best, architecture),
        History(train_losses, val_losses, best_epoch),
    )


def _predict(
    member: TrainedMember, series: np.ndarray, ends: np.ndarray, workspace: Workspace
) -> np.ndarray:
    """Forecast with one member on the calling thread."""
    from rnn_pipeline.networks.kernels.cpu_layout import Architecture, plan_of

    spec = member.network_spec
    architecture = Architecture(
        spec.cell,
        member.n_features,
        tuple(spec.hidden_sizes),
        member.n_outputs,
        member.lookback,
    )
    outputs = np.empty((len(ends), architecture.n_outputs), np.float32)
    if len(ends) == 0:
        return outputs
    plan = plan_of(architecture, FORECAST_BATCH)
    work = workspace.array(plan.size)
    pack(member.state, architecture, plan, work)
    nothing = np.empty((0, 1), np.float32)
    load_kernel().forecast(
        plan,
        work,
        _contiguous(series, np.float32),
        nothing,
        nothing[:, 0],
        _contiguous(ends, np.int64),
        outputs,
    )
    return outputs


def first_weights(member: Member) -> dict[str, torch.Tensor]:
    """The weights that every backend starts a member from."""
    network = RecurrentForecaster(member.network, member.inputs.shape[1], member.n_outputs)
    initialise(network, torch.Generator().manual_seed(member.seed))
    return network.state_dict()


def stream_keys(member: Member, first_step: int, n_steps: int) -> np.ndarray:
    """The keys of what is drawn in an epoch.

    Returns:
        (n_steps, n_layers + 2) int64: of dropout behind each layer, of the noise's radius and
        angle; 0 for what is not drawn.
    """
    n_layers = len(member.network.hidden_sizes)
    keys = np.zeros((n_steps, n_layers + 2), np.int64)
    for row, step in enumerate(range(first_step, first_step + n_steps)):
        if member.network.dropout:
            for site in range(1, n_layers + 1):
                keys[row, site - 1] = stream_key(member.seed, Purpose.DROPOUT, step, site)
        if member.training.input_noise:
            keys[row, -2] = stream_key(member.seed, Purpose.NOISE_RADIUS, step)
            keys[row, -1] = stream_key(member.seed, Purpose.NOISE_ANGLE, step)
    return keys


def pack(
    state: Mapping[str, torch.Tensor], architecture: Architecture, plan: Plan, work: np.ndarray
) -> None:
    """Write a state dict's weights into the workspace as the kernel has them."""
    from rnn_pipeline.networks.kernels.cpu_layout import packing, parameter_shapes

    # End to end, with the padding's 0 behind them, where the gradients and moments will be: a new
    # array costs more in page faults than all the copying.
    flat = work[plan.gradients :]
    end = 0
    for name in parameter_shapes(architecture):
        parameter = state[name].detach().numpy().ravel()
        flat[end : end + len(parameter)] = parameter
        end += len(parameter)
    flat[end] = 0.0
    weights = work[plan.weights : plan.weights + plan.n_weights]
    # "clip" spares NumPy a buffer; no place is out of range.
    np.take(flat[: end + 1], packing(architecture), out=weights, mode="clip")


def unpack(weights: np.ndarray, architecture: Architecture) -> dict[str, torch.Tensor]:
    """A state dict from weights as the kernel has them: views of one array.

    An array for each would leave half as much again between them.
    """
    from rnn_pipeline.networks.kernels.cpu_layout import parameter_shapes, unpacking

    flat = torch.from_numpy(weights[unpacking(architecture)])
    shapes = parameter_shapes(architecture)
    parts = flat.split([math.prod(shape) for shape in shapes.values()])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
