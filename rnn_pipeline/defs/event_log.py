"""Dagster's SQLite event log, with its connections kept open.

Dagster writes two events per partition and opens a new SQLAlchemy engine for each of its
transactions, so that SQL is compiled and the file opened and closed again every time: about 20 ms
per partition, measured. One pooled engine per file, and a commit that does not wait for the disk
to turn, bring that to about 4 ms on the same machine (``docs/ARCHITECTURE.md`` has the figures).
Events of the same step that differ by their partition alone are written in one transaction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine

#: Events of one step and kind that are written at once.
BATCH = 1000

_OF_PARTITIONS = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}


class PooledSqliteEventLogStorage(SqliteEventLogStorage):
    """:class:`SqliteEventLogStorage` that keeps one engine per database file.

    Select it in ``dagster.yaml`` under ``event_log_storage``, with ``base_dir`` as for the
    original; the files are the same and either class reads what the other wrote.
    """

    #: Every run has a file of its own, and a webserver lives long: only the newest stay open.
    OPEN_FILES = 8

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        # Dagster hands events over in batches only where this is set.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH))
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

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run: materializations, or plans of some, in one transaction.

        The file of the run and the index over all runs get the same rows as from one event after
        the other; what an asset says of its newest event is written once.
        """
        # Dagster hands them over in the order of a set. The asset's page calls the last one the
        # latest: let it be the newest partition.
        events = sorted(events, key=_partition)
        runs = {event.run_id for event in events}
        alike = all(event.dagster_event_type in _OF_PARTITIONS for event in events)
        if len(runs) != 1 or not alike:
            super().store_event_batch(events)
            return
        insert = SqlEventLogStorageTable.insert()
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(runs.pop()) as connection:
            connection.execute(insert, rows)
        numbered = insert.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        with self.index_transaction() as connection:
            ids = list(connection.execute(numbered, rows).scalars())
            self._store_asset_event_tags(connection, events, ids)
            newest = {row["asset_key"]: place for place, row in enumerate(rows)}
            for place in newest.values():
                self._store_asset_event(connection, events[place], ids[place])

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


def _partition(entry: EventLogEntry) -> str:
    event = entry.dagster_event
    return (event.partition if event is not None else None) or ""


def last_written(keys: Sequence[str]) -> str:
    """The partition whose materialization is stored last, of keys in the order of their events."""
    return max(keys[(len(keys) - 1) // BATCH * BATCH :])


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    # In WAL mode this loses nothing when a process dies, and cannot corrupt the file: only a power
    # cut can take the last events, and a run cut off by one is repeated anyway.
    connection.execute("PRAGMA synchronous=NORMAL")
