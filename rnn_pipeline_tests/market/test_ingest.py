"""One path from a source to the warehouse: what is new, what changed, and when it was known."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market.ingest import IngestError
from rnn_pipeline.market.sources import SourceUnavailable, UnknownTicker

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
    import rnn_pipeline.market.ingest as ingest

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_record_actions", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            market.bars()
    assert {name: len(rows) for name, rows in market.tables("raw_ohlcv", "raw_fetch").items()} == {
        "raw_ohlcv": 0,
        "raw_fetch": 0,
    }
    assert [counts(line) for line in market.bars()] == [(20, 0, 0, 0)] * 2
