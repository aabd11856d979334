"""How the pipeline is, and what its decisions earned on paper."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from rnn_pipeline.health import Finding

#: Seconds to wait for a run to let go of the warehouse.
_PATIENCE = 3.0
#: Seconds after which a daemon that says nothing is taken for dead.
_HEARTBEAT = 120
_MARKS = {"healthy": ("ok", "green"), "stale": ("stale", "yellow"), "broken": ("BROKEN", "red")}


@click.command(epilog="Example: rnn-pipeline backfill; rnn-pipeline doctor --alert")
@click.option("--json", "as_json", is_flag=True, help="findings as JSON")
@click.option("--alert", is_flag=True, help="tell a person, by the ways set below alerts")
def doctor(as_json: bool, alert: bool) -> None:
    """Say what is healthy, stale or broken, and the command that mends it.

    Exits with 1 where anything is not healthy.
    """
    found = _examine()
    if alert:
        _tell(found)
    if as_json:
        lines = [
            {"area": one.area, "state": one.state, "says": one.says, "command": one.command}
            for one in found
        ]
        click.echo(json.dumps(lines, indent=1))
    else:
        _show(found)
    raise SystemExit(any(one.state != "healthy" for one in found))


def _examine() -> list[Finding]:
    """Everything; nothing that is wrong may keep the page from being written."""
    from rnn_pipeline.health import Finding, Patient, examine

    try:
        settings = load_settings()
        # The universe can depend on files, the calendar on the setting: both may be wrong.
        from rnn_pipeline.defs.partitions import last_day, universe
        from rnn_pipeline.market.calendar import SessionCalendar
        from rnn_pipeline.warehouse import open_warehouse

        now = datetime.now(UTC)
        tickers = universe(settings)
        closed = SessionCalendar(settings.exchange).last_closed(now)
    except (SettingsError, ValueError, OSError) as error:
        advice = "mend rnn_pipeline.toml or the environment; docs/settings.md has every key"
        return [Finding("settings", "broken", f"{' '.join(str(error).split())}; {advice}")]
    says = f"source {settings.source}, {len(tickers)} tickers, data in {settings.home}"
    patient = Patient(
        settings,
        open_warehouse(settings, _PATIENCE),
        tickers,
        last_day(settings),
        now,
    )
    return [
        Finding("settings", "healthy", says),
        Finding("calendar", "healthy", f"{settings.exchange} last closed on {closed:%Y-%m-%d}"),
        *examine(patient),
        *_dagster(settings),
    ]


def _dagster(settings: Settings) -> Iterator[Finding]:
    """Whether the daemon lives that fires schedules and sensors, and how the last run ended."""
    from rnn_pipeline.health import Finding

    if not (settings.dagster_home / "dagster.yaml").exists():
        yield Finding("daemon", "healthy", "never started; needed for schedules and sensors alone")
        return
    import dagster as dg

    from rnn_pipeline.cli.running import prepare
    from rnn_pipeline.defs.killed_runs import killed_runs

    try:
        with prepare(settings) as instance:
            beats = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
            ended = instance.get_run_records(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]),
                limit=1,
            )
            killed = [run.job_name for run in killed_runs(instance)]
    except Exception as error:
        yield Finding(
            "daemon",
            "broken",
            f"Dagster's files in {settings.dagster_home} cannot be read ({type(error).__name__}):"
            " move the folder away, then",
            "rnn-pipeline backfill",
        )
        return
    silent = time.time() - max(beats, default=0.0)
    if not beats:
        yield Finding("daemon", "healthy", "never started; needed for schedules and sensors alone")
    elif silent > _HEARTBEAT:
        yield Finding(
            "daemon",
            "stale",
            f"silent for {silent / 3600:.1f} hours, so no schedule fires",
            "rnn-pipeline ui",
        )
    else:
        yield Finding("daemon", "healthy", "alive; schedules and sensors fire")
    if killed:
        says = f"the run of {killed[0]} was killed in the middle; the next one does its work again"
        yield Finding("runs", "broken", says, _again(killed[0]))
        return
    for record in ended:
        run = record.dagster_run
        if run.is_failure:
            says = f"the last run, {run.job_name}, failed"
            yield Finding("runs", "broken", says, _again(run.job_name))
        else:
            yield Finding("runs", "healthy", f"the last run, {run.job_name}, succeeded")


def _again(job: str) -> str:
    """The command that does a job's work."""
    return f"rnn-pipeline {job if job in ('retrain', 'demo') else 'backfill'}"


def _tell(found: list[Finding]) -> None:
    from rnn_pipeline.alerts import deliver, hooks_of

    settings = load_settings()
    alerts = [one.alert() for one in found if one.state != "healthy"]
    delivery = deliver(alerts, hooks_of(settings.alerts), settings.alert_memory, datetime.now(UTC))
    for name, keys in delivery.told.items():
        click.echo(f"told by {name}: {', '.join(keys)}", err=True)


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for one in found:
        word, colour = _MARKS[one.state]
        words = Text(one.says)
        if one.command:
            words.append("\n-> ").append(one.command, style="bold")
        table.add_row(Text(word, style=colour), one.area, words)
    Console().print(table)


@click.command(epilog="Example: rnn-pipeline paper --json")
@click.option("--json", "as_json", is_flag=True, help="account and fills as JSON")
def paper(as_json: bool) -> None:
    """Show what decisions earned on paper, beside the backtest, and why it is not the same."""
    with plain_errors():
        settings = load_settings()
        from rnn_pipeline.warehouse import open_warehouse

        store = open_warehouse(settings)
        account, fills = store.rows("paper_account"), store.rows("paper_fills")
    if as_json:
        frames = {"account": account, "fills": fills}
        rows = {
            name: json.loads(frame.to_json(orient="records", date_format="iso", date_unit="s"))
            for name, frame in frames.items()
        }
        click.echo(json.dumps(rows))
        return
    if account.empty:
        raise click.ClickException(
            "no decision was recorded yet: run `rnn-pipeline backfill`, or set paper.start to"
            " simulate from a session on"
        )
    from rich.console import Console
    from rich.table import Table

    from rnn_pipeline.trading.paper import EXPLANATIONS

    last = account.iloc[-1]
    first = account["session"].iloc[0]
    explained = Table(
        title=f"Paper account, {first:%Y-%m-%d} to {last['session']:%Y-%m-%d}",
        title_justify="left",
        box=None,
        show_header=False,
        pad_edge=False,
    )
    explained.add_row("the backtest promises", f"{last['promise'] - 1:+.3%}", "")
    for name, words in EXPLANATIONS.items():
        explained.add_row(name, f"{last[name]:+.3%}", words)
    explained.add_row("the paper account has", f"{last['equity'] - 1:+.3%}", "")
    console = Console()
    console.print(explained)
    missed = fills.loc[fills["missed"] != "", "missed"].value_counts()
    filled = len(fills) - int(missed.sum())
    why = "".join(f", {count} missed ({reason})" for reason, count in missed.items())
    console.print(f"{filled} orders filled{why}", soft_wrap=True)
