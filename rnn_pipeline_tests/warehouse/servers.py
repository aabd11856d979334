"""A PostgreSQL server and an S3-compatible store for the tests of the lake, on free ports."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

#: What the object store is logged in to with; it takes anything.
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}

#: PostgreSQL refuses to run as root; its files then belong to this user.
_UNPRIVILEGED = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: Debian keeps it off the path."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class PostgresServer:
    """A server on loopback that anybody may log in to as ``postgres``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.programs = postgres_programs()
        if _UNPRIVILEGED:
            shutil.chown(folder, **_UNPRIVILEGED)
        options = [
            "-D",
            folder / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        self._run("initdb", *options, "--locale=C")
        self.start()

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")

    def database(self, name: str) -> str:
        """Create a database and return its address."""
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database}"

    def execute(self, sql: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run SQL and return what it says, one row on a line."""
        command = [str(self.programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        return subprocess.run(
            [*command, self.address(database, user)],
            input=sql,
            text=True,
            check=True,
            capture_output=True,
        ).stdout

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [str(self.programs / program), *map(str, arguments)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **_UNPRIVILEGED,
        )


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server with nothing in it, gone at the end; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory(prefix="rnn-pipeline-postgres-") as folder:
        server = PostgresServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """Address of an S3 server with a bucket named ``bucket``, whose keys are in the environment."""
    from moto.server import ThreadedMotoServer

    # A line for every request buries what a failed test has to say.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    request = urllib.request.Request(f"{address}/bucket", method="PUT")
    urllib.request.urlopen(request).close()
    before = dict(os.environ)
    os.environ.update(KEYS)
    try:
        yield address
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
