"""Forward pass, backward pass and Adam of one small network, compiled by Numba.

The equations are torch's (and those of Hochreiter and Schmidhuber 1997 with the forget gate of Gers
et al. 2000, and of Cho et al. 2014 in torch's variant, where the reset gate acts behind the
recurrent product):

- rnn: ``h' = tanh(a)``
- lstm: ``c' = f c + i g``, ``h' = o tanh(c')`` with ``i, f, o = sigmoid(a)``, ``g = tanh(a)``
- gru: ``n = tanh(a_n + r m)``, ``h' = n + z (h - n)`` with ``r, z = sigmoid(a)``

where ``a = W [1, x] + U [1, h]``. Everything is a matrix product (:func:`~.simd.multiply`) except
what is done unit by unit, and only that differs between the cells: :func:`activate` going forward,
:func:`differentiate` going back. Layouts and notation are those of :mod:`.cpu_layout`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit

from rnn_pipeline.networks import randomness
from rnn_pipeline.networks.kernels.cpu_layout import GRU, LSTM, Plan, stride_of
from rnn_pipeline.networks.kernels.simd import (
    LANES,
    dropout_mask,
    load,
    multiply,
    padded,
    sigmoid,
    splat,
    square_root,
    store,
    tanh,
    total,
)

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's, as torch has them."""

piece = njit(inline="always")
"""A part of a kernel: Numba would optimise a function again with every function that calls it."""

stream_bits = njit(randomness.bits)


@piece
def states_at(plan: Plan, layer: int, t: int, n: int) -> int:
    """Where the (n, stride) states of ``layer`` before step ``t`` begin."""
    return plan.states[layer] + t * n * stride_of(plan.widths[layer + 1])


@piece
def gates_at(plan: Plan, layer: int, block: int, t: int, n: int) -> int:
    """Where the (n, slots, L) gates of a block of units at step ``t`` begin."""
    return plan.gates[layer] + (block * plan.lookback + t) * n * plan.slots * LANES


@piece
def memory_at(plan: Plan, layer: int, block: int, t: int, n: int) -> int:
    """Where the (n, L) cell states of a block of units before step ``t`` begin."""
    return plan.memory[layer] + (block * (1 + plan.lookback) + t) * n * LANES


@piece
def memory_tanh_at(plan: Plan, layer: int, block: int, t: int, n: int) -> int:
    """Where the (n, L) hyperbolic tangents of the cell states after step ``t`` begin."""
    return plan.memory_tanh[layer] + (block * plan.lookback + t) * n * LANES


@piece
def fill(work: np.ndarray, begin: int, length: int, value: float) -> None:
    """Set ``length`` (whole vectors) elements from ``begin``."""
    vector = splat(np.float32(value))
    for i in range(begin, begin + length, LANES):
        store(work, i, vector)


@piece
def open_rows(work: np.ndarray, begin: int, n_rows: int, stride: int) -> None:
    """Put the 1 before the units of each row of states."""
    for row in range(n_rows):
        work[begin + row * stride + LANES - 1] = 1.0


@piece
def gather(plan: Plan, work: np.ndarray, series: np.ndarray, ends: np.ndarray) -> None:
    """Copy the windows of ``series`` (rows, n_features) that end at ``ends`` (n,) to the inputs."""
    n, n_features = len(ends), series.shape[1]
    stride = stride_of(n_features)
    open_rows(work, plan.inputs, plan.lookback * n, stride)
    for b in range(n):
        first = ends[b] - (plan.lookback - 1)
        for t in range(plan.lookback):
            row = plan.inputs + (t * n + b) * stride + LANES
            for feature in range(n_features):
                work[row + feature] = series[first + t, feature]


@piece
def add_noise(
    plan: Plan, work: np.ndarray, n: int, scale: float, radius_key: int, angle_key: int
) -> None:
    """Add ``scale`` times the numbers of :func:`~rnn_pipeline.networks.randomness.normal`."""
    n_features = plan.widths[0]
    stride = stride_of(n_features)
    for b in range(n):
        for t in range(plan.lookback):
            row = plan.inputs + (t * n + b) * stride + LANES
            for feature in range(n_features):
                index = (b * plan.lookback + t) * n_features + feature
                uniform = (stream_bits(radius_key, index) + 0.5) / 2**32
                turn = stream_bits(angle_key, index) * (2 * math.pi / 2**32)
                normal = math.sqrt(-2 * math.log(uniform)) * math.cos(turn)
                work[row + feature] += np.float32(scale) * np.float32(normal)


@piece
def source_of(plan: Plan, layer: int, n: int, dropout: bool) -> int:
    """Where the (T, n, stride) rows begin that ``layer`` takes as inputs."""
    if layer == 0:
        return plan.inputs
    if dropout:
        return plan.dropped[layer - 1]
    return states_at(plan, layer - 1, 1, n)


@piece
def head_source(plan: Plan, n: int, dropout: bool) -> int:
    """Where the (n, stride) rows begin that the head takes as inputs."""
    top = len(plan.states) - 1
    if dropout:
        return plan.dropped[top]
    return states_at(plan, top, plan.lookback, n)


@piece
def forward(
    plan: Plan,
    work: np.ndarray,
    n: int,
    dropout: bool,
    keys: np.ndarray,
    threshold: int,
    keep_scale: float,
) -> None:
    """From the inputs of ``n`` windows to their outputs.

    Args:
        plan: of the network.
        work: its workspace.
        n: windows, at most ``plan.capacity``.
        dropout: between the layers and before the head.
        keys: (n_layers,) of the masks behind each layer.
        threshold: below which an element's bits drop it.
        keep_scale: by which the others are multiplied.
    """
    n_layers = len(plan.states)
    steps = plan.lookback
    for layer in range(n_layers):
        begin_layer(plan, work, layer, n)
        multiply_inputs(plan, work, layer, n, source_of(plan, layer, n, dropout))
        for t in range(steps):
            step_forward(plan, work, layer, t, n)
        if dropout:
            first = steps - 1 if layer == n_layers - 1 else 0
            drop(plan, work, layer, first, n, keys[layer], threshold, keep_scale)

    width = plan.widths[n_layers]
    stride = stride_of(width)
    n_columns = padded(plan.n_outputs)
    multiply(
        work,
        add=False,
        c=plan.outputs,
        c_row=n_columns,
        n_rows=n,
        n_vectors=n_columns // LANES,
        a=head_source(plan, n, dropout) + LANES - 1,
        a_row=stride,
        a_step=1,
        b=plan.weights + plan.head_matrix,
        b_step=n_columns,
        n=1 + width,
    )


@piece
def begin_layer(plan: Plan, work: np.ndarray, layer: int, n: int) -> None:
    """The states before the first step; they are written anew because ``n`` moves the others."""
    width = plan.widths[layer + 1]
    stride = stride_of(width)
    fill(work, plan.states[layer], n * stride, 0.0)
    open_rows(work, plan.states[layer], (1 + plan.lookback) * n, stride)
    if plan.cell == LSTM:
        for block in range(padded(width) // LANES):
            fill(work, memory_at(plan, layer, block, 0, n), n * LANES, 0.0)


@piece
def multiply_inputs(plan: Plan, work: np.ndarray, layer: int, n: int, source: int) -> None:
    """``W [1, x]`` of all time steps into the gates, 0 into those that get nothing from it."""
    below, width = plan.widths[layer], plan.widths[layer + 1]
    rows, gate_row = plan.lookback * n, plan.slots * LANES
    matrix_row = plan.x_slots * LANES
    zero = splat(np.float32(0.0))
    for block in range(padded(width) // LANES):
        gates = gates_at(plan, layer, block, 0, n)
        multiply(
            work,
            add=False,
            c=gates,
            c_row=gate_row,
            n_rows=rows,
            n_vectors=plan.x_slots,
            a=source + LANES - 1,
            a_row=stride_of(below),
            a_step=1,
            b=plan.weights + plan.input_matrix[layer] + block * (1 + below) * matrix_row,
            b_step=matrix_row,
            n=1 + below,
        )
        for slot in range(plan.x_slots, plan.slots):
            for row in range(rows):
                store(work, gates + row * gate_row + slot * LANES, zero)


@piece
def step_forward(plan: Plan, work: np.ndarray, layer: int, t: int, n: int) -> None:
    """Add ``U [1, h]`` to the gates of step ``t``, and go from them to the next states."""
    width = plan.widths[layer + 1]
    stride, matrix_row = stride_of(width), plan.h_slots * LANES
    before = states_at(plan, layer, t, n)
    for block in range(padded(width) // LANES):
        gates = gates_at(plan, layer, block, t, n)
        multiply(
            work,
            add=True,
            c=gates + (plan.slots - plan.h_slots) * LANES,
            c_row=plan.slots * LANES,
            n_rows=n,
            n_vectors=plan.h_slots,
            a=before + LANES - 1,
            a_row=stride,
            a_step=1,
            b=plan.weights + plan.recurrent_matrix[layer] + block * (1 + width) * matrix_row,
            b_step=matrix_row,
            n=1 + width if t else 1,  # the first states are 0: they add the bias alone
        )
        activate(
            plan.cell,
            work,
            n,
            gates,
            before + LANES + block * LANES,
            stride,
            memory_at(plan, layer, block, t, n),
            memory_tanh_at(plan, layer, block, t, n),
        )


@piece
def activate(
    cell: int,
    work: np.ndarray,
    n: int,
    gates: int,
    state: int,
    stride: int,
    memory: int,
    memory_tanh: int,
) -> None:
    """The cell's equations for one block of units, one step and ``n`` windows.

    Args:
        cell: which.
        work: the workspace.
        n: windows.
        gates: (n, slots, L) products, which become what the backward pass needs.
        state: (n, L) states before the step, ``stride`` apart; those after it are ``n`` rows on.
        stride: see ``state``.
        memory: (n, L) an LSTM's cell states before the step; those after it are ``n`` rows on.
        memory_tanh: (n, L) hyperbolic tangents of those after it.
    """
    if cell == LSTM:
        for row in range(n):
            gate = gates + row * 4 * LANES
            i = sigmoid(load(work, gate))
            f = sigmoid(load(work, gate + LANES))
            g = tanh(load(work, gate + 2 * LANES))
            o = sigmoid(load(work, gate + 3 * LANES))
            c = f * load(work, memory + row * LANES) + i * g
            tanh_c = tanh(c)
            store(work, gate, i)
            store(work, gate + LANES, f)
            store(work, gate + 2 * LANES, g)
            store(work, gate + 3 * LANES, o)
            store(work, memory + (n + row) * LANES, c)
            store(work, memory_tanh + row * LANES, tanh_c)
            store(work, state + (n + row) * stride, o * tanh_c)
    elif cell == GRU:
        for row in range(n):
            gate = gates + row * 4 * LANES
            r = sigmoid(load(work, gate + LANES))
            z = sigmoid(load(work, gate + 2 * LANES))
            new = tanh(load(work, gate) + r * load(work, gate + 3 * LANES))
            store(work, gate, new)
            store(work, gate + LANES, r)
            store(work, gate + 2 * LANES, z)
            before = load(work, state + row * stride)
            store(work, state + (n + row) * stride, new + z * (before - new))
    else:
        for row in range(n):
            after = tanh(load(work, gates + row * LANES))
            store(work, gates + row * LANES, after)
            store(work, state + (n + row) * stride, after)


@piece
def drop(
    plan: Plan,
    work: np.ndarray,
    layer: int,
    first: int,
    n: int,
    key: int,
    threshold: int,
    keep_scale: float,
) -> None:
    """Draw the masks of the states of ``layer`` from step ``first`` on, and apply them."""
    width = plan.widths[layer + 1]
    stride = stride_of(width)
    steps = plan.lookback - first
    dropped, masks = plan.dropped[layer], plan.masks[layer]
    states = states_at(plan, layer, 1 + first, n)
    open_rows(work, dropped, steps * n, stride)
    for t in range(steps):
        for b in range(n):
            row = (t * n + b) * stride + LANES
            index = (b * steps + t) * width
            for unit in range(0, width, LANES):
                mask = dropout_mask(key, index + unit, threshold, np.float32(keep_scale))
                store(work, masks + row + unit, mask)
                store(work, dropped + row + unit, load(work, states + row + unit) * mask)


@piece
def transpose(
    work: np.ndarray, matrix: int, n_rows: int, n_columns: int, transposed: int, n_units: int
) -> None:
    """(1 + n_rows, n_columns) with a bias row to (n_columns, n_units), padded with 0."""
    # A vector's columns at a time: either side's cache lines are then met again soon.
    for column in range(0, n_columns, LANES):
        target = transposed + column * n_units
        for row in range(n_rows):
            source = matrix + (1 + row) * n_columns + column
            for lane in range(LANES):
                work[target + lane * n_units + row] = work[source + lane]
        for lane in range(LANES):
            for row in range(n_rows, n_units):
                work[target + lane * n_units + row] = 0.0


@piece
def transpose_matrices(plan: Plan, work: np.ndarray) -> None:
    """Bring the transposed matrices up to date with the weights."""
    n_layers = len(plan.states)
    for layer in range(n_layers):
        below, width = plan.widths[layer], plan.widths[layer + 1]
        for block in range(padded(width) // LANES):
            columns = plan.h_slots * LANES
            transpose(
                work,
                plan.weights + plan.recurrent_matrix[layer] + block * (1 + width) * columns,
                width,
                columns,
                plan.recurrent_transposed[layer] + block * columns * padded(width),
                padded(width),
            )
            if layer:
                columns = plan.x_slots * LANES
                transpose(
                    work,
                    plan.weights + plan.input_matrix[layer] + block * (1 + below) * columns,
                    below,
                    columns,
                    plan.input_transposed[layer] + block * columns * padded(below),
                    padded(below),
                )
    columns, width = padded(plan.n_outputs), plan.widths[n_layers]
    for output in range(plan.n_outputs):
        for unit in range(padded(width)):
            place = plan.weights + plan.head_matrix + (1 + unit) * columns + output
            value = work[place] if unit < width else np.float32(0.0)
            work[plan.head_transposed + output * padded(width) + unit] = value


@piece
def score(
    plan: Plan,
    work: np.ndarray,
    targets: np.ndarray,
    ends: np.ndarray,
    quantiles: np.ndarray,
) -> float:
    """The mean loss of the outputs; in their place come its gradients.

    Mean over horizons of the mean squared error plus the mean over quantiles of the pinball loss
    (Koenker and Bassett, 1978); column ``h (1 + Q)`` of the outputs is the point forecast of
    horizon ``h``, and its ``Q`` quantiles follow.

    Args:
        plan: of the network.
        work: its workspace.
        targets: (rows, n_horizons).
        ends: (n,) rows of the windows' targets.
        quantiles: (Q,) levels.
    """
    n, n_horizons, n_quantiles = len(ends), targets.shape[1], len(quantiles)
    n_columns = padded(plan.n_outputs)
    share = 1.0 / (n * n_horizons)
    loss = 0.0
    for b in range(n):
        row = plan.outputs + b * n_columns
        for horizon in range(n_horizons):
            point = row + horizon * (1 + n_quantiles)
            target = targets[ends[b], horizon]
            error = work[point] - target
            loss += share * error * error
            work[point] = share * 2.0 * error
            for q in range(n_quantiles):
                above = target - work[point + 1 + q]
                level = quantiles[q]
                slope = level if above > 0 else level - 1.0 if above < 0 else level - 0.5
                loss += share / n_quantiles * slope * above
                work[point + 1 + q] = -share / n_quantiles * slope
        for column in range(plan.n_outputs, n_columns):
            work[row + column] = 0.0
    return loss


@piece
def backward(plan: Plan, work: np.ndarray, n: int, dropout: bool) -> None:
    """From the outputs' gradients to those of all weights, through time (Werbos, 1990)."""
    top = len(plan.states) - 1
    steps = plan.lookback
    width = plan.widths[top + 1]
    stride = stride_of(width)
    n_columns = padded(plan.n_outputs)
    multiply(
        work,
        add=False,
        c=plan.gradients + plan.head_matrix,
        c_row=n_columns,
        n_rows=1 + width,
        n_vectors=n_columns // LANES,
        a=head_source(plan, n, dropout) + LANES - 1,
        a_row=1,
        a_step=stride,
        b=plan.outputs,
        b_step=n_columns,
        n=n,
    )
    delta = plan.deltas[0]
    last = delta + (steps - 1) * n * padded(width)
    fill(work, delta, (steps - 1) * n * padded(width), 0.0)
    multiply(
        work,
        add=False,
        c=last,
        c_row=padded(width),
        n_rows=n,
        n_vectors=padded(width) // LANES,
        a=plan.outputs,
        a_row=n_columns,
        a_step=1,
        b=plan.head_transposed,
        b_step=padded(width),
        n=plan.n_outputs,
    )
    if dropout:
        apply_masks(work, last, n, width, plan.masks[top])

    for layer in range(top, -1, -1):
        delta, delta_below = plan.deltas[(top - layer) % 2], plan.deltas[(top - layer + 1) % 2]
        fill(work, plan.carry, n * padded(plan.widths[layer + 1]), 0.0)
        for t in range(steps - 1, -1, -1):
            step_backward(plan, work, layer, t, n, delta)
        multiply_gradients(plan, work, layer, n, source_of(plan, layer, n, dropout))
        if layer:
            multiply_back_to_inputs(plan, work, layer, n, delta_below)
            if dropout:
                apply_masks(work, delta_below, steps * n, plan.widths[layer], plan.masks[layer - 1])


@piece
def apply_masks(work: np.ndarray, delta: int, n_rows: int, width: int, masks: int) -> None:
    """Multiply gradients (n_rows, P) by the masks (n_rows, stride) of their units."""
    n_units = padded(width)
    for row in range(n_rows):
        for unit in range(0, n_units, LANES):
            place = delta + row * n_units + unit
            mask = load(work, masks + row * (LANES + n_units) + LANES + unit)
            store(work, place, load(work, place) * mask)


@piece
def step_backward(plan: Plan, work: np.ndarray, layer: int, t: int, n: int, delta: int) -> None:
    """From the gradients of the states after step ``t`` to those of its gates and before it."""
    width = plan.widths[layer + 1]
    n_units, columns = padded(width), plan.h_slots * LANES
    after = delta + t * n * n_units
    for block in range(n_units // LANES):
        differentiate(
            plan.cell,
            work,
            n,
            gates_at(plan, layer, block, t, n),
            states_at(plan, layer, t, n) + LANES + block * LANES,
            stride_of(width),
            memory_at(plan, layer, block, t, n),
            memory_tanh_at(plan, layer, block, t, n),
            after + block * LANES,
            n_units,
            plan.carry + block * n * LANES,
            t > 0,
        )
    if t == 0:
        return
    for block in range(n_units // LANES):
        multiply(
            work,
            add=True,
            c=after - n * n_units,
            c_row=n_units,
            n_rows=n,
            n_vectors=n_units // LANES,
            a=gates_at(plan, layer, block, t, n) + (plan.slots - plan.h_slots) * LANES,
            a_row=plan.slots * LANES,
            a_step=1,
            b=plan.recurrent_transposed[layer] + block * columns * n_units,
            b_step=n_units,
            n=columns,
        )


@piece
def differentiate(
    cell: int,
    work: np.ndarray,
    n: int,
    gates: int,
    state: int,
    stride: int,
    memory: int,
    memory_tanh: int,
    delta: int,
    n_units: int,
    carry: int,
    has_before: bool,
) -> None:
    """The derivatives of :func:`activate`; the gates become their products' gradients.

    Args:
        cell: which.
        work: the workspace.
        n: windows.
        gates: (n, slots, L), as :func:`activate` left them.
        state: (n, L) states before the step, ``stride`` apart.
        stride: see ``state``.
        memory: (n, L) an LSTM's cell states before the step.
        memory_tanh: (n, L) hyperbolic tangents of those after it.
        delta: (n, L) gradients of the states after the step, ``n_units`` apart; those of the states
            before it are ``n`` rows back.
        n_units: see ``delta``.
        carry: (n, L) gradients of an LSTM's cell states.
        has_before: whether there is a step before this one.
    """
    if cell == LSTM:
        for row in range(n):
            gate = gates + row * 4 * LANES
            i = load(work, gate)
            f = load(work, gate + LANES)
            g = load(work, gate + 2 * LANES)
            o = load(work, gate + 3 * LANES)
            tanh_c = load(work, memory_tanh + row * LANES)
            d_h = load(work, delta + row * n_units)
            d_c = load(work, carry + row * LANES) + d_h * o * (1.0 - tanh_c * tanh_c)
            store(work, gate, d_c * g * i * (1.0 - i))
            store(work, gate + LANES, d_c * load(work, memory + row * LANES) * f * (1.0 - f))
            store(work, gate + 2 * LANES, d_c * i * (1.0 - g * g))
            store(work, gate + 3 * LANES, d_h * tanh_c * o * (1.0 - o))
            store(work, carry + row * LANES, d_c * f)
    elif cell == GRU:
        for row in range(n):
            gate = gates + row * 4 * LANES
            new = load(work, gate)
            r = load(work, gate + LANES)
            z = load(work, gate + 2 * LANES)
            m = load(work, gate + 3 * LANES)
            before = load(work, state + row * stride)
            d_h = load(work, delta + row * n_units)
            d_new = d_h * (1.0 - z) * (1.0 - new * new)
            store(work, gate, d_new)
            store(work, gate + LANES, d_new * m * r * (1.0 - r))
            store(work, gate + 2 * LANES, d_h * (before - new) * z * (1.0 - z))
            store(work, gate + 3 * LANES, d_new * r)
            if has_before:
                place = delta + (row - n) * n_units
                store(work, place, load(work, place) + d_h * z)
    else:
        for row in range(n):
            h = load(work, gates + row * LANES)
            d_h = load(work, delta + row * n_units)
            store(work, gates + row * LANES, d_h * (1.0 - h * h))


@piece
def multiply_gradients(plan: Plan, work: np.ndarray, layer: int, n: int, source: int) -> None:
    """The gradients of a layer's two matrices, summed over windows and time."""
    below, width = plan.widths[layer], plan.widths[layer + 1]
    rows, gate_row = plan.lookback * n, plan.slots * LANES
    # The first states are 0: before the second step they count for the bias alone.
    idle = n if plan.lookback > 1 else 0
    for block in range(padded(width) // LANES):
        gates = gates_at(plan, layer, block, 0, n)
        matrix_row = plan.x_slots * LANES
        multiply(
            work,
            add=False,
            c=plan.gradients + plan.input_matrix[layer] + block * (1 + below) * matrix_row,
            c_row=matrix_row,
            n_rows=1 + below,
            n_vectors=plan.x_slots,
            a=source + LANES - 1,
            a_row=1,
            a_step=stride_of(below),
            b=gates,
            b_step=gate_row,
            n=rows,
        )
        matrix_row = plan.h_slots * LANES
        gradient = plan.gradients + plan.recurrent_matrix[layer] + block * (1 + width) * matrix_row
        states = plan.states[layer] + LANES - 1
        stride = stride_of(width)
        recurrent = gates + (plan.slots - plan.h_slots) * LANES
        multiply(
            work,
            add=False,
            c=gradient,
            c_row=matrix_row,
            n_rows=1 + width,
            n_vectors=plan.h_slots,
            a=states + idle * stride,
            a_row=1,
            a_step=stride,
            b=recurrent + idle * gate_row,
            b_step=gate_row,
            n=rows - idle,
        )
        if idle:
            multiply(
                work,
                add=True,
                c=gradient,
                c_row=matrix_row,
                n_rows=1,
                n_vectors=plan.h_slots,
                a=states,
                a_row=1,
                a_step=stride,
                b=recurrent,
                b_step=gate_row,
                n=idle,
            )


@piece
def multiply_back_to_inputs(
    plan: Plan, work: np.ndarray, layer: int, n: int, delta_below: int
) -> None:
    """The gradients of a layer's inputs at all time steps."""
    n_units = padded(plan.widths[layer])
    rows, gate_row = plan.lookback * n, plan.slots * LANES
    columns = plan.x_slots * LANES
    for block in range(padded(plan.widths[layer + 1]) // LANES):
        multiply(
            work,
            add=block > 0,
            c=delta_below,
            c_row=n_units,
            n_rows=rows,
            n_vectors=n_units // LANES,
            a=gates_at(plan, layer, block, 0, n),
            a_row=gate_row,
            a_step=1,
            b=plan.input_transposed[layer] + block * columns * n_units,
            b_step=n_units,
            n=columns,
        )


@piece
def gradient_scale(plan: Plan, work: np.ndarray, clip_norm: float) -> float:
    """What brings the gradients' norm down to ``clip_norm``, as torch computes it; at most 1."""
    squares = splat(np.float32(0.0))
    for i in range(plan.gradients, plan.gradients + plan.n_weights, LANES):
        gradient = load(work, i)
        squares = squares + gradient * gradient
    return min(1.0, clip_norm / (math.sqrt(total(squares)) + 1e-6))


@piece
def adam(
    plan: Plan, work: np.ndarray, step: int, rate: float, weight_decay: float, scale: float
) -> None:
    """One step of Adam (Kingma and Ba, 2015), with L2 weight decay as in torch.

    Args:
        plan: of the network.
        work: its workspace.
        step: counted from 1.
        rate: learning rate.
        weight_decay: times the weights is added to the gradients.
        scale: by which the gradients are multiplied before that.
    """
    step_size = np.float32(rate / (1.0 - BETA_1**step))
    root = np.float32(1.0 / math.sqrt(1.0 - BETA_2**step))
    factor, decay = np.float32(scale), np.float32(weight_decay)
    for i in range(0, plan.n_weights, LANES):
        weight = load(work, plan.weights + i)
        gradient = load(work, plan.gradients + i) * factor + weight * decay
        first = load(work, plan.first_moments + i)
        first = first + (gradient - first) * (1.0 - BETA_1)
        second = load(work, plan.second_moments + i) * BETA_2
        second = second + gradient * gradient * (1.0 - BETA_2)
        store(work, plan.first_moments + i, first)
        store(work, plan.second_moments + i, second)
        change = first / (square_root(second) * root + EPSILON)
        store(work, plan.weights + i, weight - change * step_size)


def _entry_points(version: str) -> tuple[Callable[..., float], Callable[..., float]]:
    """The compiled functions that Python calls.

    Numba's cache notices edits of the file that holds a function, but not of what the function
    calls. It does compare the values a function closes over, such as ``version``.
    """

    @njit(cache=True, nogil=True, error_model="numpy")
    def train_epoch(
        plan: Plan,
        work: np.ndarray,
        series: np.ndarray,
        targets: np.ndarray,
        quantiles: np.ndarray,
        ends: np.ndarray,
        batch_size: int,
        first_step: int,
        rates: np.ndarray,
        keys: np.ndarray,
        threshold: int,
        keep_scale: float,
        noise: float,
        clip_norm: float,
        weight_decay: float,
        stop: np.ndarray,
    ) -> float:
        """Train for one epoch.

        Args:
            plan: of the network.
            work: its workspace; weights and moments are updated in place.
            series: (rows, n_features) float32.
            targets: (rows, n_horizons) float32.
            quantiles: (Q,) float32 levels.
            ends: (n,) int64 rows where the windows end, in the order to be visited.
            batch_size: windows in one step; the last has what is left.
            first_step: optimizer steps taken before.
            rates: (steps,) learning rates.
            keys: (steps, n_layers + 2) int64 of dropout behind each layer and of the noise's
                radius and angle.
            threshold: of dropout.
            keep_scale: 1 / (1 - p), 1 where there is no dropout.
            noise: standard deviation of the inputs' noise.
            clip_norm: largest norm of the gradients; infinite where there is none.
            weight_decay: L2, added to the gradients.
            stop: (1,) set by another thread to give up after the current step.

        Returns:
            The mean loss per row; NaN where it was stopped.
        """
        assert version
        n_layers = len(plan.states)
        dropout = keep_scale != 1.0
        loss = 0.0
        for step in range(len(rates)):
            if stop[0]:
                return np.nan
            rows = ends[step * batch_size : (step + 1) * batch_size]
            n = len(rows)
            gather(plan, work, series, rows)
            if noise != 0.0:
                add_noise(plan, work, n, noise, keys[step, n_layers], keys[step, n_layers + 1])
            forward(plan, work, n, dropout, keys[step], threshold, keep_scale)
            loss += n * score(plan, work, targets, rows, quantiles)
            transpose_matrices(plan, work)
            backward(plan, work, n, dropout)
            scale = 1.0 if clip_norm == np.inf else gradient_scale(plan, work, clip_norm)
            adam(plan, work, first_step + step + 1, rates[step], weight_decay, scale)
        return loss / len(ends)

    @njit(cache=True, nogil=True, error_model="numpy")
    def forecast(
        plan: Plan,
        work: np.ndarray,
        series: np.ndarray,
        targets: np.ndarray,
        quantiles: np.ndarray,
        ends: np.ndarray,
        outputs: np.ndarray,
    ) -> float:
        """Forecast, and compare with the targets where there are any.

        Args:
            plan: of the network.
            work: its workspace with the weights.
            series: (rows, n_features) float32.
            targets: (rows, n_horizons) float32, or none.
            quantiles: (Q,) float32 levels.
            ends: (n,) int64 rows where the windows end.
            outputs: (n, n_outputs) float32, written.

        Returns:
            The mean loss per row, 0 without targets.
        """
        assert version
        no_keys = np.zeros(0, np.int64)
        loss = 0.0
        for start in range(0, len(ends), plan.capacity):
            rows = ends[start : start + plan.capacity]
            gather(plan, work, series, rows)
            forward(plan, work, len(rows), False, no_keys, 0, 1.0)
            for b in range(len(rows)):
                row = plan.outputs + b * padded(plan.n_outputs)
                for output in range(plan.n_outputs):
                    outputs[start + b, output] = work[row + output]
            if len(targets):
                loss += len(rows) * score(plan, work, targets, rows, quantiles)
        return loss / len(ends)

    return train_epoch, forecast


def _version() -> str:
    """Hash of the sources that the compiled functions are made of."""
    here = Path(__file__).parent
    sources = [here / name for name in ("cpu_kernel.py", "cpu_layout.py", "simd.py")]
    sources.append(here.parent / "randomness.py")
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


train_epoch, forecast = _entry_points(_version())
