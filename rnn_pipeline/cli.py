"""The ``rnn-pipeline`` command."""

from __future__ import annotations

import importlib.resources
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rnn_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import dagster as dg


_DECISION_COLUMNS = {
    "ticker": "ticker",
    "session": "session",
    "forecast": "forecast",
    "sentiment": "sentiment",
    "signal": "signal",
    "label": "label",
    "grade": "evidence",
    "position": "position",
}
_WORKSPACE = """load_from:
  - python_module:
      module_name: rnn_pipeline.definitions
      location_name: rnn_pipeline
"""
_TEXTS = {"ticker", "session", "label", "evidence"}


class RunFailed(RuntimeError):
    """A Dagster run failed; the message is the cause's own line."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End on one line and exit code 1 for what a user can mend; anything else keeps its trace."""
    try:
        yield
    except (SettingsError, RunFailed) as error:
        raise click.ClickException(str(error)) from None
    except Exception as error:
        from rnn_pipeline.market.commit import IngestError
        from rnn_pipeline.market.quarantine import NotReleasable
        from rnn_pipeline.warehouse import WarehouseError

        if isinstance(error, WarehouseError | IngestError | NotReleasable):
            raise click.ClickException(str(error)) from None
        raise


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
    """Print the newest session's decisions, who has none and why, and the report's path."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from rnn_pipeline.defs.partitions import universe
    from rnn_pipeline.defs.reporting import REPORT
    from rnn_pipeline.reporting.tables import FORMATS, format_value
    from rnn_pipeline.trading.decisions import current_decisions
    from rnn_pipeline.warehouse import Warehouse

    store = Warehouse(settings.warehouse_path)
    tickers = list(universe(settings))
    current = current_decisions(store.rows("trading_decisions", ticker=tickers))
    left_out = store.rows("window_sets", "ticker, status", ticker=tickers, folds=0)
    # Narrow enough for 80 columns, which is what a pipe gets.
    table = Table(
        title="Decisions at the next open",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in _DECISION_COLUMNS.values():
        justify: Literal["left", "right"] = "left" if heading in _TEXTS else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in current.to_dict("records"):
        table.add_row(
            *(format_value(row[name], FORMATS.get(name, "")) for name in _DECISION_COLUMNS)
        )
    console = Console()
    console.print(table)
    for row in current.itertuples():
        console.print(f"{row.ticker}: {row.reason}", soft_wrap=True)
    for row in left_out.itertuples():
        console.print(f"{row.ticker}: no signal, {row.status}", soft_wrap=True)
    console.print(f"\nReport: {REPORT}", soft_wrap=True)


@main.command()
def rebuild() -> None:
    """Make the warehouse's raw tables anew from the kept payloads; the old file stays beside it."""
    with plain_errors():
        settings = load_settings()
        from rnn_pipeline.defs.resources import MARKET
        from rnn_pipeline.market.rebuild import rebuild as play
        from rnn_pipeline.warehouse import PayloadStore, Warehouse

        played = play(
            Warehouse(settings.warehouse_path),
            PayloadStore(settings.payload_dir),
            MARKET.sources,
            lambda line: click.echo(line, err=True),
        )
        click.echo(
            f"{played} batches played into {settings.warehouse_path}; `rnn-pipeline demo` makes the"
            " other tables again"
        )


@main.group()
def quarantine() -> None:
    """Rows that broke a rule: show them, or take them in after all."""


@quarantine.command("list")
def list_quarantine() -> None:
    """Show every row in quarantine: its id, ticker, rule, payload and values."""
    with plain_errors():
        from rnn_pipeline.market.quarantine import waiting_rows
        from rnn_pipeline.warehouse import Warehouse

        rows = waiting_rows(Warehouse(load_settings().warehouse_path))
        for row in rows.itertuples():
            click.echo(
                f"{row.quarantine_id}  {row.table_name}  {row.ticker}  {row.rule}"
                f"  payload {row.payload_sha256:.12}  {row.row_json}"
            )
        click.echo(f"{len(rows)} rows wait in quarantine", err=True)


@quarantine.command("release")
@click.argument("ids", nargs=-1, required=True)
def release_quarantine(ids: tuple[str, ...]) -> None:
    """Take quarantined rows in after all, as revisions known from now on."""
    with plain_errors():
        settings = load_settings()
        from rnn_pipeline.market.asking import utc_now
        from rnn_pipeline.market.commit import release
        from rnn_pipeline.warehouse import PayloadStore, Warehouse

        lines = release(
            Warehouse(settings.warehouse_path),
            PayloadStore(settings.payload_dir),
            ids,
            "release",
            utc_now(),
        )
        click.echo(f"{sum(line.rows_in for line in lines)} rows released")


@main.command()
@click.option("--cuts", default=2, show_default=True, help="dates after which the future changes")
@click.option("--tickers", default="", help="comma-separated; default: three with most history")
@click.option("--seed", default=0, show_default=True, help="of the dates")
def lookahead(cuts: int, tickers: str, seed: int) -> None:
    """Prove on the stored data that no row uses what was known after it.

    Runs the whole chain, with small networks, on full knowledge and again with everything after
    each date cut off, scrambled and restated, and compares every asset bit for bit. Exits with 1
    where a row of the past has moved, and names it.
    """
    with plain_errors():
        settings = load_settings()
        from rnn_pipeline.audit import audit, longest, summary
        from rnn_pipeline.warehouse import Warehouse

        store = Warehouse(settings.warehouse_path)
        chosen = [name.strip().upper() for name in tickers.split(",") if name.strip()]
        try:
            findings = audit(
                store,
                chosen or longest(store),
                settings,
                cuts,
                seed,
                progress=lambda line: click.echo(f"  {line}", err=True),
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    click.echo(summary(findings).to_string(index=False))
    for difference in findings.differences:
        click.echo(str(difference))
    click.echo("the past stands still" if findings.clean else "LOOK-AHEAD FOUND")
    raise SystemExit(not findings.clean)


@main.command()
@click.option("--ticker", required=True, help="whose signal")
@click.option("--session", required=True, type=click.DateTime(["%Y-%m-%d"]), help="of which day")
def replay(ticker: str, session: datetime) -> None:
    """Make a past signal again from what was known then, and say whether it is the same.

    Exits with 1 where it is not, and names what differs and which code, network or data caused it.
    """
    with plain_errors():
        load_settings()
        from rnn_pipeline.defs.features import SENTIMENT_MODEL
        from rnn_pipeline.defs.networks import checkpoint_path
        from rnn_pipeline.defs.partitions import SETTINGS
        from rnn_pipeline.replay import replay as made_again
        from rnn_pipeline.warehouse import Warehouse

        ticker = ticker.upper()
        try:
            found = made_again(
                Warehouse(SETTINGS.warehouse_path),
                SETTINGS,
                ticker,
                session.date(),
                lambda model: checkpoint_path(model, ticker),
                SENTIMENT_MODEL,
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    counts = ", ".join(f"{number} of {stage}" for stage, number in found.compared.items())
    click.echo(f"{ticker} {session:%Y-%m-%d}: compared {counts}")
    if len(found.differences):
        click.echo(found.differences.to_string(index=False, max_rows=20))
    for cause in found.causes:
        click.echo(cause)
    for row in found.revisions.itertuples():
        click.echo(
            f"known since: revision {row.revision} of {row.session:%Y-%m-%d} ({row.reason},"
            f" {row.known_at:%Y-%m-%d %H:%M})"
        )
    click.echo("same" if found.same else "DIFFERENT")
    raise SystemExit(not found.same)


@main.command()
@click.option("--ticker", required=True, help="whose history to search on")
@click.option("--trials", type=click.IntRange(1), help="in all; default: tuning.n_trials")
@click.option("--fold", default=0, show_default=True, help="in whose training span")
def tune(ticker: str, trials: int | None, fold: int) -> None:
    """Search for better settings inside the training span of one fold.

    Goes on where an earlier search was cut off, and prints a fragment for rnn_pipeline.toml.
    """
    with plain_errors():
        instance = prepare(load_settings())
        from rnn_pipeline.defs.partitions import SETTINGS, range_tags, register_tickers
        from rnn_pipeline.defs.tuning import fragment_path

        ticker = ticker.upper()
        known = register_tickers(instance, SETTINGS)
        if ticker not in known:
            raise click.ClickException(f"{ticker} is not in the universe: {', '.join(known)}")
        config: dict[str, object] = {"fold": fold}
        if trials is not None:
            config["trials"] = trials
        run_job(instance, "tune", range_tags([ticker]), {"tuning_trials": config})
    click.echo(fragment_path(ticker).read_text(), nl=False)


@main.command()
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
