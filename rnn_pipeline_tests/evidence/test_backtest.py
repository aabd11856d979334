import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.evidence.backtest import (
    backtest,
    buy_and_hold,
    capacity,
    cash,
    equal_weight,
    sign_positions,
)
from rnn_pipeline.settings import BacktestSpec

FREE = BacktestSpec(cost_bps=0)
TEN_BPS = BacktestSpec(cost_bps=10)


def make_bars(ticker: str, opens: list[float], closes: list[float], factor: float = 1.0):
    return pd.DataFrame(
        {
            "ticker": ticker,
            "session": pd.bdate_range("2020-01-01", periods=len(opens)),
            "open": opens,
            "close": closes,
            "adj_close": [factor * close for close in closes],
        }
    )


def make_positions(ticker: str, weights: list[float]) -> pd.DataFrame:
    sessions = pd.bdate_range("2020-01-01", periods=len(weights))
    return pd.DataFrame({"ticker": ticker, "session": sessions, "position": weights})


@pytest.fixture
def bars() -> pd.DataFrame:
    return make_bars("AAA", [100.0, 100.0, 110.0, 99.0], [101.0, 105.0, 104.0, 120.0])


def test_three_days_worked_out_by_hand(bars: pd.DataFrame) -> None:
    account = backtest(make_positions("AAA", [0.5, -1.0, 0.0, 1.0]), bars, TEN_BPS)
    # Wednesday's close decides +0.5, bought at Thursday's open of 100.
    # Friday's open is 110: 0.5 * 10 % earned, and the 0.55 of 1.05 turned into -1.0.
    # Monday's open is 99: short 1.0 earns 10 %, and a short of 0.9 in 1.1 is closed.
    # Monday's own decision would be filled on Tuesday, which has not come.
    frame = account.frame
    assert frame["gross_return"].tolist() == pytest.approx([0, 0, 0.05, 0.10])
    turnover = [0, 0.5, 0.55 / 1.05 + 1, 0.9 / 1.1]
    assert frame["turnover"].tolist() == pytest.approx(turnover)
    assert frame["cost"].tolist() == pytest.approx([traded / 1000 for traded in turnover])
    assert frame["exposure"].tolist() == pytest.approx([0, 0.5, 1.0, 0.0])
    earned = [1, 1, 1.05, 1.1]
    equity = np.cumprod([e - t / 1000 for e, t in zip(earned, turnover, strict=True)])
    assert frame["equity"].tolist() == pytest.approx(equity)
    assert (frame["net_return"] == frame["gross_return"] - frame["cost"]).all()
    assert account.label == "filled at the next open"


def test_the_close_variant_earns_from_the_close_it_decided_on(bars: pd.DataFrame) -> None:
    account = backtest(make_positions("AAA", [0.5, -1.0, 0.0, 1.0]), bars, FREE, fill="close")
    expected = [0, 0.5 * (105 / 101 - 1), -(104 / 105 - 1), 0]
    assert account.frame["gross_return"].tolist() == pytest.approx(expected)
    assert account.frame["exposure"].tolist() == [0.5, 1, 0, 1]
    assert "optimistic" in account.label


def test_opens_are_traded_on_the_adjusted_scale() -> None:
    # 2:1 split between the second and third session: raw prices halve, nobody loses anything.
    split = make_bars("AAA", [100.0, 100.0, 50.0, 55.0], [100.0, 100.0, 50.0, 55.0])
    split["adj_close"] = [50.0, 50.0, 50.0, 55.0]
    account = backtest(make_positions("AAA", [1.0] * 4), split, FREE)
    assert account.frame["gross_return"].tolist() == pytest.approx([0, 0, 0, 0.1])


def test_key_figures_worked_out_by_hand() -> None:
    opens = [100.0, 100.0, 110.0, 99.0, 118.8]
    account = backtest(make_positions("AAA", [1.0] * 5), make_bars("AAA", opens, opens), TEN_BPS)
    net = np.array([0.0, -0.001, 0.1, -0.1, 0.2])
    summary = account.summary()
    growth = 0.999 * 1.1 * 0.9 * 1.2
    assert summary["total_return"] == pytest.approx(growth - 1)
    assert summary["annual_return"] == pytest.approx(growth ** (252 / 5) - 1)
    assert summary["annual_volatility"] == pytest.approx(np.std(net, ddof=1) * np.sqrt(252))
    sharpe = net.mean() / np.std(net, ddof=1) * np.sqrt(252)
    assert summary["sharpe_ratio"] == pytest.approx(sharpe)
    downside = np.sqrt((0.001**2 + 0.1**2) / 5)
    assert summary["sortino_ratio"] == pytest.approx(net.mean() / downside * np.sqrt(252))
    assert summary["max_drawdown"] == pytest.approx(-0.1)
    assert summary["turnover"] == pytest.approx(1 / 5)
    assert summary["exposure"] == pytest.approx(4 / 5)
    assert summary["cost_paid"] == pytest.approx(0.001)


def test_a_loss_from_the_start_is_a_drawdown() -> None:
    opens = [100.0, 100.0, 70.0, 84.0]
    account = backtest(make_positions("AAA", [1.0] * 4), make_bars("AAA", opens, opens), FREE)
    assert account.summary()["max_drawdown"] == pytest.approx(-0.3)


def test_the_first_cost_is_a_drawdown() -> None:
    bars = make_bars("AAA", [10.0] * 3, [10.0] * 3)
    account = backtest(make_positions("AAA", [1.0] * 3), bars, TEN_BPS, "close")
    assert account.summary()["max_drawdown"] == pytest.approx(-0.001)


def test_cost_is_charged_per_ticker_and_not_netted() -> None:
    bars = pd.concat([make_bars(t, [10.0] * 4, [10.0] * 4) for t in ("AAA", "BBB")])
    positions = pd.concat(
        [make_positions("AAA", [0.5, 0.0, 0.0]), make_positions("BBB", [0.0, 0.5, 0.5])]
    )
    account = backtest(positions, bars, TEN_BPS)
    assert account.frame["cost"].tolist() == pytest.approx([0, 0.0005, 0.0010, 0])
    dearer = backtest(positions, bars, BacktestSpec(cost_bps=30))
    assert dearer.summary()["cost_paid"] == pytest.approx(3 * account.summary()["cost_paid"])


def random_market(sessions: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(3)
    bars, positions = [], []
    for ticker in ("AAA", "BBB", "CCC"):
        path = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 2 * sessions)))
        bars.append(make_bars(ticker, path[::2].tolist(), path[1::2].tolist(), 0.5))
        positions.append(make_positions(ticker, rng.uniform(-0.3, 0.3, sessions).tolist()))
    return pd.concat(bars), pd.concat(positions)


@pytest.mark.parametrize("fill", ["open", "close"])
def test_what_comes_after_a_session_changes_no_bit_of_it(fill) -> None:
    bars, positions = random_market()
    cut = bars["session"].sort_values().iloc[90]
    scrambled = bars.copy()
    later = scrambled["session"] > cut
    scrambled.loc[later, ["open", "close", "adj_close"]] *= 3.7
    reversed_after = positions["position"].where(positions["session"] <= cut, -0.9)
    whole = backtest(positions, bars, TEN_BPS, fill).frame
    other = backtest(positions.assign(position=reversed_after), scrambled, TEN_BPS, fill).frame
    truncated = backtest(
        positions[positions["session"] <= cut], bars[bars["session"] <= cut], TEN_BPS, fill
    ).frame
    known = whole["session"] <= cut
    assert_frame_equal(other[known], whole[known], check_exact=True)
    assert_frame_equal(truncated, whole[known], check_exact=True)
    assert not other[~known].equals(whole[~known])


def test_the_open_after_a_decision_is_not_earned() -> None:
    # The gap from the deciding close to the fill belongs to nobody who trades at the open.
    bars = make_bars("AAA", [100.0, 150.0, 150.0], [100.0, 150.0, 150.0])
    positions = make_positions("AAA", [1.0, 1.0, 1.0])
    assert backtest(positions, bars, FREE).summary()["total_return"] == 0
    assert backtest(positions, bars, FREE, "close").summary()["total_return"] == pytest.approx(0.5)


def test_row_order_and_time_unit_change_no_bit() -> None:
    bars, positions = random_market()
    shuffled = backtest(
        positions.sample(frac=1, random_state=0).astype({"session": "datetime64[s]"}),
        bars.sample(frac=1, random_state=1).astype({"session": "datetime64[ns]"}),
        TEN_BPS,
    )
    whole = backtest(positions, bars, TEN_BPS).frame
    assert_frame_equal(
        shuffled.frame.astype({"session": "datetime64[us]"}),
        whole.astype({"session": "datetime64[us]"}),
        check_exact=True,
    )


def two_tickers() -> tuple[pd.DataFrame, pd.DataFrame]:
    opens = [10.0, 10.0, 11.0, 12.1]
    bars = pd.concat([make_bars("AAA", opens, opens), make_bars("BBB", [7.0] * 4, [7.0] * 4)])
    return bars, pd.concat([make_positions(t, [0.0] * 4) for t in ("AAA", "BBB")])


def test_equal_weights_are_restored_and_pay_for_it() -> None:
    bars, positions = two_tickers()
    held = equal_weight(positions, bars, FREE)
    assert held.summary()["total_return"] == pytest.approx(1.05**2 - 1)
    # 0.55 and 0.5 of 1.05 each go back to a half.
    drift = 2 * (0.55 / 1.05 - 0.5)
    assert held.frame["turnover"].tolist() == pytest.approx([0, 1.0, drift, drift])
    one = equal_weight(positions[positions["ticker"] == "AAA"], bars, FREE).summary()
    assert one["total_return"] == pytest.approx(12.1 / 10 - 1)


def test_buy_and_hold_trades_once() -> None:
    bars, positions = two_tickers()
    held = buy_and_hold(positions, bars, TEN_BPS)
    assert held.frame["turnover"].tolist() == pytest.approx([0, 1, 0, 0])
    assert held.frame["equity"].tolist() == pytest.approx(
        [1, 0.999, 0.999 * (1.1 + 1) / 2, 0.999 * (1.21 + 1) / 2]
    )
    # A ticker that joins later: its half is cash until it is bought, and AAA's is not touched.
    late = positions[(positions["ticker"] == "AAA") | (positions["session"] >= "2020-01-02")]
    joined = buy_and_hold(late, bars, FREE)
    assert joined.frame["turnover"].tolist() == pytest.approx([0, 0.5, 0.5 / 1.05, 0])
    assert joined.frame["exposure"].tolist() == pytest.approx([0, 0.5, 1, 1])
    assert joined.summary()["total_return"] == pytest.approx((1.21 + 1) / 2 - 1)


def test_cash_earns_and_costs_nothing() -> None:
    bars, positions = two_tickers()
    nothing = cash(positions, bars, TEN_BPS).summary()
    assert nothing["total_return"] == nothing["max_drawdown"] == nothing["cost_paid"] == 0
    for undefined in ("sharpe_ratio", "sortino_ratio", "break_even_bps"):
        assert np.isnan(nothing[undefined])


def test_figures_agree_with_quantstats() -> None:
    stats = pytest.importorskip("quantstats").stats
    bars, positions = random_market()
    account = backtest(positions, bars, TEN_BPS)
    net = account.frame.set_index("session")["net_return"]
    summary = account.summary()
    assert summary["total_return"] == pytest.approx(stats.comp(net))
    assert summary["annual_volatility"] == pytest.approx(stats.volatility(net, periods=252))
    assert summary["sharpe_ratio"] == pytest.approx(stats.sharpe(net, periods=252))
    assert summary["sortino_ratio"] == pytest.approx(stats.sortino(net, periods=252))
    assert summary["max_drawdown"] == pytest.approx(stats.max_drawdown(net))


def test_costs_change_the_result_and_not_the_trades() -> None:
    bars, positions = random_market()
    account = backtest(positions, bars, TEN_BPS)
    levels = account.cost_sensitivity([0.0, 10.0, 30.0]).set_index("cost_bps")
    for bps in (0.0, 10.0, 30.0):
        again = backtest(positions, bars, BacktestSpec(cost_bps=bps)).summary()
        assert levels.loc[bps].to_dict() == pytest.approx(again, nan_ok=True)
    assert levels["total_return"].is_monotonic_decreasing
    assert levels["break_even_bps"].nunique() == 1


def test_the_break_even_cost_leaves_nothing() -> None:
    # Bought for 100, sold for 110: in 1 and out 1, (1 - c) * (1.1 - c) = 1.
    bars = make_bars("AAA", [100.0, 100.0, 110.0, 110.0], [100.0, 100.0, 110.0, 110.0])
    account = backtest(make_positions("AAA", [1.0, 0.0, 0.0, 0.0]), bars, FREE)
    by_hand = (2.1 - np.sqrt(2.1**2 - 4 * 0.1)) / 2
    assert account.break_even_bps() == pytest.approx(1e4 * by_hand)
    assert account.at_cost(account.break_even_bps()).summary()["total_return"] == pytest.approx(0)
    short = backtest(make_positions("AAA", [-1.0, 0.0, 0.0, 0.0]), bars, FREE)
    assert short.break_even_bps() == 0


def test_capacity_is_where_a_trade_becomes_a_hundredth_of_the_volume() -> None:
    bars = make_bars("AAA", [10.0] * 5, [10.0] * 5).assign(volume=[1e6, 3e6, 2e6, 9e9, 9e9])
    positions = make_positions("AAA", [0.5, 0.5, 0.25, 0.25, 0.25])
    # Half the account on a mean volume of 10 million, a quarter on one of 20 million.
    sizes = [0.01 * 10e6 / 0.5, 0.01 * 20e6 / 0.25]
    assert capacity(positions, bars, share=1.0) == pytest.approx(sizes[0])
    assert capacity(positions, bars, share=0.0) == pytest.approx(sizes[1])
    assert capacity(positions, bars, participation=0.1, share=0.5) == pytest.approx(
        10 * np.mean(sizes)
    )
    assert np.isnan(capacity(positions.assign(position=0.0), bars))


def test_a_forecast_alone_holds_every_ticker_by_its_sign() -> None:
    forecasts = pd.concat([make_positions(t, [0.0] * 2) for t in ("AAA", "BBB")])
    forecasts = forecasts.assign(forecast=[0.01, -0.02, 0.003, 0.0]).iloc[:3]
    positions = sign_positions(forecasts)
    assert positions["position"].tolist() == [0.5, -1.0, 0.5]


def test_a_session_without_a_bar_keeps_the_last_price() -> None:
    opens = [10.0, 10.0, 10.0, 20.0, 20.0]
    bars = make_bars("AAA", opens, opens).drop(index=2)
    other = make_bars("BBB", [1.0] * 5, [1.0] * 5)
    positions = make_positions("AAA", [1.0, 1.0, 0.0, 0.0, 0.0]).drop(index=2)
    idle = make_positions("BBB", [0.0] * 5)
    account = backtest(pd.concat([positions, idle]), pd.concat([bars, other]), FREE)
    assert account.frame["gross_return"].tolist() == pytest.approx([0, 0, 0, 1.0, 0])


def test_an_account_that_lost_everything_stays_at_zero() -> None:
    opens = [10.0, 10.0, 25.0, 5.0]
    account = backtest(make_positions("AAA", [-1.0] * 4), make_bars("AAA", opens, opens), FREE)
    assert account.frame["equity"].tolist() == [1, 1, 0, 0]
    assert account.summary()["annual_return"] == -1


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (make_positions("AAA", []), "positions is empty"),
        (make_positions("AAA", [np.nan]), "position is nan for AAA on 2020-01-01"),
        (make_positions("AAA", [0.1] * 5), "AAA has a position but no bar on 2020-01-07"),
    ],
)
def test_bad_positions_are_named(bars: pd.DataFrame, positions: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backtest(positions, bars, FREE)
