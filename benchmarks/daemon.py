"""The schedules and sensors under Dagster's own daemon: what fires, and when.

    python -m benchmarks.daemon [--write]

A data folder with two made-up tickers that trade every day (exchange 24/7), then ``rnn-pipeline
ui``, left alone: a file is dropped and must be taken in and lead to signals, a file is dropped
while a checkpoint is damaged and the failure must be told to a webhook, the evening's run and the
morning's checks must start at the minute that the settings name. Nothing is patched; what is seen
is read from Dagster's own records.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.made_up import SOON_TRAINED, environment

RESULTS = Path(__file__).parent / "results" / "daemon.json"
SETTINGS = """
source = "files"
drop_dir = "{drop}"
labels = "{labels}"
exchange = "24/7"
start = {start}
tickers = ["AAA", "BBB"]

[alerts]
webhook = "{webhook}"

[operations]
evening = {evening}
morning = {morning}

[folds]
train_size = 100
val_size = 20
test_size = 60

[model]
lookback = 5
seeds = [0]

[model.networks.gru]
cell = "gru"
hidden_sizes = [4]
{soon_trained}"""
SESSIONS = 430
"""No fold begins today: the evening's run is the daily one, not the one that trains."""
PATIENCE = 300.0
"""Seconds that anything may take."""


class Receiver(ThreadingHTTPServer):
    """A webhook on this machine; keeps what is posted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Kept)
        self.posted: list[dict[str, Any]] = []


class _Kept(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


def bars(days: pd.DatetimeIndex, seed: int) -> pd.DataFrame:
    """A random walk of two tickers."""
    rng = np.random.default_rng(seed)
    frames = []
    for ticker in ("AAA", "BBB"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days))))
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": days,
                    "open": close,
                    "high": close * 1.01,
                    "low": close * 0.99,
                    "close": close,
                    "adj_close": close,
                    "volume": rng.lognormal(13, 0.3, len(days)).round(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


class Stage:
    """A data folder, its settings, and the processes that work on it."""

    def __init__(self, folder: Path, webhook: str) -> None:
        from benchmarks.quarter import labelled

        self.folder, self.webhook = folder, webhook
        self.drop_dir, self.data = folder / "drop", folder / "data" / "files"
        self.drop_dir.mkdir()
        labelled().to_csv(folder / "labels.csv", index=False)
        yesterday = pd.Timestamp.now(tz="UTC").tz_localize(None).normalize() - timedelta(days=1)
        self.days = pd.date_range(end=yesterday, periods=SESSIONS)
        self.environment = environment(folder / "settings.toml", folder / "data")

    def settle(self, evening: datetime, morning: datetime) -> None:
        """Write the settings."""
        (self.folder / "settings.toml").write_text(
            SETTINGS.format(
                soon_trained=SOON_TRAINED,
                drop=self.drop_dir,
                labels=self.folder / "labels.csv",
                start=f"{self.days[0]:%Y-%m-%d}",
                webhook=self.webhook,
                evening=f"{evening:%H:%M}:00",
                morning=f"{morning:%H:%M}:00",
            )
        )

    def drop(self, name: str, rows: pd.DataFrame) -> None:
        """Put a file into the drop folder."""
        rows.to_parquet(self.folder / name)
        (self.folder / name).rename(self.drop_dir / name)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a user, of this checkout."""
        code = "from rnn_pipeline.cli import main; main()"
        return [sys.executable, "-W", "ignore", "-c", code, *arguments]

    @contextmanager
    def daemon(self, port: int) -> Iterator[None]:
        """``rnn-pipeline ui`` in a process group of its own, ended with all that it started."""
        with (self.folder / "daemon.log").open("w") as log:
            process = subprocess.Popen(
                self.command("ui", "--port", str(port)),
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def until(what: str, seen: Callable[[], Any]) -> tuple[Any, float]:
    """Wait for something; also the seconds that it took.

    Raises:
        TimeoutError: it did not come.
    """
    begun = time.monotonic()
    while not (found := seen()):
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(f"no {what} within {PATIENCE:.0f} s")
        time.sleep(1)
    waited = round(time.monotonic() - begun, 1)
    print(f"{what}: {waited} s", flush=True)
    return found, waited


def ticks(instance: Any) -> dict[str, Any]:
    """Every schedule's and sensor's ticks: how many, and the longest in seconds."""
    found = {}
    for state in instance.all_instigator_state():
        own = [
            tick
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
            if tick.end_timestamp is not None
        ]
        seconds = [tick.end_timestamp - tick.timestamp for tick in own]
        if seconds:
            found[state.instigator_name] = {
                "ticks": len(own),
                "median_seconds": round(float(np.median(seconds)), 2),
                "longest_seconds": round(max(seconds), 2),
                "failed": [str(tick.error)[:300] for tick in own if tick.error is not None],
            }
    return found


def watched(stage: Stage, receiver: Receiver) -> dict[str, Any]:
    """Let things happen under the daemon and note what came of them."""
    import dagster as dg

    found: dict[str, Any] = {}
    os.environ["DAGSTER_HOME"] = str(stage.data / "dagster")
    with dg.DagsterInstance.get() as instance:

        def run_of(job: str, status: str, count: int = 1) -> Any:
            runs = instance.get_runs(
                dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus(status)])
            )
            return runs[0] if len(runs) >= count else None

        def told(word: str) -> Any:
            return [one for one in receiver.posted if word in json.dumps(one)]

        stage.drop("one.parquet", bars(stage.days[-1:], 1))
        _, found["seconds_from_file_to_bars"] = until(
            "file taken in", lambda: run_of("take_in", "SUCCESS")
        )
        _, found["seconds_from_bars_to_signals"] = until(
            "signals of it", lambda: run_of("react", "SUCCESS")
        )
        evening = run_of("daily", "SUCCESS")
        if evening is None:
            evening, _ = until("evening's run", lambda: run_of("daily", "SUCCESS"))
        record = instance.get_run_record_by_id(evening.run_id)
        found["evening"] = {
            "tags": {k: v for k, v in evening.tags.items() if k.startswith("dagster/s")},
            "seconds": round(record.end_time - record.start_time, 1),
        }
        checkpoint = stage.data / "checkpoints" / "sentiment.safetensors"
        whole = checkpoint.read_bytes()
        checkpoint.write_bytes(b"damaged")
        stage.drop("two.parquet", bars(stage.days[-1:], 2))
        until("failed run", lambda: run_of("react", "FAILURE"))
        _, found["seconds_from_failure_to_webhook"] = until(
            "alert", lambda: told("the run of react failed")
        )
        checkpoint.write_bytes(whole)
        until("morning's checks", lambda: run_of("vitals", "SUCCESS"))
        _, found["seconds_from_checks_to_webhook"] = until("page", lambda: told("does not hold"))
        found["told"] = [alert for one in receiver.posted for alert in one["alerts"]]
        found["ticks"] = ticks(instance)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daemon")
    parser.add_argument("--port", type=int, default=3917, help="for the UI, on this machine alone")
    parser.add_argument("--minutes", type=int, default=4, help="from its start to the evening")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    options = parser.parse_args()
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, args=(0.1,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), f"http://127.0.0.1:{receiver.server_address[1]}")
        now = datetime.now(UTC)
        stage.settle(now - timedelta(hours=1), now - timedelta(hours=1))
        stage.drop("history.parquet", bars(stage.days, 0))
        time.sleep(3)
        subprocess.run(
            stage.command("demo"), env=stage.environment, check=True, stdout=subprocess.DEVNULL
        )
        evening = datetime.now(UTC) + timedelta(minutes=options.minutes)
        stage.settle(evening, evening + timedelta(minutes=2))
        with stage.daemon(options.port):
            try:
                found = watched(stage, receiver)
            except TimeoutError:
                print((stage.folder / "daemon.log").read_text()[-6000:])
                raise
    receiver.shutdown()
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        **found,
    }
    print(json.dumps(found, indent=1))
    if options.write:
        told = json.dumps(found, indent=1).replace(folder, "...")
        RESULTS.write_text(told + "\n")


if __name__ == "__main__":
    main()
