import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnn_pipeline.networks.tensorboard import log_history
from rnn_pipeline.networks.training import History, learning_rates
from rnn_pipeline.settings import TrainingSpec

from .test_walk_forward import by_recipe, datasets, train

HISTORY = History([0.9, 0.5, 0.4], [1.0, 0.75, 0.875], 1)
RATES = learning_rates(TrainingSpec(epochs=5, batch_size=4, schedule="cosine"), 10)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_a_history_comes_back_from_its_event_file(tmp_path: Path) -> None:
    folder = tmp_path / "AAPL" / "lstm" / "0" / "1"
    log_history(folder, History([2.0], [3.0], 0), RATES)
    log_history(folder, HISTORY, RATES)
    found = scalars(folder)
    assert found.keys() == {"loss/train", "loss/val", "learning_rate"}
    for tag, values in (
        ("loss/train", HISTORY.train_loss),
        ("loss/val", HISTORY.val_loss),
        ("learning_rate", RATES[:3, -1].tolist()),
    ):
        assert [step for step, _ in found[tag]] == [0, 1, 2]
        assert [value for _, value in found[tag]] == pytest.approx(values)


def test_without_tensorboard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"rnn-pipeline\[tensorboard\]"):
        log_history(tmp_path, HISTORY, RATES)


def test_a_walk_forward_logs_every_network_that_it_trains(tmp_path: Path) -> None:
    data = datasets(tickers=["AAPL"])[:2]
    fitted, trained = train(data, warm_epochs=2, log_dir=tmp_path)
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("events*")}
    members = {member.key: member for member in fitted["AAPL"].members.values()}
    assert folders == members.keys()
    assert len(folders) == trained == 4
    for key, epochs in (("AAPL/lstm/0/1", 4), ("AAPL/lstm/1/1", 2)):
        losses = [value for _, value in scalars(tmp_path / key)["loss/val"]]
        assert len(losses) == epochs
        assert losses == pytest.approx(members[key].history.val_loss)
    train(data, by_recipe(fitted.values()), warm_epochs=2, log_dir=tmp_path / "again")
    assert not (tmp_path / "again").exists()
