"""A training step of K members in Triton: one program, one member (or one tile of its work).

No program reads what another member's wrote, nothing is summed across programs, and no kernel is
told K. So a member's bits are the same in any company, and the same every time.

The recurrent kernels keep a layer's ``W_hh`` on chip and loop over time inside. States stand as
columns, one window each, so that a step is the equation as written, ``u = W_hh h + b_hh``, with
the gates' rows as the long side of the product, which is what Hopper's tensor cores take from
shared memory. On paper, at H = 64 and tiles of 32 windows in float32:

====================  ======================================================================
``W_hh``, 4 gates     4 * 64 * 64 * 4 B = 64 KiB of shared memory (an H100 gives a program 227)
``h`` as an operand   64 * 32 * 4 B = 8 KiB of shared memory, and as much to change layouts
gates, ``c``, ``h``   6 * 64 * 32 * 4 B = 48 KiB of registers, 48 each of 256 threads
====================  ======================================================================

So two or three programs share a multiprocessor and hide each other's waits. ``W_ih`` would double
the first row; its product does not wait for the state, so a kernel of its own computes it for all
steps before (:func:`_project`), and the weights' gradients afterwards
(:func:`_weight_gradients`).

Buffers are (K, T, blocks, H', B') with H' and B' padded to tiles, those of states (K, 1 + T, ...)
with the state before the first step in front; padded units and windows hold finite numbers that
meet weights of 0. Letters as in :mod:`~rnn_pipeline.networks.kernels.gpu_stacked`, which also gives
the equations of the cells.

Precision of the products' operands: "float32" is true float32 on the ordinary cores ("ieee");
"tf32" keeps 10 bits of the fraction (relative error of an operand up to 2**-11), "bfloat16" 7
(2**-8), both on tensor cores with float32 sums.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rnn_pipeline.networks.devices import Precision
from rnn_pipeline.networks.kernels.gpu_stacked import (
    BETA1,
    BETA2,
    EPSILON,
    AdamStep,
    Batch,
    Layout,
)

MAX_UNITS = 64
"""Beyond it the weights of four gates no longer fit beside one another."""

MAX_FEATURES = 128
MAX_OUTPUTS = 64

INPUT_PRECISION: dict[Precision, str] = {"float32": "ieee", "tf32": "tf32", "bfloat16": "bf16"}
"""Triton's name of each. "tf32x3", three products for one, would be float32 but for the last bits
on tensor cores; it compiles without spilling, too, and remains to be measured on a GPU."""

SAVED = 4
"""Blocks of H that a step leaves for the backward pass: the LSTM's i, f, g, o or the GRU's r, z, n
and ``u_n``; and as many gradients: of the LSTM's four sums, or of the GRU's r, z, n and ``u_n``."""

ADAM_BLOCK = 1024


def unsupported(layout: Layout) -> str | None:
    """Why the fused engine cannot train networks of this layout; None where it can."""
    if layout.cell not in ("lstm", "gru"):
        return f"it has no {layout.cell} cell"
    if max(layout.hidden_sizes) > MAX_UNITS:
        return f"{max(layout.hidden_sizes)} units are more than {MAX_UNITS}"
    if layout.n_features > MAX_FEATURES:
        return f"{layout.n_features} features are more than {MAX_FEATURES}"
    if layout.n_outputs > MAX_OUTPUTS:
        return f"{layout.n_outputs} outputs are more than {MAX_OUTPUTS}"
    return None


@triton.jit
def _dot(a, b, c, PRECISION: tl.constexpr):
    """``a b + c``."""
    if PRECISION == "bf16":
        c = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), c)
    else:
        c = tl.dot(a, b, c, input_precision=PRECISION)
    return c


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    """Within a few units in the last place: near 0, where the quotient cancels, by its series."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    square = x * x
    near = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315))))
    return tl.where(tl.abs(x) < 0.2, near, tl.where(x < 0, -far, far))


@triton.jit
def _dropped(x, key, threshold, scale, index):
    """``x`` under a dropout mask; :func:`rnn_pipeline.networks.randomness.bits` in uint32."""
    h = index.to(tl.uint32) * 0x9E3779B9 + key
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    h = h ^ (h >> 16)
    return tl.where(h >= threshold, x * scale, 0.0)


@triton.jit
def _dropout_of(keys, thresholds, dropout_scales, k, site, N_SITES: tl.constexpr):
    """Key, threshold and scale of member ``k`` at ``site``."""
    key = tl.load(keys + k * N_SITES + site - 1).to(tl.uint32)
    return key, tl.load(thresholds + k).to(tl.uint32), tl.load(dropout_scales + k)


@triton.jit
def _source_tile(
    source, k, t, b, j, T, B, N, per_k, per_t, per_unit, per_window,
    key, threshold, scale, DROPOUT: tl.constexpr,
):  # fmt: skip
    """What a layer reads at step ``t``: (units j, windows b), after dropout."""
    at = source + k * per_k + t * per_t + j[:, None] * per_unit + b[None, :] * per_window
    x = tl.load(at, mask=(j[:, None] < N) & (b[None, :] < B), other=0.0)
    if DROPOUT:
        index = (b[None, :] * T + t) * N + j[:, None]
        x = _dropped(x, key, threshold, scale, index)
    return x


@triton.jit
def _project(
    parameters, source, weights, keys, thresholds, dropout_scales, projected,
    P, T, B, N, per_k, per_t, per_unit, per_window, weight_at, bias_at, site,
    H: tl.constexpr, HP: tl.constexpr, NP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    N_SITES: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``p = W_ih x + b_ih`` for one member and one gate, over all steps."""
    k = tl.program_id(0).to(tl.int64)
    gate = tl.program_id(1)
    if tl.load(weights + k * B) == 0.0:
        return
    u = tl.arange(0, HP)
    j = tl.arange(0, NP)
    row = gate * H + u
    own = parameters + k * P
    inside = (u[:, None] < H) & (j[None, :] < N)
    w = tl.load(own + weight_at + row[:, None] * N + j[None, :], mask=inside, other=0.0)
    bias = tl.load(own + bias_at + row, mask=u < H, other=0.0)
    key, threshold, scale = 0, 0, 1.0
    if DROPOUT:
        key, threshold, scale = _dropout_of(keys, thresholds, dropout_scales, k, site, N_SITES)
    for t in range(T):
        for tile in range(BP // BT):
            b = tile * BT + tl.arange(0, BT)
            x = _source_tile(
                source, k, t, b, j, T, B, N, per_k, per_t, per_unit, per_window,
                key, threshold, scale, DROPOUT,
            )  # fmt: skip
            p = _dot(w, x, tl.broadcast_to(bias[:, None], (HP, BT)), PRECISION)
            at = ((k * T + t) * 4 + gate) * HP * BP
            tl.store(projected + at + u[:, None] * BP + b[None, :], p)


@triton.jit
def _recurrent_weight(own, at, gate, H: tl.constexpr, HP: tl.constexpr, TRANSPOSED: tl.constexpr):
    """One gate's (HP, HP) block of ``W_hh``, padded with 0."""
    u = tl.arange(0, HP)[:, None]
    j = tl.arange(0, HP)[None, :]
    element = (gate * H + j) * H + u if TRANSPOSED else (gate * H + u) * H + j
    return tl.load(own + at + element, mask=(u < H) & (j < H), other=0.0)


@triton.jit
def _recurrent_bias(own, at, gate, H: tl.constexpr, HP: tl.constexpr, BT: tl.constexpr):
    u = tl.arange(0, HP)
    bias = tl.load(own + at + gate * H + u, mask=u < H, other=0.0)
    return tl.broadcast_to(bias[:, None], (HP, BT))


@triton.jit
def _forward(
    parameters, weights, projected, saved, carry, hidden,
    P, T, B, weight_at, bias_at,
    H: tl.constexpr, HP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    LSTM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All steps of a layer for one member and one tile of its windows."""
    k = tl.program_id(0).to(tl.int64)
    if tl.load(weights + k * B) == 0.0:
        return
    own = parameters + k * P
    w0 = _recurrent_weight(own, weight_at, 0, H, HP, False)
    w1 = _recurrent_weight(own, weight_at, 1, H, HP, False)
    w2 = _recurrent_weight(own, weight_at, 2, H, HP, False)
    if LSTM:
        w3 = _recurrent_weight(own, weight_at, 3, H, HP, False)
    b = tl.program_id(1) * BT + tl.arange(0, BT)[None, :]
    unit = tl.arange(0, HP)[:, None] * BP + b
    block = HP * BP
    h = tl.zeros((HP, BT), tl.float32)
    c = tl.zeros((HP, BT), tl.float32)
    for t in range(T):
        after = (k * (T + 1) + t + 1) * block + unit
        at4 = (k * T + t) * 4 * block + unit
        u0 = _dot(w0, h, _recurrent_bias(own, bias_at, 0, H, HP, BT), PRECISION)
        u1 = _dot(w1, h, _recurrent_bias(own, bias_at, 1, H, HP, BT), PRECISION)
        u2 = _dot(w2, h, _recurrent_bias(own, bias_at, 2, H, HP, BT), PRECISION)
        if LSTM:
            u3 = _dot(w3, h, _recurrent_bias(own, bias_at, 3, H, HP, BT), PRECISION)
            s0 = _sigmoid(tl.load(projected + at4) + u0)
            s1 = _sigmoid(tl.load(projected + at4 + block) + u1)
            s2 = _tanh(tl.load(projected + at4 + 2 * block) + u2)
            s3 = _sigmoid(tl.load(projected + at4 + 3 * block) + u3)
            c = s1 * c + s0 * s2
            h = s3 * _tanh(c)
            tl.store(carry + after, c)
        else:
            s0 = _sigmoid(tl.load(projected + at4) + u0)
            s1 = _sigmoid(tl.load(projected + at4 + block) + u1)
            s2 = _tanh(tl.load(projected + at4 + 2 * block) + s0 * u2)
            s3 = u2
            h = s2 + s1 * (h - s2)
        tl.store(saved + at4, s0)
        tl.store(saved + at4 + block, s1)
        tl.store(saved + at4 + 2 * block, s2)
        tl.store(saved + at4 + 3 * block, s3)
        tl.store(hidden + after, h)


@triton.jit
def _backward(
    parameters, weights, saved, carry, hidden, grad_hidden, grad_sums,
    P, T, B, weight_at,
    H: tl.constexpr, HP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    LSTM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of a layer's sums, back through all steps, for one member and one tile."""
    k = tl.program_id(0).to(tl.int64)
    if tl.load(weights + k * B) == 0.0:
        return
    own = parameters + k * P
    w0 = _recurrent_weight(own, weight_at, 0, H, HP, True)
    w1 = _recurrent_weight(own, weight_at, 1, H, HP, True)
    w2 = _recurrent_weight(own, weight_at, 2, H, HP, True)
    if LSTM:
        w3 = _recurrent_weight(own, weight_at, 3, H, HP, True)
    b = tl.program_id(1) * BT + tl.arange(0, BT)[None, :]
    unit = tl.arange(0, HP)[:, None] * BP + b
    block = HP * BP
    dh = tl.zeros((HP, BT), tl.float32)
    carried = tl.zeros((HP, BT), tl.float32)
    for back in range(T):
        t = T - 1 - back
        before = (k * (T + 1) + t) * block + unit
        at4 = (k * T + t) * 4 * block + unit
        dh += tl.load(grad_hidden + (k * T + t) * block + unit)
        s0 = tl.load(saved + at4)
        s1 = tl.load(saved + at4 + block)
        s2 = tl.load(saved + at4 + 2 * block)
        s3 = tl.load(saved + at4 + 3 * block)
        if LSTM:
            squashed = _tanh(tl.load(carry + before + block))
            dc = carried + dh * s3 * (1.0 - squashed * squashed)
            d0 = dc * s2 * s0 * (1.0 - s0)
            d1 = dc * tl.load(carry + before) * s1 * (1.0 - s1)
            d2 = dc * s0 * (1.0 - s2 * s2)
            d3 = dh * squashed * s3 * (1.0 - s3)
            carried = dc * s1
            dh = _dot(w3, d3, tl.zeros((HP, BT), tl.float32), PRECISION)
            dh = _dot(w2, d2, dh, PRECISION)
        else:
            dh += carried
            d2 = dh * (1.0 - s1) * (1.0 - s2 * s2)
            d1 = dh * (tl.load(hidden + before) - s2) * s1 * (1.0 - s1)
            d0 = d2 * s3 * s0 * (1.0 - s0)
            d3 = d2 * s0
            carried = dh * s1
            dh = _dot(w2, d3, tl.zeros((HP, BT), tl.float32), PRECISION)
        dh = _dot(w1, d1, dh, PRECISION)
        dh = _dot(w0, d0, dh, PRECISION)
        tl.store(grad_sums + at4, d0)
        tl.store(grad_sums + at4 + block, d1)
        tl.store(grad_sums + at4 + 2 * block, d2)
        tl.store(grad_sums + at4 + 3 * block, d3)


@triton.jit
def _weight_gradients(
    gradients, source, weights, keys, thresholds, dropout_scales, hidden, grad_sums,
    P, T, B, N, per_k, per_t, per_unit, per_window,
    weight_ih_at, weight_hh_at, bias_ih_at, bias_hh_at, site,
    H: tl.constexpr, HP: tl.constexpr, NP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    N_SITES: tl.constexpr, DROPOUT: tl.constexpr, LSTM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dW_ih = sum dp x'``, ``dW_hh = sum du h'`` and the biases', for one member and one gate."""
    k = tl.program_id(0).to(tl.int64)
    gate = tl.program_id(1)
    if tl.load(weights + k * B) == 0.0:
        return
    u = tl.arange(0, HP)
    j = tl.arange(0, NP)
    block = HP * BP
    behind = gate  # the block that holds the gradient of u
    if not LSTM:
        behind = tl.where(gate == 2, 3, gate)
    key, threshold, scale = 0, 0, 1.0
    if DROPOUT:
        key, threshold, scale = _dropout_of(keys, thresholds, dropout_scales, k, site, N_SITES)
    d_weight_ih = tl.zeros((HP, NP), tl.float32)
    d_weight_hh = tl.zeros((HP, HP), tl.float32)
    d_bias_ih = tl.zeros((HP,), tl.float32)
    d_bias_hh = tl.zeros((HP,), tl.float32)
    for t in range(T):
        for tile in range(BP // BT):
            b = tile * BT + tl.arange(0, BT)
            unit = u[:, None] * BP + b[None, :]
            of_step = (k * T + t) * 4 * block + unit
            dp = tl.load(grad_sums + of_step + gate * block)
            du = tl.load(grad_sums + of_step + behind * block)
            before = tl.load(hidden + (k * (T + 1) + t) * block + unit)
            x = _source_tile(
                source, k, t, b, j, T, B, N, per_k, per_t, per_unit, per_window,
                key, threshold, scale, DROPOUT,
            )  # fmt: skip
            d_weight_ih = _dot(dp, tl.trans(x), d_weight_ih, PRECISION)
            d_weight_hh = _dot(du, tl.trans(before), d_weight_hh, PRECISION)
            d_bias_ih += tl.sum(dp, axis=1)
            d_bias_hh += tl.sum(du, axis=1)
    own = gradients + k * P
    row = gate * H + u
    tl.store(
        own + weight_ih_at + row[:, None] * N + j[None, :],
        d_weight_ih,
        mask=(u[:, None] < H) & (j[None, :] < N),
    )
    unit_before = tl.arange(0, HP)[None, :]
    tl.store(
        own + weight_hh_at + row[:, None] * H + unit_before,
        d_weight_hh,
        mask=(u[:, None] < H) & (unit_before < H),
    )
    tl.store(own + bias_ih_at + row, d_bias_ih, mask=u < H)
    tl.store(own + bias_hh_at + row, d_bias_hh, mask=u < H)


@triton.jit
def _source_gradient(
    parameters, weights, keys, thresholds, dropout_scales, grad_sums, grad_source,
    P, T, B, N, weight_at, site,
    H: tl.constexpr, HP: tl.constexpr, NP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    BLOCKS: tl.constexpr, N_SITES: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dx = W_ih' dp`` under the dropout mask, for one member and one step."""
    k = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1)
    if tl.load(weights + k * B) == 0.0:
        return
    u = tl.arange(0, HP)
    j = tl.arange(0, NP)
    inside = (u[None, :] < H) & (j[:, None] < N)
    key, threshold, scale = 0, 0, 1.0
    if DROPOUT:
        key, threshold, scale = _dropout_of(keys, thresholds, dropout_scales, k, site, N_SITES)
    for tile in range(BP // BT):
        b = tile * BT + tl.arange(0, BT)
        dx = tl.zeros((NP, BT), tl.float32)
        for gate in range(BLOCKS):
            row = gate * H + u
            element = weight_at + row[None, :] * N + j[:, None]
            w = tl.load(parameters + k * P + element, mask=inside, other=0.0)
            of_gate = ((k * T + t) * 4 + gate) * HP * BP
            dp = tl.load(grad_sums + of_gate + u[:, None] * BP + b[None, :])
            dx = _dot(w, dp, dx, PRECISION)
        if DROPOUT:
            index = (b[None, :] * T + t) * N + j[:, None]
            dx = _dropped(dx, key, threshold, scale, index)
        tl.store(grad_source + (k * T + t) * NP * BP + j[:, None] * BP + b[None, :], dx)


@triton.jit
def _head(
    parameters, gradients, targets, weights, keys, thresholds, dropout_scales, levels, scales,
    hidden, grad_hidden, losses,
    P, T, B, N_HORIZONS, N_OUTPUTS, weight_at, bias_at,
    H: tl.constexpr, HP: tl.constexpr, OP: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr,
    N_SITES: tl.constexpr, DROPOUT: tl.constexpr, TRAIN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs, loss and, to train, the gradients of the head and of the last state, of one member.

    Of output ``o``, ``levels`` has the quantile, or a negative number for the point forecast, and
    ``scales`` its share in the loss.
    """
    k = tl.program_id(0).to(tl.int64)
    if tl.load(weights + k * B) == 0.0:
        return
    o = tl.arange(0, OP)
    u = tl.arange(0, HP)
    of_head = weight_at + o[:, None] * H + u[None, :]
    inside = (o[:, None] < N_OUTPUTS) & (u[None, :] < H)
    w = tl.load(parameters + k * P + of_head, mask=inside, other=0.0)
    bias = tl.load(parameters + k * P + bias_at + o, mask=o < N_OUTPUTS, other=0.0)
    level = tl.load(levels + o, mask=o < N_OUTPUTS, other=0.0)[:, None]
    scale = tl.load(scales + o, mask=o < N_OUTPUTS, other=0.0)[:, None]
    horizon = o // (N_OUTPUTS // N_HORIZONS)
    key, threshold, raised = 0, 0, 1.0
    if DROPOUT:
        key, threshold, raised = _dropout_of(keys, thresholds, dropout_scales, k, N_SITES, N_SITES)
    loss = tl.zeros((OP, BT), tl.float32)
    d_weight = tl.zeros((OP, HP), tl.float32)
    d_bias = tl.zeros((OP,), tl.float32)
    for tile in range(BP // BT):
        b = tile * BT + tl.arange(0, BT)
        unit = u[:, None] * BP + b[None, :]
        h = tl.load(hidden + (k * (T + 1) + T) * HP * BP + unit)
        index = b[None, :] * H + u[:, None]
        if DROPOUT:
            h = _dropped(h, key, threshold, raised, index)
        out = _dot(w, h, tl.broadcast_to(bias[:, None], (OP, BT)), PRECISION)
        known = (b[None, :] < B) & (o[:, None] < N_OUTPUTS)
        at = (k * B + b[None, :]) * N_HORIZONS + horizon[:, None]
        error = tl.load(targets + at, mask=known, other=0.0) - out
        part = scale * tl.load(weights + k * B + b, mask=b < B, other=0.0)[None, :]
        slope = tl.where(error > 0, level, level - 1.0)
        loss += part * tl.where(level < 0, error * error, slope * error)
        if TRAIN:
            d_out = -part * tl.where(level < 0, 2.0 * error, slope)
            d_weight = _dot(d_out, tl.trans(h), d_weight, PRECISION)
            d_bias += tl.sum(d_out, axis=1)
            d_h = _dot(tl.trans(w), d_out, tl.zeros((HP, BT), tl.float32), PRECISION)
            if DROPOUT:
                d_h = _dropped(d_h, key, threshold, raised, index)
            tl.store(grad_hidden + (k * T + T - 1) * HP * BP + unit, d_h)
    tl.store(losses + k, tl.sum(tl.sum(loss, axis=1), axis=0))
    if TRAIN:
        tl.store(gradients + k * P + of_head, d_weight, mask=inside)
        tl.store(gradients + k * P + bias_at + o, d_bias, mask=o < N_OUTPUTS)


@triton.jit
def _adam(
    parameters, gradients, first, second, active, step_size, root_scale, weight_decay, clip_norm,
    P, BETA1: tl.constexpr, BETA2: tl.constexpr, EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Clip, decay and step, of one member."""
    k = tl.program_id(0).to(tl.int64)
    if tl.load(active + k) == 0.0:
        return
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, P, BLOCK):
        i = start + tl.arange(0, BLOCK)
        g = tl.load(gradients + k * P + i, mask=i < P, other=0.0)
        squares += g * g
    norm = tl.sqrt(tl.sum(squares, axis=0))
    scale = tl.minimum(tl.load(clip_norm + k) / (norm + 1e-6), 1.0)
    size = tl.load(step_size + k)
    root = tl.load(root_scale + k)
    decay = tl.load(weight_decay + k)
    for start in range(0, P, BLOCK):
        i = start + tl.arange(0, BLOCK)
        inside = i < P
        at = k * P + i
        w = tl.load(parameters + at, mask=inside, other=0.0)
        g = tl.load(gradients + at, mask=inside, other=0.0) * scale + decay * w
        m = tl.load(first + at, mask=inside, other=0.0)
        v = tl.load(second + at, mask=inside, other=0.0)
        m += (1 - BETA1) * (g - m)
        v += (1 - BETA2) * (g * g - v)
        tl.store(first + at, m, mask=inside)
        tl.store(second + at, v, mask=inside)
        w -= size * m / (tl.sqrt(v) * root + EPSILON)
        tl.store(parameters + at, w, mask=inside)


class _Layer:
    """One recurrent layer: the places of its parameters, its tiles and its buffers."""

    def __init__(
        self, layout: Layout, depth: int, slots: int, windows: int, device: torch.device
    ) -> None:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        self.at = {name: layout.blocks[f"recurrent.layers.{depth}.{name}"][0] for name in names}
        self.depth = depth
        self.units = layout.hidden_sizes[depth]
        self.sources = layout.hidden_sizes[depth - 1] if depth else layout.n_features
        self.padded = _padded(self.units)
        self.padded_sources = _padded(self.sources)
        self.warps = 8 if self.padded == MAX_UNITS else 4
        steps, tile = layout.lookback, (self.padded, windows)
        # The states before the first step are 0, and nothing writes them.
        states = slots, 1 + steps, *tile
        self.hidden = torch.zeros(states, device=device)
        self.carry = torch.zeros(states if layout.cell == "lstm" else (1,), device=device)
        self.saved = torch.zeros(slots, steps, SAVED, *tile, device=device)


class FusedEngine:
    """Training steps by the kernels of this module; float32 weights, gradients and sums."""

    def __init__(
        self, layout: Layout, slots: int, device: torch.device, precision: Precision
    ) -> None:
        self.layout = layout
        self.slots = slots
        self.lstm = layout.cell == "lstm"
        self.blocks = 4 if self.lstm else 3
        self.tile = 32 if layout.batch_size > 16 else 16
        self.windows = -(-layout.batch_size // self.tile) * self.tile
        self.layers = [
            _Layer(layout, depth, slots, self.windows, device)
            for depth in range(len(layout.hidden_sizes))
        ]
        numbers = layout.lookback * max(layer.padded for layer in self.layers) * self.windows
        self.sums = torch.zeros(slots * numbers * SAVED, device=device)
        """Of the layer at hand: the projections of its inputs, then its sums' gradients."""
        self.grad_hidden = torch.zeros(slots * numbers, device=device)
        self.flat_gradients = torch.zeros(slots, layout.size, device=device)
        self.member_losses = torch.zeros(slots, device=device)
        n_quantiles = len(layout.quantiles)
        scales = (1.0, *(1.0 / n_quantiles for _ in layout.quantiles))
        self.levels = torch.tensor((-1.0, *layout.quantiles) * layout.n_horizons, device=device)
        self.scales = torch.tensor(scales * layout.n_horizons, device=device) / layout.n_horizons
        self.nothing = torch.zeros(1, device=device)
        self.tiles: dict[str, Any] = {
            "BP": self.windows,
            "BT": self.tile,
            "PRECISION": INPUT_PRECISION[precision],
            "num_stages": 1,
            "enable_fp_fusion": True,
        }

    def gradients(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :class:`~rnn_pipeline.networks.kernels.gpu_stacked.Engine`."""
        self._states(parameters, batch)
        self.grad_hidden.zero_()
        self._head(parameters, batch, train=True)
        for layer in reversed(self.layers):
            self._differentiate(layer, parameters, batch)
        return self.member_losses, self.flat_gradients

    def losses(self, parameters: Tensor, batch: Batch) -> Tensor:
        """See :class:`~rnn_pipeline.networks.kernels.gpu_stacked.Engine`."""
        self._states(parameters, batch)
        self._head(parameters, batch, train=False)
        return self.member_losses

    def update(
        self, parameters: Tensor, gradients: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep
    ) -> None:
        """See :class:`~rnn_pipeline.networks.kernels.gpu_stacked.Engine`."""
        _adam[(self.slots,)](
            parameters, gradients, *moments,
            step.active, step.step_size, step.root_scale, step.weight_decay, step.clip_norm,
            self.layout.size, BETA1, BETA2, EPSILON, ADAM_BLOCK,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip

    def _states(self, parameters: Tensor, batch: Batch) -> None:
        """Run all layers forward."""
        size, steps, windows = self.layout.size, self.layout.lookback, self.layout.batch_size
        for layer in self.layers:
            _project[(self.slots, self.blocks)](
                parameters, self._source(layer, batch), batch.weights,
                *self._dropout(batch), self.sums,
                size, steps, windows, layer.sources, *self._strides(layer),
                layer.at["weight_ih_l0"], layer.at["bias_ih_l0"], layer.depth,
                **self._constants(layer, batch), **self.tiles,
            )  # fmt: skip
            _forward[(self.slots, self.windows // self.tile)](
                parameters, batch.weights, self.sums, layer.saved, layer.carry, layer.hidden,
                size, steps, windows, layer.at["weight_hh_l0"], layer.at["bias_hh_l0"],
                H=layer.units, HP=layer.padded, LSTM=self.lstm, num_warps=layer.warps,
                **self.tiles,
            )  # fmt: skip

    def _head(self, parameters: Tensor, batch: Batch, train: bool) -> None:
        layout, top = self.layout, self.layers[-1]
        self.member_losses.zero_()
        _head[(self.slots,)](
            parameters, self.flat_gradients, batch.targets, batch.weights, *self._dropout(batch),
            self.levels, self.scales, top.hidden, self.grad_hidden, self.member_losses,
            layout.size, layout.lookback, layout.batch_size, layout.n_horizons, layout.n_outputs,
            layout.blocks["head.weight"][0], layout.blocks["head.bias"][0],
            H=top.units, HP=top.padded, OP=_padded(layout.n_outputs),
            N_SITES=len(self.layers), DROPOUT=batch.dropout is not None, TRAIN=train,
            num_warps=top.warps, **self.tiles,
        )  # fmt: skip

    def _differentiate(self, layer: _Layer, parameters: Tensor, batch: Batch) -> None:
        """The gradients of a layer's parameters, and of what it read where a layer is below."""
        size, steps, windows = self.layout.size, self.layout.lookback, self.layout.batch_size
        _backward[(self.slots, self.windows // self.tile)](
            parameters, batch.weights, layer.saved, layer.carry, layer.hidden,
            self.grad_hidden, self.sums,
            size, steps, windows, layer.at["weight_hh_l0"],
            H=layer.units, HP=layer.padded, LSTM=self.lstm, num_warps=layer.warps, **self.tiles,
        )  # fmt: skip
        constants = self._constants(layer, batch)
        _weight_gradients[(self.slots, self.blocks)](
            self.flat_gradients, self._source(layer, batch), batch.weights, *self._dropout(batch),
            layer.hidden, self.sums,
            size, steps, windows, layer.sources, *self._strides(layer), *layer.at.values(),
            layer.depth, LSTM=self.lstm, **constants, **self.tiles,
        )  # fmt: skip
        if layer.depth:
            _source_gradient[(self.slots, steps)](
                parameters, batch.weights, *self._dropout(batch), self.sums, self.grad_hidden,
                size, steps, windows, layer.sources, layer.at["weight_ih_l0"], layer.depth,
                BLOCKS=self.blocks, **constants, **self.tiles,
            )  # fmt: skip

    def _source(self, layer: _Layer, batch: Batch) -> Tensor:
        return self.layers[layer.depth - 1].hidden[:, 1:] if layer.depth else batch.inputs

    def _strides(self, layer: _Layer) -> tuple[int, int, int, int]:
        """Of what a layer reads: per member, step, unit and window."""
        steps, n = self.layout.lookback, layer.sources
        if layer.depth:
            per_step = layer.padded_sources * self.windows
            return (1 + steps) * per_step, per_step, self.windows, 1
        per_step = self.layout.batch_size * n
        return steps * per_step, per_step, 1, n

    def _dropout(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        dropout = batch.dropout
        if dropout is None:
            return self.nothing, self.nothing, self.nothing
        return dropout.keys, dropout.thresholds, dropout.scale

    def _constants(self, layer: _Layer, batch: Batch) -> dict[str, Any]:
        return {
            "H": layer.units,
            "HP": layer.padded,
            "NP": layer.padded_sources,
            "N_SITES": len(self.layers),
            "DROPOUT": batch.dropout is not None and layer.depth > 0,
            "num_warps": layer.warps,
        }


def _padded(n: int) -> int:
    """The tile that holds ``n``: a power of two from 16, the least a product takes."""
    return max(16, triton.next_power_of_2(n))
