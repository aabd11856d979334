"""A warehouse with many writers: DuckLake, its catalog in PostgreSQL, its rows as Parquet files.

Tables, revisions and reads are those of the file, because the SQL is the same. What a DuckDB file
gives and DuckLake does not is made up for here. A batch waits for its turn, an advisory lock of
PostgreSQL that ends with the connection which holds it: DuckLake knows no keys and would let two
transactions insert the same row. Within a turn, keys are checked by a query. Whoever reads has one
snapshot for the whole block, and waits for nobody.

Extensions come from the packages ``duckdb-extension-*`` where they match DuckDB's version, else
from where ``INSTALL`` has put them.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import duckdb
from pydantic import SecretStr

from rnn_pipeline.warehouse.schema import KEYS, SCHEMA_VERSION, TABLES, VIEWS, without_keys
from rnn_pipeline.warehouse.store import (
    Batch,
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseVersionError,
)

if TYPE_CHECKING:
    import pandas as pd

_EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class LakeAddress:
    """Where a lake lies.

    Attributes:
        catalog: PostgreSQL connection string or URI; never shown in a message.
        schema: of the catalog's tables in that database; each warehouse has its own.
        data_path: folder of the Parquet files, ``s3://bucket/folder`` or one that all hosts see.
        endpoint: of an S3-compatible store, ``http://host:port``; empty: Amazon's.
        snapshot: the warehouse as it was then; None: as it is.
    """

    catalog: SecretStr
    schema: str
    data_path: str
    endpoint: str = ""
    snapshot: int | None = None

    def __str__(self) -> str:
        return f"{self.schema} at {self.data_path}"


class Lake(Warehouse):
    """A warehouse on DuckLake.

    Args:
        address: where it lies; what is not there yet is created on first use.
        lock_timeout: seconds that a batch waits for its turn.
    """

    def __init__(self, address: LakeAddress, lock_timeout: float = 600.0) -> None:
        self.address = address
        self.lock_timeout = lock_timeout

    def __str__(self) -> str:
        return str(self.address)

    def at(self, snapshot: int) -> Lake:
        """The warehouse as it was at one of :meth:`snapshots`, for reading alone."""
        past = LakeAddress(**{**vars(self.address), "snapshot": snapshot})
        return Lake(past, self.lock_timeout)

    def snapshots(self) -> pd.DataFrame:
        """``snapshot_id`` and ``snapshot_time`` (UTC) of every commit that is kept, in order."""
        return self.read(
            "SELECT snapshot_id, snapshot_time FROM ducklake_snapshots(current_database())"
            " ORDER BY snapshot_id"
        )

    def exists(self) -> bool:
        """True: opening a lake creates it."""
        return True

    def size(self) -> int:
        """Bytes of the Parquet files that the newest snapshot is made of."""
        found = self.read(
            "SELECT coalesce(sum(file_size_bytes), 0)::BIGINT AS size"
            " FROM ducklake_table_info(current_database())"
        )
        return int(found["size"].item())

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, on one snapshot; committed at the end of the block.

        Raises:
            WarehouseVersionError: the lake has another schema version.
            WarehouseError: an extension is missing, or the catalog cannot be reached.
        """
        try:
            connection = self._open()
            try:
                connection.begin()
                yield connection
                connection.commit()
            finally:
                _end(connection)
        except duckdb.Error as error:
            if self.address.catalog.get_secret_value() in str(error):
                raise _unreachable(self.address, error) from None
            raise

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """One transaction in this writer's turn; other writers wait until it is committed.

        Raises:
            WarehouseLocked: the turn did not come within ``lock_timeout``.
            WarehouseError: as for :meth:`connection`; or this is a snapshot of the past.
        """
        if self.address.snapshot is not None:
            raise WarehouseError(
                f"warehouse {self} at snapshot {self.address.snapshot} is for reading alone"
            )
        with (
            _turn(self._attached(), self.lock_timeout) as still_held,
            self.connection() as connection,
        ):
            yield _KeyedBatch(connection)
            still_held()

    def schema_version(self) -> int | None:
        """The layout that the lake has.

        Raises:
            WarehouseError: as for :meth:`connection`.
        """
        return _stored_version(self._attached())

    def renew(self, tables: Collection[str]) -> dict[str, int]:
        """Give a lake of an older layout this program's, in one transaction.

        Rows of ``tables`` stay, value for value by the names of their columns: a column that is
        new is NULL, one that is gone is not taken along. All other tables are empty afterwards.
        The snapshot before keeps everything as it was, for the program that wrote it.

        Returns:
            The rows that stayed, of each of ``tables`` that the older layout has.

        Raises:
            WarehouseLocked: the turn did not come within ``lock_timeout``.
            WarehouseError: the catalog cannot be reached.
        """
        lake = self._attached()
        kept = {}
        with _turn(lake, self.lock_timeout) as still_held, closing(_cursor(lake)) as connection:
            connection.begin()
            for view in _names(connection, "VIEW"):
                connection.execute(f"DROP VIEW {view}")
            older = _names(connection, "BASE TABLE")
            for table in older:
                connection.execute(f"ALTER TABLE {table} RENAME TO older_{table}")
            _lay_out(connection)
            for table in older:
                if table in tables:
                    new = _columns(connection, table)
                    common = ", ".join(
                        f'"{name}"'
                        for name in _columns(connection, f"older_{table}")
                        if name in new
                    )
                    ((kept[table],),) = connection.execute(
                        f"INSERT INTO {table} BY NAME SELECT {common} FROM older_{table}"
                    ).fetchall()
                connection.execute(f"DROP TABLE older_{table}")
            still_held()
            connection.commit()
        return kept

    def _open(self) -> duckdb.DuckDBPyConnection:
        return _cursor(_checked(os.getpid(), self.address, self.lock_timeout))

    def _attached(self) -> _Attached:
        return _attached(os.getpid(), self.address, self.lock_timeout)


class _KeyedBatch(Batch):
    """A batch that keeps the primary keys which DuckLake does not know."""

    def append(self, table: str, frame: pd.DataFrame) -> int:
        count = super().append(table, frame)
        if count and table in KEYS:
            self._refuse_bad_keys(table, frame)
        return count

    def upsert(self, table: str, frame: pd.DataFrame) -> int:
        if frame.empty:
            return 0
        key = ", ".join(KEYS[table])
        self._with_keys(
            table, frame, f"DELETE FROM {table} WHERE ({key}) IN (SELECT ({key}) FROM incoming)"
        )
        return self.append(table, frame)

    def _refuse_bad_keys(self, table: str, frame: pd.DataFrame) -> None:
        key = ", ".join(KEYS[table])
        repeated = self._with_keys(
            table,
            frame,
            f"SELECT {key} FROM {table} SEMI JOIN incoming USING ({key})"
            f" GROUP BY {key} HAVING count(*) > 1 LIMIT 1",
        )
        if repeated:
            pairs = zip(KEYS[table], repeated[0], strict=True)
            shown = ", ".join(f"{name}: {value}" for name, value in pairs)
            raise duckdb.ConstraintException(f'duplicate key "{shown}" in {table}')

    def _with_keys(self, table: str, frame: pd.DataFrame, query: str) -> list[tuple[object, ...]]:
        keys = frame.reindex(columns=list(KEYS[table]))
        for column in keys.columns[keys.isna().any()]:
            raise duckdb.ConstraintException(f"NOT NULL constraint failed: {table}.{column}")
        self._connection.register("incoming", keys)
        rows = self._connection.execute(query).fetchall()
        self._connection.unregister("incoming")
        return rows


@contextmanager
def _turn(attached: _Attached, timeout: float) -> Iterator[Callable[[], None]]:
    """Hold the writers' lock; yields a check that it is held yet, for the end of a batch."""
    guard = attached.instance.cursor()
    address = attached.address

    def ask(query: str) -> None:
        attached.ask(guard, query)

    def still_held() -> None:
        try:
            ask("SELECT 1 AS held")
        except duckdb.Error as error:
            raise _unreachable(address, error) from None

    try:
        guard.begin()
        ask(f"SELECT set_config('lock_timeout', '{max(round(timeout * 1000), 1)}', true) AS wait")
        lock = _quoted(f"rnn_pipeline.{address.schema}")
        ask(f"SELECT 1 AS held FROM pg_advisory_xact_lock(hashtext({lock}))")
    except duckdb.Error as error:
        _end(guard)
        if "lock timeout" not in str(error):
            raise _unreachable(address, error) from None
        raise WarehouseLocked(
            f"another writer held warehouse {address} for longer than {timeout:g} s: wait for that"
            " run or stop it, then run again"
        ) from None
    try:
        yield still_held
    finally:
        _end(guard)


def _end(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection; what it did not commit is rolled back.

    By a statement of its own: where PostgreSQL is gone that statement fails, but if it is left to
    closing, DuckDB 1.5.5 ends the process.
    """
    with suppress(duckdb.Error):
        connection.rollback()
    connection.close()


@dataclass(frozen=True)
class _Attached:
    """A lake that is attached to this process's DuckDB, and beside it its PostgreSQL database."""

    instance: duckdb.DuckDBPyConnection
    address: LakeAddress
    name: str

    def ask(self, connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[object, ...]]:
        """Run a query in PostgreSQL itself."""
        found = connection.execute(f"FROM postgres_query('{self.name}_turn', {_quoted(query)})")
        return found.fetchall()


@lru_cache(maxsize=1)
def _engine(_process: int) -> duckdb.DuckDBPyConnection:
    """This process's DuckDB: loading the extensions takes seconds, and none survives a fork."""
    instance = duckdb.connect()
    for extension in _EXTENSIONS:
        _load(instance, extension)
    return instance


@cache
def _attached(process: int, address: LakeAddress, timeout: float) -> _Attached:
    """Attach a lake once in a process, and create its tables if it has none."""
    instance = _engine(process)
    lake = _Attached(instance, address, f"lake_{next(_NUMBERS)}")
    if address.data_path.startswith("s3://"):
        _log_in(lake)
    try:
        catalog = _quoted(address.catalog.get_secret_value())
        instance.execute(f"ATTACH {catalog} AS {lake.name}_turn (TYPE postgres, READ_ONLY)")
        if address.snapshot is not None or _is_whole(lake):
            _attach(lake)
        else:
            with _turn(lake, timeout):
                _attach(lake)
                _create_tables(lake)
    except duckdb.Error as error:
        raise _unreachable(address, error) from None
    return lake


@cache
def _checked(process: int, address: LakeAddress, timeout: float) -> _Attached:
    """A lake of this program's layout."""
    lake = _attached(process, address, timeout)
    if (found := _stored_version(lake)) != SCHEMA_VERSION:
        raise WarehouseVersionError(address, found)
    return lake


def _stored_version(lake: _Attached) -> int | None:
    try:
        row = lake.instance.execute(f"SELECT schema_version FROM {lake.name}.meta").fetchone()
    except duckdb.Error as error:
        raise _unreachable(lake.address, error) from None
    return row[0] if row else None


def _cursor(lake: _Attached) -> duckdb.DuckDBPyConnection:
    connection = lake.instance.cursor()
    connection.execute(f"USE {lake.name}; SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def _names(connection: duckdb.DuckDBPyConnection, kind: str) -> list[str]:
    """Of the lake's tables (``kind`` BASE TABLE) or views (VIEW)."""
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_catalog = current_database() AND table_type = ? ORDER BY 1",
        [kind],
    )
    return [name for (name,) in found.fetchall()]


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    return [column[0] for column in connection.execute(f"FROM {table} LIMIT 0").description]


def _is_whole(lake: _Attached) -> bool:
    """Whether the tables are there; the catalog itself is there a moment before them."""
    names = f"{lake.address.schema}.ducklake_table"
    for query in (
        f"SELECT to_regclass('{names}') IS NOT NULL AS there",
        f"SELECT EXISTS (SELECT FROM {names} WHERE table_name = 'meta') AS there",
    ):
        if not lake.ask(lake.instance, query)[0][0]:
            return False
    return True


def _attach(lake: _Attached) -> None:
    address = lake.address
    options = [
        f"DATA_PATH {_quoted(address.data_path)}",
        f"METADATA_SCHEMA {_quoted(address.schema)}",
    ]
    if address.snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {address.snapshot}")
    catalog = _quoted(f"ducklake:postgres:{address.catalog.get_secret_value()}")
    lake.instance.execute(f"ATTACH {catalog} AS {lake.name} ({', '.join(options)})")


def _create_tables(lake: _Attached) -> None:
    """Create what is not there: the process whose turn was before may have done it."""
    with closing(_cursor(lake)) as connection:
        if connection.execute("SHOW TABLES").fetchall():
            return
        connection.begin()
        _lay_out(connection)
        connection.commit()


def _lay_out(connection: duckdb.DuckDBPyConnection) -> None:
    for table, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({without_keys(columns)})")
    for view, query in VIEWS.items():
        connection.execute(f"CREATE VIEW {view} AS {query}")
    connection.execute("INSERT INTO meta VALUES (?, now())", [SCHEMA_VERSION])


def _load(instance: duckdb.DuckDBPyConnection, extension: str) -> None:
    found = find_spec(f"duckdb_extension_{extension}")
    file = f"extensions/v{duckdb.__version__}/{extension}.duckdb_extension"
    packaged = Path(found.origin).parent / file if found and found.origin else None
    try:
        if packaged is not None and packaged.exists():
            instance.execute(f"LOAD {_quoted(str(packaged))}")
        else:
            instance.execute(f"LOAD {extension}")
    except duckdb.Error:
        raise WarehouseError(
            f"DuckDB {duckdb.__version__} has no extension {extension}, which engine ducklake"
            " needs: install rnn-pipeline[lake], whose packages bring it, or run"
            f" `INSTALL {extension}` in DuckDB where the internet can be reached"
        ) from None


def _log_in(lake: _Attached) -> None:
    """Hand DuckDB the object store's keys, under the names that Amazon's tools read them by."""
    names = {
        "KEY_ID": "AWS_ACCESS_KEY_ID",
        "SECRET": "AWS_SECRET_ACCESS_KEY",
        "SESSION_TOKEN": "AWS_SESSION_TOKEN",
        "REGION": "AWS_REGION",
    }
    given = {option: os.environ[name] for option, name in names.items() if os.environ.get(name)}
    if not {"KEY_ID", "SECRET"} <= given.keys():
        raise WarehouseError(
            "engine ducklake needs the object store's keys: set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    options = [f"{option} {_quoted(value)}" for option, value in given.items()]
    if lake.address.endpoint:
        url = urlsplit(lake.address.endpoint)
        options += [
            f"ENDPOINT {_quoted(url.netloc)}",
            f"USE_SSL {'true' if url.scheme == 'https' else 'false'}",
            "URL_STYLE 'path'",
        ]
    lake.instance.execute(
        f"CREATE SECRET {lake.name} (TYPE s3, SCOPE {_quoted(lake.address.data_path)},"
        f" {', '.join(options)})"
    )


def _unreachable(address: LakeAddress, error: duckdb.Error) -> WarehouseError:
    """Without DuckDB's own words, which repeat the catalog's address and the password in it."""
    reason = re.search(r"connection to server at [^\n]*|permission denied[^\n]*", str(error))
    return WarehouseError(
        f"cannot use warehouse {address}:"
        f" {reason[0] if reason else f'{type(error).__name__} of its catalog'}; see that PostgreSQL"
        " runs and RNN_PIPELINE_LAKE_CATALOG holds its address"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
