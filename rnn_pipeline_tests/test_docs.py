"""What the documentation shows is what happens."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from rnn_pipeline import cli
from rnn_pipeline.definitions import defs
from rnn_pipeline.settings import ModelSettings, Settings, TrainingSpec, load_settings
from rnn_pipeline_tests.documentation import (
    NAMES,
    ROOT,
    Block,
    anchors,
    blocks,
    links,
    mentioned_commands,
)
from rnn_pipeline_tests.leaks.museum import EXHIBITS

DOCS = ROOT / "docs"
MUSEUM = (DOCS / "point-in-time.md").read_text()
TRAINING = (DOCS / "training.md").read_text()
SHELL = {"console", "sh"}

#: Every block that no test runs, with the reason that its page gives in a comment right before it,
#: <!-- not run: reason -->. A page cannot leave a block out without a line here.
NOT_RUN = [
    ("README.md", "installs packages; the tests run the same on less data"),
    ("README.md", "the tests do not run themselves"),
    ("README.md", "a server, live data, and everything once more"),
    ("docs/dependencies.md", "asks an advisory service on the internet"),
    *[("docs/deploy.md", "needs PostgreSQL and an object store")] * 4,
    ("docs/how-to/gpu.md", "needs a GPU"),
    ("docs/how-to/python.md", "a test of its own runs the example"),
    ("docs/how-to/python.md", "a test of its own runs the example"),
    ("docs/how-to/schedule.md", "a server that runs until it is stopped"),
    ("docs/how-to/tickers.md", "asks Yahoo Finance"),
    ("docs/install.md", "installs packages; `make installed` does the same and more"),
    ("docs/install.md", "needs a GPU"),
    ("docs/operations.md", "minutes of work, and they are no part of the installed package"),
    ("docs/security.md", "a connection that stays open"),
    ("docs/start.md", "installs packages; the tests run the same on less data"),
    ("docs/start.md", "a server that runs until it is stopped"),
    ("docs/training.md", "a server that runs until it is stopped"),
]


def of_language(*languages: str) -> list[str]:
    """The pages that have a block of one of these languages which is to be run."""
    return [
        name
        for name in NAMES
        if any(each.language in languages and not each.not_run for each in blocks(name))
    ]


def test_every_block_says_what_language_it_is_in() -> None:
    known = SHELL | {"python", "toml", "text", "cron", "ini", "nginx"}
    others = [
        (each.page, each.line)
        for name in NAMES
        for each in blocks(name)
        if each.language not in known
    ]
    assert others == []


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    left_out = [
        (each.page, each.not_run) for name in NAMES for each in blocks(name) if each.not_run
    ]
    assert left_out == NOT_RUN


@pytest.mark.parametrize("name", of_language("python"))
def test_every_example_prints_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(name):
        if block.language != "python" or block.not_run:
            continue
        printed = io.StringIO()
        # Padded, so that a traceback names the page's own line.
        code = "\n" * (block.line - 1) + block.code
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(ROOT / name), "exec"), namespace)
        if block.shown is not None:
            lines = [line.rstrip() for line in printed.getvalue().splitlines()]
            assert lines == block.shown.splitlines(), f"{name}:{block.line}"


def test_the_readmes_example_prints_a_forecast_for_each_of_three_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = [each for each in blocks("README.md") if each.language == "python"]
    exec(compile(block.code, "README.md", "exec"), {})
    assert len(re.findall(r"-?\d\.\d+", capsys.readouterr().out)) == 3


@pytest.fixture(scope="module")
def data_folder(demo: Result) -> Iterator[Path]:
    """The folder of a demo that has run; what commands change in it is undone for later tests."""
    home = load_settings().home
    kept = home.with_name("kept")
    shutil.copytree(home, kept)
    yield home
    shutil.rmtree(home)
    kept.rename(home)


@pytest.mark.parametrize("name", of_language(*SHELL))
def test_every_command_succeeds_and_prints_what_the_page_says(
    name: str, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(name):
        if block.language not in SHELL or block.not_run:
            continue
        if variables := block.variables:
            with monkeypatch.context() as environment:
                for key, value in variables.items():
                    environment.setenv(key, value)
                load_settings()
            continue
        output = "".join(run(command, block) for command in block.commands)
        if block.shown is not None:
            expect(output.splitlines(), block)


def run(command: str, block: Block) -> str:
    """What one command prints. The pipeline's own run in this process, on the demo's data."""
    program, *arguments = shlex.split(command)
    if program == "rnn-pipeline":
        result = CliRunner().invoke(cli.main, arguments)
        code, output, errors = result.exit_code, result.stdout, result.stderr
    elif program in {"python", "pip"}:
        module = ["-m", "pip"] if program == "pip" else []
        done = subprocess.run(
            [sys.executable, *module, *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        code, output, errors = done.returncode, done.stdout, done.stderr
    else:
        pytest.fail(
            f"{block.page}:{block.line}: {program} is not run by tests: write"
            " <!-- not run: reason --> before the block"
        )
    # A demo's folder is never quite healthy: nothing runs by itself in it.
    fine = {0, 1} if program == "rnn-pipeline" and arguments[0] == "doctor" else {0}
    assert code in fine, f"{block.page}:{block.line}: {command}\n{output}\n{errors}"
    return output


def expect(lines: list[str], block: Block) -> None:
    """The page's lines are printed in this order; "..." stands for what they leave out."""
    assert block.shown is not None
    pattern = re.escape(block.shown.rstrip()).replace(re.escape("..."), ".*")
    printed = "\n".join(line.rstrip() for line in lines)
    assert re.fullmatch(pattern, printed, flags=re.DOTALL), (
        f"{block.page}:{block.line}: the command prints\n{printed}"
    )


@pytest.mark.parametrize("name", of_language("toml"))
def test_every_fragment_of_settings_is_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drop").mkdir()
    for block in blocks(name):
        if block.language == "toml":
            Settings(**tomllib.loads(block.code))


@pytest.mark.parametrize("name", NAMES)
def test_commands_named_in_the_text_exist_with_their_options(name: str) -> None:
    told = mentioned_commands(name)
    told += [
        command
        for block in blocks(name)
        if block.language in SHELL
        for line in block.commands
        for command in [line.removeprefix(".venv/bin/")]
        if command.startswith("rnn-pipeline ")
    ]
    for text in told:
        command: click.Command = cli.main
        words = shlex.split(text)[1:]
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert words != [] or command is not cli.main
        if command is cli.main:
            assert words[0] in {"COMMAND", "--help", "--version"}, f"{name}: there is no {text!r}"
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word.split("=")[0] for word in words if word.startswith("-")}
        assert asked <= known | {"--help", "-h"}, f"{name}: {text!r}"


@pytest.mark.parametrize("name", [*NAMES, "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    for link in links(name):
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        assert not heading or heading in anchors(target), f"{name}: {link}"
        inside = target.resolve().is_relative_to(DOCS)
        # The site has nothing but the pages under docs/.
        assert inside or not name.startswith("docs/"), f"{name}: {link} leaves the site"


def test_every_page_has_one_place_in_the_sites_navigation() -> None:
    def pages(entries: list[object]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                yield from pages(value) if isinstance(value, list) else [str(value)]

    placed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(placed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="pip install '.[docs]'")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "rnn_pipeline").symlink_to(ROOT / "rnn_pipeline")
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict", "-f", "mkdocs.yml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "site"
    broken = [
        (str(page.relative_to(site)), target)
        for page in site.rglob("*.html")
        if page.name != "404.html"
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text())
        if not re.match(r"[a-z]+:|//", target) and not (page.parent / target).exists()
    ]
    assert broken == []
    fetched = [
        (str(page.relative_to(site)), tag)
        for page in site.rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe)[^>]+", page.read_text())
        if re.search(r'(?:src|href)="(?:https?:)?//', tag) and 'rel="canonical"' not in tag
    ]
    assert fetched == [], "the site must open without the internet"
    assert "rnn_pipeline.TradingLSTM" in (site / "reference" / "networks.html").read_text()


def test_the_map_of_a_text_on_rnns_names_assets_and_code_that_exist() -> None:
    assets = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    defined = {
        node.name
        for path in (ROOT / "rnn_pipeline").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    rows = re.findall(
        r"^\| (?!section|---)(.+?) \| (.+?) \| (.+?) \| \[",
        (DOCS / "rnns-for-trading.md").read_text(),
        flags=re.MULTILINE,
    )
    assert len(rows) == 11
    # The tests' own settings name other networks than the default three.
    assets |= {f"{name}_forecaster" for name in ModelSettings().networks}
    for section, asset, code in rows:
        named = set(re.findall(r"`(\w+)`", asset))
        assert named <= assets, section
        assert set(re.findall(r"`(\w+)`", code)) <= defined, section
        assert named or "forecaster" in asset


def test_the_picture_of_the_graph_is_the_graph(tmp_path: Path) -> None:
    """In a process of its own, because the tests' settings name other networks."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RNN_PIPELINE")}
    code = (
        "import runpy, sys; drawing = runpy.run_path(sys.argv[1]);"
        "sys.stdout.write(drawing['drawn'](drawing['assets']()))"
    )
    drawn = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(DOCS / "graph.py")],
        cwd=tmp_path,
        env=own | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == (DOCS / "images" / "assets.svg").read_text(), (
        "the graph has changed: run `python docs/graph.py`"
    )


def test_the_museums_table_is_the_museum() -> None:
    for exhibit in EXHIBITS:
        line = f"| {exhibit.name} | {exhibit.seen_in} | {exhibit.variant} | `{exhibit.asset}` |"
        assert line in MUSEUM
    assert len(EXHIBITS) == 10


def test_the_table_of_training_options_has_all_of_them_and_their_defaults() -> None:
    told = re.findall(r"^\| `(\w+)` \| (\S+) \|", TRAINING, flags=re.MULTILINE)
    assert told == [(name, str(value)) for name, value in TrainingSpec().model_dump().items()]


def test_the_example_on_ones_own_frame_prints_what_the_page_says() -> None:
    example = runpy.run_path(str(ROOT / "examples" / "own_frame.py"))
    scored = example["forecast_metrics"](example["forecasts"](example["made_up_bars"]())).iloc[0]
    page = " ".join((DOCS / "how-to" / "python.md").read_text().split())
    assert f"lstm {scored['n']} {scored['ic']:.3f}" in page
    assert scored["ic_t"] > 3


def test_the_example_from_signals_to_a_plot_draws_one(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "signals_to_plot.py"))
    path = tmp_path / "signals.png"
    example["main"]("AAPL", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith("AAPL: ")
    with pytest.raises(SystemExit, match="NONE has no signals here; it is one of AAPL"):
        example["main"]("NONE", str(path))
