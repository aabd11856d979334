"""The fenced blocks of the README and of docs/, as the tests run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: ([^>]+) -->\s*$")
_COMMAND = re.compile(r"`(rnn-pipeline [a-z][^`]*)`")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the page's path from the repository's root.
        line: where its code begins.
        language: what stands behind the fence.
        code: the text inside.
        shown: the ``text`` block that follows at once: what the code prints.
        not_run: the reason of the comment ``<!-- not run: reason -->`` right before the block.
    """

    page: str
    line: int
    language: str
    code: str
    shown: str | None
    not_run: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block without their comments, continued lines joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [bare for line in lines if (bare := re.sub(r"(^|\s)#.*$", "", line).strip())]

    @property
    def variables(self) -> dict[str, str]:
        """What the block sets, where all its lines are ``NAME=value``; else nothing."""
        pairs = [shlex.split(command) for command in self.commands]
        if not all(len(pair) == 1 and re.match(r"\w+=", pair[0]) for pair in pairs):
            return {}
        return dict(pair[0].split("=", 1) for pair in pairs)


def blocks(page: str) -> Iterator[Block]:
    """All blocks of a page, in order."""
    text = (ROOT / page).read_text()
    found = list(_FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        reason = _NOT_RUN.search(text[: match.start()])
        answer = (
            following is not None
            and following[1] == "text"
            and not text[match.end() : following.start()].strip()
        )
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 2,
            language=match[1],
            code=match[2],
            shown=following[2] if answer else None,
            not_run=reason[1] if reason else None,
        )


def mentioned_commands(page: str) -> list[str]:
    """Commands of this project that the prose names between backticks."""
    prose = _FENCE.sub("", (ROOT / page).read_text())
    return [" ".join(command.split()) for command in _COMMAND.findall(prose)]


def links(page: str) -> list[str]:
    """Targets of links and pictures that lead to a file of the repository."""
    prose = _FENCE.sub("", (ROOT / page).read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset)="([^"]+)"', prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may say after its number sign."""
    prose = _FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in headings}
