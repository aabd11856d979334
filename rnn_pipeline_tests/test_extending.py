"""What the how-to pages add is added in one place, and gone when that is taken away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from rnn_pipeline import SessionCalendar, Warehouse
from rnn_pipeline.alerts import Alert, deliver, hooks_of
from rnn_pipeline.defs.networks import forecaster
from rnn_pipeline.defs.resources import MARKET
from rnn_pipeline.features.catalogue import NAMES, feature_table_hash
from rnn_pipeline.market.ingest import Request, ingest_bars
from rnn_pipeline.market.rebuild import rebuild
from rnn_pipeline.market.sources import NewsSource, load_source
from rnn_pipeline.settings import ModelSettings, SettingsError, load_settings
from rnn_pipeline.trading.policies import answer_of
from rnn_pipeline.warehouse import PayloadStore
from rnn_pipeline_tests.documentation import ROOT, blocks

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

VENDOR = "vendor_source:VendorSource"
NOW = datetime(2024, 5, 6, 12, tzinfo=UTC)

USE_OF_THE_FEATURE = """
import sys
from pathlib import Path

import pandas as pd

from rnn_pipeline.features.catalogue import BOUNDS, feature_table, feature_table_hash
from rnn_pipeline.features.model import model_columns
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.warehouse import Warehouse

source, day = SampleSource(), pd.Timestamp
answer = source.fetch_bars("IBM", day("2012-01-01").date(), day("2013-02-01").date())
bars = source.parse_bars(answer, "IBM")
bars["known_at"] = bars["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
rows = feature_table(bars, bars[:0])
with Warehouse(Path(sys.argv[1])).batch() as batch:
    batch.append("price_features", rows)
stored = Warehouse(Path(sys.argv[1])).rows("price_features")
print(model_columns(["skewness_20"]), BOUNDS["skewness_20"], stored["skewness_20"].notna().sum())
print(feature_table_hash())
"""


def code_of(page: str) -> list[str]:
    return [block.code for block in blocks(page) if block.language == "python"]


def use_feature(package: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", USE_OF_THE_FEATURE, str(file)],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_feature_is_one_function_and_one_line_in_the_catalogue(tmp_path: Path) -> None:
    package = tmp_path / "rnn_pipeline"
    shutil.copytree(
        ROOT / "rnn_pipeline", package, ignore=shutil.ignore_patterns("__pycache__", "kernels")
    )
    catalogue = package / "features" / "catalogue.py"
    before = catalogue.read_text()
    declaration = "DECLARED: tuple[Feature, ...] = ("
    told, _ = code_of("docs/how-to/feature.md")
    definitions = told.split("\n\n\n", 1)[1]  # its imports are there already
    catalogue.write_text(before.replace(declaration, f"{definitions}\n\n{declaration}SKEWNESS, "))
    done = use_feature(package, tmp_path / "with.duckdb")
    assert done.returncode == 0, done.stderr
    used, made_by = done.stdout.splitlines()
    sessions = len(SessionCalendar("XNYS").sessions(date(2012, 1, 1), date(2013, 2, 1)))
    assert used == f"('skewness_20',) (-20.0, 20.0) {sessions - 20}"
    assert made_by != feature_table_hash()

    catalogue.write_text(before)
    done = use_feature(package, tmp_path / "without.duckdb")
    assert "model.features names ['skewness_20'], which no feature is called" in done.stderr
    assert "skewness_20" not in NAMES


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, from which modules can be imported until it is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def test_a_policy_is_one_function_that_the_settings_name(beside: Path) -> None:
    (code,) = code_of("docs/how-to/policy.md")
    (fragment,) = [b.code for b in blocks("docs/how-to/policy.md") if b.language == "toml"]
    file = beside / "my_policy.py"
    file.write_text(code)
    spec = load_settings(**tomllib.loads(fragment)).trading
    sources = pd.DataFrame(
        {
            "ticker": "ACME",
            "session": pd.Timestamp("2024-01-02"),
            "source": ["gru", "sentiment"],
            "standardised": [0.6, 0.5],
            "evidence_weight": [1.0, 0.25],
            "abstains": False,
        },
        index=[7, 3],
    )
    answer = answer_of(spec.policy, sources, spec, pd.DataFrame)
    assert answer["weight"].to_dict() == {7: 0.5, 3: 0.25}

    del sys.modules["my_policy"]
    file.write_text(code.replace("allowed / 2", "allowed / 0 * 0"))
    with pytest.raises(ValueError, match=r"policy 'my_policy:sentiment_first': weight is nan"):
        answer_of(spec.policy, sources, spec, pd.DataFrame)
    del sys.modules["my_policy"]
    file.write_text("def sentiment_first(sources, spec, history): return sources.iloc[:1]")
    with pytest.raises(ValueError, match=r"trading\.policy: .* answers for other rows"):
        answer_of(spec.policy, sources, spec, pd.DataFrame)
    del sys.modules["my_policy"]
    file.unlink()
    with pytest.raises(
        ValueError, match=r"setting trading\.policy: .* No module named 'my_policy'"
    ):
        answer_of(spec.policy, sources, spec, pd.DataFrame)


def test_a_way_to_alert_is_one_function_that_the_settings_name(beside: Path) -> None:
    (code,) = code_of("docs/how-to/alerts.md")
    (fragment,) = [b.code for b in blocks("docs/how-to/alerts.md") if b.language == "toml"]
    file, memory = beside / "my_alerts.py", beside / "memory"
    file.write_text(code)
    hooks = hooks_of(load_settings(**tomllib.loads(fragment)).alerts, {})
    stale = Alert("bars", "error", "AAPL has no bar", "", "rnn-pipeline backfill")
    assert deliver([stale], hooks, memory, NOW).told["my_alerts:to_file"] == ["bars"]
    assert deliver([stale], hooks, memory, NOW).told == {}
    told = (beside / "pager.txt").read_text()
    assert told == "error: AAPL has no bar | rnn-pipeline backfill\n"

    del sys.modules["my_alerts"]
    file.unlink()
    found = deliver([stale], hooks, memory, NOW + timedelta(days=1))
    assert found.told == {"log": ["bars"]}
    (why,) = found.failed.values()
    assert why == "'my_alerts:to_file' cannot be loaded: No module named 'my_alerts'"


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's source in a file of the working directory, as the page says."""
    (code,) = code_of("docs/how-to/source.md")
    file = tmp_path / "vendor_source.py"
    file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "vendor_source", raising=False)
    yield file
    sys.modules.pop("vendor_source", None)


def test_a_source_is_one_file_that_the_settings_name(vendor: Path, tmp_path: Path) -> None:
    settings = load_settings(source=VENDOR, tickers=["ACME"], data_dir=tmp_path)
    assert settings.home == tmp_path / "vendor_source.VendorSource"
    market = MARKET.model_copy(update={"source": settings.source})
    (source,) = market.sources
    assert not isinstance(source, NewsSource)

    first, last = date(2024, 3, 1), date(2024, 3, 28)
    store, payloads = Warehouse(settings.warehouse_path), PayloadStore(settings.payload_dir)
    request = Request(["ACME", "NONE"], first, last, "run")
    ledger = ingest_bars(store, payloads, source, SessionCalendar("XNYS"), request)
    statuses = {line.ticker: line.status for line in ledger}
    assert statuses == {"ACME": "ok", "NONE": "NONE: the vendor has ACME, BOLT"}
    bars = store.bars(["ACME"], first, last)
    assert list(bars["session"]) == list(SessionCalendar("XNYS").sessions(first, last))
    assert set(bars["close"]) == {10.0}

    rebuild(store, payloads, market.sources, print)
    pd.testing.assert_frame_equal(store.bars(["ACME"], first, last), bars)


def test_a_source_that_is_gone_or_incomplete_is_named(vendor: Path) -> None:
    vendor.write_text("class VendorSource:\n    name = 'vendor'\n")
    with pytest.raises(ValueError, match=r"'vendor_source:VendorSource' lacks fetch_bars, parse_"):
        load_source(VENDOR)
    vendor.unlink()
    sys.modules.pop("vendor_source")
    with pytest.raises(ValueError, match="cannot be loaded: No module named 'vendor_source'"):
        load_source(VENDOR)
    with pytest.raises(SettingsError, match="use sample, yahoo, files, or module:Class"):
        load_settings(source="vendor")


def test_a_network_is_a_table_of_the_settings() -> None:
    (fragment,) = [
        block.code for block in blocks("docs/how-to/network.md") if block.language == "toml"
    ]
    model = ModelSettings(**tomllib.loads(fragment)["model"])
    networks = model.networks
    assert list(networks) == ["small_gru", "deep_lstm", "shared"]
    assets = [forecaster(name, model) for name in networks]
    assert [asset.key.to_user_string() for asset in assets] == [
        *("small_gru_forecaster", "deep_lstm_forecaster", "shared_forecaster")
    ]
    assert [asset.partitions_def is None for asset in assets] == [False, False, True]
    assert not {"small_gru", "deep_lstm", "shared"} & set(load_settings().model.networks)
