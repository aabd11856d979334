import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.evidence.backtest import backtest
from rnn_pipeline.settings import BacktestSpec, TradingSpec
from rnn_pipeline.trading.account import ACCOUNT_COLUMNS, Account, traded, within_limits
from rnn_pipeline.trading.positions import size_positions
from rnn_pipeline_tests.trading.test_positions import COSTS, SPEC, STRICT, days

FREE = BacktestSpec(cost_bps=0.0)


def limited(asked, before=None, in_cash=False, **limits):
    return within_limits(asked, before or {}, TradingSpec(**limits), in_cash=in_cash)


def test_turnover_holds_up_what_is_added_and_nothing_else() -> None:
    before = {"A": 0.2, "B": 0.1, "C": -0.1, "D": 0.3}
    asked = {"A": 0.05, "B": 0.3, "C": 0.1, "E": -0.2}
    # A gives 0.15 back, C 0.1 and D 0.3: of 0.8 there are 0.25 left for the 0.5 that are added.
    weights, reasons = limited(asked, before, max_turnover=0.8)
    assert weights == pytest.approx({"A": 0.05, "B": 0.2, "C": 0.05, "E": -0.1})
    assert reasons == dict.fromkeys("BCE", "max_turnover")
    assert traded(before, weights) == pytest.approx(0.8)
    # Reductions alone exceed this: they are made, and nothing is added.
    weights, _ = limited(asked, before, max_turnover=0.1)
    assert weights == pytest.approx({"A": 0.05, "B": 0.1})
    assert limited(asked, before, max_turnover=2.0) == (asked, {})


def test_the_heavier_side_gives_way_to_the_limit_on_net_exposure() -> None:
    weights, reasons = limited({"A": 0.3, "B": 0.1, "C": -0.1}, max_net=0.1)
    assert weights == pytest.approx({"A": 0.15, "B": 0.05, "C": -0.1})
    assert reasons == dict.fromkeys("AB", "max_net")
    assert limited({"A": -0.4}, max_net=0.1)[0] == pytest.approx({"A": -0.1})


def test_limits_apply_in_their_order() -> None:
    asked = {"A": 0.5, "B": 0.5}
    weights, reasons = limited(asked, max_gross=0.5, max_turnover=0.4, max_net=0.3)
    assert weights == pytest.approx({"A": 0.15, "B": 0.15})
    assert set(reasons.values()) == {"max_net"}
    assert limited(asked, max_gross=0.5)[1] == dict.fromkeys("AB", "max_gross")
    # Getting out is never held up.
    weights, reasons = limited(asked, {"A": 0.4}, in_cash=True, max_turnover=0.01)
    assert (weights, reasons) == ({}, dict.fromkeys("AB", "max_drawdown"))


def test_an_account_by_hand() -> None:
    account = Account(decided={"A": 0.5, "B": -0.25})
    filled = account.opened({}, cost_bps=100)
    assert filled.equity == pytest.approx(1 - 0.0075)
    held = filled.opened({"A": 0.1, "C": 9.0}, cost_bps=0)
    # Half of it rose by a tenth; B has no bar and stands still.
    assert held.equity == pytest.approx(0.9925 * 1.05)
    # The weights have moved to 0.55 / 1.05 and -0.25 / 1.05, and are traded back.
    dear = filled.opened({"A": 0.1}, cost_bps=1e4)
    moved = abs(0.5 - 0.55 / 1.05) + abs(-0.25 + 0.25 / 1.05)
    assert dear.equity == pytest.approx(0.9925 * (1.05 - moved))
    assert Account(decided={"A": 2.0}).opened({}, 0).opened({"A": -0.6}, 0).equity == 0.0


def test_a_drawdown_stops_trading_and_the_peak_begins_anew() -> None:
    spec = TradingSpec(max_drawdown=0.1, stop_sessions=2)
    account = Account(decided={"A": 1.0}).opened({}, 0)
    told = []
    for move in (0.1, -0.08, -0.04, 0.0, 0.0, -0.05, -0.06):
        account = account.opened({"A": move}, 0).stopped(spec)
        told.append((round(account.drawdown, 3), account.cash_sessions))
    assert told == [
        (0.0, 0),
        (-0.08, 0),
        (-0.117, 2),
        (-0.117, 1),
        (0.0, 0),
        (-0.05, 0),
        (-0.107, 2),
    ]


def test_without_a_limit_no_loss_stops_trading() -> None:
    account = Account(decided={"A": 1.0}).opened({}, 0).opened({"A": -0.9}, 0)
    assert account.stopped(TradingSpec()).cash_sessions == 0


def test_the_account_is_the_backtest_of_its_decisions() -> None:
    """An independent account, vectorised over all sessions, of the same positions."""
    signals, market = days(60)
    market = market[market["ticker"].isin(["T01", "T02", "T03"])]
    signals = signals[signals["ticker"].isin(["T01", "T02", "T03"])]
    positions, account = size_positions(signals, market, SPEC, COSTS, 1)
    path = (1 + market.set_index(["session", "ticker"])["open_return"].unstack()).cumprod()
    bars = path.stack().rename("open").reset_index()
    bars = bars.assign(close=bars["open"], adj_close=bars["open"])
    other = backtest(positions, bars, COSTS).frame
    assert np.allclose(account["equity"], other["equity"], rtol=1e-12)
    assert np.allclose(account["gross"].shift(1).iloc[1:], other["exposure"].iloc[1:])


@pytest.mark.parametrize("step", [1, 7])
def test_day_by_day_from_stored_rows_gives_the_bits_of_one_batch(step: int) -> None:
    signals, market = days(60)
    whole, accounts = size_positions(signals, market, STRICT, COSTS, 1)
    assert tuple(accounts.columns) == ACCOUNT_COLUMNS
    assert {"max_drawdown", "max_turnover", "max_net"} <= set(whole["limited_by"])
    stored, books = [whole.iloc[:0]], [accounts.iloc[:0]]
    sessions = sorted(market["session"].unique())
    for begin in range(0, len(sessions), step):
        now = sessions[begin : begin + step]
        known = pd.concat(books).tail(2)
        account = Account.resume(known, pd.concat(stored)) if len(known) else None
        today = [frame[frame["session"].isin(now)] for frame in (signals, market)]
        positions, rows = size_positions(*today, STRICT, COSTS, 1, account)
        stored.append(positions)
        books.append(rows)
    again = pd.concat(stored).sort_values(["ticker", "session"], ignore_index=True)
    assert_frame_equal(again, whole, check_exact=True)
    assert_frame_equal(pd.concat(books, ignore_index=True), accounts, check_exact=True)
