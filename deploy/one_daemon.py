"""Run ``dagster-daemon``, and refuse to where one runs on the same PostgreSQL already.

Dagster itself only logs that two daemons are at work, and each then launches every schedule's run.
The claim is an advisory lock, which ends with this process however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psycopg2

_CLAIM = "rnn_pipeline.dagster-daemon"
_LOOK_EVERY = 5.0  # seconds


def main() -> int:
    """The exit code: the daemon's own, or 1 if another one runs or PostgreSQL is gone."""
    # SQLAlchemy's name of the driver is not for the driver itself.
    address = os.environ["DAGSTER_PG_URL"].replace("postgresql+psycopg2:", "postgresql:", 1)
    claim = psycopg2.connect(address, keepalives_idle=10)
    claim.autocommit = True
    cursor = claim.cursor()
    cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [_CLAIM])
    if cursor.fetchone() != (True,):
        sys.exit("another dagster-daemon runs on this PostgreSQL: stop it first")
    daemon = subprocess.Popen(
        [Path(sys.executable).with_name("dagster-daemon"), "run", *sys.argv[1:]]
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        daemon.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while daemon.poll() is None:
        try:
            cursor.execute("SELECT 1")
        except psycopg2.Error:
            daemon.terminate()
            daemon.wait()
            sys.exit("PostgreSQL let the claim go: the daemon was stopped")
        time.sleep(_LOOK_EVERY)
    return daemon.returncode


if __name__ == "__main__":
    sys.exit(main())
