"""New sessions forecast by the registry's versions, on a warehouse written by hand."""

import importlib
import shutil
from dataclasses import replace
from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from rnn_pipeline import cli
from rnn_pipeline.defs import models
from rnn_pipeline.defs.features import COLUMNS
from rnn_pipeline.defs.models import forecast_new_sessions, register_trained
from rnn_pipeline.defs.partitions import SETTINGS, Span
from rnn_pipeline.features.folds import walk_forward
from rnn_pipeline.features.windows import ModelMatrix, fold_datasets, window_index
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.networks.fleet import Compute
from rnn_pipeline.networks.walk_forward import train_walk_forward
from rnn_pipeline.settings import FoldSpec, NetworkSpec, TrainingSpec
from rnn_pipeline.warehouse import Warehouse

CALENDAR = SessionCalendar("XNYS")
AXIS = CALENDAR.sessions(date(2010, 1, 4), date(2012, 3, 30))
TICKERS = ["AAPL", "MSFT"]
#: Sessions known when the candidate was made; the others are new.
TRAINED = 260
FOLDS = walk_forward(TRAINED, FoldSpec(train_size=150, val_size=30, test_size=100), horizon=1)


def features():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(ticker, session) for ticker in TICKERS for session in AXIS],
        columns=["ticker", "session"],
    )
    frame[list(COLUMNS)] = rng.normal(size=(len(frame), len(COLUMNS)))
    known_at = CALENDAR.closes(pd.Series(frame["session"]))
    return frame.assign(known_at=known_at, feature_set_hash="f", run_id="r")


@pytest.fixture(scope="module")
def trained():
    """One fold of a network, and of a wider one, on noise; by recipe and ticker."""
    shown = features()
    shown = shown[shown["session"] < AXIS[TRAINED]]
    matrix = ModelMatrix.build(shown, COLUMNS)
    rng = np.random.default_rng(1)
    targets = shown[["ticker", "session"]].assign(
        target=rng.normal(0, 0.01, len(shown)),
        target_session=shown.groupby("ticker")["session"].shift(-1),
    )
    index = window_index(matrix, targets.dropna(), AXIS[:TRAINED], SETTINGS.model.lookback)
    data = list(fold_datasets(matrix, index, FOLDS))
    compute = Compute(torch.device("cpu"), "reference")
    spec = TrainingSpec(epochs=1)

    def train(name, size):
        network = NetworkSpec(cell="gru", hidden_sizes=(size,))
        made = []
        train_walk_forward(
            name, COLUMNS, data, network, spec, [0], compute, networks={}, on_complete=made.extend
        )
        return {forecaster.ticker: forecaster for forecaster in made}

    return {"own": train("lstm", 3), "other": train("lstm@other", 5)}


@pytest.fixture
def store(tmp_path, monkeypatch, trained):
    """A champion and a candidate of the slot lstm, and features of sessions they have not seen."""
    monkeypatch.setattr(models, "SETTINGS", SETTINGS.model_copy(update={"data_dir": tmp_path}))
    models.SETTINGS.__dict__.pop("home", None)
    recipes = models.asked_recipes(Warehouse(tmp_path / "empty.duckdb"))
    own = recipes["lstm"]
    store = Warehouse(tmp_path / "warehouse.duckdb")
    with store.batch() as batch:
        batch.append("model_features", features())
    for asked, forecasters in (
        (own, trained["own"]),
        (replace(own, recipe="other", model="lstm@other"), trained["other"]),
    ):
        monkeypatch.setattr(models, "asked_recipes", lambda _store, asked=asked: {"lstm": asked})
        axis = AXIS[:TRAINED]
        register_trained(store, {"lstm": forecasters}, TICKERS, axis, FOLDS, "train")
    return store


def run(store, first, last):
    """Forecast the sessions from one position of the axis to another."""
    span = Span(TICKERS, AXIS[first].date(), AXIS[last].date())
    return forecast_new_sessions(store, CALENDAR, span, "run")


def told(store):
    names = ["ticker", "session", "model", "seed", "fold", "forecast", "version", "model_hash"]
    return store.rows("forecasts", ", ".join(names))


def events(store):
    return store.rows("models").drop(columns=["changed_at", "created_at", "run_id"])


def test_champions_and_candidates_forecast_and_only_champions_are_heard(store):
    made = run(store, TRAINED, TRAINED + 4)
    assert len(made) == 5 * len(TICKERS) * 2
    assert set(made["model"]) == {"lstm", "lstm@other"}
    assert made["trained_until"].unique().tolist() == [AXIS[179]]
    assert set(store.rows("walk_forward_forecasts")["model"]) == {"lstm"}
    assert set(store.rows("recipe_forecasts")["model"]) == {"lstm", "lstm@other"}
    assert run(store, TRAINED, TRAINED + 4).empty, "what was forecast is not forecast again"
    assert run(store, TRAINED - 20, TRAINED - 1).empty, "these the walk-forward has tested"


def test_days_one_by_one_are_the_days_at_once(store, tmp_path):
    shutil.copy(store.path, tmp_path / "copy.duckdb")
    other = Warehouse(tmp_path / "copy.duckdb")
    run(store, TRAINED, TRAINED + 3)
    for day in range(TRAINED, TRAINED + 4):
        run(other, day, day)
    assert_frame_equal(told(store), told(other), check_exact=True)


def test_what_becomes_known_later_changes_no_forecast(store, tmp_path):
    shutil.copy(store.path, tmp_path / "copy.duckdb")
    other = Warehouse(tmp_path / "copy.duckdb")
    later = features().query("session > @AXIS[@TRAINED + 1]")
    with other.batch() as batch:
        scrambled = later.assign(**{name: -3 * later[name] for name in COLUMNS})
        batch.upsert("model_features", scrambled)
    pair = []
    for each in (store, other):
        run(each, TRAINED, TRAINED + 4)
        rows = told(each)
        pair.append(rows[rows["session"] <= AXIS[TRAINED + 1]])
    assert_frame_equal(*pair, check_exact=True)
    assert not told(store).equals(told(other))


def outcomes(store):
    """Targets that follow the candidate's forecasts."""
    rows = told(store)
    won = rows[rows["model"] == "lstm@other"].drop_duplicates(["ticker", "session"])
    noise = np.random.default_rng(2).normal(0, won["forecast"].std(), len(won))
    following = dict(pairwise(AXIS))
    return won[["ticker", "session"]].assign(
        target=won["forecast"] * 2 + noise,
        horizon=1,
        target_session=won["session"].map(following),
    )


def test_a_candidate_takes_over_on_evidence_whichever_way_runs_are_cut(store, tmp_path):
    prepared, end = tmp_path / "prepared.duckdb", TRAINED + 215
    shutil.copy(store.path, prepared)
    run(store, TRAINED, end)
    targets = outcomes(store)
    found = []
    for cuts in ([end], [TRAINED + 204, end]):
        one = Warehouse(tmp_path / f"{len(cuts)}.duckdb")
        shutil.copy(prepared, one.path)
        with one.batch() as batch:
            batch.append("targets", targets)
        first = TRAINED
        for last in cuts:
            run(one, first, last)
            first = last + 1
        found.append(one)
    heard = [one.rows("walk_forward_forecasts").drop(columns="run_id") for one in found]
    assert_frame_equal(*heard, check_exact=True)
    promoted = [
        rows[rows["change"] == "promoted"].sort_values(["ticker", "state"])
        for one in found
        for rows in (events(one),)
    ]
    names = ["ticker", "model", "state", "from_session", "reason"]
    assert_frame_equal(*(rows[names].reset_index(drop=True) for rows in promoted))
    crowned = promoted[0][promoted[0]["state"] == "champion"]
    assert set(crowned["ticker"]) == set(TICKERS)
    # 200 sessions neither had seen, whose outcomes were known: never before.
    assert crowned["from_session"].min() > AXIS[TRAINED + 200]
    heard = heard[0][heard[0]["ticker"] == "AAPL"]
    since = crowned.set_index("ticker").loc["AAPL", "from_session"]
    assert (heard["model"] == np.where(heard["session"] < since, "lstm", "lstm@other")).all()
    assert len(heard) == heard["session"].nunique()


def test_a_damaged_file_forecasts_nothing(store):
    for path in models.serving_files().folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"is damaged .* retrain"):
        run(store, TRAINED, TRAINED)
    assert told(store).empty


def test_the_commands_promote_only_by_force_and_go_back(store, monkeypatch):
    # The package's name for it is the command's.
    commands = importlib.import_module("rnn_pipeline.cli.models")
    bars = pd.DataFrame({"ticker": TICKERS, "session": AXIS[TRAINED], "is_final": True})
    with store.batch() as batch:
        bars = bars.assign(revision=0, known_at=pd.Timestamp("2011-01-20", tz="UTC"))
        batch.append("raw_ohlcv", bars)
    run(store, TRAINED, TRAINED)
    monkeypatch.setattr(commands, "_store", lambda: store)

    def call(*arguments):
        return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)

    listed = call("models")
    assert listed.exit_code == 0, listed.output
    assert sum("candidate" in line for line in listed.stdout.splitlines()) == 2
    assert max(map(len, listed.stdout.splitlines())) <= 80
    refused = call("promote", "lstm", "--ticker", "aapl")
    assert refused.exit_code == 1
    assert "no evidence that the candidate of lstm is better (AAPL: 0 sessions" in refused.stderr
    assert call("promote", "gru").stderr.startswith("Error: no model is called 'gru', but there")
    forced = call("promote", "lstm", "--ticker", "AAPL", "--force")
    assert forced.exit_code == 0, forced.output
    run(store, TRAINED, TRAINED + 1)
    heard = store.rows("walk_forward_forecasts", ticker="AAPL")
    assert heard["model"].tolist() == ["lstm", "lstm@other"]
    last = events(store).iloc[-1]
    assert (last["change"], last["reason"]) == ("forced", "by hand, without evidence")
    back = call("rollback", "lstm", "--ticker", "AAPL")
    assert back.stdout.startswith("AAPL: version ")
    assert "of lstm, fold 0" in back.stdout
    twice = call("rollback", "lstm", "--ticker", "AAPL")
    assert "no earlier champion" in twice.stderr
    found = call("models", "--all", "--json")
    assert found.stdout.count('"state":"retired"') == 1
