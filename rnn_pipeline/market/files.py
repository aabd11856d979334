"""A drop folder: CSV and Parquet files with bars or headlines of any tickers.

A file is what the network is to other sources: its bytes are kept, and reading them is a pure
function. Files stay where they are and are known by their content; only one that cannot be read is
moved aside, with its reason beside it.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    BadPayload,
    Payload,
    as_bars,
    as_headlines,
)

#: Where files that cannot be read are moved to, below the drop folder.
REJECTED = "rejected"

#: A file that changed less than this many seconds ago may still be on its way into the folder.
SETTLED_AFTER = 2.0

_MEDIA_TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv.gz": "application/gzip",
    ".csv": "text/csv",
}

#: Names of columns elsewhere (lower case, words joined by underscores), and here.
_NAMES = {
    "symbol": "ticker",
    "adjclose": "adj_close",
    "dividends": "dividend",
    "stock_splits": "split",
    "splits": "split",
    "headline": "title",
    "published": "published_at",
    "datetime": "published_at",
    "id": "news_id",
    "link": "url",
    "source": "provider",
}

_ZONED = re.compile(r".*(?:Z|[+-]\d\d:?\d\d)\s*")


@dataclass(frozen=True)
class Survey:
    """What the bars in the folder are about: tickers, and first and last session."""

    tickers: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None


class FileSource:
    """Bars and headlines of a drop folder.

    Columns are found by name, in any order and case: ``ticker`` (or the file's name),
    ``session`` or ``date``, ``open``, ``high``, ``low``, ``close``, ``adj_close``, ``volume``, and
    if there are any ``dividend`` and ``split``; or ``ticker``, ``published_at`` (with a zone) and
    ``title`` or ``headline``, and if there are any ``news_id``, ``summary``, ``url``, ``provider``.

    Args:
        folder: the drop folder.
    """

    name = "files"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def waiting(self, table: str) -> list[Path]:
        """Settled files for ``raw_ohlcv`` or ``raw_news``, by name; unreadable ones are for bars.

        Raises:
            FileNotFoundError: the folder is not there.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"the drop folder {self.folder} is not there: create it or set drop_dir"
            )
        now = time.time()
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_file()
            and not path.name.startswith(".")
            and _suffix(path.name)
            and now - path.stat().st_mtime >= SETTLED_AFTER
            and (_table_of(path) or "raw_ohlcv") == table
        ]

    def read(self, path: Path) -> Payload:
        """A file's bytes; its name says how to read them."""
        return Payload(path.read_bytes(), _MEDIA_TYPES[_suffix(path.name)], path.name)

    def parse_bars(self, payload: Payload, ticker: str = "") -> pd.DataFrame:
        """Read the bars of one ticker, or of all; what is not a number or a day is missing.

        Raises:
            BadPayload: it is no table, or a column is missing.
        """
        rows = _table(payload)
        rows = rows.rename(columns={"date": "session", "timestamp": "session"})
        _require(rows, BAR_COLUMNS[1:8], payload.url)
        numbers = {
            name: pd.to_numeric(rows[name], errors="coerce") if name in rows else 0.0
            for name in BAR_COLUMNS[2:]
        }
        return _of(ticker, as_bars(rows.assign(session=_days(rows["session"]), **numbers)))

    def parse_headlines(self, payload: Payload, ticker: str = "") -> pd.DataFrame:
        """Read the headlines of one ticker, or of all.

        A headline without an id of its own is known by its moment and its words.

        Raises:
            BadPayload: it is no table, a column is missing, or a moment has no zone.
        """
        rows = _table(payload)
        rows = rows.rename(columns={"date": "published_at", "timestamp": "published_at"})
        _require(rows, ("published_at", "title"), payload.url)
        _require_zone(rows["published_at"], payload.url)
        for name in HEADLINE_COLUMNS:
            if name not in rows:
                rows[name] = ""
        headlines = as_headlines(rows)
        words = headlines["published_at"].astype(str) + headlines["title"].fillna("")
        own = pd.util.hash_array(words.to_numpy(dtype=object))
        made_up = pd.Series([f"{value:016x}" for value in own], index=headlines.index, dtype="str")
        headlines["news_id"] = headlines["news_id"].where(headlines["news_id"] != "", made_up)
        return _of(ticker, headlines)

    def survey(self, files: Sequence[Path] | None = None) -> Survey:
        """Tickers and sessions of the bars that can be read, in some files or in all."""
        found = self.waiting("raw_ohlcv")
        surveys = [
            _survey(path, path.stat().st_mtime_ns)
            for path in (found if files is None else [path for path in files if path in found])
        ]
        firsts = [survey.first for survey in surveys if survey.first]
        lasts = [survey.last for survey in surveys if survey.last]
        return Survey(
            tickers=tuple(sorted({ticker for survey in surveys for ticker in survey.tickers})),
            first=min(firsts, default=None),
            last=max(lasts, default=None),
        )

    def put_aside(self, path: Path, reason: str) -> None:
        """Move a file that cannot be read into :data:`REJECTED`, and write down why.

        In a folder that cannot be written it stays where it is.
        """
        target = self.folder / REJECTED / path.name
        try:
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target = target.with_name(f"{time.time_ns()}-{path.name}")
            path.rename(target)
            target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n")
        except OSError:
            return


@lru_cache(maxsize=100_000)  # more than files in a folder: all of them are asked for in turn
def _survey(path: Path, _changed_at: int) -> Survey:
    source = FileSource(path.parent)
    try:
        rows = source.parse_bars(source.read(path))
    except BadPayload:
        return Survey()
    days = rows["session"].dropna()
    if days.empty:
        return Survey()
    tickers = rows["ticker"].dropna().unique().tolist()
    return Survey(tuple(tickers), days.min().date(), days.max().date())


def _suffix(name: str) -> str:
    return next((suffix for suffix in _MEDIA_TYPES if name.lower().endswith(suffix)), "")


def _table_of(path: Path) -> str | None:
    """Which raw table a file's columns belong to; None if it cannot be told."""
    try:
        if _suffix(path.name) == ".parquet":
            import pyarrow.parquet

            columns = pyarrow.parquet.read_schema(path).names
        else:
            columns = list(pd.read_csv(path, nrows=0))
    except (OSError, ValueError, EOFError):
        return None
    names = set(_renamed(columns))
    if "close" in names:
        return "raw_ohlcv"
    return "raw_news" if "title" in names else None


def _renamed(columns: list[Any]) -> list[str]:
    plain = [re.sub(r"\W+", "_", str(name).strip().lower()) for name in columns]
    return [_NAMES.get(name, name) for name in plain]


def _table(payload: Payload) -> pd.DataFrame:
    """A payload's rows under the names used here, each with its ticker in capitals."""
    content = io.BytesIO(payload.content)
    try:
        if payload.media_type == _MEDIA_TYPES[".parquet"]:
            rows = pd.read_parquet(content)
        else:
            rows = pd.read_csv(
                content,
                compression="gzip" if payload.media_type == _MEDIA_TYPES[".csv.gz"] else None,
                float_precision="round_trip",
                # "NA" and "NAN" are tickers; an empty field is what is missing.
                keep_default_na=False,
                na_values=[""],
            )
    except (OSError, ValueError, EOFError) as error:
        raise BadPayload(f"{payload.url} cannot be read: {str(error).splitlines()[0]}") from None
    rows.columns = pd.Index(_renamed(list(rows.columns)))
    if not rows.columns.is_unique:
        twice = rows.columns[rows.columns.duplicated()][0]
        raise BadPayload(f"{payload.url} has column {twice!r} twice")
    if "ticker" not in rows:
        rows["ticker"] = payload.url.split(".")[0]
    rows["ticker"] = rows["ticker"].astype("str").fillna("").str.strip().str.upper()
    return rows


def _require(rows: pd.DataFrame, columns: tuple[str, ...], file: str) -> None:
    if missing := [name for name in columns if name not in rows]:
        raise BadPayload(
            f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(rows.columns)}"
        )


def _require_zone(moments: pd.Series, file: str) -> None:
    if isinstance(moments.dtype, pd.DatetimeTZDtype):
        return
    texts = moments.dropna().astype("str")
    if len(without := texts[~texts.str.fullmatch(_ZONED)]):
        raise BadPayload(
            f"{file}: published_at {without.iloc[0]!r} has no time zone: write it as in"
            " 2024-03-05T14:30:00Z"
        )


def _days(values: pd.Series) -> pd.Series:
    """Exchange days: the date as it is written, whatever time or zone stands behind it."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return values.dt.tz_localize(None).dt.normalize()
    return pd.to_datetime(values.astype("str").str[:10], format="%Y-%m-%d", errors="coerce")


def _of(ticker: str, rows: pd.DataFrame) -> pd.DataFrame:
    if not ticker:
        return rows
    return rows[np.asarray(rows["ticker"] == ticker)].reset_index(drop=True)
