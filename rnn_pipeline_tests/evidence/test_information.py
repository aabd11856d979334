import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata, spearmanr, t

from rnn_pipeline.evidence.information import (
    cross_sectional_ic,
    feedback,
    ic_t,
    mean_cross_sectional_ic,
    mean_t,
    newey_west_lags,
    newey_west_variance,
    normal_score,
)
from rnn_pipeline.evidence.metrics import average_seeds, forecast_metrics


def test_the_variance_is_worked_out_by_hand() -> None:
    # Deviations -2 0 1 1; products 6 / 4, one apart 1 / 4, two apart -2 / 4; weights 2/3 and 1/3.
    series = np.array([1.0, 3.0, 4.0, 4.0])
    assert newey_west_variance(series, 0) == pytest.approx(6 / 4)
    assert newey_west_variance(series, 2) == pytest.approx((6 + 2 * (2 / 3 - 2 / 3)) / 4)
    assert newey_west_variance(series, 1) == pytest.approx((6 + 2 * (1 / 2)) / 4)


def test_the_variance_agrees_with_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api")
    series = np.random.default_rng(0).standard_normal(300).cumsum() * 0.1
    fitted = sm.OLS(series, np.ones(300)).fit(cov_type="HAC", cov_kwds={"maxlags": 7})
    found = newey_west_variance(series, 7) / 300
    assert found == pytest.approx(float(fitted.cov_params()[0, 0]), rel=1e-10)


@pytest.mark.parametrize(
    ("n", "horizon", "lags"), [(100, 1, 4), (1000, 1, 6), (1000, 5, 15), (4, 1, 3), (10, 5, 9)]
)
def test_lags(n: int, horizon: int, lags: int) -> None:
    assert newey_west_lags(n, horizon) == lags


@pytest.mark.parametrize("degrees", [10.0, 75.0, 500.0])
def test_a_deviate_is_as_unlikely_as_students_t(degrees: float) -> None:
    for value in (-6.0, -2.0, -0.5, 0.0, 1.0, 3.0, 5.0):
        exact = -np.sign(value) * norm.ppf(t.sf(abs(value), degrees))
        assert normal_score(value, degrees) == pytest.approx(exact, abs=0.02)


def test_a_mean_of_overlapping_values_is_judged_by_independent_ones() -> None:
    daily = np.random.default_rng(1).standard_normal(4004)
    weekly = np.convolve(daily, np.ones(5), mode="valid")
    apart = weekly[::5]
    plain = apart.mean() / (apart.std(ddof=1) / np.sqrt(len(apart)))
    assert mean_t(weekly, 5) == pytest.approx(plain, abs=0.35)
    naive = weekly.mean() / (weekly.std() / np.sqrt(len(weekly)))
    assert abs(mean_t(weekly, 5)) < 0.6 * abs(naive)


def test_what_has_no_spread_or_too_little_length_has_no_t() -> None:
    assert np.isnan(mean_t(np.ones(50)))
    assert np.isnan(mean_t(np.array([1.0, 2.0])))
    assert np.isnan(mean_t(np.arange(14.0), 5))


def test_feedback_is_the_covariance_with_earlier_outcomes() -> None:
    rng = np.random.default_rng(2)
    forecast, actual = rng.standard_normal((2, 9))
    reach, n = 4, 9
    total = sum(forecast[s] * actual[s - lag] for lag in range(1, reach + 1) for s in range(lag, n))
    counted = 1 - sum(n - lag for lag in range(1, reach + 1)) / n**2
    assert feedback(forecast, actual, 9) == pytest.approx(1.5 * total / n / counted)


def ranks(values: np.ndarray) -> np.ndarray:
    return rankdata(values) - (len(values) + 1) / 2


@pytest.mark.parametrize("side", [-1, 1], ids=["reversal", "momentum"])
def test_a_memory_of_past_outcomes_earns_nothing_by_itself(side: int) -> None:
    """Random walks forecast from the last 20 returns; centred, a reversal looks better than 0."""
    rng = np.random.default_rng(3)
    found, plain = [], []
    for _ in range(400):
        returns = rng.standard_normal(520)
        path = np.concatenate([[0.0], returns.cumsum()])
        forecast = ranks(side * (path[20:520] - path[:500]))
        actual = ranks(returns[20:])
        found.append(ic_t(forecast, actual, forecast * actual, 500, 1))
        plain.append(mean_t(forecast * actual))
    assert side * np.mean(plain) < -0.2
    assert np.mean(found) == pytest.approx(0.0, abs=0.15)
    assert np.std(found) == pytest.approx(1.0, abs=0.12)


def test_metrics_sum_ranks_within_sessions(make_forecasts) -> None:
    forecasts = make_forecasts(("AAA", "BBB", "CCC"), sessions=80, seeds=(0,), skill=0.2)
    row = forecast_metrics(forecasts).iloc[0]
    both = forecasts.assign(f=ranks(forecasts["forecast"]), a=ranks(forecasts["actual"]))
    sums = both.assign(p=both["f"] * both["a"]).groupby("session")[["f", "a", "p"]].sum()
    assert row["ic_t"] == pytest.approx(ic_t(*sums.to_numpy().T, 240, 1), rel=1e-12)
    # A ticker told twice is no second witness.
    twins = pd.concat([forecasts, forecasts.assign(ticker=forecasts["ticker"] + "2")])
    assert forecast_metrics(twins).iloc[0]["ic_t"] == pytest.approx(row["ic_t"], rel=1e-9)


def test_volatility_that_clusters_widens_the_t_statistic() -> None:
    """Forecast and outcome large together: a correlation of ranks that counts on its own is wild"""
    rng = np.random.default_rng(4)
    naive, found = [], []
    for _ in range(300):
        calm = np.repeat(rng.random(20) < 0.3, 25)
        scale = np.where(calm, 5.0, 0.2)
        forecast, actual = (
            ranks(scale * rng.standard_normal(500)),
            ranks(scale * rng.standard_normal(500)),
        )
        found.append(ic_t(forecast, actual, forecast * actual, 500, 1))
        naive.append(spearmanr(forecast, actual)[0] * np.sqrt(498))
    assert np.std(naive) > 1.2
    assert np.std(found) == pytest.approx(1.0, abs=0.12)


def test_the_cross_section_is_correlated_session_by_session(make_forecasts) -> None:
    tickers = [f"T{number}" for number in range(8)]
    rows = average_seeds(make_forecasts(tickers, sessions=30, seeds=(0,), skill=0.3))
    rows.loc[rows["session"] == rows["session"].iloc[0], "forecast"] = 0.5
    by_session = cross_sectional_ic(rows)
    assert len(by_session) == 29
    for row in by_session.head(3).itertuples():
        own = rows[rows["session"] == row.session]
        assert row.ic == pytest.approx(spearmanr(own["forecast"], own["actual"])[0])
    mean = mean_cross_sectional_ic(rows).iloc[0]
    assert mean["mean_ic"] == pytest.approx(by_session["ic"].mean())
    assert mean["mean_ic_t"] == pytest.approx(mean_t(by_session["ic"].to_numpy()))


def test_too_few_tickers_make_no_cross_section(make_forecasts) -> None:
    rows = average_seeds(make_forecasts(("A", "B", "C", "D"), sessions=30))
    assert cross_sectional_ic(rows).empty
    assert mean_cross_sectional_ic(rows).empty
