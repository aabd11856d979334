"""What an asset shows on its page: plots as pictures, frames as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from rnn_pipeline.reporting import plots
from rnn_pipeline.reporting.tables import EVIDENCE_FORMATS, table_markdown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def picture(figure: "Figure") -> dg.MarkdownMetadataValue:
    """A plot that the UI shows inline."""
    return dg.MetadataValue.md(f"![plot]({plots.data_uri(figure, 'png')})")


def table(frame: "pd.DataFrame", columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """A frame as a table that the UI shows inline."""
    formats = dict.fromkeys(frame.select_dtypes("float").columns, ",.4g")
    return dg.MetadataValue.md(
        table_markdown(frame, list(columns or frame.columns), formats | EVIDENCE_FORMATS)
    )


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
        metadata={"suite": dg.MetadataValue.json(verdict.summary)},
    )
