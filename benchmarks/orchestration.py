"""What Dagster costs beside the work: loading, partitions at real size, ticks, runs.

    python -m benchmarks.orchestration [--demo] [--chromium FILE] [--write]

Two sizes, 24 tickers by 5 years of days and 500 tickers by 10 years of months: how long the code
location takes to load, one run over every partition, one session of all tickers, the page of an
asset (in a browser where Playwright is installed), launching backfills, and the ticks of sensors,
with every partition materialized. Assets have empty bodies there, so all of it is Dagster's own.
Then 1,000 partitions in one run beside 1,000 runs (three are run, the rest is their multiple), and
with ``--demo`` the share of the demo's time that is spent in the bodies of its assets.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "orchestration.json"
SIZES = {
    "24 tickers, 5 years of days": (24, 5, "day"),
    "500 tickers, 10 years of months": (500, 10, "month"),
}
PROBED = "raw_ohlcv"
RUNS = 3
"""Single runs that stand for a thousand."""

_LOAD = """
import json, time
wall, processor = time.perf_counter(), time.process_time()
import dagster
dagster_wall, dagster_processor = time.perf_counter() - wall, time.process_time() - processor
import rnn_pipeline.definitions
print(json.dumps({
    "dagster_s": dagster_wall, "dagster_processor_s": dagster_processor,
    "location_s": time.perf_counter() - wall - dagster_wall,
    "location_processor_s": time.process_time() - processor - dagster_processor,
}))
"""
_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def timed(call: Callable[[], Any], times: int = 1) -> dict[str, float]:
    """Median wall and processor seconds of a call, processes that it waited for included."""
    walls, processors = [], []
    for _ in range(times):
        wall, processor = time.perf_counter(), sum(os.times()[:4])
        call()
        walls.append(time.perf_counter() - wall)
        processors.append(sum(os.times()[:4]) - processor)
    return {
        "s": round(statistics.median(walls), 2),
        "processor_s": round(statistics.median(processors), 2),
    }


def loading() -> dict[str, float]:
    """Medians of three new processes, with the settings in force."""
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _LOAD],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(3)
    ]
    return {key: round(statistics.median(one[key] for one in found), 2) for key in found[0]}


def probe() -> Any:
    """An asset of the pipeline's name and partitions that does nothing."""
    import dagster as dg

    from rnn_pipeline.defs import partitions

    @dg.asset(
        name=PROBED, partitions_def=partitions.TICKER_BY_DATE, backfill_policy=partitions.ONE_RUN
    )
    def nothing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        partitions.span_of(context)
        return dg.MaterializeResult(metadata={"inserted": 1, "revised": 0})

    return nothing


def run_probe(instance: Any, tickers: list[str], *days: date) -> None:
    """One run of the empty asset over a range."""
    import dagster as dg

    from rnn_pipeline.defs.partitions import range_tags

    job = dg.define_asset_job("taken_in", [probe()], executor_def=dg.in_process_executor)
    resolved = dg.Definitions([probe()], jobs=[job], loggers={"silent": quiet()}).resolve_job_def(
        "taken_in"
    )
    done = resolved.execute_in_process(
        instance=instance,
        tags=range_tags(tickers, *days),
        run_config={"loggers": {"silent": {}}},
    )
    assert done.success


def quiet() -> Any:
    """A logger that says nothing: a terminal's speed is not Dagster's."""
    import logging

    import dagster as dg

    @dg.logger
    def silent(_: dg.InitLoggerContext) -> logging.Logger:
        return logging.Logger("silent", logging.CRITICAL)

    return silent


def ticks(instance: Any) -> dict[str, dict[str, float]]:
    """Every sensor, as its daemon would evaluate it after all partitions have come in."""
    import dagster as dg

    from rnn_pipeline.defs import automation

    found = {}
    for sensor in (automation.universe, automation.drop_folder, automation.new_raw_data):

        def tick(sensor: Any = sensor) -> None:
            sensor.evaluate_tick(dg.build_sensor_context(instance=instance))

        found[sensor.name] = timed(tick, 3)
    return found


def query(address: str, text: str, **variables: Any) -> Any:
    """The answer of a GraphQL server."""
    body = json.dumps({"query": text, "variables": variables}).encode()
    asked = urllib.request.Request(
        f"{address}/graphql", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked, timeout=300) as answer:
        return json.load(answer)["data"]


@contextlib.contextmanager
def webserver() -> Iterator[str]:
    """Dagster's web server on the settings in force; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            Path(sys.executable).with_name("dagster-webserver"),
            *("-m", "rnn_pipeline.definitions", "-h", "127.0.0.1", "-p", str(port)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/server_info", timeout=5)
                break
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def page(address: str, path: str, text: str, chromium: str) -> dict[str, Any]:
    """A page in a browser that has never seen it: seconds until it says something, its queries."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(120_000)
        queries: dict[str, float] = {}

        def note(request: Any) -> None:
            if "/graphql" in request.url:
                name = json.loads(request.post_data or "{}").get("operationName", "?")
                spent = request.timing["responseEnd"] / 1000
                queries[name] = round(max(spent, queries.get(name, 0.0)), 2)

        opened.on("requestfinished", note)
        begun = time.perf_counter()
        opened.goto(f"{address}{path}")
        opened.get_by_text(text).locator("visible=true").first.wait_for()
        shown = time.perf_counter() - begun
        opened.wait_for_timeout(3_000)
        browser.close()
    slowest = dict(sorted(queries.items(), key=lambda item: -item[1])[:3])
    return {"shown_s": round(shown, 2), "queries": len(queries), "slowest_queries_s": slowest}


def launches(instance: Any, address: str, tickers: list[str], keys: list[str]) -> dict[str, Any]:
    """Backfills: what the click takes, and what the daemon then does until the runs are queued."""
    import logging

    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster._daemon.backfill import execute_backfill_iteration

    found: dict[str, Any] = {}
    location = ModuleTarget("rnn_pipeline.definitions", None, None, "rnn_pipeline.definitions")
    with WorkspaceProcessContext(instance, location) as workspace:
        for name, dates in (("100 partitions", keys[-100:]), ("10 dates, all tickers", keys[-10:])):
            whose = tickers[:1] if name.startswith("100") else tickers
            asked = {
                "assetSelection": [{"path": [PROBED]}],
                "partitionNames": [f"{key}|{ticker}" for key in dates for ticker in whose],
            }
            begun = time.perf_counter()
            answer = query(address, _BACKFILL, params=asked)["launchPartitionBackfill"]
            assert "backfillId" in answer, answer
            clicked = time.perf_counter() - begun
            before = instance.get_runs_count()
            begun = time.perf_counter()
            for _ in execute_backfill_iteration(workspace, logging.getLogger("backfill")):
                pass
            found[name] = {
                "click_s": round(clicked, 2),
                "daemon_s": round(time.perf_counter() - begun, 2),
                "runs": instance.get_runs_count() - before,
            }
    return found


class Found(dict[str, Any]):
    """Figures that are told as they come: the whole takes minutes."""

    def __setitem__(self, name: str, value: Any) -> None:
        print(f"{name}: {json.dumps(value)}", file=sys.stderr, flush=True)
        super().__setitem__(name, value)


def at_size(chromium: str | None) -> dict[str, Any]:
    """All of one size, with the settings in force."""
    from rnn_pipeline import cli
    from rnn_pipeline.defs.partitions import DATES, SETTINGS, register_tickers

    found = Found()
    found["loading"] = loading()
    with cli.prepare(SETTINGS) as instance:
        tickers = register_tickers(instance, SETTINGS)
        keys = list(DATES.get_partition_keys())
        first, last = (date.fromisoformat(key) for key in (keys[0], keys[-1]))
        found["partitions"] = len(tickers) * len(keys)
        found["every partition in one run"] = timed(
            lambda: run_probe(instance, tickers, first, last)
        )
        found["one date, all tickers"] = timed(lambda: run_probe(instance, tickers, last, last), 3)
        found["ticks"] = ticks(instance)
        with webserver() as address:
            found["launching"] = launches(instance, address, tickers, keys)
            for name, path, text in (
                ("asset", f"/assets/{PROBED}", "Latest materialization"),
                ("asset, partitions", f"/assets/{PROBED}?view=partitions", "Partitions Selected"),
                ("graph", "/asset-groups", "evidence"),
            ):
                if chromium:
                    found[f"page: {name}"] = page(address, path, text, chromium)
    return found


def thousand() -> dict[str, Any]:
    """1,000 partitions in one run, beside single runs in this process and in one of their own."""
    from rnn_pipeline import cli
    from rnn_pipeline.defs.partitions import DATES, SETTINGS, register_tickers

    with cli.prepare(SETTINGS) as instance:
        tickers = register_tickers(instance, SETTINGS)[:20]
        days = [date.fromisoformat(key) for key in list(DATES.get_partition_keys())[-50:]]
        together = timed(lambda: run_probe(instance, tickers, days[0], days[-1]))
        alone = timed(lambda: run_probe(instance, tickers[:1], days[0], days[0]), RUNS)
        spawned = timed(
            lambda: subprocess.run(
                [sys.executable, "-m", "benchmarks.orchestration", "--one", tickers[0]], check=True
            ),
            RUNS,
        )
    return {
        "one run": together,
        "one of 1,000 runs, in one process": alone,
        "one of 1,000 runs, a process each": spawned,
        "1,000 runs, a process each, extrapolated": {
            key: round(1000 * spent) for key, spent in spawned.items()
        },
    }


def demo_share(home: Path, wall: float) -> dict[str, float]:
    """Of a demo's wall time, what its assets' bodies took and what the rest is."""
    import dagster as dg

    bodies = runs = 0.0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in instance.get_runs():
            started: dict[str, float] = {}
            for entry in instance.all_logs(run.run_id):
                event = entry.dagster_event
                if event is None or event.step_key is None:
                    continue
                if event.event_type_value == "STEP_START":
                    started[event.step_key] = entry.timestamp
                elif event.event_type_value == "STEP_OUTPUT":
                    bodies += entry.timestamp - started.pop(event.step_key, entry.timestamp)
            stats = instance.get_run_stats(run.run_id)
            runs += (stats.end_time or 0.0) - (stats.start_time or 0.0)
    return {
        "wall_s": round(wall, 1),
        "bodies_s": round(bodies, 1),
        "runs_s": round(runs, 1),
        "share_not_work": round(1 - bodies / wall, 3),
    }


def demo() -> dict[str, float]:
    """Run the demo as `make demo` does, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).with_name("rnn-pipeline"), "demo"],
            env=clean({"RNN_PIPELINE_DATA_DIR": folder}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        wall = time.perf_counter() - begun
        return demo_share(Path(folder) / "sample" / "dagster", wall)


def clean(own: dict[str, str]) -> dict[str, str]:
    """This process's environment with no settings of the pipeline but these."""
    dropped = ("RNN_PIPELINE_", "DAGSTER_HOME")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | own


def of_size(tickers: int, years: int, step: str, *arguments: str) -> Any:
    """Measure in a process with settings of a size."""
    names = ", ".join(f'"T{number:03d}"' for number in range(tickers))
    today = datetime.now(UTC).date()
    start = today.replace(year=today.year - years, day=1)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.toml"
        settings.write_text(
            f'source = "yahoo"\nstart = {start}\ntickers = [{names}]\npartition_step = "{step}"\n'
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.orchestration", *arguments],
            env=clean(
                {
                    "RNN_PIPELINE_SETTINGS_FILE": str(settings),
                    "RNN_PIPELINE_DATA_DIR": folder,
                }
            ),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def one_run(ticker: str) -> None:
    """A run of one partition, in the instance of the settings."""
    from rnn_pipeline import cli
    from rnn_pipeline.defs.partitions import DATES, SETTINGS

    with cli.prepare(SETTINGS) as instance:
        day = date.fromisoformat(list(DATES.get_partition_keys())[-60])
        run_probe(instance, [ticker], day, day)


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration")
    parser.add_argument("--demo", action="store_true", help="run the demo, too: minutes")
    parser.add_argument("--chromium", help="path of a browser; needs Playwright")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--here", choices=("size", "thousand"), help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one_run(asked.one)
        return
    if asked.here:
        print(json.dumps(at_size(asked.chromium) if asked.here == "size" else thousand()))
        return
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
    }
    browser = ["--chromium", asked.chromium] if asked.chromium else []
    for name, size in SIZES.items():
        found[name] = of_size(*size, "--here", "size", *browser)
    found["1,000 partitions"] = of_size(*SIZES["24 tickers, 5 years of days"], "--here", "thousand")
    if asked.demo:
        found["demo"] = demo()
    print(json.dumps(found, indent=1))
    if asked.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
