import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import norm, spearmanr

from rnn_pipeline.evidence.layouts import EVIDENCE_COLUMNS
from rnn_pipeline.evidence.metrics import average_seeds
from rnn_pipeline.evidence.significance import (
    EVIDENCE_RULE,
    evidence_by_fold,
    evidence_grade,
    overall_evidence,
)

GOOD = {"n_effective": 200.0, "ic_t": 4.0, "hit_low": 0.51, "r2_vs_zero": 0.01}


@pytest.mark.parametrize(
    ("change", "grade"),
    [
        ({}, "strong"),
        ({"ic_t": 3.99}, "moderate"),
        ({"ic_t": 2.99}, "weak"),
        ({"ic_t": 1.99}, "none"),
        ({"ic_t": -5.0}, "none"),
        ({"ic_t": np.nan}, "none"),
        ({"n_effective": 199.9}, "none"),
        ({"hit_low": 0.5}, "strong"),
        ({"r2_vs_zero": -1.0}, "strong"),
        ({"hit_low": 0.5, "r2_vs_zero": 0.0}, "none"),
        ({"hit_low": np.nan, "r2_vs_zero": np.nan}, "none"),
        ({"trials": 10}, "moderate"),
        ({"ic_t": 2.0, "trials": 2}, "none"),
    ],
)
def test_the_rule(change: dict, grade: str) -> None:
    assert evidence_grade(**(GOOD | change)) == grade


@pytest.mark.parametrize("trials", [2, 5, 50])
def test_trials_keep_the_chance_of_any_false_grade(trials: int) -> None:
    asked = norm.isf(norm.sf(3.0) / trials)
    assert asked > 3.0
    assert evidence_grade(**GOOD | {"ic_t": asked + 1e-9}, trials=trials) == "moderate"
    assert evidence_grade(**GOOD | {"ic_t": asked - 1e-9}, trials=trials) == "weak"


def test_no_trial_is_an_error(make_forecasts) -> None:
    with pytest.raises(ValueError, match="trials is 0"):
        evidence_grade(**GOOD, trials=0)
    with pytest.raises(ValueError, match="trials is 0"):
        evidence_by_fold(make_forecasts(), trials=0)


def test_the_rule_in_words_names_its_thresholds() -> None:
    assert "200" in EVIDENCE_RULE
    assert "weak from 2, moderate from 3, strong from 4" in EVIDENCE_RULE


def test_a_fold_is_graded_on_outcomes_known_before_it_began(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=60, test_size=20, skill=0.4)
    evidence = evidence_by_fold(forecasts)
    assert tuple(evidence.columns) == EVIDENCE_COLUMNS
    # The outcome of the last session before fold 1 is its first session: not known before it.
    assert evidence["n"].tolist() == [0, 19, 39]
    rows = average_seeds(forecasts).iloc[:39]
    last = evidence.iloc[2]
    assert last["ic"] == pytest.approx(spearmanr(rows["forecast"], rows["actual"])[0])
    assert last["forecast_std"] == pytest.approx(np.std(rows["forecast"]))
    assert last["known_at"] == pd.Timestamp("2010-03-01 21:00", tz="UTC")
    assert evidence["grade"].tolist() == ["none"] * 3
    assert evidence.loc[0, ["ic", "hit_rate", "forecast_std"]].isna().all()


def test_a_longer_horizon_is_known_later_and_counts_less(make_forecasts) -> None:
    evidence = evidence_by_fold(make_forecasts(horizon=5))
    assert evidence["n"].tolist() == [0, 15, 35]
    assert evidence["n_effective"].tolist() == [0, 3, 7]


def test_each_ticker_has_its_own_folds(make_forecasts) -> None:
    young = make_forecasts(("BBB",), sessions=30, test_size=20)
    both = pd.concat([make_forecasts(("AAA",), sessions=60, test_size=20), young])
    evidence = evidence_by_fold(both)
    assert_frame_equal(
        evidence[evidence["ticker"] == "BBB"].reset_index(drop=True),
        evidence_by_fold(young),
        check_exact=True,
    )


def test_an_outcome_not_yet_known_does_not_count(make_forecasts) -> None:
    forecasts = make_forecasts()
    forecasts.loc[forecasts["session"] == forecasts["session"].iloc[0], "actual"] = np.nan
    assert evidence_by_fold(forecasts)["n"].tolist() == [0, 18, 38]


def test_skill_is_found_and_every_row_can_be_graded_again(make_forecasts) -> None:
    forecasts = make_forecasts(
        sessions=900, test_size=250, models=("gru", "lstm"), seeds=(0,), skill=0.2
    )
    evidence = evidence_by_fold(forecasts)
    last = evidence[evidence["fold"] == 3]
    assert set(last["grade"]) == {"strong"}
    assert set(last["trials"]) == {2}
    for row in evidence.itertuples():
        assert row.grade == evidence_grade(
            row.n_effective, row.ic_t, row.hit_low, row.r2_vs_zero, row.trials
        )
    told = evidence_by_fold(forecasts, trials=10**15)
    assert set(told["grade"]) == {"none"}


def test_forecasts_without_skill_are_rarely_graded(make_forecasts) -> None:
    tickers = [f"T{number:03d}" for number in range(300)]
    null = make_forecasts(tickers, sessions=500, test_size=250, seeds=(0,), random_seed=7)
    # Forecasts so small that they hardly miss more than zero does, which is what a network that
    # found nothing should give: the squared error corroborates about every second time.
    null["forecast"] *= 1e-3
    graded = overall_evidence(null)["grade"] != "none"
    assert 0 < graded.mean() <= 0.05


def test_a_sentiment_level_is_graded_by_its_sign_and_rank(make_forecasts) -> None:
    level = make_forecasts(sessions=800, test_size=400, seeds=(0,), skill=0.4)
    level = level.assign(model="sentiment", forecast=(level["forecast"] * 100).clip(-1, 1))
    row = evidence_by_fold(level).iloc[1]
    assert row["r2_vs_zero"] < 0
    assert row["grade"] == "strong"


def test_scrambling_later_folds_changes_no_bit(make_forecasts) -> None:
    forecasts = make_forecasts(("AAA", "BBB"), models=("gru", "lstm"), sessions=120, test_size=30)
    whole = evidence_by_fold(forecasts)
    for fold in (1, 2, 3):
        later = forecasts["fold"] >= fold
        scrambled = forecasts.copy()
        scrambled.loc[later, ["forecast", "actual"]] = (
            scrambled.loc[later, ["forecast", "actual"]]
            .sample(frac=1, random_state=fold)
            .to_numpy()
        )
        # What became known during the fold is none of its business either.
        before = forecasts.loc[later, "session"].min()
        last = (forecasts["session"] < before) & (
            forecasts["session"] >= before - pd.offsets.BDay(1)
        )
        scrambled.loc[last, ["forecast", "actual"]] = 0.5
        again = evidence_by_fold(scrambled.sample(frac=1, random_state=fold))
        upto = whole["fold"] <= fold
        assert_frame_equal(again[upto], whole[upto], check_exact=True)
        assert_frame_equal(
            evidence_by_fold(forecasts[forecasts["fold"] <= fold]),
            whole[upto].reset_index(drop=True),
            check_exact=True,
        )


def test_overall_evidence_uses_every_known_outcome(make_forecasts) -> None:
    forecasts = make_forecasts()
    row = overall_evidence(forecasts).iloc[0]
    rows = average_seeds(forecasts)
    assert (row["fold"], row["n"]) == (-1, 60)
    assert row["ic"] == pytest.approx(spearmanr(rows["forecast"], rows["actual"])[0])
    assert row["known_at"] == forecasts["known_at"].max()


def test_no_forecasts_make_an_empty_frame_of_the_right_types(make_forecasts) -> None:
    forecasts = make_forecasts()
    for grade in (evidence_by_fold, overall_evidence):
        for trials in (None, 3):
            empty = grade(forecasts.iloc[:0], trials)
            assert empty.empty
            assert empty.dtypes.equals(grade(forecasts, trials).dtypes)
