"""The GPU backend: what of it can be shown without a GPU, and, marked ``gpu``, what cannot.

Needs torch, NumPy and pytest alone. On a bare machine with a GPU, from the root of the checkout:
``python -m pytest --noconftest -p no:cacheprovider -m gpu
rnn_pipeline_tests/networks/test_gpu_kernel.py``. Where there is no GPU the Triton kernels run in
Triton's interpreter, if Triton is installed.
"""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnn_pipeline.networks.fleet import TrainedMember, windows_of
from rnn_pipeline.networks.kernels import gpu
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.networks.training import History, fit

CPU = torch.device("cpu")
LOOKBACK = 5


def make_member(key: str = "AAPL", rows: int = 90, **changes: Any) -> Any:
    """Noise with three features; by default 57 training windows: three whole batches and a part.

    ``changes`` to the network, the training or the member, by name.
    """
    network = {"cell": "lstm", "hidden_sizes": (6, 4), "dropout": 0.0, "quantiles": ()}
    training = {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 0.01,
        "weight_decay": 1e-3,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "clip_norm": 0.5,
        "input_noise": 0.0,
        "patience": None,
    }
    for spec in (network, training):
        spec.update((name, changes.pop(name)) for name in list(changes) if name in spec)
    horizons = changes.pop("horizons", 1)
    seed = changes.pop("seed", 0)
    rng = np.random.default_rng([seed, rows])
    shape = (rows,) if horizons == 1 else (rows, horizons)
    fields = {
        "key": key,
        "network": SimpleNamespace(**network),
        "training": SimpleNamespace(**training),
        "inputs": rng.standard_normal((rows, 3)).astype(np.float32),
        "targets": rng.standard_normal(shape).astype(np.float32),
        "train_ends": np.arange(LOOKBACK - 1, rows - 29),
        "val_ends": np.arange(rows - 28, rows),
        "lookback": LOOKBACK,
        "seed": seed,
    }
    return SimpleNamespace(**fields | changes)


def reference(member: Any, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], History]:
    """One network, trained by the loop that all backends must equal."""
    targets = torch.tensor(member.targets.reshape(len(member.targets), -1), dtype=dtype)
    quantiles = member.network.quantiles
    n_outputs = targets.shape[1] * (1 + len(quantiles))
    network = RecurrentForecaster(member.network, member.inputs.shape[1], n_outputs)
    initialise(network, torch.Generator().manual_seed(member.seed))
    network.to(dtype)
    windows = windows_of(torch.tensor(member.inputs, dtype=dtype), member.lookback)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        total = torch.zeros((), dtype=dtype)
        width = 1 + len(quantiles)
        for h in range(y.shape[1]):
            total = total + ((outputs[:, h * width] - y[:, h]) ** 2).mean()
            for place, q in enumerate(quantiles, start=1):
                u = y[:, h] - outputs[:, h * width + place]
                total = total + torch.where(u > 0, q * u, (q - 1) * u).mean() / len(quantiles)
        return total / y.shape[1]

    def batch(ends: Tensor) -> tuple[Tensor, Tensor]:
        return windows[ends - (member.lookback - 1)], targets[ends]

    ends = (torch.tensor(member.train_ends), torch.tensor(member.val_ends))
    history = fit(network, loss, batch, *ends, member.training, member.seed)
    return network.state_dict(), history


def train(members: list[Any], **options: Any) -> list[TrainedMember]:
    trained: dict[int, TrainedMember] = {}
    gpu.train(members, **{"device": CPU} | options, on_trained=trained.__setitem__)
    assert sorted(trained) == list(range(len(members)))
    return [trained[place] for place in range(len(members))]


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name].cpu() - b[name].cpu()).abs().max().item() for name in a)


def unequal_members(**changes: Any) -> list[Any]:
    """Of one group, and different in all in which members of a group may differ."""
    return [
        make_member("plain", **changes),
        make_member("short", rows=61, seed=1, epochs=6, **changes),
        make_member("noisy", seed=2, input_noise=0.3, clip_norm=None, **changes),
        make_member("dropped", seed=3, dropout=0.4, weight_decay=0.0, **changes),
        make_member("scheduled", seed=4, schedule="cosine", warmup_epochs=1.5, **changes),
        make_member("stopped", seed=5, epochs=30, patience=2, learning_rate=0.05, **changes),
        make_member("one batch", rows=49, seed=6, dropout=0.2, epochs=7, **changes),
    ]


CASES = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "three layers": {"hidden_sizes": (7, 3, 5)},
    "quantiles of two horizons": {"quantiles": (0.1, 0.5, 0.8), "horizons": 2, "cell": "gru"},
}


@pytest.mark.parametrize("case", CASES)
def test_stacked_members_equal_the_reference_to_rounding(case: str) -> None:
    members = unequal_members(**CASES[case])
    trained = train(members, engine="stacked", dtype=torch.float64)
    for member, result in zip(members, trained, strict=True):
        state, history = reference(member, torch.float64)
        assert largest_difference(state, result.state) < 1e-10
        assert result.history.best_epoch == history.best_epoch
        assert result.history.train_loss == pytest.approx(history.train_loss, rel=1e-6)
        assert result.history.val_loss == pytest.approx(history.val_loss, rel=1e-9)
    assert len(trained[5].history.val_loss) < 30


def test_stacked_members_stay_near_the_reference_in_float32() -> None:
    members = unequal_members(cell="gru")
    for member, result in zip(members, train(members), strict=True):
        state, history = reference(member)
        assert largest_difference(state, result.state) < 1e-4
        assert result.history.best_epoch == history.best_epoch
        assert len(result.history.val_loss) == len(history.val_loss)


def test_members_that_wait_for_a_slot_and_company_change_nothing_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = unequal_members()
    together = train(members)
    for slots in (1, 3):
        monkeypatch.setattr(gpu, "CPU_SLOTS", slots)
        for one, other in zip(together, train(members[::-1])[::-1], strict=True):
            assert one.history == other.history
            assert largest_difference(one.state, other.state) == 0
