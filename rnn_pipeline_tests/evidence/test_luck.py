from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kurtosis, norm, rankdata, skew

from rnn_pipeline.evidence.luck import (
    LUCK_COLUMNS,
    block_length,
    bootstrap_interval,
    deflated_sharpe_ratio,
    luck,
    model_confidence_set,
    probability_of_backtest_overfitting,
    session_returns,
    sharpe_ratios,
    superior_predictive_ability,
)


def noise(seed: int, shape: tuple[int, ...], mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.01, shape)


def expected_maximum(trials: int) -> float:
    """Of so many standard normal draws, as Bailey and Lopez de Prado approximate it."""
    gamma = 0.5772156649015329
    if trials == 1:
        return 0.0
    return (1 - gamma) * norm.ppf(1 - 1 / trials) + gamma * norm.ppf(1 - 1 / (trials * np.e))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 500), st.floats(0, 0.01))
def test_the_deflated_sharpe_ratio_is_its_formula(seed: int, trials: int, between: float) -> None:
    returns = noise(seed, (250,), 0.0005)
    sharpe = returns.mean() / returns.std()
    asked = np.sqrt(max(between, 1 / 250)) * expected_maximum(trials)
    spread = 1 - skew(returns, bias=False) * sharpe
    spread += (kurtosis(returns, fisher=False, bias=False) - 1) / 4 * sharpe**2
    probability = norm.cdf((sharpe - asked) * np.sqrt(249) / np.sqrt(spread))
    assert deflated_sharpe_ratio(returns, trials, between) == pytest.approx(probability, abs=1e-12)


def test_the_papers_example_of_a_deflated_sharpe_ratio() -> None:
    """Annual Sharpe ratio 2.5 over 1,250 days, variance 0.5 among 100 trials: 90 %, not 99 %."""
    asked = np.sqrt(0.5 / 250) * expected_maximum(100)
    sharpe, skewness, kurt = 2.5 / np.sqrt(250), -3.0, 10.0
    spread = 1 - skewness * sharpe + (kurt - 1) / 4 * sharpe**2
    assert norm.cdf((sharpe - asked) * np.sqrt(1249 / spread)) == pytest.approx(0.9004, abs=1e-3)


def test_more_trials_deflate_more_and_alike_seeds_do_not_hide_them() -> None:
    returns = noise(1, (1000,), 0.0015)
    found = [deflated_sharpe_ratio(returns, trials, 0.0) for trials in (1, 10, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95 > found[2]
    assert deflated_sharpe_ratio(returns, 10, np.nan) == found[1]


def test_overfitting_is_counted_over_all_halves() -> None:
    table = pd.DataFrame(noise(2, (120, 5)))
    below = []
    blocks = np.split(table.to_numpy(), 6)
    for chosen in combinations(range(6), 3):
        rest = [place for place in range(6) if place not in chosen]
        first, second = (
            np.concatenate([blocks[place] for place in half]) for half in (chosen, rest)
        )
        best = (first.mean(axis=0) / first.std(axis=0)).argmax()
        rank = rankdata(second.mean(axis=0) / second.std(axis=0))[best]
        below.append(1.0 if rank < 3 else 0.5 if rank == 3 else 0.0)
    assert probability_of_backtest_overfitting(table, 6) == pytest.approx(np.mean(below))


def test_overfitting_is_a_half_for_luck_and_nought_for_skill() -> None:
    lucky = [
        probability_of_backtest_overfitting(pd.DataFrame(noise(seed, (200, 4))), 6)
        for seed in range(60)
    ]
    assert np.mean(lucky) == pytest.approx(0.5, abs=0.08)
    skilled = pd.DataFrame(noise(3, (300, 4))).assign(good=noise(4, (300,), 0.004))
    assert probability_of_backtest_overfitting(skilled) == 0.0


def losses(seed: int, sessions: int = 250, better: float = 0.0) -> pd.DataFrame:
    table = pd.DataFrame(1 + noise(seed, (sessions, 3)), columns=["gru", "lstm", "zero"])
    return table.assign(gru=table["gru"] - better)


def test_superiority_is_found_and_luck_is_not_taken_for_it() -> None:
    assert superior_predictive_ability(losses(5, better=0.005), ["zero"], ["gru", "lstm"]) < 0.01
    found = [
        superior_predictive_ability(losses(seed), ["zero"], ["gru", "lstm"]) for seed in range(20)
    ]
    assert (np.array(found) <= 0.1).sum() <= binom.isf(0.001, 20, 0.1)
    assert np.median(found) > 0.2


def test_the_benchmark_is_the_best_baseline() -> None:
    table = losses(6, better=0.005).assign(poor=3.0 + noise(7, (250,)))
    both = superior_predictive_ability(table, ["poor", "zero"], ["lstm"])
    assert both == superior_predictive_ability(table, ["zero"], ["lstm"])
    assert superior_predictive_ability(table, ["poor"], ["lstm"]) == 0.0


def test_the_confidence_set_holds_the_best_and_drops_the_worse() -> None:
    assert model_confidence_set(losses(8, better=0.01)) == ["gru"]
    held = sum("gru" in model_confidence_set(losses(seed)) for seed in range(20))
    assert held >= binom.ppf(0.001, 20, 0.9)


def test_equal_losses_stay_together() -> None:
    table = losses(9, better=0.01)
    table["twin"] = table["gru"]
    assert model_confidence_set(table) == ["gru", "twin"]
    assert model_confidence_set(table[["gru", "twin"]]) == ["gru", "twin"]


def test_the_intervals_of_the_bootstrap_cover_the_mean() -> None:
    """Of an autoregression, whose mean is four times as uncertain as independent values say."""
    rng = np.random.default_rng(10)
    covered = naive = 0
    for _ in range(40):
        series = np.zeros(1000)
        for place in range(1, 1000):
            series[place] = 0.6 * series[place - 1] + rng.standard_normal()
        low, high = bootstrap_interval(series)
        covered += low <= 0 <= high
        naive += abs(series.mean()) < 1.96 * series.std() / np.sqrt(1000)
    assert covered >= binom.ppf(0.001, 40, 0.92)
    assert naive < covered


def test_resampling_is_repeated_bit_for_bit_and_later_rows_change_nothing() -> None:
    series, table = noise(11, (400,)), losses(12)
    np.random.default_rng().random()
    assert bootstrap_interval(series) == bootstrap_interval(series.copy())
    assert model_confidence_set(table) == model_confidence_set(table.copy())
    first = superior_predictive_ability(table.iloc[:150], ["zero"], ["gru"])
    table.iloc[150:] = 7.0
    assert superior_predictive_ability(table.iloc[:150], ["zero"], ["gru"]) == first


@pytest.mark.parametrize("horizon", [1, 5, 40])
def test_blocks_are_three_horizons_at_least(horizon: int) -> None:
    assert block_length(noise(13, (400,)), horizon) >= 3 * horizon
    assert block_length(np.ones(400), horizon) == 3 * horizon
    assert block_length(noise(13, (400,)).cumsum(), 1) <= 20


def test_too_little_or_constant_says_nothing() -> None:
    short, flat = noise(14, (59,)), np.zeros(100)
    assert np.isnan(deflated_sharpe_ratio(short, 3, 0.0))
    assert np.isnan(deflated_sharpe_ratio(flat, 3, 0.0))
    assert np.isnan(bootstrap_interval(short)).all()
    assert np.isnan(bootstrap_interval(noise(14, (299,)), 5)).all()
    assert np.isnan(probability_of_backtest_overfitting(pd.DataFrame(noise(15, (59, 3)))))
    assert np.isnan(probability_of_backtest_overfitting(pd.DataFrame(noise(15, (100, 1)))))
    assert np.isnan(superior_predictive_ability(losses(16, 59), ["zero"], ["gru"]))
    assert np.isnan(superior_predictive_ability(losses(16), [], ["gru"]))
    same = losses(16).assign(copy=lambda table: table["zero"])
    assert np.isnan(superior_predictive_ability(same, ["zero"], ["copy"]))
    assert model_confidence_set(losses(16, 59)) == ["gru", "lstm", "zero"]
    assert np.isnan(sharpe_ratios(pd.DataFrame({"a": flat}))["a"])


def test_a_session_earns_the_mean_of_what_its_signs_earned() -> None:
    rows = pd.DataFrame(
        {
            "model": "m",
            "session": pd.to_datetime(["2020-01-01"] * 2 + ["2020-01-02"] * 2),
            "forecast": [0.1, -0.2, 0.0, 0.3],
            "actual": [0.01, 0.02, 0.5, 0.04],
        }
    )
    found = session_returns(rows, ["model"], 1)["m"]
    assert found.tolist() == pytest.approx([(0.01 - 0.02) / 2, (0.0 + 0.04) / 2])
    assert len(session_returns(rows, ["model"], 2)) == 1


def test_luck_tells_skill_from_a_baseline(make_forecasts) -> None:
    forecasts = make_forecasts(
        ("AAA", "BBB", "CCC"), sessions=500, models=("gru", "zero"), seeds=(0, 1), skill=0.25
    )
    forecasts.loc[forecasts["model"] == "zero", "forecast"] = 0.0
    found = luck(forecasts, 4, 252)
    frame = found.frame.set_index("model")
    assert tuple(found.frame.columns) == LUCK_COLUMNS
    assert frame.loc["gru", "ic_low"] < frame.loc["gru", "ic"] < frame.loc["gru", "ic_high"]
    assert frame.loc["gru", "ic_low"] > 0.1
    assert frame.loc["gru", "deflated_sharpe_ratio"] > 0.99
    assert frame.loc["gru", "superior_p"] < 0.05
    assert frame["in_confidence_set"].to_dict() == {"gru": True, "zero": False}
    assert frame.loc["zero", ["ic", "sharpe_ratio", "deflated_sharpe_ratio"]].isna().all()
    assert found.superior_p == frame.loc["gru", "superior_p"]
    assert 0 <= found.overfitting <= 1


@pytest.mark.parametrize("sessions", [0, 1, 10])
def test_luck_on_hardly_any_rows_is_not_known(make_forecasts, sessions: int) -> None:
    forecasts = make_forecasts(sessions=20)
    few = forecasts[forecasts["session"].isin(forecasts["session"].unique()[:sessions])]
    frame = luck(few, 1, 252).frame
    assert len(frame) == (sessions > 0)
    assert frame[["ic_low", "deflated_sharpe_ratio", "superior_p"]].isna().all(axis=None)
    with pytest.raises(ValueError, match=r"horizons \[1, 5\]"):
        luck(pd.concat([forecasts, forecasts.assign(horizon=5)]), 1, 252)
