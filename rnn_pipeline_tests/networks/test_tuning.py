"""The search, on a market with a planted answer: a return follows a number five rows back."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.features.folds import Fold, inner_folds, walk_forward
from rnn_pipeline.features.windows import ModelMatrix, window_index
from rnn_pipeline.networks import tuning
from rnn_pipeline.networks.fleet import Compute
from rnn_pipeline.networks.tuning import Candidate, Tuned, inner_datasets, tune
from rnn_pipeline.settings import FoldSpec, NetworkSpec, Settings, TrainingSpec, TuningSpec

from .members import CPU, REFERENCE

AUTO = Compute(CPU)

HORIZON = 2
DELAY = 4
MANY, FEW = 11, 6
AXIS = pd.bdate_range("2010-01-04", periods=420)
FOLD = walk_forward(len(AXIS), FoldSpec(train_size=360, val_size=20, test_size=20), HORIZON)[0]
SPEC = TuningSpec(
    n_trials=FEW,
    splits=1,
    val_share=0.25,
    cells=("rnn",),
    n_layers=(1, 1),
    hidden_size=(4, 8),
    dropout=(0.0, 0.1),
    learning_rate=(0.01, 0.05),
    lookback=(3, 9),
)
START = Candidate(
    NetworkSpec(cell="rnn", hidden_sizes=(6,)),
    TrainingSpec(epochs=5, batch_size=16, learning_rate=0.02, patience=None),
    lookback=3,
)


def town(scrambled_after: int | None = None) -> tuple[ModelMatrix, pd.DataFrame]:
    """One feature, and its windows of the longest lookback; from a position on, other numbers."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal(len(AXIS))
    target = np.full(len(AXIS), np.nan)
    target[DELAY:] = 0.01 * x[:-DELAY] + 0.001 * rng.standard_normal(len(AXIS) - DELAY)
    if scrambled_after is not None:
        x[scrambled_after:] = rng.standard_normal(len(AXIS) - scrambled_after) * 9
        target[scrambled_after - HORIZON :] = 7.0
    rows = pd.DataFrame({"ticker": "ACME", "session": AXIS, "x": x})
    matrix = ModelMatrix.build(rows, ["x"])
    ends = pd.Series(AXIS).shift(-HORIZON)
    outcomes = rows.assign(target=target, target_session=ends).dropna()
    return matrix, window_index(matrix, outcomes, AXIS, SPEC.lookback[1])


def search(
    storage: Path,
    spec: TuningSpec = SPEC,
    start: Candidate = START,
    after: int | None = None,
    compute: Compute = AUTO,
) -> Tuned:
    datasets = inner_datasets(*town(after), FOLD, "ACME", spec, HORIZON)
    return tune("gru", 0, datasets, start, spec, storage, compute)


def told(tuned: Tuned) -> pd.DataFrame:
    """The trials without their time of day."""
    return tuned.trials.drop(columns="finished_at")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for the studies of all tests: making it takes a second."""
    return tmp_path_factory.mktemp("tuning") / "studies.sqlite"


@pytest.fixture(scope="module")
def found(storage: Path) -> Tuned:
    return search(storage, SPEC.model_copy(update={"n_trials": MANY}))


def test_inner_folds_are_walk_forward_purged_and_end_with_the_span() -> None:
    fold = Fold(3, train=range(100, 198), val=range(200, 218), test=range(220, 240))
    first, second = inner_folds(fold, 2, 0.25, horizon=2)
    assert (first.train, first.val) == (range(100, 148), range(150, 174))
    assert (second.train, second.val) == (range(100, 172), range(174, 198))
    assert not first.test
    assert first.test.start == second.test.start == fold.val.start
    for splits, share in ((4, 0.25), (2, 0.001)):
        with pytest.raises(ValueError, match=f"too few for {splits} splits"):
            inner_folds(fold, splits, share, horizon=2)


def test_nothing_behind_the_training_span_is_read(found: Tuned, tmp_path: Path) -> None:
    elsewhere = search(tmp_path / "other.sqlite", after=FOLD.val.start)
    pd.testing.assert_frame_equal(told(elsewhere), told(found).head(FEW))
    (data,) = inner_datasets(*town(), FOLD, "ACME", SPEC, HORIZON)
    (inner,) = inner_folds(FOLD, 1, SPEC.val_share, HORIZON)
    assert len(data.test_ends) == 0
    assert data.sessions[-1] == np.datetime64(AXIS[FOLD.train[-1]], "D")
    assert data.sessions[data.train_ends[-1]] == np.datetime64(AXIS[inner.train[-1]], "D")
    moved = inner_datasets(*town(FOLD.val.start - 1), FOLD, "ACME", SPEC, HORIZON)
    assert moved[0].training_hash != data.training_hash, "the last row of the span is read"


def test_the_search_finds_the_lookback_that_was_planted(found: Tuned) -> None:
    own = found.trials.iloc[0]
    assert json.loads(own["params"]) == START.params
    assert START.lookback <= DELAY < found.best.lookback, "the start cannot see what matters"
    assert found.best_value < 0.85 * own["value"]
    assert found.best_value == found.trials.loc[found.trials["state"] == "complete", "value"].min()
    row = found.trials.loc[found.trials["value"].idxmin()]
    assert json.loads(row["params"]) == found.best.params
    assert set(found.importances.index) == set(START.params)
    assert found.importances.sum() == pytest.approx(1.0)


def test_pruned_trials_stop_early_and_are_counted(found: Tuned) -> None:
    pruned = found.trials["state"] == "pruned"
    assert 0 < pruned.sum() < MANY
    assert found.trials["trial"].tolist() == list(range(MANY))
    assert (found.trials.loc[~pruned, "epochs"] == 5).all()
    assert (found.trials.loc[pruned, "epochs"] < 5).any()
    assert found.trials["value"].notna().all()


KILLED = """
import sys, time
from pathlib import Path
from rnn_pipeline.networks import tuning
from rnn_pipeline_tests.networks.test_tuning import search

train, made = tuning.train_member, []

def train_three(*arguments):
    if len(made) == 3:
        print("half-way", flush=True)
        time.sleep(60)
    made.append(train(*arguments))
    return made[-1]

tuning.train_member = train_three
search(Path(sys.argv[1]))
"""


def test_a_killed_search_goes_on_with_the_same_trials(found: Tuned, tmp_path: Path) -> None:
    storage = tmp_path / "studies.sqlite"
    with subprocess.Popen([sys.executable, "-c", KILLED, storage], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half-way\n"
        child.kill()
    made: list[pd.DataFrame] = []
    datasets = inner_datasets(*town(), FOLD, "ACME", SPEC, HORIZON)
    spec = SPEC.model_copy(update={"n_trials": MANY})
    again = tune("gru", 0, datasets, START, spec, storage, AUTO, on_trial=made.append)
    assert len(made) == MANY - 3
    pd.testing.assert_frame_equal(told(again), told(found))


def test_a_search_that_is_done_trains_nothing(
    found: Tuned, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "train_member", lambda *_: pytest.fail("a network was trained"))
    again = search(storage, SPEC.model_copy(update={"n_trials": MANY}))
    pd.testing.assert_frame_equal(told(again), told(found))
    assert again.best == found.best


def test_the_kernels_trials_are_those_of_the_reference_to_rounding(
    found: Tuned, tmp_path: Path
) -> None:
    by_torch = search(tmp_path / "studies.sqlite", compute=REFERENCE)
    one, other = found.trials.head(FEW), by_torch.trials
    assert list(one["params"]) == list(other["params"])
    assert list(one["state"]) == list(other["state"])
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4)
    assert list(one["value"]) != list(other["value"]), "both were trained by the same backend"
    assert set(one["study"]) != set(other["study"])


def test_a_kernel_that_cannot_run_is_named_when_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning.cpu, "available", lambda: "numba is not installed")
    with pytest.raises(ValueError, match="'cpu' cannot run here: numba is not installed; set"):
        search(tmp_path / "studies.sqlite", compute=replace(AUTO, backend="cpu"))


def test_other_settings_are_another_study(found: Tuned, storage: Path) -> None:
    studies = {found.trials["study"].iloc[0]}
    once = SPEC.model_copy(update={"n_trials": 1})
    calm = TrainingSpec(epochs=5, batch_size=16, weight_decay=0.0, patience=None)
    for spec, start in (
        (once.model_copy(update={"seed": 1}), START),
        (once.model_copy(update={"dropout": (0.0, 0.2)}), START),
        (once, replace(START, training=calm)),
    ):
        trials = search(storage, spec, start).trials
        assert len(trials) == 1
        studies |= set(trials["study"])
    assert len(studies) == 4


def test_a_start_outside_the_ranges_is_not_tried(storage: Path) -> None:
    outside = replace(START, lookback=20)
    trials = search(storage, SPEC.model_copy(update={"n_trials": 1}), outside).trials
    assert json.loads(trials["params"].iloc[0])["lookback"] <= 9


def test_a_search_without_a_complete_trial_says_why(storage: Path) -> None:
    wild = SPEC.model_copy(update={"learning_rate": (1e36, 1e37), "n_trials": 2})
    with pytest.raises(
        ValueError, match=r"none of the 2 trials .* the loss is not finite in epoch"
    ):
        search(storage, wild)


def test_time_ends_a_run_and_the_next_goes_on(storage: Path) -> None:
    brief = SPEC.model_copy(update={"timeout": 1e-9, "n_trials": 3, "seed": 5})
    assert len(search(storage, brief).trials) == 1
    assert len(search(storage, brief).trials) == 2


def test_the_best_settings_are_a_settings_file(
    found: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rnn_pipeline.toml"
    file.write_text(found.best.to_toml("gru"))
    monkeypatch.setenv("RNN_PIPELINE_SETTINGS_FILE", str(file))
    model = Settings().model
    assert model.networks == {"gru": found.best.network}
    assert model.lookback == found.best.lookback
    assert model.training.learning_rate == found.best.training.learning_rate


@pytest.mark.parametrize(
    "wrong", [{"lookback": (1, 5)}, {"hidden_size": (8, 4)}, {"dropout": (0.2, 1.0)}], ids=str
)
def test_ranges_are_checked(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TuningSpec.model_validate(wrong)
