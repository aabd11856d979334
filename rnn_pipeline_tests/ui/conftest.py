"""Dagster's web server and daemon on a copy of the demo, and a browser to look at it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WAIT = 120_000
"""Milliseconds for a page to say something, on a machine that is busy."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser(request):
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    # Playwright's event loop runs in this thread; the demo begins and ends some of its own.
    request.getfixturevalue("demo")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def page(browser):
    """The smallest screen that is still common."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(WAIT)
    return opened


@pytest.fixture(scope="session")
def ui(browser, demo, tmp_path_factory):
    """The address of ``rnn-pipeline ui`` on a copy of the demo that lacks its newest decisions."""
    assert demo.exit_code == 0
    home = load_settings().home
    folder = tmp_path_factory.mktemp("ui")
    shutil.copytree(home, folder / home.name)
    (folder / home.name / "dagster" / "dagster.yaml").unlink()  # it names the folder
    store = Warehouse(folder / home.name / "warehouse.duckdb")
    with store.connection() as connection:
        connection.execute("DELETE FROM trading_decisions WHERE session > DATE '2013-02-01'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"RNN_PIPELINE_DATA_DIR": str(folder)}
    environment.pop("DAGSTER_HOME", None)
    start = "import sys; from rnn_pipeline.cli import main; main(sys.argv[1:])"
    with (folder / "ui.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", start, "ui", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/server_info", server)
        yield address
    finally:
        stop(server)


def wait_for(address, server):
    until = time.monotonic() + WAIT / 1000
    while time.monotonic() < until:
        assert server.poll() is None, "rnn-pipeline ui has ended"
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")


def stop(server):
    """End the server with its daemon, its code location and their runs."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            return
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.5)  # what it started ends a moment after it
