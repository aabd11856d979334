"""The raw tables made anew from the journal and its payloads alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rnn_pipeline.market.commit import replay
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.sources import BarSource, NewsSource
from rnn_pipeline.warehouse import PayloadStore, Warehouse

#: What :func:`rebuild` makes; every other table but :data:`RECORDS` is made from these by
#: materializing its asset.
RAW_TABLES = (
    "raw_fetch",
    "raw_ohlcv",
    "raw_news",
    "corporate_actions",
    "quarantine",
    "ticker_status",
    "missing_sessions",
    "ingest_ledger",
)

#: What was decided and tried at the time, and nothing can make again: taken over as it is.
RECORDS = ("trials", "tuning_trials", "models", "paper_orders")


def rebuild(
    warehouse: Warehouse,
    payloads: PayloadStore,
    sources: Sequence[BarSource | NewsSource | FileSource],
    progress: Callable[[str], None] = lambda _: None,
) -> int:
    """Replace the warehouse by one that is played from the journal; the old file is kept beside.

    Returns:
        How many batches were played.

    Raises:
        IngestError: an entry's source is not among ``sources``.
        FileNotFoundError: a payload is gone.
        ValueError: a payload or an entry is damaged.
    """
    fresh = Warehouse(warehouse.path.with_name(f"{warehouse.path.name}.rebuilt"))
    for leftover in (fresh.path, fresh.wal_path):
        leftover.unlink(missing_ok=True)
    played = replay(fresh, payloads, sources, progress)
    fresh.last_session()  # an empty journal makes an empty warehouse
    _take_over_records(warehouse, fresh, progress)
    old = Warehouse(warehouse.path.with_name(f"{warehouse.path.name}.before-rebuild"))
    for source, target in (
        (warehouse.path, old.path),
        (warehouse.wal_path, old.wal_path),
        (fresh.path, warehouse.path),
    ):
        if source.exists():
            source.replace(target)
    return played


def _take_over_records(old: Warehouse, fresh: Warehouse, progress: Callable[[str], None]) -> None:
    if not old.path.exists():
        return
    found = old.salvage(RECORDS)
    with fresh.batch() as batch:
        for table, rows in found.items():
            batch.append(table, rows)
    if lost := [table for table in RECORDS if table not in found]:
        progress(f"{', '.join(lost)} could not be read from {old.path}: begun anew")
