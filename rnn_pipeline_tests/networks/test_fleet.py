import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember, train_members, windows_of
from rnn_pipeline.networks.inference import predict_member
from rnn_pipeline.networks.kernels import reference
from rnn_pipeline.networks.randomness import epoch_order
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import LOOKBACK, REFERENCE, make_member


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


def test_reports_each_member_in_the_callers_thread() -> None:
    members = [make_member(key, seed=seed) for seed, key in enumerate("abcd")]
    reported: dict[int, TrainedMember] = {}
    threads = set()

    def on_trained(trained: Mapping[int, TrainedMember]) -> None:
        assert not reported.keys() & trained.keys()
        reported.update(trained)
        threads.add(threading.get_ident())

    trained = train_members(iter(members), REFERENCE, on_trained=on_trained)
    assert [reported[place] for place in range(4)] == trained
    assert [t.key for t in trained] == list("abcd")
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
