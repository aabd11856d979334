"""What the documentation shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from rnn_pipeline_tests.leaks.museum import EXHIBITS

PAGE = (Path(__file__).parent.parent / "docs" / "point-in-time.md").read_text()


def test_every_example_prints_what_the_page_says() -> None:
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == PAGE.count("```python") == 3
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "point-in-time.md", "exec"), {})
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert lines == shown.splitlines()


def test_the_museums_table_is_the_museum() -> None:
    for exhibit in EXHIBITS:
        line = f"| {exhibit.name} | {exhibit.seen_in} | {exhibit.variant} | `{exhibit.asset}` |"
        assert line in PAGE
    assert len(EXHIBITS) == 10
