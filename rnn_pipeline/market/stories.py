"""One story, however often it is sent: under another id, at the same address, or word for word."""

from __future__ import annotations

import html
import re

import pandas as pd

#: The same words about a ticker within this time are one story; later they are news again.
STORY_SPAN = pd.Timedelta(days=3)

_TAG = re.compile(r"<[^<>]*>")


def as_stories(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Give every headline the id under which its story is known, and keep one of each story.

    A story is known by its id, by its address, or by the words of its title (HTML, case and
    spaces aside) within :data:`STORY_SPAN`. Of a story sent twice at once the version that is
    already known stays, else the one published first.

    Args:
        rows: headlines that hold every rule, of any tickers.
        known: newest revisions of stored headlines of these tickers.

    Returns:
        Rows of the input, ``news_id`` replaced where the story has another.
    """
    if rows.empty:
        return rows
    stories = _Stories()
    for row in known.sort_values("published_at").itertuples():
        stories.add(row.ticker, row.news_id, row.news_id, row.url, row.title, row.published_at)
    ordered = rows.sort_values(["published_at", "news_id"], kind="stable")
    ids = []
    for row in ordered.itertuples():
        found = stories.find(row.ticker, row.news_id, row.url, row.title, row.published_at)
        stories.add(
            row.ticker, row.news_id, found or row.news_id, row.url, row.title, row.published_at
        )
        ids.append(found or row.news_id)
    ordered = ordered.assign(news_id=ids)
    texts = set(zip(known["ticker"], known["news_id"], known["title"], strict=True))
    is_known = [
        text in texts
        for text in zip(ordered["ticker"], ordered["news_id"], ordered["title"], strict=True)
    ]
    best_first = ordered.assign(is_known=is_known).sort_values(
        "is_known", ascending=False, kind="stable"
    )
    kept = best_first.drop_duplicates(["ticker", "news_id"]).drop(columns="is_known")
    return kept.sort_index()


class _Stories:
    """Stories by what they can be recognised by; each lookup is for one ticker."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[str, str], str] = {}
        self._by_url: dict[tuple[str, str], str] = {}
        self._by_title: dict[tuple[str, str], tuple[pd.Timestamp, str]] = {}

    def add(
        self, ticker: str, news_id: str, story: str, url: str, title: str, published: pd.Timestamp
    ) -> None:
        self._by_id[ticker, news_id] = story
        if url:
            self._by_url[ticker, url] = story
        if words := _words(title):
            self._by_title[ticker, words] = published, story

    def find(
        self, ticker: str, news_id: str, url: str, title: str, published: pd.Timestamp
    ) -> str | None:
        if story := self._by_id.get((ticker, news_id)):
            return story
        if url and (story := self._by_url.get((ticker, url))):
            return story
        at, story = self._by_title.get((ticker, _words(title)), (published, None))
        return story if abs(published - at) <= STORY_SPAN else None


def _words(title: str) -> str:
    return " ".join(_TAG.sub("", html.unescape(title)).lower().split())
