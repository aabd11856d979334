import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnn_pipeline.networks.fleet import Member, TrainedMember, train_members, windows_of
from rnn_pipeline.networks.kernels import cpu
from rnn_pipeline.networks.recurrent import RecurrentForecaster, draw_dropout, initialise
from rnn_pipeline.networks.training import NotFinite
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import REFERENCE, make_member

CELLS = ("rnn", "lstm", "gru")


def train(members: Sequence[Member], threads: int = 1) -> list[TrainedMember]:
    trained: dict[int, TrainedMember] = {}
    cpu.train(members, threads=threads, on_trained=trained.__setitem__)
    return [trained[place] for place in range(len(members))]


def torch_forecasts(one: TrainedMember, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    network = RecurrentForecaster(one.network_spec, one.n_features, one.n_outputs).eval()
    network.load_state_dict(one.state)
    windows = windows_of(torch.tensor(inputs), one.lookback)[ends - (one.lookback - 1)]
    with torch.inference_mode():
        return network(windows).numpy()


def assert_same_bits(a: TrainedMember, b: TrainedMember) -> None:
    assert a.key == b.key
    assert a.history == b.history
    for name in a.state | b.state:
        assert torch.equal(a.state[name], b.state[name]), name


def unequal_members() -> list[Member]:
    """Everything differs that may, beginning with a large network that small ones follow."""
    rng = np.random.default_rng(3)

    def member(number: int, cell: str, hidden_sizes: tuple[int, ...], **changes: object) -> Member:
        n_features, lookback = 1 + number % 3, 2 + number
        rows = 90 + 17 * number
        training = TrainingSpec(epochs=3, batch_size=16 + 5 * number, learning_rate=0.01)
        return Member(
            f"m{number}",
            NetworkSpec(cell=cell, hidden_sizes=hidden_sizes, dropout=0.2 * (number % 2)),
            training.model_copy(update=changes),
            rng.standard_normal((rows, n_features)).astype(np.float32),
            rng.standard_normal(rows).astype(np.float32),
            np.arange(lookback, rows - 30),
            np.arange(rows - 25, rows),
            lookback,
            seed=number,
        )

    return [
        member(0, "lstm", (33, 40), epochs=2),
        member(1, "gru", (5,)),
        member(2, "lstm", (17, 3), weight_decay=0.1),
        member(3, "rnn", (1,), input_noise=0.3),
        member(4, "gru", (20, 20), clip_norm=0.1),
        member(5, "lstm", (16,), clip_norm=None, epochs=4),
    ]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("hidden_sizes", "dropout", "training"),
    [
        ((12,), 0.0, {"weight_decay": 0.05}),
        ((20, 7), 0.3, {"clip_norm": 0.05, "weight_decay": 0.01}),
        ((5, 33, 9), 0.2, {"clip_norm": None, "learning_rate": 1e-3}),
        ((16,), 0.0, {"input_noise": 0.5, "schedule": "cosine", "warmup_epochs": 1.5}),
    ],
    ids=["one layer", "two layers, clipped", "three layers", "noise and schedule"],
)
def test_thirty_steps_equal_those_of_torch(
    cell: str, hidden_sizes: tuple[int, ...], dropout: float, training: dict[str, object]
) -> None:
    spec = TrainingSpec(epochs=10, batch_size=32, patience=None)  # 93 windows: the third has 29
    member = make_member(
        network=NetworkSpec(cell=cell, hidden_sizes=hidden_sizes, dropout=dropout),
        training=spec.model_copy(update=training),
        # Validated on what it learns, so that the weights of a late epoch come back.
        val_ends=make_member().train_ends,
    )
    (expected,) = train_members([member], REFERENCE)
    (trained,) = train([member])
    assert trained.history.best_epoch == expected.history.best_epoch
    assert trained.history.best_epoch >= 6, "too early to say anything about thirty steps"
    assert trained.history.train_loss == pytest.approx(expected.history.train_loss, rel=1e-5)
    assert trained.history.val_loss == pytest.approx(expected.history.val_loss, rel=1e-5)
    assert list(trained.state) == list(expected.state)
    for name, value in expected.state.items():
        torch.testing.assert_close(trained.state[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_horizons_quantiles_and_a_warm_start_equal_those_of_torch(cell: str) -> None:
    network = NetworkSpec(cell=cell, hidden_sizes=(9,), quantiles=(0.1, 0.9))
    first = make_member(network=network, targets=np.random.default_rng(5).normal(size=(130, 2)))
    (begun,) = train([first])
    member = replace(first, seed=5, initial=begun.state)
    before = {name: value.clone() for name, value in begun.state.items()}
    (expected,) = train_members([member], REFERENCE)
    (trained,) = train([member])
    assert trained.n_outputs == 6
    assert trained.history.train_loss == pytest.approx(expected.history.train_loss, rel=1e-5)
    for name, value in expected.state.items():
        torch.testing.assert_close(trained.state[name], value, rtol=0, atol=1e-4)
        assert torch.equal(begun.state[name], before[name]), "what it starts from stays as it is"


@pytest.mark.parametrize("cell", CELLS)
def test_training_stops_in_the_same_epoch_as_torch(cell: str) -> None:
    member = make_member(
        network=NetworkSpec(cell=cell, hidden_sizes=(8,)),
        training=TrainingSpec(epochs=40, batch_size=16, learning_rate=0.03, patience=3),
    )
    (expected,) = train_members([member], REFERENCE)
    (trained,) = train([member])
    assert len(expected.history.val_loss) < 40, "the case must stop early to mean anything"
    assert len(trained.history.val_loss) == len(expected.history.val_loss)
    assert trained.history.best_epoch == expected.history.best_epoch
    forecasts = torch_forecasts(trained, member.inputs, member.val_ends)[:, 0]
    loss = np.mean((forecasts - member.targets[member.val_ends]) ** 2)
    assert min(trained.history.val_loss) == pytest.approx(loss, rel=1e-5)


sizes = st.sampled_from((1, 2, 5, 15, 16, 17, 33, 64))


@settings(max_examples=60, deadline=None, derandomize=True)
@example("lstm", [64, 64], 1, 20, 32, 1, (), 0.0)
@example("gru", [32], 10, 1, 1, 3, (0.1, 0.5, 0.9), 0.4)
@given(
    cell=st.sampled_from(CELLS),
    hidden_sizes=st.lists(sizes, min_size=1, max_size=3),
    n_features=st.sampled_from((1, 3, 10, 17)),
    lookback=st.integers(1, 7),
    batch=st.integers(1, 40),
    n_horizons=st.integers(1, 3),
    quantiles=st.sampled_from(((), (0.5,), (0.1, 0.9))),
    dropout=st.sampled_from((0.0, 0.3)),
)
def test_gradients_equal_those_of_autograd(
    cell: str,
    hidden_sizes: list[int],
    n_features: int,
    lookback: int,
    batch: int,
    n_horizons: int,
    quantiles: tuple[float, ...],
    dropout: float,
) -> None:
    """Of the loss over one batch, to all weights."""
    from rnn_pipeline.networks.kernels.cpu_kernel import train_epoch
    from rnn_pipeline.networks.kernels.cpu_layout import Architecture, plan_of

    rng = np.random.default_rng(batch)
    rows = lookback + batch + 3
    series = rng.standard_normal((rows, n_features)).astype(np.float32)
    targets = rng.standard_normal((rows, n_horizons)).astype(np.float32)
    ends = rng.permutation(np.arange(lookback - 1, lookback - 1 + batch))
    n_outputs = n_horizons * (1 + len(quantiles))
    spec = NetworkSpec(cell=cell, hidden_sizes=tuple(hidden_sizes), dropout=dropout)
    network = RecurrentForecaster(spec, n_features, n_outputs)
    initialise(network, torch.Generator().manual_seed(batch))
    draw_dropout(network, seed=7, step=0)
    windows = torch.tensor(np.stack([series[e - lookback + 1 : e + 1] for e in ends]))
    outputs = network(windows).reshape(batch, n_horizons, -1)
    y = torch.tensor(targets[ends])
    loss = ((outputs[..., 0] - y) ** 2).mean()
    for number, level in enumerate(quantiles, start=1):
        above = y - outputs[..., number]
        pinball = torch.maximum(level * above, (level - 1) * above)
        loss = loss + pinball.mean() / len(quantiles)
    loss.backward()

    architecture = Architecture(cell, n_features, tuple(hidden_sizes), n_outputs, lookback)
    plan = plan_of(architecture, batch + 3)
    work = np.full(plan.size, np.nan, np.float32)  # nothing may be read before it is written
    cpu.pack(network.state_dict(), architecture, plan, work)
    work[plan.first_moments : plan.second_moments + plan.n_weights] = 0.0
    member = make_member(network=spec, seed=7)
    measured = train_epoch(
        plan,
        work,
        series,
        targets,
        np.array(quantiles, np.float32),
        ends,
        batch,
        0,
        np.zeros(1),
        cpu.stream_keys(member, 0, 1),
        cpu.dropout_threshold(dropout),
        1 / (1 - dropout),
        0.0,
        math.inf,
        0.0,
        np.zeros(1, np.bool_),
    )
    assert measured == pytest.approx(loss.item(), rel=1e-5)
    gradients = cpu.unpack(work[plan.gradients : plan.gradients + plan.n_weights], architecture)
    for name, parameter in network.named_parameters():
        scale = float(parameter.grad.abs().max()) + 1e-3
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=2e-5 * scale)


def test_a_member_does_not_depend_on_threads_or_neighbours() -> None:
    members = unequal_members()
    alone = [train([member])[0] for member in members]
    for together in (train(members), train(members, threads=3), train(members[::-1])[::-1]):
        for a, b in zip(alone, together, strict=True):
            assert_same_bits(a, b)


def test_what_lies_in_the_workspace_is_of_no_consequence(monkeypatch: pytest.MonkeyPatch) -> None:
    members = unequal_members()
    clean = train(members)

    def poisoned(workspace: cpu.Workspace, size: int) -> np.ndarray:
        return np.full(size, np.nan, np.float32)

    monkeypatch.setattr(cpu.Workspace, "array", poisoned)
    for a, b in zip(clean, train(members), strict=True):
        assert_same_bits(a, b)


def test_read_only_and_strided_data_train_the_same() -> None:
    member = make_member()
    wide = np.repeat(member.inputs.astype(np.float64), 2, axis=1)[:, ::2]
    frozen = member.targets.copy()
    frozen.flags.writeable = False
    other = replace(member, inputs=wide, targets=frozen, train_ends=member.train_ends[::1])
    assert_same_bits(*train([member, other]))


@pytest.fixture(scope="module")
def trained() -> list[tuple[TrainedMember, Member]]:
    members = unequal_members()
    return list(zip(train(members), members, strict=True))


def test_forecasts_equal_those_of_torch(trained: list[tuple[TrainedMember, Member]]) -> None:
    for one, member in trained:
        ends = np.arange(member.lookback - 1, len(member.inputs))
        (forecasts,) = cpu.predict([one], [member.inputs], [ends])
        assert forecasts.shape == (len(ends), 1)
        assert forecasts.dtype == np.float32
        expected = torch_forecasts(one, member.inputs, ends)
        np.testing.assert_allclose(forecasts, expected, rtol=0, atol=2e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_forecast_has_the_same_bits_in_any_company(
    trained: list[tuple[TrainedMember, Member]], data: st.DataObject
) -> None:
    """Alone, among others, anywhere in the batch, with other members, on more threads."""
    one, member = data.draw(st.sampled_from(trained))
    everything = np.arange(member.lookback - 1, len(member.inputs))
    (whole,) = cpu.predict([one], [member.inputs], [everything])
    chosen = data.draw(st.lists(st.sampled_from(list(everything)), min_size=1, max_size=60))
    others = data.draw(st.lists(st.sampled_from(trained), max_size=3))
    company = [*others, (one, member)]
    (*_, part) = cpu.predict(
        [other for other, _ in company],
        [other.inputs for _, other in company],
        [*(other.val_ends for _, other in others), np.array(chosen)],
        threads=data.draw(st.integers(1, 3)),
    )
    assert part.tobytes() == whole[np.array(chosen) - everything[0]].tobytes()
    last = chosen[-1]
    window = member.inputs[last - member.lookback + 1 : last + 1]
    (alone,) = cpu.predict([one], [window], [np.array([member.lookback - 1])])
    assert alone.tobytes() == part[-1:].tobytes()


def test_no_windows_give_no_forecasts(trained: list[tuple[TrainedMember, Member]]) -> None:
    one, member = trained[0]
    (forecasts,) = cpu.predict([one], [member.inputs], [np.array([], np.int64)])
    assert forecasts.shape == (0, 1)


def test_a_loss_that_is_not_finite_names_member_and_epoch() -> None:
    inputs = make_member().inputs.copy()
    inputs[50] = np.nan
    member = make_member("BAD", inputs=inputs)
    with pytest.raises(NotFinite) as expected:
        train_members([member], REFERENCE)
    with pytest.raises(NotFinite, match=r"member 'BAD': .* epoch 0") as raised:
        train([make_member(), member, make_member()])
    assert str(raised.value) == str(expected.value)


def test_an_interrupt_ends_what_is_running() -> None:
    endless = make_member(
        training=TrainingSpec(epochs=1_000_000, patience=None),
        network=NetworkSpec(hidden_sizes=(64, 64)),
    )
    begun = time.monotonic()

    def interrupt(place: int, trained: TrainedMember) -> None:
        raise KeyboardInterrupt

    cpu.compile_kernel(training=True)
    with pytest.raises(KeyboardInterrupt):
        cpu.train([endless, make_member(), endless], threads=2, on_trained=interrupt)
    assert time.monotonic() - begun < 10


def test_without_numba_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.available() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cpu.available() == "numba is not installed"


def test_importing_it_does_not_import_numba() -> None:
    code = "import sys, rnn_pipeline.networks.kernels.cpu; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hyperbolic_tangent_and_sigmoid_are_accurate_everywhere() -> None:
    from numba import njit

    from rnn_pipeline.networks.kernels import simd

    load, store, lanes = simd.load, simd.store, simd.LANES
    tanh, sigmoid = simd.tanh, simd.sigmoid

    @njit
    def compute(x: np.ndarray, tanhs: np.ndarray, sigmoids: np.ndarray) -> None:
        for i in range(0, len(x), lanes):
            store(tanhs, i, tanh(load(x, i)))
            store(sigmoids, i, sigmoid(load(x, i)))

    span = np.linspace(-20, 20, 40_000, dtype=np.float32)
    tiny = np.geomspace(1e-30, 1, 4_000, dtype=np.float32)
    x = np.concatenate([span, tiny, -tiny, np.full(16, np.inf), np.full(16, -np.inf)])
    x = x.astype(np.float32)
    tanhs, sigmoids = np.empty_like(x), np.empty_like(x)
    compute(x, tanhs, sigmoids)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(tanhs, np.tanh(exact), rtol=4e-7)
    assert np.abs(tanhs).max() <= 1
    np.testing.assert_allclose(sigmoids, 0.5 + 0.5 * np.tanh(exact / 2), rtol=0, atol=2e-7)
    not_a_number = np.full(lanes, np.nan, np.float32)
    compute(not_a_number, tanhs, sigmoids)
    assert np.isnan(tanhs[:lanes]).all()
    assert np.isnan(sigmoids[:lanes]).all()


PRODUCTS = """
import numpy as np
from rnn_pipeline.networks.kernels.simd import LANES, multiply
rng = np.random.default_rng(0)
work = rng.standard_normal(40_000).astype(np.float32)
bits = {}
for n_rows in range(1, 21):
    for n_vectors in range(1, 7):
        for n in (1, 2, 33):
            a, b = work[10_000:], work[20_000:]
            A = np.stack([a[r * 40 : r * 40 + n] for r in range(n_rows)])
            B = np.stack([b[k * 100 : k * 100 + n_vectors * LANES] for k in range(n)])
            C = work[: n_rows * 120].reshape(n_rows, 120)[:, : n_vectors * LANES].copy()
            for add in (True, False):
                mine = work.copy()
                multiply(mine, add, 0, 120, n_rows, n_vectors, 10_000, 40, 1, 20_000, 100, n)
                got = mine[: n_rows * 120].reshape(n_rows, 120)
                np.testing.assert_allclose(
                    got[:, : n_vectors * LANES], add * C + A @ B, rtol=0, atol=2e-5
                )
                untouched = work[: n_rows * 120].reshape(n_rows, 120)[:, n_vectors * LANES :]
                np.testing.assert_array_equal(got[:, n_vectors * LANES :], untouched)
                for row in range(n_rows):
                    element = got[row, : LANES].tobytes()
                    assert bits.setdefault((row, n, add), element) == element
print(LANES)
"""


@pytest.mark.parametrize(
    ("processor", "lanes"), [(None, None), ("generic", 4)], ids=["this one", "any"]
)
def test_products_are_right_and_have_the_same_bits_in_every_tile(
    processor: str | None, lanes: int | None
) -> None:
    """On this processor, and as compiled for the least of its kind, without fused arithmetic."""
    environment = os.environ | ({"NUMBA_CPU_NAME": processor} if processor else {})
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if lanes:
        assert int(done.stdout) == lanes
