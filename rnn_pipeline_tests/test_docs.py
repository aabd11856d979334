"""What the documentation shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from rnn_pipeline_tests.leaks.museum import EXHIBITS

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("name", "number"), [("point-in-time.md", 3), ("sentiment.md", 1)])
def test_every_example_prints_what_the_page_says(name: str, number: int) -> None:
    page = (DOCS / name).read_text()
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == page.count("```python") == number
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), {})
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert lines == shown.splitlines()


def test_the_museums_table_is_the_museum() -> None:
    page = (DOCS / "point-in-time.md").read_text()
    for exhibit in EXHIBITS:
        line = f"| {exhibit.name} | {exhibit.seen_in} | {exhibit.variant} | `{exhibit.asset}` |"
        assert line in page
    assert len(EXHIBITS) == 10
