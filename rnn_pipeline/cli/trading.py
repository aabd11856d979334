"""What to do at the next open, and why."""

from __future__ import annotations

from typing import Literal

from rnn_pipeline.settings import Settings

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
_TEXTS = {"ticker", "session", "label", "evidence"}


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
