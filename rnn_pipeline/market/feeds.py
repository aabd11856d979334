"""Headlines from any RSS or Atom feed, one or several per ticker."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.request
from collections.abc import Sequence
from datetime import date
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pandas as pd

from rnn_pipeline.market.sources import (
    HEADLINE_COLUMNS,
    BadPayload,
    Payload,
    RateLimited,
    SourceUnavailable,
    as_headlines,
    validate_ticker,
)

#: Seconds within which a feed must answer, and the most bytes that are read of it.
TIMEOUT, LARGEST = 15.0, 10_000_000


#: Stands in an address for what an environment variable holds.
_VARIABLE = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")


class FeedSource:
    """A NewsSource over RSS and Atom feeds.

    Args:
        addresses: web addresses. In them ``{ticker}`` stands for the ticker, and a name in capitals
            (``{NEWS_KEY}``) for what that environment variable holds: it is put in when the feed is
            asked, and whatever is kept or said of a feed has the name in its place.
    """

    name = "feeds"

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)

    def fetch_headlines(self, ticker: str, first: date, last: date) -> Payload:
        """The feeds of a ticker as they are now, whatever range is asked for.

        Raises:
            UnknownTicker: the ticker cannot be one.
            SourceUnavailable: a feed did not answer, or not with a feed; or a variable in its
                address is not set.
        """
        validate_ticker(ticker)
        answers = {}
        for address in self.addresses:
            url = address.replace("{ticker}", quote(ticker, safe=""))
            answers[url] = base64.b64encode(_get(url)).decode()
        payload = Payload(json.dumps(answers).encode(), "application/json", " ".join(answers))
        try:
            self.parse_headlines(payload, ticker)
        except BadPayload as error:
            raise SourceUnavailable(str(error)) from error
        return payload

    def parse_headlines(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read feeds; an entry without a date has no ``published_at``, which quality objects to."""
        try:
            feeds = json.loads(payload.content)
            rows = [
                {**story, "ticker": ticker}
                for url, content in feeds.items()
                for story in _stories(url, base64.b64decode(content))
            ]
        except (ValueError, AttributeError) as error:
            raise BadPayload(f"{ticker}: not feeds as they were kept ({error})") from None
        return as_headlines(pd.DataFrame(rows, columns=list(HEADLINE_COLUMNS)))


def _with_variables(url: str) -> str:
    for name in _VARIABLE.findall(url):
        if name not in os.environ:
            raise SourceUnavailable(f"feed {url} needs the environment variable {name}: set it")
    return _VARIABLE.sub(lambda found: quote(os.environ[found[1]], safe=""), url)


def _get(url: str) -> bytes:
    address = _with_variables(url)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "rnn-pipeline"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return bytes(response.read(LARGEST))
    except HTTPError as error:
        kind = RateLimited if error.code == 429 else SourceUnavailable
        error.close()
        raise kind(f"feed {url} answers HTTP {error.code}") from None
    except (OSError, ValueError, HTTPException) as error:
        # In the library's own words the address may stand as it was asked.
        reason = error if address == url else type(getattr(error, "reason", error)).__name__
        raise SourceUnavailable(f"feed {url} cannot be reached: {reason}") from None


def _stories(url: str, content: bytes) -> list[dict[str, Any]]:
    """The entries of one feed; texts stay as they are, their HTML too.

    Raises:
        BadPayload: it is not a feed.
    """
    import feedparser

    feed = feedparser.parse(content, sanitize_html=False, resolve_relative_uris=False)
    if not feed.version:
        raise BadPayload(f"{url} is not an RSS or Atom feed")
    return [
        {
            "news_id": entry.get("id") or entry.get("link") or entry.get("title", ""),
            "published_at": _moment(entry.get("published_parsed") or entry.get("updated_parsed")),
            "title": entry.get("title", ""),
            "summary": entry.get("summary", ""),
            "url": entry.get("link", ""),
            "provider": feed.feed.get("title") or url,
        }
        for entry in feed.entries
    ]


def _moment(parsed: Any) -> str | None:
    """Feedparser's time (UTC) as ISO 8601."""
    return pd.Timestamp(*parsed[:6], tz="UTC").isoformat() if parsed else None
