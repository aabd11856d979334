"""The warehouse that the settings choose."""

from __future__ import annotations

import os
import re

from rnn_pipeline.settings import PREFIX, Settings
from rnn_pipeline.warehouse.store import Warehouse, WarehouseError

_CATALOG = f"{PREFIX}LAKE_CATALOG"


def open_warehouse(settings: Settings, lock_timeout: float | None = None) -> Warehouse:
    """The warehouse of these settings; nothing is opened before it is read or written.

    Args:
        settings: ``warehouse`` says which engine, ``source`` whose data.
        lock_timeout: seconds to wait for whoever writes; None: what suits the engine.

    Raises:
        WarehouseError: engine ducklake is set and the address of its catalog is not.
    """
    patience = {} if lock_timeout is None else {"lock_timeout": lock_timeout}
    chosen = settings.warehouse
    if chosen.engine == "file":
        return Warehouse(settings.warehouse_path, **patience)
    if not (catalog := os.environ.get(_CATALOG)):
        raise WarehouseError(
            f"engine ducklake needs the address of its catalog: set {_CATALOG}, for example to"
            " postgresql://user:password@host/database"
        )
    from pydantic import SecretStr

    from rnn_pipeline.warehouse.lake import Lake, LakeAddress

    folder = f"{chosen.data_path.rstrip('/')}/{settings.source.replace(':', '.')}"
    schema = re.sub(r"\W", "_", settings.source).lower()
    return Lake(LakeAddress(SecretStr(catalog), schema, folder, chosen.endpoint), **patience)
