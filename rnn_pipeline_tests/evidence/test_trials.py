import pandas as pd
import pytest

from rnn_pipeline.evidence.significance import evidence_by_fold
from rnn_pipeline.evidence.trials import (
    TRIAL_COLUMNS,
    count_trials,
    first_seen,
    new_trials,
    recipes,
    trials_of,
    tuning_counts,
)
from rnn_pipeline.settings import FoldSpec, ModelSettings

NETWORKS = {"lstm": {"hidden": [8]}, "gru": {"hidden": [4]}}


def at(day: str) -> pd.Timestamp:
    return pd.Timestamp(day, tz="UTC")


def tried(forecasts: pd.DataFrame, day: str = "2010-01-10", **change) -> pd.DataFrame:
    recipe = {"networks": NETWORKS, "features": ["return_1"], "training": {"epochs": 3}} | change
    return trials_of(forecasts, tried_at=at(day), **recipe)


@pytest.fixture
def forecasts(make_forecasts) -> pd.DataFrame:
    return make_forecasts(("AAA", "BBB"), models=("gru", "lstm"), sessions=40, test_size=20)


def asked(day: str, model: str = "lstm", ticker: str = "AAA") -> pd.DataFrame:
    return pd.DataFrame({"ticker": [ticker], "model": [model], "known_at": [at(day)]})


def test_a_trial_is_a_network_of_a_recipe(forecasts) -> None:
    ledger = tried(forecasts)
    assert tuple(ledger.columns) == TRIAL_COLUMNS
    assert len(ledger) == 2 * 2 * 2
    assert ledger["network_hash"].nunique() == 2
    assert count_trials(ledger, asked("2011-01-01")).tolist() == [4]


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({}, 4),
        ({"networks": {"lstm": {"hidden": [9]}, "gru": {"hidden": [4]}}}, 6),
        ({"features": ["return_1", "return_5"]}, 8),
        ({"training": {"epochs": 4}}, 8),
    ],
    ids=["nothing", "network", "features", "training"],
)
def test_whatever_is_changed_is_tried_again(forecasts, change: dict, counted: int) -> None:
    ledger = tried(forecasts)
    again = tried(forecasts, "2010-02-01", **change)
    added = new_trials(ledger, again)
    assert len(added) == 2 * (counted - 4)
    assert count_trials(pd.concat([ledger, added]), asked("2011-01-01")).tolist() == [counted]


def test_other_seeds_and_features_computed_otherwise_are_other_trials(forecasts) -> None:
    ledger = tried(forecasts)
    more_seeds = pd.concat([forecasts, forecasts.assign(seed=forecasts["seed"] + 7)])
    assert len(new_trials(ledger, tried(more_seeds))) == 8
    assert len(new_trials(ledger, tried(forecasts.assign(feature_set_hash="abc")))) == 8


def test_a_search_counts_for_what_it_looked_at(forecasts) -> None:
    ledger = tried(forecasts, tuned={("AAA", "lstm"): 20})
    assert count_trials(ledger, asked("2011-01-01")).tolist() == [2 * 20 + 2]
    assert count_trials(ledger, asked("2011-01-01", ticker="BBB")).tolist() == [4]
    searched_on = new_trials(ledger, tried(forecasts, "2010-02-01", tuned={("AAA", "lstm"): 30}))
    assert len(searched_on) == 2
    both = pd.concat([ledger, searched_on])
    assert count_trials(both, asked("2011-01-01")).tolist() == [2 * 30 + 2]


def test_every_configuration_of_a_search_is_counted() -> None:
    searched = pd.DataFrame({"ticker": ["A", "A", "A", "B"], "model": ["m", "m", "n", "m"]})
    assert tuning_counts(searched) == {("A", "m"): 2, ("A", "n"): 1, ("B", "m"): 1}
    assert tuning_counts(searched.iloc[:0]) == {}


def test_settings_that_change_a_forecast_change_the_recipe() -> None:
    model, folds = ModelSettings(), FoldSpec()
    plain = recipes(model, folds)
    assert set(plain["networks"]) == {*model.networks, "sentiment"}
    for changed in ({"lookback": 30}, {"features": ("return_1",)}, {"horizon": 5}):
        assert recipes(model.model_copy(update=changed), folds) != plain
    assert recipes(model, folds.model_copy(update={"train_size": 500})) != plain
    # Seeds are trials of their own, and hiding sessions tries nothing.
    assert recipes(model.model_copy(update={"seeds": (7,)}), folds) == plain
    hidden = folds.model_copy(update={"holdout_from": pd.Timestamp("2012-01-01").date()})
    assert recipes(model, hidden) == plain


def test_what_is_tried_later_leaves_a_fold_that_was_lived_through(forecasts) -> None:
    first = tried(forecasts, "2010-01-10")
    later = tried(forecasts, "2010-06-01", training={"epochs": 9})
    other = later[later["model"] == "gru"]
    ledger = pd.concat([first, new_trials(first, other)])
    # lstm stays what it was in January: a fold of March knows nothing of June.
    assert count_trials(ledger, asked("2010-03-01")).tolist() == [4]
    assert count_trials(ledger, asked("2010-07-01")).tolist() == [6]
    # gru was chosen anew in June, with March in sight.
    assert count_trials(ledger, asked("2010-03-01", "gru")).tolist() == [6]


def test_going_back_to_an_old_recipe_is_a_choice_too(forecasts) -> None:
    first, second = tried(forecasts, "2010-01-10"), tried(forecasts, "2010-06-01", features=["x"])
    ledger = pd.concat([first, new_trials(first, second)])
    back = new_trials(ledger, tried(forecasts, "2010-09-01"))
    assert len(back) == 8
    ledger = pd.concat([ledger, back])
    assert count_trials(ledger, asked("2010-03-01")).tolist() == [8]
    assert new_trials(ledger, tried(forecasts, "2010-10-01")).empty


def test_a_history_forecast_today_answers_for_all_that_was_tried_until_today(forecasts) -> None:
    ledger = pd.concat(
        [tried(forecasts, "2026-01-01"), tried(forecasts, "2026-02-01", features=[])]
    )
    assert count_trials(ledger, asked("2010-01-04")).tolist() == [8]


def test_a_ticker_or_model_without_an_entry_counts_what_there_is(forecasts) -> None:
    ledger = tried(forecasts)
    assert count_trials(ledger, asked("2011-01-01", "ridge")).tolist() == [4]
    assert count_trials(ledger, asked("2011-01-01", ticker="ZZZ")).tolist() == [1]
    assert count_trials(ledger.iloc[:0], asked("2011-01-01")).tolist() == [1]
    assert len(count_trials(ledger, asked("2011-01-01").iloc[:0])) == 0


def test_an_empty_ledger_takes_everything_in(forecasts) -> None:
    current = tried(forecasts)
    pd.testing.assert_frame_equal(new_trials(current.iloc[:0], current), current)


def test_a_ledger_without_its_columns_is_an_error(forecasts) -> None:
    with pytest.raises(ValueError, match="trials lacks the columns"):
        count_trials(tried(forecasts).drop(columns="seed"), asked("2011-01-01"))


def test_evidence_takes_the_ledger(forecasts) -> None:
    assert set(evidence_by_fold(forecasts)["trials"]) == {4}
    assert set(
        evidence_by_fold(forecasts, tried(forecasts, tuned={("AAA", "gru"): 5}))["trials"]
    ) == {
        4,
        12,
    }
    seen = first_seen(forecasts)
    assert set(seen["tried_at"]) == {forecasts["known_at"].min()}
