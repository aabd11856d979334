"""Where everything a network needs lies in one flat array, and how torch's weights get there.

Notation: ``L`` lanes of a vector; a layer of ``H`` units on ``D`` inputs; ``P = padded(H)`` units
in whole vectors; ``K = P / L`` blocks of units; ``n`` windows in a batch; ``T`` time steps. Padding
units have weights of 0, so that their states and gradients are 0 without any masks.

**Gates.** A gate vector holds one gate of the ``L`` units of one block. A cell keeps ``slots`` of
them per block, side by side, so that a register tile holds whole units with all their gates. The
input product fills the first ``x_slots`` of them, the recurrent product the last ``h_slots``:

====  ===================  ===========  ===========
cell  slots                from input   from state
====  ===================  ===========  ===========
rnn   h                    h            h
lstm  i, f, g, o           i, f, g, o   i, f, g, o
gru   n, r, z, m           n, r, z      r, z, m
====  ===================  ===========  ===========

(the GRU's new gate keeps its two halves apart: ``n`` from the input, ``m`` from the state.)

**States.** A row of states is ``[..., 1, h_0, ..., h_{P-1}]``, ``stride = L + P`` long: the 1
before the units makes a bias row 0 of its matrix, in products and in gradients alike.

**Matrices.** Per layer and block, with the bias as row 0: ``input (K, 1 + D, x_slots, L)`` and
``recurrent (K, 1 + H, h_slots, L)``; of the head: ``(1 + H, padded(n_outputs))``. Their transposes
for the backward pass, without the bias: ``(K, x_slots * L, padded(D))`` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from rnn_pipeline.networks.kernels.simd import LANES, padded

RNN, LSTM, GRU = 0, 1, 2
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
TORCH_GATES = {"rnn": 1, "lstm": 4, "gru": 3}
X_ORDER = {"rnn": (0,), "lstm": (0, 1, 2, 3), "gru": (2, 0, 1)}
"""Torch's number (r, z, n of a GRU) of the gate in each slot that the input product fills."""
H_ORDER = {"rnn": (0,), "lstm": (0, 1, 2, 3), "gru": (0, 1, 2)}
"""The same for the recurrent product."""
SLOTS = {"rnn": 1, "lstm": 4, "gru": 4}


class Architecture(NamedTuple):
    """What networks must share to be computed by one plan."""

    cell: str
    n_features: int
    hidden_sizes: tuple[int, ...]
    n_outputs: int
    lookback: int


class Plan(NamedTuple):
    """Sizes of a network and the places of its arrays in the workspace.

    Places are counted in elements. Arrays over windows are laid out for the ``n`` of the batch at
    hand, up to ``capacity``: then rows of different time steps lie side by side without gaps.
    """

    cell: int
    slots: int
    x_slots: int
    h_slots: int
    lookback: int
    n_outputs: int
    capacity: int
    """Most windows in one batch."""
    widths: np.ndarray
    """(n_layers + 1,) inputs of the first layer, then units of each."""
    input_matrix: np.ndarray
    """(n_layers,) where a layer's input matrix begins, from the first weight."""
    recurrent_matrix: np.ndarray
    """(n_layers,) the same of the recurrent matrix."""
    head_matrix: int
    n_weights: int
    """All weights with their padding, in whole vectors."""
    weights: int
    gradients: int
    first_moments: int
    second_moments: int
    input_transposed: np.ndarray
    """(n_layers,); the first layer needs none."""
    recurrent_transposed: np.ndarray
    """(n_layers,)"""
    head_transposed: int
    """(n_outputs, P) of the last layer."""
    inputs: int
    """(T, n, stride) windows."""
    states: np.ndarray
    """(n_layers,) of (1 + T, n, stride): the states before the first step, and after each."""
    dropped: np.ndarray
    """(n_layers,) of (T, n, stride): states behind dropout; of the last layer (n, stride)."""
    masks: np.ndarray
    """(n_layers,) like ``dropped``: 0 or 1 / (1 - p)."""
    gates: np.ndarray
    """(n_layers,) of (K, T, n, slots, L): gates, which become their gradients."""
    memory: np.ndarray
    """(n_layers,) of (K, 1 + T, n, L): an LSTM's cell states."""
    memory_tanh: np.ndarray
    """(n_layers,) of (K, T, n, L): their hyperbolic tangents."""
    deltas: np.ndarray
    """(2,) of (T, n, P): gradients of a layer's states, for this layer and the one below."""
    carry: int
    """(K, n, L): gradient of the cell states, going back in time."""
    outputs: int
    """(n, padded(n_outputs)): forecasts, which become their gradients."""
    size: int
    """Of the workspace."""


@lru_cache(maxsize=32)
def plan_of(architecture: Architecture, capacity: int) -> Plan:
    """Lay out one network and its workspace for batches of up to ``capacity`` windows."""
    cell, n_features, hidden_sizes, n_outputs, lookback = architecture
    x_slots, h_slots = len(X_ORDER[cell]), len(H_ORDER[cell])
    slots = SLOTS[cell]
    widths = (n_features, *hidden_sizes)
    layers = list(zip(widths, hidden_sizes, strict=False))
    rows = lookback * capacity
    end = 0

    def place(length: int) -> int:
        nonlocal end
        begin, end = end, end + padded(length)
        return begin

    def each(lengths: Iterator[int]) -> np.ndarray:
        return np.array([place(length) for length in lengths], np.int64)

    matrices = np.array(
        [
            (
                place((1 + below) * padded(width) * x_slots),
                place((1 + width) * padded(width) * h_slots),
            )
            for below, width in layers
        ]
    )
    head_matrix = place((1 + hidden_sizes[-1]) * padded(n_outputs))
    n_weights = end
    return Plan(
        cell=CELLS[cell],
        slots=slots,
        x_slots=x_slots,
        h_slots=h_slots,
        lookback=lookback,
        n_outputs=n_outputs,
        capacity=capacity,
        widths=np.array(widths, np.int64),
        input_matrix=matrices[:, 0].copy(),
        recurrent_matrix=matrices[:, 1].copy(),
        head_matrix=head_matrix,
        n_weights=n_weights,
        weights=0,
        gradients=place(n_weights),
        first_moments=place(n_weights),
        second_moments=place(n_weights),
        input_transposed=each(x_slots * padded(width) * padded(below) for below, width in layers),
        recurrent_transposed=each(h_slots * padded(width) ** 2 for width in hidden_sizes),
        head_transposed=place(n_outputs * padded(hidden_sizes[-1])),
        inputs=place(rows * stride_of(n_features)),
        states=each((rows + capacity) * stride_of(width) for width in hidden_sizes),
        dropped=each(rows * stride_of(width) for width in hidden_sizes),
        masks=each(rows * stride_of(width) for width in hidden_sizes),
        gates=each(rows * slots * padded(width) for width in hidden_sizes),
        memory=each((rows + capacity) * padded(width) for width in hidden_sizes),
        memory_tanh=each(rows * padded(width) for width in hidden_sizes),
        deltas=each(rows * padded(max(hidden_sizes)) for _ in range(2)),
        carry=place(capacity * padded(max(hidden_sizes))),
        outputs=place(capacity * padded(n_outputs)),
        size=end,
    )


@register_jitable
def stride_of(width: int) -> int:
    """Elements from one row of states of ``width`` units to the next."""
    return LANES + padded(width)


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The network's state dict, in its order: names and shapes."""
    cell, n_features, hidden_sizes, n_outputs, _ = architecture
    shapes: dict[str, tuple[int, ...]] = {}
    below = n_features
    for depth, width in enumerate(hidden_sizes):
        rows = TORCH_GATES[cell] * width
        layer = f"recurrent.layers.{depth}"
        shapes[f"{layer}.weight_ih_l0"] = (rows, below)
        shapes[f"{layer}.weight_hh_l0"] = (rows, width)
        shapes[f"{layer}.bias_ih_l0"] = (rows,)
        shapes[f"{layer}.bias_hh_l0"] = (rows,)
        below = width
    shapes["head.weight"] = (n_outputs, below)
    shapes["head.bias"] = (n_outputs,)
    return shapes


@lru_cache(maxsize=32)
def packing(architecture: Architecture) -> np.ndarray:
    """For each packed weight, its number among torch's parameters laid end to end.

    Returns:
        (n_weights,) int64; padding has the number behind the last parameter.
    """
    shapes = parameter_shapes(architecture)
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    n_parameters = sum(sizes)
    starts = np.cumsum([0, *sizes[:-1]])
    number = {
        name: start + np.arange(size).reshape(shape)
        for (name, shape), start, size in zip(shapes.items(), starts, sizes, strict=True)
    }

    def blocks(weight: str, bias: str, width: int, order: tuple[int, ...]) -> np.ndarray:
        """(K, 1 + columns, slots, L) from torch's (gates * width, columns)."""
        rows = np.concatenate([number[bias][:, None], number[weight]], axis=1)
        gates = rows.reshape(-1, width, rows.shape[1])[list(order)]
        padding = ((0, 0), (0, padded(width) - width), (0, 0))
        gates = np.pad(gates, padding, constant_values=n_parameters)
        by_block = gates.reshape(len(order), -1, LANES, rows.shape[1])
        return by_block.transpose(1, 3, 0, 2).ravel()

    parts = []
    for depth, width in enumerate(architecture.hidden_sizes):
        for kind, order in (("ih", X_ORDER), ("hh", H_ORDER)):
            layer = f"recurrent.layers.{depth}"
            names = f"{layer}.weight_{kind}_l0", f"{layer}.bias_{kind}_l0"
            parts.append(blocks(*names, width, order[architecture.cell]))
    head = np.concatenate([number["head.bias"][:, None], number["head.weight"]], axis=1).T
    padding = ((0, 0), (0, padded(architecture.n_outputs) - architecture.n_outputs))
    parts.append(np.pad(head, padding, constant_values=n_parameters).ravel())
    return np.concatenate(parts)


@lru_cache(maxsize=32)
def unpacking(architecture: Architecture) -> np.ndarray:
    """For each of torch's parameters laid end to end, its place among the packed weights."""
    places = packing(architecture)
    n_parameters = places.max(initial=0)
    inverse = np.empty(n_parameters + 1, np.int64)
    inverse[places] = np.arange(len(places))
    return inverse[:n_parameters]
