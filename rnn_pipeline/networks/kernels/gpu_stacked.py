"""Members side by side in torch: every tensor has a first axis over K members.

A recurrent layer is one batched product for the projection of all time steps and one per step for
the state (``u = W_hh h + b_hh``, ``p = W_ih x + b_ih``); LSTM, GRU and plain RNN differ in
:class:`Gates` alone. Backward is written by hand, so that a layer's weight gradients are one
batched product each over all time steps, and only 4 H numbers per window and step are kept.

Letters in shapes: K members, T time steps, B windows of a batch, F features, H units, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rnn_pipeline.networks.backends import Architecture
from rnn_pipeline.networks.randomness import bits

BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8

ALIGNMENT = 16
"""Floats; each block of a member's parameters begins on a multiple of it."""


@dataclass(frozen=True)
class Layout(Architecture):
    """A group's architecture, and where a member's parameters lie in a row of ``size`` numbers."""

    blocks: Mapping[str, tuple[int, tuple[int, ...]]]
    """Name in the state dict to (offset, shape)."""
    size: int

    @property
    def n_outputs(self) -> int:
        """Columns of the head: per horizon the point forecast and its quantiles."""
        return self.n_horizons * (1 + len(self.quantiles))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Blocks of ``flat`` (K, P) by name, each (K, ...) of its shape; nothing is copied."""
        return {
            name: flat[:, offset : offset + math.prod(shape)].unflatten(1, shape)
            for name, (offset, shape) in self.blocks.items()
        }

    def pack(self, state: Mapping[str, Tensor]) -> Tensor:
        """A state dict as a row (P,); the gaps between blocks are 0 and stay so."""
        flat = torch.zeros(self.size, dtype=next(iter(state.values())).dtype)
        for name, view in self.views(flat[None]).items():
            view[0] = state[name]
        return flat

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """The state dict of a row (P,)."""
        return {name: view[0].clone() for name, view in self.views(flat[None]).items()}


def blocks_of(state: Mapping[str, Tensor]) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
    """Lay the tensors of a state dict one behind the other; return their places and the size."""
    blocks, offset = {}, 0
    for name, value in state.items():
        blocks[name] = (offset, tuple(value.shape))
        offset += -(-value.numel() // ALIGNMENT) * ALIGNMENT
    return blocks, offset


@dataclass(frozen=True)
class Dropout:
    """Of each member at one optimizer step."""

    keys: Tensor
    """(K, L) int64; column ``s - 1`` is the stream of site ``s``."""
    thresholds: Tensor
    """(K,) int64, see :func:`~rnn_pipeline.networks.randomness.dropout_threshold`."""
    scale: Tensor
    """(K,) float32, what an element that is kept is multiplied by."""

    def apply(self, x: Tensor, site: int) -> Tensor:
        """Mask ``x`` (K, T, B, H), whose elements are counted in the order batch, time, unit."""
        _, steps, windows, units = x.shape
        window, step, unit = (torch.arange(n, device=x.device) for n in (windows, steps, units))
        index = (window[None, :, None] * steps + step[:, None, None]) * units + unit
        kept = (
            bits(self.keys[:, site - 1, None, None, None], index)
            >= self.thresholds[:, None, None, None]
        )
        return x * (kept * self.scale[:, None, None, None])


@dataclass(frozen=True)
class Batch:
    """One batch of every member."""

    inputs: Tensor
    """(K, T, B, F)."""
    targets: Tensor
    """(K, B, horizons)."""
    weights: Tensor
    """(K, B): one over the number of the member's windows in the batch, 0 on padding."""
    dropout: Dropout | None = None


@dataclass(frozen=True)
class AdamStep:
    """Coefficients of one step of Adam (Kingma and Ba, 2015), a value per member, each (K,).

    A member whose ``active`` is 0 is left as it is, its moments too.
    """

    active: Tensor
    """1 or 0."""
    step_size: Tensor
    """``learning rate / (1 - beta1**t)``; 0 where not active."""
    root_scale: Tensor
    """``1 / sqrt(1 - beta2**t)``."""
    weight_decay: Tensor
    clip_norm: Tensor
    """Infinite where the gradient is not clipped."""


class Engine(Protocol):
    """What computes training steps; ``parameters`` and all their likes are (K, P)."""

    def gradients(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses (K,) and gradients (K, P)."""

    def losses(self, parameters: Tensor, batch: Batch) -> Tensor:
        """Losses (K,) without dropout."""

    def update(
        self, parameters: Tensor, gradients: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep
    ) -> None:
        """Clip, decay and step, in place."""


@dataclass(frozen=True)
class Trace:
    """What a layer's forward pass leaves for its backward pass."""

    hidden: Tensor
    """(K, 1 + T, B, H), the states before and after each step."""
    carry: Tensor
    """(K, 1 + T, B, H), the LSTM's cell; of no size for other cells."""
    saved: Tensor
    """(K, T, B, blocks H), what :class:`Gates` keep."""


class Gates(Protocol):
    """One time step of a cell between the batched products."""

    blocks: int
    """Rows of a weight matrix, in H."""
    saved: int
    """Numbers kept per unit."""
    has_carry: bool
    splits: bool
    """Whether ``p`` and ``u`` have different gradients."""

    def forward(self, trace: Trace, t: int, p: Tensor, u: Tensor) -> None:
        """Write step ``t`` of ``trace`` from the projections ``p`` and ``u`` (K, B, blocks H)."""

    def backward(
        self, trace: Trace, t: int, dh: Tensor, carried: Tensor, dp: Tensor, du: Tensor
    ) -> Tensor:
        """Write the gradients of ``p`` and ``u``.

        Args:
            trace: of the forward pass.
            t: the step.
            dh: (K, B, H) gradient of the state after the step, all of it but what is ``carried``.
            carried: (K, B, H) what this method returned for the step behind.
            dp: (K, B, blocks H), to be written.
            du: (K, B, blocks H), to be written; the same tensor where the two are equal.

        Returns:
            (K, B, H) gradient that reaches the step before around the recurrent product: of the
            LSTM's cell, or of the state itself.
        """


class LstmGates:
    """``i, f, o = sigmoid(p + u)``, ``g = tanh(p + u)``, ``c' = f c + i g``, ``h' = o tanh(c')``.

    Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).
    """

    blocks = 4
    saved = 4
    has_carry = True
    splits = False

    def forward(self, trace: Trace, t: int, p: Tensor, u: Tensor) -> None:
        """See :class:`Gates`."""
        gates = torch.add(p, u, out=trace.saved[:, t])
        i, f, g, o = gates.chunk(4, -1)
        units = g.shape[-1]
        gates[..., : 2 * units].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        carry = torch.mul(f, trace.carry[:, t], out=trace.carry[:, t + 1]).addcmul_(i, g)
        torch.mul(o, carry.tanh(), out=trace.hidden[:, t + 1])

    def backward(
        self, trace: Trace, t: int, dh: Tensor, carried: Tensor, dp: Tensor, du: Tensor
    ) -> Tensor:
        """See :class:`Gates`."""
        i, f, g, o = trace.saved[:, t].chunk(4, -1)
        di, df, dg, do = dp.chunk(4, -1)
        squashed = trace.carry[:, t + 1].tanh()
        dc = carried + dh * o * (1 - squashed * squashed)
        torch.mul(dc * g, i * (1 - i), out=di)
        torch.mul(dc * trace.carry[:, t], f * (1 - f), out=df)
        torch.mul(dc * i, 1 - g * g, out=dg)
        torch.mul(dh * squashed, o * (1 - o), out=do)
        return dc * f


class GruGates:
    """``r, z = sigmoid(p + u)``, ``n = tanh(p + r u)``, ``h' = (1 - z) n + z h``.

    Cho et al. (2014), with the reset gate behind the recurrent product as in cuDNN and torch.
    """

    blocks = 3
    saved = 4
    has_carry = False
    splits = True

    def forward(self, trace: Trace, t: int, p: Tensor, u: Tensor) -> None:
        """See :class:`Gates`."""
        units = trace.hidden.shape[-1]
        r, z, n, u_n = trace.saved[:, t].chunk(4, -1)
        both = trace.saved[:, t, :, : 2 * units]
        torch.add(p[..., : 2 * units], u[..., : 2 * units], out=both).sigmoid_()
        u_n.copy_(u[..., 2 * units :])
        torch.addcmul(p[..., 2 * units :], r, u_n, out=n).tanh_()
        torch.lerp(n, trace.hidden[:, t], z, out=trace.hidden[:, t + 1])

    def backward(
        self, trace: Trace, t: int, dh: Tensor, carried: Tensor, dp: Tensor, du: Tensor
    ) -> Tensor:
        """See :class:`Gates`."""
        r, z, n, u_n = trace.saved[:, t].chunk(4, -1)
        dr, dz, dn = dp.chunk(3, -1)
        dh = dh + carried
        torch.mul(dh * (1 - z), 1 - n * n, out=dn)
        torch.mul(dh * (trace.hidden[:, t] - n), z * (1 - z), out=dz)
        torch.mul(dn * u_n, r * (1 - r), out=dr)
        du.copy_(dp)
        du[..., 2 * r.shape[-1] :] *= r
        return dh * z


class RnnGates:
    """``h' = tanh(p + u)`` (Elman, 1990)."""

    blocks = 1
    saved = 0
    has_carry = False
    splits = False

    def forward(self, trace: Trace, t: int, p: Tensor, u: Tensor) -> None:
        """See :class:`Gates`."""
        torch.add(p, u, out=trace.hidden[:, t + 1]).tanh_()

    def backward(
        self, trace: Trace, t: int, dh: Tensor, carried: Tensor, dp: Tensor, du: Tensor
    ) -> Tensor:
        """See :class:`Gates`."""
        h = trace.hidden[:, t + 1]
        torch.mul(dh, 1 - h * h, out=dp)
        return carried


GATES: dict[str, Gates] = {"lstm": LstmGates(), "gru": GruGates(), "rnn": RnnGates()}


def affine(x: Tensor, weight: Tensor, bias: Tensor, operands: torch.dtype) -> Tensor:
    """``x weight' + bias`` of each member, with the product's operands rounded to ``operands``.

    Args:
        x: (K, rows, n).
        weight: (K, m, n).
        bias: (K, m).
        operands: the type of ``x``, or bfloat16.

    Returns:
        (K, rows, m), of the type of ``x``.
    """
    rounded = (bias[:, None].to(operands), x.to(operands), weight.mT.to(operands))
    return torch.baddbmm(*rounded).to(x.dtype)


def product(a: Tensor, b: Tensor, operands: torch.dtype) -> Tensor:
    """``a b`` of each member: (K, n, m) of (K, n, k) and (K, k, m), as in :func:`affine`."""
    return torch.bmm(a.to(operands), b.to(operands)).to(a.dtype)


class RecurrentLayer(torch.autograd.Function):
    """A recurrent layer of K members, every state 0 before the first step."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Gates,
        operands: torch.dtype,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> Tensor:
        """Map ``x`` (K, T, B, F) to the states after each step (K, T, B, H)."""
        members, steps, windows, _ = x.shape
        units = weight_hh.shape[2]
        carried = units if gates.has_carry else 0
        trace = Trace(
            hidden=x.new_empty(members, 1 + steps, windows, units),
            carry=x.new_empty(members, 1 + steps, windows, carried),
            saved=x.new_empty(members, steps, windows, gates.saved * units),
        )
        trace.hidden[:, 0] = 0
        trace.carry[:, 0] = 0
        p = affine(x.flatten(1, 2), weight_ih, bias_ih, operands).view(
            members, steps, windows, gates.blocks * units
        )
        weight = weight_hh.to(operands)
        for t in range(steps):
            gates.forward(trace, t, p[:, t], affine(trace.hidden[:, t], weight, bias_hh, operands))
        ctx.gates, ctx.operands = gates, operands
        ctx.save_for_backward(x, weight_ih, weight_hh, trace.hidden, trace.carry, trace.saved)
        return trace.hidden[:, 1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what :meth:`forward` took, from that of what it gave (K, T, B, H)."""
        x, weight_ih, weight_hh, *states = ctx.saved_tensors
        gates, operands, trace = ctx.gates, ctx.operands, Trace(*states)
        steps = x.shape[1]
        dp = grad.new_empty(*grad.shape[:3], gates.blocks * grad.shape[3])
        du = torch.empty_like(dp) if gates.splits else dp
        weight = weight_hh.to(operands)
        carried = torch.zeros_like(grad[:, 0])
        for t in reversed(range(steps)):
            dh = grad[:, t]
            if t + 1 < steps:
                dh = dh + product(du[:, t + 1], weight, operands)
            carried = gates.backward(trace, t, dh, carried, dp[:, t], du[:, t])

        before = trace.hidden[:, :-1].flatten(1, 2)
        flat_dp, flat_du = dp.flatten(1, 2), du.flatten(1, 2)
        dx = None
        if ctx.needs_input_grad[2]:
            dx = product(flat_dp, weight_ih, operands).view(x.shape)
        return (
            None,
            None,
            dx,
            product(flat_dp.mT, x.flatten(1, 2), operands),
            product(flat_du.mT, before, operands),
            flat_dp.sum(1),
            flat_du.sum(1),
        )


class StackedEngine:
    """Training steps of K members in torch; runs wherever torch does."""

    def __init__(self, layout: Layout, device: torch.device, operands: torch.dtype | None) -> None:
        """Prepare for networks of this ``layout``.

        Args:
            layout: of the group.
            device: where the members are.
            operands: what the operands of products are rounded to; None: not at all.
        """
        self.layout = layout
        self.gates = GATES[layout.cell]
        self.operands = operands
        self.quantiles = torch.tensor(layout.quantiles, dtype=torch.float64, device=device)

    def gradients(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :class:`Engine`."""
        leaves = {
            name: view.detach().requires_grad_()
            for name, view in self.layout.views(parameters).items()
        }
        with torch.enable_grad():
            losses = self._losses(leaves, batch)
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
        flat = torch.zeros_like(parameters)
        for view, gradient in zip(self.layout.views(flat).values(), gradients, strict=True):
            view.copy_(gradient)
        return losses.detach(), flat

    def losses(self, parameters: Tensor, batch: Batch) -> Tensor:
        """See :class:`Engine`."""
        with torch.no_grad():
            return self._losses(self.layout.views(parameters), batch)

    def update(
        self, parameters: Tensor, gradients: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep
    ) -> None:
        """See :class:`Engine`."""
        norm = torch.linalg.vector_norm(gradients, dim=1)
        scale = (step.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        gradients = gradients * scale[:, None] + step.weight_decay[:, None] * parameters
        first, second = moments
        first.lerp_(gradients, ((1 - BETA1) * step.active)[:, None])
        second.lerp_(gradients * gradients, ((1 - BETA2) * step.active)[:, None])
        root = second.sqrt() * step.root_scale[:, None] + EPSILON
        parameters.sub_(step.step_size[:, None] * first / root)

    def _losses(self, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss of each member's batch (K,)."""
        operands = self.operands or batch.inputs.dtype
        x = batch.inputs
        for depth in range(len(self.layout.hidden_sizes)):
            if depth and batch.dropout is not None:
                x = batch.dropout.apply(x, depth)
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            layer = [weights[f"recurrent.layers.{depth}.{name}"] for name in names]
            x = RecurrentLayer.apply(self.gates, operands, x, *layer)
        top = x[:, -1:]
        if batch.dropout is not None:
            top = batch.dropout.apply(top, len(self.layout.hidden_sizes))
        outputs = affine(top[:, 0], weights["head.weight"], weights["head.bias"], operands)
        return weighted_loss(outputs, batch.targets, batch.weights, self.quantiles)


def weighted_loss(outputs: Tensor, targets: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Squared error of the point forecasts, plus the mean pinball loss of their quantiles.

    Args:
        outputs: (K, B, horizons (1 + Q)), per horizon the point forecast and Q quantiles.
        targets: (K, B, horizons).
        weights: (K, B) of each window.
        quantiles: (Q,) levels.

    Returns:
        (K,) weighted sum over windows of the mean over horizons.
    """
    error = targets[..., None] - outputs.unflatten(-1, (targets.shape[-1], -1))
    loss = error[..., 0].square()
    if len(quantiles):
        # Koenker and Bassett (1978).
        below = error[..., 1:]
        levels = quantiles.to(below)
        loss = loss + torch.maximum(levels * below, (levels - 1) * below).mean(-1)
    return (weights * loss.mean(-1)).sum(-1)


def activation_numbers(layout: Layout) -> int:
    """Numbers, about, that one member's training step keeps: states, gates and their gradients."""
    gates = GATES[layout.cell]
    per_unit = 3 + 3 * gates.blocks + gates.saved
    windows = -(-layout.batch_size // 32) * 32
    units = sum(max(16, 2 ** math.ceil(math.log2(h))) for h in layout.hidden_sizes)
    return layout.lookback * windows * units * per_unit
