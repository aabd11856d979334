"""The journal: what a crash took is played again, and the whole warehouse can be made from it."""

import shutil
import subprocess
import sys
import textwrap
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market import commit
from rnn_pipeline.market.commit import IngestError, release, replay
from rnn_pipeline.market.quarantine import NotReleasable, waiting_rows
from rnn_pipeline.market.rebuild import RAW_TABLES, rebuild, upgrade
from rnn_pipeline.market.sources import UnknownTicker
from rnn_pipeline.warehouse import Warehouse, WarehouseError, WarehouseVersionError

from .tables import LATER, Market, TableSource, all_sound, counts, month, news


@pytest.fixture
def market(tmp_path):
    return Market(tmp_path, TableSource({"AAA": month("AAA"), "BBB": month("BBB")}))


def an_eventful_life(market):
    """First load, bad rows, news, a correction, a split, an unknown ticker and a release."""
    market.source.bars["AAA"].loc[2, "high"] = 1.0
    market.source.bars["AAA"].loc[7, "close"] = np.inf
    published = LATER - timedelta(days=20)
    market.source.news["AAA"] = news("AAA", [("n1", published, "Up <b>1%</b>"), ("n2", None, "?")])
    market.bars(last=date(2024, 3, 21))
    market.news()
    market.source.bars["AAA"].loc[4, "close"] += 0.25
    market.source.bars["BBB"][["open", "high", "low", "close", "adj_close"]] *= 0.5
    market.source.bars["ZZZ"] = UnknownTicker("ZZZ is unknown")
    market.source.news["AAA"] = news("AAA", [("n1", published, "Up 2%")])
    later = LATER + timedelta(days=1, microseconds=17)
    market.bars(later, first=date(2024, 3, 22))
    market.news(later)
    high = waiting_rows(market.store).query("rule.str.startswith('high')")["quarantine_id"]
    release(market.store, market.payloads, list(high), "release", later + timedelta(days=1))


def test_the_raw_tables_come_back_byte_by_byte(market):
    an_eventful_life(market)
    before = market.tables(*RAW_TABLES)
    assert all(len(before[name]) for name in RAW_TABLES if name != "corporate_actions")
    assert rebuild(market.store, market.payloads, [market.source]) == 5
    for name, rows in market.tables(*RAW_TABLES).items():
        pd.testing.assert_frame_equal(rows, before[name], check_exact=True)


def test_the_old_file_is_kept_beside_the_rebuilt_one(market):
    market.bars()
    content = market.store.path.read_bytes()
    rebuild(market.store, market.payloads, [market.source])
    kept = market.store.path.with_name("warehouse.duckdb.before-rebuild")
    assert kept.read_bytes() == content


def test_what_nothing_can_make_again_is_taken_over_from_any_version(market):
    market.bars()
    trials = pd.DataFrame({"ticker": ["AAA"], "model": ["lstm"], "seed": [0]})
    orders = pd.DataFrame(
        {"ticker": ["AAA"], "session": pd.to_datetime(["2024-03-21"]), "position": [0.2]}
    )
    with market.store.batch() as batch:
        batch.append("trials", trials)
        batch.append("paper_orders", orders)
    with market.store.connection() as connection:
        connection.execute("DROP TABLE tuning_trials; UPDATE meta SET schema_version = 1")
    said = []
    rebuild(market.store, market.payloads, [market.source], said.append)
    assert market.store.rows("trials")["model"].tolist() == ["lstm"]
    assert market.store.rows("paper_orders")["position"].tolist() == [0.2]
    assert "tuning_trials could not be read" in said[-1]


def test_records_of_a_file_that_is_no_warehouse_are_begun_anew(market):
    market.bars()
    market.store.path.write_bytes(b"no database" * 1000)
    said = []
    rebuild(market.store, market.payloads, [market.source], said.append)
    assert market.store.tickers() == ["AAA", "BBB"]
    assert "trials, tuning_trials, models, paper_orders could not be read" in said[-1]


def lay_out_as_version_3(market):
    """What distinguished the last version: no registry of models, other columns of signals."""
    with market.store.connection() as connection:
        connection.execute(
            "DROP VIEW champions CASCADE; DROP TABLE models; DROP TABLE paper_orders;"
            " ALTER TABLE trading_signals DROP COLUMN policy;"
            " ALTER TABLE ticker_status ADD COLUMN gone VARCHAR;"
            " UPDATE meta SET schema_version = 3"
        )


def test_an_upgrade_carries_every_revision_over_without_asking_the_payloads(market, tmp_path):
    an_eventful_life(market)
    with market.store.batch() as batch:
        batch.append("trials", pd.DataFrame({"ticker": ["AAA"], "model": ["lstm"], "seed": [0]}))
    before = market.tables(*RAW_TABLES, "trials")
    then = pd.Timestamp(LATER) + pd.Timedelta(hours=1)
    known_then = market.store.bars(["AAA", "BBB"], as_of=then)
    lay_out_as_version_3(market)
    with pytest.raises(WarehouseVersionError, match="run `rnn-pipeline upgrade`"):
        market.store.tickers()
    shutil.rmtree(tmp_path / "payloads")
    copied = upgrade(market.store)
    assert copied == {name: len(rows) for name, rows in before.items()} | {"tuning_trials": 0}
    for name, rows in market.tables(*RAW_TABLES, "trials").items():
        pd.testing.assert_frame_equal(rows, before[name], check_exact=True)
    as_of = market.store.bars(["AAA", "BBB"], as_of=then)
    pd.testing.assert_frame_equal(as_of, known_then, check_exact=True)
    assert as_of["close"].ne(market.store.bars(["AAA", "BBB"])["close"]).any()
    kept = Warehouse(market.store.path.with_name("warehouse.duckdb.version-3"))
    assert kept.schema_version() == 3
    assert upgrade(market.store) == {}


def test_an_upgraded_warehouse_goes_on_from_where_it_was(market):
    market.source.bars["AAA"].loc[2, "high"] = 1.0
    market.bars()
    lay_out_as_version_3(market)
    upgrade(market.store)
    market.source.bars["BBB"].loc[4, "close"] += 0.25
    lines = market.bars(LATER + timedelta(days=9))
    assert [counts(line)[:3] for line in lines] == [(0, 0, 19), (0, 1, 19)]
    before = market.tables("raw_ohlcv", "raw_news", "quarantine")
    rebuild(market.store, market.payloads, [market.source])
    for name, rows in market.tables(*before).items():
        pd.testing.assert_frame_equal(rows, before[name], check_exact=True)


def test_commits_that_are_still_in_the_log_of_an_older_file_are_carried_over_too(
    market, monkeypatch
):
    market.bars()
    with monkeypatch.context() as patch:
        opening = Warehouse._open_once

        def leaves_its_log(store):
            connection = opening(store)
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            return connection

        patch.setattr(Warehouse, "_open_once", leaves_its_log)
        lay_out_as_version_3(market)
        market.store.schema_version()
        assert market.store.wal_path.exists()
        upgrade(market.store)
    assert len(market.store.bars(["AAA"])) == 20


def test_a_newer_file_is_neither_upgraded_nor_rebuilt(market):
    market.bars()
    with market.store.connection() as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
    content = market.store.path.read_bytes()
    for attempt in (
        lambda: upgrade(market.store),
        lambda: rebuild(market.store, market.payloads, [market.source]),
    ):
        with pytest.raises(WarehouseVersionError, match="install the newer program"):
            attempt()
    assert market.store.path.read_bytes() == content


def test_there_must_be_something_to_upgrade(market):
    with pytest.raises(WarehouseError, match="nothing to upgrade"):
        upgrade(market.store)
    assert not market.store.path.exists()


def test_a_journal_that_lost_entries_does_not_replace_what_holds_them(market, tmp_path):
    market.bars()
    market.source.bars["AAA"].loc[4, "close"] += 0.25
    market.bars(LATER + timedelta(days=1))
    (tmp_path / "payloads" / "journal" / "00000002.json").unlink()
    with pytest.raises(IngestError, match=r"1 rows of raw_ohlcv .*the first: AAA 2024-03-07 .* 1"):
        rebuild(market.store, market.payloads, [market.source])
    assert len(market.store.rows("raw_ohlcv", revision=1)) == 1


def test_a_damaged_payload_stops_a_rebuild_and_leaves_the_warehouse(market):
    market.bars()
    fetch = market.store.rows("raw_fetch").iloc[0]
    market.payloads.path(fetch["payload_sha256"]).write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(ValueError, match="is damaged"):
        rebuild(market.store, market.payloads, [market.source])
    assert len(market.store.bars(["AAA"])) == 20


@pytest.mark.parametrize("kept", [0.0, 0.35, 0.7, 0.95])
def test_a_truncated_log_is_noticed_and_healed_by_the_next_run(market, monkeypatch, kept):
    """DuckDB opens such a file without a word, on an earlier commit."""
    market.bars()
    with monkeypatch.context() as patch:
        closing = Warehouse._open_once

        def leaves_its_log(store):
            connection = closing(store)
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            return connection

        patch.setattr(Warehouse, "_open_once", leaves_its_log)
        for day in (1, 2):
            market.source.bars["AAA"].loc[day, "close"] += 0.25
            market.bars(LATER + timedelta(days=day))
    file, log = market.store.path.read_bytes(), market.store.wal_path.read_bytes()
    whole = market.tables(*RAW_TABLES)
    market.store.path.write_bytes(file)
    market.store.wal_path.write_bytes(log[: int(len(log) * kept)])
    assert len(market.store.rows("raw_ohlcv")) < len(whole["raw_ohlcv"])
    played = []
    replay(market.store, market.payloads, [market.source], played.append)
    assert played
    for name, rows in market.tables(*RAW_TABLES).items():
        pd.testing.assert_frame_equal(rows, whole[name], check_exact=True)


def test_a_batch_that_did_not_commit_is_played_before_anything_is_asked(market, monkeypatch):
    market.bars()
    with monkeypatch.context() as patch:
        # The process dies between the journal and the commit.
        patch.setattr(commit, "_apply", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(type(market.payloads.journal), "withdraw", lambda *_: None)
        market.source.bars["AAA"].loc[4, "close"] += 0.25
        corrected = LATER + timedelta(days=1)
        with pytest.raises(KeyboardInterrupt):
            market.bars(corrected)
    assert market.store.rows("raw_ohlcv", revision=1).empty
    assert counts(market.bars(LATER + timedelta(days=9))[0]) == (0, 0, 20, 0)
    revised = market.store.rows("raw_ohlcv", revision=1)
    assert revised["known_at"].item() == pd.Timestamp(corrected)


def test_a_deleted_warehouse_grows_back_with_the_next_run(market):
    an_eventful_life(market)
    before = market.store.rows("raw_ohlcv")
    market.store.path.unlink()
    then = LATER + timedelta(days=30)
    market.bars(then)
    rows = market.store.rows("raw_ohlcv")
    known = rows[rows["known_at"] < then].reset_index(drop=True)
    pd.testing.assert_frame_equal(known, before, check_exact=True)


def test_a_batch_of_another_source_is_not_passed_over(market):
    market.bars()
    market.store.path.unlink()
    market.source.name = "other"
    with pytest.raises(IngestError, match="batch 1 of source table is in the journal"):
        market.bars()


def test_a_released_row_is_a_revision_known_from_then_on(market):
    market.source.bars["AAA"].loc[2, "high"] = 1.0
    market.bars()
    held = waiting_rows(market.store).squeeze()
    then = LATER + timedelta(days=2)
    (line,) = release(market.store, market.payloads, [held["quarantine_id"]], "me", then)
    assert (line.ticker, line.inserted) == ("AAA", 1)
    row = market.store.bars(["AAA"]).iloc[2]
    assert (row["high"], row["close"], row["provenance"]) == (1.0, 102.0, "released")
    assert row["known_at"] == pd.Timestamp(then)
    assert waiting_rows(market.store).empty
    # It comes with every further answer, is recognised, and stays released.
    market.bars(then + timedelta(days=1))
    assert waiting_rows(market.store).empty
    assert len(market.store.rows("raw_ohlcv", ticker="AAA")) == 20


def test_what_nothing_can_be_computed_from_is_not_released(market):
    market.source.bars["AAA"].loc[2, "close"] = np.nan
    market.source.bars["AAA"].loc[3, "low"] = -1.0
    market.bars()
    for row in waiting_rows(market.store).itertuples():
        with pytest.raises(NotReleasable, match=r"nothing can be computed|is no price"):
            release(market.store, market.payloads, [row.quarantine_id], "me", LATER)
    with pytest.raises(NotReleasable, match="beef does not wait in quarantine"):
        release(market.store, market.payloads, ["beef"], "me", LATER)


INGEST = """
    import itertools, sys
    from datetime import timedelta
    from pathlib import Path
    from rnn_pipeline_tests.market import tables
    from rnn_pipeline.market import asking, commit

    commit.check_bars = tables.all_sound
    market = tables.Market(Path(sys.argv[1]), tables.TableSource())
"""

INGEST_FOR_EVER = (
    INGEST
    + """
    begin = market.payloads.journal.last_number()
    print("start", flush=True)
    for number in itertools.count(begin):
        market.source.bars = {f"T{number}": tables.month(f"T{number}")}
        market.bars(tables.LATER + timedelta(minutes=number))
        print(f"T{number}", flush=True)
"""
)


INGEST_ONCE = (
    INGEST
    + """
    asking.TICKERS_PER_BATCH = 1  # many transactions, so that they fall between one another
    own = [f"{sys.argv[2]}{n}" for n in range(4)]
    shared = [f"S{n}" for n in range(4)]
    names = [name for pair in zip(own, shared) for name in pair]
    market.source.bars = {name: tables.month(name) for name in names}
    print("start", flush=True)
    sys.stdin.readline()
    lines = market.bars()
    print(*(f"{line.ticker}={line.status},{line.inserted},{line.unchanged}" for line in lines))
"""
)


def start(code: str, *arguments: str) -> subprocess.Popen:
    """Run code in a process of its own that says when it is about to ingest."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "start\n"
    return process


def test_two_ingestions_at_once_lose_and_repeat_nothing(market, tmp_path, monkeypatch):
    processes = [start(INGEST_ONCE, str(tmp_path), name) for name in "AB"]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    done = [dict(word.split("=") for word in p.communicate()[0].split()) for p in processes]
    for name, lines in zip("AB", done, strict=True):
        assert {lines[f"{name}{n}"] for n in range(4)} == {"ok,20,0"}
    for n in range(4):  # whoever came first inserted, the other one found nothing new
        assert sorted(lines[f"S{n}"] for lines in done) == ["ok,0,20", "ok,20,0"]
    rows = market.store.rows("raw_ohlcv")
    assert rows.groupby("ticker").size().to_dict() == dict.fromkeys(done[0] | done[1], 20)
    assert set(rows["revision"]) == {0}
    ledger = market.store.rows("ingest_ledger")
    assert sorted(ledger["entry"]) == list(range(1, 17))
    before = market.tables(*RAW_TABLES)
    monkeypatch.setattr(commit, "check_bars", all_sound)
    assert rebuild(market.store, market.payloads, [market.source]) == 16
    for name, rows in market.tables(*RAW_TABLES).items():
        pd.testing.assert_frame_equal(rows, before[name], check_exact=True)


def test_thirty_kills_lose_no_acknowledged_batch_and_leave_none_half_there(market, tmp_path):
    acknowledged = set()
    rng = np.random.default_rng(0)
    for _ in range(30):
        process = start(INGEST_FOR_EVER, str(tmp_path))
        try:
            process.wait(rng.uniform(0.05, 0.5))
        except subprocess.TimeoutExpired:
            process.kill()
        acknowledged |= set(process.communicate()[0].split())
    stored = market.store.read("SELECT ticker, count(*) AS n FROM raw_ohlcv GROUP BY ticker")
    ledger = market.store.rows("ingest_ledger")
    assert acknowledged <= set(stored["ticker"])
    assert set(stored["n"]) <= {20}
    assert sorted(ledger["ticker"]) == sorted(stored["ticker"])
    market.source.bars = {"LAST": month("LAST")}
    market.bars(LATER + timedelta(days=9))
    before = market.tables(*RAW_TABLES)
    rebuild(market.store, market.payloads, [market.source])
    for name, rows in market.tables(*RAW_TABLES).items():
        pd.testing.assert_frame_equal(rows, before[name], check_exact=True)
