import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.features.folds import walk_forward
from rnn_pipeline.features.windows import FoldData, ModelMatrix, fold_datasets, window_index
from rnn_pipeline.networks import fleet
from rnn_pipeline.networks.checkpoints import weights_hash
from rnn_pipeline.networks.fleet import TrainedMember, train_members
from rnn_pipeline.networks.walk_forward import (
    Forecaster,
    StoredForecasters,
    StoredNetworks,
    train_walk_forward,
    walk_forward_forecasts,
)
from rnn_pipeline.settings import FoldSpec, NetworkSpec, TrainingSpec

from .members import LOOKBACK, REFERENCE, make_member

COLUMNS = ("one", "two", "three")
TICKERS = ("AAPL", "IBM", "MSFT")
NETWORK = NetworkSpec(cell="lstm", hidden_sizes=(4,))
TRAINING = TrainingSpec(epochs=4, batch_size=32, patience=None)
SEEDS = (0, 1)


def datasets(sessions: int = 265, tickers: Sequence[str] = TICKERS) -> list[FoldData]:
    """Noise of three features: each further 40 sessions are a fold more."""
    axis = pd.bdate_range("2020-01-01", periods=400)[:sessions]
    frames = []
    for number, ticker in enumerate(tickers):
        noise = np.random.default_rng(number).standard_normal((400, 4))[:sessions]
        frame = pd.DataFrame(noise, columns=[*COLUMNS, "target"])
        frames.append(frame.assign(ticker=ticker, session=axis))
    rows = pd.concat(frames, ignore_index=True)
    matrix = ModelMatrix.build(rows, COLUMNS)
    targets = rows.assign(target_session=rows.groupby("ticker")["session"].shift(-1))
    index = window_index(matrix, targets.dropna(), axis, LOOKBACK)
    folds = walk_forward(len(axis), FoldSpec(train_size=120, val_size=30, test_size=40), horizon=1)
    return list(fold_datasets(matrix, index, folds))


def train(
    data: Sequence[FoldData], known: Mapping[str, TrainedMember] | None = None, **changes: Any
) -> tuple[dict[str, Forecaster], int]:
    """The forecasters by ticker, and how many networks were trained."""
    arguments: dict[str, Any] = {"training": TRAINING, "seeds": SEEDS, "compute": REFERENCE}
    arguments |= {"model": "lstm", "network": NETWORK, "networks": dict(known or {})}
    complete: list[Forecaster] = []
    arguments |= {"on_complete": complete.extend} | changes
    trained = train_walk_forward(columns=COLUMNS, datasets=data, **arguments)
    return {forecaster.ticker: forecaster for forecaster in complete}, trained


def by_recipe(forecasters: Iterable[Forecaster]) -> dict[str, TrainedMember]:
    """Their networks, under the hashes of what they were trained from and how."""
    return {
        forecaster.recipes[place]: member
        for forecaster in forecasters
        for place, member in forecaster.members.items()
    }


def hashes(fitted: Mapping[str, Forecaster]) -> dict[str, str]:
    return {
        member.key: weights_hash(member.state)
        for forecaster in fitted.values()
        for member in forecaster.members.values()
    }


def test_a_new_fold_trains_alone_and_old_ones_are_as_they_were() -> None:
    before, trained = train(datasets())
    assert trained == len(hashes(before)) == 3 * 3 * 2
    again, trained = train(datasets(), by_recipe(before.values()))
    assert (hashes(again), trained) == (hashes(before), 0)
    longer, trained = train(datasets(266), by_recipe(before.values()))
    assert (hashes(longer), trained) == (hashes(before), 0), "a session more is none to train on"
    grown, trained = train(datasets(300), by_recipe(before.values()))
    assert trained == 3 * 2
    assert hashes(grown).items() > hashes(before).items()
    assert hashes(grown) == hashes(train(datasets(300))[0])


def test_forecasters_are_complete_as_soon_as_their_networks_are() -> None:
    told: list[str] = []
    known = by_recipe(train(datasets(tickers=["IBM"]))[0].values())
    # The noise of a ticker follows from its place in the list.
    data = [*datasets(tickers=["IBM"]), *datasets(tickers=["IBM", "MSFT"])[3:]]
    fitted, trained = train(data, known, tell=told.append)
    assert list(fitted) == ["IBM", "MSFT"]
    assert trained == 6
    assert told[-1].startswith("6 networks trained in")


def test_warm_folds_start_from_the_fold_before() -> None:
    """Written out for one ticker: each fold trains from the last one's weights, and shortly."""
    data = datasets(tickers=["AAPL"])
    warm, trained = train(data, seeds=(3,), warm_epochs=2)
    assert trained == 3
    initial = None
    for fold in data:
        spec = TRAINING if initial is None else TRAINING.model_copy(update={"epochs": 2})
        member = make_member(
            network=NETWORK,
            training=spec,
            inputs=fold.inputs,
            targets=fold.targets,
            train_ends=fold.train_ends,
            val_ends=fold.val_ends,
            seed=3,
            initial=initial,
        )
        (by_hand,) = train_members([member], REFERENCE)
        initial = by_hand.state
        made = warm["AAPL"].members[fold.fold, 3]
        assert weights_hash(made.state) == weights_hash(by_hand.state)
        assert len(made.history.val_loss) == spec.epochs


def test_a_warm_recipe_holds_the_folds_before_it() -> None:
    """What the first fold was trained on decides what all later ones are."""
    data = datasets(tickers=["AAPL"])
    warm, _ = train(data, warm_epochs=2)
    cold, trained = train(data, by_recipe(warm.values()))
    assert trained == 2 * 2, "first folds are the same"
    assert not set(list(hashes(warm).values())[2:]) & set(hashes(cold).values())
    assert train(data, by_recipe(warm.values()), warm_epochs=3)[1] == 2 * 2
    moved = [replace(data[0], targets=data[0].targets * np.float32(1.01)), *data[1:]]
    assert train(moved, by_recipe(warm.values()))[1] == 2 + 2 * 2
    assert train(moved, by_recipe(warm.values()), warm_epochs=2)[1] == 3 * 2
    grown, trained = train(datasets(300, ["AAPL"]), by_recipe(warm.values()), warm_epochs=2)
    assert trained == 2
    assert hashes(grown).items() > hashes(warm).items()


class Killed(StoredNetworks):
    """Dies when it was handed eight networks."""

    handed = 0

    def update(self, networks: Mapping[str, TrainedMember], /) -> None:
        super().update(networks)
        self.handed += len(networks)
        if self.handed == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def save(folder: Path, complete: Sequence[Forecaster]) -> None:
    for forecaster in complete:
        forecaster.save(folder / f"{forecaster.ticker}.safetensors", {})


def kill_in_training(folder: Path) -> None:
    """Train as the assets do, handing over one network at a time, and die on the way."""
    fleet.HAND_OVER_S = 0.0
    train(datasets(), networks=Killed(folder / "unfinished"), on_complete=partial(save, folder))


def test_a_kill_loses_nothing_that_was_handed_over(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        f" from {__name__} import kill_in_training; kill_in_training(Path(sys.argv[1]))"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    saved = list(tmp_path.glob("*.safetensors"))
    assert [path.stem for path in saved] == ["AAPL"]

    complete, trained = train(datasets(), networks=StoredNetworks(tmp_path / "unfinished", saved))
    # The first ticker's sixth network completed it; five of it and three of the next were kept.
    assert trained == 18 - 6 - 3
    assert hashes(complete) == hashes(train(datasets())[0])


def test_unfinished_networks_are_forgotten_with_their_tickers(tmp_path: Path) -> None:
    fitted, _ = train(datasets())
    one, other = ({ticker: fitted[ticker]} for ticker in ("AAPL", "MSFT"))
    both = by_recipe([*one.values(), *other.values()])
    unfinished = StoredNetworks(tmp_path / "folder")
    unfinished.update(by_recipe(one.values()))
    unfinished.update(both)
    unfinished.update({})
    unfinished.forget(["AAPL"])
    assert len(list((tmp_path / "folder").iterdir())) == 1
    found = StoredNetworks(tmp_path / "folder")
    assert all(weights_hash(found[r].state) == weights_hash(both[r].state) for r in both)
    unfinished.forget(["AAPL", "MSFT", "IBM"])
    assert not any(recipe in StoredNetworks(tmp_path / "folder") for recipe in both)


@pytest.mark.parametrize("warm_epochs", [None, 1])
def test_no_network_stays_in_memory_once_it_is_in_a_file(
    warm_epochs: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network at a time: what waits lies in files, and what is complete is gone."""
    monkeypatch.setattr(fleet, "HAND_OVER_S", 0.0)
    monkeypatch.setattr("rnn_pipeline.networks.walk_forward.TOGETHER", 1)
    made: weakref.WeakSet[TrainedMember] = weakref.WeakSet()
    alive = []

    class Watched(StoredNetworks):
        def update(self, networks: Mapping[str, TrainedMember], /) -> None:
            made.update(networks.values())
            alive.append(len(made))
            super().update(networks)

    def keep(complete: Sequence[Forecaster]) -> None:
        alive.append(len(made))
        made.update(member for one in complete for member in one.members.values())
        save(tmp_path, complete)

    compute = replace(REFERENCE, memory_gb=1e-9)
    networks = Watched(tmp_path / "unfinished")
    arguments = {"networks": networks, "compute": compute, "warm_epochs": warm_epochs}
    _, trained = train(datasets(), on_complete=keep, **arguments)
    assert trained == 18
    assert max(alive) == 1


def test_forecasts_together_are_the_forecasts_alone() -> None:
    data = datasets()
    fitted, _ = train(data)
    others, _ = train(data, seeds=(7,))
    together = walk_forward_forecasts(data, [fitted, others])
    alone = [
        model[fold.ticker].forecast(fold.fold, fold.inputs, fold.test_ends, fold.sessions)
        for fold in data
        for model in (fitted, others)
    ]
    assert len(together) == sum(len(fold.test_ends) for fold in data) * 3
    assert_frame_equal(together, pd.concat(alone, ignore_index=True), check_exact=True)
    last = alone[-1].iloc[-1]
    fold = data[-1]
    outputs = others[fold.ticker].members[fold.fold, 7]
    assert last["model_hash"] == weights_hash(outputs.state)[:16]
    assert walk_forward_forecasts([], [fitted]).dtypes.equals(together.dtypes)


def test_stored_forecasters_are_read_one_at_a_time_and_forecast_the_same(tmp_path: Path) -> None:
    data = datasets()
    fitted, _ = train(data)
    save(tmp_path, list(fitted.values()))
    paths = {ticker: tmp_path / f"{ticker}.safetensors" for ticker in fitted}
    stored = StoredForecasters(paths | {"GONE": tmp_path / "gone"})
    assert "GONE" in stored
    assert "OTHER" not in stored
    assert len(stored) == 4
    together = walk_forward_forecasts(data, [stored])
    assert_frame_equal(together, walk_forward_forecasts(data, [fitted]), check_exact=True)
    read = [weakref.ref(stored[ticker]) for ticker in paths]
    assert sum(one() is not None for one in read) == 1
    with pytest.raises(ValueError, match="does not exist"):
        stored["GONE"]


def test_loss_curves_have_a_line_per_epoch() -> None:
    (forecaster,) = train(datasets(tickers=["AAPL"]))[0].values()
    history = forecaster.history
    assert len(history) == 3 * 2 * 4
    line = history.set_index(["fold", "seed", "epoch"]).loc[(1, 1, 2)]
    member = forecaster.members[1, 1]
    assert (line["train_loss"], line["val_loss"]) == (
        member.history.train_loss[2],
        member.history.val_loss[2],
    )
    assert history["epoch"].tolist() == [0, 1, 2, 3] * 6


@pytest.mark.parametrize("missing", ["two", "order"])
def test_other_features_than_it_was_trained_on_are_refused(missing: str) -> None:
    (forecaster,) = train(datasets(tickers=["AAPL"]))[0].values()
    columns = tuple(reversed(COLUMNS)) if missing == "order" else ("one", "three")
    rows = pd.DataFrame(np.zeros((30, 3)), columns=list(COLUMNS))
    axis = pd.bdate_range("2020-01-01", periods=30)
    matrix = ModelMatrix.build(rows.assign(ticker="AAPL", session=axis), columns)
    with pytest.raises(ValueError, match=r"other features.*retrain"):
        forecaster.asked_new(matrix, np.arange(30), axis)
