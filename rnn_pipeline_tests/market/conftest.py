"""The stand-in for Yahoo, running."""

import threading
from collections.abc import Iterator

import pytest

from .yahoo_stand_in import ToLoopback, Yahoo


@pytest.fixture
def yahoo() -> Iterator[Yahoo]:
    with Yahoo() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("yfinance")


@pytest.fixture
def session(yahoo) -> Iterator[ToLoopback]:
    with ToLoopback() as session:
        session.port = yahoo.server_address[1]
        yield session
