"""Running the pipeline: Dagster's instance, one job at a time, the demo and the UI."""

from __future__ import annotations

import importlib.resources
import os
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnn_pipeline.cli.errors import RunFailed, plain_errors
from rnn_pipeline.cli.trading import show_decisions
from rnn_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import dagster as dg

DAY = click.DateTime(["%Y-%m-%d"])

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
    from rnn_pipeline.defs.automation import first_cause
    from rnn_pipeline.defs.killed_runs import close_killed_runs

    for killed in close_killed_runs(instance):
        click.echo(
            f"the run of {killed} before this one was killed; its work is done again", err=True
        )
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
        failures = (event for event in result.all_events if event.is_step_failure)
        raise RunFailed(first_cause(failures) or "the run failed; `rnn-pipeline ui` shows its log")


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


@click.command(
    epilog="Example: rnn-pipeline backfill --first 2024-01-02 --last 2024-03-28 --ticker AAPL"
)
@click.option(
    "--first",
    type=DAY,
    metavar="YYYY-MM-DD",
    help="from which session on; default: the newest stored one",
)
@click.option("--last", type=DAY, metavar="YYYY-MM-DD", help="up to which session; default: today")
@click.option("--ticker", "asked", multiple=True, help="which; again for more; default: all")
def backfill(first: datetime | None, last: datetime | None, asked: tuple[str, ...]) -> None:
    """Fetch, compute and decide for a range of sessions; without options, catch up.

    One run does all days that were missed. Where a fold has begun, networks are trained for it on
    the way (setting operations.retrain). A ticker that is new to the settings gets all its history
    and its networks first. What is there already changes nothing.
    """
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs import automation
        from rnn_pipeline.defs.partitions import (
            last_day,
            newcomers,
            range_tags,
            register_tickers,
        )
        from rnn_pipeline.defs.resources import MARKET, WAREHOUSE

        lacking = newcomers(instance, settings)
        known = register_tickers(instance, settings)
        wanted = [ticker.upper() for ticker in asked] or known
        if strangers := [ticker for ticker in wanted if ticker not in known]:
            raise click.ClickException(
                f"{', '.join(strangers)} not in the universe: add to the setting tickers"
            )
        _, since = automation.evening(instance, WAREHOUSE, lacking)
        begin = first.date() if first else since
        end = min(last.date() if last else date.max, last_day(settings))
        if begin > end:
            raise click.ClickException(f"--first {begin} is later than --last {end}: swap them")
        new = [ticker for ticker in wanted if ticker in lacking]
        others = [ticker for ticker in wanted if ticker not in lacking]
        jobs = automation.stages(instance, first and first.date(), end, new)
        if not asked and automation.training_due(WAREHOUSE.store, MARKET.calendar, end):
            jobs += automation.stages(instance, begin, end, others)
        else:
            spans = automation.blocks(instance, dict.fromkeys(others, (begin, end)))
            jobs += [("daily", range_tags(*span)) for span in spans]
        for name, tags in jobs:
            click.echo(name, err=True)
            run_job(instance, name, tags)
        click.echo(f"{begin} to {end}: {len(wanted)} tickers", err=True)


@click.command(epilog="Example: rnn-pipeline retrain")
def retrain() -> None:
    """Train what is not trained yet, grade it, and decide anew for the newest sessions.

    A network is trained again only where its rows, settings or code have changed.
    """
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs.automation import stages
        from rnn_pipeline.defs.resources import WAREHOUSE

        newest = WAREHOUSE.store.last_session()
        if newest is None:
            raise click.ClickException("no bar is stored yet: run `rnn-pipeline backfill` first")
        for name, tags in stages(instance, newest, newest)[1:]:
            click.echo(name, err=True)
            run_job(instance, name, tags)


@click.command()
@click.option("--port", default=3000, show_default=True, help="where it listens")
@click.option("--host", default="127.0.0.1", show_default=True, help="this machine alone, or more")
def ui(port: int, host: str) -> None:
    """Start Dagster's UI on the pipeline (dagster dev).

    It has no login: whoever reaches it can run and delete everything.
    """
    with plain_errors():
        settings = load_settings()
        instance = prepare(settings)
        from rnn_pipeline.defs.partitions import check_size, registered_tickers

        check_size(settings)
        registered_tickers(instance, settings)
    workspace = settings.dagster_home / "workspace.yaml"
    workspace.write_text(_WORKSPACE)
    dagster = Path(sys.executable).with_name("dagster")
    address = ["--host", host, "--port", str(port)]
    # Dagster would greet a user with the advice to start another program.
    asked = os.environ.get("PYTHONWARNINGS")
    warnings = ",".join(filter(None, (asked, "ignore:Function `dev_command`")))
    environment = os.environ | {"PYTHONWARNINGS": warnings}
    raise SystemExit(
        subprocess.call([dagster, "dev", "--workspace", workspace, *address], env=environment)
    )
