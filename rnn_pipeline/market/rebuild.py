"""The warehouse anew: from the journal and its payloads alone, or from one of an older layout.

Neither loses a revision. What the derived tables hold follows from the raw ones and is made by
materializing their assets, so they are not carried from one layout to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rnn_pipeline.market.commit import IngestError, replay
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.sources import BarSource, NewsSource
from rnn_pipeline.warehouse import PayloadStore, Warehouse, WarehouseError, WarehouseVersionError
from rnn_pipeline.warehouse.schema import SCHEMA_VERSION

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

#: Of these a rebuilt file must hold every revision that the old one held.
_REVISIONS = {
    "raw_ohlcv": ["ticker", "session", "revision"],
    "raw_news": ["news_id", "ticker", "revision"],
}

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
        IngestError: an entry's source is not among ``sources``, or the journal does not make every
            revision that the old file holds.
        WarehouseVersionError: the old file was written by a newer program.
        FileNotFoundError: a payload is gone.
        ValueError: a payload or an entry is damaged.
    """
    _refuse_newer(warehouse)
    fresh = _beside(warehouse, "rebuilt")
    played = replay(fresh, payloads, sources, progress)
    fresh.last_session()  # an empty journal makes an empty warehouse
    if warehouse.path.exists():
        _refuse_loss(warehouse, fresh, payloads)
        _take_over_records(warehouse, fresh, progress)
    _put_in_place(fresh, warehouse, "before-rebuild")
    return played


def upgrade(warehouse: Warehouse) -> dict[str, int]:
    """Give a warehouse of an older layout this program's; the old state can still be had.

    Raw tables and records are taken over value for value, so every row keeps its revision and the
    moment from which it was known; payloads are not needed. Of a file, the old one is kept beside
    the new one; of a lake, the snapshot before is the old state.

    Returns:
        The rows taken over of each table; empty if the layout is this program's already.

    Raises:
        WarehouseVersionError: it is no warehouse, or was written by a newer program.
        WarehouseError: there is none, or it cannot be opened.
    """
    if not warehouse.exists():
        raise WarehouseError(f"there is no warehouse at {warehouse}: nothing to upgrade")
    found = warehouse.schema_version()
    if found == SCHEMA_VERSION:
        return {}
    if found is None or found > SCHEMA_VERSION:
        raise WarehouseVersionError(warehouse, found)
    from rnn_pipeline.warehouse.lake import Lake

    kept = (*RAW_TABLES, *RECORDS)
    if isinstance(warehouse, Lake):
        return warehouse.renew(kept)
    fresh = _beside(warehouse, "upgraded")
    copied = fresh.carry_over(warehouse.path, kept)
    _put_in_place(fresh, warehouse, f"version-{found}")
    return copied


def _beside(warehouse: Warehouse, name: str) -> Warehouse:
    fresh = Warehouse(warehouse.path.with_name(f"{warehouse.path.name}.{name}"))
    for leftover in (fresh.path, fresh.wal_path):
        leftover.unlink(missing_ok=True)
    return fresh


def _put_in_place(fresh: Warehouse, warehouse: Warehouse, kept_as: str) -> None:
    old = Warehouse(warehouse.path.with_name(f"{warehouse.path.name}.{kept_as}"))
    for source, target in (
        (warehouse.path, old.path),
        (warehouse.wal_path, old.wal_path),
        (fresh.path, warehouse.path),
        (fresh.wal_path, warehouse.wal_path),
    ):
        if source.exists():
            source.replace(target)


def _refuse_newer(warehouse: Warehouse) -> None:
    try:
        found = warehouse.schema_version()
    except WarehouseError:  # a damaged file is what rebuilding is for
        return
    if found is not None and found > SCHEMA_VERSION:
        raise WarehouseVersionError(warehouse.path, found)


def _refuse_loss(old: Warehouse, fresh: Warehouse, payloads: PayloadStore) -> None:
    for table, held in old.salvage(_REVISIONS).items():
        key = _REVISIONS[table]
        made = fresh.rows(table, ", ".join(key))
        both = held[key].merge(made, on=key, how="left", indicator="made")
        lost = both.loc[both["made"] == "left_only", key]
        if len(lost):
            first = " ".join(str(value) for value in lost.iloc[0])
            raise IngestError(
                f"{len(lost)} rows of {table} in {old.path} are not in the journal"
                f" {payloads.journal.folder} (the first: {first}), so nothing was replaced: put"
                " the missing journal entries and payloads back, or move the old file away"
            )


def _take_over_records(old: Warehouse, fresh: Warehouse, progress: Callable[[str], None]) -> None:
    found = old.salvage(RECORDS)
    with fresh.batch() as batch:
        for table, rows in found.items():
            batch.append(table, rows)
    if lost := [table for table in RECORDS if table not in found]:
        progress(f"{', '.join(lost)} could not be read from {old.path}: begun anew")
