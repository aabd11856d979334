"""What was known, and when: one DuckDB file, and the raw answers it can be rebuilt from.

:class:`~rnn_pipeline.warehouse.store.Warehouse` opens the file (one writer at a time, with a
jittered wait), creates its schema, runs a batch in one transaction, and reads bars and headlines
as they were known at any moment. :class:`~rnn_pipeline.warehouse.lake.Lake` does the same for many
hosts; :func:`~rnn_pipeline.warehouse.engines.open_warehouse` gives the one that is set.
:class:`~rnn_pipeline.warehouse.payloads.PayloadStore` keeps the bytes that the sources sent, and in
its :class:`~rnn_pipeline.warehouse.journal.Journal` what was asked in which order. No other
wing writes SQL tables.
"""

from rnn_pipeline.warehouse.engines import open_warehouse
from rnn_pipeline.warehouse.journal import Entry, Fetch, Journal
from rnn_pipeline.warehouse.payloads import PayloadStore
from rnn_pipeline.warehouse.store import (
    Batch,
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseVersionError,
)

__all__ = [
    "Batch",
    "Entry",
    "Fetch",
    "Journal",
    "PayloadStore",
    "Warehouse",
    "WarehouseError",
    "WarehouseLocked",
    "WarehouseVersionError",
    "open_warehouse",
]
