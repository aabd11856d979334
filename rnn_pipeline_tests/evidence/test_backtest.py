import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.evidence.backtest import backtest, buy_and_hold, cash
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
    # Friday's open is 110: 0.5 * 10 % earned, and 0.5 turned into -1.0: 1.5 traded.
    # Monday's open is 99: short 1.0 earns 10 %, and the short is closed: 1.0 traded.
    # Monday's own decision would be filled on Tuesday, which has not come.
    frame = account.frame
    assert frame["gross_return"].tolist() == pytest.approx([0, 0, 0.05, 0.10])
    assert frame["turnover"].tolist() == pytest.approx([0, 0.5, 1.5, 1.0])
    assert frame["cost"].tolist() == pytest.approx([0, 0.0005, 0.0015, 0.0010])
    assert frame["exposure"].tolist() == pytest.approx([0, 0.5, 1.0, 0.0])
    equity = [1, 0.9995, 0.9995 * 1.0485, 0.9995 * 1.0485 * 1.099]
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


def test_benchmarks() -> None:
    opens = [10.0, 10.0, 11.0, 12.1]
    bars = pd.concat([make_bars("AAA", opens, opens), make_bars("BBB", [7.0] * 4, [7.0] * 4)])
    positions = pd.concat([make_positions(t, [0.0] * 4) for t in ("AAA", "BBB")])
    held = buy_and_hold(positions, bars, FREE).summary()
    assert held["total_return"] == pytest.approx(1.05**2 - 1)
    one = buy_and_hold(positions[positions["ticker"] == "AAA"], bars, FREE).summary()
    assert one["total_return"] == pytest.approx(12.1 / 10 - 1)
    nothing = cash(positions, bars, TEN_BPS).summary()
    assert nothing["total_return"] == nothing["max_drawdown"] == nothing["cost_paid"] == 0
    assert np.isnan(nothing["sharpe_ratio"])


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
