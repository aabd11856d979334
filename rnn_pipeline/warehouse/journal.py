"""The order in which answers came: one small file per batch, beside the payloads.

The raw tables are a pure function of the journal and the payloads that it names. An entry is
written before its batch commits, so a batch that a crash took from the database is still here and
can be played again; a whole database can be made anew in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rnn_pipeline.warehouse.files import write_atomically


@dataclass(frozen=True)
class Fetch:
    """One question to a source and its answer.

    Attributes:
        ticker: what was asked about; empty for a file, whose rows name their tickers.
        first: first day asked for; None for a file.
        last: last day asked for; None for a file.
        outcome: ``ok``, ``unknown`` (the source has no such ticker) or ``failed``.
        reason: one line on what went wrong; empty where nothing did.
        media_type: of the payload.
        url: where the payload came from; a file's name.
        payload_sha256: the payload's hash; empty where there is none.
        payload_bytes: its size before compression.
    """

    ticker: str
    first: date | None
    last: date | None
    outcome: str = "ok"
    reason: str = ""
    media_type: str = ""
    url: str = ""
    payload_sha256: str = ""
    payload_bytes: int = 0


@dataclass(frozen=True)
class Entry:
    """A batch: what was fetched together, or which quarantined rows a person released.

    Attributes:
        kind: the raw table that the batch fills.
        source: name of the source that reads the payloads.
        exchange: whose calendar dates the bars; empty where no calendar is needed.
        run_id: the run that asked.
        asked_at: before the first question (UTC).
        fetched_at: after the last answer (UTC).
        fetches: the questions and answers, in their order.
        released: ids of quarantined rows that are taken in after all.
        number: its place in the journal, from 1; 0 while it is not in it.
    """

    kind: str
    source: str
    exchange: str
    run_id: str
    asked_at: datetime
    fetched_at: datetime
    fetches: tuple[Fetch, ...] = ()
    released: tuple[str, ...] = ()
    number: int = 0


class Journal:
    """Numbered entries in one folder; only whoever holds the warehouse appends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def last_number(self) -> int:
        """Number of the newest entry; 0 if there is none."""
        return max((int(path.stem) for path in self.folder.glob("*.json")), default=0)

    def append(self, entry: Entry) -> Entry:
        """Write an entry behind the newest one and return it with its number."""
        numbered = replace(entry, number=self.last_number() + 1)
        content = json.dumps(asdict(numbered), default=_iso, ensure_ascii=False)
        write_atomically(self._path(numbered.number), content.encode())
        return numbered

    def withdraw(self, entry: Entry) -> None:
        """Remove an entry whose batch could not be written."""
        self._path(entry.number).unlink(missing_ok=True)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries with a number above ``after``, oldest first.

        Raises:
            ValueError: a file in the folder is not an entry.
        """
        for number in range(after + 1, self.last_number() + 1):
            if (path := self._path(number)).exists():
                yield _read(path)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"


def _read(path: Path) -> Entry:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        fields["fetches"] = tuple(_fetch(fetch) for fetch in fields["fetches"])
        fields["released"] = tuple(fields["released"])
        for name in ("asked_at", "fetched_at"):
            fields[name] = datetime.fromisoformat(fields[name])
        return Entry(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"journal entry {path} is damaged: {error}") from None


def _fetch(fields: dict[str, Any]) -> Fetch:
    days = {
        name: date.fromisoformat(fields[name]) if fields[name] else None
        for name in ("first", "last")
    }
    return Fetch(**{**fields, **days})


def _iso(moment: date) -> str:
    return moment.isoformat()
