"""What the documentation shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

from rnn_pipeline.settings import Settings, TrainingSpec
from rnn_pipeline_tests.leaks.museum import EXHIBITS

DOCS = Path(__file__).parent.parent / "docs"
MUSEUM = (DOCS / "point-in-time.md").read_text()
TRAINING = (DOCS / "training.md").read_text()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("networks.md", 4),
        ("point-in-time.md", 3),
        ("sentiment.md", 1),
        ("trading.md", 4),
        ("training.md", 2),
    ],
)
def test_every_example_prints_what_the_page_says(name: str, count: int) -> None:
    page = (DOCS / name).read_text()
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == page.count("```python") == count
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), {})
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert lines == shown.splitlines()


def test_the_readmes_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert len(re.findall(r"-?\d\.\d+", capsys.readouterr().out)) == 3


def test_the_museums_table_is_the_museum() -> None:
    for exhibit in EXHIBITS:
        line = f"| {exhibit.name} | {exhibit.seen_in} | {exhibit.variant} | `{exhibit.asset}` |"
        assert line in MUSEUM
    assert len(EXHIBITS) == 10


def test_the_table_of_training_options_has_all_of_them_and_their_defaults() -> None:
    told = re.findall(r"^\| `(\w+)` \| (\S+) \|", TRAINING, flags=re.MULTILINE)
    assert told == [(name, str(value)) for name, value in TrainingSpec().model_dump().items()]


def test_the_settings_on_the_page_of_training_are_settings() -> None:
    fragments = re.findall(r"```toml\n(.*?)```", TRAINING, flags=re.DOTALL)
    assert len(fragments) == 2
    for fragment in fragments:
        Settings(**tomllib.loads(fragment))
