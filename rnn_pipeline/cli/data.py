"""The raw tables: made again from payloads or an older file, and rows that wait in quarantine."""

from __future__ import annotations

from pathlib import Path

import click

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.settings import SettingsError, load_settings


@click.command()
def rebuild() -> None:
    """Make the warehouse's raw tables anew from the kept payloads; the old file stays beside it."""
    with plain_errors():
        settings = load_settings()
        if settings.warehouse.engine != "file":
            raise SettingsError(
                f"warehouse.engine = {settings.warehouse.engine!r}: rebuilding makes a file; set it"
                ' to "file", rebuild, and carry the tables over with `rnn-pipeline migrate`'
            )
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


@click.command()
def upgrade() -> None:
    """Bring the warehouse of an older version of this program to this one's layout.

    Every raw row and record goes over with its revision and the moment from which it was known. The
    old state can still be had: as a file beside the new one, or as a snapshot of the lake.
    """
    with plain_errors():
        from rnn_pipeline.market.rebuild import upgrade as bring_over
        from rnn_pipeline.warehouse import open_warehouse

        store = open_warehouse(load_settings())
        if not (copied := bring_over(store)):
            click.echo(f"{store} has this program's layout already", err=True)
            return
        click.echo(
            f"{sum(copied.values()):,} rows of {len(copied)} tables brought into {store};"
            " `rnn-pipeline demo` makes the other tables again"
        )


@click.group()
def migrate() -> None:
    """Carry the warehouse to another engine: save it, change the settings, load it."""


@migrate.command("save")
@click.argument("folder", type=click.Path(path_type=Path))
def save_warehouse(folder: Path) -> None:
    """Write every table of the warehouse into a new folder, as Parquet files."""
    with plain_errors():
        from rnn_pipeline.warehouse import open_warehouse
        from rnn_pipeline.warehouse.migration import save

        store = open_warehouse(load_settings())
        rows = save(store, folder)
        click.echo(f"{sum(rows.values()):,} rows of {len(rows)} tables of {store} saved: {folder}")


@migrate.command("load")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def load_warehouse(folder: Path) -> None:
    """Fill an empty warehouse with what was saved; rows and hashes of every table are compared."""
    with plain_errors():
        from rnn_pipeline.warehouse import open_warehouse
        from rnn_pipeline.warehouse.migration import load

        store = open_warehouse(load_settings())
        rows = load(store, folder)
        click.echo(
            f"{sum(rows.values()):,} rows of {len(rows)} tables in {store}: counts and hashes are"
            " those that were saved"
        )


@click.group()
def quarantine() -> None:
    """Rows that broke a rule: show them, or take them in after all."""


@quarantine.command("list")
def list_quarantine() -> None:
    """Show every row in quarantine: its id, ticker, rule, payload and values."""
    with plain_errors():
        from rnn_pipeline.market.quarantine import waiting_rows
        from rnn_pipeline.warehouse import open_warehouse

        rows = waiting_rows(open_warehouse(load_settings()))
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
        from rnn_pipeline.warehouse import PayloadStore, open_warehouse

        lines = release(
            open_warehouse(settings),
            PayloadStore(settings.payload_dir),
            ids,
            "release",
            utc_now(),
        )
        click.echo(f"{sum(line.rows_in for line in lines)} rows released")
