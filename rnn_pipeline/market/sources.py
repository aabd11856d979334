"""What a source of bars or headlines is: it fetches bytes, and it can read them again.

Fetching and parsing are apart on purpose. The bytes are kept as they came, and parsing them is a
pure function, so that the warehouse can be rebuilt from what was fetched, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Protocol, cast, runtime_checkable

import pandas as pd

from rnn_pipeline.settings import OwnCodeError, load_own_code

#: OHLC and volume are split-adjusted, ``adj_close`` also adds dividends; ``split`` is the ratio on
#: its ex-date (2.0 for 2:1), ``dividend`` the cash per share on its ex-date, both else 0.
BAR_COLUMNS = (
    "ticker",
    "session",
    "open",
    "high",
    "low",
    "close",
    "adj_close",
    "volume",
    "dividend",
    "split",
)

#: What a source of bars may say beside them, the same in all rows of an answer.
LISTING_COLUMNS = ("currency", "time_zone")

HEADLINE_COLUMNS = ("news_id", "ticker", "published_at", "title", "summary", "url", "provider")

# Letters and digits in groups, joined by single separators: no path, query or control character
# can be spelled, since tickers go unescaped into the URLs of Yahoo's client.
_TICKER = re.compile(r"\^?[A-Z0-9]{1,12}(?:[.=-][A-Z0-9]{1,8}){0,2}")


class UnknownTicker(ValueError):
    """A ticker that the source does not have, or that cannot be one."""


class SourceUnavailable(RuntimeError):
    """The source could not be reached or did not answer sensibly; trying later may help."""


class RateLimited(SourceUnavailable):
    """The source says that it is asked too often: it wants a rest, and then it will answer."""


class BadPayload(ValueError):
    """Bytes that are not an answer of the source they are said to come from."""


@dataclass(frozen=True)
class Payload:
    """What a source sent: the bytes, their media type and where they came from."""

    content: bytes
    media_type: str
    url: str = ""


class BarSource(Protocol):
    """A source of daily bars.

    ``fetch_bars`` asks for the sessions ``first`` to ``last``, both included, and raises
    UnknownTicker or SourceUnavailable, each with one line for the user. ``parse_bars`` is a pure
    function of what was fetched and returns :data:`BAR_COLUMNS`, and :data:`LISTING_COLUMNS` if
    the source says them; it may hold more sessions than were asked for, repeats nothing it was not
    sent and mends nothing: judging is for :mod:`rnn_pipeline.market.quality`. It raises BadPayload.
    """

    @property
    def name(self) -> str:
        """Name of the source in the warehouse."""

    def fetch_bars(self, ticker: str, first: date, last: date) -> Payload:
        """Fetch the bars of one ticker."""

    def parse_bars(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read fetched bars."""


@runtime_checkable
class NewsSource(Protocol):
    """A source of headlines; as :class:`BarSource`, with :data:`HEADLINE_COLUMNS`."""

    @property
    def name(self) -> str:
        """Name of the source in the warehouse."""

    def fetch_headlines(self, ticker: str, first: date, last: date) -> Payload:
        """Fetch the headlines of one ticker about the sessions ``first`` to ``last``."""

    def parse_headlines(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read fetched headlines."""


def load_source(path: str) -> BarSource:
    """A source of one's own, made without arguments; it may be a NewsSource, too.

    Args:
        path: ``module:Class``, the module found in the working directory or where it is installed.

    Raises:
        ValueError: it cannot be imported, or lacks what a source of bars must have.
    """
    try:
        source = load_own_code(path)()
    except (OwnCodeError, AttributeError) as error:
        raise ValueError(f"source {error}") from None
    lacking = [each for each in ("name", "fetch_bars", "parse_bars") if not hasattr(source, each)]
    if lacking:
        raise ValueError(f"source {path!r} lacks {', '.join(lacking)}: see BarSource")
    return cast(BarSource, source)


def is_ticker(text: object) -> bool:
    """Whether a text is spelt like a ticker."""
    return isinstance(text, str) and _TICKER.fullmatch(text) is not None


def validate_ticker(ticker: str) -> str:
    """Return the ticker if it is one in Yahoo's spelling (``BRK-B``, ``^GSPC``, ``0700.HK``).

    Raises:
        UnknownTicker: it cannot be a ticker, for example a path, a query or lower case.
    """
    if not is_ticker(ticker):
        raise UnknownTicker(
            f"{ticker[:40]!r} is not a ticker: write it as Yahoo does, in capitals, such as AAPL,"
            " BRK-B, ^GSPC, 0700.HK or EURUSD=X"
        )
    return ticker


def as_bars(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as a bars frame: :data:`BAR_COLUMNS` with their dtypes, sorted by ticker and session."""
    numbers = dict.fromkeys(BAR_COLUMNS[2:], "float64")
    dtypes = {"ticker": "str", "session": "datetime64[us]", **numbers}
    return _typed(rows, dtypes).sort_values(["ticker", "session"], kind="stable", ignore_index=True)


def as_headlines(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as a headlines frame: :data:`HEADLINE_COLUMNS`, sorted by ticker and publication."""
    published = pd.to_datetime(rows["published_at"], utc=True, format="ISO8601", errors="coerce")
    dtypes = dict.fromkeys(HEADLINE_COLUMNS, "str") | {"published_at": "datetime64[us, UTC]"}
    return _typed(rows.assign(published_at=published), dtypes).sort_values(
        ["ticker", "published_at", "news_id"], kind="stable", ignore_index=True
    )


def _typed(rows: pd.DataFrame, dtypes: dict[str, str]) -> pd.DataFrame:
    return rows[list(dtypes)].astype(dtypes)
