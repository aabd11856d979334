from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnn_pipeline.networks.base import Estimator
from rnn_pipeline.networks.recurrent import initialise
from rnn_pipeline.networks.training import fit as train
from rnn_pipeline.settings import TrainingSpec


class Line(Estimator):
    """The least an estimator can be: y = a x + b."""

    offset = 0.0

    def fit(self, x: Tensor, y: Tensor, epochs: int = 3, lr: float = 0.1) -> dict[str, list[float]]:
        network = nn.Linear(1, 1)
        initialise(network, torch.Generator().manual_seed(self.seed))
        rows = torch.arange(len(x))
        self.offset = 0.5
        spec = self._training(epochs, batch_size=5, lr=lr)
        with self._shown(epochs) as on_epoch:
            history = train(
                network,
                nn.functional.mse_loss,
                lambda rows: (x[rows], y[rows]),
                rows[:-4],
                rows[-4:],
                spec,
                self.seed,
                on_epoch=on_epoch,
            )
        self.model = network
        self.history = {"train_loss": history.train_loss, "val_loss": history.val_loss}
        return self.history

    def predict(self, x: Tensor) -> Tensor:
        return self._trained()(x).detach()

    def _describe(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def _restore(self, description: dict[str, Any]) -> nn.Module:
        self.offset = description["offset"]
        return nn.Linear(1, 1)


class Other(Line):
    """Another kind of the same."""


X = torch.linspace(-1, 1, 24)[:, None]
Y = 2 * X + 1


def test_before_training_there_is_nothing_to_predict_or_save(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Model must be trained before prediction$"):
        Line().predict(X)
    with pytest.raises(ValueError, match=r"^Model must be trained before saving$"):
        Line().save(tmp_path / "line")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("on_class", [True, False], ids=["class", "instance"])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, on_class: bool) -> None:
    line = Line(seed=3, training=TrainingSpec(patience=None, weight_decay=0.01))
    line.fit(X, Y)
    path = str(tmp_path / "new" / "line.safetensors")
    line.save(path)
    fresh = Line()
    back = Line.load(path) if on_class else fresh.load(path)
    assert (back is fresh) == (not on_class)
    assert torch.equal(back.predict(X), line.predict(X))
    assert (back.seed, back.training, back.history) == (3, line.training, line.history)
    assert back.offset == 0.5
    assert isinstance(back, Line)
    with pytest.raises(ValueError, match="is a Line, not a Other"):
        Other.load(path)
    with pytest.raises(ValueError, match=r"absent.* does not exist"):
        Line.load(tmp_path / "absent")


def test_a_file_of_a_version_with_another_layout_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    line.fit(X, Y)
    line.save(tmp_path / "line")
    with monkeypatch.context() as later:
        later.setattr(Line, "_restore", lambda self, description: nn.Linear(2, 1))
        with pytest.raises(ValueError, match=r"line is a Line of another version.*train it again"):
            Line.load(tmp_path / "line")
    monkeypatch.setattr(Line, "_restore", lambda self, description: description["slope"])
    with pytest.raises(ValueError, match="of another version"):
        Line.load(tmp_path / "line")


def test_the_seed_decides() -> None:
    first, again, other = (Line(seed=seed) for seed in (1, 1, 2))
    for line in (first, again, other):
        line.fit(X, Y)
    assert torch.equal(first.predict(X), again.predict(X))
    assert not torch.equal(first.predict(X), other.predict(X))
    kept = first.predict(X)
    first.fit(X, Y)
    assert torch.equal(first.predict(X), kept), "a second fit starts anew"


def test_every_epoch_is_run_and_reported_unless_patience_is_asked_for() -> None:
    told: list[tuple[int, int]] = []

    def tell(epoch: int, epochs: int, train_loss: float, val_loss: float) -> None:
        told.append((epoch, epochs))
        assert train_loss > 0 < val_loss

    history = Line(progress=tell).fit(X, Y, epochs=40, lr=3.0)
    assert [len(losses) for losses in history.values()] == [40, 40]
    assert told == [(epoch, 40) for epoch in range(1, 41)]
    stopped = Line(training=TrainingSpec(patience=1)).fit(X, Y, epochs=40, lr=3.0)
    assert len(stopped["val_loss"]) < 40


def test_a_bar_is_drawn_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Line().fit(X, Y)
    assert capsys.readouterr() == ("", "")
    Line(progress=True).fit(X, Y)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Line loss" in err
    assert "100%" in err


def test_devices_are_devices_and_wrong_values_are_named() -> None:
    assert Line().device == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert Line(device="cpu").device == Line(device=torch.device("cpu")).device
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        Line(device="tpu")
    with pytest.raises(ValueError, match=r"^epochs = 0: Input should be greater than or equal"):
        Line().fit(X, Y, epochs=0)
    with pytest.raises(ValueError, match=r"^lr = -1\.0: Input should be greater than 0$"):
        Line().fit(X, Y, lr=-1.0)
    with pytest.raises(ValueError, match="warmup_epochs 2 is longer than the training's 1 epochs"):
        Line(training=TrainingSpec(warmup_epochs=2)).fit(X, Y, epochs=1)
