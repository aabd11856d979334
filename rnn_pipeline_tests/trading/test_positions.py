import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from rnn_pipeline.settings import TradingSpec
from rnn_pipeline.trading.positions import size_positions

SPEC = TradingSpec(target_volatility=0.2, max_weight=0.25, max_gross=1.0)
SESSION = pd.Timestamp("2020-01-02")


def frames(
    signals: list[float], annual: list[float], grade: str = "strong"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One session of tickers with the given signals and annual volatilities (256 sessions)."""
    keys = pd.DataFrame(
        {"ticker": [f"T{number:02d}" for number in range(len(signals))], "session": SESSION}
    )
    daily = np.asarray(annual) / 16
    return keys.assign(signal=signals, grade=grade), keys.assign(volatility_20=daily)


def sized(signals, annual, spec=SPEC, grade="strong") -> tuple[list[float], list[str]]:
    result = size_positions(*frames(signals, annual, grade), spec, 256)
    return result["position"].tolist(), result["limited_by"].tolist()


@pytest.mark.parametrize(
    ("signal", "annual", "position", "limited_by"),
    [
        (0.5, 0.80, 0.125, "volatility_target"),
        (-0.5, 0.80, -0.125, "volatility_target"),
        (1.0, 0.40, 0.25, "max_weight"),
        (-1.0, 0.10, -0.25, "max_weight"),
        (1.0, np.nan, 0.0, "volatility_unknown"),
        (1.0, 0.0, 0.0, "volatility_unknown"),
    ],
)
def test_one_ticker_by_hand(signal, annual, position, limited_by) -> None:
    positions, reasons = sized([signal], [annual])
    assert positions == pytest.approx([position])
    assert reasons == [limited_by]


def test_nothing_is_risked_without_evidence() -> None:
    assert sized([1.0], [0.2], grade="none") == ([0.0], ["evidence"])


def test_a_signal_within_the_thresholds_is_not_acted_on() -> None:
    positions, reasons = sized([0.2, -0.2, 0.21, -0.21], [0.8] * 4)
    assert positions == pytest.approx([0.0, 0.0, 0.0525, -0.0525])
    assert reasons == ["weak_signal"] * 2 + ["volatility_target"] * 2


def test_nothing_is_risked_where_volatility_has_no_row() -> None:
    signals, volatility = frames([1.0], [0.2])
    row = size_positions(signals, volatility.iloc[:0], SPEC, 256).iloc[0]
    assert (row["position"], row["limited_by"]) == (0.0, "volatility_unknown")


def test_long_only_holds_no_short() -> None:
    spec = SPEC.model_copy(update={"long_only": True})
    positions, reasons = sized([-1.0, 0.5], [0.8, 0.8], spec)
    assert positions == pytest.approx([0.0, 0.125])
    assert reasons == ["long_only", "volatility_target"]


def test_a_crowded_session_is_scaled_down_alike() -> None:
    spec = SPEC.model_copy(update={"max_gross": 0.5})
    positions, reasons = sized([1.0, -1.0, 0.5, 0.0], [0.4, 0.1, 0.4, 0.4], spec)
    # 0.25 + 0.25 + 0.25 asked for, half as much again as there is.
    assert positions == pytest.approx([1 / 6, -1 / 6, 1 / 6, 0.0])
    assert reasons[:3] == ["max_gross"] * 3


numbers = st.floats(-1, 1), st.floats(0.001, 2)


@given(rows=st.lists(st.tuples(*numbers), min_size=1, max_size=12), long_only=st.booleans())
def test_limits_hold_for_every_input(rows, long_only: bool) -> None:
    spec = SPEC.model_copy(update={"long_only": long_only})
    signals, annual = zip(*rows, strict=True)
    positions = np.array(sized(list(signals), list(annual), spec)[0])
    assert np.abs(positions).sum() <= spec.max_gross * (1 + 1e-12)
    assert np.abs(positions).max() <= spec.max_weight
    assert (positions >= 0).all() or not long_only
    assert ((positions == 0) | (np.sign(positions) == np.sign(signals))).all()


def test_other_sessions_and_row_order_change_no_bit() -> None:
    rng = np.random.default_rng(1)
    days = [SESSION + pd.Timedelta(days=day) for day in range(20)]
    pairs = [frames(rng.uniform(-1, 1, 9).tolist(), rng.uniform(0.1, 1, 9).tolist()) for _ in days]
    signals = pd.concat([s.assign(session=d) for d, (s, _) in zip(days, pairs, strict=True)])
    volatility = pd.concat([v.assign(session=d) for d, (_, v) in zip(days, pairs, strict=True)])
    whole = size_positions(signals, volatility, SPEC, 252)
    shuffled = signals.sample(frac=1, random_state=0), volatility.sample(frac=1, random_state=1)
    assert_frame_equal(size_positions(*shuffled, SPEC, 252), whole, check_exact=True)
    tail = size_positions(signals[signals["session"] >= days[-3]], volatility, SPEC, 252)
    expected = whole[whole["session"] >= days[-3]].reset_index(drop=True)
    assert_frame_equal(tail, expected, check_exact=True)


def test_a_signal_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="signal is nan for T00 on 2020-01-02"):
        sized([np.nan], [0.2])
