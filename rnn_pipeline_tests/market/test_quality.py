import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market.quality import check_bars, check_drift, check_features, check_headlines

SESSIONS = pd.date_range("2012-01-02", periods=10, freq="B", unit="s")
CLOSES = (SESSIONS + pd.Timedelta(hours=21)).tz_localize("UTC")
NOW = datetime(2012, 1, 31, tzinfo=UTC)
INF = math.inf


def bars(*tickers: str) -> pd.DataFrame:
    rows = pd.DataFrame(
        [(ticker, session) for ticker in tickers for session in SESSIONS],
        columns=["ticker", "session"],
    )
    return rows.assign(
        open=10.0,
        high=11.0,
        low=9.0,
        close=10.5,
        adj_close=5.25,
        volume=1_000,
        dividend=0.0,
        split=0.0,
    )


def headlines(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "news_id": [f"id{i}" for i in range(n)],
            "ticker": "AAPL",
            "published_at": pd.date_range("2012-01-02", periods=n, freq="h", tz="UTC"),
            "title": "Apple shares rise",
            "fetch_id": "f",
        }
    )


def features(n: int, **columns: Any) -> pd.DataFrame:
    rows = pd.DataFrame({"ticker": "A", "session": pd.date_range("2000-01-03", periods=n)})
    return rows.assign(**columns)


def rules_of(bad: pd.DataFrame) -> dict[Any, str]:
    return dict(zip(bad.index, bad["rule"], strict=True))


def test_sound_bars_pass_untouched() -> None:
    rows = bars("A", "B").assign(fetch_id="f")
    verdict = check_bars(rows, SESSIONS, CLOSES, NOW)
    pd.testing.assert_frame_equal(verdict.good, rows)
    assert verdict.bad.empty
    assert list(verdict.bad.columns) == [*rows.columns, "rule"]
    assert verdict.summary["passed"] is True
    assert set(verdict.summary["failing"].values()) == {0}
    assert len(verdict.summary["failing"]) > 25


def test_each_rule_sets_its_row_aside_and_no_other() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"close": np.nan}, "close_present"),
        ({"ticker": None}, "ticker_present"),
        ({"adj_close": -1.0}, "adj_close_positive"),
        ({"adj_close": 0.0}, "adj_close_positive"),
        ({"high": INF}, "high_finite"),
        ({"low": -INF}, "low_finite; low_positive"),
        ({"volume": np.nan}, "volume_present"),
        ({"volume": -1.0}, "volume_not_negative"),
        ({"volume": INF}, "volume_finite"),
        ({"dividend": -0.1}, "dividend_not_negative"),
        ({"split": np.nan}, "split_present"),
        ({"high": 10.4}, "high_is_highest"),
        ({"low": 10.2}, "low_is_lowest"),
        ({"high": 8.0}, "high_is_highest; low_is_lowest"),
        ({"session": pd.Timestamp("2012-01-07")}, "session_on_calendar"),
        ({"session": pd.NaT}, "session_on_calendar"),
        ({"session": pd.Timestamp("2012-01-03 09:30")}, "session_on_calendar"),
        ({"session": SESSIONS[0]}, "unique_session"),
        (
            dict.fromkeys(["open", "high", "low", "close", "adj_close"], np.nan),
            "open_present; high_present; low_present; close_present; adj_close_present",
        ),
    ]
    # One ticker per case, and one row of it is broken.
    rows = bars(*(f"T{i:02}" for i in range(len(cases)))).astype({"volume": float})
    for i, (values, _) in enumerate(cases):
        for name, value in values.items():
            rows.loc[10 * i + 3, name] = value
    verdict = check_bars(rows, SESSIONS, CLOSES, NOW)
    assert rules_of(verdict.bad) == {10 * i + 3: rule for i, (_, rule) in enumerate(cases)}
    pd.testing.assert_frame_equal(verdict.good, rows.drop(index=verdict.bad.index))
    assert verdict.summary["passed"] is False
    assert (verdict.summary["good"], verdict.summary["bad"]) == (9 * len(cases), len(cases))
    named = Counter(name for _, rules in cases for name in rules.split("; "))
    assert {name: n for name, n in verdict.summary["failing"].items() if n} == named


def test_rounding_is_no_contradiction() -> None:
    rows = bars("A")
    rows["high"] = rows["close"] * (1 - 5e-7)
    rows["low"] = rows["open"] * (1 + 5e-7)
    assert check_bars(rows, SESSIONS, CLOSES, NOW).summary["passed"]
    rows["high"] = rows["close"] * (1 - 5e-6)
    assert check_bars(rows, SESSIONS, CLOSES, NOW).summary["failing"]["high_is_highest"] == 10


def test_a_bar_is_final_from_its_close_on() -> None:
    close = CLOSES[-1].to_pydatetime()
    verdict = check_bars(bars("A"), SESSIONS, CLOSES, close - timedelta(seconds=1))
    assert rules_of(verdict.bad) == {9: "bar_final"}
    assert check_bars(bars("A"), SESSIONS, CLOSES, close).bad.empty


def test_of_repeats_the_first_sound_one_is_good() -> None:
    rows = bars("A")
    repeats = rows.iloc[[2, 2, 2]].assign(close=[np.nan, 10.6, 10.7])
    mixed = pd.concat([repeats, rows.drop(index=2)], ignore_index=True)
    verdict = check_bars(mixed, SESSIONS, CLOSES, NOW)
    assert rules_of(verdict.bad) == {0: "close_present", 2: "unique_session"}
    assert len(verdict.good) == 10


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([7] * 20),
        pd.Index(range(20))[::-1],
        pd.MultiIndex.from_product([["x"], range(20)], names=["row", "ticker"]),
        pd.date_range("2020-01-01", periods=20, name="session"),
    ],
    ids=["repeated", "reversed", "multi", "named like a column"],
)
def test_any_index_gives_an_exact_partition(index: pd.Index) -> None:
    rows = bars("A", "B")
    rows["number"] = range(len(rows))
    rows.loc[[0, 13], "close"] = [-1.0, np.nan]
    rows.loc[19, "session"] = rows.loc[18, "session"]
    rows.index = index
    verdict = check_bars(rows, SESSIONS, CLOSES, NOW)
    assert verdict.bad["number"].tolist() == [0, 13, 19]
    assert sorted([*verdict.bad["number"], *verdict.good["number"]]) == list(range(20))
    pd.testing.assert_frame_equal(verdict.good, rows[~rows["number"].isin([0, 13, 19])])


def test_an_empty_batch_of_bars_does_not_pass() -> None:
    verdict = check_bars(pd.DataFrame(columns=bars("A").columns), SESSIONS, CLOSES, NOW)
    assert verdict.summary["passed"] is False
    assert verdict.summary["failing"]["not_empty"] == 1
    assert verdict.good.empty
    assert verdict.bad.empty


def test_bars_of_no_known_session_are_all_bad() -> None:
    verdict = check_bars(bars("A"), SESSIONS[:0], CLOSES[:0], NOW)
    assert set(verdict.bad["rule"]) == {"session_on_calendar"}


def test_the_summary_is_json_and_short() -> None:
    rows = bars("A").assign(note="x" * 100_000)
    rows["close"] = np.nan
    summary = check_bars(rows, SESSIONS, CLOSES, NOW).summary
    assert len(json.dumps(summary)) < 10_000
    assert summary["rows"] == summary["bad"] == 10
    assert len(summary["sample"]) == 5
    assert summary["sample"][0]["rule"] == "close_present"


def test_what_is_no_table_of_bars_is_refused() -> None:
    with pytest.raises(ValueError, match=r"columns \['close'\] are missing"):
        check_bars(bars("A").drop(columns="close"), SESSIONS, CLOSES, NOW)
    with pytest.raises(ValueError, match=r"column open must hold numbers: .*'ten'"):
        check_bars(bars("A").assign(open="ten"), SESSIONS, CLOSES, NOW)
    zoned = bars("A").assign(session=lambda rows: rows["session"].dt.tz_localize("UTC"))
    with pytest.raises(ValueError, match="without a zone"):
        check_bars(zoned, SESSIONS, CLOSES, NOW)
    with pytest.raises(ValueError, match="now needs a time zone"):
        check_bars(bars("A"), SESSIONS, CLOSES, NOW.replace(tzinfo=None))


def test_sound_headlines_pass_and_none_at_all_pass_too() -> None:
    rows = headlines(5)
    verdict = check_headlines(rows, NOW)
    pd.testing.assert_frame_equal(verdict.good, rows)
    assert verdict.summary["passed"] is True
    for empty in (rows.iloc[:0], pd.DataFrame(columns=rows.columns)):
        assert check_headlines(empty, NOW).summary["passed"] is True


def test_each_headline_rule_sets_its_row_aside_and_no_other() -> None:
    cases: list[tuple[str, Any, str]] = [
        ("title", None, "title_present"),
        ("title", "", "title_present"),
        ("title", " \u2003\n", "title_present"),
        ("title", "x" * 100_000, "title_length"),
        ("title", "x" * 2_001, "title_length"),
        ("published_at", pd.NaT, "published_at_present"),
        ("published_at", pd.Timestamp("2012-02-01", tz="UTC"), "published_in_future"),
        ("news_id", None, "news_id_present"),
        ("news_id", "id0", "unique_news_id"),
        ("ticker", None, "ticker_present"),
    ]
    rows = headlines(2 * len(cases))
    for i, (column, value, _) in enumerate(cases):
        rows.loc[2 * i + 1, column] = value
    verdict = check_headlines(rows, NOW)
    assert rules_of(verdict.bad) == {2 * i + 1: rule for i, (_, _, rule) in enumerate(cases)}
    pd.testing.assert_frame_equal(verdict.good, rows.iloc[::2])


def test_what_headlines_may_be() -> None:
    rows = headlines(6)
    rows["title"] = ["🚀", "<script>", "x" * 2_000, "\u202eabc", "'; DROP TABLE", "日経"]
    rows["ticker"] = ["A", "B", *"CDEF"]
    rows["news_id"] = "same"  # one story about several tickers
    rows.loc[5, "published_at"] = pd.Timestamp(NOW)
    assert check_headlines(rows, NOW).summary["passed"] is True


def test_published_at_in_another_zone_is_compared_as_a_moment() -> None:
    rows = headlines(1)
    rows["published_at"] = pd.DatetimeIndex(["2012-01-31 08:00"]).tz_localize("Asia/Tokyo")
    assert check_headlines(rows, NOW).summary["passed"] is True
    rows["published_at"] = pd.DatetimeIndex(["2012-01-30 20:00"]).tz_localize("America/New_York")
    assert rules_of(check_headlines(rows, NOW).bad) == {0: "published_in_future"}


def test_headlines_without_a_zone_are_refused() -> None:
    rows = headlines(2)
    rows["published_at"] = rows["published_at"].dt.tz_localize(None)
    with pytest.raises(ValueError, match="published_at needs a time zone, 2012-01-02"):
        check_headlines(rows, NOW)


def test_features_within_bounds_pass() -> None:
    rows = features(3, rsi=[0.0, 50.0, 100.0], gap=[-9.0, 9.0, 0.0], vol=[0.0, 1.0, 2.0])
    verdict = check_features(rows, {"rsi": (0, 100), "gap": None, "vol": (0, INF)})
    assert verdict.summary["passed"] is True
    pd.testing.assert_frame_equal(verdict.good, rows)


def test_each_feature_rule_sets_its_row_aside_and_no_other() -> None:
    cases: list[tuple[str, Any, str]] = [
        ("rsi", np.nan, "rsi_present"),
        ("rsi", INF, "rsi_finite; rsi_within_bounds"),
        ("rsi", 100.1, "rsi_within_bounds"),
        ("rsi", -0.1, "rsi_within_bounds"),
        ("gap", -INF, "gap_finite"),
        ("vol", -1e-9, "vol_within_bounds"),
        ("session", pd.Timestamp("2000-01-03"), "unique_session"),
        ("session", pd.NaT, "session_present"),
    ]
    rows = features(2 * len(cases), rsi=50.0, gap=0.5, vol=1.0)
    for i, (column, value, _) in enumerate(cases):
        rows.loc[2 * i + 1, column] = value
    verdict = check_features(rows, {"rsi": (0, 100), "gap": None, "vol": (0, INF)})
    assert rules_of(verdict.bad) == {2 * i + 1: rule for i, (_, _, rule) in enumerate(cases)}


def test_stuck_features_are_reported_and_break_no_rule() -> None:
    moving = np.arange(600.0)
    stuck = np.where((moving >= 100) & (moving < 351), 7.0, moving)
    almost = np.where((moving >= 100) & (moving < 350), 7.0, moving)
    one = features(600, stuck=stuck, almost=almost, short=1.0)
    # The run of "short" ends with each ticker.
    rows = pd.concat([one.assign(ticker=ticker, short=1.0).head(250) for ticker in "AB"])
    assert check_features(rows, {"short": None}).summary["constant"] == {}
    verdict = check_features(one.sample(frac=1, random_state=0), {"stuck": None, "almost": None})
    assert verdict.summary["constant"] == {"stuck": 251}
    assert verdict.summary["passed"] is True


def test_an_empty_batch_of_features_does_not_pass() -> None:
    verdict = check_features(features(0, rsi=[]), {"rsi": None})
    assert verdict.summary["failing"]["not_empty"] == 1
    assert verdict.summary["constant"] == {}


def test_a_feature_may_be_missing_in_its_warm_up_and_nowhere_else() -> None:
    rows = pd.DataFrame(
        {
            "ticker": ["A"] * 4,
            "session": pd.bdate_range("2020-01-06", periods=4),
            "x": [np.nan, 1.0, np.nan, 2.0],
        }
    )
    inside = rows[["ticker", "session"]].assign(x=[True, False, False, False])
    verdict = check_features(rows, {"x": None}, inside)
    assert verdict.bad["session"].tolist() == [rows["session"][2]]
    assert verdict.bad["rule"].tolist() == ["x_present_after_warm_up"]
    assert check_features(rows.drop(index=2), {"x": None}, inside).summary["passed"]
    assert not check_features(rows.drop(index=2), {"x": None}).summary["passed"]


def test_drift_is_a_share_of_rows_outside_the_training_range_and_shows_them() -> None:
    rng = np.random.default_rng(0)
    reference = pd.DataFrame({"x": rng.normal(size=2000), "y": rng.normal(size=2000)})
    rows = pd.DataFrame(
        {
            "ticker": "A",
            "session": pd.bdate_range("2020-01-06", periods=200),
            "x": rng.normal(size=200),
            "y": rng.normal(size=200),
        }
    )
    assert check_drift(rows, reference, ["x", "y"]).summary["passed"]
    moved = rows.assign(y=rows["y"].mask(rows.index >= 150, 10.0))
    verdict = check_drift(moved, reference, ["x", "y"])
    assert not verdict.summary["passed"]
    assert verdict.summary["failing"]["y_as_in_training"] >= 50
    assert verdict.summary["share_outside"]["y"] >= 0.25
    assert verdict.summary["share_outside"]["x"] < 0.05
    assert set(moved["session"][150:]) <= set(verdict.bad["session"])
    with pytest.raises(ValueError, match=r"reference has no value of \['x'\]"):
        check_drift(rows, reference.assign(x=np.nan), ["x"])
