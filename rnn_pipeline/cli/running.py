"""Running the pipeline: Dagster's instance, one job at a time, the demo and the UI."""

from __future__ import annotations

import importlib.resources
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnn_pipeline.cli.errors import RunFailed, plain_errors
from rnn_pipeline.cli.trading import show_decisions
from rnn_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import dagster as dg

_WORKSPACE = """load_from:
  - python_module:
      module_name: rnn_pipeline.definitions
      location_name: rnn_pipeline
"""


def prepare(settings: Settings) -> dg.DagsterInstance:
    """Dagster's instance of these settings, its folder and ``dagster.yaml`` made if need be."""
    import dagster as dg

    from rnn_pipeline.market.calendar import SessionCalendar

    try:
        _ = SessionCalendar(settings.exchange).timezone
    except ValueError as error:
        raise SettingsError(f"setting exchange: {error}") from None
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        template = importlib.resources.files("rnn_pipeline.defs").joinpath("dagster.yaml")
        text = template.read_text().format(home=home)
        (home / "dagster.yaml").write_text(text)
    os.environ["DAGSTER_HOME"] = str(home)
    return dg.DagsterInstance.get()


def run_job(
    instance: dg.DagsterInstance,
    name: str,
    tags: dict[str, str],
    ops: dict[str, dict[str, object]] | None = None,
) -> None:
    """Run one job in this process, with its progress on the terminal.

    Args:
        instance: Dagster's.
        name: of the job.
        tags: which partitions.
        ops: configuration by asset.

    Raises:
        RunFailed: with the first line of what went wrong.
    """
    from rnn_pipeline.definitions import defs

    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=tags,
        run_config={
            "loggers": {"terminal": {}},
            "ops": {asset: {"config": config} for asset, config in (ops or {}).items()},
        },
        raise_on_error=False,
    )
    if not result.success:
        raise RunFailed(_cause(result))


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """The innermost error of the first step that failed, without Dagster's wrapping."""
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data is not None:
                return f"{event.step_key}: {failure.user_failure_data.description}"
            error = failure.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is None:
                return f"{event.step_key}: failed"
            # "package.module.Class: what happened" is for the log; here what happened will do.
            return f"{event.step_key}: {error.message.strip().split(f'{error.cls_name}: ', 1)[-1]}"
    return "the run failed; `rnn-pipeline ui` shows its log"


@click.command()
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


@click.command()
@click.option("--port", default=3000, show_default=True, help="port on this machine alone")
def ui(port: int) -> None:
    """Start Dagster's UI on the pipeline (dagster dev)."""
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs.partitions import register_tickers

        register_tickers(instance, settings)
    workspace = settings.dagster_home / "workspace.yaml"
    workspace.write_text(_WORKSPACE)
    dagster = Path(sys.executable).with_name("dagster")
    address = ["--host", "127.0.0.1", "--port", str(port)]
    raise SystemExit(subprocess.call([dagster, "dev", "--workspace", workspace, *address]))
