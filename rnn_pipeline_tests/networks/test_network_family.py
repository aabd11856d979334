"""LSTMNet, GRUNet, StackedLSTM and the loss they share with the pipeline's forecasters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnn_pipeline.networks.recurrent import (
    GRUNet,
    LSTMNet,
    RecurrentForecaster,
    RecurrentNetwork,
    StackedLSTM,
    forecast_loss,
    initialise,
    rearranged,
    split_outputs,
)
from rnn_pipeline.settings import NetworkSpec

LENGTHS = torch.tensor([4, 1, 7, 5])


def networks(**changes: Any) -> list[RecurrentNetwork]:
    made = [
        LSTMNet(3, 5, 2, **changes),
        GRUNet(3, 5, 2, **changes),
        StackedLSTM(3, [6, 5, 4], **changes),
    ]
    return [network.eval() for network in made]


each = pytest.mark.parametrize("place", range(3), ids=["LSTMNet", "GRUNet", "StackedLSTM"])


@pytest.mark.parametrize(
    ("kind", "reference"), [(LSTMNet, nn.LSTM), (GRUNet, nn.GRU)], ids=["lstm", "gru"]
)
def test_a_net_is_torchs_layers_and_a_linear_head(
    kind: type[LSTMNet | GRUNet], reference: type[nn.RNNBase]
) -> None:
    net = kind(input_dim=3, hidden_dim=6, num_layers=2, output_dim=2, dropout=0.3).eval()
    whole = reference(3, 6, num_layers=2, batch_first=True)
    for depth, layer in enumerate(net.recurrent.layers):
        for name, value in layer.state_dict().items():
            whole.get_parameter(name.replace("l0", f"l{depth}")).data.copy_(value)
    x = torch.randn(5, 8, 3)
    torch.testing.assert_close(net(x), net.head(whole(x)[0][:, -1]), rtol=0, atol=1e-6)


def test_a_stack_holds_one_layer_per_entry() -> None:
    net = StackedLSTM(input_dim=3, hidden_dims=[8, 4, 2], output_dim=1, dropout=0.2)
    assert [type(layer) for layer in net.lstm_layers] == [nn.LSTM] * 3
    assert [(layer.input_size, layer.hidden_size) for layer in net.lstm_layers] == [
        (3, 8),
        (8, 4),
        (4, 2),
    ]
    assert net(torch.randn(6, 9, 3)).shape == (6, 1)


def test_names_of_weights_are_those_of_the_pipelines_forecasters() -> None:
    spec = NetworkSpec(cell="lstm", hidden_sizes=(6, 5, 4))
    forecaster = RecurrentForecaster(spec, 3)
    forecaster.load_state_dict(StackedLSTM(3, [6, 5, 4]).state_dict())
    assert {name for name in forecaster.state_dict() if not name.startswith("recurrent.")} == {
        "head.weight",
        "head.bias",
    }


@each
def test_short_sequences_end_where_they_end(place: int) -> None:
    net = networks(output_dim=2)[place]
    x = torch.randn(4, 7, 3)
    together = net(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(
            together[row], net(x[row : row + 1, :length])[0], rtol=0, atol=1e-6
        )
    x[0, 4:], x[1, 1:] = 1e3, -1e3
    assert torch.equal(net(x, LENGTHS), together)
    assert torch.equal(net(x, torch.full((4,), 7)), net(x))


@each
def test_gradients_stop_at_a_sequences_end(place: int) -> None:
    x = torch.randn(4, 7, 3, requires_grad=True)
    networks()[place](x, LENGTHS).sum().backward()
    reached = x.grad.abs().sum(dim=2) > 0
    assert torch.equal(reached, torch.arange(7) < LENGTHS[:, None])


def test_hidden_states_are_those_of_packed_sequences() -> None:
    net = networks()[2]
    x = torch.randn(4, 7, 3)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    found = net.hidden_states(x, LENGTHS)
    assert [tuple(layer.shape) for layer in found] == [(4, 7, 6), (4, 7, 5), (4, 7, 4)]
    for states, layer in zip(found, net.lstm_layers, strict=True):
        packed, _ = layer(packed)
        expected, _ = pad_packed_sequence(packed, batch_first=True)
        torch.testing.assert_close(states, expected, rtol=0, atol=1e-6)
    whole = net.hidden_states(x)
    assert torch.equal(net.head(whole[-1][:, -1]), net(x))


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((4, 7), None, r"sequences of shape \(4, 7\): expected \(batch, time, 3\)"),
        ((4, 7, 2), None, r"sequences of shape \(4, 7, 2\)"),
        ((4, 0, 3), None, "at least one step"),
        ((4, 7, 3), [1, 2, 3, 0], r"lengths \[1, 2, 3, 0\]: .* 4 sequences, from 1 to 7"),
        ((4, 7, 3), [1, 2, 3, 8], "from 1 to 7"),
        ((4, 7, 3), [1, 2, 3], "one for each of 4 sequences"),
    ],
)
def test_sequences_and_lengths_that_do_not_fit_are_refused(
    shape: tuple[int, ...], lengths: list[int] | None, message: str
) -> None:
    net = networks()[0]
    given_lengths = None if lengths is None else torch.tensor(lengths)
    for ask in (net, net.hidden_states):
        with pytest.raises(ValueError, match=message):
            ask(torch.zeros(shape), given_lengths)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StackedLSTM(3, []), r"hidden sizes \[\]: it takes at least one layer"),
        (lambda: StackedLSTM(3, [4, 0]), "every size is at least 1"),
        (lambda: LSTMNet(0), "0 inputs"),
        (lambda: GRUNet(num_layers=0), "at least one layer"),
        (lambda: LSTMNet(output_dim=0), "0 outputs"),
        (lambda: LSTMNet(dropout=1.0), r"dropout 1\.0 is not in \[0, 1\)"),
        (lambda: LSTMNet(quantiles=(0.9, 0.1)), r"quantiles \[0\.9, 0\.1\] must rise"),
        (lambda: LSTMNet(quantiles=(0.0, 0.5)), "lie between 0 and 1"),
        (
            lambda: RecurrentForecaster(NetworkSpec(quantiles=(0.1, 0.9)), 3, n_outputs=4),
            r"4 outputs with the quantiles \[0\.1, 0\.9\]: every horizon has 3",
        ),
    ],
)
def test_networks_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_refuse_quantiles_that_do_not_rise() -> None:
    assert NetworkSpec(quantiles=[0.1, 0.5]).quantiles == (0.1, 0.5)
    with pytest.raises(ValueError, match=r"quantiles \[0\.5, 0\.5\] must rise: sort them"):
        NetworkSpec(quantiles=(0.5, 0.5))
    with pytest.raises(ValueError, match="less than 1"):
        NetworkSpec(quantiles=(0.5, 1.0))


def test_one_point_has_the_mean_squared_error_bit_for_bit() -> None:
    outputs, targets = torch.randn(33, 1), torch.randn(33)
    assert torch.equal(
        forecast_loss(outputs, targets), nn.functional.mse_loss(outputs, targets[:, None])
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    horizons=st.integers(1, 3),
    quantiles=st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(sorted),
    seed=st.integers(0, 999),
)
def test_the_loss_is_its_definition(
    rows: int, horizons: int, quantiles: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    width = 1 + len(quantiles)
    outputs, y = (
        rng.standard_normal((rows, horizons * width)),
        rng.standard_normal((rows, horizons)),
    )
    total = 0.0
    for h in range(horizons):
        point = outputs[:, h * width]
        loss = np.mean((point - y[:, h]) ** 2)
        pinballs = []
        for place, q in enumerate(quantiles):
            u = y[:, h] - outputs[:, h * width + 1 + place]
            pinballs.append(np.mean(np.where(u >= 0, q * u, (q - 1) * u)))
        total += loss + (np.mean(pinballs) if pinballs else 0.0)
    found = forecast_loss(torch.tensor(outputs), torch.tensor(y), quantiles)
    assert found.item() == pytest.approx(total / horizons, rel=1e-12)
    if horizons == 1:
        assert forecast_loss(torch.tensor(outputs), torch.tensor(y[:, 0]), quantiles) == found


def test_quantiles_are_learned_as_quantiles() -> None:
    """The constant that minimises the loss is the mean and the empirical quantiles."""
    levels, sample = (0.1, 0.5, 0.8), torch.linspace(0, 1, 1001, dtype=torch.float64) ** 2
    constant = torch.full((1, 4), 0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([constant], lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        forecast_loss(constant.expand(1001, 4), sample, levels).backward()
        optimizer.step()
    expected = [sample.mean().item(), *(level**2 for level in levels)]
    assert constant[0].tolist() == pytest.approx(expected, abs=0.02)


def test_columns_are_each_horizons_point_and_its_sorted_quantiles() -> None:
    outputs = torch.tensor([[1.0, 9, 3, 5, 2, 4, 8, 6]])
    point, spread = split_outputs(outputs, (0.1, 0.5, 0.9))
    assert point.tolist() == [[1, 2]]
    assert spread.tolist() == [[[9, 3, 5], [4, 8, 6]]]
    assert rearranged(outputs, (0.1, 0.5, 0.9)).tolist() == [[1, 3, 5, 9, 2, 4, 6, 8]]
    assert rearranged(outputs, ()) is outputs


def test_rearranged_quantiles_are_never_worse() -> None:
    levels, generator = (0.1, 0.4, 0.9), torch.Generator().manual_seed(0)
    for _ in range(50):
        outputs = torch.randn(1, 8, generator=generator, dtype=torch.float64)
        targets = torch.randn(1, 2, generator=generator, dtype=torch.float64)
        sorted_loss = forecast_loss(rearranged(outputs, levels), targets, levels)
        assert sorted_loss <= forecast_loss(outputs, targets, levels) + 1e-12


def test_several_horizons_with_quantiles_come_at_once() -> None:
    for net in networks(output_dim=5, quantiles=(0.1, 0.9)):
        initialise(net, torch.Generator().manual_seed(0))
        outputs: Tensor = net(torch.randn(4, 7, 3))
        assert outputs.shape == (4, 15)
        assert net.quantiles == (0.1, 0.9)
