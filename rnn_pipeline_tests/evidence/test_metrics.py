import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import binomtest, spearmanr

from rnn_pipeline.evidence.metrics import (
    average_seeds,
    forecast_metrics,
    rolling_ic,
    wilson_interval,
)


def four_forecasts() -> pd.DataFrame:
    sessions = pd.to_datetime(
        ["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08"]
    )
    return pd.DataFrame(
        {
            "ticker": "AAA",
            "session": sessions,
            "fold": 0,
            "model": "lstm",
            "seed": 0,
            "horizon": 1,
            "forecast": [0.01, -0.02, 0.03, 0.00, 0.05],
            "actual": [0.02, 0.01, 0.04, -0.01, np.nan],
            "known_at": sessions.tz_localize("UTC"),
        }
    )


def test_figures_worked_out_by_hand() -> None:
    row = forecast_metrics(four_forecasts()).iloc[0]
    # Errors -0.01, -0.03, -0.01, 0.01; the row without an outcome does not count.
    assert row["n"] == 4
    assert row["mse"] == pytest.approx((1 + 9 + 1 + 1) * 1e-4 / 4)
    assert row["mae"] == pytest.approx(0.06 / 4)
    assert row["r2_vs_zero"] == pytest.approx(1 - 12 / (4 + 1 + 16 + 1))
    # The zero forecast takes no side: two of three signs are right.
    assert row["n_signed"] == 3
    assert row["hit_rate"] == pytest.approx(2 / 3)
    # Ranks 3 1 4 2 against 3 2 4 1: sum of squared differences 2, so 1 - 6 * 2 / (4 * 15).
    assert row["ic"] == pytest.approx(0.8)


def test_agrees_with_scipy_on_ties_too(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=300, seeds=(0,), skill=0.2)
    forecasts["forecast"] = forecasts["forecast"].round(3)
    row = forecast_metrics(forecasts).iloc[0]
    assert row["ic"] == pytest.approx(spearmanr(forecasts["forecast"], forecasts["actual"])[0])
    signed = forecasts[(forecasts["forecast"] != 0) & (forecasts["actual"] != 0)]
    hits = int((np.sign(signed["forecast"]) == np.sign(signed["actual"])).sum())
    interval = binomtest(hits, len(signed)).proportion_ci(method="wilson")
    assert 0 < len(signed) == row["n_signed"] < len(forecasts)
    assert (row["hit_low"], row["hit_high"]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (52, 100), (1, 1)])
def test_wilson_interval_is_scipys(hits: int, n: int) -> None:
    low, high = wilson_interval(pd.Series([hits]), pd.Series([n]))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_seeds_are_averaged_before_scoring(make_forecasts) -> None:
    forecasts = make_forecasts(seeds=(0, 1, 2))
    mean = forecasts.pivot_table(index="session", columns="seed", values="forecast").mean(axis=1)
    actual = forecasts.groupby("session")["actual"].first()
    row = forecast_metrics(forecasts).iloc[0]
    assert row["n"] == 60
    assert row["mse"] == pytest.approx(((mean - actual) ** 2).mean())
    by_seed = forecast_metrics(forecasts, by=("model", "seed"))
    first = forecasts[forecasts["seed"] == 0]
    assert by_seed["seed"].tolist() == [0, 1, 2]
    assert by_seed["mse"][0] == pytest.approx(((first["forecast"] - first["actual"]) ** 2).mean())


def test_a_forecast_of_zero_has_neither_ic_nor_hit_rate(make_forecasts) -> None:
    row = forecast_metrics(make_forecasts().assign(forecast=0.0, model="zero")).iloc[0]
    assert row["r2_vs_zero"] == 0
    assert row["n_signed"] == 0
    assert row[["hit_rate", "hit_low", "hit_high", "ic", "ic_t"]].isna().all()


@pytest.mark.parametrize("sessions", [1, 2])
def test_too_few_rows_to_say_anything(make_forecasts, sessions: int) -> None:
    row = forecast_metrics(make_forecasts(sessions=sessions)).iloc[0]
    assert row["n"] == sessions
    assert np.isnan(row["ic_t"])


def test_outcomes_that_never_moved(make_forecasts) -> None:
    row = forecast_metrics(make_forecasts().assign(actual=0.0)).iloc[0]
    assert row[["r2_vs_zero", "ic", "hit_rate"]].isna().all()


def test_no_forecasts_make_no_rows(make_forecasts) -> None:
    assert forecast_metrics(make_forecasts().iloc[:0]).empty
    assert forecast_metrics(make_forecasts().assign(actual=np.nan)).empty


def test_overlapping_horizons_and_tickers_of_one_session_count_once(make_forecasts) -> None:
    daily = make_forecasts(sessions=100, seeds=(0,), skill=0.3)
    weekly = daily.assign(horizon=5)
    one, five = (forecast_metrics(frame).iloc[0] for frame in (daily, weekly))
    assert (one["n_effective"], five["n_effective"]) == (100, 20)
    assert one["ic"] == five["ic"]
    # Student's tails apart, five times the variance.
    assert five["ic_t"] / one["ic_t"] == pytest.approx(np.sqrt(1 / 5), rel=0.05)
    assert five["hit_low"] < one["hit_low"] < one["hit_high"] < five["hit_high"]
    twins = pd.concat([daily, daily.assign(ticker="BBB")])
    pooled = forecast_metrics(twins).iloc[0]
    assert pooled["n"] == 200
    assert pooled["ic_t"] == pytest.approx(one["ic_t"])
    assert pooled["hit_low"] == pytest.approx(one["hit_low"])


def test_row_order_and_other_groups_change_no_bit(make_forecasts) -> None:
    forecasts = make_forecasts(("AAA", "BBB", "CCC"), models=("gru", "lstm"), seeds=(0, 1, 2))
    by = ("ticker", "model", "fold")
    whole = forecast_metrics(forecasts, by)
    shuffled = forecasts.sample(frac=1, random_state=1)
    assert_frame_equal(forecast_metrics(shuffled, by), whole, check_exact=True)
    alone = forecast_metrics(forecasts[forecasts["ticker"] == "BBB"], by)
    part = whole[whole["ticker"] == "BBB"].reset_index(drop=True)
    assert_frame_equal(alone, part, check_exact=True)


def test_sums_that_would_round_otherwise_in_another_order(make_forecasts) -> None:
    forecasts = make_forecasts(seeds=range(9))
    magnitude = np.random.default_rng(0).uniform(-9, 9, len(forecasts))
    forecasts["forecast"] *= 10**magnitude
    shuffled = forecasts.sample(frac=1, random_state=1)
    assert_frame_equal(average_seeds(shuffled), average_seeds(forecasts), check_exact=True)
    by = ("model", "seed")
    assert_frame_equal(
        forecast_metrics(shuffled, by), forecast_metrics(forecasts, by), check_exact=True
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.drop(columns="seed"), "lacks the columns \\['seed'\\]"),
        (lambda f: pd.concat([f, f.tail(1)]), "more than one row for ticker=AAA"),
        (lambda f: f.assign(forecast=np.inf), "forecast is inf for AAA on 2010-01-04"),
    ],
)
def test_bad_forecasts_are_named(make_forecasts, damage, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_seeds(damage(make_forecasts()))


def test_the_rolling_coefficient_is_scipys_of_the_last_sessions(make_forecasts) -> None:
    forecasts = make_forecasts(("AAA", "BBB"), sessions=60, models=("gru", "lstm"), skill=0.3)
    table = rolling_ic(forecasts, sessions=20, points=10)
    axis = np.sort(forecasts["session"].unique())
    assert (
        table.groupby("model")["session"].agg(["min", "max"]).to_numpy().tolist()
        == [[pd.Timestamp(axis[19]), pd.Timestamp(axis[59])]] * 2
    )
    last = table[(table["session"] == axis[43]) & (table["model"] == "gru")]
    window = forecasts["session"].between(axis[24], axis[43]) & (forecasts["model"] == "gru")
    means = forecasts[window].groupby(["ticker", "session"])[["forecast", "actual"]].mean()
    assert last["ic"].tolist() == pytest.approx([spearmanr(*means.to_numpy().T).statistic])


def test_a_rolling_coefficient_needs_a_window_and_a_forecast_that_moves(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=30)
    assert rolling_ic(forecasts, sessions=31).empty
    assert rolling_ic(forecasts.assign(forecast=0.0), sessions=10).empty
    later = forecasts["session"] >= forecasts["session"].unique()[25]
    scrambled = forecasts.assign(actual=forecasts["actual"].mask(later, 9.0))
    kept = rolling_ic(forecasts, sessions=10).head(16)
    assert_frame_equal(rolling_ic(scrambled, sessions=10).head(16), kept, check_exact=True)
