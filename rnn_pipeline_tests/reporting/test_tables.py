from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.reporting.tables import (
    MISSING,
    evidence_table_markdown,
    format_value,
    table_markdown,
)


@pytest.mark.parametrize(
    ("value", "spec", "written"),
    [
        (0.01234, "+.2%", "+1.23\u202f%"),
        (-0.01234, "+.1%", "−1.2\u202f%"),
        (-0.0004, "+.1%", "0.0\u202f%"),
        (0.0, "+.2f", "0.00"),
        (-0.0, ".3f", "0.000"),
        (1234567.0, ",.0f", "1,234,567"),
        (-3.2e-7, ".1e", "−3.2e−07"),
        (float("inf"), ".2f", "inf"),
        (np.float64(-np.inf), "+.2f", "−inf"),
        (float("nan"), "+.2%", MISSING),
        (None, "", MISSING),
        (pd.NaT, "%d %b", MISSING),
        (pd.Timestamp("2013-03-01"), "", "2013-03-01"),
        (pd.Timestamp("2013-03-01 16:05"), "%Y-%m-%d %H:%M", "2013-03-01 16:05"),
        ("AAPL", "", "AAPL"),
        ("buy-and-hold 5%", "", "buy-and-hold 5%"),
        (True, "", "True"),
        ([0, None], "", "[0, None]"),
    ],
)
def test_values_are_written_as_people_read_them(value: object, spec: str, written: str) -> None:
    assert format_value(value, spec) == written


def test_markdown_table_aligns_numbers_and_applies_formats() -> None:
    frame = pd.DataFrame(
        {"ticker": ["AAPL", "IBM"], "forecast": [0.00123, np.nan], "depth": [1 / 3, 2.0]}
    )
    assert table_markdown(
        frame, {"ticker": "Ticker", "forecast": "Forecast", "depth": "Depth"}
    ) == (
        "| Ticker | Forecast | Depth |\n"
        "| :--- | ---: | ---: |\n"
        "| AAPL | +0.12\u202f% | 0.333333 |\n"
        "| IBM | – | 2 |"
    )
    assert "| 33\u202f% |" in table_markdown(frame, ["depth"], {"depth": ".0%"})


def test_markdown_cells_cannot_break_out() -> None:
    hostile = "a | b\n<script>alert(1)</script> [x](javascript:1) *bold* & `code`"
    table = table_markdown(pd.DataFrame({"title": [hostile]}), ["title"])
    assert table.splitlines()[2] == (
        r"| a \| b &lt;script&gt;alert(1)&lt;/script&gt; \[x\](javascript:1)"
        r" \*bold\* &amp; \`code\` |"
    )


def test_markdown_of_no_rows_and_of_a_missing_column() -> None:
    assert table_markdown(pd.DataFrame(), ["ticker"]) == "No rows."
    with pytest.raises(ValueError, match=r"lacks the columns \['grade'\].*'ticker'"):
        table_markdown(pd.DataFrame({"ticker": ["AAPL"]}), ["ticker", "grade"])


def test_evidence_table_shows_no_squared_error_of_a_level() -> None:
    frame = pd.DataFrame({"model": ["gru", "sentiment"], "r2_vs_zero": [0.01, -996.5]})
    *_, network, level = evidence_table_markdown(frame).splitlines()
    assert network == "| gru | +1.00\u202f% |"
    assert level == "| sentiment | – |"


def test_evidence_table_takes_the_columns_that_are_there() -> None:
    frame = pd.DataFrame({"known_at": [0], "ic": [-0.0314], "model": ["lstm"], "grade": ["none"]})
    assert evidence_table_markdown(frame).splitlines() == [
        "| model | IC | evidence |",
        "| :--- | ---: | :--- |",
        "| lstm | −0.031 | none |",
    ]
