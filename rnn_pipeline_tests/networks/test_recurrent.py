import math

import numpy as np
import pytest
import torch
from torch import nn

from rnn_pipeline.networks.randomness import Purpose, bits, stream_key
from rnn_pipeline.networks.reading import SentimentLSTM
from rnn_pipeline.networks.recurrent import (
    RecurrentForecaster,
    RecurrentStack,
    SeededDropout,
    draw_dropout,
    initialise,
)
from rnn_pipeline.settings import NetworkSpec


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden_sizes", [(4,), (6, 3), (3, 5, 2)])
def test_forecaster_maps_windows_to_outputs(cell: str, hidden_sizes: tuple[int, ...]) -> None:
    network = RecurrentForecaster(NetworkSpec(cell=cell, hidden_sizes=hidden_sizes), 7, n_outputs=2)
    assert network(torch.randn(9, 11, 7)).shape == (9, 2)
    assert [layer.hidden_size for layer in network.recurrent.layers] == list(hidden_sizes)


@pytest.mark.parametrize(
    ("cell", "reference"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)]
)
def test_stack_equals_torchs_own_multilayer_network(cell: str, reference: type[nn.RNNBase]) -> None:
    stack = RecurrentStack(cell, 4, (6, 6), dropout=0.0)
    whole = reference(4, 6, num_layers=2, batch_first=True)
    for depth, layer in enumerate(stack.layers):
        for name, value in layer.state_dict().items():
            whole.get_parameter(name.replace("l0", f"l{depth}")).data.copy_(value)
    x = torch.randn(5, 8, 4)
    torch.testing.assert_close(stack(x), whole(x)[0], rtol=0, atol=1e-6)


def test_forecast_reads_the_last_step() -> None:
    network = RecurrentForecaster(NetworkSpec(cell="gru", hidden_sizes=(4,)), 2)
    x = torch.randn(3, 6, 2)
    _, final = network.recurrent.layers[0](x)
    torch.testing.assert_close(network(x), network.head(final[0]))


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    dropout = SeededDropout(0.3, site=1)
    draw_dropout(dropout, seed=1, step=0)
    y = dropout(torch.ones(200, 500))
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (y == 0).double().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 1e5))
    assert torch.equal(dropout.eval()(y), y)


def test_a_mask_is_counted_by_batch_time_and_unit() -> None:
    dropout = SeededDropout(0.4, site=2)
    draw_dropout(dropout, seed=7, step=11)
    y = dropout(torch.ones(3, 4, 5))
    key = stream_key(7, Purpose.DROPOUT, 11, 2)
    for b, t, h in ((0, 0, 0), (0, 3, 4), (2, 1, 3)):
        kept = bits(key, np.array([(b * 4 + t) * 5 + h]))[0] >= 0.4 * 2**32
        assert bool(y[b, t, h]) == kept


def test_dropout_works_between_layers_and_before_the_head_from_its_own_stream() -> None:
    spec = NetworkSpec(hidden_sizes=(8, 8), dropout=0.5)
    network = RecurrentForecaster(spec, 2)
    x = torch.randn(4, 5, 2)

    def outputs(seed: int, step: int = 0) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        draw_dropout(network, seed, step)
        return network(x)

    repeated = outputs(3)
    torch.manual_seed(0)
    assert torch.equal(outputs(3), repeated)
    assert not torch.equal(outputs(4), repeated)
    assert not torch.equal(outputs(3, step=1), repeated)
    network.dropout.p = 0.0
    assert not torch.equal(outputs(3), outputs(4)), "nothing is dropped between the layers"
    network.recurrent.dropouts[0].p = 0.0
    assert torch.equal(outputs(3), outputs(4))
    network.dropout.p = 0.5
    assert not torch.equal(outputs(3), outputs(4)), "nothing is dropped before the head"


def test_initial_weights_follow_torchs_distributions_and_the_generator() -> None:
    network = SentimentLSTM(200, embed_dim=16, hidden_dim=64)
    initialise(network, torch.Generator().manual_seed(5))
    first = {name: value.clone() for name, value in network.state_dict().items()}
    for name in ("layers.0.weight_hh_l0", "layers.0.bias_ih_l0", "head.weight"):
        assert first[name].abs().max() <= 1 / 8  # 1 / sqrt(64)
        assert first[name].std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.12)
    assert torch.equal(first["embedding.weight"][0], torch.zeros(16))
    assert first["embedding.weight"][1:].std().item() == pytest.approx(0.1, abs=0.005)

    initialise(network, torch.Generator().manual_seed(5))
    assert all(torch.equal(first[name], value) for name, value in network.state_dict().items())
    initialise(network, torch.Generator().manual_seed(6))
    assert not torch.equal(first["head.weight"], network.head.weight)


def test_initialise_refuses_layers_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="Conv1d"):
        initialise(nn.Sequential(nn.Conv1d(2, 2, 1)), torch.Generator())
