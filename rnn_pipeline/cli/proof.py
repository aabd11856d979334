"""Proofs about the past, and the search that may see only one fold's."""

from __future__ import annotations

from datetime import datetime

import click

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.cli.running import DAY, prepare, run_job
from rnn_pipeline.settings import load_settings


@click.command()
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
        from rnn_pipeline.warehouse import open_warehouse

        store = open_warehouse(settings)
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


@click.command()
@click.option("--ticker", required=True, help="whose signal")
@click.option("--session", required=True, type=DAY, metavar="YYYY-MM-DD", help="of which day")
def replay(ticker: str, session: datetime) -> None:
    """Make a past signal again from what was known then, and say whether it is the same.

    Exits with 1 where it is not, and names what differs and which code, network or data caused it.
    """
    with plain_errors():
        load_settings()
        from rnn_pipeline.defs.features import SENTIMENT_MODEL
        from rnn_pipeline.defs.models import serving_files
        from rnn_pipeline.defs.networks import checkpoint_path
        from rnn_pipeline.defs.partitions import SETTINGS
        from rnn_pipeline.replay import replay as made_again
        from rnn_pipeline.warehouse import open_warehouse

        ticker = ticker.upper()
        try:
            found = made_again(
                open_warehouse(SETTINGS),
                SETTINGS,
                ticker,
                session.date(),
                lambda model: checkpoint_path(model, ticker),
                SENTIMENT_MODEL,
                serving_files(),
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


@click.command()
@click.option("--ticker", required=True, help="whose history to search on")
@click.option("--trials", type=click.IntRange(1), help="in all; default: tuning.n_trials")
@click.option("--fold", default=0, show_default=True, help="in whose training span")
def tune(ticker: str, trials: int | None, fold: int) -> None:
    """Search for better settings inside the training span of one fold.

    Goes on where an earlier search was cut off, and prints a fragment for rnn_pipeline.toml.
    """
    with plain_errors():
        instance = prepare(load_settings())
        from rnn_pipeline.defs.partitions import SETTINGS, range_tags, registered_tickers
        from rnn_pipeline.defs.tuning import fragment_path

        ticker = ticker.upper()
        known = registered_tickers(instance, SETTINGS)
        if ticker not in known:
            raise click.ClickException(f"{ticker} is not in the universe: {', '.join(known)}")
        config: dict[str, object] = {"fold": fold}
        if trials is not None:
            config["trials"] = trials
        run_job(instance, "tune", range_tags([ticker]), {"tuning_trials": config})
    click.echo(fragment_path(ticker).read_text(), nl=False)
