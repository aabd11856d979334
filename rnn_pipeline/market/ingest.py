"""Fetch, keep the raw answer, validate, say what changed, commit.

Every source goes through this one path. A chunk of tickers, or a file, is one transaction: after a
crash its rows, its quarantine and its ledger lines are all there or all absent, and running again
completes the work. What an earlier run already knows is recognised, so running twice changes
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from rnn_pipeline.market.asking import Asker, Request, take_files
from rnn_pipeline.market.breaker import CircuitBreaker
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.commit import (
    Feed,
    Ingested,
    IngestError,
    bars_feed,
    commit,
    news_feed,
    replay,
)
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.sources import BarSource, NewsSource
from rnn_pipeline.warehouse import Entry, PayloadStore, Warehouse

__all__ = ["IngestError", "Ingested", "Request", "ingest_bars", "ingest_headlines", "summary"]


def ingest_bars(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: BarSource | FileSource,
    calendar: SessionCalendar,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
    breaker: CircuitBreaker | None = None,
) -> list[Ingested]:
    """Bring the bars of a request into ``raw_ohlcv``, and their actions into their own table.

    About ten sessions before the request are asked for again; where a split or a dividend has
    restated them, so is the ticker's whole history. A drop folder gives all its new files,
    whatever tickers and sessions they hold.

    Returns:
        One entry per ticker; a ticker that failed alone carries the reason as its status.

    Raises:
        IngestError: every ticker failed.
    """
    feed = bars_feed(source, calendar.exchange)
    entries: Iterator[Entry]
    if isinstance(source, FileSource):
        entries = take_files(warehouse, payloads, feed, source, calendar.exchange, request)
    else:
        asker = Asker(
            warehouse, payloads, feed, source.name, request, source.fetch_bars, breaker, calendar
        )
        entries = asker.entries()
    return _ingest(warehouse, payloads, source, feed, request, entries, progress)


def ingest_headlines(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: NewsSource | FileSource,
    request: Request,
    progress: Callable[[str], None] = lambda _: None,
    breaker: CircuitBreaker | None = None,
) -> list[Ingested]:
    """Bring the headlines of a request into ``raw_news``; returns and raises as for bars."""
    feed = news_feed(source)
    entries: Iterator[Entry]
    if isinstance(source, FileSource):
        entries = take_files(warehouse, payloads, feed, source, "", request)
    else:
        fetch = source.fetch_headlines
        entries = Asker(warehouse, payloads, feed, source.name, request, fetch, breaker).entries()
    return _ingest(warehouse, payloads, source, feed, request, entries, progress)


def summary(results: Sequence[Ingested]) -> str:
    """One line on what an ingestion did: counts, and who failed and why."""
    counts = {
        name: sum(getattr(line, name) for line in results)
        for name in ("inserted", "revised", "unchanged", "quarantined")
    }
    failed: dict[str, list[str]] = {}
    for line in results:
        if line.status not in {"ok", "no data"}:
            failed.setdefault(line.status, []).append(line.ticker)
    words = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    reasons = "".join(
        f"; failed {', '.join(tickers[:5])}{' ...' if len(tickers) > 5 else ''}"
        f" ({len(tickers)}): {status}"
        for status, tickers in failed.items()
    )
    return f"{len(results):,} tickers: {words}{reasons}"


def _ingest(
    warehouse: Warehouse,
    payloads: PayloadStore,
    source: BarSource | NewsSource | FileSource,
    feed: Feed,
    request: Request,
    entries: Iterator[Entry],
    progress: Callable[[str], None],
) -> list[Ingested]:
    if missing := replay(warehouse, payloads, [source], progress):
        progress(f"{missing} batches that a crash had taken from the warehouse were played again")
    results: list[Ingested] = []
    started = time.monotonic()
    for entry in entries:
        results += commit(warehouse, payloads, feed, entry)
        progress(_progress(feed.table, len(results), len(request.tickers), started))
    progress(f"{feed.table}: {summary(results)}")
    if not isinstance(source, FileSource):
        bad = [line.status for line in results if line.status not in {"ok", "no data"}]
        if bad and len(bad) == len(results):
            raise IngestError(bad[0])
    return results


def _progress(table: str, done: int, total: int, started: float) -> str:
    """A bar, and how long it will take, for one line of a log or a terminal."""
    share = min(done / max(total, 1), 1.0)
    left = (time.monotonic() - started) * (1 - share) / share if share else 0.0
    bar = ("█" * round(20 * share)).ljust(20, "░")
    return f"{table}: {bar} {done:,} of {max(done, total):,} tickers, {left:.0f} s left"
