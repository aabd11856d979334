import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rnn_pipeline.networks.backends import Backend, member_bytes
from rnn_pipeline.networks.fleet import (
    Compute,
    Member,
    Progress,
    TrainedMember,
    train_each,
    train_members,
    windows_of,
)
from rnn_pipeline.networks.inference import predict_member
from rnn_pipeline.networks.kernels import reference
from rnn_pipeline.networks.randomness import Purpose, bits, epoch_order, stream_key
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import CPU, LOOKBACK, REFERENCE, make_member


def train(member: Member) -> TrainedMember:
    (trained,) = train_members([member], REFERENCE)
    return trained


def same_weights(a: TrainedMember, b: TrainedMember) -> bool:
    return all(torch.equal(a.state[name], b.state[name]) for name in a.state | b.state)


def test_training_equals_a_plain_loop_over_copied_windows() -> None:
    """The oracle: windows copied one by one, torch's unfused Adam, clipping written out."""
    member = make_member(
        training=TrainingSpec(
            epochs=2, batch_size=32, clip_norm=0.05, weight_decay=0.1, patience=None
        ),
        val_ends=np.array([100]),
    )
    network = RecurrentForecaster(member.network, 3)
    initialise(network, torch.Generator().manual_seed(member.seed))
    adam = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=0.1, foreach=False)
    history, states = [], []
    clipped = 0
    for epoch in range(2):
        squares = 0.0
        for rows in np.array_split(epoch_order(member.seed, epoch, 93), [32, 64]):
            ends = member.train_ends[rows]
            x = torch.stack([torch.tensor(member.inputs[e - 5 : e + 1]) for e in ends])
            y = torch.tensor(member.targets[ends])
            loss = ((network(x)[:, 0] - y) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in network.parameters()))
            if norm > 0.05:
                clipped += 1
                for p in network.parameters():
                    p.grad *= 0.05 / norm
            adam.step()
            squares += loss.item() * len(ends)
        history.append(squares / 93)
        states.append({name: value.clone() for name, value in network.state_dict().items()})

    trained = train(member)
    assert clipped, "the gradients never reach the norm at which they are clipped"
    assert trained.history.train_loss == pytest.approx(history, abs=1e-6)
    for name, value in states[trained.history.best_epoch].items():
        torch.testing.assert_close(trained.state[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_in_float64_a_member_is_what_torch_alone_makes_of_it(cell: str) -> None:
    """The oracle shares nothing with the fleet but the random numbers: nn layers, Adam, batches."""
    member = make_member(
        network=NetworkSpec(cell=cell, hidden_sizes=(5, 4), dropout=0.3),
        training=TrainingSpec(
            epochs=12,
            batch_size=32,
            learning_rate=0.02,
            weight_decay=0.01,
            clip_norm=0.3,
            patience=3,
        ),
        seed=3,
    )
    first = RecurrentForecaster(member.network, 3)
    initialise(first, torch.Generator().manual_seed(3))
    first = first.double()
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
    lower, upper = layer(3, 5, batch_first=True).double(), layer(5, 4, batch_first=True).double()
    head = nn.Linear(4, 1).double()
    lower.load_state_dict(first.recurrent.layers[0].state_dict())
    upper.load_state_dict(first.recurrent.layers[1].state_dict())
    head.load_state_dict(first.head.state_dict())
    modules = nn.ModuleDict({"lower": lower, "upper": upper, "head": head})
    adam = torch.optim.Adam(modules.parameters(), lr=0.02, weight_decay=0.01)

    def mask(shape: torch.Size, step: int, site: int) -> torch.Tensor:
        index = np.arange(shape.numel()).reshape(shape)
        drawn = bits(stream_key(3, Purpose.DROPOUT, step, site), index)
        return torch.from_numpy((drawn >= round(0.3 * 2**32)) / 0.7)

    def forward(ends: np.ndarray, step: int | None) -> torch.Tensor:
        x = torch.stack([torch.tensor(member.inputs[e - 5 : e + 1]) for e in ends]).double()
        x = lower(x)[0]
        x = x if step is None else x * mask(x.shape, step, 1)
        x = upper(x)[0][:, -1]
        x = x if step is None else x * mask(x.shape, step, 2)
        return head(x)[:, 0]

    def squared_error(ends: np.ndarray, step: int | None) -> torch.Tensor:
        return ((forward(ends, step) - torch.tensor(member.targets[ends]).double()) ** 2).mean()

    step, best, best_loss, kept, losses = 0, 0, np.inf, {}, []
    for epoch in range(12):
        order = member.train_ends[epoch_order(3, epoch, 93)]
        for ends in (order[:32], order[32:64], order[64:]):
            adam.zero_grad()
            squared_error(ends, step).backward()
            gradients = [p.grad for p in modules.parameters()]
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))
            for gradient in gradients:
                gradient *= min(1.0, 0.3 / (norm.item() + 1e-6))
            adam.step()
            step += 1
        with torch.no_grad():
            losses.append(squared_error(member.val_ends, None).item())
        if losses[-1] < best_loss:
            best, best_loss = epoch, losses[-1]
            kept = {name: value.clone() for name, value in modules.state_dict().items()}
        elif epoch - best >= 3:
            break
    assert 3 <= epoch < 11, "the case must stop early to mean anything"

    (trained,) = train_members([member], replace(REFERENCE, precision="float64"))
    assert trained.history.best_epoch == best
    assert trained.history.val_loss == pytest.approx(losses, abs=1e-12)
    for theirs, ours in (
        ("recurrent.layers.0", "lower"),
        ("recurrent.layers.1", "upper"),
        ("head", "head"),
    ):
        for name, value in kept.items():
            if name.startswith(ours):
                found = trained.state[name.replace(ours, theirs, 1)]
                torch.testing.assert_close(found, value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_best_weights_come_back(dropout: float) -> None:
    member = make_member(
        network=NetworkSpec(hidden_sizes=(16, 8), dropout=dropout),
        training=TrainingSpec(epochs=12, batch_size=16, learning_rate=0.1, patience=None),
    )
    trained = train(member)
    history = trained.history
    assert len(history.train_loss) == len(history.val_loss) == 12
    assert history.best_epoch < 11, "the case must overfit to mean anything"
    assert history.val_loss[history.best_epoch] == min(history.val_loss)
    forecasts = predict_member(trained, member.inputs, member.val_ends)
    recomputed = np.mean((forecasts - member.targets[member.val_ends]) ** 2)
    assert recomputed == pytest.approx(min(history.val_loss), abs=1e-6)


@pytest.mark.parametrize("patience", [1, 3])
def test_stops_after_patience_epochs_without_improvement(patience: int) -> None:
    spec = TrainingSpec(epochs=40, batch_size=16, learning_rate=0.03, patience=None)
    whole = train(make_member(training=spec)).history
    stopped = train(make_member(training=spec.model_copy(update={"patience": patience}))).history

    best, epoch = 0, 0  # replay the rule on the whole history
    while epoch < 40 and epoch - best < patience:
        epoch += 1
        if whole.val_loss[epoch] < whole.val_loss[best]:
            best = epoch
    assert epoch < 39
    assert stopped.best_epoch == best
    assert stopped.val_loss == whole.val_loss[: epoch + 1]


def test_a_member_depends_on_nothing_else() -> None:
    members = [
        make_member("lstm"),
        make_member("gru", network=NetworkSpec(cell="gru", hidden_sizes=(4,))),
        make_member("stacked", network=NetworkSpec(hidden_sizes=(6, 4), dropout=0.4)),
        make_member("rnn", network=NetworkSpec(cell="rnn", hidden_sizes=(4,), dropout=0.2), seed=3),
        make_member("short", train_ends=np.arange(5, 40), seed=1),
    ]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [train(member) for member in members]
        for workers, order in ((2, [3, 1, 4, 0, 2]), (3, [4, 3, 2, 1, 0]), (1, [0, 1, 2, 3, 4])):
            torch.set_num_threads(workers)
            torch.manual_seed(workers)
            together = train_members([members[place] for place in order], REFERENCE)
            assert torch.get_num_threads() == workers
            assert [trained.key for trained in together] == [members[p].key for p in order]
            for place, trained in zip(order, together, strict=True):
                assert same_weights(alone[place], trained)
                assert alone[place].history == trained.history
    finally:
        torch.set_num_threads(threads)


def test_seeds_decide_weights_order_and_masks() -> None:
    assert not same_weights(train(make_member()), train(make_member(seed=1)))
    assert same_weights(train(make_member(seed=1)), train(make_member(seed=1)))


MIXED = [
    make_member("a"),
    make_member("b", network=NetworkSpec(cell="gru", hidden_sizes=(4, 3), dropout=0.2), seed=1),
    make_member("c", training=TrainingSpec(epochs=9, batch_size=32, learning_rate=0.05), seed=2),
    make_member("d", network=NetworkSpec(cell="rnn", hidden_sizes=(4,), quantiles=(0.1, 0.9))),
    make_member("e", targets=np.random.default_rng(1).standard_normal((130, 2)).astype("f")),
    make_member("f", train_ends=np.arange(5, 40), seed=1),
]


def test_the_fused_kernel_agrees_with_the_reference_on_an_unequal_fleet() -> None:
    fused = train_members(MIXED, Compute(CPU, backend="cpu"))
    for one, other in zip(train_members(MIXED, REFERENCE), fused, strict=True):
        assert one.key == other.key
        assert one.n_outputs == other.n_outputs
        assert one.history.best_epoch == other.history.best_epoch
        assert one.history.val_loss == pytest.approx(other.history.val_loss, abs=1e-5)
        for name, value in one.state.items():
            torch.testing.assert_close(other.state[name], value, rtol=0, atol=1e-4)


def test_processes_give_the_bits_of_threads() -> None:
    apart = train_members(MIXED[:2], Compute(CPU, backend="processes"))
    for one, other in zip(train_members(MIXED[:2], REFERENCE), apart, strict=True):
        assert same_weights(one, other)
        assert one.history == other.history


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_small_budget_cuts_chunks_and_changes_no_bit(backend: Backend) -> None:
    """Members are made when their chunk begins and gone when it is over."""
    compute = Compute(CPU, backend=backend)
    whole = train_members(MIXED, compute)
    alive: weakref.WeakSet[Member] = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[Member]:
        nonlocal most
        for member in MIXED:
            made = replace(member)
            alive.add(made)
            most = max(most, len(alive))
            yield made
            del made

    handed_over: list[Mapping[int, TrainedMember]] = []
    budget = 2.5 * member_bytes(MIXED[0]) / 2**30
    train_each(stream(), replace(compute, memory_gb=budget), handed_over.append)
    assert most == 3  # a full chunk and the member that no longer fits
    assert len(handed_over) >= 3
    assert sorted(place for part in handed_over for place in part) == list(range(6))
    cut = dict(item for part in handed_over for item in part.items())
    for place, one in enumerate(whole):
        assert same_weights(one, cut[place])
        assert one.history == cut[place].history


def test_a_member_starts_from_the_weights_it_is_given() -> None:
    start = train(make_member(seed=5))
    once = TrainingSpec(epochs=1, batch_size=32, learning_rate=1e-9, weight_decay=0.0)
    for backend in ("reference", "cpu"):
        member = make_member(training=once, initial=start.state)
        (trained,) = train_members([member], Compute(CPU, backend=backend))
        for name, value in start.state.items():
            torch.testing.assert_close(trained.state[name], value, rtol=0, atol=1e-6)


def test_what_was_trained_before_a_failure_is_handed_over() -> None:
    spoilt = make_member("spoilt", network=NetworkSpec(hidden_sizes=(3,)))
    spoilt.inputs[50] = np.nan
    kept: dict[int, TrainedMember] = {}
    with pytest.raises(ValueError, match="'spoilt'"):
        train_each([MIXED[0], spoilt], REFERENCE, kept.update)
    assert list(kept) == [0]
    assert same_weights(kept[0], train(MIXED[0]))


def test_progress_counts_and_estimates_the_rest() -> None:
    lines: list[str] = []
    times = iter([100.0, 105.0, 110.0, 115.0, 1600.0, 1700.0])
    progress = Progress(2000, lines.append, every_s=10, clock=lambda: next(times))
    progress.begin()
    for networks in (100, 220, 80, 1000, 600):
        progress.add(networks)
    assert lines == [
        "320 of 2,000 networks trained, about 52 s left",
        "1,400 of 2,000 networks trained, about 11 min left",
        "2,000 networks trained in 27 min",
    ]


def test_reports_each_member_in_the_callers_thread() -> None:
    members = [make_member(key, seed=seed) for seed, key in enumerate("abcd")]
    reported: dict[int, TrainedMember] = {}
    threads = set()

    def on_trained(trained: Mapping[int, TrainedMember]) -> None:
        assert not reported.keys() & trained.keys()
        reported.update(trained)
        threads.add(threading.get_ident())

    train_each(iter(members), REFERENCE, on_trained)
    assert [reported[place].key for place in range(4)] == list("abcd")
    assert threads == {threading.get_ident()}
    assert train_members([], REFERENCE) == []


def test_inputs_may_be_a_read_only_memory_map(tmp_path: Path) -> None:
    member = make_member()
    np.save(tmp_path / "inputs.npy", member.inputs)
    mapped = replace(member, inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"))
    assert same_weights(train(member), train(mapped))


def test_windows_are_a_view_that_ends_where_it_says() -> None:
    inputs = torch.arange(24.0).reshape(8, 3)
    windows = windows_of(inputs, 5)
    assert windows.shape == (4, 5, 3)
    assert windows.data_ptr() == inputs.data_ptr()
    assert torch.equal(windows[2], inputs[2:7])


@pytest.mark.parametrize("spoilt", ["inputs", "targets"])
def test_a_loss_that_is_not_finite_names_member_and_epoch(spoilt: str) -> None:
    member = make_member("IBM|fold 3")
    getattr(member, spoilt)[50] = np.nan
    with pytest.raises(ValueError, match=r"'IBM\|fold 3': the loss is not finite in epoch 0.*NaN"):
        train_members([make_member(), member, make_member()], REFERENCE)


def test_a_failure_stops_the_rest_and_workers_keep_to_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads_seen = []

    def fail(*_: object) -> TrainedMember:
        threads_seen.append(torch.get_num_threads())
        time.sleep(0.05)
        raise ValueError("spoilt")

    monkeypatch.setattr(reference, "train_member", fail)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="spoilt"):
            train_members([make_member() for _ in range(40)], REFERENCE)
    finally:
        torch.set_num_threads(threads)
    assert len(threads_seen) < 10
    assert set(threads_seen) == {1}


def test_members_with_impossible_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="training of member 'AAPL': no windows"):
        make_member(train_ends=np.array([], dtype=int))
    with pytest.raises(ValueError, match=r"validation of member 'AAPL'.* within 5 to 129"):
        make_member(val_ends=np.array([129, 130]))
    with pytest.raises(ValueError, match=f"lookback {LOOKBACK}"):
        make_member(train_ends=np.array([4, 5]))
    with pytest.raises(ValueError, match=r"\(129,\)"):
        make_member(targets=np.zeros(129, np.float32))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_learns_a_signal_and_finds_none_in_noise(cell: str) -> None:
    """R2 against the zero forecast on unseen rows: high for a noisy sine, none for noise."""
    rng = np.random.default_rng(1)
    n = 900
    noise = rng.standard_normal(n)
    sine = np.sin(np.arange(n) / 3) + 0.3 * noise
    r2 = {}
    for name, series in (("sine", sine), ("noise", noise)):
        series = (series / series[:500].std()).astype(np.float32)
        member = make_member(
            name,
            network=NetworkSpec(cell=cell, hidden_sizes=(16,)),
            training=TrainingSpec(epochs=10, batch_size=64, learning_rate=0.01),
            inputs=series[:, None],
            targets=np.append(series[1:], np.float32(np.nan)),
            train_ends=np.arange(11, 500),
            val_ends=np.arange(501, 600),
            lookback=12,
        )
        test = np.arange(601, n - 1)
        forecasts = predict_member(train(member), member.inputs, test)
        errors = forecasts - member.targets[test]
        r2[name] = 1 - np.sum(errors**2) / np.sum(member.targets[test] ** 2)
    assert r2["sine"] > 0.7
    assert -0.1 < r2["noise"] < 0.03


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_repeats_itself_and_agrees_with_the_cpu() -> None:
    members = [make_member("a"), make_member("b", network=NetworkSpec(cell="gru"), seed=2)]
    gpu = Compute(torch.device("cuda"), backend="reference")
    once, again = (train_members(members, gpu) for _ in range(2))
    for first, second, cpu in zip(once, again, train_members(members, REFERENCE), strict=True):
        assert same_weights(first, second)
        for name, value in cpu.state.items():
            torch.testing.assert_close(first.state[name], value, rtol=0, atol=1e-4)
    train_members(members, replace(gpu, precision="bfloat16"))


BARE = """
import sys
from types import SimpleNamespace as Spec

for blocked in ("pandas", "pydantic", "safetensors", "dagster"):
    sys.modules[blocked] = None

import numpy as np
import torch
from rnn_pipeline.networks.fleet import Compute, Member, train_members
from rnn_pipeline.networks.inference import predict_members

rng = np.random.default_rng(0)
network = Spec(cell="gru", hidden_sizes=(4,), dropout=0.1, quantiles=())
training = Spec(epochs=2, batch_size=16, learning_rate=1e-3, weight_decay=0.0, schedule="constant",
                warmup_epochs=0.0, clip_norm=None, input_noise=0.0, patience=None)
rows = rng.standard_normal((80, 3)).astype("f")
ends = np.arange(5, 60), np.arange(60, 79)
member = Member("a", network, training, rows, rows[:, 0], *ends, lookback=6, seed=0)
trained = train_members([member], Compute(torch.device("cpu")))
print(predict_members(trained, [rows], [ends[1]])[0].shape)
"""


def test_torch_and_numpy_are_enough() -> None:
    """So that a fleet runs on a bare GPU machine."""
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(19, 1)"
