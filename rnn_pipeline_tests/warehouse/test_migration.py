"""A warehouse saved and loaded, and what is refused on the way; between engines in test_lake."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from rnn_pipeline.cli import main
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse, WarehouseError
from rnn_pipeline.warehouse.migration import load, save
from rnn_pipeline_tests.warehouse.test_store import close_of, revisions

ROWS = revisions([("A", 0, 0, close_of(0), 1 / 3), ("A", 0, 1, close_of(3), float("inf"))])


@pytest.fixture
def filled(tmp_path):
    store = Warehouse(tmp_path / "warehouse.duckdb")
    with store.batch() as batch:
        batch.append("raw_ohlcv", ROWS)
        features = ROWS[["ticker", "session"]].head(1)
        batch.append("price_features", features.assign(rsi_14=-0.0))
    return store


def run(*words):
    return CliRunner().invoke(main, ["migrate", *map(str, words)])


def test_the_command_carries_every_value_and_says_how_many(tmp_path, monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path / "old"))
    with Warehouse(load_settings().warehouse_path).batch() as batch:
        batch.append("raw_ohlcv", ROWS)
    before = Warehouse(load_settings().warehouse_path).rows("raw_ohlcv")
    assert run("save", tmp_path / "moved").output.startswith("2 rows of ")
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path / "new"))
    loaded = run("load", tmp_path / "moved")
    assert loaded.output.startswith("2 rows of ")
    assert_frame_equal(Warehouse(load_settings().warehouse_path).rows("raw_ohlcv"), before)
    again = run("load", tmp_path / "moved")
    assert again.exit_code == 1
    assert "is not empty" in again.output
    assert run("save", tmp_path / "moved").exit_code == 1


def test_features_keep_their_columns(filled, tmp_path):
    save(filled, tmp_path / "moved")
    other = Warehouse(tmp_path / "other.duckdb")
    load(other, tmp_path / "moved")
    assert_frame_equal(other.rows("price_features"), filled.rows("price_features"))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.head(1),
        lambda rows: rows.assign(close=rows["close"].replace(1 / 3, 0.3333333333333334)),
        lambda rows: pd.concat([rows.head(1)] * 2).assign(revision=[0, 5]),
    ],
    ids=["a row is gone", "a value moved by a bit", "a row came twice"],
)
def test_rows_that_are_not_those_that_were_saved_are_not_written(filled, tmp_path, change):
    save(filled, tmp_path / "moved")
    file = tmp_path / "moved/raw_ohlcv.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    other = Warehouse(tmp_path / "other.duckdb")
    with pytest.raises(WarehouseError, match=r"raw_ohlcv came into .* nothing was written"):
        load(other, tmp_path / "moved")
    assert other.rows("raw_ohlcv").empty
    assert other.rows("price_features").empty


def test_a_folder_that_is_no_saved_warehouse_is_refused(filled, tmp_path):
    with pytest.raises(WarehouseError, match="is no saved warehouse"):
        load(filled, tmp_path)
    manifest = {"schema_version": 99, "tables": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WarehouseError, match="schema version 99"):
        load(filled, tmp_path)
