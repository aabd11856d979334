"""What to do at the next open, and why: signals, decisions, orders and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

    from rnn_pipeline.warehouse import Warehouse

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
_SIGNAL_COLUMNS = {
    "ticker": "ticker",
    "session": "session",
    "price_contribution": "price adds",
    "sentiment_contribution": "sentiment adds",
    "signal": "signal",
    "label": "label",
    "grade": "evidence",
}
_SOURCE_COLUMNS = {
    "ticker": "ticker",
    "source": "source",
    "says": "says",
    "standardised": "on a scale",
    "grade": "evidence",
    "weight": "weight",
    "contribution": "adds",
}
_ORDER_COLUMNS = {
    "ticker": "ticker",
    "side": "side",
    "shares": "shares",
    "price": "price",
    "notional": "notional",
    "held_shares": "held",
    "target_shares": "target",
    "target_weight": "weight",
}
_ORDER_FIELDS = ("side", "shares", "price", "notional", "held_shares", "target_shares")
_FORMATS = {
    "standardised": "+.2f",
    "weight": ".2f",
    "contribution": "+.2f",
    "shares": ",g",
    "price": ",.2f",
    "notional": ",.0f",
    "held_shares": ",g",
    "target_shares": ",g",
    "target_weight": "+.1%",
}
_TEXTS = {"ticker", "session", "label", "grade", "source", "side"}
_NOTHING_HELD = "none"

_session = click.option(
    "--session",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="which; default: the newest one",
)
_ticker = click.option("--ticker", "tickers", multiple=True, help="only this one; repeatable")
_json = click.option("--json", "as_json", is_flag=True, help="print JSON, for other programs")


@click.command(epilog="Example: rnn-pipeline signals --session 2013-02-20 --ticker AAPL --json")
@_session
@_ticker
@_json
def signals(session: datetime | None, tickers: tuple[str, ...], as_json: bool) -> None:
    """Show the signals of a session and what each source adds to them."""
    from rnn_pipeline.reporting.tables import format_value
    from rnn_pipeline.trading.policies import SENTIMENT

    with plain_errors():
        store = _stored(load_settings())
        rows = _of_session(store, "trading_signals", session, tickers)
        day, chosen = rows["session"].iloc[0].date(), rows["ticker"].tolist()
        added = store.rows("signal_contributions", session=day, ticker=chosen)
    if as_json:
        by_ticker = dict(iter(added.drop(columns=["session", "run_id"]).groupby("ticker")))
        _print_json(
            {
                **record,
                "contributions": _records(by_ticker[record["ticker"]].drop(columns="ticker")),
            }
            for record in _records(rows.drop(columns="run_id"))
        )
        return
    print_table(f"Signals of {day} by the policy {rows['policy'].iloc[0]}", _SIGNAL_COLUMNS, rows)
    # A forecast is a return, sentiment a level.
    spoken = [
        format_value(level, "+.2f" if source == SENTIMENT else "+.2%")
        for source, level in zip(added["source"], added["forecast"], strict=True)
    ]
    print_table("What each source adds", _SOURCE_COLUMNS, added.assign(says=spoken))
    for row in rows.itertuples():
        click.echo(f"{row.ticker}: {row.reason}")


@click.command(epilog="Example: rnn-pipeline decisions --holdings holdings.csv --export orders.csv")
@_session
@_ticker
@click.option(
    "--holdings",
    help="CSV file of ticker,shares[,price]; lists the orders from there to the decisions;"
    f" `{_NOTHING_HELD}`: from nothing",
)
@click.option(
    "--export",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write them, with their orders, to a .csv, .json or .parquet file",
)
@_json
def decisions(
    session: datetime | None,
    tickers: tuple[str, ...],
    holdings: str | None,
    export: Path | None,
    as_json: bool,
) -> None:
    """Show what to hold from the next open, and why.

    With --holdings, also what to buy and sell for it, in the output of --export and --json, too.
    """
    with plain_errors():
        settings = load_settings()
        store = _stored(settings)
        rows = _of_session(store, "decisions_v1", session, tickers)
        wanted = None if holdings is None else _orders(store, settings, rows, holdings)
        if wanted is not None:
            exported = rows.merge(wanted[["ticker", *_ORDER_FIELDS]], on="ticker", how="left")
        else:
            exported = rows
        if export is not None:
            _write(exported, export)
            click.echo(f"{len(rows)} decisions written to {export}", err=True)
    if as_json:
        _print_json(_records(exported))
        return
    print_table(
        f"Decisions at the open after {rows['session'].iloc[0]:%Y-%m-%d}", _DECISION_COLUMNS, rows
    )
    for row in rows.itertuples():
        click.echo(f"{row.ticker}: {row.action}. {row.reason}")
    if wanted is None:
        return
    click.echo()
    if wanted.empty:
        click.echo("Nothing to order: what is held is what was decided.")
        return
    print_table("Orders", _ORDER_COLUMNS, wanted)


@click.command(epilog="Example: rnn-pipeline report --open")
@click.option("--open", "in_browser", is_flag=True, help="open it in the browser")
def report(in_browser: bool) -> None:
    """Print the path of the HTML report, or open it."""
    with plain_errors():
        path = load_settings().report_path
    if not path.exists():
        raise click.ClickException(
            f"there is no report at {path} yet: `rnn-pipeline demo` makes one, and so does every"
            " daily run"
        )
    click.echo(path)
    if in_browser and click.launch(str(path)):
        raise click.ClickException("no browser could be started: open the path above")


def show_decisions(settings: Settings) -> None:
    """Print the newest session's decisions, who has none and why, and the report's path."""
    from rnn_pipeline.defs.partitions import universe
    from rnn_pipeline.trading.decisions import current_decisions
    from rnn_pipeline.warehouse import open_warehouse

    store = open_warehouse(settings)
    tickers = list(universe(settings))
    current = current_decisions(store.rows("trading_decisions", ticker=tickers))
    left_out = store.rows("window_sets", "ticker, status", ticker=tickers, folds=0)
    print_table("Decisions at the next open", _DECISION_COLUMNS, current)
    for row in current.itertuples():
        click.echo(f"{row.ticker}: {row.reason}")
    for row in left_out.itertuples():
        click.echo(f"{row.ticker}: no signal, {row.status}")
    click.echo(f"\nReport: {settings.report_path}")


def print_table(title: str, columns: Mapping[str, str], rows: pd.DataFrame) -> None:
    """Print rows on the standard output, narrow enough for 80 columns, which is what a pipe gets.

    Args:
        title: above the table.
        columns: of the frame, in order, and their headings.
        rows: the frame.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from rnn_pipeline.reporting.tables import FORMATS, format_value

    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for name, heading in columns.items():
        justify: Literal["left", "right"] = "left" if name in _TEXTS else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    formats = {**FORMATS, **_FORMATS}
    for row in rows.to_dict("records"):
        table.add_row(*(format_value(row[name], formats.get(name, "")) for name in columns))
    Console().print(table)


def _stored(settings: Settings) -> Warehouse:
    from rnn_pipeline.warehouse import open_warehouse

    store = open_warehouse(settings)
    if not store.exists():
        raise click.ClickException(
            f"there is no warehouse at {store} yet: run `rnn-pipeline demo`, or"
            " set data_dir to where it is"
        )
    return store


def _of_session(
    store: Warehouse, table: str, session: datetime | None, tickers: tuple[str, ...]
) -> pd.DataFrame:
    """Rows of one session, by ticker.

    Raises:
        click.ClickException: there are none, of the session or of a ticker that was asked for.
    """
    wanted = [ticker.upper() for ticker in tickers]
    day = session.date() if session is not None else None
    if day is None:
        newest = store.read(f"SELECT max(session) AS session FROM {table}")["session"].iloc[0]
        if newest is None or newest != newest:
            raise click.ClickException(
                "nothing was decided yet: run `rnn-pipeline demo`, or materialize trading_decisions"
            )
        day = newest.date()
    rows = store.rows(table, session=day, ticker=wanted or None)
    missing = sorted(set(wanted) - set(rows["ticker"])) if wanted else []
    if rows.empty or missing:
        raise click.ClickException(
            f"nothing is stored for {', '.join(missing) or 'any ticker'} on {day}: it is no"
            " session, lies before the first test session, or was never materialized"
        )
    return rows.sort_values("ticker", ignore_index=True)


def _orders(
    store: Warehouse, settings: Settings, rows: pd.DataFrame, holdings: str
) -> pd.DataFrame:
    """Orders from a file of holdings to the decisions, at the close that they were made at."""
    from rnn_pipeline.trading.orders import orders, read_holdings

    day = rows["session"].iloc[0].date()
    try:
        held = None if holdings == _NOTHING_HELD else read_holdings(Path(holdings))
        wanted = orders(rows, store.bars(rows["ticker"], day, day), settings.trading, held)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    left_alone = set() if held is None else set(held["ticker"]) - set(rows["ticker"])
    for ticker in sorted(left_alone):
        click.echo(f"{ticker} is held, but nothing was decided of it: left alone", err=True)
    return wanted


def _write(rows: pd.DataFrame, path: Path) -> None:
    """Write a frame as its file's name says.

    Raises:
        click.ClickException: by another name than three, or it cannot be written.
    """
    try:
        if path.suffix == ".csv":
            rows.to_csv(path, index=False)
        elif path.suffix == ".json":
            path.write_text(json.dumps(_records(rows), indent=2) + "\n")
        elif path.suffix == ".parquet":
            rows.to_parquet(path, index=False)
        else:
            raise click.ClickException(
                f"--export {path}: the name must end in .csv, .json or .parquet"
            )
    except OSError as error:
        raise click.ClickException(f"--export {path}: {error.strerror or error}") from None


def _records(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as JSON has them: sessions as dates, moments in UTC, null for what is not known."""
    frame = rows.copy()
    if "session" in frame:
        frame["session"] = frame["session"].dt.strftime("%Y-%m-%d")
    text = frame.to_json(orient="records", date_format="iso", double_precision=15)
    records: list[dict[str, object]] = json.loads(text)
    return records


def _print_json(records: object) -> None:
    click.echo(json.dumps(list(records), indent=2))  # type: ignore[call-overload]
