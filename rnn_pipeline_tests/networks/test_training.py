import math
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnn_pipeline.networks.checkpoints import FitFile, read_checkpoint
from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.randomness import epoch_order, normal
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.networks.training import Batch, FitState, History, fit, learning_rates
from rnn_pipeline.settings import NetworkSpec, TrainingSpec


def test_every_row_is_visited_once_an_epoch_in_changing_order() -> None:
    visited: list[list[int]] = []
    network = nn.Linear(1, 1)
    x = torch.randn(20, 1)

    def batch(rows: Tensor) -> tuple[Tensor, Tensor]:
        visited.append(rows.tolist())
        return x[rows], x[rows]

    fit(
        network,
        nn.functional.mse_loss,
        batch,
        torch.arange(13),
        torch.arange(13, 20),
        TrainingSpec(epochs=2, batch_size=5, patience=None),
        seed=0,
    )
    assert [len(rows) for rows in visited] == [5, 5, 3, 7] * 2
    first, second = (list(chain(*visited[i : i + 3])) for i in (0, 4))
    assert sorted(first) == sorted(second) == list(range(13))
    assert first != second
    assert visited[3] == visited[7] == list(range(13, 20))


def test_no_rows_to_learn_from_or_to_stop_by_are_refused() -> None:
    arguments = (TrainingSpec(), 0)
    for train_rows, val_rows in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=f"{train_rows} training and {val_rows} validation"):
            fit(
                nn.Linear(1, 1),
                nn.functional.mse_loss,
                lambda rows: (rows, rows),
                torch.arange(train_rows),
                torch.arange(val_rows),
                *arguments,
            )


def test_the_learning_rate_warms_up_and_follows_its_schedule() -> None:
    flat = TrainingSpec(epochs=3, batch_size=4, learning_rate=0.1)
    assert learning_rates(flat, 9).tolist() == [[0.1] * 3] * 3
    warm = flat.model_copy(update={"warmup_epochs": 1.0, "schedule": "cosine"})
    rates = learning_rates(warm, 9)
    np.testing.assert_allclose(rates[0], [0.1 / 3, 0.2 / 3, 0.1])
    np.testing.assert_allclose(
        rates[1:].ravel(), 0.05 * (1 + np.cos(np.pi * np.arange(1, 7) / 7)), rtol=1e-12
    )
    with pytest.raises(ValueError, match="warmup_epochs 4 is longer than the training's 3"):
        TrainingSpec(epochs=3, warmup_epochs=4)


def test_noise_is_added_to_the_inputs_of_training_alone() -> None:
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen[self.training].append(x.detach().clone())
            return super().forward(x)

    x = torch.zeros(600, 2)
    spec = TrainingSpec(epochs=2, batch_size=250, input_noise=0.5, patience=None)
    fit(
        Watched(2, 1),
        nn.functional.mse_loss,
        lambda rows: (x[rows], x[rows, :1]),
        torch.arange(500),
        torch.arange(500, 600),
        spec,
        seed=3,
    )
    noise = torch.stack(seen[True])
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(noise.mean().item()) < 0.03
    assert noise.unique().numel() == noise.numel()
    assert not torch.stack(seen[False]).any()


def problem(n_rows: int = 120) -> tuple[Batch, Tensor, Tensor]:
    """Rows to learn from: what ``fit`` takes beside the network."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n_rows, 6, 3, generator=generator)
    y = torch.randn(n_rows, 1, generator=generator)
    return lambda rows: (x[rows], y[rows]), torch.arange(90), torch.arange(90, n_rows)


def fresh() -> RecurrentForecaster:
    network = RecurrentForecaster(NetworkSpec(hidden_sizes=(6, 4), dropout=0.3), 3)
    initialise(network, torch.Generator().manual_seed(1))
    return network


def learn(spec: TrainingSpec, seed: int = 0, **arguments: Any) -> tuple[dict[str, Tensor], History]:
    network = fresh()
    with numerics(torch.device("cpu")):
        history = fit(network, nn.functional.mse_loss, *problem(), spec, seed=seed, **arguments)
    return network.state_dict(), history


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a | b)


def test_schedule_decay_clipping_and_noise_equal_a_plain_loop() -> None:
    """The oracle: torch's unfused Adam, the schedule, clipping and noise written out."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 3, generator=generator)
    y = torch.randn(50, 1, generator=generator)
    network = nn.Linear(3, 1)
    initialise(network, generator)
    twin = deepcopy(network)
    spec = TrainingSpec(
        epochs=4,
        batch_size=16,
        learning_rate=0.1,
        schedule="cosine",
        warmup_epochs=1.0,
        weight_decay=0.3,
        clip_norm=0.8,
        input_noise=0.2,
        patience=None,
    )
    adam = torch.optim.Adam(twin.parameters(), lr=1.0, weight_decay=0.3, foreach=False)
    epochs, clipped = [], 0
    for epoch in range(4):
        for i, rows in enumerate(np.split(epoch_order(9, epoch, 40), [16, 32])):
            step = 3 * epoch + i
            falling = 0.1 * (1 + math.cos(math.pi * (step - 2) / 10)) / 2
            adam.param_groups[0]["lr"] = 0.1 * (step + 1) / 3 if step < 3 else falling
            noise = normal(9, step, torch.arange(3 * len(rows))).view(-1, 3)
            adam.zero_grad()
            ((twin(x[rows] + 0.2 * noise) - y[rows]) ** 2).mean().backward()
            norm = math.sqrt(sum(float((p.grad**2).sum()) for p in twin.parameters()))
            clipped += norm > 0.8
            for p in twin.parameters():
                p.grad *= min(1.0, 0.8 / norm)
            adam.step()
        epochs.append(deepcopy(twin.state_dict()))
    history = fit(
        network,
        nn.functional.mse_loss,
        lambda rows: (x[rows], y[rows]),
        torch.arange(40),
        torch.arange(40, 50),
        spec,
        seed=9,
    )
    assert 0 < clipped < 12, "the case must clip some gradients and leave others"
    for name, value in epochs[history.best_epoch].items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=2e-6)


def test_each_epoch_is_reported_and_may_be_the_last() -> None:
    seen: list[tuple[int, float, float]] = []
    _, history = learn(
        TrainingSpec(epochs=3, patience=None), on_epoch=lambda *losses: seen.append(losses)
    )
    assert seen == list(zip(range(3), history.train_loss, history.val_loss, strict=True))

    def enough(epoch: int, _train: float, _val: float) -> None:
        if epoch == 1:
            raise StopIteration

    with pytest.raises(StopIteration):
        learn(TrainingSpec(epochs=3), on_epoch=enough)


RESUMED = TrainingSpec(
    epochs=60, batch_size=32, schedule="cosine", warmup_epochs=2, input_noise=0.1, patience=None
)
KILLED = """
import sys, time
from pathlib import Path
from rnn_pipeline.networks.checkpoints import FitFile
from rnn_pipeline_tests.networks.test_training import RESUMED, learn

def slowly(epoch, *_):
    print(epoch, flush=True)
    time.sleep(0.2 * (epoch > 4))

learn(RESUMED, checkpoint=FitFile(Path(sys.argv[1])), on_epoch=slowly)
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(5):
            assert child.stdout.readline()
        child.kill()
    (stored,) = read_checkpoint(path, "training state")
    done = History(**stored.description["history"])
    assert 5 <= len(done.val_loss) < 60, "it was to be killed half-way"

    epochs: list[int] = []
    resumed, history = learn(
        RESUMED, checkpoint=FitFile(path), on_epoch=lambda epoch, *_: epochs.append(epoch)
    )
    assert epochs == list(range(len(done.val_loss), 60))
    whole, uninterrupted = learn(RESUMED)
    assert same(resumed, whole)
    assert history == uninterrupted
    assert learn(RESUMED, checkpoint=FitFile(path))[1] == history
    FitFile(path).remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop_at", [2, 3])
@pytest.mark.parametrize("every", [1, 2])
def test_patience_and_the_best_epoch_survive_an_interruption(
    tmp_path: Path, every: int, stop_at: int
) -> None:
    spec = TrainingSpec(epochs=30, batch_size=16, learning_rate=0.05, patience=2)
    whole, history = learn(spec)
    assert history.best_epoch + 2 == len(history.val_loss) - 1 < 29, "the case must stop early"

    def interrupt(epoch: int, *_: float) -> None:
        if epoch == stop_at:
            raise KeyboardInterrupt

    file = FitFile(tmp_path / "fit.safetensors", every=every)
    with pytest.raises(KeyboardInterrupt):
        learn(spec, checkpoint=file, on_epoch=interrupt)
    resumed, again = learn(spec, checkpoint=file)
    assert same(resumed, whole)
    assert again == history


@pytest.mark.parametrize(
    "changed",
    ["spec", "seed", "recipe"],
)
def test_the_state_of_another_training_is_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    spec = TrainingSpec(epochs=2, patience=None)
    file = FitFile(tmp_path / "fit.safetensors")
    learn(spec, checkpoint=file)
    seed = int(changed == "seed")
    if changed == "spec":
        spec = spec.model_copy(update={"weight_decay": 0.5})
    epochs: list[int] = []
    resumed, _ = learn(
        spec,
        seed,
        checkpoint=replace(file, recipe="smoothing 0.1" if changed == "recipe" else ""),
        on_epoch=lambda epoch, *_: epochs.append(epoch),
    )
    assert epochs == [0, 1]
    assert same(resumed, learn(spec, seed)[0])
    assert "other data, settings or code: it is not used" in caplog.text


def test_what_a_training_sees_is_its_recipe() -> None:
    recipes: list[str] = []

    class Watch:
        every = 1

        def save(self, state: FitState) -> None: ...

        def load(self, recipe: str) -> None:
            recipes.append(recipe)

    batch, train_rows, val_rows = problem()
    nudged = fresh()
    with torch.no_grad():
        nudged.head.bias += 1e-6
    spec = TrainingSpec(epochs=1)
    quieter = NetworkSpec(hidden_sizes=(6, 4), dropout=0.2)
    for network, rows, gather in (
        (fresh(), train_rows, batch),
        (fresh(), train_rows, batch),
        (nudged, train_rows, batch),
        (RecurrentForecaster(quieter, 3), train_rows, batch),
        (fresh(), train_rows[1:], batch),
        (fresh(), train_rows, lambda rows: (batch(rows)[0], batch(rows)[1] * (1 + 1e-6))),
    ):
        if network.dropout.p == 0.2:
            network.load_state_dict(fresh().state_dict())
        fit(
            network,
            nn.functional.mse_loss,
            gather,
            rows,
            val_rows,
            spec,
            seed=0,
            checkpoint=Watch(),
        )
    assert recipes[0] == recipes[1]
    assert len(set(recipes)) == 5


def test_a_damaged_state_is_an_error_and_names_its_file(tmp_path: Path) -> None:
    file = FitFile(tmp_path / "fit.safetensors")
    learn(TrainingSpec(epochs=1), checkpoint=file)
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"fit.safetensors is damaged .* delete it"):
        learn(TrainingSpec(epochs=1), checkpoint=file)


def test_bfloat16_on_a_cpu_is_float32() -> None:
    spec = TrainingSpec(epochs=2)
    assert same(learn(spec, precision="bfloat16")[0], learn(spec)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bfloat16_on_a_gpu_computes_the_forward_pass_alone() -> None:
    device = torch.device("cuda")
    batch, train_rows, val_rows = problem()
    seen: dict[str, torch.dtype] = {}

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        seen["loss"] = outputs.dtype
        return nn.functional.mse_loss(outputs, target)

    histories = {}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        network = fresh().to(device)
        network.head.register_forward_hook(lambda _m, _x, y: seen.update(head=y.dtype))
        with numerics(device, precision):
            histories[precision] = fit(
                network,
                loss,
                lambda rows: tuple(tensor.to(device) for tensor in batch(rows.cpu())),
                train_rows,
                val_rows,
                TrainingSpec(epochs=10, patience=None),
                0,
                precision,
            )
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())
    assert seen == {"head": torch.bfloat16, "loss": torch.float32}
    exact, rounded = (histories[precision].val_loss for precision in precisions)
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.02)
