"""What the documentation shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from rnn_pipeline_tests.leaks.museum import EXHIBITS

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "count"), [("point-in-time.md", 3), ("networks.md", 4)])
def test_every_example_prints_what_the_page_says(page: str, count: int) -> None:
    text = (DOCS / page).read_text()
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == text.count("```python") == count
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {})
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert lines == shown.splitlines()


def test_the_museums_table_is_the_museum() -> None:
    page = (DOCS / "point-in-time.md").read_text()
    for exhibit in EXHIBITS:
        line = f"| {exhibit.name} | {exhibit.seen_in} | {exhibit.variant} | `{exhibit.asset}` |"
        assert line in page
    assert len(EXHIBITS) == 10
