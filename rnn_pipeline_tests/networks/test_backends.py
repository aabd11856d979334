from pathlib import Path
from typing import Any

import pytest
import torch

from rnn_pipeline.networks import backends
from rnn_pipeline.networks.backends import choose, member_bytes, n_weights, reference_seconds
from rnn_pipeline.networks.fleet import Compute, train_members
from rnn_pipeline.networks.kernels import cpu
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import CPU, REFERENCE, make_member

AUTO = Compute(CPU)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a process."""
    monkeypatch.setattr(backends, "_chosen", {})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every fleet is worth a measurement, which finds these ratios one after the other."""
    ratios = [2.5, 0.5]
    monkeypatch.setattr(backends, "SMALL_S", 0.0)
    monkeypatch.setattr(backends, "_measured_ratio", lambda *_: ratios.pop(0))
    return ratios


def chosen(compute: Compute = AUTO, workers: int = 2, **changes: Any) -> tuple[str, list[str]]:
    lines: list[str] = []
    return choose([make_member(**changes)], compute, workers, lines.append), lines


def test_small_work_is_not_measured() -> None:
    name, (line,) = chosen()
    assert name == "reference"
    assert "one network at a time on 2 threads of the CPU (about 0 s of work)" in line


def test_the_faster_one_is_taken_told_once_and_kept_for_the_process(measured: list[float]) -> None:
    name, lines = chosen()
    assert (name, lines) == (
        "cpu",
        ["fleet: fused kernel on 2 threads of the CPU, 2.5x one network at a time"],
    )
    assert chosen(seed=4) == ("cpu", [])
    other = {"network": NetworkSpec(cell="gru", hidden_sizes=(5,))}
    assert chosen(workers=1, **other) == (
        "reference",
        ["fleet: one network at a time on 1 thread of the CPU, 2.0x the fused kernel"],
    )
    assert measured == []


def test_a_choice_outlives_the_process_and_small_work(
    measured: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = Compute(CPU, choices=tmp_path / "new" / "backends.json")
    assert chosen(remembered)[0] == "cpu"
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(backends, "SMALL_S", 60.0)
    assert chosen(remembered)[0] == "cpu"
    assert measured == [0.5]
    (tmp_path / "new" / "backends.json").write_text("torn")
    monkeypatch.setattr(backends, "_chosen", {})
    assert chosen(remembered)[0] == "reference"


def test_where_the_kernel_cannot_run_the_reference_does_and_says_why(
    measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "available", lambda: "numba is not installed")
    name, (line,) = chosen()
    assert name == "reference"
    assert line.endswith("(numba is not installed)")
    with pytest.raises(ValueError, match="'cpu' cannot run here: numba is not installed; set"):
        chosen(Compute(CPU, backend="cpu"))


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (Compute(CPU, backend="gpu"), "the device is the CPU"),
        (Compute(CPU, backend="cpu", precision="float64"), "float64 is for the reference"),
        (Compute(torch.device("cuda"), backend="processes"), "on the CPU alone"),
    ],
    ids=["gpu", "float64", "processes"],
)
def test_a_backend_that_cannot_run_is_refused(compute: Compute, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        chosen(compute)


def test_a_measurement_compares_the_two() -> None:
    member = make_member(training=TrainingSpec(epochs=2, batch_size=32))
    assert 0.05 < backends._measured_ratio(member, AUTO, rounds=2) < 500


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden_sizes", [(5,), (6, 4)], ids=["one layer", "two layers"])
def test_weights_are_counted_as_torch_has_them(cell: str, hidden_sizes: tuple[int, ...]) -> None:
    member = make_member(
        network=NetworkSpec(cell=cell, hidden_sizes=hidden_sizes, quantiles=(0.1, 0.9))
    )
    (trained,) = train_members([member], REFERENCE)
    assert n_weights(member) == sum(value.numel() for value in trained.state.values())


def test_costs_grow_with_what_is_asked_for() -> None:
    small, long, gru = (
        make_member(),
        make_member(training=TrainingSpec(epochs=30, batch_size=32)),
        make_member(network=NetworkSpec(cell="gru", hidden_sizes=(5,))),
    )
    assert reference_seconds(long) == pytest.approx(10 * reference_seconds(small))
    assert reference_seconds(gru) > 2 * reference_seconds(small)
    assert member_bytes(long) > member_bytes(small) > small.inputs.nbytes
