"""A warehouse saved as Parquet files and loaded into another, of either engine, and verified.

The way from a file to a lake and back leads over a folder, because one process has one DuckDB: the
version that the lake's extension is made for need not read the file that another version wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rnn_pipeline.warehouse.files import write_atomically
from rnn_pipeline.warehouse.schema import SCHEMA_VERSION, TABLES
from rnn_pipeline.warehouse.store import Batch, Warehouse, WarehouseError

_MANIFEST = "manifest.json"


def save(warehouse: Warehouse, folder: Path) -> dict[str, int]:
    """Write every table as a Parquet file, and beside them how many rows of which hash it has.

    Returns:
        The rows of each table.

    Raises:
        WarehouseError: the folder is not empty, or the warehouse cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise WarehouseError(f"{folder} is not empty: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    with warehouse.connection() as connection:
        for table in TABLES.keys() - {"meta"}:
            file = str(folder / f"{table}.parquet").replace("'", "''")
            connection.execute(f"COPY {table} TO '{file}' (FORMAT parquet)")
            columns = sorted(
                column[0] for column in connection.execute(f"FROM {table} LIMIT 0").description
            )
            contents[table] = _content(Batch(connection), table, columns)
    manifest = {"schema_version": SCHEMA_VERSION, "tables": contents}
    write_atomically(folder / _MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return {table: content["rows"] for table, content in contents.items()}


def load(warehouse: Warehouse, folder: Path) -> dict[str, int]:
    """Fill an empty warehouse with what :func:`save` wrote, in one transaction.

    Returns:
        The rows of each table, of which number and hash are those that were saved.

    Raises:
        WarehouseError: the folder is not whole or of another schema version, the warehouse is not
            empty, or a table has other rows than it had; nothing is written then.
    """
    saved = _manifest(folder)
    with warehouse.batch() as batch:
        for table in saved:
            if not batch.read(f"SELECT 1 FROM {table} LIMIT 1").empty:
                raise WarehouseError(f"{table} in {warehouse} is not empty: choose another")
            batch.take_in(table, folder / f"{table}.parquet")
        for table, content in saved.items():
            found = _content(batch, table, content["columns"])
            if found != content:
                raise WarehouseError(
                    f"{table} came into {warehouse} with {found['rows']} rows of hash"
                    f" {found['hash']}, saved were {content['rows']} of hash {content['hash']}:"
                    f" nothing was written; save {folder} again"
                )
    return {table: content["rows"] for table, content in saved.items()}


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        version, tables = manifest["schema_version"], manifest["tables"]
    except (OSError, ValueError, KeyError):
        raise WarehouseError(f"{folder} is no saved warehouse: it has no {_MANIFEST}") from None
    if version != SCHEMA_VERSION or not tables.keys() <= TABLES.keys():
        raise WarehouseError(
            f"{folder} was saved with schema version {version}, this program has {SCHEMA_VERSION}:"
            " save it with this program"
        )
    return dict(tables)


def _content(batch: Batch, table: str, columns: list[str]) -> dict[str, Any]:
    """Rows, and a sum over their hashes, which does not depend on their order.

    Hashed is the text of the values: DuckDB's own ``hash`` may differ from version to version.
    """
    values = ", ".join(f'coalesce("{name}"::VARCHAR, chr(30))' for name in columns)
    found = batch.read(
        f"SELECT count(*) AS rows, coalesce(sum(md5_number_lower(concat_ws(chr(31), {values}))), 0)"
        f"::VARCHAR AS hash FROM {table}"
    )
    return {"columns": columns, "rows": found["rows"].item(), "hash": found["hash"].item()}
