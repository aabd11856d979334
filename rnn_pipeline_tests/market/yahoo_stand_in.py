"""A stand-in for Yahoo's servers on loopback that speaks their JSON."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from curl_cffi.requests import Session

#: A status and a body, or what is done to the connection instead of answering.
Answer = tuple[int, bytes] | Callable[["Handler"], None]
FIRST, LAST = date(2024, 6, 5), date(2024, 6, 13)
UNKNOWN = (
    404,
    b'{"chart":{"result":null,"error":{"code":"Not Found",'
    b'"description":"No data found, symbol may be delisted"}}}',
)


def posix(day: str, clock: str = "09:30", zone: str = "America/New_York") -> int:
    return int(datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=ZoneInfo(zone)).timestamp())


def chart(ticker: str = "ACME", **changes: object) -> dict:
    """Seven sessions with a dividend on the 7th and a 10:1 split on the 10th of June 2024."""
    days = ["05", "06", "07", "10", "11", "12", "13"]
    closes = [122.4, 121.0, 120.9, 121.8, 120.9, 125.2, 129.6]
    result = {
        "meta": {
            "symbol": ticker,
            "currency": "USD",
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": "America/New_York",
            "validRanges": ["1d", "5d", "max"],
            "dataGranularity": "1d",
        },
        "timestamp": [posix(f"2024-06-{day}") for day in days],
        "events": {
            "dividends": {
                "1717767000": {"amount": 0.25, "date": posix("2024-06-07")},
            },
            "splits": {
                "1718026200": {
                    "date": posix("2024-06-10"),
                    "numerator": 10,
                    "denominator": 1,
                    "splitRatio": "10:1",
                },
            },
        },
        "indicators": {
            "quote": [
                {
                    "open": [close - 1 for close in closes],
                    "high": [close + 2 for close in closes],
                    "low": [close - 3 for close in closes],
                    "close": closes,
                    "volume": [1000 + n for n in range(len(days))],
                }
            ],
            "adjclose": [{"adjclose": [close * 0.99 for close in closes[:2]] + closes[2:]}],
        },
    }
    return {"chart": {"result": [result | changes], "error": None}}


def news(*stories: dict) -> dict:
    return {"data": {"tickerStream": {"stream": list(stories)}}}


STORY = {
    "id": "7a3c",
    "content": {
        "id": "7a3c",
        "contentType": "STORY",
        "title": "Acme beats <b>forecasts</b> 🚀",
        "summary": "Profit rose.",
        "pubDate": "2024-06-12T20:31:07Z",
        "provider": {"displayName": "Newswire"},
        "canonicalUrl": {"url": "https://news.example/acme"},
    },
}


def ok(answer: dict) -> tuple[int, bytes]:
    return 200, json.dumps(answer).encode()


class Yahoo(ThreadingHTTPServer):
    """Answers like Yahoo's servers, all under one address; ``asked`` holds what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.chart: Callable[[int], Answer] = lambda _n: ok(chart())
        self.news: Callable[[int], Answer] = lambda _n: ok(news(STORY))
        self.bars_asked = self.news_asked = 0

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        parts = urlsplit(path)
        if parts.path == "/v1/test/getcrumb":
            return 200, b"s3cret.crumb"
        if parts.path.startswith("/v8/finance/chart/"):
            self.bars_asked += 1
            return self.chart(self.bars_asked)
        if parts.path == "/xhr/ncp":
            self.news_asked += 1
            return self.news(self.news_asked)
        return 404, b"<html>no such page</html>"


class Handler(BaseHTTPRequestHandler):
    server: Yahoo

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self.path)
        if callable(answer):
            answer(self)
        else:
            self.send(*answer)

    def send(self, status: int, body: bytes, lost: int = 0) -> None:
        """Send an answer; its last ``lost`` bytes are promised and never come."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - lost])

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def dropped(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def cut_short(answer: tuple[int, bytes]) -> Answer:
    """Close the connection in the middle of an answer."""
    return lambda handler: handler.send(*answer, lost=len(answer[1]) // 2)


def late(seconds: float, answer: tuple[int, bytes]) -> Answer:
    """Let the client wait, and answer then if it is still there."""

    def send(handler: Handler) -> None:
        time.sleep(seconds)
        with suppress(OSError):
            handler.send(*answer)

    return send


class ToLoopback(Session):
    """The client's session, with every host replaced by one port of this machine."""

    port = 0

    def request(self, method, url, **options):
        parts = urlsplit(url)
        local = parts._replace(scheme="http", netloc=f"127.0.0.1:{self.port}").geturl()
        return super().request(method, local, **options)
