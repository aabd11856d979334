"""Bars by era: the short way for undisturbed tickers says what the long way says."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from rnn_pipeline.warehouse import Warehouse, store
from rnn_pipeline_tests.leaks import town


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(Path(tmp_path_factory.mktemp("eras")) / "warehouse.duckdb")
    with warehouse.batch() as batch:
        batch.append("raw_ohlcv", town.knowledge().bars)
    return warehouse


@pytest.mark.parametrize("warm_up", [0, 1, 30, 1000])
@pytest.mark.parametrize("first", [date(2010, 1, 4), date(2011, 3, 14), date(2011, 8, 30)])
def test_both_ways_agree(
    warehouse: Warehouse, first: date, warm_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (["AAA", "BBB", "CCC"], first, date(2011, 9, 2), warm_up)
    short = warehouse.bars_by_era(*arguments)
    everyone = "SELECT DISTINCT ticker FROM raw_ohlcv WHERE ticker IN (SELECT unnest(?))"
    everyone += " AND session <= ?"
    monkeypatch.setattr(store, "_RESTATED", everyone)
    long = warehouse.bars_by_era(*arguments)
    pd.testing.assert_frame_equal(short, long)
    # CCC is delisted before the last of the first days.
    assert set(short["ticker"]) == ({"AAA", "BBB"} if first.month == 8 else {"AAA", "BBB", "CCC"})
    before = short[~short["in_era"]].groupby("ticker").size()
    assert (before <= warm_up).all()
    assert short.loc[short["in_era"], "session"].min() >= pd.Timestamp(first)


def test_a_restated_ticker_has_eras_and_its_neighbours_have_one(warehouse: Warehouse) -> None:
    bar = town.knowledge().bars
    old = bar[(bar["ticker"] == "AAA") & (bar["session"] == town.SESSIONS[50])]
    with warehouse.batch() as batch:
        batch.append("raw_ohlcv", old.assign(revision=1, close=1.0, known_at=town.close(town.CUT)))
    rows = warehouse.bars_by_era(["AAA", "BBB"], date(2010, 1, 4), date(2011, 9, 2), 20)
    assert rows.groupby("ticker")["era"].max().to_dict() == {"AAA": 1, "BBB": 0}
    assert rows.equals(rows.sort_values(["ticker", "era", "session"], ignore_index=True))


def test_no_ticker_and_no_session_are_no_rows(warehouse: Warehouse) -> None:
    none = warehouse.bars_by_era([], date(2010, 1, 4), date(2011, 9, 2), 20)
    late = warehouse.bars_by_era(["BBB"], date(2012, 1, 4), date(2012, 9, 2), 20)
    for rows in (none, late):
        assert rows.empty
        assert {"ticker", "session", "known_at", "close", "era", "in_era"} <= set(rows.columns)
