"""The real yfinance client, unpatched, against a stand-in on loopback that speaks Yahoo's JSON."""

import json
import logging
import socket
import time
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market.sources import (
    BadPayload,
    Payload,
    RateLimited,
    SourceUnavailable,
    UnknownTicker,
)
from rnn_pipeline.market.yahoo import ATTEMPTS, YahooSource

from .yahoo_stand_in import FIRST, LAST, STORY, UNKNOWN, ToLoopback, Yahoo, chart, news, ok, posix


@pytest.fixture
def source(session, cache_dir) -> YahooSource:
    return YahooSource(cache_dir, session, patience=3, interval=0)


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_bars_with_a_dividend_and_a_split(yahoo, source):
    payload = source.fetch_bars("ACME", FIRST, LAST)
    assert payload.content == ok(chart())[1]  # the bytes as they were sent
    bars = source.parse_bars(payload, "ACME").set_index("session")
    assert list(bars.index.strftime("%m-%d")) == [
        "06-05", "06-06", "06-07", "06-10", "06-11", "06-12", "06-13",
    ]  # fmt: skip
    assert bars.loc["2024-06-06", ["open", "high", "low", "close"]].tolist() == [120, 123, 118, 121]
    assert bars.loc["2024-06-06", "adj_close"] == 121.0 * 0.99
    assert bars["volume"].tolist() == [1000, 1001, 1002, 1003, 1004, 1005, 1006]
    assert bars["dividend"].tolist() == [0, 0, 0.25, 0, 0, 0, 0]
    assert bars["split"].tolist() == [0, 0, 0, 10, 0, 0, 0]


def test_bars_are_read_as_yfinance_reads_them(source, session):
    bars = source.parse_bars(source.fetch_bars("ACME", FIRST, LAST), "ACME")
    import yfinance

    theirs = yfinance.Ticker("ACME", session=session).history(
        start=FIRST, end=date(2024, 6, 14), auto_adjust=False, actions=True, keepna=True
    )
    assert bars["session"].tolist() == theirs.index.tz_localize(None).tolist()
    names = {
        "open": "Open",
        "high": "High",
        "low": "Low",
        "close": "Close",
        "adj_close": "Adj Close",
        "volume": "Volume",
        "dividend": "Dividends",
        "split": "Stock Splits",
    }
    np.testing.assert_array_equal(bars[list(names)], theirs[list(names.values())])


def test_the_range_is_asked_for_in_the_exchanges_days_and_the_crumb_stays_secret(yahoo, source):
    payload = source.fetch_bars("ACME", FIRST, LAST)
    query = parse_qs(urlsplit(yahoo.asked[-1]).query)
    assert query["period1"] == [str(posix("2024-06-05", "00:00"))]
    assert query["period2"] == [str(posix("2024-06-14", "00:00"))]
    assert query["interval"] == ["1d"]
    assert urlsplit(payload.url).path == "/v8/finance/chart/ACME"
    assert parse_qs(urlsplit(payload.url).query)["period1"] == query["period1"]
    assert query["crumb"] == ["s3cret.crumb"]
    assert "crumb" not in payload.url


def test_an_unknown_ticker_is_known_at_once(yahoo, source):
    yahoo.chart = lambda _n: UNKNOWN
    with pytest.raises(
        UnknownTicker, match="GONE is unknown to Yahoo Finance or delisted"
    ) as error:
        source.fetch_bars("GONE", FIRST, LAST)
    one_line(error.value)
    assert yahoo.bars_asked == 1
    with pytest.raises(UnknownTicker, match="if it is a share class, write BRK-B"):
        source.fetch_bars("BRK.B", FIRST, LAST)


def test_a_hostile_ticker_is_never_sent(yahoo, source):
    for fetch in (source.fetch_bars, source.fetch_headlines):
        with pytest.raises(UnknownTicker, match="is not a ticker"):
            fetch("../../etc/passwd", FIRST, LAST)
    assert yahoo.asked == []


@pytest.mark.parametrize(
    "fault",
    [
        (500, b"<html>Internal Server Error</html>"),
        (503, json.dumps(chart()).encode()),  # an outage that looks like an answer
        (200, b"<html>we will be with you shortly</html>"),
        (200, b'{"chart":{"result":[{"meta":{'),
        (200, b'{"chart":{"result":null,"error":null}}'),
        (200, json.dumps(chart("OTHER")).encode()),
        (200, json.dumps(chart(timestamp=[1, 2])).encode()),
        (404, b"<html><h1>404 Not Found</h1></html>"),
        (429, b"Too Many Requests\r\n"),
    ],
)
def test_a_passing_fault_is_overcome(yahoo, source, fault):
    yahoo.chart = lambda n: fault if n <= 2 else ok(chart("PASS"))
    payload = source.fetch_bars("PASS", FIRST, LAST)
    assert payload.content == ok(chart("PASS"))[1]
    assert len(source.parse_bars(payload, "PASS")) == 7


def test_a_lasting_outage_ends_in_one_line_after_few_requests(yahoo, source):
    yahoo.chart = lambda _n: (500, b"<html>Internal Server Error</html>")
    with pytest.raises(SourceUnavailable) as error:
        source.fetch_bars("ACME", FIRST, LAST)
    assert one_line(error.value) == (
        "cannot reach Yahoo Finance for ACME (HTTP 500): check the connection, or run with"
        " SOURCE=sample"
    )
    assert yahoo.bars_asked == ATTEMPTS


def test_being_rate_limited_is_said(yahoo, source):
    yahoo.chart = lambda _n: (429, b"Too Many Requests\r\n")
    with pytest.raises(RateLimited, match=r"Too Many Requests"):
        source.fetch_bars("ACME", FIRST, LAST)
    assert yahoo.bars_asked <= 2 * ATTEMPTS


def test_offline_it_fails_fast_with_one_line(cache_dir, capfd, caplog):
    with socket.socket() as closed, ToLoopback() as session:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        session.port = closed.getsockname()[1]
        source = YahooSource(cache_dir, session)
        for fetch in (source.fetch_bars, source.fetch_headlines):
            start = time.monotonic()
            with pytest.raises(SourceUnavailable, match=r"for OFF \(curl: \(7\)") as error:
                fetch("OFF", FIRST, LAST)
            assert time.monotonic() - start < 8
            assert one_line(error.value).endswith("or run with SOURCE=sample")
            assert "curl.se" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_server_that_never_answers_is_given_up_in_time(cache_dir):
    with socket.socket() as silent, ToLoopback() as session:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        session.port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match="cannot reach Yahoo Finance for SLOW"):
            YahooSource(cache_dir, session, patience=1.5).fetch_bars("SLOW", FIRST, LAST)
        assert time.monotonic() - start < 3


def test_the_session_is_left_as_it_was(yahoo, source, session):
    source.fetch_bars("ACME", FIRST, LAST)
    assert "request" not in vars(session)


NO_BARS = (
    400,
    b'{"chart":{"result":null,"error":{"code":"Bad Request","description":'
    b'"Data doesn\'t exist for startDate = 1, endDate = 2"}}}',
)


@pytest.mark.parametrize(
    "answer",
    [NO_BARS, ok(chart(timestamp=None, indicators={"quote": [{}], "adjclose": [{}]}))],
)
def test_a_range_without_bars_is_empty_not_unknown(yahoo, source, answer):
    yahoo.chart = lambda _n: ok(chart()) if asks_for_zone(yahoo) else answer
    bars = source.parse_bars(source.fetch_bars("ACME", FIRST, LAST), "ACME")
    assert len(bars) == 0
    assert bars["session"].dtype.kind == "M"


def test_the_answer_about_the_time_zone_is_never_taken_for_the_bars(yahoo, source):
    yahoo.chart = lambda _n: NO_BARS if asks_for_zone(yahoo) else ok(chart())
    with pytest.raises(SourceUnavailable):
        source.fetch_bars("NOZONE", FIRST, LAST)


def asks_for_zone(yahoo: Yahoo) -> bool:
    """Whether this is yfinance's first question about a new ticker: a chart of one day."""
    return "range=1d" in yahoo.asked[-1]


def read(answer: dict, ticker: str = "ACME") -> pd.DataFrame:
    payload = Payload(json.dumps(answer).encode(), "application/json")
    return YahooSource(Path("unused")).parse_bars(payload, ticker)


def with_quotes(stamps: list[int], zone: str = "America/New_York", **events: object) -> dict:
    prices = [float(n + 1) for n in range(len(stamps))]
    answer = chart(
        timestamp=stamps,
        events=events,
        indicators={
            "quote": [dict.fromkeys(["open", "high", "low", "close", "volume"], prices)],
            "adjclose": [{"adjclose": prices}],
        },
    )
    answer["chart"]["result"][0]["meta"]["exchangeTimezoneName"] = zone
    return answer


def test_what_yahoo_left_empty_stays_empty():
    answer = chart()
    quote = answer["chart"]["result"][0]["indicators"]["quote"][0]
    for values in quote.values():
        values[3] = None
    quote["volume"][1] = None
    bars = read(answer)
    assert len(bars) == 7
    assert bars.loc[3, ["open", "high", "low", "close", "volume"]].isna().all()
    assert bars["volume"].isna().tolist() == [False, True, False, True, False, False, False]


def test_bad_values_are_left_for_quality_to_judge():
    answer = chart()
    quote = answer["chart"]["result"][0]["indicators"]["quote"][0]
    quote["close"][0], quote["low"][1], quote["high"][2] = -1.0, 0.0, float("inf")
    bars = read(answer)
    assert (bars["close"][0], bars["low"][1], bars["high"][2]) == (-1.0, 0.0, float("inf"))


def test_the_repeated_latest_session_counts_once_with_its_fresher_numbers():
    stamps = [posix("2024-06-12"), posix("2024-06-13"), posix("2024-06-13", "15:31")]
    bars = read(with_quotes(stamps))
    assert bars["session"].dt.day.tolist() == [12, 13]
    assert bars["close"].tolist() == [1.0, 3.0]
    # Elsewhere a repetition is a fault, and stays for quality to see.
    repeated = read(with_quotes([stamps[0], stamps[0], stamps[1]]))
    assert repeated["session"].dt.day.tolist() == [12, 12, 13]


@pytest.mark.parametrize(
    ("zone", "clock", "day"),
    [
        ("Asia/Tokyo", "09:00", "2024-06-12"),
        ("Pacific/Auckland", "10:15", "2024-06-12"),  # still the day before in UTC
        ("America/New_York", "20:30", "2024-06-12"),  # already the day after in UTC
        ("Europe/London", "00:00", "2024-06-12"),
        ("America/Sao_Paulo", "23:00", "2024-06-11"),  # Yahoo's midnight, off by daylight saving
    ],
)
def test_sessions_are_days_of_the_exchange(zone, clock, day):
    bars = read(with_quotes([posix(day, clock, zone)], zone))
    assert bars["session"].tolist() == [pd.Timestamp("2024-06-12")]


def test_actions_without_a_bar_go_to_the_next_one_and_wait_if_there_is_none():
    paid = {
        "a": {"amount": 0.5, "date": posix("2024-06-11")},  # no bar on the 11th
        "b": {"amount": 0.25, "date": posix("2024-06-12")},
        "c": {"amount": 9.0, "date": posix("2024-06-14")},  # not traded yet
    }
    stamps = [posix("2024-06-10"), posix("2024-06-12"), posix("2024-06-13")]
    assert read(with_quotes(stamps, dividends=paid))["dividend"].tolist() == [0.0, 0.75, 0.0]


def test_unordered_rows_are_sorted():
    bars = read(with_quotes([posix("2024-06-13"), posix("2024-06-12")]))
    assert bars["close"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "list indices"),
        (b"null", "NoneType"),
        (json.dumps(chart("OTHER")).encode(), "it is about 'OTHER'"),
        (UNKNOWN[1], "No data found, symbol may be delisted"),
        (b'{"chart":{"result":[],"error":null}}', "not enough values"),
    ],
)
def test_damaged_payloads_are_named(content, reason):
    with pytest.raises(BadPayload, match=f"not an answer of Yahoo about ACME: .*{reason}") as error:
        YahooSource(Path("unused")).parse_bars(Payload(content, "application/json"), "ACME")
    one_line(error.value)


def test_headlines(yahoo, source):
    later = {"id": "9", "content": STORY["content"] | {"pubDate": "2024-06-13T01:00:00+02:00"}}
    undated = {"id": "x", "content": {"title": "No date", "pubDate": "soon", "provider": None}}
    advert = {"id": "ad", "ad": ["buy"], "content": None}
    answer = news(later, STORY, undated, advert)
    yahoo.news = lambda _n: ok(answer)
    payload = source.fetch_headlines("ACME", FIRST, LAST)
    assert payload.content == ok(answer)[1]
    headlines = source.parse_headlines(payload, "ACME")
    assert headlines["news_id"].tolist() == ["7a3c", "9", "x"]
    assert headlines.loc[0, ["title", "summary", "url", "provider"]].tolist() == [
        "Acme beats <b>forecasts</b> 🚀",
        "Profit rose.",
        "https://news.example/acme",
        "Newswire",
    ]
    assert headlines["published_at"][0] == pd.Timestamp("2024-06-12 20:31:07", tz="UTC")
    assert headlines["published_at"][1] == pd.Timestamp("2024-06-12 23:00", tz="UTC")
    assert headlines["published_at"].isna().tolist() == [False, False, True]


def test_no_headlines_is_an_answer(yahoo, source):
    yahoo.news = lambda _n: ok(news())
    payload = source.fetch_headlines("ACME", FIRST, LAST)
    assert len(source.parse_headlines(payload, "ACME")) == 0


@pytest.mark.parametrize(
    "fault",
    [
        (500, b"<html></html>"),
        (404, b"{}"),  # yfinance takes this for a ticker without news
        (200, b'{"data":null}'),
        (200, b"[]"),
        (429, b"Too Many Requests\r\n"),
    ],
)
def test_a_passing_fault_of_the_news_is_overcome(yahoo, source, fault):
    yahoo.news = lambda n: fault if n <= 2 else ok(news(STORY))
    payload = source.fetch_headlines("ACME", FIRST, LAST)
    assert source.parse_headlines(payload, "ACME")["news_id"].tolist() == ["7a3c"]
