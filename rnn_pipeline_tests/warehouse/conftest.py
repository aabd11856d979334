"""The engines of the warehouse; the lake's servers are started once, where they are installed."""

import itertools
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from rnn_pipeline.warehouse import Warehouse
from rnn_pipeline_tests.warehouse import servers

_NUMBERS = itertools.count()


def missing() -> str | None:
    """What the lake needs and is not installed here."""
    found = find_spec("duckdb_extension_ducklake")
    extensions = Path(found.origin).parent / f"extensions/v{duckdb.__version__}" if found else None
    if extensions is None or not extensions.exists():
        return f"no ducklake extension for DuckDB {duckdb.__version__} (make lake has one)"
    if servers.postgres_programs() is None:
        return "no PostgreSQL server"
    return None if find_spec("moto") else "no moto"


@pytest.fixture(scope="session")
def catalog_server():
    if reason := missing():
        pytest.skip(reason)
    with servers.postgres() as server:
        server.database("lake")
        yield server


@pytest.fixture(scope="session")
def object_store(catalog_server):
    with servers.object_store() as address:
        yield address


@pytest.fixture
def lake(catalog_server, object_store):
    """An empty lake of its own in the shared servers."""
    from rnn_pipeline.warehouse.lake import Lake, LakeAddress

    name = f"test_{next(_NUMBERS)}"
    address = SecretStr(catalog_server.address("lake"))
    return Lake(LakeAddress(address, name, f"s3://bucket/{name}", object_store), 30)


@pytest.fixture(params=["file", pytest.param("ducklake", marks=pytest.mark.lake)])
def either(request, tmp_path):
    """A warehouse of each engine."""
    if request.param == "ducklake":
        return request.getfixturevalue("lake")
    return Warehouse(tmp_path / "warehouse.duckdb", lock_timeout=0.3)
