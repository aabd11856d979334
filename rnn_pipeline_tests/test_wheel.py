"""The wheel: what is in it, what it says, and that it finds its own files wherever it lies."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves a build/ behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = [*(ROOT / "rnn_pipeline").rglob("*"), *(ROOT / "rnn_pipeline_tests").glob("*.py")]
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        tracked.append(ROOT / name)
    for path in tracked:
        if path.is_file() and "__pycache__" not in path.parts:
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    built = subprocess.run(
        [*command, "--no-build-isolation", "--no-index", "--wheel-dir", folder, source],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel: Path) -> None:
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rnn_pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = zipfile.ZipFile(wheel).namelist()
    assert {name for name in held if ".dist-info/" not in name} == package


def test_its_metadata_is_what_setup_cfg_says(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
    about = Parser().parsestr(archive.read(name).decode())
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg")
    assert about["Name"] == "rnn-pipeline"
    assert about["Version"] == read["metadata"]["version"]
    assert about["License"] == "Apache-2.0"
    extras = read["options.extras_require"]
    assert sorted(about.get_all("Provides-Extra")) == sorted(extras)
    asked = [Requirement(line) for line in about.get_all("Requires-Dist")]
    always = {each.name for each in asked if each.marker is None}
    listed = read["options"]["install_requires"].split("\n")
    assert always == {Requirement(line).name for line in listed if line}
    told = {line.rpartition(" :: ")[2] for line in about.get_all("Classifier")}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        allowed = version in told
        assert (version + ".1" in Requirement(f"x{about['Requires-Python']}").specifier) == allowed
    entries = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "rnn-pipeline = rnn_pipeline.cli:main" in entries


def test_the_unpacked_wheel_finds_its_files_from_an_empty_folder(
    wheel: Path, tmp_path: Path
) -> None:
    """Isolated: neither the working directory nor the checkout is looked into."""
    away, empty = tmp_path / "away", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(away)
    empty.mkdir()
    code = f"""
import sys

sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in repr(each).lower()]
sys.path.insert(0, {str(away)!r})
import rnn_pipeline
from rnn_pipeline.cli import prepare
from rnn_pipeline.definitions import defs
import jinja2
from rnn_pipeline.settings import load_settings

assert rnn_pipeline.__file__.startswith({str(away)!r}), rnn_pipeline.__file__
instance = prepare(load_settings())
print(len(defs.resolve_all_job_defs()) > 5, type(instance.event_log_storage).__name__)
jinja2.PackageLoader("rnn_pipeline.reporting", "").get_source(jinja2.Environment(), "report.html")
"""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RNN_PIPELINE")}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code],
        cwd=empty,
        env=own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True PooledSqliteEventLogStorage\n"
    assert [path.name for path in empty.iterdir()] == ["data"], "data lies in the working directory"
