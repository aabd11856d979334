from typing import Any

import numpy as np
import pytest
import torch

from rnn_pipeline.networks.fleet import TrainedMember, train_members
from rnn_pipeline.networks.inference import predict_member
from rnn_pipeline.networks.recurrent import RecurrentForecaster
from rnn_pipeline.settings import NetworkSpec

from .members import LOOKBACK, REFERENCE, make_member

# MKL is choosy about vanilla networks of 5 units: their bits move with number, place and alignment.
CELLS = [("rnn", (5,)), ("lstm", (32,)), ("gru", (32,)), ("lstm", (9, 7))]


def trained(
    cell: str = "lstm", hidden_sizes: tuple[int, ...] = (5,), **changes: Any
) -> TrainedMember:
    spec = NetworkSpec(cell=cell, hidden_sizes=hidden_sizes, dropout=0.3)
    return train_members([make_member(network=spec, **changes)], REFERENCE)[0]


@pytest.mark.parametrize(("cell", "hidden_sizes"), CELLS)
def test_a_forecasts_bits_do_not_depend_on_its_company(
    cell: str, hidden_sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((300, 7)).astype(np.float32)
    member = trained(cell, hidden_sizes, inputs=inputs[:130])
    ends = np.arange(5, 300)
    together = dict(zip(ends, predict_member(member, inputs, ends), strict=True))

    for _ in range(15):
        some = rng.permutation(ends)[: rng.integers(1, 40)]
        assert (predict_member(member, inputs, some) == [together[end] for end in some]).all()
    for end in (40, 41, 42, 43, 299):  # from the last rows alone, as a day's run does
        recent = inputs[end - LOOKBACK + 1 : end + 1]
        assert predict_member(member, recent, np.array([LOOKBACK - 1])) == together[end]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert (predict_member(member, inputs, ends) == list(together.values())).all()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("cell", "hidden_sizes"), CELLS)
def test_forecasts_are_the_networks_own(cell: str, hidden_sizes: tuple[int, ...]) -> None:
    member = trained(cell, hidden_sizes)
    network = RecurrentForecaster(member.network_spec, 3)
    network.load_state_dict(member.state)
    network.eval()
    inputs = make_member().inputs
    ends = np.array([100, 6, 129, 6])
    windows = torch.stack([torch.tensor(inputs[end - LOOKBACK + 1 : end + 1]) for end in ends])
    forecasts = predict_member(member, inputs, ends)
    assert forecasts.shape == (4,)
    assert forecasts.dtype == np.float32
    np.testing.assert_allclose(forecasts, network(windows)[:, 0].detach(), rtol=0, atol=1e-6)


def test_rows_outside_the_window_change_nothing() -> None:
    member, inputs = trained(), make_member().inputs
    end = 60
    before = predict_member(member, inputs, np.array([end]))
    scrambled = inputs.copy()
    scrambled[end + 1 :] = np.nan
    scrambled[: end - LOOKBACK + 1] = np.nan
    assert predict_member(member, scrambled, np.array([end])) == before
    for row in (end, end - LOOKBACK + 1):
        changed = inputs.copy()
        changed[row] += 1
        assert predict_member(member, changed, np.array([end])) != before


def test_no_rows_give_no_forecasts() -> None:
    assert predict_member(trained(), make_member().inputs, np.array([], dtype=int)).shape == (0,)


def test_wrong_inputs_are_refused() -> None:
    member, inputs = trained(), make_member().inputs
    with pytest.raises(ValueError, match=r"3 features.*\(130, 2\)"):
        predict_member(member, inputs[:, :2], np.array([10]))
    with pytest.raises(ValueError, match="rows 3 to 10"):
        predict_member(member, inputs, np.array([3, 10]))
    inputs[20, 1] = np.nan
    with pytest.raises(ValueError, match=r"forecast at row 22 is not finite.* rows 17 to 22"):
        predict_member(member, inputs, np.array([10, 22, 23]))
