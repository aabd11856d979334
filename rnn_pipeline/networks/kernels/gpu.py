"""Many like members trained together on a GPU.

A group occupies *slots*: K members train side by side, each with its own data, rates, epochs and
early stopping, and when one is finished the next member takes its slot. A *round* is one epoch of
every occupied slot. All that a step reads, the order of the rows, rates and keys, lies on the
device before the round begins, so a step is a fixed sequence of kernels, captured once as a CUDA
graph and replayed. Rows, steps and slots that a member does not have weigh nothing.

Two engines compute a step: :mod:`~rnn_pipeline.networks.kernels.gpu_fused` (Triton, LSTM and GRU up
to 64 units) and :mod:`~rnn_pipeline.networks.kernels.gpu_stacked` (torch alone, also on a CPU).

What of a member depends on its company: with the fused engine nothing, bit for bit, because one
program computes one member (or one of its tiles) and everything between is elementwise. With the
stacked engine batched products and sums over rows are cuBLAS's and torch's to arrange, which may
depend on the shape of the whole; on a GPU K is therefore a function of the architecture alone,
whatever the group's size and the memory, so that a member always meets the same shapes, and slots
that fall empty towards the end are not compacted away. On a CPU torch takes another path for a
batch of one, so K is at least 2; beyond that K decides nothing that a test has found, but nothing
promises it. Both engines agree with the reference within rounding, not bit for bit.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rnn_pipeline.networks.backends import architecture
from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.fleet import Member, TrainedMember
from rnn_pipeline.networks.kernels.gpu_stacked import (
    BETA1,
    BETA2,
    AdamStep,
    Batch,
    Dropout,
    Engine,
    Layout,
    StackedEngine,
    activation_numbers,
    blocks_of,
)
from rnn_pipeline.networks.randomness import (
    Purpose,
    bits,
    dropout_threshold,
    normal_of,
    stream_key,
)
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.networks.training import (
    History,
    NotFinite,
    learning_rates,
    require_finite,
)

EngineName = Literal["auto", "fused", "stacked"]

SLOTS = 512
"""Members side by side in the stacked engine on a GPU, at most: about where one step's products
outweigh the launch of their kernels."""

STACKED_BYTES = 16 * 2**30
"""What a step of the stacked engine may keep on a GPU; of large networks fewer stand side by side.
A constant, because K must follow from the architecture alone."""

FUSED_SLOTS = 2112
"""At most in the fused engine: 16 programs for each of an H100's 132 multiprocessors, so that the
last wave of programs is a small part of a launch."""

CPU_SLOTS = 32
"""On a CPU more members side by side gain nothing, and fall out of its caches."""

COPIES = 12
"""Of a member's parameters: weights, best weights, moments, gradients, and what Adam's step holds
while it computes."""

MEMORY_SHARE = 0.8
"""Of the free device memory that members may take unless told otherwise."""


def available() -> str | None:
    """None where a GPU can be used, else why not."""
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def train(
    members: Sequence[Member],
    *,
    device: torch.device,
    precision: Precision = "float32",
    deterministic: bool = True,
    on_trained: Callable[[int, TrainedMember], None],
    engine: EngineName = "auto",
    memory: int | None = None,
) -> None:
    """Train the members of one group.

    Args:
        members: of one :class:`~rnn_pipeline.networks.backends.Architecture`.
        device: a GPU, or the CPU for the stacked engine.
        precision: of the operands of products; sums, gates and weights are float32. "float64",
            throughout and with the stacked engine, shows that nothing but rounding tells this from
            the reference.
        deterministic: pick kernels of torch that repeat bit for bit; the fused engine always does.
        on_trained: called in this thread with a member's place and result, in whatever order
            members finish.
        engine: "auto" takes the fused engine where it can compute this group.
        memory: bytes on the device that members may take; None: most of what is free.

    Raises:
        ValueError: the members are not alike, not even one fits into ``memory``, the engine cannot
            compute them, or a loss is not finite; the last names the member.
    """
    if not members:
        return
    layout = layout_of(members)
    fused = _use_fused(layout, device, precision, engine)
    if memory is None and device.type == "cuda":
        memory = int(MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
    slots = _slots(members, device, fused, memory)
    with numerics(device, precision, deterministic):
        dtype = torch.float64 if precision == "float64" else torch.float32
        group = _Group(members, layout, slots, device, dtype)
        trainer = _Trainer(group, _engine(layout, group, precision, fused))
        trainer.run(on_trained)


def bytes_per_member(members: Sequence[Member]) -> int:
    """Device memory that one member of this group takes while it trains, its data included."""
    layout = layout_of(members)
    rows = max(len(member.inputs) for member in members)
    windows = max(len(member.train_ends) + len(member.val_ends) for member in members)
    steps = math.ceil(max(len(member.train_ends) for member in members) / layout.batch_size)
    batch = layout.lookback * layout.batch_size * layout.n_features
    floats = (
        rows * (layout.n_features + layout.n_horizons)
        + COPIES * layout.size
        + 4 * batch
        + activation_numbers(layout)
    )
    # Window ends, their order and the sort that finds it; keys and rates of each step.
    integers = 6 * windows + steps * (6 + len(layout.hidden_sizes))
    return 4 * floats + 8 * integers


def layout_of(members: Sequence[Member]) -> Layout:
    """What the members of a group have in common.

    Raises:
        ValueError: they have it not.
    """
    kinds = {architecture(member): member for member in members}
    if len(kinds) > 1:
        raise ValueError(
            "the members of a group must be of one architecture, but these are of"
            f" {' and '.join(sorted(map(str, kinds)))}"
        )
    ((kind, member),) = kinds.items()
    network = RecurrentForecaster(member.network, kind.n_features, member.n_outputs)
    blocks, size = blocks_of(network.state_dict())
    return Layout(**vars(kind), blocks=blocks, size=size)


def _use_fused(
    layout: Layout, device: torch.device, precision: Precision, engine: EngineName
) -> bool:
    if engine == "stacked" or (engine == "auto" and device.type != "cuda"):
        return False
    reason: str | None
    if precision == "float64":
        reason = "it computes in float32, not float64"
    elif importlib.util.find_spec("triton") is None:
        reason = "triton is not installed"
    else:
        from rnn_pipeline.networks.kernels.gpu_fused import unsupported

        reason = unsupported(layout)
    if reason is not None and engine == "fused":
        raise ValueError(f"the fused engine cannot train this group: {reason}")
    return reason is None


def _engine(layout: Layout, group: _Group, precision: Precision, fused: bool) -> Engine:
    if fused:
        from rnn_pipeline.networks.kernels.gpu_fused import FusedEngine

        return FusedEngine(layout, group.slots, group.device, precision)
    return StackedEngine(layout, group.device, torch.bfloat16 if precision == "bfloat16" else None)


def _slots(members: Sequence[Member], device: torch.device, fused: bool, memory: int | None) -> int:
    """How many members train side by side."""
    size = bytes_per_member(members)
    fit = len(members) if memory is None else memory // size
    if fit < 1:
        raise ValueError(f"one member takes {size:,} bytes, but {memory:,} are allowed: raise that")
    if fused:
        return min(len(members), fit, FUSED_SLOTS)
    if device.type == "cpu":
        return max(2, min(len(members), fit, CPU_SLOTS))
    slots = SLOTS
    while slots > 1 and slots * 4 * activation_numbers(layout_of(members)) > STACKED_BYTES:
        slots //= 2
    if fit < slots:
        raise ValueError(
            f"the stacked engine trains {slots} members at once, {slots * size:,} bytes, but"
            f" {memory:,} are allowed: raise that, or take a smaller batch or lookback"
        )
    return slots


@dataclass
class _Occupant:
    """The member in a slot, and how far it is."""

    place: int
    member: Member
    rates: np.ndarray
    """(epochs, steps) float64."""
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        return len(self.val_loss)

    @property
    def steps(self) -> int:
        return self.rates.shape[1]

    def learn(self, train_loss: float, val_loss: float) -> None:
        """Note an epoch's losses.

        Raises:
            NotFinite: one is NaN or infinite.
        """
        try:
            require_finite(self.epoch, train_loss, val_loss, self.member.training)
        except NotFinite as error:
            raise NotFinite(f"member {self.member.key!r}: {error}") from None
        if self.val_loss and val_loss < self.val_loss[self.best_epoch]:
            self.best_epoch = self.epoch
        self.train_loss.append(train_loss)
        self.val_loss.append(val_loss)

    @property
    def finished(self) -> bool:
        spec = self.member.training
        stopped = spec.patience is not None and self.epoch - 1 - self.best_epoch >= spec.patience
        return stopped or self.epoch == spec.epochs


class _Group:
    """The members' data, weights and moments on the device, one slot along each first axis."""

    def __init__(
        self,
        members: Sequence[Member],
        layout: Layout,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.members = members
        self.layout = layout
        self.slots = slots
        self.device = device
        self.dtype = dtype
        self.network = RecurrentForecaster(members[0].network, layout.n_features, layout.n_outputs)
        self.max_steps = _ceil_div(max(len(m.train_ends) for m in members), layout.batch_size)
        self.max_tiles = _ceil_div(max(len(m.val_ends) for m in members), layout.batch_size)

        def numbers(*shape: int, of: torch.dtype = dtype) -> Tensor:
            return torch.zeros(slots, *shape, dtype=of, device=device)

        rows = max(len(member.inputs) for member in members)
        self.inputs = numbers(rows, layout.n_features)
        self.targets = numbers(rows, layout.n_horizons)
        # Padding points at a window that exists: what it yields is finite and weighs nothing.
        last = layout.lookback - 1
        self.train_ends = numbers(self.max_steps * layout.batch_size, of=torch.int64) + last
        self.val_ends = numbers(self.max_tiles * layout.batch_size, of=torch.int64) + last
        self.n_train = numbers(of=torch.int64)
        self.n_val = numbers(of=torch.int64)
        self.weight_decay = numbers()
        self.clip_norm = numbers() + math.inf
        self.noise = numbers(of=torch.float32)
        self.thresholds = numbers(of=torch.int64)
        self.dropout_scale = numbers() + 1.0
        self.parameters = numbers(layout.size)
        self.moments = numbers(layout.size), numbers(layout.size)
        self.best = numbers(layout.size)
        self.best_loss = numbers()

    def admit(self, slot: int, place: int) -> _Occupant:
        """Put a member into a slot."""
        member = self.members[place]
        spec = member.training
        self._copy(self.inputs[slot], member.inputs)
        self._copy(self.targets[slot], member.targets.reshape(len(member.targets), -1))
        for ends, of_member in (
            (self.train_ends, member.train_ends),
            (self.val_ends, member.val_ends),
        ):
            ends[slot] = int(of_member[0])
            self._copy(ends[slot], of_member)
        self.n_train[slot] = len(member.train_ends)
        self.n_val[slot] = len(member.val_ends)
        self.weight_decay[slot] = spec.weight_decay
        self.clip_norm[slot] = math.inf if spec.clip_norm is None else spec.clip_norm
        self.noise[slot] = spec.input_noise
        self.thresholds[slot] = dropout_threshold(member.network.dropout)
        self.dropout_scale[slot] = 1.0 / (1.0 - member.network.dropout)
        self.parameters[slot] = self.layout.pack(self._first_weights(member))
        for moment in self.moments:
            moment[slot] = 0
        self.best_loss[slot] = math.inf
        return _Occupant(place, member, learning_rates(spec, len(member.train_ends)))

    def vacate(self, slot: int) -> None:
        """Let a slot weigh nothing."""
        self.n_train[slot] = 0
        self.n_val[slot] = 0

    def _first_weights(self, member: Member) -> dict[str, Tensor]:
        if member.initial is not None:
            return dict(member.initial)
        initialise(self.network, torch.Generator().manual_seed(member.seed))
        return self.network.state_dict()

    @staticmethod
    def _copy(target: Tensor, source: np.ndarray) -> None:
        # np.array copies: a member's arrays may be a read-only memory map.
        target[: len(source)] = torch.from_numpy(np.array(source)).to(target)


class _Trainer:
    """Rounds of a group, until every member was trained."""

    def __init__(self, group: _Group, engine: Engine) -> None:
        self.group = group
        self.engine = engine
        layout, slots, device = group.layout, group.slots, group.device
        members = group.members
        self.has_dropout = any(member.network.dropout for member in members)
        self.has_noise = any(member.training.input_noise for member in members)
        sites = len(layout.hidden_sizes)
        shape = slots, group.max_steps
        self.rows = torch.zeros(*shape, layout.batch_size, dtype=torch.int64, device=device) + (
            layout.lookback - 1
        )
        self.step_size = torch.zeros(*shape, dtype=group.dtype, device=device)
        self.root_scale = torch.ones(*shape, dtype=group.dtype, device=device)
        self.dropout_keys = torch.zeros(*shape, sites, dtype=torch.int64, device=device)
        self.noise_keys = torch.zeros(*shape, 2, dtype=torch.int64, device=device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the step or validation tile within the round."""
        self.total = torch.zeros(slots, dtype=group.dtype, device=device)
        """Of the losses of the round's windows."""
        self.position = torch.arange(layout.batch_size, device=device)
        pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.replay_step = self._replayable(self._step, pool)
        self.replay_tile = self._replayable(self._tile, pool)

    def run(self, on_trained: Callable[[int, TrainedMember], None]) -> None:
        """Train all members."""
        waiting = iter(range(len(self.group.members)))
        occupants: dict[int, _Occupant] = {}
        while True:
            for slot in set(range(self.group.slots)) - occupants.keys():
                if (place := next(waiting, None)) is None:
                    break
                occupants[slot] = self.group.admit(slot, place)
            if not occupants:
                return
            for slot in self._round(occupants):
                occupant = occupants.pop(slot)
                self.group.vacate(slot)
                on_trained(occupant.place, self._result(slot, occupant))

    def _round(self, occupants: dict[int, _Occupant]) -> list[int]:
        """One epoch of every occupant; returns the slots of those that are finished."""
        group = self.group
        self._prepare(occupants)
        train_total = self._sum(self.replay_step, max(o.steps for o in occupants.values()))
        most = max(len(occupant.member.val_ends) for occupant in occupants.values())
        val_total = self._sum(self.replay_tile, _ceil_div(most, group.layout.batch_size))

        val_loss = val_total / group.n_val.clamp(min=1)
        better = (val_loss < group.best_loss) & (group.n_val > 0)
        group.best_loss.copy_(torch.where(better, val_loss, group.best_loss))
        group.best.copy_(torch.where(better[:, None], group.parameters, group.best))
        train_loss = train_total / group.n_train.clamp(min=1)
        losses = torch.stack((train_loss, val_loss), dim=1).tolist()
        for slot, occupant in occupants.items():
            occupant.learn(*losses[slot])
        return [slot for slot, occupant in occupants.items() if occupant.finished]

    def _sum(self, replay: Callable[[], None], times: int) -> Tensor:
        """Replay, and return what was added to the total (K,)."""
        self.number.zero_()
        self.total.zero_()
        for _ in range(times):
            replay()
        return self.total.clone()

    def _prepare(self, occupants: dict[int, _Occupant]) -> None:
        """Put on the device what the steps of a round read."""
        group = self.group
        slots, steps = group.slots, group.max_steps
        seeds = np.zeros(slots, np.uint64)
        epochs = np.zeros(slots, np.uint64)
        done = np.zeros(slots, np.int64)
        rates = np.zeros((slots, steps))
        for slot, occupant in occupants.items():
            seeds[slot] = occupant.member.seed & (2**64 - 1)
            epochs[slot] = occupant.epoch
            done[slot] = occupant.epoch * occupant.steps
            rates[slot, : occupant.steps] = occupant.rates[occupant.epoch]
        number = done[:, None] + np.arange(steps)
        self.step_size.copy_(torch.from_numpy(rates / (1 - BETA1 ** (number + 1))))
        self.root_scale.copy_(torch.from_numpy((1 - BETA2 ** (number + 1)) ** -0.5))

        order_keys = stream_key(seeds, Purpose.ORDER, epochs)
        self.rows.copy_(_shuffled(group.train_ends, group.n_train, order_keys).view_as(self.rows))
        of_step = functools.partial(stream_key, seeds[:, None], step=number.astype(np.uint64))
        if self.has_dropout:
            sites = range(1, self.dropout_keys.shape[2] + 1)
            keys = [of_step(purpose=Purpose.DROPOUT, site=site) for site in sites]
            self.dropout_keys.copy_(_signed(np.stack(keys, axis=-1)))
        if self.has_noise:
            keys = [of_step(purpose=p) for p in (Purpose.NOISE_RADIUS, Purpose.NOISE_ANGLE)]
            self.noise_keys.copy_(_signed(np.stack(keys, axis=-1)))

    def _replayable(self, step: Callable[[], None], pool: Any) -> Callable[[], None]:
        """``step`` itself on a CPU, on a GPU its kernels as one graph with memory of the ``pool``.

        Graphs that share a pool use the same memory, one after the other.
        """
        device = self.group.device
        if device.type != "cuda":
            return step
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self.warm_up(step)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            step()
        return graph.replay

    def warm_up(self, step: Callable[[], None]) -> None:
        """Let kernels be compiled and libraries set up, while no slot is occupied."""
        for _ in range(2):
            self.number.zero_()
            step()

    def _step(self) -> None:
        """One optimizer step of every member that has one left in this round."""
        group = self.group
        counts, weights = self._weights(group.n_train)
        dropout = None
        if self.has_dropout:
            dropout = Dropout(self._now(self.dropout_keys), group.thresholds, group.dropout_scale)
        inputs, targets = self._gather(self._now(self.rows))
        if self.has_noise:
            inputs = self._noisy(inputs, self._now(self.noise_keys))
        batch = Batch(inputs, targets, weights, dropout)
        active = (counts > 0).to(group.dtype)
        step = AdamStep(
            active,
            self._now(self.step_size) * active,
            self._now(self.root_scale),
            group.weight_decay,
            group.clip_norm,
        )
        losses, gradients = self.engine.gradients(group.parameters, batch)
        self.engine.update(group.parameters, gradients, group.moments, step)
        self.total += losses * counts
        self.number += 1

    def _tile(self) -> None:
        """The validation losses of the next batch of every member's windows."""
        group = self.group
        counts, weights = self._weights(group.n_val)
        ends = group.val_ends.view(group.slots, -1, group.layout.batch_size)
        batch = Batch(*self._gather(self._now(ends)), weights)
        losses = self.engine.losses(group.parameters, batch)
        self.total += losses * counts
        self.number += 1

    def _now(self, table: Tensor) -> Tensor:
        """The current step of ``table`` (K, steps, ...)."""
        return table.index_select(1, self.number).squeeze(1)

    def _weights(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """How many windows each member has in this batch (K,), and the weight of each (K, B)."""
        counts = (n - self.number * len(self.position)).clamp(0, len(self.position))
        share = 1.0 / counts.clamp(min=1).to(self.group.dtype)
        return counts, (self.position < counts[:, None]) * share[:, None]

    def _gather(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (K, T, B, F) and targets (K, B, horizons) that end at rows ``ends`` (K, B)."""
        group = self.group
        slots, rows, _ = group.inputs.shape
        first = torch.arange(slots, device=group.device)[:, None] * rows
        back = torch.arange(1 - group.layout.lookback, 1, device=group.device)
        at = (first + ends)[:, None, :] + back[:, None]
        return group.inputs.flatten(0, 1)[at], group.targets.flatten(0, 1)[first + ends]

    def _noisy(self, x: Tensor, keys: Tensor) -> Tensor:
        """Add each member's noise to ``x`` (K, T, B, F), counted in the order batch, time, feature.

        ``keys`` is (K, 2).
        """
        _, steps, windows, features = x.shape
        window, step, feature = (
            torch.arange(n, device=x.device) for n in (windows, steps, features)
        )
        index = (window[None, :, None] * steps + step[:, None, None]) * features + feature
        radius, angle = keys[:, :, None, None, None].unbind(1)
        return x + self.group.noise[:, None, None, None] * normal_of(radius, angle, index)

    def _result(self, slot: int, occupant: _Occupant) -> TrainedMember:
        member, layout = occupant.member, self.group.layout
        return TrainedMember(
            key=member.key,
            network_spec=member.network,
            n_features=layout.n_features,
            lookback=layout.lookback,
            state=layout.unpack(self.group.best[slot].cpu()),
            history=History(occupant.train_loss, occupant.val_loss, occupant.best_epoch),
        )


def _shuffled(ends: Tensor, n: Tensor, keys: np.ndarray) -> Tensor:
    """Each member's first ``n`` of ``ends`` in an epoch's order, then the rest.

    Args:
        ends: (K, N).
        n: (K,).
        keys: (K,) of the streams that :func:`~rnn_pipeline.networks.randomness.epoch_order` sorts.

    Returns:
        (K, N).
    """
    index = torch.arange(ends.shape[1], device=ends.device)
    drawn = bits(_signed(keys).to(ends.device)[:, None], index)
    drawn = torch.where(index < n[:, None], drawn, 2**32)
    return ends.gather(1, drawn.argsort(dim=1, stable=True))


def _signed(keys: np.ndarray) -> Tensor:
    """Keys below 2**32 as torch's int64."""
    return torch.from_numpy(keys.astype(np.int64))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
