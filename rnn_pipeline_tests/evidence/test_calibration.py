import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import mean_pinball_loss

from rnn_pipeline.evidence.calibration import quantile_calibration, reliability


def test_outcomes_are_averaged_from_the_lowest_forecasts_to_the_highest(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=400, seeds=(0,), skill=0.6)
    table = reliability(forecasts, bins=4)
    ordered = forecasts.sort_values("forecast")
    for bin_, rows in table.set_index("bin").iterrows():
        quarter = ordered.iloc[100 * bin_ : 100 * (bin_ + 1)]
        assert rows["n"] == 100
        assert rows["forecast"] == pytest.approx(quarter["forecast"].mean())
        assert rows["actual"] == pytest.approx(quarter["actual"].mean())
        reach = norm.ppf(0.975) * quarter["actual"].std() / 10
        assert rows["high"] - rows["actual"] == pytest.approx(reach)
        assert rows["actual"] - rows["low"] == pytest.approx(reach)
    assert table["actual"].is_monotonic_increasing


def test_overlapping_outcomes_and_shared_sessions_widen_the_interval(make_forecasts) -> None:
    one = make_forecasts(sessions=400, seeds=(0,), skill=0.6)
    twin = one.assign(ticker="BBB")
    width = reliability(one, bins=1).eval("high - low")[0]
    both = reliability(pd.concat([one, twin]), bins=1).eval("high - low")[0]
    assert both == pytest.approx(width, rel=2e-3)
    overlapping = reliability(one.assign(horizon=4), bins=1).eval("high - low")[0]
    assert overlapping == pytest.approx(2 * width)


def test_equal_forecasts_stay_together_and_a_constant_has_no_order(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=40, seeds=(0,))
    halves = forecasts.assign(forecast=np.where(np.arange(40) < 30, 0.0, 1.0))
    assert reliability(halves, bins=4)[["bin", "n"]].to_numpy().tolist() == [[1, 30], [3, 10]]
    assert reliability(forecasts.assign(forecast=0.0)).empty


def with_quantiles(forecasts: pd.DataFrame) -> pd.DataFrame:
    forecasts = forecasts[["ticker", "model", "session", "horizon", "actual"]]
    return forecasts.assign(**{"q0.1": 0.01 * norm.ppf(0.1), "q0.5": 0.0, "q0.9": 0.004})


def test_coverage_and_pinball_loss_are_those_of_scipy_and_scikit_learn(make_forecasts) -> None:
    forecasts = with_quantiles(make_forecasts(sessions=300, seeds=(0,)))
    forecasts.loc[7, "actual"] = np.nan
    known = forecasts.dropna()
    table = quantile_calibration(forecasts, (0.1, 0.5, 0.9)).set_index("quantile")
    for level in (0.1, 0.5, 0.9):
        row, column = table.loc[level], f"q{level:g}"
        below = int((known["actual"] <= known[column]).sum())
        assert row["n"] == 299
        assert row["coverage"] == below / 299
        interval = binomtest(below, 299).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        loss = mean_pinball_loss(known["actual"], known[column], alpha=level)
        assert row["pinball"] == pytest.approx(loss)
    assert table.loc[0.1, "low"] < 0.1 < table.loc[0.1, "high"]
    assert table.loc[0.9, "high"] < 0.9


def test_groups_are_calibrated_for_themselves(make_forecasts) -> None:
    forecasts = with_quantiles(make_forecasts(("AAA", "BBB"), sessions=50, seeds=(0,)))
    table = quantile_calibration(forecasts, (0.5,), by=("ticker", "model"))
    alone = quantile_calibration(forecasts[forecasts["ticker"] == "BBB"], (0.5,))
    assert table["ticker"].tolist() == ["AAA", "BBB"]
    assert table["coverage"][1] == alone["coverage"][0]


def test_a_level_that_is_none_is_named(make_forecasts) -> None:
    forecasts = with_quantiles(make_forecasts())
    with pytest.raises(ValueError, match=r"quantiles \[90\] are not levels"):
        quantile_calibration(forecasts, (0.1, 90))
    with pytest.raises(ValueError, match=r"lacks the columns \['q0.2'\]"):
        quantile_calibration(forecasts, (0.2,))
