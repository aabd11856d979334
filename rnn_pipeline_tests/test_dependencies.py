"""What is depended on is written down, pinned, and under a licence that allows any use."""

from __future__ import annotations

import configparser
import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "dependencies.md").read_text()

ALLOWED = re.compile(
    r"\b(MIT|0?BSD|Apache|ISC|NCSA|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|PDDL|BSL-1)"
)
REFUSED = re.compile(r"(?i)GPL|General Public|Affero|Commons Clause|SSPL|non-?commercial")

#: Packages whose metadata names no licence, or one that is let in by name.
UNNAMED = {
    "peewee": "MIT, in its file LICENSE",
    "ta-lib": "BSD-2-Clause, in its file LICENSE",
    "psycopg2-binary": "LGPL with exceptions; comes with the extra postgres alone",
}
#: What torch brings along on a machine with a GPU: NVIDIA's own terms, free to use and to ship.
OF_A_GPU = re.compile(r"nvidia-|cuda-")
#: Not pinned: it builds the wheel, and torch brings whatever version the machine has.
UNPINNED = {"setuptools"}
#: Extras for other engines, which cannot stand beside the pinned DuckDB or are not installed here.
OF_OTHER_ENGINES = re.compile(r"duckdb-extension-|dagster-postgres|psycopg2-binary")


def asked_for() -> dict[str, Requirement]:
    """The requirements of setup.cfg, those of the extras included."""
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg")
    listed = [read["options"]["install_requires"], *read["options.extras_require"].values()]
    found = [Requirement(line) for lines in listed for line in lines.split("\n") if line]
    # The first one counts: the extra for the lake asks for another DuckDB than the default.
    return {canonicalize_name(each.name): each for each in reversed(found)}


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().split()
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def installed() -> dict[str, metadata.Distribution]:
    """Everything that the requirements bring along and that is installed here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, frozenset(each.extras)) for name, each in asked_for().items()]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an extra, or for another platform
        for line in found[name].requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                following = (canonicalize_name(needed.name), frozenset(needed.extras))
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
    return found


def licence(distribution: metadata.Distribution) -> list[str]:
    """What a package says of its licence, each statement of which must be allowed."""
    about = distribution.metadata
    if expression := about.get("License-Expression"):
        return re.split(r"\s+AND\s+", expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    return classifiers or (about.get("License") or "").strip().splitlines()[:1]


def test_the_page_has_every_requirement_once_and_no_other() -> None:
    told = re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(map(canonicalize_name, told)) == sorted(asked_for())


@pytest.mark.parametrize("row", re.findall(r"^\| `.+$", PAGE, flags=re.MULTILINE))
def test_the_licence_on_the_page_is_the_one_in_the_package(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    name, told = canonicalize_name(cells[0].strip("`")), cells[-2]
    assert ALLOWED.search(told)
    assert not REFUSED.search(told)
    if name in UNNAMED:
        return
    try:
        stated = " ".join(licence(metadata.distribution(name)))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    family = re.match(r"[A-Za-z]+", told)[0]  # type: ignore[index]
    names = {"PSF": "Python Software Foundation", "MPL": "Mozilla"}
    assert family in stated or names.get(family, family) in stated, stated


def test_no_package_comes_under_a_licence_that_limits_use() -> None:
    wrong = {}
    for name, distribution in installed().items():
        if name in UNNAMED or OF_A_GPU.match(name):
            continue
        stated = licence(distribution)
        if not stated or any(REFUSED.search(s) or not ALLOWED.search(s) for s in stated):
            wrong[name] = stated
    assert wrong == {}


def test_every_package_that_comes_along_is_pinned_and_every_pin_meets_its_requirement() -> None:
    pins = pinned()
    free = {
        name
        for name in installed()
        if not (name in pins or OF_A_GPU.match(name) or OF_OTHER_ENGINES.match(name))
    } - UNPINNED
    assert free <= {"triton"}, "add to constraints.txt"
    for name, requirement in asked_for().items():
        if name not in UNPINNED and not OF_OTHER_ENGINES.match(name):
            assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]}"
