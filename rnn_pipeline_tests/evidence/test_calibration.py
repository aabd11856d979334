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


LEVELS = (0.1, 0.5, 0.9)


def with_quantiles(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Three constant quantiles of every forecast, the last of them too low."""
    values = (0.01 * norm.ppf(0.1), 0.0, 0.004)
    rows = [
        forecasts.drop(columns="forecast").assign(level=level, quantile=value)
        for level, value in zip(LEVELS, values, strict=True)
    ]
    return pd.concat(rows, ignore_index=True)


def training(rng: np.random.Generator, tickers: tuple[str, ...]) -> pd.DataFrame:
    """Outcomes of 200 sessions in 1990, of which ``SPANS`` trains on the first 100."""
    sessions = pd.date_range("1990-01-01", periods=200)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": sessions,
                    "horizon": 1,
                    "target": rng.normal(size=200),
                }
            )
            for ticker in tickers
        ],
        ignore_index=True,
    )


def spans(folds: pd.Series) -> pd.DataFrame:
    first = pd.Timestamp("1990-01-01")
    return pd.DataFrame(
        [
            (fold, role, first + pd.Timedelta(days=start), first + pd.Timedelta(days=start + 99))
            for fold in folds.unique()
            for role, start in (("train", 0), ("val", 100))
        ],
        columns=["fold", "role", "first_session", "last_session"],
    )


def test_coverage_and_pinball_loss_are_those_of_scipy_and_scikit_learn(make_forecasts) -> None:
    forecasts = make_forecasts(sessions=300, seeds=(0,))
    forecasts.loc[7, "actual"] = np.nan
    quantiles, targets = with_quantiles(forecasts), training(np.random.default_rng(1), ("AAA",))
    known = forecasts.dropna(subset="actual")["actual"]
    table = quantile_calibration(quantiles, targets, spans(forecasts["fold"])).set_index("level")
    for level, own in quantiles.groupby("level"):
        row, quantile = table.loc[level], own["quantile"].iloc[0]
        below = int((known <= quantile).sum())
        assert row["n"] == 299
        assert row["coverage"] == below / 299
        interval = binomtest(below, 299).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        loss = mean_pinball_loss(known, np.full(299, quantile), alpha=level)
        assert row["pinball"] == pytest.approx(loss)
        learned = np.quantile(targets["target"][:100], level)
        unconditional = mean_pinball_loss(known, np.full(299, learned), alpha=level)
        assert row["unconditional"] == pytest.approx(unconditional)
        assert row["skill"] == pytest.approx(1 - loss / unconditional)
    assert table.loc[0.1, "low"] < 0.1 < table.loc[0.1, "high"]
    assert table.loc[0.9, "high"] < 0.9


def test_quantiles_are_averaged_over_seeds_and_groups_stand_for_themselves(make_forecasts) -> None:
    quantiles = with_quantiles(make_forecasts(("AAA", "BBB"), sessions=50, seeds=(0, 1)))
    shift = quantiles["seed"].map({0: 0.001, 1: -0.001})
    targets = training(np.random.default_rng(2), ("AAA", "BBB"))
    told = targets, spans(quantiles["fold"]), ("ticker", "model")
    table = quantile_calibration(quantiles, *told)
    spread = quantile_calibration(quantiles.assign(quantile=quantiles["quantile"] + shift), *told)
    assert table["ticker"].unique().tolist() == ["AAA", "BBB"]
    assert (table["n"] == 50).all()
    pd.testing.assert_frame_equal(table, spread)
    one = quantiles[quantiles["ticker"] == "BBB"]
    alone = quantile_calibration(one, *told)
    pd.testing.assert_frame_equal(alone, table[3:].reset_index(drop=True))


def test_networks_without_quantiles_and_folds_without_training_rows(make_forecasts) -> None:
    quantiles = with_quantiles(make_forecasts(sessions=30))
    targets, folds = training(np.random.default_rng(4), ("AAA",)), spans(quantiles["fold"])
    table = quantile_calibration(quantiles, targets, folds)
    none = quantile_calibration(quantiles.iloc[:0], targets.iloc[:0], folds.iloc[:0])
    assert none.empty
    assert list(none.columns) == list(table.columns)
    unknown = quantile_calibration(quantiles, targets, folds.iloc[:0])
    assert unknown["skill"].isna().all()
    assert unknown["pinball"].tolist() == table["pinball"].tolist()


def test_a_level_that_is_none_is_named(make_forecasts) -> None:
    quantiles = with_quantiles(make_forecasts())
    told = training(np.random.default_rng(3), ("AAA",)), spans(quantiles["fold"])
    with pytest.raises(ValueError, match=r"\[90.0\] are no levels"):
        quantile_calibration(quantiles.replace({"level": {0.9: 90.0}}), *told)
    with pytest.raises(ValueError, match=r"lacks the columns \['quantile'\]"):
        quantile_calibration(quantiles.drop(columns="quantile"), *told)
