"""Values as people read them, and frames as Markdown tables for Dagster's metadata.

A format is Python's own: ``"+.2%"``, ``",.0f"``, ``"%d %b %Y"``. What Python leaves out is added
here: a true minus sign, no sign on a zero, and a dash for what is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

MISSING = "–"

#: What forecasts no return but a level: only its order and its sign can be judged.
LEVELS = ("sentiment",)
_ERRORS = ("mse", "mse_ratio", "mae", "r2_vs_zero")
FORMATS = {
    # decisions and signals
    "forecast": "+.2%",
    "sentiment": "+.2f",
    "score": "+.2f",
    "signal": "+.2f",
    "standardised": "+.2f",
    "weight": ".2f",
    "contribution": "+.2f",
    "weight_wanted": "+.1%",
    "part": "+.2%",
    "price_contribution": "+.2f",
    "sentiment_contribution": "+.2f",
    "position": "+.1%",
    "previous_position": "+.1%",
    # metrics and evidence
    "n": ",.0f",
    "n_effective": ",.0f",
    "mse": ".3e",
    "mse_ratio": ".4f",
    "mae": ".5f",
    "r2_vs_zero": "+.2%",
    "hit_rate": ".1%",
    "hit_low": ".1%",
    "hit_high": ".1%",
    "ic": "+.3f",
    "ic_t": "+.1f",
    "forecast_std": ".5f",
    "seed_dispersion": ".2f",
    "sign_flip_rate": ".0%",
    "trials": ",.0f",
    "p_value": ".2g",
    # luck, and the cross-section
    "mean_ic": "+.3f",
    "mean_ic_t": "+.1f",
    "sessions": ",.0f",
    "ic_low": "+.3f",
    "ic_high": "+.3f",
    "deflated_sharpe_ratio": ".1%",
    "superior_p": ".3f",
    "backtest_overfitting": ".0%",
    # calibration
    "level": "g",
    "coverage": ".1%",
    "low": ".1%",
    "high": ".1%",
    "pinball": ".3e",
    "unconditional": ".3e",
    "skill": "+.1%",
    # backtests
    "total_return": "+.1%",
    "annual_return": "+.1%",
    "annual_volatility": ".1%",
    "sharpe_ratio": "+.2f",
    "sortino_ratio": "+.2f",
    "break_even_bps": ".1f",
    "capacity": ",.0f",
    "max_drawdown": ".1%",
    "turnover": ".1%",
    "cost_bps": "g",
    "exposure": ".0%",
    "cost_paid": ".2%",
    # the sentiment model, and what the warehouse holds
    "accuracy": ".1%",
    "macro_f1": ".3f",
    "bars": ",.0f",
    "headlines": ",.0f",
    "rows": ",.0f",
}
"""How the frames' numbers are written, wherever they are shown: by column name."""

_NARROW_SPACE = "\u202f"
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")


def format_value(value: object, spec: str = "") -> str:
    """Write one value by a Python format specification.

    Args:
        value: a number, date, text, or anything missing (None, NaN, NaT).
        spec: a format specification; empty: a date as 2013-03-01, anything else as it is.

    Returns:
        The text; ``–`` where there is no value.

    Raises:
        ValueError: the value does not take the specification.

    Examples:
        >>> format_value(-0.0123, "+.1%")
        '−1.2\u202f%'
        >>> format_value(-0.00001, "+.2f")
        '0.00'
        >>> format_value(float("nan"), ".2f")
        '–'
    """
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return MISSING
    if not spec:
        return f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else str(value)
    text = format(value, spec)
    if isinstance(value, str) or hasattr(value, "strftime"):
        return text
    if not re.search("[1-9a-zA-Z]", text):
        text = text.lstrip("+-")
    return text.replace("-", "−").replace("%", f"{_NARROW_SPACE}%")


def table_markdown(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | Sequence[str],
    formats: Mapping[str, str] | None = None,
) -> str:
    """Lay a frame out as a Markdown table whose cells cannot break out of it.

    Args:
        frame: any frame; its index is not shown.
        columns: column -> heading, or the columns alone, which are then their own headings.
        formats: column -> format specification as of :func:`format_value`, over those of
            :data:`FORMATS`; numbers without one get six significant digits.

    Returns:
        The table, or a sentence where the frame has no rows.

    Raises:
        ValueError: the frame lacks a column.
    """
    headings = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if frame.empty:
        return "No rows."
    missing = [name for name in headings if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the columns {missing}; it has {list(frame.columns)}")
    numeric = {name for name in headings if pd.api.types.is_numeric_dtype(frame[name])}
    specs = {**dict.fromkeys(numeric, ".6g"), **FORMATS, **(formats or {})}
    rows = [
        [format_value(row[name], specs.get(name, "")) for name in headings]
        for row in frame[list(headings)].to_dict("records")
    ]
    lines = [
        "| " + " | ".join(_escape(cell) for cell in line) + " |"
        for line in [list(headings.values()), *rows]
    ]
    rule = "| " + " | ".join("---:" if name in numeric else ":---" for name in headings) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def without_level_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Blank the errors of what forecasts a level, not a return, so that tables show a dash.

    Args:
        frame: model, and any of mse, mse_ratio, mae and r2_vs_zero.
    """
    errors = [name for name in _ERRORS if name in frame.columns]
    rows = frame.copy()
    rows.loc[rows["model"].isin(LEVELS), errors] = float("nan")
    return rows


def evidence_table_markdown(frame: pd.DataFrame) -> str:
    """Write metrics or evidence as a Markdown table: the columns it has, in a reader's order.

    Args:
        frame: rows of ``forecast_metrics`` or of an evidence frame.
    """
    headings = {
        "ticker": "ticker",
        "fold": "fold",
        "model": "model",
        "n": "n",
        "mse": "MSE",
        "mae": "MAE",
        "r2_vs_zero": "R² vs zero",
        "hit_rate": "hit rate",
        "hit_low": "low",
        "hit_high": "high",
        "ic": "IC",
        "ic_t": "t(IC)",
        "seed_dispersion": "seed spread",
        "sign_flip_rate": "seeds that disagree",
        "trials": "trials",
        "p_value": "p",
        "grade": "evidence",
    }
    present = {name: text for name, text in headings.items() if name in frame.columns}
    return table_markdown(without_level_errors(frame), present)


def _escape(text: str) -> str:
    """Make a cell plain text to any Markdown renderer: no markup, no HTML, no line break."""
    plain = " ".join(text.splitlines())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", plain)
