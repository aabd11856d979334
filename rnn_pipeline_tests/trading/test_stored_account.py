"""Decisions of many runs are those of one: the account goes on from the rows of the warehouse."""

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal

from rnn_pipeline.chain import sized
from rnn_pipeline.settings import Settings
from rnn_pipeline.trading.account import Account
from rnn_pipeline.warehouse import Warehouse
from rnn_pipeline_tests.trading.test_positions import STRICT, days

SETTINGS = Settings(trading=STRICT.model_copy(update={"max_drawdown": 0.001, "stop_sessions": 2}))
SESSIONS = list(pd.bdate_range("2020-01-01", periods=10))


def filled(path: Path) -> Warehouse:
    """Signals of two weeks, and their bars; one bar is corrected a week after it."""
    signals, market = days(len(SESSIONS))
    growth = 1 + market["open_return"]
    price = 50 * growth.groupby(market["ticker"]).cumprod()
    bars = market[["ticker", "session", "known_at"]].assign(
        revision=0, is_final=True, open=price, close=price * 1.01, adj_close=price, volume=1e6
    )
    wrong = bars.iloc[[20]]
    known_at = wrong["known_at"] + pd.Timedelta(days=6)
    corrected = wrong.assign(revision=1, open=wrong["open"] * 1.3, known_at=known_at)
    store = Warehouse(path)
    with store.batch() as batch:
        batch.append("raw_ohlcv", pd.concat([bars, corrected]))
        batch.append("price_features", market[["ticker", "session", "volatility_20"]])
        batch.append("trading_signals", signals)
    return store


def decide(store: Warehouse, sessions: list[pd.Timestamp]) -> None:
    """Size some sessions and store the result, as ``trading_decisions`` does."""
    span = (sessions[0].date(), sessions[-1].date())
    positions, accounts = sized(store, SETTINGS, *span)
    with store.batch() as batch:
        batch.replace("trading_decisions", positions, session=span)
        batch.replace("trading_account", accounts, session=span)


def results(store: Warehouse) -> list[pd.DataFrame]:
    return [store.rows(name) for name in ("trading_decisions", "trading_account")]


def test_sessions_decided_one_by_one_are_those_of_one_run(tmp_path: Path) -> None:
    at_once, daily = filled(tmp_path / "at_once.duckdb"), filled(tmp_path / "daily.duckdb")
    decide(at_once, SESSIONS)
    # One session is decided twice; after an outage of three days one run catches up.
    one, two, three, four, five, six, *rest = ([day] for day in SESSIONS)
    for part in [one, two, three, three, four, five + six + rest[0], *rest[1:]]:
        decide(daily, part)
    for once, later in zip(results(at_once), results(daily), strict=True):
        assert_frame_equal(once, later, check_exact=True)
    decisions, accounts = results(at_once)
    assert {"max_turnover", "max_drawdown"} <= set(decisions["limited_by"])
    assert np.ptp(accounts["equity"]) > 0


def test_a_signal_can_be_sized_in_the_place_of_the_stored_one(tmp_path: Path) -> None:
    store = filled(tmp_path / "warehouse.duckdb")
    decide(store, SESSIONS)
    day = SESSIONS[3].date()
    own = store.rows("trading_signals", session=day).iloc[[1]]
    stored = store.rows("trading_decisions", session=day)
    same, _ = sized(store, SETTINGS, day, day, instead=own)
    assert same["position"].tolist() == stored["position"].tolist()
    silent, _ = sized(store, SETTINGS, day, day, instead=own.assign(grade="none"))
    assert silent["position"].tolist()[1] == 0.0


def test_an_account_without_rows_begins_anew() -> None:
    assert Account.resume(pd.DataFrame(), pd.DataFrame()) == Account()
