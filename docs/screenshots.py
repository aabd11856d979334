"""Make the pictures of the README and the documentation from a demo that has run.

    rnn-pipeline demo
    rnn-pipeline ui --port 3000          # in another terminal
    pip install playwright
    python docs/screenshots.py

Needs Chromium (``--chromium`` says where). It launches one backfill of features over a year, which
changes no row. A failing check and a sensor tick come from a second UI that it starts itself, on a
drop folder in which one bar breaks a rule. Look at the pictures before they are committed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Error, Page, ViewportSize, sync_playwright

from rnn_pipeline import load_settings

IMAGES = Path(__file__).with_name("images")
LARGEST = 200_000  # bytes
WAIT = 60_000  # milliseconds
SIZE: ViewportSize = {"width": 1280, "height": 800}

_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def keep(picture: bytes, name: str, width: int | None = None) -> None:
    """Write a picture with as many colours as may be for it to be small."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if width is not None:
        image = image.resize((width, round(image.height * width / image.width)))
    for colours in (256, 128, 64, 32):
        content = io.BytesIO()
        image.quantize(colours).save(content, "PNG", optimize=True)
        if content.tell() <= LARGEST:
            break
    (IMAGES / f"{name}.png").write_bytes(content.getvalue())
    print(f"{name}.png {content.tell() / 1000:.0f} kB")


def settled(page: Page, address: str, text: str) -> None:
    """Open an address and wait until it shows a text and stops moving."""
    page.goto(address)
    page.get_by_text(text, exact=True).first.wait_for()
    page.wait_for_timeout(3_000)


def asset_graph(page: Page, ui: str) -> None:
    """The whole graph, with its groups opened."""
    groups = ("market", "features", "networks", "evidence", "trading")
    opened = ",".join(f"global@global:{group}" for group in groups)
    # Large, so that Dagster shows all of it, and then made smaller.
    page.set_viewport_size({"width": 3200, "height": 2200})
    settled(page, f"{ui}/asset-groups?{urlencode({'expanded': opened})}", "raw_ohlcv")
    keep(page.screenshot(), "asset-graph", width=1600)
    page.set_viewport_size(SIZE)


def asset_page(page: Page, ui: str) -> None:
    """An asset with its figures, and a plot, which Dagster shows on request."""
    page.set_viewport_size({"width": 1500, "height": 800})  # things overlap in a narrower one
    settled(page, f"{ui}/assets/price_features", "Metadata")
    keep(page.screenshot(), "asset-page")
    settled(page, f"{ui}/assets/trading_signals", "Metadata")
    page.get_by_text("[Show Markdown]").first.click()
    page.wait_for_timeout(3_000)
    keep(page.screenshot(), "asset-plot")
    page.set_viewport_size(SIZE)


def checks(page: Page, ui: str) -> None:
    """The checks beside an asset, and what the latest said."""
    check = urlencode({"view": "checks", "checkDetail": "raw_ohlcv_holds"})
    settled(page, f"{ui}/assets/raw_ohlcv?{check}", "Evaluation result")
    keep(page.screenshot(), "checks")


def backfill(page: Page, ui: str) -> None:
    """A year of three tickers, while it runs."""
    tickers, months = ("AAPL", "IBM", "MSFT"), [f"2012-{month:02}-01" for month in range(1, 13)]
    params = {
        "assetSelection": [{"path": [name]} for name in ("price_features", "news_sentiment")],
        "partitionNames": [f"{month}|{ticker}" for month in months for ticker in tickers],
    }
    body = json.dumps({"query": _BACKFILL, "variables": {"params": params}}).encode()
    request = urllib.request.Request(
        f"{ui}/graphql", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)["data"]["launchPartitionBackfill"]
    if "backfillId" not in answer:
        raise SystemExit(f"the backfill was not launched: {answer}")
    settled(page, f"{ui}/runs/b/{answer['backfillId']}", "price_features")
    for _ in range(600):
        done = set(page.get_by_text("% completed").all_inner_texts())
        if done - {"0% completed"}:
            break
        page.wait_for_timeout(1_000)
    keep(page.screenshot(), "backfill")


@contextmanager
def drop_folder(port: int = 3017) -> Iterator[str]:
    """The address of a UI whose sensor finds a file in which one bar's high is below its low."""
    rows = [f"2024-01-{day:02},10.0,10.5,9.5,10.2,10.2,1000" for day in range(2, 6)]
    rows[2] = rows[2].replace("10.5", "1.5")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "drop", "ACME.csv")
        file.parent.mkdir()
        file.write_text("\n".join(["date,open,high,low,close,adj_close,volume", *rows, ""]))
        os.utime(file, (0, 0))  # a file of the last two seconds may still be growing
        settings = {
            "SOURCE": "files",
            "DROP_DIR": str(file.parent),
            "DATA_DIR": str(Path(folder, "data")),
            "TICKERS": "ACME",
            "START": "2024-01-02",
        }
        started = subprocess.Popen(
            [Path(sys.executable).with_name("rnn-pipeline"), "ui", "--port", str(port)],
            env=os.environ | {f"RNN_PIPELINE_{name}": text for name, text in settings.items()},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            started.wait()


def reached(page: Page, address: str, text: str) -> None:
    """Open an address again and again until it shows a text, for ten minutes at most."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            page.goto(address)
            page.get_by_text(text, exact=True).first.wait_for(timeout=20_000)
        except Error:
            page.wait_for_timeout(2_000)
        else:
            page.wait_for_timeout(3_000)
            return
    raise SystemExit(f"{address} never showed {text!r}")


def sensor_and_failing_check(page: Page) -> None:
    """The tick that found a file, and the check that the run it asked for did not pass."""
    with drop_folder() as ui:
        reached(page, f"{ui}/locations/rnn_pipeline/sensors/drop_folder", "1 run requested")
        keep(page.screenshot(), "sensor-tick")
        check = urlencode({"view": "checks", "checkDetail": "raw_ohlcv_complete"})
        reached(page, f"{ui}/assets/raw_ohlcv?{check}", "Failed")
        keep(page.screenshot(), "failing-check")


def report(browser: Browser) -> None:
    """The report's first screen, as light and as dark readers have it."""
    path = load_settings().report_dir / "walk_forward_report.html"
    for scheme in ("light", "dark"):
        page = browser.new_page(
            viewport={"width": 1200, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        page.goto(path.as_uri())
        keep(page.screenshot(), f"report-{scheme}")
        page.close()


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ui", default="http://127.0.0.1:3000", help="address of Dagster's UI")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="path of the browser")
    parser.add_argument("--only", help="the name of one of the functions")
    asked = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(WAIT)
        for take in (asset_graph, asset_page, checks, backfill):
            if asked.only in (None, take.__name__):
                take(page, asked.ui)
        if asked.only in (None, "sensor_and_failing_check"):
            sensor_and_failing_check(page)
        if asked.only in (None, "report"):
            report(browser)
        browser.close()


if __name__ == "__main__":
    main()
