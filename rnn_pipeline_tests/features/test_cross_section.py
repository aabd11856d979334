"""Means and ranks over a session, against pandas, and point in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.features.cross_section import CROSS_FEATURES, base_columns, cross_features

NAMES = [feature.name for feature in CROSS_FEATURES]
KEYS = ["ticker", "session"]


@pytest.fixture
def universe() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (ticker, day)
        for ticker in "ABCDEFG"
        for day in pd.bdate_range("2020-01-06", periods=12)
        if ticker != "C" or day < pd.Timestamp("2020-01-15")
    ]
    frame = pd.DataFrame(rows, columns=KEYS)
    values = {base: rng.normal(size=len(frame)) for base in base_columns(CROSS_FEATURES)}
    known_at = frame["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    frame = frame.assign(known_at=known_at, **values)
    frame.loc[frame["ticker"] == "B", "return_20"] = np.nan
    frame.loc[frame["ticker"].isin(["D", "E"]), "return_1"] = 0.25
    return frame


def oracle(universe: pd.DataFrame) -> pd.DataFrame:
    groups = universe.groupby("session")
    count = groups["return_1"].transform("count")
    made = {
        "market_return_1": groups["return_1"].transform("mean"),
        "market_breadth": (universe["return_1"] > 0).groupby(universe["session"]).transform("sum")
        / count,
    }
    for n in (1, 5, 20):
        base = f"return_{n}"
        made[f"{base}_less_market"] = universe[base] - groups[base].transform("mean")
    for base in ("return_1", "return_20", "volatility_20", "log_dollar_volume_20"):
        others = groups[base].transform("count") - 1
        made[f"{base}_rank"] = (groups[base].rank() - 1) / others
    return pd.DataFrame({**{key: universe[key] for key in KEYS}, **made})[[*KEYS, *NAMES]]


def test_against_pandas(universe: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(cross_features(universe), oracle(universe), rtol=1e-12)


def test_order_and_strangers_of_other_sessions_change_no_bit(universe: pd.DataFrame) -> None:
    before = cross_features(universe)
    pd.testing.assert_frame_equal(
        cross_features(universe.sample(frac=1, random_state=1)), before, check_exact=True
    )
    newcomer = universe[universe["ticker"] == "A"].tail(3).assign(ticker="Aa", return_1=9.0)
    after = cross_features(pd.concat([universe, newcomer]))
    early = ~before["session"].isin(newcomer["session"])
    kept = after[~after["session"].isin(newcomer["session"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before[early].reset_index(drop=True), check_exact=True)
    assert len(after) == len(before) + 3


def test_a_late_row_compares_itself_and_moves_nobody(universe: pd.DataFrame) -> None:
    day = pd.Timestamp("2020-01-09")
    late = (universe["ticker"] == "F") & (universe["session"] == day)
    told = universe.assign(
        known_at=universe["known_at"].mask(late, pd.Timestamp("2020-02-01", tz="UTC"))
    )
    after, without = cross_features(told), cross_features(universe[~late])
    there = (after["ticker"] == "F") & (after["session"] == day)
    pd.testing.assert_frame_equal(after[~there].reset_index(drop=True), without, check_exact=True)
    own = cross_features(universe)
    pd.testing.assert_frame_equal(after[there], own[there], check_exact=True)


def test_alone_in_the_market_is_the_middle(universe: pd.DataFrame) -> None:
    alone = cross_features(universe[universe["ticker"] == "A"])
    ranks = [name for name in NAMES if name.endswith("_rank")]
    assert (alone[ranks] == 0.5).all(axis=None)
    assert (alone["return_5_less_market"] == 0.0).all()


def test_bad_input_is_named(universe: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="lacks the columns"):
        cross_features(universe.drop(columns="return_20"))
    with pytest.raises(ValueError, match="A on 2020-01-06 stands twice"):
        cross_features(pd.concat([universe, universe.iloc[[0]]]))
