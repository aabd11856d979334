import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.settings import BacktestSpec, TradingSpec
from rnn_pipeline.trading.positions import (
    MARKET_COLUMNS,
    POSITION_COLUMNS,
    market_conditions,
    size_positions,
)

SPEC = TradingSpec(target_volatility=0.2, max_weight=0.25, max_gross=1.0)
COSTS = BacktestSpec(sessions_per_year=256)
SESSION = pd.Timestamp("2020-01-02")


def frames(
    signals: list[float], annual: list[float], grade: str = "strong", session=SESSION
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One session of tickers with the given signals and annual volatilities (256 sessions)."""
    keys = pd.DataFrame(
        {"ticker": [f"T{number:02d}" for number in range(len(signals))], "session": session}
    )
    label = np.select([np.array(signals) > 0.2, np.array(signals) < -0.2], ["BUY", "SELL"], "HOLD")
    market = keys.assign(
        volatility_20=np.asarray(annual) / 16,
        open_return=0.0,
        dollar_volume=1e9,
        known_at=session.tz_localize("UTC"),
    )
    return keys.assign(
        forecast=0.01, signal=signals, label=label, grade=grade, abstains=False
    ), market


def sized(
    signals, annual, spec=SPEC, grade="strong", horizon=1, **columns
) -> tuple[list[float], list[str]]:
    told, market = frames(signals, annual, grade)
    for name, values in columns.items():
        (market if name in market else told)[name] = values
    result, _ = size_positions(told, market, spec, COSTS, horizon)
    assert tuple(result.columns) == POSITION_COLUMNS
    return result["position"].tolist(), result["limited_by"].tolist()


def but(**changes) -> TradingSpec:
    return SPEC.model_copy(update=changes)


@pytest.mark.parametrize(
    ("signal", "annual", "position", "limited_by"),
    [
        (0.5, 0.80, 0.125, "volatility"),
        (-0.5, 0.80, -0.125, "volatility"),
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


@pytest.mark.parametrize(
    ("forecast", "signal", "horizon", "position", "limited_by"),
    [
        # A quarter of 0.0001 / 0.05^2, and over four sessions of four times the variance.
        (0.0001, 0.5, 1, 0.25 * 0.0001 / 0.0025, "kelly"),
        (0.0001, 0.5, 4, 0.25 * 0.0001 / 0.0100, "kelly"),
        (-0.0001, -0.5, 1, -0.01, "kelly"),
        (0.01, 0.5, 1, 0.25, "max_weight"),
        (-0.01, 0.5, 1, 0.0, "forecast_opposes"),
        (0.0, 0.5, 1, 0.0, "forecast_opposes"),
        (0.01, 0.1, 1, 0.0, "weak_signal"),
    ],
)
def test_a_fraction_of_the_kelly_bet_by_hand(
    forecast, signal, horizon, position, limited_by
) -> None:
    spec = but(sizing="kelly", kelly_fraction=0.25)
    found = sized([signal], [0.8], spec, horizon=horizon, forecast=forecast)
    assert found == (pytest.approx([position]), [limited_by])


def test_kelly_needs_evidence_too() -> None:
    assert sized([1.0], [0.8], but(sizing="kelly"), grade="none") == ([0.0], ["evidence"])


def test_nothing_is_risked_without_evidence() -> None:
    assert sized([1.0], [0.2], grade="none") == ([0.0], ["evidence"])
    assert sized([1.0], [0.2], grade="none", abstains=True) == ([0.0], ["disagreement"])


def test_a_signal_that_is_labelled_hold_is_not_acted_on() -> None:
    positions, reasons = sized([0.2, -0.2, 0.21, -0.21], [0.8] * 4)
    assert positions == pytest.approx([0.0, 0.0, 0.0525, -0.0525])
    assert reasons == ["weak_signal"] * 2 + ["volatility"] * 2


def test_nothing_is_risked_where_volatility_has_no_row() -> None:
    signals, market = frames([1.0, 1.0], [0.2, 0.2])
    positions, _ = size_positions(signals, market.iloc[1:], SPEC, COSTS, 1)
    assert positions["position"].tolist() == [0.0, 0.25]
    assert positions["limited_by"][0] == "volatility_unknown"


def test_long_only_holds_no_short() -> None:
    positions, reasons = sized([-1.0, 0.5], [0.8, 0.8], but(long_only=True))
    assert positions == pytest.approx([0.0, 0.125])
    assert reasons == ["long_only", "volatility"]


def test_a_position_is_a_small_share_of_what_is_traded() -> None:
    # A tenth of 100,000 dollars traded is a hundredth of the account of a million.
    spec = but(account=1e6, max_volume_share=0.1)
    positions, reasons = sized([1.0, -1.0, 1.0], [0.4] * 3, spec, dollar_volume=[1e5, 1e5, np.nan])
    assert positions == pytest.approx([0.01, -0.01, 0.0])
    assert reasons == ["max_volume_share"] * 3
    unlimited = but(account=1e6, max_volume_share=None)
    assert sized([1.0], [0.4], unlimited, dollar_volume=[1e5])[0] == pytest.approx([0.25])


def test_a_crowded_session_is_scaled_down_alike() -> None:
    positions, reasons = sized([1.0, -1.0, 0.5, 0.0], [0.4, 0.1, 0.4, 0.4], but(max_gross=0.5))
    # 0.25 + 0.25 + 0.25 asked for, half as much again as there is.
    assert positions == pytest.approx([1 / 6, -1 / 6, 1 / 6, 0.0])
    assert reasons[:3] == ["max_gross"] * 3


def days(number: int, tickers: int = 6, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sessions of random signals, volatilities and returns; tickers come, go and miss sessions."""
    rng = np.random.default_rng(seed)
    pairs = [
        frames(rng.uniform(-1, 1, tickers), rng.uniform(0.1, 1, tickers), session=session)
        for session in pd.bdate_range("2020-01-01", periods=number)
    ]
    signals, market = (pd.concat(part, ignore_index=True) for part in zip(*pairs, strict=True))
    market["open_return"] = rng.normal(0, 0.02, len(market))
    market["dollar_volume"] = 10 ** rng.uniform(4, 7, len(market))
    signals["forecast"] = 0.01 * signals["signal"]
    # The last ticker is delisted half way; the first one has holes.
    there = (signals["ticker"] < f"T{tickers - 1:02d}") | (signals.index < len(signals) / 2)
    there &= (signals["ticker"] > "T00") | (rng.random(len(signals)) < 0.8)
    return signals[there].reset_index(drop=True), market[there].reset_index(drop=True)


STRICT = but(
    max_gross=0.8,
    max_net=0.2,
    max_turnover=0.3,
    max_drawdown=0.02,
    stop_sessions=5,
    max_volume_share=0.05,
)


@pytest.mark.parametrize("sizing", ["volatility", "kelly"])
@pytest.mark.parametrize("long_only", [False, True])
def test_no_limit_is_ever_exceeded(sizing: str, long_only: bool) -> None:
    signals, market = days(150)
    spec = STRICT.model_copy(update={"sizing": sizing, "long_only": long_only})
    positions, account = size_positions(signals, market, spec, COSTS, 1)
    rows = positions.merge(market).merge(signals, on=["ticker", "session"])
    held, before = rows["position"], rows["previous_position"]
    assert held.abs().max() <= spec.max_weight
    assert (held.abs() * spec.account <= 0.05 * rows["dollar_volume"] * (1 + 1e-12)).all()
    assert ((held == 0) | (np.sign(held) == np.sign(rows["signal"]))).all()
    assert (held >= 0).all() or not long_only
    by_session = held.groupby(rows["session"])
    assert by_session.apply(lambda own: own.abs().sum()).max() <= spec.max_gross + 1e-12
    assert by_session.sum().abs().max() <= spec.max_net + 1e-12
    # Nothing is added in a session that trades more than the limit, but what the net limit takes.
    added = (held.abs() - before.abs().where(held * before > 0, 0.0)).clip(lower=0.0)
    traded = account.set_index("session")["turnover"]
    over = traded[traded > spec.max_turnover + 1e-12].index
    netted = set(rows.loc[rows["limited_by"] == "max_net", "session"])
    assert (added[rows["session"].isin(over.difference(netted))] <= 1e-12).all()
    stopped = account.loc[account["cash_sessions"] > 0, "session"]
    assert len(stopped) >= 5
    assert (held[rows["session"].isin(stopped)] == 0).all()
    names = {"max_weight", "max_volume_share", "max_drawdown", "max_turnover", "max_net"}
    assert names - {"max_weight"} <= set(rows["limited_by"])


def test_what_changes_later_changes_nothing_before() -> None:
    signals, market = days(80)
    cut = signals["session"].unique()[50]
    whole = size_positions(signals, market, STRICT, COSTS, 1)
    rng = np.random.default_rng(9)
    for frame, columns in ((signals, ["signal", "forecast"]), (market, ["open_return"])):
        late = frame["session"] > cut
        frame.loc[late, columns] = rng.normal(0, 0.5, (late.sum(), len(columns)))
    for one, two in zip(whole, size_positions(signals, market, STRICT, COSTS, 1), strict=True):
        early = [frame[frame["session"] <= cut] for frame in (one, two)]
        assert_frame_equal(*early, check_exact=True)


def test_row_order_changes_no_bit() -> None:
    signals, market = days(30)
    whole = size_positions(signals, market, STRICT, COSTS, 1)
    shuffled = signals.sample(frac=1, random_state=0), market.sample(frac=1, random_state=1)
    for one, two in zip(size_positions(*shuffled, STRICT, COSTS, 1), whole, strict=True):
        assert_frame_equal(one, two, check_exact=True)


def test_a_signal_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="signal is nan for T00 on 2020-01-02"):
        sized([np.nan], [0.2])


def bars(**columns) -> pd.DataFrame:
    """Four sessions of one ticker, as ``bars_by_era`` gives them."""
    sessions = pd.bdate_range("2020-01-01", periods=4)
    frame = pd.DataFrame({"ticker": "AAA", "session": sessions, "era": 0, "in_era": True})
    values = {
        "open": [10.0, 11.0, 12.0, 6.0],
        "close": [10.0, 10.0, 12.0, 6.0],
        "adj_close": [5.0, 5.0, 6.0, 6.0],
        "volume": [1.0, 2.0, 3.0, 40.0],
        "known_at": sessions.tz_localize("UTC"),
    }
    return frame.assign(**(values | columns))


def volatility(rows: pd.DataFrame) -> pd.DataFrame:
    keys = rows[["ticker", "session"]].drop_duplicates()
    return keys.assign(volatility_20=0.01)


def test_market_conditions_worked_out_by_hand() -> None:
    found = market_conditions(bars(), volatility(bars()).iloc[1:])
    assert tuple(found.columns) == MARKET_COLUMNS
    # The last session is split two for one: on the adjusted scale nothing has moved.
    assert found["open_return"].tolist() == pytest.approx(
        [np.nan, 0.1, 12 / 11 - 1, 0.0], nan_ok=True
    )
    # Medians of 10, 20, 36 and 240.
    assert found["dollar_volume"].tolist() == [10.0, 15.0, 20.0, 28.0]
    assert found["volatility_20"].isna().tolist() == [True, False, False, False]


def test_market_conditions_are_those_of_a_rows_own_era() -> None:
    first = bars(in_era=[True, True, False, False]).iloc[:2]
    # From the third session on, the second is known to have opened at 8.
    second = bars(era=1, open=[10.0, 8.0, 12.0, 6.0], in_era=[False, False, True, True])
    found = market_conditions(pd.concat([first, second]), volatility(bars()))
    assert found["open_return"].tolist() == pytest.approx([np.nan, 0.1, 0.5, 0.0], nan_ok=True)


def test_a_bar_that_came_after_its_successor_was_seen_by_nobody() -> None:
    moments = pd.to_datetime(["2020-01-01", "2020-01-09", "2020-01-03", "2020-01-06"], utc=True)
    found = market_conditions(bars(known_at=moments), volatility(bars()))
    assert found["session"].dt.day.tolist() == [1, 3, 6]
