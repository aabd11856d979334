"""One path from a source to the warehouse: what is new, what changed, and when it was known."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market import commit
from rnn_pipeline.market.breaker import TOLERATED, CircuitBreaker
from rnn_pipeline.market.ingest import Ingested, IngestError, Request, ingest_bars, summary
from rnn_pipeline.market.sources import RateLimited, SourceUnavailable, UnknownTicker

from .tables import CALENDAR, FIRST, LAST, LATER, Market, TableSource, bars, counts, month, news

RAW = ("raw_ohlcv", "raw_news", "corporate_actions", "quarantine")


@pytest.fixture
def market(tmp_path):
    return Market(tmp_path, TableSource({"AAA": month("AAA"), "BBB": month("BBB")}))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_what_comes_out_is_what_went_in(market):
    lines = market.bars()
    assert [(line.ticker, line.status, *counts(line)) for line in lines] == [
        ("AAA", "ok", 20, 0, 0, 0),
        ("BBB", "ok", 20, 0, 0, 0),
    ]
    stored = market.store.bars(["BBB", "AAA"])
    expected = pd.concat([month("AAA"), month("BBB")], ignore_index=True)
    pd.testing.assert_frame_equal(stored[expected.columns], expected, check_dtype=False)
    assert set(stored["revision"]) == {0}
    assert stored["is_final"].all()


def test_every_row_leads_to_the_bytes_it_came_from(market):
    market.bars()
    fetches = market.store.rows("raw_fetch").set_index("fetch_id")
    stored = market.store.bars(["AAA"])
    fetch = fetches.loc[stored["fetch_id"].unique().item()]
    assert (fetch["ticker"], fetch["source"], fetch["kind"]) == ("AAA", "table", "raw_ohlcv")
    sent = json.loads(market.payloads.get(fetch["payload_sha256"]))
    assert [row["close"] for row in sent] == stored["close"].tolist()


def test_running_twice_changes_nothing(market):
    market.source.bars["AAA"].loc[3, "close"] = -1.0
    market.source.news["AAA"] = news("AAA", [("n1", at("2024-03-05"), "Up"), ("n2", None, "No")])
    first = market.bars() + market.news()
    before = market.tables(*RAW)
    second = market.bars(LATER + timedelta(hours=1)) + market.news(LATER + timedelta(hours=1))
    assert [counts(line) for line in first] == [(19, 0, 0, 1), (20, 0, 0, 0), (1, 0, 0, 1)]
    assert [counts(line) for line in second] == [(0, 0, 19, 1), (0, 0, 20, 0), (0, 0, 1, 1)]
    for name, rows in market.tables(*RAW).items():
        pd.testing.assert_frame_equal(rows, before[name])
    assert len(before["quarantine"]) == 2


def test_a_correction_is_a_revision_and_both_can_be_read(market):
    market.bars(LATER)
    market.source.bars["AAA"].loc[3, ["close", "adj_close"]] = 104.5
    corrected = LATER + timedelta(days=1)
    assert counts(market.bars(corrected)[0]) == (0, 1, 19, 0)
    day = CALENDAR.sessions(FIRST, LAST)[3].date()
    before, after = (
        market.store.bars(["AAA"], day, day, as_of=moment).squeeze()
        for moment in (corrected - timedelta(seconds=1), corrected)
    )
    assert (before["close"], before["revision"]) == (103.0, 0)
    assert (after["close"], after["revision"], after["reason"]) == (104.5, 1, "correction")
    assert (after["provenance"], after["known_at"]) == ("observed", pd.Timestamp(corrected))
    market.source.bars["AAA"].loc[3, ["close", "adj_close"]] = 103.0
    market.bars(corrected + timedelta(days=1))
    assert market.store.bars(["AAA"], day, day).squeeze()["revision"] == 2


@pytest.mark.parametrize(("factor", "revised"), [(1 + 4e-6, 0), (1 - 4e-6, 0), (1 + 6e-6, 20)])
def test_float_noise_is_no_revision(market, factor, revised):
    market.bars()
    names = ["open", "high", "low", "close", "adj_close"]
    market.source.bars["AAA"][names] *= factor
    assert market.bars(LATER + timedelta(days=1))[0].revised == revised


def test_a_split_restates_every_bar(market):
    market.bars()
    market.source.bars["AAA"][["open", "high", "low", "close", "adj_close"]] /= 4
    market.source.bars["AAA"]["volume"] *= 4
    assert counts(market.bars(LATER + timedelta(days=1))[0]) == (0, 20, 0, 0)
    now = market.store.bars(["AAA"])
    assert set(now["reason"]) == {"split"}
    assert now["close"].tolist() == [(100.0 + n) / 4 for n in range(20)]
    then = market.store.bars(["AAA"], as_of=LATER)
    assert then["close"].tolist() == [100.0 + n for n in range(20)]


def test_a_dividend_moves_adj_close_alone(market):
    market.bars()
    market.source.bars["AAA"].loc[:14, "adj_close"] *= 0.99
    market.source.bars["AAA"].loc[15, "dividend"] = 1.0
    assert counts(market.bars(LATER + timedelta(days=1))[0]) == (0, 16, 4, 0)
    now = market.store.bars(["AAA"])
    assert now["reason"].tolist() == ["dividend"] * 16 + ["first load"] * 4
    action = market.store.rows("corporate_actions").squeeze()
    assert (action["kind"], action["value"], action["session"]) == (
        "dividend", 1.0, CALENDAR.sessions(FIRST, LAST)[15],
    )  # fmt: skip


def test_one_restated_row_is_a_correction_whatever_moved(market):
    market.bars()
    market.source.bars["AAA"].loc[4, "adj_close"] *= 0.9
    market.source.bars["BBB"].loc[5, "volume"] += 1
    market.bars(LATER + timedelta(days=1))
    revised = market.store.rows("raw_ohlcv", revision=1)
    assert revised["reason"].tolist() == ["correction", "correction"]


def test_history_is_assumed_and_what_follows_is_observed(market):
    full = market.source.bars["AAA"]
    loaded = at("2024-03-14 22:00")
    market.source.bars = {"AAA": full[full["session"] <= "2024-03-14"]}
    market.bars(loaded)
    watched = at("2024-03-15 20:05")
    market.source.bars = {"AAA": full[full["session"] <= "2024-03-15"]}
    market.bars(watched)
    rows = market.store.bars(["AAA"]).set_index("session")
    closes = CALENDAR.closes(CALENDAR.sessions(FIRST, date(2024, 3, 14)))
    assert rows["known_at"].iloc[:-1].tolist() == list(closes)
    assert set(rows["provenance"].iloc[:-1]) == {"assumed"}
    assert rows.iloc[-1][["known_at", "provenance"]].tolist() == [watched, "observed"]


def test_a_bar_that_an_earlier_answer_lacked_is_late(market):
    full = market.source.bars["AAA"]
    market.source.bars["AAA"] = full.drop(index=7)
    market.bars()
    market.source.bars["AAA"] = full
    late = LATER + timedelta(days=3)
    assert counts(market.bars(late)[0]) == (1, 0, 19, 0)
    row = market.store.bars(["AAA"]).iloc[7]
    assert (row["known_at"], row["provenance"]) == (pd.Timestamp(late), "observed")
    assert len(market.store.bars(["AAA"], as_of=LATER)) == 19


def test_older_history_asked_for_later_is_assumed(market):
    older = month("AAA", date(2024, 2, 1), LAST)
    market.source.bars["AAA"] = older
    market.bars()
    market.bars(LATER + timedelta(days=1), first=date(2024, 2, 1), last=date(2024, 2, 29))
    assert set(market.store.bars(["AAA"])["provenance"]) == {"assumed"}


def test_bad_rows_wait_in_quarantine_while_good_ones_commit(market):
    rows = market.source.bars["AAA"]
    rows.loc[2, "high"] = 1.0
    rows.loc[5, "close"] = np.nan
    rows.loc[9, "session"] = pd.Timestamp("2024-03-16")
    assert [counts(line) for line in market.bars()] == [(17, 0, 0, 3), (20, 0, 0, 0)]
    held = market.store.rows("quarantine")
    assert held.sort_values("rule")["rule"].tolist() == [
        "close_present", "high_is_highest; low_is_lowest", "session_on_calendar",
    ]  # fmt: skip
    assert set(held["ticker"]) == {"AAA"}
    fetch = market.store.rows("raw_fetch", ticker="AAA").squeeze()
    assert set(held["fetch_id"]) == {fetch["fetch_id"]}
    kept = json.loads(held[held["rule"].str.startswith("high")]["row_json"].item())
    assert (kept["high"], kept["close"]) == (1.0, 102.0)


def test_a_bar_before_its_close_is_neither_stored_nor_bad(market):
    day = date(2024, 3, 8)
    before_close = at("2024-03-08 20:59")  # 15:59 in New York
    full = market.source.bars["AAA"]
    market.source.bars = {"AAA": full[full["session"] <= pd.Timestamp(day)]}
    line = market.bars(before_close)[0]
    assert counts(line) == (5, 0, 0, 0)
    assert market.store.last_session() == date(2024, 3, 7)
    assert len(market.store.rows("quarantine")) == 0
    market.bars(at("2024-03-08 21:01"))
    row = market.store.bars(["AAA"], day, day).squeeze()
    assert (row["known_at"], row["provenance"]) == (at("2024-03-08 21:01"), "observed")


def test_one_ticker_that_fails_does_not_cost_the_others(market):
    market.source.bars = {"AAA": month("AAA"), "ZZZ": UnknownTicker("ZZZ is unknown")}
    ledger = {line.ticker: line.status for line in market.bars()}
    assert ledger == {"AAA": "ok", "ZZZ": "ZZZ is unknown"}


def test_where_nothing_could_be_had_the_first_reason_is_raised(market):
    market.source.bars = {"AAA": SourceUnavailable("cannot reach the exchange")}
    with pytest.raises(IngestError, match="cannot reach the exchange"):
        market.bars()


def test_a_ticker_without_an_answer_is_said_to_have_none(market):
    market.source.bars["AAA"] = bars("AAA", [])
    assert [line.status for line in market.bars()] == ["no data", "ok"]


def test_an_edited_headline_is_a_revision_and_the_first_words_stay_usable(market):
    published = at("2024-03-05 15:00")
    market.source.news["AAA"] = news("AAA", [("n1", published, "Profit falls")])
    market.news()
    market.source.news["AAA"] = news("AAA", [("n1", published, "Profit rises")])
    assert counts(market.news(LATER + timedelta(hours=1))[0]) == (0, 1, 0, 0)
    assert market.store.headlines(["AAA"])["title"].tolist() == ["Profit falls"]
    assert market.store.rows("raw_news")["title"].tolist() == ["Profit falls", "Profit rises"]


def test_a_headline_is_usable_when_it_was_published_and_seen(market):
    old, fresh = at("2024-03-05 15:00"), LATER + timedelta(minutes=5)
    market.source.news["AAA"] = news("AAA", [("n1", old, "Old")])
    market.news()
    seen = LATER + timedelta(minutes=20)
    market.source.news["AAA"] = news("AAA", [("n1", old, "Old"), ("n2", fresh, "Fresh")])
    market.news(seen)
    rows = market.store.headlines(["AAA"]).set_index("news_id")
    assert rows["usable_at"].tolist() == [old, seen]
    assert rows["provenance"].tolist() == ["assumed", "observed"]


def test_a_crash_in_the_middle_of_a_batch_leaves_nothing_and_a_second_run_completes_it(
    market, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(commit, "_record_actions", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            market.bars()
    assert {name: len(rows) for name, rows in market.tables("raw_ohlcv", "raw_fetch").items()} == {
        "raw_ohlcv": 0,
        "raw_fetch": 0,
    }
    assert [counts(line) for line in market.bars()] == [(20, 0, 0, 0)] * 2


def test_a_later_run_asks_for_an_overlap_and_a_first_one_does_not(market):
    full = month("AAA", date(2024, 2, 1), LAST)
    market.source.bars = {"AAA": full}
    market.bars(first=date(2024, 2, 1), last=date(2024, 3, 14))
    market.bars(LATER + timedelta(days=1), first=date(2024, 3, 15))
    assert market.source.asked == [
        ("AAA", date(2024, 2, 1), date(2024, 3, 14)),
        ("AAA", date(2024, 3, 1), LAST),  # the tenth session before the 15th
    ]


@pytest.mark.parametrize(("kind", "split"), [("split", 4.0), ("dividend", 0.0)])
def test_a_restated_overlap_fetches_the_whole_history_anew(market, kind, split):
    full = month("AAA", date(2024, 1, 2), LAST)
    market.source.bars = {"AAA": full[full["session"] <= "2024-03-14"]}
    market.bars(first=date(2024, 1, 2))
    before = LATER + timedelta(days=1)
    restated = full.copy()
    ex = restated["session"] == "2024-03-15"
    past = restated["session"] < "2024-03-15"
    moved = ["adj_close"] if kind == "dividend" else ["open", "high", "low", "close", "adj_close"]
    restated.loc[past, moved] *= 0.25 if kind == "split" else 0.99
    restated.loc[ex, kind] = split or 1.0
    market.source.bars["AAA"] = restated
    line = market.bars(before, first=date(2024, 3, 15))[0]
    assert counts(line) == (10, 51, 0, 0)
    assert market.source.asked[-1] == ("AAA", date(2024, 1, 2), LAST)
    now = market.store.bars(["AAA"])
    assert now["adj_close"].tolist() == pytest.approx(restated["adj_close"].tolist())
    assert set(now["reason"]) == {kind, "first load"}
    then = market.store.bars(["AAA"], as_of=before - timedelta(seconds=1))
    assert then["adj_close"].tolist() == full.loc[past, "adj_close"].tolist()
    action = market.store.rows("corporate_actions").squeeze()
    assert (action["kind"], action["session"]) == (kind, pd.Timestamp("2024-03-15"))


def test_a_correction_in_the_overlap_fetches_no_more(market):
    market.bars(last=date(2024, 3, 14))
    market.source.bars["AAA"].loc[5, "close"] += 0.5
    market.bars(LATER + timedelta(days=1), first=date(2024, 3, 15))
    assert [asked[0] for asked in market.source.asked] == ["AAA", "BBB", "AAA", "BBB"]
    assert market.store.rows("raw_ohlcv", revision=1)["reason"].tolist() == ["correction"]


def test_the_status_of_every_ticker_is_kept(market):
    full = month("AAA")
    market.source.bars = {
        "GOOD": month("GOOD"),
        "GAPS": month("GAPS").drop(index=[4, 9]),
        "LATE": month("LATE")[:-6],
        "NONE": bars("NONE", []),
        "GONE": full.assign(ticker="GONE"),
        "WHAT": UnknownTicker("WHAT is unknown"),
        "DOWN": SourceUnavailable("cannot reach it"),
    }
    market.bars()
    market.source.bars["GONE"] = UnknownTicker("GONE is unknown")
    market.bars(LATER + timedelta(days=1))
    table = market.store.rows("ticker_status").set_index("ticker")
    assert table["status"].to_dict() == {
        "GAPS": "ok",
        "GONE": "delisted",
        "GOOD": "ok",
        "LATE": "stale",
        "NONE": "no data",
        "WHAT": "unknown",
    }
    assert (
        table.loc["LATE", "reason"] == "the newest bar is 6 sessions older than what was asked for"
    )
    assert table.loc["GAPS", ["sessions", "missing"]].tolist() == [18, 2]
    missing = market.store.rows("missing_sessions")
    sessions = CALENDAR.sessions(FIRST, LAST)
    assert missing["session"].tolist() == [sessions[4], sessions[9]]
    assert len(market.store.bars(["GONE"])) == 20  # and never a row that was not sent


def storm(market, tickers, refuse_until):
    """Every ticker's source says 429 until it was asked that often; rests take no time."""
    asked = []

    def fetch(ticker, first, last):
        asked.append(ticker)
        if len(asked) <= refuse_until:
            raise RateLimited("HTTP 429")
        return TableSource.fetch_bars(market.source, ticker, first, last)

    rests = []
    breaker = CircuitBreaker(rests.append, lambda _low, high: high)
    market.source.bars = {ticker: month(ticker, LAST) for ticker in tickers}
    market.source.fetch_bars = fetch
    request = Request(tickers, FIRST, LAST, "storm", lambda: LATER)
    args = (market.store, market.payloads, market.source, CALENDAR, request)
    return asked, rests, lambda: ingest_bars(*args, breaker=breaker)


TICKERS = [f"T{number:03d}" for number in range(500)]


def test_a_storm_over_all_tickers_is_sat_out(market):
    asked, rests, ingest = storm(market, TICKERS[:40], refuse_until=3)
    assert {line.status for line in ingest()} == {"ok"}
    assert asked == ["T000"] * 3 + TICKERS[:40]
    assert rests == [60, 120, 240]


def test_a_storm_that_does_not_end_costs_few_requests_and_the_next_run_resumes(market):
    asked, _, ingest = storm(market, TICKERS, refuse_until=10**6)
    with pytest.raises(IngestError, match="HTTP 429"):
        ingest()
    assert asked == ["T000"] * 4
    del market.source.fetch_bars
    few = market.bars(tickers=TICKERS[40:44])
    assert [line.status for line in few] == ["ok"] * 4
    market.source.asked.clear()
    market.bars(LATER + timedelta(days=1), tickers=TICKERS[38:46])
    assert [asked[0] for asked in market.source.asked] == [
        "T038", "T039", "T044", "T045", "T040", "T041", "T042", "T043",
    ]  # fmt: skip


def test_an_outage_in_the_middle_keeps_what_came_before_it(market):
    down = SourceUnavailable("cannot reach it")
    market.source.bars = {ticker: month(ticker, LAST) for ticker in TICKERS[:3]} | dict.fromkeys(
        TICKERS[3:50], down
    )
    lines = {line.ticker: line.status for line in market.bars()}
    assert [lines[ticker] for ticker in TICKERS[:3]] == ["ok"] * 3
    assert lines["T049"] == "not asked for, the source is down: cannot reach it"
    assert len(market.source.asked) == 3 + TOLERATED


def test_the_summary_names_what_happened_and_who_failed():
    lines = [
        Ingested("raw_ohlcv", "A", "ok", 5, 3, 1, 1, 0),
        Ingested("raw_ohlcv", "B", "no data"),
        *(Ingested("raw_ohlcv", f"C{n}", "HTTP 500") for n in range(7)),
    ]
    assert summary(lines) == (
        "9 tickers: 3 inserted, 1 revised, 1 unchanged, 0 quarantined;"
        " failed C0, C1, C2, C3, C4 ... (7): HTTP 500"
    )


def test_the_same_story_under_another_id_or_title_is_one_story(market):
    stories = [("n1", at("2024-03-05 15:00"), "Profit falls at Acme")]
    market.source.news["AAA"] = news("AAA", stories)
    market.news()
    again = [
        ("n2", at("2024-03-05 15:20"), " <b>Profit falls</b> at ACME"),
        ("n1", at("2024-03-05 15:00"), "Profit falls at Acme"),
        ("n9", at("2024-03-25 15:00"), "Profit falls at Acme"),  # news again, weeks later
    ]
    market.source.news["AAA"] = news("AAA", again)
    assert counts(market.news(LATER + timedelta(hours=1))[0]) == (1, 0, 1, 0)
    by_url = news(
        "AAA",
        [
            ("n3", at("2024-03-06 09:00"), "Acme: profit up"),
            ("n4", at("2024-03-06 09:10"), "Acme: profit up after all"),
        ],
    ).assign(url="https://x.example/a")
    market.source.news["AAA"] = by_url[:1]
    market.news(LATER + timedelta(hours=2))
    for hours in (3, 4, 5):  # both versions keep being sent: one revision, not one per run
        market.source.news["AAA"] = by_url if hours > 3 else by_url[1:]
        market.news(LATER + timedelta(hours=hours))
    told = market.store.rows("raw_news", "news_id, revision, title", news_id="n3")
    assert told["title"].tolist() == ["Acme: profit up", "Acme: profit up after all"]
