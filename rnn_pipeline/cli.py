"""The ``rnn-pipeline`` command."""

from __future__ import annotations

import importlib.resources
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnn_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd


class RunFailed(RuntimeError):
    """A Dagster run failed; the message is the cause's own line."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End on one line and exit code 1 for what a user can mend; anything else keeps its trace."""
    try:
        yield
    except (SettingsError, RunFailed) as error:
        raise click.ClickException(str(error)) from None


def prepare(settings: Settings) -> dg.DagsterInstance:
    """Dagster's instance of these settings, its folder and ``dagster.yaml`` made if need be."""
    import dagster as dg

    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        template = importlib.resources.files("rnn_pipeline.defs").joinpath("dagster.yaml")
        text = template.read_text().format(home=home)
        (home / "dagster.yaml").write_text(text)
    os.environ["DAGSTER_HOME"] = str(home)
    return dg.DagsterInstance.get()


def run_job(instance: dg.DagsterInstance, name: str, tags: dict[str, str]) -> None:
    """Run one job in this process, with its progress on the terminal.

    Raises:
        RunFailed: with the first line of what went wrong.
    """
    from rnn_pipeline.definitions import defs

    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=tags,
        run_config={"loggers": {"terminal": {}}},
        raise_on_error=False,
    )
    if not result.success:
        raise RunFailed(_cause(result))


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """The innermost error of the first step that failed, without Dagster's wrapping."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            message = error.message if error is not None else "failed"
            return f"{event.step_key}: {message.strip().removeprefix('dagster._core.definitions.')}"
    return "the run failed; `rnn-pipeline ui` shows its log"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnn-pipeline")
def main() -> None:
    """Daily trading research and live signals from recurrent networks."""


@main.command()
def demo() -> None:
    """Materialize the whole graph and print today's decisions.

    Offline on the embedded data; RNN_PIPELINE_SOURCE=yahoo RNN_PIPELINE_TICKERS=AAPL,MSFT does the
    same on live data.
    """
    started = time.monotonic()
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs.automation import stages

        for name, tags in stages(instance):
            click.echo(f"{name}", err=True)
            run_job(instance, name, tags)
        click.echo(f"finished in {time.monotonic() - started:.0f} s\n", err=True)
        show_decisions(settings)


def show_decisions(settings: Settings) -> None:
    """Print the decisions of the newest session, the tickers without one, and where the report is."""
    from rich.console import Console

    Console().print("...")


@main.command()
@click.option("--port", default=3000, show_default=True, help="port on this machine alone")
def ui(port: int) -> None:
    """Start Dagster's UI on the pipeline (dagster dev)."""
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs.partitions import register_tickers

        register_tickers(instance, settings)
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "dev",
        "--module-name",
        "rnn_pipeline.definitions",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    raise SystemExit(subprocess.call(command))
