"""A folder of an older version of this program: nothing that was known then is lost."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from rnn_pipeline import cli
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse

#: When a row was made and by which run is all that may differ.
MADE = ["run_id"]


@pytest.fixture
def folder(demo: Result):
    """The demo's folder; what the test makes of it is undone."""
    home = load_settings().home
    kept = home.with_name("before-upgrade")
    shutil.copytree(home, kept)
    yield home
    shutil.rmtree(home)
    kept.rename(home)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def test_signals_and_orders_of_the_past_outlive_an_upgrade(folder) -> None:
    store = Warehouse(load_settings().warehouse_path)
    tables = ("trading_signals", "trading_decisions", "forecasts", "paper_orders", "models")
    before = {table: store.rows(table) for table in tables}
    assert all(len(rows) for rows in before.values())
    with store.connection() as connection:
        # Another layout of derived tables is what a new version is.
        connection.execute(
            "DROP VIEW decisions_v1; ALTER TABLE trading_decisions DROP COLUMN policy;"
            " UPDATE meta SET schema_version = 3"
        )
    refused = run("signals")
    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert "has schema version 3" in line
    assert "run `rnn-pipeline upgrade`" in line
    told = {one["area"]: one["command"] for one in run_doctor()}
    assert told["warehouse"] == "rnn-pipeline upgrade"

    upgraded = run("upgrade")
    assert upgraded.exit_code == 0, upgraded.stderr
    assert store.rows("trading_signals").empty
    again = run("backfill", "--first", f"{load_settings().start:%Y-%m-%d}")
    assert again.exit_code == 0, again.stderr
    for table, rows in before.items():
        now = store.rows(table)
        pd.testing.assert_frame_equal(
            now.drop(columns=MADE, errors="ignore"),
            rows.drop(columns=MADE, errors="ignore"),
            check_exact=True,
            obj=table,
        )


def run_doctor() -> list[dict[str, str]]:
    import json

    return json.loads(run("doctor", "--json").stdout)
