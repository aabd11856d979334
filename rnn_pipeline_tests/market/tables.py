"""A source whose answers are tables in memory, and the bars and headlines to put into it."""

import io
from datetime import UTC, date, datetime

import pandas as pd

from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.ingest import Ingested, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.quality import Verdict
from rnn_pipeline.market.sources import BadPayload, Payload, UnknownTicker, as_bars, as_headlines
from rnn_pipeline.warehouse import PayloadStore, Warehouse

CALENDAR = SessionCalendar("XNYS")
FIRST, LAST = date(2024, 3, 1), date(2024, 3, 28)
LATER = datetime(2024, 4, 10, tzinfo=UTC)


class TableSource:
    """Both a BarSource and a NewsSource; ``bars`` and ``news`` may change between two fetches.

    A ticker may hold an exception in place of its table: asking for it raises that.
    """

    name = "table"

    def __init__(self, bars=None, news=None):
        self.bars = bars or {}
        self.news = news or {}
        self.asked = []

    def fetch_bars(self, ticker: str, first: date, last: date) -> Payload:
        rows = self._answer(self.bars, ticker, first, last)
        within = rows["session"].between(pd.Timestamp(first), pd.Timestamp(last))
        return _as_json(rows[within])

    def fetch_headlines(self, ticker: str, first: date, last: date) -> Payload:
        rows = self._answer(self.news, ticker, first, last)
        return _as_json(rows)

    def parse_bars(self, payload: Payload, ticker: str) -> pd.DataFrame:
        rows = self._read(payload)
        empty = pd.DataFrame(columns=list(bars("X", []).columns))
        rows = rows if len(rows) else empty
        return as_bars(rows.assign(session=pd.to_datetime(rows["session"]).dt.tz_localize(None)))

    def parse_headlines(self, payload: Payload, ticker: str) -> pd.DataFrame:
        rows = self._read(payload)
        return as_headlines(rows if len(rows) else news("X", []))

    def _answer(self, tables, ticker, first, last) -> pd.DataFrame:
        self.asked.append((ticker, first, last))
        answer = tables.get(ticker, UnknownTicker(f"{ticker} is unknown"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @staticmethod
    def _read(payload: Payload) -> pd.DataFrame:
        try:
            return pd.read_json(io.BytesIO(payload.content), dtype=False, precise_float=True)
        except ValueError as error:
            raise BadPayload(f"no table: {error}") from None


def _as_json(rows: pd.DataFrame) -> Payload:
    text = rows.to_json(orient="records", date_format="iso", double_precision=15)
    return Payload(text.encode(), "application/json")


def bars(ticker: str, sessions, close=100.0, **columns) -> pd.DataFrame:
    """One bar per session; ``close`` and other columns are one value or one per session."""
    days = pd.to_datetime(list(sessions))
    frame = pd.DataFrame({"ticker": ticker, "session": days})
    frame["close"] = close
    frame = frame.assign(
        open=frame["close"] - 1,
        high=frame["close"] + 2,
        low=frame["close"] - 2,
        adj_close=frame["close"],
        volume=1000.0,
        dividend=0.0,
        split=0.0,
    )
    return as_bars(frame.assign(**columns))


def month(ticker: str, first=FIRST, last=LAST, **columns) -> pd.DataFrame:
    """Bars of every session of a range, with a close that rises from 100 by 1."""
    sessions = CALENDAR.sessions(first, last)
    return bars(ticker, sessions, [100.0 + n for n in range(len(sessions))], **columns)


def news(ticker: str, stories) -> pd.DataFrame:
    """Headlines from ``(news_id, published_at, title)``."""
    frame = pd.DataFrame(list(stories), columns=["news_id", "published_at", "title"])
    return as_headlines(frame.assign(ticker=ticker, summary="", url="", provider="wire"))


class Market:
    """A warehouse in a folder, a source, and the two ingestions with their usual arguments."""

    def __init__(self, folder, source: TableSource):
        self.store = Warehouse(folder / "warehouse.duckdb", lock_timeout=5)
        self.payloads = PayloadStore(folder / "payloads")
        self.source = source

    def bars(self, now=LATER, first=FIRST, last=LAST, tickers=None) -> list[Ingested]:
        tickers = tickers or list(self.source.bars)
        request = Request(tickers, first, last, f"run {now}", lambda: now)
        return ingest_bars(self.store, self.payloads, self.source, CALENDAR, request)

    def news(self, now=LATER, first=FIRST, last=LAST, tickers=None) -> list[Ingested]:
        tickers = tickers or list(self.source.news)
        request = Request(tickers, first, last, f"run {now}", lambda: now)
        return ingest_headlines(self.store, self.payloads, self.source, request)

    def tables(self, *names: str) -> dict[str, pd.DataFrame]:
        return {name: self.store.rows(name) for name in names}


def all_sound(rows, *_) -> Verdict:
    """Stands in for a suite of rules, which costs a second a batch."""
    return Verdict(rows, rows[:0].assign(rule=""), {})


def counts(line: Ingested) -> tuple[int, int, int, int]:
    """Inserted, revised, unchanged and quarantined."""
    return line.inserted, line.revised, line.unchanged, line.quarantined
