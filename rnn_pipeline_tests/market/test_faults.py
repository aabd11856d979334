"""What the warehouse shows after each way in which Yahoo fails, through the real client."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pandas as pd
import pytest

from rnn_pipeline.market.breaker import CircuitBreaker
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.commit import release
from rnn_pipeline.market.ingest import IngestError, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.rebuild import RAW_TABLES, rebuild
from rnn_pipeline.market.yahoo import YahooSource
from rnn_pipeline.reporting.tables import table_markdown
from rnn_pipeline.warehouse import PayloadStore, Warehouse

from .tables import counts
from .yahoo_stand_in import (
    FIRST,
    LAST,
    STORY,
    UNKNOWN,
    chart,
    cut_short,
    dropped,
    late,
    news,
    ok,
    posix,
)

NOW = datetime(2024, 7, 1, tzinfo=UTC)


class Live:
    """The pipeline on the stand-in: ``GOOD`` is always answered, ``ACME`` as the test says."""

    def __init__(self, home, yahoo, session, cache_dir):
        self.yahoo = yahoo
        self.store = Warehouse(home / "warehouse.duckdb")
        self.payloads = PayloadStore(home / "payloads")
        self.source = YahooSource(cache_dir, session, patience=2, interval=0)
        self.rests = []
        self.now = NOW
        self.first, self.last = FIRST, LAST

    def _request(self, tickers):
        self.now += timedelta(hours=1)
        return Request(tickers, self.first, self.last, f"run {self.now}", lambda: self.now)

    def _breaker(self):
        return CircuitBreaker(self.rests.append)

    def bars(self, answer=None, tickers=("ACME", "GOOD"), each=None, exchange="XNYS"):
        """Ingest bars; ``each`` gives the answer to the nth question about ACME."""
        asked = 0

        def chart_of(_n):
            nonlocal asked
            if "/GOOD" in self.yahoo.asked[-1]:
                return ok(chart("GOOD"))
            asked += 1
            return each(asked) if each else answer

        self.yahoo.chart = chart_of
        lines = ingest_bars(
            self.store, self.payloads, self.source, SessionCalendar(exchange),
            self._request(tickers), breaker=self._breaker(),
        )  # fmt: skip
        return {line.ticker: line for line in lines}

    def news(self, *stories, each=None):
        self.yahoo.news_asked = 0
        self.yahoo.news = each or (lambda _n: ok(news(*stories)))
        (line,) = ingest_headlines(
            self.store, self.payloads, self.source, self._request(["ACME"]), breaker=self._breaker()
        )
        return line

    def rules(self):
        return sorted(self.store.rows("quarantine")["rule"])


@pytest.fixture
def live(tmp_path, yahoo, session, cache_dir):
    return Live(tmp_path, yahoo, session, cache_dir)


def changed(**quotes) -> dict:
    """The chart of ACME with some quotes replaced: ``close={0: -1}`` is the first close."""
    answer = chart()
    indicators = answer["chart"]["result"][0]["indicators"]
    for name, values in quotes.items():
        column = (indicators["adjclose"] if name == "adjclose" else indicators["quote"])[0][name]
        for place, value in values.items():
            column[place] = value
    return answer


def dated(*days: str) -> dict:
    return chart(timestamp=[posix(f"2024-06-{day}") for day in days])


LASTING = {
    "500 with a page": (500, b"<html>Internal Server Error</html>"),
    "503 with a valid body": (503, json.dumps(chart()).encode()),
    "404 with a page": (404, b"<html>404</html>"),
    "bad JSON": (200, b'{"chart":{"result":[{"meta":{'),
    "a consent page": (200, b"<html>we will be with you shortly</html>"),
    "no result": (200, b'{"chart":{"result":null,"error":null}}'),
    "ragged arrays": ok(chart(timestamp=[1, 2])),
    "no adjusted close": ok(chart(indicators={"quote": [{}]})),
    "wrong symbol": ok(chart("OTHER")),
    "dropped connection": dropped,
    "short read": cut_short(ok(chart())),
    "timeout": late(3, ok(chart())),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_costs_its_ticker_alone_and_stores_nothing(live, fault):
    lines = live.bars(LASTING[fault])
    assert lines["ACME"].status.startswith("cannot reach Yahoo Finance for ACME (")
    assert counts(lines["GOOD"]) == (7, 0, 0, 0)
    assert set(live.store.rows("raw_ohlcv")["ticker"]) == {"GOOD"}
    assert live.rules() == []
    assert live.bars(ok(chart()))["ACME"].inserted == 7  # and running again completes it


@pytest.mark.parametrize(
    "fault", ["500 with a page", "bad JSON", "wrong symbol", "dropped connection", "short read"]
)
def test_two_faults_and_then_a_healthy_server_succeed_in_the_same_run(live, fault):
    lines = live.bars(each=lambda n: LASTING[fault] if n <= 2 else ok(chart()))
    assert (lines["ACME"].status, lines["ACME"].inserted) == ("ok", 7)


def test_a_late_answer_is_waited_for(live):
    assert live.bars(late(0.4, ok(chart())), ["ACME"])["ACME"].inserted == 7
    assert live.yahoo.bars_asked <= 2  # the range, and before it the time zone


def test_the_fresher_of_two_bars_of_the_last_session_counts(live):
    answer = dated("05", "06", "07", "10", "11", "13", "13")
    assert counts(live.bars(ok(answer), ["ACME"])["ACME"]) == (6, 0, 0, 0)
    assert live.store.bars(["ACME"])["close"].iloc[-1] == 129.6


def test_an_unknown_ticker_gets_its_status(live):
    lines = live.bars(UNKNOWN)
    assert "unknown to Yahoo Finance or delisted" in lines["ACME"].status
    status = live.store.rows("ticker_status").set_index("ticker")["status"]
    assert status.to_dict() == {"ACME": "unknown", "GOOD": "ok"}


def test_a_share_class_with_a_dot_is_told_how_yahoo_spells_it(live):
    lines = live.bars(UNKNOWN, ["BRK.B", "GOOD"])
    assert lines["BRK.B"].status.endswith("if it is a share class, write BRK-B")
    status = live.store.rows("ticker_status", ticker="BRK.B").squeeze()
    assert (status["status"], status["reason"]) == ("unknown", lines["BRK.B"].status)
    assert set(live.store.rows("raw_ohlcv")["ticker"]) == {"GOOD"}


def test_an_index_is_a_ticker_like_others(live):
    assert counts(live.bars(ok(chart("^GSPC")), ["^GSPC"])["^GSPC"]) == (7, 0, 0, 0)
    assert live.store.bars(["^GSPC"])["close"].tolist()[-1] == 129.6
    assert urlsplit(live.yahoo.asked[-1]).path.endswith(("/^GSPC", "/%5EGSPC"))


def test_a_429_storm_rests_and_then_goes_on_where_it_stopped(live):
    lines = live.bars(each=lambda n: (429, b"Too Many Requests") if n <= 20 else ok(chart()))
    assert (lines["ACME"].inserted, lines["GOOD"].inserted) == (7, 7)
    assert 1 <= len(live.rests) <= 3


def test_a_429_storm_that_lasts_sends_few_requests_whatever_the_number_of_tickers(live):
    tickers = [f"T{number}" for number in range(500)]
    with pytest.raises(IngestError, match="Too Many Requests"):
        live.bars((429, b"Too Many Requests"), tickers)
    assert len(live.rests) == 3
    assert live.yahoo.bars_asked <= 40
    assert len(live.store.rows("ingest_ledger")) == 500


BAD_VALUES = {
    "negative": (changed(close={2: -1.0}), ["close_positive"], 6),
    "zero": (changed(low={2: 0}), ["low_positive"], 6),
    "infinite": (changed(high={2: float("inf")}), ["high_finite"], 6),
    "high below low": (changed(high={2: 100.0}), ["high_is_highest", "low_is_lowest"], 6),
    "no volume": (changed(volume={2: None}), ["volume_present"], 6),
    "all empty": (
        changed(**{name: {2: None} for name in ("open", "high", "low", "close", "volume")}),
        ["open_present", "high_present", "low_present", "close_present", "volume_present"],
        6,
    ),
    "no last close": (changed(close={6: None}), ["close_present"], 6),
    "a session twice": (
        dated("05", "06", "06", "10", "11", "12", "13"),
        ["unique_session"],
        6,
    ),
    "a Sunday": (
        dated("05", "06", "09", "10", "11", "12", "13"),
        ["session_on_calendar"],
        6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_waits_in_quarantine_with_its_rule_and_payload(live, name):
    answer, rules, good = BAD_VALUES[name]
    body = json.dumps(answer).encode()
    line = live.bars((200, body), ["ACME"])["ACME"]
    assert counts(line) == (good, 0, 0, 1)
    held = live.store.rows("quarantine").squeeze()
    assert set(rules) <= set(held["rule"].split("; "))
    fetch = live.store.rows("raw_fetch", fetch_id=held["fetch_id"]).squeeze()
    assert live.payloads.get(fetch["payload_sha256"]) == body


def test_unordered_sessions_are_put_in_order(live):
    answer = chart()
    result = answer["chart"]["result"][0]
    columns = [result["timestamp"], result["indicators"]["adjclose"][0]["adjclose"]]
    columns += result["indicators"]["quote"][0].values()
    for column in columns:
        column[1], column[4] = column[4], column[1]
    assert live.bars(ok(answer), ["ACME"])["ACME"].inserted == 7
    stored = live.store.bars(["ACME"])
    assert stored["session"].is_monotonic_increasing
    assert stored["close"].tolist() == [122.4, 121.0, 120.9, 121.8, 120.9, 125.2, 129.6]


def story(news_id, **content):
    return {"id": news_id, "content": {**STORY["content"], "id": news_id, **content}}


HOSTILE = [
    "<script>alert(1)</script> Acme rises",
    "Acme'); DROP TABLE raw_news; --",
    "Acme \u202egnp.exe rises \u200f",
    "🚀🚀 Acme 到達 new high",
    "| a | b |\n| --- | --- |",
]


def test_hostile_headlines_are_stored_as_they_are_and_shown_as_plain_text(live):
    stories = [
        story(f"s{n}", title=title, canonicalUrl={"url": f"https://x.example/{n}"})
        for n, title in enumerate(HOSTILE)
    ]
    long = story("long", title="A" * 100_000, canonicalUrl={"url": "https://x.example/long"})
    future = story("f", title="Soon", pubDate="2097-01-01T00:00:00Z", canonicalUrl={})
    assert counts(live.news(*stories, long, future)) == (5, 0, 0, 2)
    assert live.rules() == ["published_in_future", "title_length"]
    stored = live.store.rows("raw_news")
    assert set(stored["title"]) == set(HOSTILE)
    shown = table_markdown(stored, ["title"])
    assert "<script" not in shown
    assert len(shown.splitlines()) == 2 + len(HOSTILE)


NEWS_FAULTS = {
    "429": ((429, b"Too Many Requests"), "Too Many Requests"),
    "500": ((500, b"<html></html>"), "HTTP 500"),
    "404": ((404, b"{}"), "HTTP 404"),
    "no data": ((200, b'{"data":null}'), "NoneType"),
    "a list": ((200, b"[]"), "list"),
    "dropped connection": (dropped, "curl"),
}


@pytest.mark.parametrize("name", NEWS_FAULTS)
def test_news_that_fail_store_nothing_and_are_complete_when_asked_again(live, name):
    fault, reason = NEWS_FAULTS[name]
    with pytest.raises(IngestError, match=f"cannot reach Yahoo Finance for ACME .*{reason}"):
        live.news(each=lambda _n: fault)
    assert live.store.rows("raw_news").empty
    (line,) = live.store.rows("ingest_ledger").itertuples()
    assert reason in line.status
    assert (line.rows_in, line.quarantined) == (0, 0)
    again = live.news(each=lambda n: fault if n <= 2 else ok(news(STORY)))
    assert (again.status, counts(again)) == ("ok", (1, 0, 0, 0))


def test_two_stories_of_one_id_are_one(live):
    line = live.news(STORY, story("7a3c", title="Acme, again"), story("other", canonicalUrl={}))
    assert counts(line) == (1, 0, 0, 1)
    assert live.rules() == ["unique_news_id"]


def test_a_story_sent_again_under_another_id_is_one_story(live):
    live.news(STORY)
    again = story("other-id", title="Acme beats forecasts, and how")
    assert counts(live.news(STORY, again)) == (0, 0, 1, 0)
    assert counts(live.news(again)) == (0, 1, 0, 0)
    assert set(live.store.rows("raw_news")["news_id"]) == {"7a3c"}


def test_a_mid_session_bar_never_gets_in(live):
    live.now = datetime(2024, 6, 13, 14, tzinfo=UTC)  # ten in the morning in New York
    line = live.bars(ok(chart()), ["ACME"])["ACME"]
    assert counts(line) == (6, 0, 0, 0)
    assert live.store.last_session() == pd.Timestamp("2024-06-12").date()


def listed(ticker="ACME", **meta) -> dict:
    """The chart with some of its meta data replaced."""
    answer = chart(ticker)
    answer["chart"]["result"][0]["meta"] |= meta
    return answer


MOVED = {
    "currency": ({"currency": "GBp"}, {"same_currency"}),
    "zone": ({"exchangeTimezoneName": "America/Chicago"}, {"same_time_zone"}),
    "both, and a bad value": (
        {"currency": "EUR", "exchangeTimezoneName": "Europe/Paris"},
        {"same_currency; same_time_zone", "close_positive; same_currency; same_time_zone"},
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_another_currency_or_zone_is_never_mixed_with_what_is_stored(live, name):
    meta, rules = MOVED[name]
    live.bars(ok(chart()), ["ACME"])
    before = live.store.rows("raw_ohlcv")
    answer = listed(**meta)
    if len(rules) == 2:
        answer["chart"]["result"][0]["indicators"]["quote"][0]["close"][2] = -1.0
        answer["chart"]["result"][0]["indicators"]["quote"][0]["low"][2] = -2.0
    body = json.dumps(answer).encode()
    lines = live.bars((200, body))
    assert counts(lines["ACME"]) == (0, 0, 0, 7)
    assert counts(lines["GOOD"]) == (7, 0, 0, 0)
    mine = live.store.rows("raw_ohlcv", ticker="ACME")
    pd.testing.assert_frame_equal(mine, before, check_exact=True)
    held = live.store.rows("quarantine")
    assert {rule.replace("low_positive; ", "") for rule in held["rule"]} == rules
    (fetch_id,) = held["fetch_id"].unique()
    fetch = live.store.rows("raw_fetch", fetch_id=fetch_id).squeeze()
    assert live.payloads.get(fetch["payload_sha256"]) == body
    assert json.loads(held["row_json"][0])["currency"] == meta.get("currency", "USD")


def test_a_person_who_releases_another_currency_accepts_it(live):
    live.bars(ok(chart()), ["ACME"])
    pence = ok(listed(currency="GBp"))
    live.bars(pence, ["ACME"])
    held = live.store.rows("quarantine")["quarantine_id"]
    live.now += timedelta(hours=1)
    release(live.store, live.payloads, list(held), "me", live.now)
    assert counts(live.bars(pence, ["ACME"])["ACME"]) == (0, 0, 7, 0)
    assert counts(live.bars(ok(chart()), ["ACME"])["ACME"]) == (0, 0, 0, 7)
    tables = {table: live.store.rows(table) for table in RAW_TABLES}
    rebuild(live.store, live.payloads, [live.source])
    for table, rows in tables.items():
        pd.testing.assert_frame_equal(live.store.rows(table), rows, check_exact=True)


def test_an_answer_without_a_currency_contradicts_none(live):
    for currency, seen in (("USD", (7, 0, 0, 0)), (None, (0, 0, 7, 0))):
        assert counts(live.bars(ok(listed(currency=currency)), ["ACME"])["ACME"]) == seen


@pytest.mark.parametrize(
    ("exchange", "zone", "day", "close"),
    [
        ("XLON", "Europe/London", "2024-03-28", "16:30"),  # the last session of winter time
        ("XLON", "Europe/London", "2024-04-02", "15:30"),  # the first one of summer time
        ("XLON", "Europe/London", "2024-12-24", "12:30"),  # a half-day
        ("XNYS", "America/New_York", "2024-11-29", "18:00"),  # a half-day
        ("XTKS", "Asia/Tokyo", "2024-11-05", "06:30"),  # the first session of longer hours
    ],
)
def test_a_bar_is_final_from_its_exchanges_close_on(live, exchange, zone, day, close):
    live.first = live.last = pd.Timestamp(day).date()
    quote = {name: [10.0] for name in ("open", "high", "low", "close", "volume")}
    answer = chart(
        exchange,  # a ticker of its own: yfinance remembers a ticker's time zone
        timestamp=[posix(day, "09:00", zone)],
        events={},
        indicators={"quote": [quote], "adjclose": [{"adjclose": [10.0]}]},
    )
    answer["chart"]["result"][0]["meta"]["exchangeTimezoneName"] = zone
    closed = datetime.fromisoformat(f"{day}T{close}").replace(tzinfo=UTC)
    for moment, inserted in ((closed - timedelta(seconds=1), 0), (closed, 1)):
        live.now = moment - timedelta(hours=1)  # the next question is asked an hour later
        line = live.bars(ok(answer), [exchange], exchange=exchange)[exchange]
        assert counts(line) == (inserted, 0, 0, 0)
    row = live.store.bars([exchange]).squeeze()
    assert (row["session"], row["is_final"]) == (pd.Timestamp(day), True)
