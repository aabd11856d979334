"""The drop folder in Dagster: a file wakes the graph once, and the commands see its rows."""

import os
import re
import time
from datetime import date

import dagster as dg
import pytest
from click.testing import CliRunner

from rnn_pipeline import cli
from rnn_pipeline.defs import automation, partitions
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.ingest import Request, ingest_bars
from rnn_pipeline.settings import SettingsError, load_settings
from rnn_pipeline.warehouse import PayloadStore, Warehouse

from .market.tables import CALENDAR

CSV = """ticker,date,open,high,low,close,adj_close,volume
AAA,2011-02-01,10,12,9,11,11,5
AAA,2011-03-01,10,12,9,11,11,5
CCC,2011-03-01,10,8,9,11,11,5
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    folder = tmp_path / "drop"
    folder.mkdir()
    monkeypatch.setenv("RNN_PIPELINE_SOURCE", "files")
    monkeypatch.setenv("RNN_PIPELINE_DROP_DIR", str(folder))
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RNN_PIPELINE_TICKERS", "")
    settings = load_settings(start=None)
    monkeypatch.setattr(automation, "SETTINGS", settings)
    return settings


def drop(settings, name, text):
    path = settings.drop_dir / name
    path.write_text(text)
    os.utime(path, (time.time() - 60,) * 2)


def tick(instance, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    answer = automation.drop_folder(context)
    return answer, context.cursor


def test_a_dropped_file_asks_for_its_own_tickers_and_days_once(settings):
    drop(settings, "one.csv", CSV)
    with dg.instance_for_test() as instance:
        request, cursor = tick(instance)
        start, end = (
            request.tags[f"dagster/asset_partition_range_{side}"] for side in ("start", "end")
        )
        assert (start, end) == ("2011-02-01|AAA", "2011-03-01|CCC")
        assert list(instance.get_dynamic_partitions("ticker")) == ["AAA", "CCC"]
        (settings.drop_dir / "one.csv").rename(settings.drop_dir / "renamed.csv")
        skipped, cursor = tick(instance, cursor)
        assert isinstance(skipped, dg.SkipReason)
        drop(settings, "two.csv", CSV.replace(",11,11,5", ",11,10,5"))
        request, _ = tick(instance, cursor)
        assert request.tags["dagster/asset_partition_range_end"] == "2011-03-01|CCC"


def test_a_ticker_whose_first_file_is_dropped_is_filled_with_networks_and_all(settings):
    drop(settings, "one.csv", CSV)
    with dg.instance_for_test() as instance:
        _, cursor = tick(instance)
        drop(settings, "new.csv", CSV.replace("AAA", "BBB").replace("CCC", "BBB"))
        left, cursor = tick(instance, cursor)
        assert isinstance(left, dg.SkipReason)
        assert left.skip_message == "left to the sensor universe, as new: BBB"
        request = automation.universe(dg.build_sensor_context(instance=instance))
        assert request.run_config["ops"]["run_every_stage"]["config"]["tickers"] == ["BBB"]
        assert isinstance(tick(instance, cursor)[0], dg.SkipReason)
        drop(settings, "both.csv", CSV.replace("AAA", "DDD"))
        request, _ = tick(instance, cursor)
        start, end = (
            request.tags[f"dagster/asset_partition_range_{side}"].split("|")[1]
            for side in ("start", "end")
        )
        assert (start, end) == ("CCC", "CCC")
        assert "DDD" not in instance.get_dynamic_partitions("ticker")


def test_the_files_say_where_the_axes_begin_and_end(settings):
    drop(settings, "one.csv", CSV)
    assert partitions.universe(settings) == ("AAA", "CCC")
    assert partitions.first_session(settings) == date(2011, 2, 1)
    assert partitions.last_day(settings) == date(2011, 3, 1)


def test_source_files_needs_its_folder(tmp_path):
    for folder in (None, tmp_path / "none"):
        with pytest.raises(SettingsError, match="needs drop_dir to be a folder"):
            load_settings(source="files", drop_dir=folder)


def command(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def test_quarantined_rows_are_listed_and_released_by_command(settings):
    drop(settings, "one.csv", CSV)
    store = Warehouse(settings.warehouse_path)
    request = Request([], date(2011, 2, 1), date(2011, 3, 1), "run")
    payloads = PayloadStore(settings.payload_dir)
    ingest_bars(store, payloads, FileSource(settings.drop_dir), CALENDAR, request)
    listed = command("quarantine", "list")
    (line,) = listed.stdout.splitlines()
    assert "CCC  high_is_highest" in line
    (row,) = re.findall(r"^[0-9a-f]{16}", line)
    assert command("quarantine", "release", row).output == "1 rows released\n"
    assert store.bars(["CCC"])["provenance"].tolist() == ["released"]
    again = command("quarantine", "release", row)
    assert again.exit_code == 1
    assert "does not wait in quarantine" in again.output
