"""Price features against independent oracles, and the promise that a row's bits depend on its
window alone."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn_pipeline.features import price
from rnn_pipeline.features.price import (
    MOVING_AVERAGES,
    PRICE_FEATURES,
    Feature,
    Panel,
    ema_rows,
    feature_set_hash,
    moving_averages,
    price_features,
    targets,
    warm_up,
)

NAMES = [feature.name for feature in PRICE_FEATURES]
BY_NAME = {feature.name: feature for feature in PRICE_FEATURES}
LENGTH = 320


def make_bars(ticker: str, n: int = LENGTH, seed: int = 0) -> pd.DataFrame:
    """A random walk with a dividend-like step in the adjustment factor in the middle."""
    rng = np.random.default_rng(seed)
    close = 80 * np.exp(np.cumsum(rng.normal(0.0003, 0.02, n)))
    opening = close * np.exp(rng.normal(0, 0.01, n))
    return pd.DataFrame(
        {
            "ticker": pd.Series([ticker] * n, dtype="str"),
            "session": pd.bdate_range("2020-01-01", periods=n),
            "open": opening,
            "high": np.maximum(opening, close) * (1 + rng.uniform(0, 0.02, n)),
            "low": np.minimum(opening, close) * (1 - rng.uniform(0, 0.02, n)),
            "close": close,
            "adj_close": close * np.where(np.arange(n) < n // 2, 0.97, 1.0),
            "volume": rng.integers(1_000, 1_000_000, n).astype(float),
        }
    )


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return pd.concat(
        [make_bars("AAA", seed=1), make_bars("BBB", 250, seed=2), make_bars("CCC", seed=3)],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def features(bars: pd.DataFrame) -> pd.DataFrame:
    return price_features(bars)


def adjusted(one: pd.DataFrame) -> pd.DataFrame:
    factor = one["adj_close"] / one["close"]
    return one.assign(**{name: one[name] * factor for name in ("open", "high", "low", "close")})


def truncated_ema(x: pd.Series, alpha: float, rows: int) -> pd.Series:
    """Oracle: the normalised weighted mean of each window of ``rows``, written out."""
    weights = (1 - alpha) ** np.arange(rows)[::-1]
    return x.rolling(rows).apply(lambda window: np.average(window, weights=weights), raw=True)


def oracle(one: pd.DataFrame) -> pd.DataFrame:
    """The feature list in plain pandas, one ticker at a time."""
    bar = adjusted(one.set_index("session"))
    close, volume = bar["close"], bar["volume"]
    change, previous = close.diff(), close.shift(1)
    sma = {n: close.rolling(n).mean() for n in (5, 10, 20, 50)}
    gain = truncated_ema(change.clip(lower=0), 1 / 14, 128)
    loss = truncated_ema((-change).clip(lower=0), 1 / 14, 128)
    line = truncated_ema(close, 2 / 13, 64) - truncated_ema(close, 2 / 27, 128)
    signal = truncated_ema(line, 2 / 10, 64)
    deviation = close.rolling(20).std(ddof=0)
    lower, upper = sma[20] - 2 * deviation, sma[20] + 2 * deviation
    ranges = [
        bar["high"] - bar["low"],
        (bar["high"] - previous).abs(),
        (bar["low"] - previous).abs(),
    ]
    true_range = pd.concat(ranges, axis=1).max(axis=1, skipna=False)
    return pd.DataFrame(
        {
            "return_1": close.pct_change(),
            "log_return_1": np.log(close).diff(),
            "volatility_20": np.log(close).diff().rolling(20).std(),
            **{f"close_to_sma_{n}": close / sma[n] - 1 for n in sma},
            "sma_5_to_sma_20": sma[5] / sma[20] - 1,
            "sma_20_to_sma_50": sma[20] / sma[50] - 1,
            "volume_to_sma_20": volume / volume.rolling(20).mean(),
            "volume_sma_5_to_sma_20": volume.rolling(5).mean() / volume.rolling(20).mean(),
            "rsi_14": 100 - 100 / (1 + gain / loss),
            "macd": line / close,
            "macd_signal": signal / close,
            "macd_histogram": (line - signal) / close,
            "bollinger_position_20": (close - lower) / (upper - lower),
            "atr_14": truncated_ema(true_range, 1 / 14, 128) / close,
        }
    )


def test_every_feature_equals_its_pandas_oracle(bars: pd.DataFrame, features: pd.DataFrame) -> None:
    for ticker, one in bars.groupby("ticker"):
        expected = oracle(one)
        actual = features[features["ticker"] == ticker].set_index("session")[NAMES]
        assert list(expected.columns) == NAMES
        pd.testing.assert_frame_equal(
            actual, expected, rtol=1e-9, atol=1e-12, check_freq=False, check_index_type=False
        )


def test_talib_agrees_where_its_recursions_have_forgotten_their_start() -> None:
    one = make_bars("AAA", 600, seed=5)
    actual = price_features(one).set_index("session").iloc[-50:]
    bar = adjusted(one)
    close, high, low = (bar[name].to_numpy() for name in ("close", "high", "low"))
    upper, _, lower = talib.BBANDS(close, 20, 2, 2)
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    # A recursion keeps about 1e-4 of its weight beyond the window that is cut here.
    expected = {
        "rsi_14": (talib.RSI(close, 14), 0.02),
        "atr_14": (talib.ATR(high, low, close, 14) / close, 1e-5),
        "macd": (macd / close, 2e-5),
        "macd_signal": (signal / close, 2e-5),
        "macd_histogram": (histogram / close, 2e-5),
        "bollinger_position_20": ((close - lower) / (upper - lower), 1e-9),
        "close_to_sma_50": (close / talib.SMA(close, 50) - 1, 1e-12),
    }
    for name, (values, tolerance) in expected.items():
        np.testing.assert_allclose(actual[name], values[-50:], rtol=0, atol=tolerance, err_msg=name)


def test_moving_averages_are_levels_on_the_adjusted_scale() -> None:
    one = make_bars("AAA", 80)
    actual = moving_averages(one)
    close = adjusted(one)["close"]
    for n in (5, 10, 20, 50):
        np.testing.assert_allclose(actual[f"sma_{n}"], close.rolling(n).mean(), rtol=1e-13)
    np.testing.assert_allclose(actual["volume_sma_20"], one["volume"].rolling(20).mean())


@given(n=st.integers(1, 70), seed=st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_rolling_operations_of_any_width(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(1e4, 1, 120)
    position = np.concatenate([np.arange(90), np.arange(30)])
    panel = Panel(x, x, x, x, x, x, position, position)
    segments = pd.Series(x).groupby(np.repeat([0, 1], [90, 30]))
    for actual, expected in (
        (panel.lag(x, n), segments.shift(n)),
        (panel.rolling_mean(x, n), segments.transform(lambda s: s.rolling(n).mean())),
        (panel.rolling_max(x, n), segments.transform(lambda s: s.rolling(n).max())),
        (panel.rolling_min(x, n), segments.transform(lambda s: s.rolling(n).min())),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-13)
    exact = segments.transform(lambda s: s.rolling(n).apply(lambda w: np.std(w), raw=True))
    np.testing.assert_allclose(panel.rolling_std(x, n, ddof=0), exact, rtol=1e-9, atol=1e-12)


def test_declared_warm_up_is_the_first_value(bars: pd.DataFrame, features: pd.DataFrame) -> None:
    for feature in (*PRICE_FEATURES, *MOVING_AVERAGES):
        table = features if feature.name in features else moving_averages(bars)
        for _, one in table.groupby("ticker"):
            values = one[feature.name].to_numpy()
            assert np.isnan(values[: feature.warm_up]).all(), feature.name
            assert np.isfinite(values[feature.warm_up :]).all(), feature.name
    assert warm_up(PRICE_FEATURES) == 190
    assert warm_up(()) == 0
    assert [ema_rows(span) for span in (9, 12, 26, 27)] == [64, 64, 128, 128]


def test_values_stay_within_declared_bounds(features: pd.DataFrame) -> None:
    for feature in PRICE_FEATURES:
        assert feature.bounds is not None
        values = features[feature.name].dropna()
        assert values.between(*feature.bounds).all(), feature.name


# The bits of a row


def test_the_last_rows_alone_have_the_same_bits(bars: pd.DataFrame, features: pd.DataFrame) -> None:
    for keep in (1, 7, 60):
        tail = bars.groupby("ticker").tail(warm_up(PRICE_FEATURES) + keep)
        actual = price_features(tail).groupby("ticker").tail(keep)[NAMES].to_numpy()
        expected = features.groupby("ticker").tail(keep)[NAMES].to_numpy()
        assert np.isfinite(actual).all()
        assert np.array_equal(actual, expected)


def test_a_scrambled_future_changes_no_bit_of_the_past(
    bars: pd.DataFrame, features: pd.DataFrame
) -> None:
    cut = bars["session"].iloc[230]
    later = (bars["session"] > cut).to_numpy()
    scrambled = bars.copy()
    noise = np.random.default_rng(9).uniform(0.2, 5.0, (later.sum(), 6))
    numbers = ["open", "high", "low", "close", "adj_close", "volume"]
    scrambled.loc[later, numbers] *= noise
    after = price_features(scrambled)
    past = (features["session"] <= cut).to_numpy()
    assert np.array_equal(after.loc[past, NAMES], features.loc[past, NAMES], equal_nan=True)
    assert not np.array_equal(after[NAMES], features[NAMES], equal_nan=True)


def test_row_order_changes_nothing(bars: pd.DataFrame, features: pd.DataFrame) -> None:
    for seed in range(3):
        shuffled = bars.sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(price_features(shuffled), features, check_exact=True)


def test_other_tickers_change_nothing(
    bars: pd.DataFrame, features: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in (1, 100, 1_000_000):
        monkeypatch.setattr(price, "_BLOCK_ROWS", block)
        for chosen in (["BBB"], ["AAA", "CCC"], ["AAA", "BBB", "CCC"]):
            actual = price_features(bars[bars["ticker"].isin(chosen)])
            expected = features[features["ticker"].isin(chosen)].reset_index(drop=True)
            pd.testing.assert_frame_equal(actual, expected, check_exact=True)


def test_the_unit_of_sessions_does_not_matter(bars: pd.DataFrame, features: pd.DataFrame) -> None:
    for unit in ("s", "ms", "ns"):
        other = price_features(bars.assign(session=bars["session"].dt.as_unit(unit)))
        assert other["session"].dt.unit == unit
        assert np.array_equal(other[NAMES], features[NAMES], equal_nan=True)


def test_a_later_dividend_or_split_moves_no_feature(
    bars: pd.DataFrame, features: pd.DataFrame
) -> None:
    dividend = price_features(bars.assign(adj_close=bars["adj_close"] * 0.9871234))
    np.testing.assert_allclose(dividend[NAMES], features[NAMES], rtol=1e-10, atol=1e-12)
    per_share = {name: bars[name] / 4 for name in ("open", "high", "low", "close", "adj_close")}
    split = price_features(bars.assign(**per_share, volume=bars["volume"] * 4))
    assert np.array_equal(split[NAMES], features[NAMES], equal_nan=True), "a power of two is exact"


# Eras: the same session as it was known at different times


def eras_of(one: pd.DataFrame, seen: int, factor: float) -> pd.DataFrame:
    """History known at row ``seen``, then all of it restated by a dividend."""
    position = np.arange(len(one))
    first = one.iloc[:seen].assign(era=0, in_era=True)
    restated = one["adj_close"].where(position >= seen, one["adj_close"] * factor)
    second = one.assign(adj_close=restated, era=1, in_era=position >= seen)
    return pd.concat([second, first], ignore_index=True)


def test_each_era_is_a_history_of_its_own() -> None:
    one = make_bars("AAA")
    eras = eras_of(one, seen=250, factor=0.5)
    actual = price_features(eras)
    assert len(actual) == len(one)
    assert actual["session"].is_monotonic_increasing
    restated = eras[eras["era"] == 1].drop(columns=["era", "in_era"])
    expected = np.vstack(
        [price_features(one)[NAMES].to_numpy()[:250], price_features(restated)[NAMES][250:]]
    )
    assert np.array_equal(actual[NAMES], expected, equal_nan=True)


def test_targets_take_both_prices_from_the_latest_era() -> None:
    one = make_bars("AAA", 60)
    eras = eras_of(one, seen=40, factor=0.5)
    restated = eras[eras["era"] == 1].drop(columns=["era", "in_era"])
    pd.testing.assert_frame_equal(targets(eras, 3), targets(restated, 3))
    # A later era that holds its warm-up only leaves the older sessions to the older era.
    short = eras[(eras["era"] == 0) | (eras["session"] >= one["session"].iloc[20])]
    actual = targets(short, 3)["target"].to_numpy()
    old, new = targets(one.iloc[:40], 3)["target"], targets(restated, 3)["target"]
    assert np.array_equal(actual[:20], old[:20])
    assert np.array_equal(actual[20:], new[20:], equal_nan=True)


# Targets


def test_targets_by_hand() -> None:
    one = make_bars("AAA", 4).assign(adj_close=[1.0, 2.0, 4.0, 2.0])
    two = make_bars("BBB", 2).assign(adj_close=[3.0, 3.0])
    actual = targets(pd.concat([two, one]).assign(close=1.0), 2)
    log2 = np.log(2.0)
    np.testing.assert_allclose(actual["target"], [2 * log2, 0.0, *[np.nan] * 4], atol=1e-15)
    sessions = one["session"].tolist()
    assert actual["target_session"].tolist()[:2] == sessions[2:4]
    assert actual["target_session"].isna().tolist() == [False, False, True, True, True, True]
    assert actual["ticker"].tolist() == ["AAA"] * 4 + ["BBB"] * 2
    assert list(actual.columns) == ["ticker", "session", "horizon", "target", "target_session"]
    assert set(actual["horizon"]) == {2}


@pytest.mark.parametrize("horizon", [1, 5, 400])
def test_targets_equal_a_shift(bars: pd.DataFrame, horizon: int) -> None:
    actual = targets(bars, horizon)
    by_ticker = bars.groupby("ticker")
    expected = np.log(by_ticker["adj_close"].shift(-horizon) / bars["adj_close"])
    np.testing.assert_allclose(actual["target"], expected, rtol=1e-12, atol=1e-15)
    pd.testing.assert_series_equal(
        actual["target_session"], by_ticker["session"].shift(-horizon), check_names=False
    )


# Odd and wrong input


def test_a_price_that_stands_still_has_defined_values() -> None:
    one = make_bars("AAA").assign(open=7.1, high=7.1, low=7.1, close=7.1, volume=0.0)
    # A dividend changes the factor, so the adjusted price moves by rounding alone within a span.
    one["adj_close"] = one["close"] * np.where(np.arange(LENGTH) < 100, 0.3, 0.1)
    last = price_features(one).iloc[-1]
    expected = dict.fromkeys(NAMES, 0.0) | {
        "rsi_14": 50.0,
        "bollinger_position_20": 0.5,
        "volume_to_sma_20": 1.0,
        "volume_sma_5_to_sma_20": 1.0,
    }
    np.testing.assert_allclose(last[NAMES].astype(float), list(expected.values()), atol=1e-14)
    jittered = one.assign(adj_close=0.71 * (1 + 1e-15 * (np.arange(LENGTH) % 3)))
    last = price_features(jittered).iloc[-1]
    assert last["rsi_14"] == 50.0
    assert last["bollinger_position_20"] == 0.5


def test_one_row_and_no_row() -> None:
    one = make_bars("AAA", 1)
    actual = price_features(one)
    assert len(actual) == 1
    assert actual[NAMES].isna().all(axis=None)
    assert targets(one, 1)["target_session"].isna().all()
    none = price_features(one.iloc[:0])
    assert list(none.columns) == list(actual.columns)
    assert len(none) == len(targets(one.iloc[:0], 1)) == 0


def test_known_at_is_carried_along(bars: pd.DataFrame) -> None:
    known_at = bars["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    actual = price_features(bars.assign(known_at=known_at).sample(frac=1, random_state=1))
    assert list(actual.columns) == ["ticker", "session", "known_at", *NAMES]
    moment = actual["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    assert (actual["known_at"] == moment).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.drop(columns="high"), r"lack the columns \['high'\]"),
        (lambda b: pd.concat([b, b.iloc[[5]]]), "1 sessions stand twice.*AAA on 2020-01-08"),
        (lambda b: b.assign(close=b["close"].where(b.index != 2, -1.0)), "close = -1.0 for AAA on"),
        (lambda b: b.assign(adj_close=b["adj_close"].where(b.index != 2)), "adj_close = nan"),
        (lambda b: b.assign(volume=-1.0), "volume = -1.0"),
        (lambda b: b.assign(session=b["session"].astype(str)), "tz-naive date"),
        (lambda b: b.assign(session=b["session"].dt.tz_localize("UTC")), "tz-naive date"),
        (lambda b: b.assign(ticker=b["ticker"].where(b.index != 2)), "1 rows have no ticker"),
    ],
)
def test_wrong_bars_are_named(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        price_features(change(make_bars("AAA", 30)))  # type: ignore[operator]


def test_horizon_must_look_ahead() -> None:
    with pytest.raises(ValueError, match="horizon = 0"):
        targets(make_bars("AAA", 3), 0)


# The name of a feature set


def plain(panel: Panel) -> np.ndarray:
    return panel.close


def helped(panel: Panel) -> np.ndarray:
    return plain(panel)


def test_feature_set_hash_names_what_made_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    name = feature_set_hash(PRICE_FEATURES)
    assert name == feature_set_hash(list(PRICE_FEATURES))
    assert len(name) == 16
    rsi = BY_NAME["rsi_14"]
    others = [
        PRICE_FEATURES[1:],
        PRICE_FEATURES[::-1],
        (*PRICE_FEATURES[:-1], dataclasses.replace(PRICE_FEATURES[-1], formula="other")),
        *(
            tuple(changed if feature is rsi else feature for feature in PRICE_FEATURES)
            for changed in (
                dataclasses.replace(rsi, warm_up=1),
                dataclasses.replace(rsi, compute=partial(rsi.compute.func, n=15)),  # type: ignore[attr-defined]
                dataclasses.replace(rsi, compute=plain),
            )
        ),
    ]
    hashes = {name, *(feature_set_hash(features) for features in others)}
    assert len(hashes) == len(others) + 1
    monkeypatch.setattr(price, "FLAT", 1e-9)
    assert feature_set_hash(PRICE_FEATURES) not in hashes


def test_feature_set_hash_sees_through_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    features = (Feature("x", "x", 0, helped),)
    before = feature_set_hash(features)
    monkeypatch.setitem(globals(), "plain", truncated_ema)
    assert feature_set_hash(features) != before


def test_a_feature_without_source_cannot_be_named() -> None:
    with pytest.raises(ValueError, match="'x': the source"):
        feature_set_hash((Feature("x", "x", 0, eval("lambda panel: panel.close")),))
