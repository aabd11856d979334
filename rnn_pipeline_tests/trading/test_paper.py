"""The paper account beside arithmetic by hand, an account in units and cash, and the backtest."""

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.evidence.backtest import backtest
from rnn_pipeline.settings import BacktestSpec, PaperSpec
from rnn_pipeline.trading.paper import EXPLANATIONS, new_orders, paper_account

DAYS = pd.bdate_range("2024-01-01", periods=30)
OPENS = pd.Series((DAYS + pd.Timedelta(hours=14.5)).tz_localize("UTC"), index=DAYS)
CLOSES = pd.Series((DAYS + pd.Timedelta(hours=21)).tz_localize("UTC"), index=DAYS)
COSTS = BacktestSpec(cost_bps=10)
FREE = BacktestSpec(cost_bps=0)
AT_THE_OPEN = PaperSpec(slippage_bps=0)


def bars(ticker, opens, closes=None, volume=1000.0):
    closes = opens if closes is None else closes
    days = DAYS[: len(opens)]
    prices = pd.DataFrame({"ticker": ticker, "session": days, "open": opens, "close": closes})
    return prices.assign(adj_close=prices["close"], volume=volume)


def orders(ticker, weights):
    days = DAYS[: len(weights)]
    frame = pd.DataFrame({"ticker": ticker, "session": days, "position": weights})
    return frame.assign(known_at=CLOSES[days].to_numpy()).astype({"known_at": CLOSES.dtype})


def trade(told, market, costs=COSTS, spec=AT_THE_OPEN, decisions=None):
    return paper_account(told, told if decisions is None else decisions, market, OPENS, costs, spec)


def test_an_account_worked_out_by_hand():
    market = bars("AAA", [100, 110, 121, 99], [100, 121, 121, 99])
    spec = PaperSpec(cost_bps=30, slippage_bps=20)
    found = trade(orders("AAA", [0.5, 0.5, 0.0]), market, COSTS, spec)
    account = found.account.set_index("session")
    # As decided: half at 110, half again at 121, nothing at 99, at 10 basis points.
    back = 0.55 / 1.05 - 0.5
    down = 0.5 * (99 / 121 - 1)
    sold = 0.5 * (99 / 121) / (1 + down)
    one, two, three = 1 - 0.0005, 1 + 0.05 - 0.001 * back, 1 + down - 0.001 * sold
    assert account["promise"].tolist() == pytest.approx([1, one, one * two, one * two * three])
    # Sized at the close of 100, the first order is 0.55 of the account at the open of 110. At the
    # close of 121 the account is worth 1.055, at the open of 121 as well: the second is 0.5.
    back = 0.55 * 1.1 / 1.055 - 0.5
    rates = [0.001, 0.003, 0.005]
    paths = [
        np.cumprod([1, 1 - rate * 0.55, 1 + 0.055 - rate * back, 1 + down - rate * sold])
        for rate in rates
    ]
    assert account["equity"].tolist() == pytest.approx(paths[2])
    assert account["drift"].tolist() == pytest.approx(paths[0] - account["promise"])
    assert account["slippage"].tolist() == pytest.approx(paths[1] - paths[0])
    assert account["cost"].tolist() == pytest.approx(paths[2] - paths[1])
    assert (account[["revised", "missed"]] == 0).all(axis=None)
    fill = found.fills.iloc[0]
    assert (fill["session"], fill["decided"], fill["price"]) == (DAYS[1], DAYS[0], 110)
    assert fill["weight_after"] == pytest.approx(0.55)
    assert fill["weight_wanted"] == 0.5
    assert fill["cost"] == pytest.approx(0.003 * 0.55)
    assert fill["slippage"] == pytest.approx(0.002 * 0.55)


def without_bar(told, market):
    """Nobody decides about a session without a bar either, so two orders are missed."""
    return told.drop(index=2), market.drop(index=2)


def without_volume(told, market):
    return told, market.assign(volume=[1, 1, 0, 1, 1])


def without_decision(told, market):
    return told.drop(index=1), market


def too_late(told, market):
    late = told["known_at"].where(told.index != 1, OPENS[DAYS[2]] + pd.Timedelta(seconds=1))
    return told.assign(known_at=late), market


@pytest.mark.parametrize(
    ("change", "reasons", "third"),
    [
        (without_bar, ["no bar", "no decision"], 1.0),
        (without_volume, ["no volume"], 0.9),
        (without_decision, ["no decision"], 0.9),
        (too_late, ["decided too late"], 0.9),
    ],
)
def test_a_missed_order_leaves_what_was_held(change, reasons, third):
    told, market = orders("AAA", [0.5, 0.2, 0.2, 0.0]), bars("AAA", [100.0, 100, 80, 80, 80])
    told, market = change(told, market)
    told = pd.concat([told, orders("BBB", [0.0] * 4)])
    found = trade(told, pd.concat([market, bars("BBB", [50.0] * 5)]), FREE)
    missed = found.fills[found.fills["missed"] != ""]
    assert missed["missed"].tolist() == reasons
    assert missed["session"].tolist() == DAYS[2 : 2 + len(reasons)].tolist()
    assert (missed["weight_after"] == missed["weight_before"]).all()
    # Half of the account falls by a fifth by the third open; by the fifth all is sold.
    assert found.account["equity"].tolist() == pytest.approx([1, 1, third, 0.9, 0.9])


def random_market(seed, n=30):
    generator = np.random.default_rng(seed)
    tables, told = [], []
    for ticker in ("AAA", "BBB", "CCC"):
        path = 50 * np.exp(np.cumsum(generator.normal(0, 0.02, (n, 2)).ravel()))
        rows = bars(ticker, path[::2], path[1::2])
        rows["adj_close"] *= np.where(np.arange(n) < n // 2, 0.5, 1.0)
        tables.append(rows[generator.random(n) > 0.1])
        told.append(orders(ticker, generator.uniform(-0.5, 0.5, n)))
    market = pd.concat(tables, ignore_index=True)
    told = pd.concat(told).merge(market[["ticker", "session"]])
    late = generator.random(len(told)) < 0.1
    told["known_at"] += pd.to_timedelta(np.where(late, 20, 0), unit="h")
    return market, told


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_an_account_of_units_and_cash(seed):
    """At no cost: units bought at the open, of the size computed at the last close."""
    market, told = random_market(seed)
    found = trade(told, market, FREE).account.set_index("session")["equity"]
    rows = market.set_index(["session", "ticker"])
    known = told.set_index(["session", "ticker"])
    cash, units, last_open, last_close = 1.0, {}, {}, {}
    worth = {}
    for day, before in zip(DAYS, [None, *DAYS[:-1]], strict=True):
        at_close = cash + sum(units.get(each, 0) * last_close[each] for each in last_close)
        closes = dict(last_close)
        for ticker in ("AAA", "BBB", "CCC"):
            if (day, ticker) in rows.index:
                row = rows.loc[(day, ticker)]
                last_open[ticker] = row["open"] * row["adj_close"] / row["close"]
                last_close[ticker] = row["adj_close"]
        for ticker in ("AAA", "BBB", "CCC"):
            if (day, ticker) not in rows.index or (before, ticker) not in known.index:
                continue
            order = known.loc[(before, ticker)]
            if order["known_at"] > OPENS[day]:
                continue
            wanted = order["position"] * at_close / closes[ticker]
            cash -= (wanted - units.get(ticker, 0)) * last_open[ticker]
            units[ticker] = wanted
        worth[day] = cash + sum(units.get(each, 0) * last_open[each] for each in last_open)
    assert found.to_dict() == pytest.approx(worth)


def test_explanations_add_up_from_the_promise_to_the_account():
    market, told = random_market(7)
    revised = told.assign(position=told["position"] * 0.8)
    found = trade(told, market, COSTS, PaperSpec(cost_bps=12, slippage_bps=3), decisions=revised)
    account = found.account
    assert (account["promise"] + account[list(EXPLANATIONS)].sum(axis=1)).tolist() == pytest.approx(
        account["equity"].tolist(), rel=1e-14
    )
    assert (account[list(EXPLANATIONS)].iloc[-1] != 0).all()
    promise = backtest(revised, market, COSTS).frame["equity"]
    assert account["promise"].tolist() == promise.tolist()


def test_with_perfect_fills_the_account_is_the_backtest():
    market, told = random_market(3)
    everywhere = market[market.groupby("session")["ticker"].transform("size") == 3]
    flat = everywhere.assign(close=everywhere["open"], adj_close=everywhere["open"])
    # Without a move between the last close and the open nothing can drift.
    told = told.merge(flat[["ticker", "session"]]).assign(known_at=CLOSES.min())
    still = flat.assign(open=50.0, close=50.0, adj_close=50.0)
    account = trade(told, still, COSTS).account
    assert (account[list(EXPLANATIONS)].abs() < 1e-15).all(axis=None)


def test_day_by_day_is_the_batch_bit_for_bit():
    market, told = random_market(11)
    whole = trade(told, market, COSTS, PaperSpec())
    for day in DAYS[5::6]:
        part = trade(
            told[told["session"] <= day], market[market["session"] <= day], COSTS, PaperSpec()
        )
        for name in ("account", "fills"):
            rows = getattr(whole, name)
            expected = rows[rows["session"] <= day]
            pd.testing.assert_frame_equal(
                getattr(part, name).sort_values(["session"], kind="stable", ignore_index=True),
                expected.sort_values(["session"], kind="stable", ignore_index=True),
                check_exact=True,
            )


def test_live_orders_begin_with_the_newest_session_and_count_from_when_they_are_recorded():
    none = orders("AAA", [])
    decided = orders("AAA", [0.1, 0.2, 0.3])
    now = OPENS[DAYS[3]] - pd.Timedelta(hours=1)
    first = new_orders(none, decided, PaperSpec(), now)
    assert first["position"].tolist() == [0.3]
    assert first["known_at"].tolist() == [now]
    assert new_orders(first, decided.assign(position=9.0), PaperSpec(), now).empty
    later = pd.concat([orders("AAA", [9.0, 9.0, 9.0, 0.4, 0.5]), orders("BBB", [0.1, 0.2, 0.3])])
    now = OPENS[DAYS[5]] + pd.Timedelta(hours=1)
    second = new_orders(first, later, PaperSpec(), now)
    assert second[["ticker", "position"]].to_numpy().tolist() == [
        ["AAA", 0.4],
        ["AAA", 0.5],
        ["BBB", 0.3],
    ]
    market = pd.concat([bars("AAA", [10.0] * 6), bars("BBB", [10.0] * 6)])
    fills = trade(pd.concat([first, second]), market).fills
    assert set(fills["missed"]) == {"", "decided too late"}


def test_a_simulation_takes_every_decision_as_made_at_its_close():
    decided = orders("AAA", [0.1, 0.2, 0.3])
    spec = PaperSpec(start=DAYS[1].date())
    found = new_orders(orders("AAA", []), decided, spec, OPENS[DAYS[20]])
    pd.testing.assert_frame_equal(found, decided.iloc[1:].reset_index(drop=True))


def test_without_orders_there_is_no_account():
    found = trade(orders("AAA", []), bars("AAA", [1.0, 2.0]))
    assert found.account.empty
    assert found.fills.empty
    assert {"equity", "promise"} <= set(found.account)
