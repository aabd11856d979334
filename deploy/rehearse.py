"""Rehearse what Compose and Kubernetes would start, on this machine and without containers.

PostgreSQL, an object store, a code server and the daemon run as they do there, on free ports, with
this folder's ``dagster.yaml`` and the small settings of the tests. The pipeline is run from an
empty warehouse, a second daemon is started, a daily run and a backfill go through the queue, and
the worker of a run is killed. Prints what was seen and how long it took, and ends with 1 if it is
not what ``README.md`` promises.

    PYTHONPATH=.:.venv/lake .venv/bin/python deploy/rehearse.py [ducklake|file]
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus as Status

from rnn_pipeline_tests.warehouse.servers import free_port, object_store, postgres

HERE = Path(__file__).parent
SMALL = HERE.parent / "rnn_pipeline_tests" / "settings.toml"
PATIENCE = 600.0  # seconds, for whatever is waited for
ENDED = (Status.SUCCESS, Status.FAILURE, Status.CANCELED)


class Rehearsal:
    """Dagster's instance, the workspace, and the tickers and days that are worked on.

    Args:
        home: Dagster's folder.
        writers: how many may write the warehouse at once.
    """

    def __init__(self, home: Path, writers: int) -> None:
        # The settings are read when these are imported; until then the servers had no address.
        from rnn_pipeline.cli import prepare
        from rnn_pipeline.defs.partitions import DATES, SETTINGS, range_tags, register_tickers

        shutil.copy(HERE / "dagster.yaml", home)
        self.home = home
        self.port = free_port()
        self.workspace = home / "workspace.yaml"
        text = (HERE / "workspace.yaml").read_text().replace("host: code", "host: 127.0.0.1")
        self.workspace.write_text(text.replace("4000", str(self.port)))
        self.writers = writers
        self.instance = prepare(SETTINGS)
        self.instance.event_log_storage.set_concurrency_slots("warehouse", writers)
        self.tickers = register_tickers(self.instance, SETTINGS)
        self.days = DATES.get_partition_keys()[-2:]
        first, last = (date.fromisoformat(day) for day in self.days)
        self.tags = json.dumps(range_tags(self.tickers, first, last))

    @property
    def daemon(self) -> list[str]:
        """The command that starts the daemon."""
        return [sys.executable, str(HERE / "one_daemon.py"), "-w", str(self.workspace)]

    @contextmanager
    def started(self) -> Iterator[None]:
        """Code server and daemon, up until the end of the block."""
        server = [_beside("dagster"), "code-server", "start", "-p", str(self.port)]
        with _running([*server, "-m", "rnn_pipeline.definitions"], self.home / "code.log"):
            until("the code server", lambda: _answers(self.port))
            with _running(self.daemon, self.home / "daemon.log"):
                until("the daemon", lambda: bool(self.instance.get_daemon_heartbeats()))
                yield

    def the_demo_fills_an_empty_warehouse(self) -> str:
        """The command that README names, with Dagster's events in PostgreSQL."""
        demo = subprocess.run([_beside("rnn-pipeline"), "demo"], capture_output=True, text=True)
        assert demo.returncode == 0, demo.stderr[-2000:]
        decided = [line for line in demo.stdout.splitlines() if " HOLD " in line or " BUY " in line]
        return f"{len(decided)} decisions"

    def a_second_daemon_is_refused(self) -> str:
        """It ends at once and says why."""
        second = subprocess.run(self.daemon, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1, second
        return second.stderr.strip()

    def the_daily_job_runs(self) -> str:
        """Through the queue, launched by the daemon."""
        run = self._launch("daily")
        until("the daily run", lambda: self._status(run) in ENDED)
        assert self._status(run) == Status.SUCCESS, self._status(run)
        return f"run {run:.8} {self._status(run).value}"

    def a_backfill_runs(self) -> str:
        """One run for each of its partitions; with several writers they are side by side."""
        keys = [f"{day}|{self.tickers[0]}" for day in self.days]
        options = ["--noprompt", "--partitions", ",".join(keys)]
        self._dagster("job", "backfill", "-j", "take_in", *options)
        (backfill,) = self.instance.get_backfills()
        runs = dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id})

        def ended() -> bool:
            found = self.instance.get_runs(runs)
            return len(found) == len(keys) and all(run.status in ENDED for run in found)

        until("the backfill", ended)
        records = self.instance.get_run_records(runs)
        states = [record.dagster_run.status.value for record in records]
        assert set(states) == {"SUCCESS"}, states
        together = max(r.start_time for r in records) < min(r.end_time for r in records)
        assert together or self.writers == 1, "one run waited for the other"
        beside = "side by side" if together else "one after the other"
        return f"backfill {backfill.backfill_id}: {len(states)} runs {beside}, {states}"

    def a_killed_worker_frees_its_slot_and_is_retried(self) -> str:
        """Killed while it holds the warehouse's slot; monitoring sees it, the daemon retries."""
        run = self._launch("take_in")
        until("a slot to be taken", lambda: run in self._holders())
        os.kill(self._worker(run), signal.SIGKILL)
        killed = time.monotonic()
        until("the failure to be seen", lambda: self._status(run) == Status.FAILURE)
        noticed = time.monotonic() - killed
        until("the slot to be free", lambda: run not in self._holders())
        freed = time.monotonic() - killed
        retried = dg.RunsFilter(tags={"dagster/parent_run_id": run})
        until("the retry", lambda: any(r.status in ENDED for r in self.instance.get_runs(retried)))
        again = self.instance.get_runs(retried)[0]
        assert again.status == Status.SUCCESS, again.status
        return (
            f"run {run:.8} killed; failure seen after {noticed:.0f} s, slot free after"
            f" {freed:.0f} s, retry {again.run_id:.8} {again.status.value}"
        )

    def _launch(self, job: str) -> str:
        self._dagster("job", "launch", "-j", job, "--tags", self.tags)
        return self.instance.get_runs(limit=1)[0].run_id

    def _dagster(self, *arguments: str) -> None:
        subprocess.run([_beside("dagster"), *arguments, "-w", str(self.workspace)], check=True)

    def _status(self, run: str) -> Status:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        return found.status

    def _holders(self) -> set[str]:
        slots = self.instance.event_log_storage.get_concurrency_info("warehouse").claimed_slots
        return {slot.run_id for slot in slots}

    def _worker(self, run: str) -> int:
        """The process that the code server started for a run; the run's first event names it."""
        for record in self.instance.all_logs(run):
            if found := re.search(r"Started process for run \(pid: (\d+)\)", record.message or ""):
                return int(found[1])
            event = record.dagster_event
            metadata = event.engine_event_data.metadata if event and event.is_engine_event else {}
            if "pid" in metadata:
                return int(str(metadata["pid"].value))
        raise LookupError(f"run {run} names no process")


def until(what: str, there: Callable[[], bool]) -> None:
    """Wait for it, at most :data:`PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(1)


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    """A process, ended with all that it started: a code server waits for its runs otherwise."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _beside(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(engine: str = "ducklake") -> int:
    """The exit code."""
    failed = 0
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="rnn-pipeline-rehearsal-"))
        server = stack.enter_context(postgres())
        server.execute("CREATE DATABASE dagster")
        address = f"postgres@127.0.0.1:{server.port}/dagster"
        os.environ |= {
            "DAGSTER_HOME": home,
            "DAGSTER_PG_URL": f"postgresql+psycopg2://{address}",
            "RNN_PIPELINE_SETTINGS_FILE": str(SMALL),
            "RNN_PIPELINE_DATA_DIR": f"{home}/data",
            "RNN_PIPELINE_WAREHOUSE__ENGINE": engine,
        }
        if engine == "ducklake":
            os.environ |= {
                "RNN_PIPELINE_LAKE_CATALOG": server.database("lake"),
                "RNN_PIPELINE_WAREHOUSE__DATA_PATH": "s3://bucket/lake",
                "RNN_PIPELINE_WAREHOUSE__ENDPOINT": stack.enter_context(object_store()),
            }
        rehearsal = Rehearsal(Path(home), writers=4 if engine == "ducklake" else 1)
        stack.enter_context(rehearsal.started())
        for scene in (
            rehearsal.a_second_daemon_is_refused,
            rehearsal.the_demo_fills_an_empty_warehouse,
            rehearsal.the_daily_job_runs,
            rehearsal.a_backfill_runs,
            rehearsal.a_killed_worker_frees_its_slot_and_is_retried,
        ):
            started = time.monotonic()
            try:
                seen = scene()
            except (AssertionError, TimeoutError, LookupError) as error:
                failed += 1
                seen = f"FAILED: {error!r}"
            took, load = time.monotonic() - started, os.getloadavg()[0]
            print(f"{scene.__name__} ({took:.0f} s, load {load:.1f}): {seen}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
