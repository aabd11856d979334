"""Which networks speak: the registry's versions, and a person's say in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import click

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

    from rnn_pipeline.warehouse import Warehouse

_SHOWN = ("slot", "ticker", "version", "state", "since", "age", "sessions", "R²", "p")

_ticker = click.option("--ticker", multiple=True, help="only of this one; may be repeated")


@click.command()
@_ticker
@click.option("--all", "every", is_flag=True, help="retired versions, too, with their reasons")
@click.option("--json", "as_json", is_flag=True, help="one JSON object per version")
def models(ticker: tuple[str, ...], every: bool, as_json: bool) -> None:
    """List the versions of every model: state, age, and how they did since.

    Age is in sessions since the end of training. Sessions, the share of squared error saved against
    forecasting zero and, of candidates, the p-value of beating the champion count what neither the
    networks nor whoever wrote their recipe had seen.

    Example: rnn-pipeline models --ticker AAPL
    """
    with plain_errors():
        store = _store()
        listed = _listed(store, _chosen(store, "", ticker)["ticker"].tolist(), every)
        if as_json:
            text = listed.to_json(orient="records", lines=True, date_format="iso", date_unit="s")
            click.echo(text, nl=False)
            return
        _print(listed)
        if every:
            for row in listed[listed["state"] == "retired"].itertuples():
                click.echo(f"{row.slot} of {row.ticker}, version {row.version}: {row.reason}")


@click.command()
@click.argument("model")
@_ticker
@click.option("--force", is_flag=True, help="without evidence; the registry keeps that in mind")
def promote(model: str, ticker: tuple[str, ...], force: bool) -> None:
    """Make the candidates of a slot of the settings champions, from the next session on.

    That happens by itself once a candidate has beaten its champion on sessions that neither had
    seen. Without such evidence it is refused, unless forced.

    Example: rnn-pipeline promote lstm --ticker AAPL --force
    """
    with plain_errors():
        store = _store()
        from rnn_pipeline.defs.models import append_events
        from rnn_pipeline.evidence.comparison import compare
        from rnn_pipeline.networks import registry

        events = store.rows("models")
        chosen = _chosen(store, model, ticker)
        asked = registry.challenges(events).merge(chosen, on=["ticker", "slot"])
        if asked.empty:
            raise click.ClickException(f"{model} has no candidate: `rnn-pipeline models` lists all")
        verdicts = compare(_forecasts(store, asked), asked)
        weak = verdicts[~verdicts["beaten"]]
        if len(weak) and not force:
            told = "; ".join(
                f"{row.ticker}: {row.sessions} sessions, p {row.p_value:.3f}"
                for row in weak.head(5).itertuples()
            )
            raise click.ClickException(
                f"no evidence that the candidate of {model} is better ({told}): wait for it, or"
                " say --force"
            )
        change = "forced" if len(weak) else "promoted"
        reason = "by hand, " + ("without evidence" if len(weak) else "with evidence")
        added = registry.promote(events, asked, _following(store), _now(), change, reason)
        append_events(store, added, "promote")
    click.echo(f"{len(asked)} candidates of {model} are champions from the next session on")


@click.command()
@click.argument("model")
@_ticker
def rollback(model: str, ticker: tuple[str, ...]) -> None:
    """Go back to the champion before the present one, from the next session on.

    Example: rnn-pipeline rollback lstm --ticker AAPL
    """
    with plain_errors():
        store = _store()
        from rnn_pipeline.defs.models import append_events, serving_files
        from rnn_pipeline.networks import registry

        events = store.rows("models")
        chosen = _chosen(store, model, ticker)
        try:
            added = registry.rollback(
                events, chosen, _following(store), _now(), serving_files().kept()
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        append_events(store, added, "rollback")
    back = added[added["state"] == "champion"]
    for row in back.itertuples():
        click.echo(f"{row.ticker}: version {row.version} of {row.model}, fold {row.fold}")


def _store() -> Warehouse:
    from rnn_pipeline.warehouse import open_warehouse

    return open_warehouse(load_settings())


def _now() -> pd.Timestamp:
    import pandas as pd

    return pd.Timestamp(datetime.now(UTC))


def _following(store: Warehouse) -> pd.Timestamp:
    """The first day that a change can be about: the one after the newest session."""
    import pandas as pd

    last = store.last_session()
    if last is None:
        raise click.ClickException("the warehouse holds no bars: run `rnn-pipeline demo` first")
    return pd.Timestamp(last) + pd.Timedelta(days=1)


def _chosen(store: Warehouse, slot: str, tickers: tuple[str, ...]) -> pd.DataFrame:
    """Tickers and slots of the registry that a command is about; a pooled network's are one.

    Raises:
        click.ClickException: nothing is registered under these names.
    """
    known = store.rows("models", "DISTINCT ticker, slot, pooled")
    wanted = [name.upper() for name in tickers]
    if known.empty:
        raise click.ClickException("no networks were trained yet: run `rnn-pipeline demo` first")
    found = known[known["slot"] == slot] if slot else known
    if found.empty:
        names = ", ".join(sorted(known["slot"].unique()))
        raise click.ClickException(f"no model is called {slot!r}, but there are {names}")
    if absent := sorted(set(wanted) - set(found["ticker"])):
        raise click.ClickException(f"{', '.join(absent)} has no networks")
    if slot and wanted and found["pooled"].any():
        raise click.ClickException(f"{slot} is one network over all tickers: leave --ticker out")
    if wanted:
        found = found[found["ticker"].isin(wanted)]
    return found[["ticker", "slot"]].reset_index(drop=True)


def _forecasts(store: Warehouse, asked: pd.DataFrame) -> pd.DataFrame:
    """What candidates and their champions forecast since both were there."""
    names = [*asked["candidate"], *asked["champion"]]
    since, last = asked["seen_until"].min(), store.last_session()
    return store.rows(
        "recipe_forecasts",
        ticker=asked["ticker"].unique().tolist(),
        model=sorted(set(names)),
        session=(since, last),
    )


def _listed(store: Warehouse, tickers: list[str], every: bool) -> pd.DataFrame:
    """One row per version, the newest state of each."""
    import pandas as pd

    from rnn_pipeline.defs.resources import MARKET
    from rnn_pipeline.evidence.comparison import compare
    from rnn_pipeline.networks import registry

    events = store.rows("models", ticker=sorted(set(tickers)))
    keys = ["ticker", "model", "version"]
    rows = events.sort_values("event").groupby(keys, as_index=False).tail(1)
    if not every:
        rows = rows[rows["state"] != "retired"]
    last = (_following(store) - pd.Timedelta(days=1)).date()
    axis = MARKET.calendar.sessions(rows["trained_until"].min().date(), last)
    ages = len(axis) - axis.searchsorted(pd.DatetimeIndex(rows["trained_until"])) - 1
    # The first champions speak for all of their walk-forward; they are there since they were made.
    begun = rows["created_at"].dt.tz_localize(None).dt.normalize()
    since = rows["from_session"].where(rows["from_session"] > registry.BEGINNING, begun)
    rows = rows.assign(age=ages, since=since)
    lived = store.read(
        "SELECT f.ticker, f.model, f.version, count(DISTINCT f.session) AS sessions,"
        " 1 - sum((f.forecast - f.actual) ** 2) / nullif(sum(f.actual ** 2), 0) AS saved"
        " FROM recipe_forecasts f WHERE f.version IS NOT NULL AND f.actual IS NOT NULL"
        " GROUP BY ALL"
    )
    rows = rows.merge(lived, on=keys, how="left")
    asked = registry.challenges(events)
    if len(asked):
        verdicts = compare(_forecasts(store, asked), asked)[["ticker", "slot", "p_value"]]
        verdicts = verdicts.assign(state="candidate")
        rows = rows.merge(verdicts, on=["ticker", "slot", "state"], how="left")
    else:
        rows = rows.assign(p_value=float("nan"))
    return rows.sort_values(["slot", "ticker", "event"], ignore_index=True)


def _print(listed: pd.DataFrame) -> None:
    """A table of 80 columns; the tickers of a pooled network, or of like rows, are one line."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from rnn_pipeline.reporting.tables import format_value

    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for number, heading in enumerate(_SHOWN):
        # A long name is folded rather than a column cut off.
        justify: Literal["left", "right"] = "left" if number < 5 else "right"
        table.add_column(heading, justify=justify, no_wrap=number > 0, overflow="fold")
    pooled = listed["pooled"].astype(bool)
    ones = listed[~pooled | ~listed.duplicated(["slot", "version"])]
    for row in ones.itertuples():
        table.add_row(
            str(row.model),
            "all" if row.pooled else str(row.ticker),
            str(row.version)[:8],
            str(row.state),
            format_value(row.since, "%Y-%m-%d"),
            format_value(row.age, ",.0f"),
            format_value(row.sessions, ",.0f"),
            format_value(row.saved, "+.2%"),
            format_value(row.p_value, ".3f"),
        )
    Console().print(table)
