"""Dagster's SQLite event log, with its connections kept open.

Dagster writes two events per partition and opens a new SQLAlchemy engine for each of its
transactions, so that SQL is compiled and the file opened and closed again every time: about 20 ms
per partition, measured. One pooled engine per file, and a commit that does not wait for the disk
to turn, bring that to about 4 ms on the same machine (``docs/ARCHITECTURE.md`` has the figures).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine


class PooledSqliteEventLogStorage(SqliteEventLogStorage):
    """:class:`SqliteEventLogStorage` that keeps one engine per database file.

    Select it in ``dagster.yaml`` under ``event_log_storage``, with ``base_dir`` as for the
    original; the files are the same and either class reads what the other wrote.
    """

    #: Every run has a file of its own, and a webserver lives long: only the newest stay open.
    OPEN_FILES = 8

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PooledSqliteEventLogStorage:
        """Build the storage from ``dagster.yaml``."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = create_engine(self.conn_string_for_shard(shard), connect_args={"timeout": 60})
            event.listen(engine, "connect", _do_not_wait_for_the_disk)
        self._engines[shard] = engine
        if len(self._engines) > self.OPEN_FILES:
            self._engines.pop(next(iter(self._engines))).dispose()
        return engine

    def dispose(self) -> None:
        """Close every file."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        super().dispose()


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    # In WAL mode this loses nothing when a process dies, and cannot corrupt the file: only a power
    # cut can take the last events, and a run cut off by one is repeated anyway.
    connection.execute("PRAGMA synchronous=NORMAL")
