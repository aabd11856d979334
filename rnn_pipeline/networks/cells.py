"""The three recurrent cells, written out from their equations, and how far back they learn.

What trains are torch's own layers, which are faster; these are what they compute, to be read. A
cell takes torch's weights: one row block per gate, in torch's order, and both biases.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.recurrent import Cell

if TYPE_CHECKING:
    import pandas as pd

State = tuple[Tensor, ...]
"""What a cell hands to its next step, each (batch, hidden_size); the hidden state h comes first."""


class RecurrentCell(nn.Module):
    """One step of a recurrent network.

    Args:
        input_size: features of one step.
        hidden_size: units.
        generator: draws the weights, U(-k, k) with k = 1 / sqrt(hidden_size) as torch does.

    Attributes:
        weight_ih: (n_gates * hidden_size, input_size), what the gates make of the input.
        weight_hh: (n_gates * hidden_size, hidden_size), what they make of the hidden state.
        bias_ih: (n_gates * hidden_size,)
        bias_hh: (n_gates * hidden_size,)
    """

    n_gates: ClassVar[int]
    n_states: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        rows = self.n_gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        bound = hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @abstractmethod
    def forward(self, x: Tensor, state: State) -> State:
        """Take one step.

        Args:
            x: (batch, input_size).
            state: of the step before.

        Returns:
            The state after this step.
        """

    def first_state(self, x: Tensor) -> State:
        """The state before the first step of a batch: zeros."""
        return (x.new_zeros(len(x), self.hidden_size),) * self.n_states

    def unroll(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read whole sequences.

        Args:
            x: (batch, time, input_size), the oldest step first.
            state: before the first step; zeros if not given.

        Returns:
            The hidden states after each step (batch, time, hidden_size), and the last state.
        """
        state = self.first_state(x) if state is None else state
        hidden = []
        for step in x.unbind(dim=1):
            state = self(step, state)
            hidden.append(state[0])
        return torch.stack(hidden, dim=1), state

    def _from_input(self, x: Tensor) -> Sequence[Tensor]:
        """W_i x + b_i, gate by gate."""
        return (x @ self.weight_ih.T + self.bias_ih).chunk(self.n_gates, dim=1)

    def _from_state(self, h: Tensor) -> Sequence[Tensor]:
        """W_h h + b_h, gate by gate."""
        return (h @ self.weight_hh.T + self.bias_hh).chunk(self.n_gates, dim=1)


class RNNCell(RecurrentCell):
    """The plain recurrent cell (Elman, 1990): h' = tanh(W_i x + b_i + W_h h + b_h)."""

    n_gates = 1

    def forward(self, x: Tensor, state: State) -> State:
        """Take one step (see the base class)."""
        (h,) = state
        (from_input,), (from_state,) = self._from_input(x), self._from_state(h)
        return (torch.tanh(from_input + from_state),)


class LSTMCell(RecurrentCell):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

    The memory c is changed by adding to it, so a gradient that runs back along it is multiplied by
    the forget gate alone.
    """

    n_gates = 4
    n_states = 2

    def forward(self, x: Tensor, state: State) -> State:
        """Take one step (see the base class) from (h, c)."""
        h, c = state
        gates = zip(self._from_input(x), self._from_state(h), strict=True)
        to_input, to_forget, to_candidate, to_output = (
            from_input + from_state for from_input, from_state in gates
        )
        forget_gate = torch.sigmoid(to_forget)
        input_gate = torch.sigmoid(to_input)
        candidate = torch.tanh(to_candidate)
        output_gate = torch.sigmoid(to_output)

        c = forget_gate * c + input_gate * candidate
        h = output_gate * torch.tanh(c)
        return h, c


class GRUCell(RecurrentCell):
    """The gated recurrent unit (Cho et al., 2014), with the reset gate where torch has it.

    The reset gate is applied to W_h h + b_h, as cuDNN does, and not to h before the product.
    """

    n_gates = 3

    def forward(self, x: Tensor, state: State) -> State:
        """Take one step (see the base class)."""
        (h,) = state
        reset_x, update_x, candidate_x = self._from_input(x)
        reset_h, update_h, candidate_h = self._from_state(h)

        update_gate = torch.sigmoid(update_x + update_h)
        reset_gate = torch.sigmoid(reset_x + reset_h)
        candidate = torch.tanh(candidate_x + reset_gate * candidate_h)
        return (update_gate * h + (1.0 - update_gate) * candidate,)


CELLS: dict[Cell, type[RecurrentCell]] = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell}

COMPARED: tuple[tuple[Cell, float], ...] = (
    ("rnn", 0.0),
    ("lstm", 0.0),
    ("lstm", 2.0),
    ("gru", 0.0),
    ("gru", 2.0),
)
"""Cells and gate biases that :func:`compare_gradient_flow` sets side by side."""


def gradient_flow(
    cell: Cell,
    steps: Sequence[int] = (10, 50, 200),
    hidden_size: int = 32,
    seeds: Sequence[int] = (0, 1),
    gate_bias: float = 0.0,
) -> pd.DataFrame:
    """How much of a cell's last state still depends on each input, the further back the less.

    Untrained cells read normal noise; the gradient is that of the sum of the last hidden state by
    the input (4 features) some steps before. In a plain cell it is a product of one matrix per
    step, so it falls (or grows) geometrically (Bengio et al., 1994). In an LSTM or a GRU it falls
    as fast while the gates stand half open, as they do at first, and slowly once the forget or
    update gate has opened: ``gate_bias`` opens it from the start (Jozefowicz et al., 2015).

    Args:
        cell: "rnn", "lstm" or "gru".
        steps: lengths of the sequences.
        hidden_size: units of the cell.
        seeds: one cell and one batch of 8 sequences each.
        gate_bias: added to the forget gate's bias of an LSTM, the update gate's of a GRU.

    Returns:
        cell, gate_bias, seed, steps (length of the sequence), steps_back (from 0, the last input),
        gradient_norm (Euclidean over features, geometric mean over the batch).

    Raises:
        ValueError: the cell is unknown or has no such gate, or a length is below 1.
    """
    import numpy as np
    import pandas as pd

    if cell not in CELLS:
        raise ValueError(f"cell {cell!r} is unknown; use {', '.join(CELLS)}")
    if cell == "rnn" and gate_bias:
        raise ValueError(f"gate_bias {gate_bias:g}: a plain cell has no gate")
    if not steps or min(steps) < 1:
        raise ValueError(f"steps {list(steps)}: give lengths of at least 1")
    tables = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        # float64: over 200 steps the norms fall below the smallest float32.
        network = CELLS[cell](4, hidden_size, generator).double().requires_grad_(False)
        # Of both gated cells it is the second block of rows that decides what is kept.
        network.bias_ih[hidden_size : 2 * hidden_size] += gate_bias
        noise = torch.randn(8, max(steps), 4, generator=generator, dtype=torch.float64)
        for length in steps:
            x = noise[:, -length:].requires_grad_()
            _, (last, *_) = network.unroll(x)
            (gradient,) = torch.autograd.grad(last.sum(), x)
            norms = gradient.norm(dim=2).log().mean(dim=0).exp().flip(0).numpy()
            tables.append(
                pd.DataFrame(
                    {
                        "cell": cell,
                        "gate_bias": gate_bias,
                        "seed": seed,
                        "steps": length,
                        "steps_back": np.arange(length),
                        "gradient_norm": norms,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def compare_gradient_flow(
    steps: Sequence[int] = (10, 50, 200), seeds: Sequence[int] = (0, 1)
) -> pd.DataFrame:
    """:func:`gradient_flow` of all that is in ``COMPARED``, one after the other, on one thread.

    Steps this small are over before a second thread has begun: on a busy machine two took thirty
    times the processor time of one.
    """
    import pandas as pd

    with numerics(torch.device("cpu")):
        flows = [gradient_flow(cell, steps, seeds=seeds, gate_bias=bias) for cell, bias in COMPARED]
    return pd.concat(flows, ignore_index=True)


def remaining_gradient(flow: pd.DataFrame) -> pd.DataFrame:
    """What is left of the newest input's gradient at a sequence's oldest input.

    Args:
        flow: as :func:`gradient_flow` returns it.

    Returns:
        cell, gate_bias, and per length of sequence the ratio as text ("3e-07"), the geometric mean
        over seeds.
    """
    import numpy as np

    norm = flow.assign(log_norm=np.log(flow["gradient_norm"]))
    ends = norm.groupby(["cell", "gate_bias", "seed", "steps"], sort=False)["log_norm"]
    ratio = (ends.last() - ends.first()).groupby(["cell", "gate_bias", "steps"], sort=False).mean()
    left = np.exp(ratio).map("{:.0e}".format).unstack("steps", sort=False)
    left.columns = [f"{length} steps" for length in left.columns]
    return left.reset_index()
