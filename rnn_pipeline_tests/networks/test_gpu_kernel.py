"""The GPU backend: what of it can be shown without a GPU, and, marked ``gpu``, what cannot.

Needs torch, NumPy and pytest alone. On a bare machine with a GPU, from the root of the checkout:
``python -m pytest -c /dev/null --rootdir . --noconftest -p no:cacheprovider -m gpu
rnn_pipeline_tests/networks/test_gpu_kernel.py`` (the project's own configuration names a class of
pandas). Where there is no GPU the Triton kernels run in Triton's interpreter, if Triton is
installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rnn_pipeline.networks.fleet import Member, TrainedMember
from rnn_pipeline.networks.kernels import gpu
from rnn_pipeline.networks.kernels.gpu_stacked import AdamStep, Batch, Dropout, StackedEngine
from rnn_pipeline.networks.kernels.reference import train_member

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    # Triton reads this when it is first imported, which is inside the tests.
    os.environ.setdefault("TRITON_INTERPRET", "1")

CPU = torch.device("cpu")
GPU = torch.device("cuda")


def make_member(key: str = "AAPL", rows: int = 90, **changes: Any) -> Member:
    """Noise with three features; by default 57 training windows: three whole batches and a part.

    ``changes`` to the network, the training or the member, by name.
    """
    network: dict[str, Any] = {
        "cell": "lstm",
        "hidden_sizes": (6, 4),
        "dropout": 0.0,
        "quantiles": (),
    }
    training: dict[str, Any] = {
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
    horizons, lookback = changes.pop("horizons", 1), changes.pop("lookback", 5)
    seed = changes.pop("seed", 0)
    rng = np.random.default_rng([seed, rows])
    shape = (rows,) if horizons == 1 else (rows, horizons)
    fields: dict[str, Any] = {
        "key": key,
        "network": SimpleNamespace(**network),
        "training": SimpleNamespace(**training),
        "inputs": rng.standard_normal((rows, 3)).astype(np.float32),
        "targets": rng.standard_normal(shape).astype(np.float32),
        "train_ends": np.arange(lookback - 1, rows - 29),
        "val_ends": np.arange(rows - 28, rows),
        "lookback": lookback,
        "seed": seed,
    }
    return Member(**fields | changes)


def reference(member: Member, precision: Any = "float32") -> TrainedMember:
    """One network, trained by the loop that all backends must equal."""
    return train_member(member, CPU, precision)


def train(members: list[Member], **options: Any) -> list[TrainedMember]:
    trained: dict[int, TrainedMember] = {}
    gpu.train(members, **{"device": CPU} | options, on_trained=trained.__setitem__)
    assert sorted(trained) == list(range(len(members)))
    return [trained[place] for place in range(len(members))]


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name].cpu() - b[name].cpu()).abs().max().item() for name in a)


def unequal_members(**changes: Any) -> list[Member]:
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


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def on_gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not HAS_GPU, reason="no CUDA device")(test))


@pytest.mark.parametrize("case", CASES)
def test_stacked_members_equal_the_reference_to_rounding(case: str) -> None:
    members = unequal_members(**CASES[case])
    trained = train(members, engine="stacked", precision="float64")
    for member, result in zip(members, trained, strict=True):
        expected = reference(member, "float64")
        assert largest_difference(expected.state, result.state) < 1e-10
        assert result.history.best_epoch == expected.history.best_epoch
        assert result.history.train_loss == pytest.approx(expected.history.train_loss, rel=1e-6)
        assert result.history.val_loss == pytest.approx(expected.history.val_loss, rel=1e-9)
    assert len(trained[5].history.val_loss) < 30


def test_stacked_members_stay_near_the_reference_in_float32() -> None:
    members = unequal_members(cell="gru")
    for member, result in zip(members, train(members), strict=True):
        expected = reference(member)
        assert largest_difference(expected.state, result.state) < 1e-4
        assert result.history.best_epoch == expected.history.best_epoch
        assert len(result.history.val_loss) == len(expected.history.val_loss)


@pytest.mark.parametrize(
    "changes", [{}, {"hidden_sizes": (64, 64), "batch_size": 32}], ids=["small", "large"]
)
def test_members_that_wait_for_a_slot_and_company_change_nothing_on_a_cpu(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = unequal_members(**changes)
    together = train(members)
    for slots in (2, 3):
        monkeypatch.setattr(gpu, "CPU_SLOTS", slots)
        for one, other in zip(together, train(members[::-1])[::-1], strict=True):
            assert one.history == other.history
            assert largest_difference(one.state, other.state) == 0
    (alone,) = train(members[3:4])
    assert largest_difference(together[3].state, alone.state) == 0


def test_members_of_unlike_networks_are_refused() -> None:
    members = [make_member(), make_member(cell="gru")]
    with pytest.raises(ValueError, match=r"one architecture.*'gru'.*'lstm'"):
        train(members)


@pytest.mark.parametrize("spoilt", ["inputs", "targets"])
def test_a_loss_that_is_not_finite_names_member_and_epoch(spoilt: str) -> None:
    member = make_member("IBM|fold 3")
    getattr(member, spoilt)[50] = np.nan
    with pytest.raises(ValueError, match=r"'IBM\|fold 3': the loss is not finite in epoch 0.*NaN"):
        train([make_member(), member])


def test_values_that_no_window_needs_may_be_missing() -> None:
    members = [make_member(train_ends=np.arange(30, 50)), make_member()]
    expected = train(members)
    members[0].inputs[:20] = np.nan
    members[0].targets[:30] = np.nan
    for one, other in zip(expected, train(members), strict=True):
        assert largest_difference(one.state, other.state) == 0


def test_a_warm_start_begins_with_the_weights_it_is_given() -> None:
    first = train([make_member(epochs=1)])[0]
    spec = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    warm = train([make_member(initial=first.state, **spec), make_member(**spec)])
    assert largest_difference(first.state, warm[0].state) < 1e-6
    assert largest_difference(first.state, warm[1].state) > 1e-3


def test_memory_bounds_the_members_side_by_side() -> None:
    members = unequal_members()
    size = gpu.bytes_per_member(members)
    assert gpu._slots(members, CPU, fused=True, memory=3 * size + 1) == 3
    assert gpu._slots(members, CPU, fused=True, memory=None) == len(members)
    with pytest.raises(ValueError, match="one member takes"):
        gpu._slots(members, CPU, fused=True, memory=size - 1)
    with pytest.raises(ValueError, match=f"trains {gpu.SLOTS} members at once"):
        gpu._slots(members, GPU, fused=False, memory=3 * size)


def test_steps_before_any_member_is_there_leave_no_trace() -> None:
    """What warms a GPU up before its graphs are captured, on tables of a single step."""
    members = [make_member(rows=49, dropout=0.5, input_noise=0.1)]
    layout = gpu.layout_of(members)
    group = gpu._Group(members, layout, 3, CPU, torch.float32)
    trainer = gpu._Trainer(group, StackedEngine(layout, CPU, None))
    for step in (trainer._step, trainer._tile):
        trainer.warm_up(step)
    for traced in (group.parameters, *group.moments, trainer.total):
        assert not traced.any()


class Watched(TorchDispatchMode):
    """Notes operations on tensors that are not on the device "meta"."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.elsewhere.append(str(func))
        return result


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_stays_on_its_device_so_that_a_graph_can_capture_it(cell: str) -> None:
    """Without a GPU, on "meta": where a value is asked for, that raises."""
    members = [
        make_member(cell=cell, dropout=0.5, input_noise=0.1, quantiles=(0.1, 0.9), horizons=2)
    ]
    layout = gpu.layout_of(members)
    meta = torch.device("meta")
    group = gpu._Group(members, layout, 3, meta, torch.float32)
    trainer = gpu._Trainer(group, StackedEngine(layout, meta, torch.bfloat16))
    with Watched() as watched:
        trainer._step()
        trainer._tile()
    assert watched.elsewhere == []
    assert watched.calls > 500


@needs_triton
def test_the_fused_engine_says_what_it_cannot_train() -> None:
    for changes, reason in (
        ({"cell": "rnn"}, "no rnn cell"),
        ({"hidden_sizes": (65,)}, "65 units are more than 64"),
    ):
        with pytest.raises(ValueError, match=reason):
            train([make_member(**changes)], engine="fused")
    with pytest.raises(ValueError, match="float64"):
        train([make_member()], engine="fused", precision="float64")


def random_step(
    member: Member, slots: int, device: torch.device
) -> tuple[Tensor, Batch, AdamStep, tuple[Tensor, Tensor]]:
    """Weights, a batch with dropout, Adam's coefficients and moments; the last slot is empty."""
    layout = gpu.layout_of([member])
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(slots, *shape, generator=generator)

    windows = layout.batch_size
    counts = torch.full((slots,), windows)
    counts[1], counts[-1] = windows - 5, 0
    batch = Batch(
        inputs=normal(layout.lookback, windows, layout.n_features),
        targets=normal(windows, layout.n_horizons),
        weights=(torch.arange(windows) < counts[:, None]) / counts.clamp(min=1)[:, None],
        dropout=Dropout(
            keys=torch.randint(2**32, (slots, len(layout.hidden_sizes)), generator=generator),
            thresholds=torch.full((slots,), 2**30),
            scale=torch.full((slots,), 1 / 0.75),
        ),
    )
    active = (counts > 0).float()
    step = AdamStep(
        active=active,
        step_size=0.01 * active,
        root_scale=torch.full((slots,), 3.0),
        weight_decay=torch.full((slots,), 0.1),
        clip_norm=torch.tensor([0.5, *[torch.inf] * slots])[:slots],
    )
    # Not so large that rounding errors grow from step to step.
    weights = normal(layout.size) / max(layout.hidden_sizes) ** 0.5
    parameters = torch.zeros_like(weights)
    for name, view in layout.views(weights).items():
        layout.views(parameters)[name].copy_(view)
    return parameters, batch, step, (0.01 * normal(layout.size), normal(layout.size).square())


def moved(value: Any, to: Any) -> Any:
    """The floating tensors within ``value`` as another type, or all of them on another device."""
    if isinstance(value, Tensor):
        keep = isinstance(to, torch.dtype) and not value.is_floating_point()
        return value.clone() if keep else value.to(to, copy=True)
    if isinstance(value, tuple):
        return tuple(moved(each, to) for each in value)
    return type(value)(**{name: moved(each, to) for name, each in vars(value).items()})


def first_slots(value: Any, n: int) -> Any:
    if isinstance(value, Tensor):
        return value[:n].clone()
    if isinstance(value, tuple):
        return tuple(first_slots(each, n) for each in value)
    return type(value)(**{name: first_slots(each, n) for name, each in vars(value).items()})


def check_engine(member: Member, device: torch.device, tolerance: float, precision: str) -> None:
    """Gradients, losses and an update equal the stacked engine's in float64, in any company."""
    from rnn_pipeline.networks.kernels.gpu_fused import FusedEngine

    layout = gpu.layout_of([member])
    case = random_step(member, 3, device)
    oracle = StackedEngine(layout, CPU, None)
    parameters, batch, step, moments = moved(case, torch.float64)
    losses, gradients = oracle.gradients(parameters, batch)
    norms = gradients.norm(dim=1, keepdim=True).clamp(min=1e-30)

    fused = FusedEngine(layout, 3, device, precision)
    parameters32, batch32, step32, moments32 = moved(case, device)
    got = [each.cpu().clone() for each in fused.gradients(parameters32, batch32)]
    torch.testing.assert_close(got[0].double(), losses, rtol=tolerance, atol=0)
    assert ((got[1] - gradients)[:2].abs() / norms[:2]).max() < tolerance
    assert not got[1][2].any()

    alone = FusedEngine(layout, 1, device, precision)
    one = first_slots((parameters32, batch32), 1)
    for whole, part in zip(got, alone.gradients(*one), strict=True):
        assert torch.equal(whole[:1], part.cpu())

    if precision == "float32":
        oracle.update(parameters, gradients, moments, step)
        fused.update(parameters32, fused.flat_gradients, moments32, step32)
        for mine, theirs in zip((parameters32, *moments32), (parameters, *moments), strict=True):
            torch.testing.assert_close(mine.cpu().double(), theirs, rtol=1e-5, atol=1e-6)


FUSED_CASES = {
    "two lstm layers": {"hidden_sizes": (5, 17), "quantiles": (0.2, 0.7), "batch_size": 9},
    "two gru layers": {"cell": "gru", "hidden_sizes": (17, 5), "horizons": 2, "batch_size": 9},
}


@needs_triton
@pytest.mark.skipif(HAS_GPU, reason="the same is tested on the GPU")
@pytest.mark.parametrize("case", FUSED_CASES)
def test_a_fused_step_equals_the_stacked_one_in_the_interpreter(case: str) -> None:
    check_engine(make_member(lookback=3, **FUSED_CASES[case]), CPU, 2e-6, "float32")


@needs_triton
@pytest.mark.skipif(HAS_GPU, reason="the same is tested on the GPU")
def test_a_fused_training_equals_the_reference_in_the_interpreter() -> None:
    """More windows than a tile holds, and a member that takes the slot of one that is finished."""
    changes = {"hidden_sizes": (4,), "lookback": 2, "batch_size": 40, "dropout": 0.25}
    members = [
        make_member(epochs=epochs, seed=epochs, train_ends=np.arange(4, 60), **changes)
        for epochs in (1, 2)
    ]
    memory = gpu.bytes_per_member(members)
    for member, result in zip(members, train(members, engine="fused", memory=memory), strict=True):
        expected = reference(member)
        assert largest_difference(expected.state, result.state) < 1e-5
        assert result.history.val_loss == pytest.approx(expected.history.val_loss, abs=1e-6)


@needs_triton
def test_the_recurrent_weights_of_64_units_stay_on_an_h100s_chip(tmp_path: Path) -> None:
    """Compiled without a GPU: nothing spills, and shared memory holds ``W_hh``."""
    script = Path(__file__).with_name("compile_gpu_kernels.py")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, script, "_forward"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    report = json.loads(output)
    assert report["stack"] == 0, report
    assert report["registers"] <= 128, f"two programs no longer share a chip: {report}"
    assert 64 * 1024 < report["shared"] <= 113 * 1024, report


@on_gpu
@pytest.mark.parametrize("engine", ["fused", "stacked"])
@pytest.mark.parametrize("case", [name for name in CASES if name != "rnn"])
def test_a_gpu_stays_near_the_reference(case: str, engine: str) -> None:
    members = unequal_members(**CASES[case])
    for member, result in zip(members, train(members, device=GPU, engine=engine), strict=True):
        expected = reference(member)
        assert largest_difference(expected.state, result.state) < 1e-4
        assert result.history.best_epoch == expected.history.best_epoch
        assert len(result.history.val_loss) == len(expected.history.val_loss)


LARGE = {"hidden_sizes": (64, 64), "lookback": 20, "batch_size": 32}


@on_gpu
@needs_triton
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("tf32", 2e-3), ("bfloat16", 2e-2)]
)
@pytest.mark.parametrize("batch_size", [32, 128])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_fused_step_is_as_exact_as_its_precision(
    cell: str, batch_size: int, precision: str, tolerance: float
) -> None:
    """Of 64 units and 20 steps, relative to the gradient's norm."""
    member = make_member(**LARGE | {"cell": cell, "batch_size": batch_size})
    check_engine(member, GPU, tolerance, precision)


@on_gpu
@pytest.mark.parametrize("engine", ["fused", "stacked"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_on_a_gpu_a_member_depends_on_nothing_else_bit_for_bit(cell: str, engine: str) -> None:
    changes = LARGE | {"cell": cell, "epochs": 3}
    members = [
        make_member(str(seed), rows=150 + 7 * seed, seed=seed, dropout=0.1 * (seed % 3), **changes)
        for seed in range(9)
    ]
    together = train(members, device=GPU, engine=engine)
    again = train(members, device=GPU, engine=engine)
    alone = [train([member], device=GPU, engine=engine)[0] for member in members[:3]]
    few = again
    if engine == "fused":
        memory = 2 * gpu.bytes_per_member(members)
        few = train(members[::-1], device=GPU, engine=engine, memory=memory)[::-1]
    for other in (again, few, alone):
        for one, two in zip(together, other, strict=False):
            assert one.history == two.history
            assert largest_difference(one.state, two.state) == 0


@on_gpu
@pytest.mark.parametrize("engine", ["fused", "stacked"])
def test_a_gpus_memory_stays_within_what_members_are_said_to_take(engine: str) -> None:
    members = [make_member(str(seed), rows=500, seed=seed, epochs=1, **LARGE) for seed in range(64)]
    slots = gpu.SLOTS if engine == "stacked" else 16
    memory = slots * gpu.bytes_per_member(members)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(members, device=GPU, engine=engine, memory=memory)
    assert torch.cuda.max_memory_allocated() - before < memory + 2**26


@on_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 0.005), ("bfloat16", 0.03)])
@pytest.mark.parametrize("engine", ["fused", "stacked"])
def test_lower_precision_moves_the_validation_loss_little(
    engine: str, precision: str, tolerance: float
) -> None:
    """After some 30 steps, relative; the parameters' error is printed (``pytest -s``)."""
    member = make_member(rows=400, epochs=3, **LARGE)
    expected = reference(member)
    result = train([member], device=GPU, engine=engine, precision=precision)[0]
    print(engine, precision, "parameters within", largest_difference(expected.state, result.state))
    assert result.history.val_loss == pytest.approx(expected.history.val_loss, rel=tolerance)
