"""The warehouse: one transaction per batch, one writer at a time, and reads as of any moment."""

import subprocess
import sys
import textwrap
import time
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnn_pipeline.warehouse import (
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseVersionError,
)

MONDAY = pd.Timestamp("2024-01-01")
CLOSE = pd.Timedelta(hours=21)


def revisions(rows) -> pd.DataFrame:
    """Rows of ``raw_ohlcv`` from (ticker, day, revision, known_at, close)."""
    frame = pd.DataFrame(rows, columns=["ticker", "day", "revision", "known_at", "close"])
    return frame.drop(columns="day").assign(
        session=[MONDAY + pd.Timedelta(days=day) for day in frame["day"]],
        is_final=True,
        **dict.fromkeys(["open", "high", "low", "adj_close"], frame["close"]),
        volume=1.0,
        dividend=0.0,
        split=0.0,
    )


def close_of(day: int) -> pd.Timestamp:
    return (MONDAY + pd.Timedelta(days=day) + CLOSE).tz_localize("UTC")


@pytest.fixture
def store(tmp_path):
    return Warehouse(tmp_path / "warehouse.duckdb", lock_timeout=0.3)


def in_another_process(store: Warehouse, body: str, *arguments: object) -> subprocess.Popen:
    """Run code on the same file; ``store`` and ``sys`` are at hand, its output is piped."""
    code = (
        "import sys, time\nimport pandas as pd\nfrom pathlib import Path\n"
        "from rnn_pipeline.warehouse import Warehouse\n"
        "store = Warehouse(Path(sys.argv[1]), lock_timeout=30)\n" + textwrap.dedent(body)
    )
    command = [sys.executable, "-c", code, str(store.path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_exception_in_a_batch_leaves_nothing_of_it(either):
    with either.batch() as batch:
        batch.append("raw_ohlcv", revisions([("A", 0, 0, close_of(0), 1.0)]))
    with pytest.raises(KeyError), either.batch() as batch:
        write_and_raise(batch)
    assert either.bars(["A"])["close"].tolist() == [1.0]


def write_and_raise(batch):
    batch.append("raw_ohlcv", revisions([("A", 1, 0, close_of(1), 2.0)]))
    raise KeyError


def test_a_row_that_breaks_a_constraint_says_which_and_leaves_nothing(either):
    rows = revisions([("A", 0, 0, close_of(0), 1.0), ("A", 0, 0, close_of(0), 2.0)])
    with (
        pytest.raises(duckdb.ConstraintException, match="uplicate key"),
        either.batch() as batch,
    ):
        batch.append("raw_ohlcv", rows)
    assert either.bars(["A"]).empty


def test_replace_needs_a_condition(either):
    with pytest.raises(ValueError, match="would empty the table"), either.batch() as batch:
        batch.replace("raw_ohlcv", pd.DataFrame())


def test_a_feature_table_grows_a_column_per_feature_and_takes_numbers_alone(either):
    rows = pd.DataFrame({"ticker": ["A"], "session": [MONDAY], "rsi_14": [55.0]})
    with either.batch() as batch:
        batch.append("price_features", rows)
    assert either.rows("price_features")["rsi_14"].tolist() == [55.0]
    for hostile in ({'x" DOUBLE; DROP TABLE meta; --': [1.0]}, {"text": ["a"]}):
        with pytest.raises(ValueError, match="features are numbers"), either.batch() as batch:
            batch.append("price_features", rows[["ticker", "session"]].assign(**hostile))


def test_as_of_reads_the_newest_revision_known_then(either):
    with either.batch() as batch:
        batch.append(
            "raw_ohlcv",
            revisions([("A", 0, 0, close_of(0), 1.0), ("A", 0, 1, close_of(3), 2.0)]),
        )
    for moment, closes in [(0.9, []), (1, [1.0]), (3.99, [1.0]), (4, [2.0])]:
        as_of = close_of(0) + pd.Timedelta(days=moment - 1)
        assert either.bars(["A"], as_of=as_of)["close"].tolist() == closes


def test_a_bar_that_is_not_final_is_never_read(either):
    with either.batch() as batch:
        rows = revisions([("A", 0, 0, close_of(0), 1.0)])
        batch.append("raw_ohlcv", rows.assign(is_final=False))
    assert either.bars(["A"]).empty
    assert either.last_session() is None


def expected_history(rows: pd.DataFrame, ticker: str, session, warm_up: int) -> list:
    """Brute force: what a row may be computed from, newest last, as (session, revision)."""
    mine = rows[rows["ticker"] == ticker]
    vintage = mine.loc[mine["session"] == session, "known_at"].min()
    known = mine[(mine["session"] <= session) & (mine["known_at"] <= vintage)]
    newest = known.sort_values("revision").groupby("session").tail(1).sort_values("session")
    return list(zip(newest["session"], newest["revision"], strict=True))[-warm_up - 1 :]


@st.composite
def histories(draw):
    """Revisions of two tickers: late rows, corrections and restatements at any moment."""
    rows = []
    for ticker in ("A", "B"):
        for day in sorted(draw(st.sets(st.integers(0, 9), min_size=1))):
            late = draw(st.sampled_from([0, 0, 0, 1, 3, 6]))
            first_known = day + late
            rows.append((ticker, day, 0, close_of(first_known), 1.0))
            later = draw(st.lists(st.integers(1, 6), max_size=2))
            for revision, wait in enumerate(np.cumsum(later), start=1):
                rows.append((ticker, day, revision, close_of(first_known + int(wait)), 2.0))
    return revisions(rows)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=histories(),
    span=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    warm_up=st.integers(0, 4),
)
def test_eras_hold_what_was_known_when_each_row_was_first_seen(store, rows, span, warm_up):
    first, last = (MONDAY + pd.Timedelta(days=day) for day in sorted(span))
    with store.connection() as connection:
        connection.execute("DELETE FROM raw_ohlcv")
    with store.batch() as batch:
        batch.append("raw_ohlcv", rows)
    eras = store.bars_by_era(["A", "B"], first.date(), last.date(), warm_up)
    eras["session"] = eras["session"].astype("datetime64[us]")
    wanted = rows[rows["session"].between(first, last)][["ticker", "session"]].drop_duplicates()
    kept = eras[eras["in_era"]]
    assert sorted(zip(kept["ticker"], kept["session"], strict=True)) == sorted(
        zip(wanted["ticker"], wanted["session"], strict=True)
    )
    for row in kept.itertuples():
        same = eras[(eras["ticker"] == row.ticker) & (eras["era"] == row.era)]
        history = same[same["session"] <= row.session]
        seen = list(zip(history["session"], history["revision"], strict=True))[-warm_up - 1 :]
        assert seen == expected_history(rows, row.ticker, row.session, warm_up)


def test_a_ticker_that_was_never_restated_has_one_era(either):
    with either.batch() as batch:
        batch.append(
            "raw_ohlcv", revisions([("A", day, 0, close_of(day), 1.0 + day) for day in range(9)])
        )
    rows = either.bars_by_era(["A"], date(2024, 1, 5), date(2024, 1, 7), 2)
    assert rows["era"].unique().tolist() == [0]
    assert rows["in_era"].tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(("found", "way"), [(99, "install the newer program"), (3, "upgrade`")])
def test_a_file_of_another_version_is_left_alone(store, found, way):
    store.last_session()
    with duckdb.connect(str(store.path)) as connection:
        connection.execute(f"UPDATE meta SET schema_version = {found}")
    with pytest.raises(WarehouseVersionError, match=f"has schema version {found}.*{way}"):
        store.last_session()
    assert store.schema_version() == found


def test_a_database_of_something_else_is_left_alone(store):
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("CREATE TABLE recipes (name VARCHAR)")
    with pytest.raises(WarehouseVersionError, match="has schema version no"):
        store.last_session()


@pytest.mark.parametrize("content", [b"not a database", b"DUCK" * 5000, bytes(20_000)])
def test_a_file_that_is_no_warehouse_is_one_line(store, content):
    store.path.write_bytes(content)
    with pytest.raises(WarehouseError, match=r"warehouse\.duckdb") as error:
        store.last_session()
    assert "\n" not in str(error.value)
    assert store.path.read_bytes() == content


def test_a_file_in_use_names_the_process_that_holds_it(store):
    holder = in_another_process(
        store, "with store.connection():\n    print('open', flush=True)\n    time.sleep(60)"
    )
    assert holder.stdout.readline() == "open\n"
    started = time.monotonic()
    with pytest.raises(WarehouseLocked, match=f"in use by process {holder.pid} "):
        store.last_session()
    assert time.monotonic() - started < 5
    holder.kill()
    holder.communicate()
    assert store.last_session() is None


def test_two_writers_lose_nothing(store):
    writer = """
        name = sys.argv[2]
        for number in range(25):
            with store.batch() as batch:
                batch.append("ingest_ledger", pd.DataFrame({"run_id": [name], "rows_in": [number]}))
    """
    writers = [in_another_process(store, writer, name) for name in ("one", "two")]
    assert [process.wait() for process in writers] == [0, 0]
    for process in writers:
        process.stdout.close()
    ledger = store.rows("ingest_ledger", "run_id, rows_in")
    assert sorted(zip(ledger["run_id"], ledger["rows_in"], strict=True)) == [
        (name, number) for name in ("one", "two") for number in range(25)
    ]


#: Commits batches for ever, each of one row in two tables, and says so after each commit.
COMMIT_LOOP = """
    import itertools
    start = store.read("SELECT coalesce(max(rows_in) + 1, 0) AS n FROM ingest_ledger")["n"].item()
    print("start", flush=True)
    for number in itertools.count(start):
        with store.batch() as batch:
            batch.append("ingest_ledger", pd.DataFrame({"run_id": ["r"], "rows_in": [number]}))
            batch.append("raw_fetch", pd.DataFrame({"fetch_id": [str(number)]}))
        print(number, flush=True)
"""


def kill_while_committing(store: Warehouse, wait: float) -> int:
    """Start the loop, kill -9 it after some time, and return the last acknowledged batch."""
    process = in_another_process(store, COMMIT_LOOP)
    assert process.stdout.readline() == "start\n"
    time.sleep(wait)
    process.kill()
    acknowledged = process.communicate()[0].split()
    return int(acknowledged[-1]) if acknowledged else -1


def assert_whole(store: Warehouse, acknowledged: int) -> None:
    """Both tables hold the same batches, all up to the last acknowledged one and none twice."""
    ledger = store.read("SELECT rows_in FROM ingest_ledger ORDER BY 1")["rows_in"].tolist()
    fetches = store.read("SELECT fetch_id::INT AS n FROM raw_fetch ORDER BY 1")["n"].tolist()
    assert ledger == fetches == list(range(len(ledger)))
    assert len(ledger) > acknowledged


def test_a_killed_writer_loses_no_acknowledged_batch_and_leaves_none_half_there(store):
    for wait in (0.05, 0.12, 0.2):
        assert_whole(store, kill_while_committing(store, wait))


def test_moments_come_back_in_utc(either):
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    with either.batch() as batch:
        batch.append("raw_ohlcv", revisions([("A", 0, 0, moment, 1.0)]))
    read = either.bars(["A"])
    assert read["known_at"].item() == moment
    assert str(read["known_at"].dt.tz) == "UTC"
    assert read["session"].item() == MONDAY
    assert either.bars(["A"], as_of=moment - timedelta(microseconds=1)).empty
