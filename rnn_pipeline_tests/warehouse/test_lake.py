"""The warehouse on DuckLake, with a real PostgreSQL server and an S3-compatible store."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from pydantic import SecretStr

from rnn_pipeline.market.rebuild import upgrade
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import (
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseVersionError,
    open_warehouse,
)
from rnn_pipeline.warehouse.lake import Lake, LakeAddress
from rnn_pipeline.warehouse.schema import SCHEMA_VERSION, TABLES
from rnn_pipeline_tests.warehouse.test_store import close_of, revisions

pytestmark = pytest.mark.lake

MARKED = "pa55-MARKED-word"


def in_another_process(lake, body: str, *arguments: object) -> subprocess.Popen:
    """Run code on the same lake; ``store`` and ``pd`` are at hand, its output is piped."""
    code = (
        "import sys, time\nimport pandas as pd\nfrom pydantic import SecretStr\n"
        "from rnn_pipeline.warehouse.lake import Lake, LakeAddress\n"
        "store = Lake(LakeAddress(SecretStr(sys.argv[1]), *sys.argv[2:5]), 60)\n"
        + textwrap.dedent(body)
    )
    address = lake.address
    where = [address.catalog.get_secret_value(), address.schema, address.data_path]
    command = [sys.executable, "-c", code, *where, address.endpoint, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


#: What ingestion does: look at what is known, and add a revision to it. Every writer wants the same
#: tickers, so two that see the same state would both write the same revision.
WRITER = """
    for number in range(int(sys.argv[6])):
        with store.batch() as batch:
            known = batch.read(
                "SELECT coalesce(max(revision) + 1, 0) AS n FROM raw_ohlcv WHERE ticker = 'A'"
            )["n"].item()
            many = pd.DataFrame({"ticker": ["A"] + [f"{sys.argv[5]}{number}"] * 40})
            rows = many.assign(
                session=pd.date_range("2024-01-01", periods=41),
                revision=[known] + [0] * 40,
                known_at=pd.Timestamp.now("UTC"),
                is_final=True,
            )
            batch.append("raw_ohlcv", rows)
            batch.append("ingest_ledger", pd.DataFrame({"run_id": [sys.argv[5]], "entry": [known]}))
"""


def test_four_writers_lose_nothing_and_duplicate_nothing(lake):
    batches = 4
    writers = [in_another_process(lake, WRITER, name, batches) for name in "stuv"]
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0] * 4
    ledger = lake.rows("ingest_ledger", "entry, run_id")
    assert ledger["entry"].tolist() == list(range(4 * batches))
    assert ledger["run_id"].value_counts().to_dict() == dict.fromkeys("stuv", batches)
    rows = lake.rows("raw_ohlcv", "ticker, session, revision")
    assert rows.loc[rows["ticker"] == "A", "revision"].tolist() == list(range(4 * batches))
    assert len(rows) == 4 * batches * 41 == len(rows.drop_duplicates())
    # As it was after any number of batches, whoever wrote them: those and nothing else.
    for committed in (1, 7, 4 * batches):
        past = lake.at(int(lake.snapshots()["snapshot_id"].iloc[committed - 4 * batches - 1]))
        assert past.rows("ingest_ledger", "entry")["entry"].tolist() == list(range(committed))
        assert len(past.rows("raw_ohlcv", "ticker")) == committed * 41


def test_a_lake_whose_maker_was_killed_before_its_tables_were_there_is_made_whole(lake):
    from rnn_pipeline.warehouse import lake as module

    half_made = module._Attached(module._engine(os.getpid()), lake.address, "half_made")
    module._log_in(half_made)
    module._attach(half_made)
    assert lake.last_session() is None


def test_a_killed_writer_gives_its_turn_back_and_leaves_nothing_half_there(lake):
    lake.last_session()
    holder = in_another_process(
        lake,
        """
        with store.batch() as batch:
            batch.append("raw_fetch", pd.DataFrame({"fetch_id": [str(n) for n in range(50)]}))
            print("written", flush=True)
            time.sleep(60)
        """,
    )
    assert holder.stdout.readline() == "written\n"
    assert lake.rows("raw_fetch").empty  # a reader waits for nobody, and sees no open batch
    impatient = type(lake)(lake.address, 0.2)
    with pytest.raises(WarehouseLocked, match="another writer held"), impatient.batch():
        pytest.fail("two writers at once")
    holder.kill()
    holder.communicate()
    with lake.batch() as batch:
        batch.append("raw_fetch", pd.DataFrame({"fetch_id": ["1"]}))
    assert lake.rows("raw_fetch")["fetch_id"].tolist() == ["1"]


def test_a_batch_whose_turn_was_lost_does_not_commit(lake, catalog_server):
    with pytest.raises(WarehouseError, match="cannot use warehouse"), lake.batch() as batch:
        write_and_lose_the_turn(batch, catalog_server)
    assert lake.rows("raw_fetch").empty


def write_and_lose_the_turn(batch, catalog_server):
    batch.append("raw_fetch", pd.DataFrame({"fetch_id": ["1"]}))
    catalog_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    )


#: Batches as an ingestion would write them: a first load, a correction, a late bar, a restatement.
HISTORY = [
    [("A", day, 0, close_of(day), 1.0 + day) for day in range(8)],
    [("A", 3, 1, close_of(9), 30.0), ("B", 5, 0, close_of(9), 5.0)],
    [("B", 2, 0, close_of(11), 2.0)],
    [("A", day, 2 if day == 3 else 1, close_of(12), 10.0 + day) for day in range(8)],
]


@pytest.fixture
def twins(lake, tmp_path):
    """The same batches on both engines, and the lake's snapshot after each."""
    file = Warehouse(tmp_path / "warehouse.duckdb")
    snapshots = []
    for rows in HISTORY:
        for store in (file, lake):
            with store.batch() as batch:
                batch.append("raw_ohlcv", revisions(rows))
                batch.replace("price_features", features(rows), ticker=sorted({r[0] for r in rows}))
                batch.upsert("ticker_status", status(rows))
        snapshots.append(int(lake.snapshots()["snapshot_id"].max()))
    return file, lake, snapshots


def features(rows) -> pd.DataFrame:
    frame = revisions(rows)
    return frame[["ticker", "session", "known_at"]].assign(rsi_14=frame["close"] / 3)


def status(rows) -> pd.DataFrame:
    last = revisions(rows).groupby("ticker", as_index=False)["session"].max()
    return last.rename(columns={"session": "last_session"}).assign(sessions=len(rows))


def test_the_lake_reads_what_the_file_reads_as_of_every_moment_and_as_it_was(twins):
    file, lake, snapshots = twins
    for days in range(14):
        moment = close_of(days)
        assert_frame_equal(lake.bars(["A", "B"], as_of=moment), file.bars(["A", "B"], as_of=moment))
    span = (pd.Timestamp("2024-01-03").date(), pd.Timestamp("2024-01-07").date())
    for warm_up in (0, 3):
        mine = lake.bars_by_era(["A", "B"], *span, warm_up)
        assert mine["era"].nunique() > 1
        assert_frame_equal(mine, file.bars_by_era(["A", "B"], *span, warm_up))
    for table in ("price_features", "ticker_status", "walk_forward_forecasts", "raw_ohlcv"):
        assert_frame_equal(lake.rows(table), file.rows(table))

    past = lake.at(snapshots[1])
    assert len(past.rows("raw_ohlcv")) == len(HISTORY[0]) + len(HISTORY[1])
    assert past.rows("ticker_status").set_index("ticker")["sessions"].to_dict() == {"A": 2, "B": 2}
    assert past.read("SELECT count(*) AS n FROM all_forecasts")["n"].item() == 0
    with pytest.raises(WarehouseError, match="for reading alone"), past.batch():
        pytest.fail("the past was opened for writing")


def test_rows_move_from_the_file_to_a_lake_and_back_as_they_are(twins, lake, tmp_path):
    from rnn_pipeline.warehouse.migration import load, save

    file, _, _ = twins
    address = lake.address
    other = LakeAddress(
        *(address.catalog, f"{address.schema}_moved", f"{address.data_path}-moved"),
        address.endpoint,
    )
    back = Warehouse(tmp_path / "back.duckdb")
    saved = save(file, tmp_path / "out")
    assert saved["raw_ohlcv"] == sum(len(rows) for rows in HISTORY)
    assert load(Lake(other), tmp_path / "out") == saved
    with pytest.raises(WarehouseError, match="is not empty"):
        load(Lake(other), tmp_path / "out")
    assert save(Lake(other), tmp_path / "in") == saved
    assert load(back, tmp_path / "in") == saved
    assert (tmp_path / "in/manifest.json").read_text() == (
        tmp_path / "out/manifest.json"
    ).read_text()
    assert_frame_equal(back.rows("price_features"), file.rows("price_features"))


def left_by_another_program(lake, statements: str) -> Lake:
    """Change a lake as an older or newer program would have left it, seen by a new process."""
    with lake.connection() as connection:
        connection.execute(statements)
    return Lake(lake.address, lake.lock_timeout + 1)


@pytest.mark.parametrize(("found", "way"), [(99, "install the newer program"), (3, "upgrade`")])
def test_a_lake_of_another_version_is_left_alone(lake, found, way):
    lake = left_by_another_program(lake, f"UPDATE meta SET schema_version = {found}")
    with pytest.raises(WarehouseVersionError, match=f"has schema version {found}.*{way}"):
        lake.last_session()
    if found > SCHEMA_VERSION:
        with pytest.raises(WarehouseVersionError, match="install the newer program"):
            upgrade(lake)
    assert lake.schema_version() == found


def test_an_older_lake_is_upgraded_with_every_revision_and_its_past_stays(lake):
    features = revisions(HISTORY[0])[["ticker", "session"]].assign(rsi_14=1.0)
    with lake.batch() as batch:
        for rows in HISTORY:
            batch.append("raw_ohlcv", revisions(rows))
        batch.append("price_features", features)
    before = lake.rows("raw_ohlcv")
    older = left_by_another_program(
        lake,
        "DROP VIEW decisions_v1; ALTER TABLE trading_decisions DROP COLUMN policy;"
        " ALTER TABLE raw_ohlcv DROP COLUMN provenance;"
        " ALTER TABLE raw_ohlcv ADD COLUMN gone INTEGER; DROP TABLE made_from;"
        " UPDATE meta SET schema_version = 3",
    )
    last = int(lake.snapshots()["snapshot_id"].max())
    assert upgrade(older)["raw_ohlcv"] == sum(len(rows) for rows in HISTORY)
    assert upgrade(older) == {}
    assert_frame_equal(
        older.rows("raw_ohlcv").drop(columns="provenance"), before.drop(columns="provenance")
    )
    assert older.rows("price_features").empty
    assert older.rows("decisions_v1").empty
    assert older.rows("made_from").empty
    with pytest.raises(WarehouseVersionError, match="has schema version 3"):
        older.at(last).last_session()


def test_no_message_shows_the_catalogs_password(catalog_server, object_store):
    port = catalog_server.port
    for catalog in (
        f"host=127.0.0.1 port={port} user=nobody_here password={MARKED} dbname=lake",
        f"postgresql://postgres:{MARKED}@127.0.0.1:1/lake",
        f"host=127.0.0.1 password '{MARKED}'",
    ):
        address = LakeAddress(SecretStr(catalog), "secret", "s3://bucket/secret", object_store)
        assert MARKED not in repr(address)
        with pytest.raises(WarehouseError, match="cannot use warehouse") as caught:
            Lake(address).last_session()
        shown = caught.getrepr(showlocals=False, chain=True)
        assert MARKED not in str(caught.value)
        assert MARKED not in str(shown)
        assert caught.value.__suppress_context__


def test_a_server_that_went_away_is_one_line_and_used_again_when_it_is_back(
    lake, catalog_server, object_store
):
    catalog = SecretStr(f"{catalog_server.address('lake')} password={MARKED}")
    known = Lake(LakeAddress(catalog, lake.address.schema, lake.address.data_path, object_store))
    assert known.last_session() is None
    catalog_server.stop()
    try:
        for use in (known.last_session, known.batch().__enter__):
            with pytest.raises(WarehouseError, match="Connection refused") as caught:
                use()
            assert MARKED not in str(caught.getrepr(chain=True))
    finally:
        catalog_server.start()
    with known.batch() as batch:
        batch.append("raw_fetch", pd.DataFrame({"fetch_id": ["1"]}))
    assert known.rows("raw_fetch")["fetch_id"].tolist() == ["1"]


def test_readers_and_writers_have_roles_of_their_own(lake, catalog_server):
    name = lake.address.schema
    roles = Path(__file__).parents[2] / "deploy/postgres/roles.sql"
    catalog_server.database(f"{name}_roles")
    catalog_server.execute(
        "CREATE ROLE rnn_writer LOGIN; CREATE ROLE rnn_reader LOGIN;" + roles.read_text(),
        f"{name}_roles",
    )

    def as_role(role: str) -> Lake:
        catalog = catalog_server.address(f"{name}_roles", role)
        path = f"s3://bucket/{name}_roles"
        return Lake(LakeAddress(SecretStr(catalog), "sample", path, lake.address.endpoint), 5)

    with as_role("rnn_writer").batch() as batch:
        batch.append("raw_fetch", pd.DataFrame({"fetch_id": ["1"]}))
    reader = as_role("rnn_reader")
    assert reader.rows("raw_fetch")["fetch_id"].tolist() == ["1"]
    with pytest.raises(Exception, match="permission denied"), reader.batch() as batch:
        batch.append("raw_fetch", pd.DataFrame({"fetch_id": ["2"]}))
    assert reader.rows("raw_fetch")["fetch_id"].tolist() == ["1"]


def test_the_settings_choose_the_engine(lake, monkeypatch, tmp_path):
    chosen = {"engine": "ducklake", "data_path": lake.address.data_path}
    settings = load_settings(
        data_dir=tmp_path, warehouse={**chosen, "endpoint": lake.address.endpoint}
    )
    with pytest.raises(WarehouseError, match="set RNN_PIPELINE_LAKE_CATALOG"):
        open_warehouse(settings)
    catalog = lake.address.catalog.get_secret_value()
    monkeypatch.setenv("RNN_PIPELINE_LAKE_CATALOG", catalog)
    store = open_warehouse(load_settings(data_dir=tmp_path, warehouse=settings.warehouse))
    assert store.last_session() is None
    assert str(store) == f"sample at {lake.address.data_path}/sample"
    assert not any(tmp_path.iterdir())


#: When and by which run a row was made, and what holds that: files name the moment they were
#: written at, and ``made_from`` digests their hashes.
MADE = {
    "run_id",
    *("created_at", "changed_at", "checked_at", "committed_at", "fetched_at", "tried_at"),
    *("written_at", "checkpoint_hash", "inputs"),
}


def test_the_demo_makes_the_same_tables_on_a_lake_as_in_a_file(
    demo, catalog_server, object_store, tmp_path, monkeypatch
):
    """Value for value, in every table: what was taken in, forecast, judged and decided."""
    assert demo.exit_code == 0, demo.output
    file = open_warehouse(load_settings())
    catalog = f"{catalog_server.database('demo')} password={MARKED}"
    monkeypatch.setenv("RNN_PIPELINE_LAKE_CATALOG", catalog)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"id-{MARKED}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"key-{MARKED}")
    monkeypatch.setenv("RNN_PIPELINE_WAREHOUSE__ENGINE", "ducklake")
    monkeypatch.setenv("RNN_PIPELINE_WAREHOUSE__DATA_PATH", "s3://bucket/demo")
    monkeypatch.setenv("RNN_PIPELINE_WAREHOUSE__ENDPOINT", object_store)
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path))
    command = "from rnn_pipeline.cli import main; main()"
    again = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command, "demo"], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(path.suffix == ".duckdb" for path in files)
    assert not any(MARKED.encode() in path.read_bytes() for path in files)
    assert MARKED not in again.stdout + again.stderr
    store = open_warehouse(load_settings())
    made = {}
    for table in TABLES:
        # An order is known from the moment on that it was written down.
        dropped = list(MADE | ({"known_at"} if table == "paper_orders" else set()))
        one, other = (
            each.rows(table).drop(columns=dropped, errors="ignore") for each in (file, store)
        )
        assert_frame_equal(other, one, check_exact=True, obj=table)
        made[table] = len(one)
    assert min(made[name] for name in ("forecasts", "evidence", "trading_decisions")) > 0
    assert sum(made.values()) > 30_000
