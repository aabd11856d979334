"""What an asset shows on its page: counts, plots as pictures, frames as tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rnn_pipeline.defs.partitions import every_ticker
from rnn_pipeline.defs.pending import only_new
from rnn_pipeline.reporting import plots
from rnn_pipeline.reporting.tables import table_markdown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Tickers up to which a daily run draws the plots of what it made, too.
DRAWN = 50


def show(
    context: dg.AssetExecutionContext,
    **shown: "Figure | Callable[[], Figure] | pd.DataFrame | dg.MarkdownMetadataValue",
) -> None:
    """Show plots and tables on the asset's page.

    A daily run of more than :data:`DRAWN` tickers draws no plot that is left to be drawn.

    Dagster copies the metadata of a result into the event of every partition, and a run can have
    thousands. What is large goes to few of them alone: the newest partition, and the one whose
    event comes last, with which the asset's page opens.
    """
    from rnn_pipeline.defs.event_log import last_written

    hurried = only_new(context) and len(every_ticker(context)) > DRAWN
    values = {
        name: _shown(name, value)
        for name, value in shown.items()
        if not (callable(value) and hurried)
    }
    partitions_def = context.assets_def.partitions_def
    if partitions_def is None:
        context.add_asset_metadata(values)
        return
    keys = context.partition_keys
    # Dagster makes the events in the order of a set of the keys, and some storages keep it.
    made = list(partitions_def.empty_subset().with_partition_keys(keys).get_partition_keys())
    for key in {max(keys), made[-1], last_written(made)}:
        context.add_asset_metadata(values, partition_key=key)


def _shown(
    name: str, value: "Figure | Callable[[], Figure] | pd.DataFrame | dg.MarkdownMetadataValue"
) -> dg.MarkdownMetadataValue:
    import pandas as pd

    if isinstance(value, dg.MarkdownMetadataValue):
        return value
    if isinstance(value, pd.DataFrame):
        return table(value)
    figure = value() if callable(value) else value
    return dg.MetadataValue.md(f"![{name}]({plots.data_uri(figure, 'png')})")


def table(frame: "pd.DataFrame", columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """A frame as a table that the UI shows inline."""
    return dg.MetadataValue.md(table_markdown(frame, list(columns or frame.columns)))


def ranges(frame: "pd.DataFrame") -> dict[str, Any]:
    """Row count, tickers and first and last session of a frame."""
    if frame.empty:
        return {"rows": 0}
    return {
        "rows": len(frame),
        "tickers": int(frame["ticker"].nunique()),
        "first_session": frame["session"].min().date().isoformat(),
        "last_session": frame["session"].max().date().isoformat(),
    }


def holds(name: str, verdict: Any) -> dg.AssetCheckResult:
    """A blocking check from the verdict of a Great Expectations suite; no rows is no offence."""
    failing = {rule: count for rule, count in verdict.summary["failing"].items() if count}
    passed = verdict.summary["rows"] == 0 or not verdict.summary["bad"]
    return dg.AssetCheckResult(
        check_name=name,
        passed=passed,
        description=(
            f"{verdict.summary['good']} of {verdict.summary['rows']} rows hold every rule"
            if passed
            else f"rules broken: {failing}; look at the sample, mend the rows at their source and"
            " materialize again"
        ),
        metadata={
            # Numbers, of which Dagster draws a history.
            "rows_judged": verdict.summary["rows"],
            "rows_bad": verdict.summary["bad"],
            "suite": dg.MetadataValue.json(verdict.summary),
        },
    )
