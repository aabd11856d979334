import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import binom, norm, spearmanr

from rnn_pipeline.evidence.layouts import EVIDENCE_COLUMNS
from rnn_pipeline.evidence.metrics import average_seeds
from rnn_pipeline.evidence.significance import (
    EVIDENCE_RULE,
    LEVELS,
    MIN_EFFECTIVE,
    evidence_by_fold,
    evidence_grade,
    evidence_p_value,
    overall_evidence,
    sequential_p_value,
)
from rnn_pipeline.evidence.trials import first_seen

GOOD = {"p_value": 0.0005, "hit_low": 0.51, "r2_vs_zero": 0.01}


@pytest.mark.parametrize(
    ("change", "grade"),
    [
        ({}, "strong"),
        ({"p_value": 0.000501}, "moderate"),
        ({"p_value": 0.00501}, "weak"),
        ({"p_value": 0.0501}, "none"),
        ({"p_value": np.nan}, "none"),
        ({"hit_low": 0.5}, "strong"),
        ({"r2_vs_zero": -1.0}, "strong"),
        ({"hit_low": 0.5, "r2_vs_zero": 0.0}, "none"),
        ({"hit_low": np.nan, "r2_vs_zero": np.nan}, "none"),
    ],
)
def test_the_rule(change: dict, grade: str) -> None:
    assert evidence_grade(**(GOOD | change)) == grade


def test_the_p_value_is_robbins_bound() -> None:
    for a, growth in ((2.5, 1.0), (2.5, 10.0), (4.0, 3.0)):
        z = np.sqrt(a**2 + np.log(growth))
        found = sequential_p_value(z, MIN_EFFECTIVE * growth)
        assert found == pytest.approx(norm.sf(a) + a * norm.pdf(a), rel=1e-12)
    # The examples of the docstring.
    assert sequential_p_value(2.50, MIN_EFFECTIVE) == pytest.approx(0.05, abs=5e-4)
    assert sequential_p_value(2.92, 10 * MIN_EFFECTIVE) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(
    ("z", "n", "p"), [(5.0, 199.9, 1.0), (-5.0, 400, 1.0), (0.5, 400, 1.0), (np.nan, 400, np.nan)]
)
def test_nothing_seen_is_no_small_p_value(z: float, n: float, p: float) -> None:
    assert sequential_p_value(z, n) == pytest.approx(p, nan_ok=True)


def test_the_level_holds_however_often_one_looks() -> None:
    """Brownian motion looked at after every step from 200 to 4,000."""
    rng = np.random.default_rng(5)
    n = np.arange(1, 4001)
    level, paths = LEVELS["weak"], 1500
    asked = next(z for z in np.arange(2, 4, 1e-3) if sequential_p_value(z, MIN_EFFECTIVE) <= level)
    boundary = np.sqrt(asked**2 + np.log(np.maximum(n, MIN_EFFECTIVE) / MIN_EFFECTIVE))
    walks = rng.standard_normal((paths, len(n)), dtype=np.float32).cumsum(axis=1)
    crossed = (walks / np.sqrt(n) >= boundary)[:, MIN_EFFECTIVE - 1 :].any(axis=1).sum()
    assert crossed <= binom.isf(0.001, paths, level)
    # It is no empty promise: a bound that never let anything pass would hold as well.
    assert crossed > paths * level / 3


@pytest.mark.parametrize("trials", [2, 5, 50])
def test_trials_keep_the_chance_of_any_false_grade(trials: int) -> None:
    one = sequential_p_value(4.0, 500)
    assert evidence_p_value(4.0, 500, trials) == pytest.approx(trials * one)
    assert evidence_p_value(2.0, 500, trials) == min(1.0, trials * sequential_p_value(2.0, 500))


def test_no_trial_is_an_error() -> None:
    with pytest.raises(ValueError, match="trials is 0"):
        evidence_p_value(3.0, 500, 0)


def test_the_rule_in_words_names_its_thresholds() -> None:
    assert "at least 200" in EVIDENCE_RULE
    assert "weak up to 5.00%, moderate up to 0.50%, strong up to 0.05%" in EVIDENCE_RULE


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
        sessions=900, test_size=250, models=("gru", "lstm"), seeds=(0, 1), skill=0.25
    )
    evidence = evidence_by_fold(forecasts)
    last = evidence[evidence["fold"] == 3]
    assert set(last["grade"]) == {"strong"}
    assert set(last["trials"]) == {4}
    for row in evidence[evidence["fold"] > 0].itertuples():
        assert row.p_value == evidence_p_value(row.ic_t, row.n_effective, row.trials)
        assert row.grade == evidence_grade(row.p_value, row.hit_low, row.r2_vs_zero)
    ledger = first_seen(forecasts).assign(tuning_trials=10**15)
    assert set(evidence_by_fold(forecasts, ledger)["grade"]) == {"none"}


def test_seeds_that_disagree_are_told(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=40, test_size=20, seeds=(0, 1, 2), random_seed=3)
    row = evidence_by_fold(forecasts).iloc[1]
    table = forecasts.pivot(index="session", columns="seed", values="forecast").iloc[:19]
    mean = table.mean(axis=1)
    spread = np.sqrt((table.sub(mean, axis=0) ** 2).to_numpy().mean()) / mean.std(ddof=0)
    flips = (np.sign(table).mul(np.sign(mean), axis=0) < 0).to_numpy().mean()
    assert row["seed_dispersion"] == pytest.approx(spread)
    assert row["sign_flip_rate"] == pytest.approx(flips)
    alone = evidence_by_fold(forecasts[forecasts["seed"] == 0]).iloc[1]
    assert alone[["seed_dispersion", "sign_flip_rate"]].isna().all()


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
        for trials in (None, first_seen(forecasts)):
            empty = grade(forecasts.iloc[:0], trials)
            assert empty.empty
            assert empty.dtypes.equals(grade(forecasts, trials).dtypes)
