"""The feature families against plain pandas and TA-Lib, and what every declaration promises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib

from rnn_pipeline.features import catalogue
from rnn_pipeline.features.catalogue import (
    BOUNDS,
    DECLARED,
    NAMES,
    WARM_UP,
    YEAR,
    feature_table,
    feature_table_hash,
    in_warm_up,
)
from rnn_pipeline.features.cross_section import CROSS_FEATURES
from rnn_pipeline.features.model import DEFAULT_FEATURES, model_columns
from rnn_pipeline.features.price import PRICE_FEATURES, Feature, price_features
from rnn_pipeline_tests.features.test_price import adjusted, make_bars

NEW = [feature for feature in DECLARED if feature not in PRICE_FEATURES]
COLUMNS = ("open", "high", "low", "close", "adj_close", "volume")


def as_known(bars: pd.DataFrame) -> pd.DataFrame:
    known_at = bars["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    return bars.assign(known_at=known_at, era=0, in_era=True)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    parts = [make_bars("AAA", 400, 1), make_bars("BBB", 320, 2), make_bars("CCC", 400, 3)]
    return as_known(pd.concat(parts, ignore_index=True))


@pytest.fixture(scope="module")
def table(bars: pd.DataFrame) -> pd.DataFrame:
    return feature_table(bars, bars.iloc[:0])


def oracle(one: pd.DataFrame) -> pd.DataFrame:
    """The families in plain pandas and TA-Lib, one ticker at a time."""
    raw = one.set_index("session")
    bar = adjusted(raw)
    close, volume = bar["close"], raw["volume"]
    spread, moved = np.log(bar["high"] / bar["low"]), np.log(bar["close"] / bar["open"])
    garman_klass = 0.5 * spread**2 - (2 * np.log(2) - 1) * moved**2
    turnover = raw["close"] * volume
    weekday = close.index.weekday.to_series(index=close.index)
    month = close.index.month.to_series(index=close.index) - 1
    highest = pd.Series(talib.MAX(bar["high"].to_numpy(), YEAR), index=close.index)
    rate = {n: talib.ROCP(close.to_numpy(), n) for n in (2, 3, 5, 10, 20, 60)}
    return pd.DataFrame(
        {
            **{f"return_{n}": values for n, values in rate.items()},
            "close_to_high_252": close / highest - 1,
            "parkinson_20": np.sqrt((spread**2).rolling(20).mean() / (4 * np.log(2))),
            "garman_klass_20": np.sqrt(garman_klass.rolling(20).mean()),
            "overnight_gap": bar["open"] / close.shift(1) - 1,
            "intraday_return": bar["close"] / bar["open"] - 1,
            "intraday_range": (bar["high"] - bar["low"]) / close,
            "volume_z_20": (volume - volume.rolling(20).mean()) / volume.rolling(20).std(),
            "dollar_volume_to_sma_20": turnover / turnover.rolling(20).mean(),
            "log_dollar_volume_20": np.log1p(turnover.rolling(20).mean()),
            "weekday_sin": np.sin(2 * np.pi * weekday / 5),
            "weekday_cos": np.cos(2 * np.pi * weekday / 5),
            "month_sin": np.sin(2 * np.pi * month / 12),
            "month_cos": np.cos(2 * np.pi * month / 12),
            "days_since_previous": close.index.to_series().diff().dt.days.astype(float),
        },
        index=close.index,
    )


def test_every_family_equals_its_oracle(bars: pd.DataFrame, table: pd.DataFrame) -> None:
    for ticker, one in bars.groupby("ticker"):
        expected = oracle(one)
        assert sorted(expected.columns) == sorted(feature.name for feature in NEW)
        actual = table[table["ticker"] == ticker].set_index("session")[list(expected.columns)]
        pd.testing.assert_frame_equal(
            actual, expected, check_freq=False, check_index_type=False, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("feature", DECLARED, ids=lambda feature: feature.name)
def test_a_value_from_the_warm_up_on_and_within_bounds(
    feature: Feature, table: pd.DataFrame
) -> None:
    position = table.groupby("ticker").cumcount()
    assert (table[feature.name].isna() == (position < feature.warm_up)).all()
    if feature.bounds is not None:
        assert table[feature.name].dropna().between(*feature.bounds).all()


@pytest.mark.parametrize("feature", DECLARED, ids=lambda feature: feature.name)
def test_only_the_declared_source_matters(feature: Feature, bars: pd.DataFrame) -> None:
    """Another series in any other column leaves the values; in a column of the source it does not.

    Adjusted prices carry ``adj_close / close``, so ``close`` counts as a source of every price.
    """
    one = bars[bars["ticker"] == "AAA"]
    before = price_features(one, [feature])[feature.name]
    rng = np.random.default_rng(0)
    factor = np.exp(rng.normal(0, 0.05, len(one)))
    for column in COLUMNS:
        moved = one.assign(**{column: one[column] * factor})
        if column == "close" and "adj_close" in feature.source:
            continue
        if column == "adj_close" and "adj_close" not in feature.source:
            moved = moved.assign(adj_close=one["adj_close"] * 0.5)
        same = np.allclose(
            price_features(moved, [feature])[feature.name], before, equal_nan=True, rtol=1e-9
        )
        assert same == (column not in feature.source), column


@pytest.mark.parametrize("feature", DECLARED, ids=lambda feature: feature.name)
def test_where_prices_stand_still_neutral_features_have_a_value(feature: Feature) -> None:
    still = make_bars("AAA", 300).assign(
        **dict.fromkeys(("open", "high", "low", "close", "adj_close"), 10.0), volume=0.0
    )
    values = price_features(still, [feature])[feature.name].iloc[feature.warm_up :]
    assert np.isfinite(values).all()


@pytest.mark.parametrize("rows", [1, 5, 30])
def test_the_last_rows_alone_are_the_same_bits(
    bars: pd.DataFrame, table: pd.DataFrame, rows: int
) -> None:
    days = sorted(bars["session"].unique())[-(WARM_UP + rows) :]
    recent = bars[bars["session"].isin(days)]
    alone = feature_table(recent, recent.iloc[:0])
    wanted = days[-rows:]
    pd.testing.assert_frame_equal(
        alone[alone["session"].isin(wanted)].reset_index(drop=True),
        table[table["session"].isin(wanted)].reset_index(drop=True),
        check_exact=True,
    )


@pytest.mark.parametrize("ticker", ["AAA", "BBB", "CCC"])
def test_one_ticker_alone_is_compared_with_the_whole_universe(
    bars: pd.DataFrame, table: pd.DataFrame, ticker: str
) -> None:
    own = bars["ticker"] == ticker
    pd.testing.assert_frame_equal(
        feature_table(bars[own], bars[~own]),
        table[table["ticker"] == ticker].reset_index(drop=True),
        check_exact=True,
    )
    without = feature_table(bars[own], bars.iloc[:0])
    assert not without["return_1_rank"].equals(
        table.loc[table["ticker"] == ticker, "return_1_rank"].reset_index(drop=True)
    )


def test_a_later_split_or_dividend_moves_no_feature(
    bars: pd.DataFrame, table: pd.DataFrame
) -> None:
    prices = ["open", "high", "low", "close", "adj_close"]
    split = bars.assign(**{name: bars[name] / 2 for name in prices}, volume=bars["volume"] * 2)
    paid = bars.assign(adj_close=bars["adj_close"] * 0.97)
    for restated in (split, paid):
        again = feature_table(restated, restated.iloc[:0])
        np.testing.assert_allclose(again[list(NAMES)], table[list(NAMES)], rtol=1e-9, atol=1e-9)


def test_in_warm_up_is_where_values_are_missing(bars: pd.DataFrame, table: pd.DataFrame) -> None:
    inside = in_warm_up(bars).sort_values(["ticker", "session"], ignore_index=True)
    names = [feature.name for feature in DECLARED]
    pd.testing.assert_frame_equal(inside[names], table[names].isna())
    # Ranks of a ticker that is there are never missing; those of the others' do not matter.
    for feature in CROSS_FEATURES:
        assert (inside[feature.name] == table[feature.name].isna()).all(), feature.name


def test_names_are_unique_and_bounded_where_they_can_be() -> None:
    assert len(NAMES) == len(DECLARED) + len(CROSS_FEATURES) == 46
    assert BOUNDS["return_20_rank"] == (0.0, 1.0)


def test_the_hash_names_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    before = feature_table_hash()
    assert before == feature_table_hash()
    monkeypatch.setattr(catalogue, "CROSS_FEATURES", CROSS_FEATURES[:-1])
    assert feature_table_hash() != before
    monkeypatch.undo()
    monkeypatch.setattr(catalogue, "DECLARED", DECLARED[:-1])
    assert feature_table_hash() != before


def test_model_columns_are_chosen_checked_and_few_by_default() -> None:
    assert model_columns(()) == DEFAULT_FEATURES
    assert len(DEFAULT_FEATURES) < len(NAMES) / 1.8
    assert model_columns(["return_20", "return_1_rank", "sentiment_dispersion"]) == (
        *("return_20", "return_1_rank", "sentiment_dispersion"),
    )
    with pytest.raises(ValueError, match=r"names \['sma_5'\], which no feature is called"):
        model_columns(["return_1", "sma_5"])
    with pytest.raises(ValueError, match=r"names \['return_1'\] twice"):
        model_columns(["return_1", "return_1"])
