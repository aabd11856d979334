"""What a person sees in Dagster's pages and in the report, in a real browser."""

import json
import urllib.request

import pytest

from rnn_pipeline.definitions import defs
from rnn_pipeline.defs.reporting import REPORT
from rnn_pipeline_tests.ui.conftest import WAIT

GROUPS = ("market", "features", "networks", "evidence", "trading")


def ask(ui, query):
    body = json.dumps({"query": query}).encode()
    asked = urllib.request.Request(f"{ui}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=WAIT / 1000) as answer:
        return json.load(answer)["data"]


@pytest.fixture(scope="module")
def launched(ui, page):
    """A backfill and a check, both launched by clicks; they run while other pages are looked at."""
    page.goto(f"{ui}/assets/model_features")
    page.get_by_text("Latest materialization").wait_for()
    page.get_by_role("button", name="Materialize").first.click()
    days = page.get_by_placeholder("ex: 2010-06-01", exact=False)
    days.fill("[2012-01-01...2012-03-01]")
    days.press("Enter")
    page.get_by_role("button", name="All", exact=True).nth(1).click()
    page.get_by_text("9 partitions").first.wait_for()
    page.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("Launch runs to materialize").wait_for(state="hidden")
    page.goto(f"{ui}/assets/trading_decisions?view=checks&checkDetail=decisions_current")
    page.get_by_text("Execute", exact=True).first.click()
    (backfill,) = ask(
        ui, "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"
    )["partitionBackfillsOrError"]["results"]
    return backfill["id"]


def test_the_graph_shows_every_asset_in_its_group(ui, page, launched):
    opened = ",".join(f"global@global:{group}" for group in GROUPS)
    page.set_viewport_size({"width": 2400, "height": 1800})  # smaller, Dagster leaves names out
    page.goto(f"{ui}/asset-groups?expanded={opened}")
    for key in defs.resolve_asset_graph().get_all_asset_keys():
        page.get_by_text(key.to_user_string(), exact=True).first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 800})


def test_an_assets_page_opens_with_its_newest_partition_columns_and_owner(ui, page, launched):
    page.goto(f"{ui}/assets/trading_signals")
    page.get_by_text("2013-03-01|MSFT").first.wait_for()
    page.get_by_text("-1 (sell) to +1 (buy)", exact=False).first.wait_for()
    for told in ("Owners", "Open trading.py in editor", "price_with_signals"):
        page.get_by_text(told).first.wait_for()


def test_a_plot_fits_a_small_screen(ui, page, launched):
    page.goto(f"{ui}/assets/trading_signals")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img[alt=price_with_signals]")
    picture.wait_for()
    inner = picture.bounding_box()
    outer = page.get_by_role("dialog").bounding_box()
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]


def test_the_sensors_page_shows_what_a_tick_found(ui, page, launched):
    page.goto(f"{ui}/locations/rnn_pipeline/sensors/universe")
    page.get_by_text("0 runs requested").first.wait_for()
    found = ask(
        ui,
        '{ sensorOrError(sensorSelector: {repositoryName: "__repository__",'
        ' repositoryLocationName: "rnn_pipeline", sensorName: "universe"}) { ... on Sensor {'
        " sensorState { ticks(limit: 1) { status skipReason } } } } }",
    )
    (tick,) = found["sensorOrError"]["sensorState"]["ticks"]
    assert tick == {"status": "SKIPPED", "skipReason": "3 tickers: AAPL, FB, MSFT"}


def test_the_launchpad_of_a_job_is_filled_in_and_ready(ui, page, launched):
    page.goto(f"{ui}/locations/rnn_pipeline/jobs/renew/playground")
    page.get_by_text("No errors").wait_for()
    page.get_by_text("No missing config").wait_for()
    page.get_by_text("tickers: []").first.wait_for()


def test_a_failing_check_says_what_to_do(ui, page, launched):
    page.goto(f"{ui}/assets/trading_decisions?view=checks&checkDetail=decisions_current")
    page.get_by_text("Failed").first.wait_for()
    page.get_by_text("run: rnn-pipeline", exact=False).first.wait_for()


def test_a_range_backfill_shows_its_progress_until_it_is_done(ui, page, launched):
    page.goto(f"{ui}/runs/b/{launched}")
    page.get_by_text("model_features").first.wait_for()
    page.get_by_text("100% completed").first.wait_for()
    page.goto(f"{ui}/assets/model_features")
    page.get_by_text("2012-03-01|", exact=False).first.wait_for()


def test_the_report_fits_its_screen_and_shows_decisions_first(browser, demo):
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    errors = []
    opened.on("pageerror", errors.append)
    opened.goto(REPORT.as_uri())
    opened.get_by_text("AAPL").first.wait_for()
    assert opened.evaluate("document.documentElement.scrollWidth") <= 1280
    first = opened.locator("h2").first.inner_text()
    assert "ecision" in first, first
    assert errors == []
    opened.close()
