from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnn_pipeline.networks.cells import (
    CELLS,
    COMPARED,
    RecurrentCell,
    compare_gradient_flow,
    gradient_flow,
    remaining_gradient,
)

STEPS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
TOLERANCE = {"rtol": 0.0, "atol": 1e-10}

sizes = st.integers(1, 9)
drawn = {
    "name": st.sampled_from(sorted(CELLS)),
    "batch": sizes,
    "input_size": sizes,
    "hidden_size": sizes,
    "seed": st.integers(0, 2**16),
    # Up to 8 the gates saturate, which is where a wrong formula would still look right at 1.
    "scale": st.sampled_from([0.1, 1.0, 8.0]),
}


def noise(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(name: str, input_size: int, hidden_size: int, seed: int, scale: float) -> RecurrentCell:
    generator = torch.Generator().manual_seed(seed)
    cell = CELLS[name](input_size, hidden_size, generator).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter *= scale
    return cell


def gradients(outputs: Tensor, wanted: list[Tensor], seed: int) -> list[Tensor]:
    """Of a random projection of all outputs, so that no two errors can cancel."""
    return list(torch.autograd.grad((outputs * noise(seed, *outputs.shape)).sum(), wanted))


@settings(max_examples=60, deadline=None)
@given(**drawn)
def test_one_step_is_torchs_in_values_and_gradients(
    name: str, batch: int, input_size: int, hidden_size: int, seed: int, scale: float
) -> None:
    cell = make(name, input_size, hidden_size, seed, scale)
    reference = STEPS[name](input_size, hidden_size).double()
    reference.load_state_dict(cell.state_dict())
    x = noise(seed + 1, batch, input_size).requires_grad_()
    state = tuple(
        noise(seed + 2 + i, batch, hidden_size).requires_grad_() for i in range(cell.n_states)
    )
    ours = cell(x, state)
    theirs = reference(x, state if len(state) > 1 else state[0])
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    assert len(ours) == len(theirs)
    ours, theirs = torch.cat(ours, dim=1), torch.cat(theirs, dim=1)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    for own, other in zip(
        gradients(ours, [x, *state, *cell.parameters()], seed),
        gradients(theirs, [x, *state, *reference.parameters()], seed),
        strict=True,
    ):
        torch.testing.assert_close(own, other, **TOLERANCE)


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 12), **drawn)
def test_a_sequence_is_torchs_in_values_and_gradients(
    steps: int, name: str, batch: int, input_size: int, hidden_size: int, seed: int, scale: float
) -> None:
    cell = make(name, input_size, hidden_size, seed, scale)
    reference = LAYERS[name](input_size, hidden_size, batch_first=True).double()
    reference.load_state_dict(
        {f"{parameter}_l0": value for parameter, value in cell.state_dict().items()}
    )
    x = noise(seed + 1, batch, steps, input_size).requires_grad_()
    ours, last = cell.unroll(x)
    theirs, final = reference(x)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    final = final if isinstance(final, tuple) else (final,)
    for own, other in zip(last, final, strict=True):
        torch.testing.assert_close(own, other[0], **TOLERANCE)
    for own, other in zip(
        gradients(ours, [x, *cell.parameters()], seed),
        gradients(theirs, [x, *reference.parameters()], seed),
        strict=True,
    ):
        torch.testing.assert_close(own, other, **TOLERANCE)


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_read_in_two_parts_is_the_sequence(name: str) -> None:
    cell = make(name, 3, 4, seed=0, scale=1.0)
    x = noise(1, 2, 9, 3)
    whole, last = cell.unroll(x)
    first, between = cell.unroll(x[:, :5])
    second, end = cell.unroll(x[:, 5:], between)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert all(torch.equal(own, other) for own, other in zip(last, end, strict=True))


def test_a_closed_forget_gate_forgets_and_an_open_one_keeps() -> None:
    cell = make("lstm", 1, 1, seed=0, scale=0.0)
    x, state = torch.zeros(1, 1, dtype=torch.float64), noise(3, 2, 1, 1).abs().unbind()
    for bias, kept in ((-50.0, 0.0), (50.0, 1.0)):
        with torch.no_grad():
            cell.bias_ih[1] = bias
        _, memory = cell(x, state)
        assert memory.item() == pytest.approx(kept * state[1].item(), abs=1e-12)


def test_an_open_update_gate_keeps_the_state() -> None:
    cell = make("gru", 2, 3, seed=0, scale=1.0)
    with torch.no_grad():
        cell.bias_ih[3:6] = 60.0
    h = noise(3, 1, 3)
    torch.testing.assert_close(cell(noise(4, 1, 2), (h,))[0], h, **TOLERANCE)


def test_gradients_back_in_time_are_those_of_finite_differences() -> None:
    flow = gradient_flow("lstm", steps=(6,), hidden_size=5, seeds=(4,))
    generator = torch.Generator().manual_seed(4)
    reference = nn.LSTM(4, 5, batch_first=True).double()
    cell = CELLS["lstm"](4, 5, generator).double()
    reference.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(8, 6, 4, generator=generator, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return reference(x)[0][:, -1].sum(dim=1)

    norms, nudge = np.zeros((6, 8)), 1e-6
    with torch.no_grad():
        for back in range(6):
            for feature in range(4):
                up, down = x.clone(), x.clone()
                up[:, 5 - back, feature] += nudge
                down[:, 5 - back, feature] -= nudge
                norms[back] += (((loss(up) - loss(down)) / (2 * nudge)) ** 2).numpy()
    expected = np.exp(np.log(np.sqrt(norms)).mean(axis=1))
    np.testing.assert_allclose(flow["gradient_norm"], expected, rtol=1e-6)
    assert flow["steps_back"].tolist() == list(range(6))


def test_the_gradient_of_a_plain_cell_falls_as_the_power_of_its_matrix() -> None:
    # One unit near 0 is linear, so n steps back the gradient is w^n.
    cell = make("rnn", 1, 1, seed=1, scale=1.0)
    with torch.no_grad():
        cell.weight_hh.fill_(0.7)
        cell.bias_ih.zero_()
        cell.bias_hh.zero_()
    x = torch.zeros(1, 9, 1, dtype=torch.float64, requires_grad=True)
    _, (last,) = cell.unroll(x)
    (gradient,) = torch.autograd.grad(last.sum(), x)
    ratios = [(old / new).item() for old, new in pairwise(gradient.flatten())]
    assert ratios == pytest.approx([0.7] * 8, rel=1e-12)


@pytest.fixture(scope="module")
def flow():
    return compare_gradient_flow(steps=(10, 50), seeds=(0, 1))


def test_every_cell_and_length_is_there_once_per_step(flow) -> None:
    keys = ["cell", "gate_bias", "seed", "steps"]
    counts = flow.groupby(keys, sort=False).size()
    assert len(counts) == len(COMPARED) * 2 * 2
    assert (counts == counts.index.get_level_values("steps")).all()
    assert not flow.duplicated([*keys, "steps_back"]).any()
    assert (flow["gradient_norm"] > 0).all()


def test_gradients_vanish_while_gates_stand_half_open_and_last_once_they_open(flow) -> None:
    left = remaining_gradient(flow).set_index(["cell", "gate_bias"])
    assert list(left.columns) == ["10 steps", "50 steps"]
    after = left["50 steps"].astype(float)
    assert (after[:, 0.0] < 1e-8).all()
    assert (after[:, 2.0] > 1e-4).all()
    rows = flow[(flow["cell"] == "gru") & (flow["gate_bias"] == 2.0) & (flow["steps"] == 50)]
    norms = rows.pivot(index="steps_back", columns="seed", values="gradient_norm")
    by_hand = np.sqrt((norms.loc[49] / norms.loc[0]).prod())
    assert after["gru", 2.0] == pytest.approx(by_hand, rel=0.1)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="cell 'elman' is unknown; use rnn, lstm, gru"):
        gradient_flow("elman")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gate_bias 1: a plain cell has no gate"):
        gradient_flow("rnn", gate_bias=1.0)
    with pytest.raises(ValueError, match=r"steps \[3, 0\]"):
        gradient_flow("rnn", steps=(3, 0))
