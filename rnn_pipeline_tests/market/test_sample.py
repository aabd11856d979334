import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.market import wrap
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.sample import FIRST_SESSION, LAST_SESSION, TICKERS, SampleSource
from rnn_pipeline.market.sources import BadPayload, Payload, UnknownTicker


@pytest.fixture(scope="module")
def source() -> SampleSource:
    return SampleSource()


@pytest.fixture(scope="module")
def bars(source) -> dict[str, pd.DataFrame]:
    return {
        ticker: source.parse_bars(source.fetch_bars(ticker, FIRST_SESSION, LAST_SESSION), ticker)
        for ticker in TICKERS
    }


@pytest.fixture(scope="module")
def headlines(source) -> dict[str, pd.DataFrame]:
    return {
        ticker: source.parse_headlines(
            source.fetch_headlines(ticker, FIRST_SESSION, LAST_SESSION), ticker
        )
        for ticker in TICKERS
    }


def as_held(ticker: str) -> pd.DataFrame:
    from bokeh_sampledata import stocks

    held = pd.DataFrame(getattr(stocks, ticker))
    return held.set_index(pd.DatetimeIndex(held.pop("date")))


def test_every_session_of_the_exchange_has_its_bar(bars):
    calendar = SessionCalendar()
    assert {ticker: len(frame) for ticker, frame in bars.items()} == {
        "AAPL": 3270,
        "FB": 196,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }
    for frame in bars.values():
        first, last = frame["session"].iloc[0], frame["session"].iloc[-1]
        assert frame["session"].tolist() == calendar.sessions(first, last).tolist()
        assert last.date() == LAST_SESSION
    assert min(frame["session"].iloc[0] for frame in bars.values()).date() == FIRST_SESSION


def test_splits_are_those_that_happened(bars):
    happened = {
        (ticker, str(row.session.date()), row.split)
        for ticker, frame in bars.items()
        for row in frame[frame["split"] != 0].itertuples()
    }
    assert happened == {
        ("AAPL", "2000-06-21", 2.0),
        ("AAPL", "2005-02-28", 2.0),
        ("MSFT", "2003-02-18", 2.0),
    }


def test_prices_and_volume_are_adjusted_for_the_splits_after_them(bars):
    held, frame = as_held("AAPL"), bars["AAPL"].set_index("session")
    for day, ratio in {"2000-06-20": 4, "2000-06-21": 2, "2005-02-25": 2, "2005-02-28": 1}.items():
        for price in ("open", "high", "low", "close"):
            assert frame.loc[day, price] == held.loc[day, price] / ratio
        assert frame.loc[day, "volume"] == held.loc[day, "volume"] * ratio
        assert frame.loc[day, "adj_close"] == held.loc[day, "adj_close"]
    # The share price was halved overnight, its return was not.
    returns = frame["close"].pct_change()
    assert abs(returns["2000-06-21"]) < 0.12
    assert abs(returns["2005-02-28"]) < 0.05


def test_dividends_are_the_cents_that_were_paid(bars):
    def paid(ticker: str) -> dict[str, float]:
        frame = bars[ticker][bars[ticker]["dividend"] != 0]
        return {
            str(day.date()): cash
            for day, cash in zip(frame["session"], frame["dividend"], strict=True)
        }

    assert paid("AAPL") == {"2012-08-09": 2.65, "2012-11-07": 2.65, "2013-02-07": 2.65}
    assert paid("GOOG") == paid("FB") == {}
    microsoft, ibm = paid("MSFT"), paid("IBM")
    assert microsoft["2004-11-15"] == 3.08  # the special dividend of $3 and the usual 8 cents
    assert microsoft["2003-02-19"] == 0.08
    assert len(ibm) == 52  # four a year for thirteen years
    assert ibm["2000-05-08"] == 0.13
    assert ibm["2013-02-06"] == 0.85
    for cash in [*microsoft.values(), *ibm.values()]:
        assert cash == round(cash, 2)


def test_adjusted_close_is_the_total_return_of_close_and_actions(bars):
    for frame in bars.values():
        total = (frame["close"] + frame["dividend"]) / frame["close"].shift() - 1
        np.testing.assert_allclose(frame["adj_close"].pct_change()[1:], total[1:], atol=1e-9)


@pytest.mark.parametrize(
    ("ticker", "first", "last"),
    [
        ("AAPL", date(2000, 6, 21), date(2000, 6, 21)),  # the ex-date of a split alone
        ("AAPL", date(2000, 5, 1), date(2005, 2, 27)),
        ("MSFT", date(2003, 2, 15), date(2003, 2, 19)),
        ("IBM", date(2012, 2, 8), date(2014, 1, 1)),
        ("FB", date(2012, 5, 1), date(2012, 5, 20)),
    ],
)
def test_part_of_the_range_reads_to_the_same_values(source, bars, ticker, first, last):
    part = source.parse_bars(source.fetch_bars(ticker, first, last), ticker)
    whole = bars[ticker]
    within = whole["session"].between(pd.Timestamp(first), pd.Timestamp(last))
    assert len(part) > 0
    assert_frame_equal(part, whole[within].reset_index(drop=True), check_exact=True)


def test_payloads_are_the_same_every_time_and_carry_the_rows_as_held(source):
    payload = source.fetch_bars("AAPL", date(2005, 2, 25), date(2005, 2, 28))
    assert payload == source.fetch_bars("AAPL", date(2005, 2, 25), date(2005, 2, 28))
    before, ex_date = payload.content.decode().splitlines()[1:]
    assert before.startswith("AAPL,2005-02-25,89.62,89.91,88.19,88.99,16348400,")
    assert before.endswith(",2.0")  # a split to come
    assert ex_date.split(",")[1:3] == ["2005-02-28", "44.68"]
    assert ex_date.split(",")[8] == "88.99"  # the close before it
    assert ex_date.endswith(",1.0")


def test_a_range_without_rows_is_empty_and_typed(source, bars):
    empty = source.parse_bars(source.fetch_bars("FB", FIRST_SESSION, date(2012, 5, 17)), "FB")
    assert_frame_equal(empty, bars["FB"].iloc[:0])
    empty = source.parse_headlines(
        source.fetch_headlines("FB", FIRST_SESSION, date(2012, 5, 17)), "FB"
    )
    assert len(empty) == 0
    assert str(empty["published_at"].dt.tz) == "UTC"


def test_an_unknown_ticker_names_the_five_known_ones(source):
    for fetch in (source.fetch_bars, source.fetch_headlines):
        with pytest.raises(UnknownTicker, match="TSLA is not in the sample, which holds AAPL, FB,"):
            fetch("TSLA", FIRST_SESSION, LAST_SESSION)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"<html>502</html>", b"ticker,date\nAAPL,2004-01-02\n", b"\x1f\x8b\x08"],
)
def test_damaged_payloads_are_named(source, content):
    with pytest.raises(BadPayload, match="AAPL: not bars of the sample"):
        source.parse_bars(Payload(content, "text/csv"), "AAPL")


def test_payloads_of_another_ticker_are_refused(source):
    day = date(2005, 2, 25)
    with pytest.raises(BadPayload, match=r"AAPL: these bars are IBM's"):
        source.parse_bars(source.fetch_bars("IBM", day, day), "AAPL")
    with pytest.raises(BadPayload, match=r"AAPL: these headlines are IBM's"):
        source.parse_headlines(source.fetch_headlines("IBM", FIRST_SESSION, day), "AAPL")
    with pytest.raises(BadPayload, match=r"AAPL: not headlines of the sample"):
        source.parse_headlines(Payload(b"{", "application/jsonl"), "AAPL")


def test_some_sessions_have_headlines_and_many_have_none(bars, headlines):
    calendar = SessionCalendar()
    for ticker, frame in headlines.items():
        # Published after the close of one session, they are first known at the next one's.
        per_session = frame.groupby(calendar.session_of(frame["published_at"])).size()
        assert per_session.max() == wrap.MOST
        assert 0.3 < 1 - len(per_session) / len(bars[ticker]) < 0.6
    titles = pd.concat(headlines.values())["title"]
    assert titles.nunique() > 0.9 * len(titles)
    assert not titles.str.contains(r"[{}]|nan|inf").any()


def test_headlines_appear_ten_to_120_minutes_after_a_close(headlines):
    calendar = SessionCalendar()
    for frame in headlines.values():
        published = frame["published_at"]
        session = pd.DatetimeIndex([calendar.last_closed(moment) for moment in published[:300]])
        minutes = (published[:300] - calendar.closes(session)) / pd.Timedelta(minutes=1)
        assert minutes.between(10, 120).all()
        assert minutes.nunique() > 30


def test_headlines_are_marked_and_their_ids_are_stable_and_unique(source, headlines):
    together = pd.concat(headlines.values())
    assert set(together["provider"]) == {"sample"}
    assert set(together["url"]) == {""}
    assert together["news_id"].is_unique
    again = source.fetch_headlines("GOOG", FIRST_SESSION, LAST_SESSION)
    assert_frame_equal(source.parse_headlines(again, "GOOG"), headlines["GOOG"])


def test_headlines_of_part_of_the_range_are_those_of_the_whole(source, headlines):
    first, last = date(2004, 11, 1), date(2004, 11, 30)
    part = source.parse_headlines(source.fetch_headlines("MSFT", first, last), "MSFT")
    whole = headlines["MSFT"]
    days = whole["published_at"].dt.tz_convert("America/New_York").dt.date
    assert_frame_equal(part, whole[(days >= first) & (days <= last)].reset_index(drop=True))


def test_headlines_say_what_the_bar_shows(headlines):
    def titles(ticker: str, day: str) -> str:
        frame = headlines[ticker]
        return "\n".join(frame["title"][frame["published_at"].dt.strftime("%Y-%m-%d") == day])

    # Apple halved on its profit warning: 53.50 to 25.75, at seven times the usual volume.
    crash = titles("AAPL", "2000-09-29")
    assert "51.9" in crash
    assert "low" in crash or "worst" in crash or "bottom" in crash
    # Google's first quarterly report of a good 2008 quarter: 449.54 to 539.41.
    assert "20.0" in titles("GOOG", "2008-04-18")
    assert "2-for-1 split" in titles("AAPL", "2005-02-28")
    assert "$3.08" in titles("MSFT", "2004-11-15")
    # 29.97 to 27.39 is what the dividend took out of the price, and no slump.
    assert "8.6" not in titles("MSFT", "2004-11-15")


def test_wording_agrees_with_the_direction(bars, headlines):
    rising = r"\b(?:surges?|jumps?|soar(?:s|ed)?|rallied|rises?|rose|gains \d|advance[sd]?|adds?)\b"
    falling = r"\b(?:plunge[sd]?|tumble[sd]?|slump(?:s|ed)?|sank|falls?|fell|loses?|decline[sd]?)\b"
    calendar = SessionCalendar()
    for ticker, frame in headlines.items():
        bar = bars[ticker].set_index("session")
        change = (bar["close"] + bar["dividend"]) / bar["close"].shift() - 1
        session = pd.DatetimeIndex([calendar.last_closed(m) for m in frame["published_at"]])
        day = change[session].to_numpy()
        title = frame["title"].str.replace(r" after .*", "", regex=True)
        assert (day[title.str.contains(rising)] > 0).all()
        assert (day[title.str.contains(falling)] < 0).all()


@pytest.mark.parametrize("ticker", TICKERS)
def test_no_headline_depends_on_a_later_bar(source, monkeypatch, ticker):
    from bokeh_sampledata import stocks

    held = getattr(stocks, ticker)
    cut = len(held["date"]) * 2 // 3
    last = date.fromisoformat(held["date"][cut - 1])
    expected = source.fetch_headlines(ticker, FIRST_SESSION, last).content
    assert len(expected.splitlines()) > 50

    def spoilt(name: str) -> list:
        factors = np.random.default_rng(len(name)).uniform(0.1, 9.0, len(held["date"]) - cut)
        later = held[name][cut:]
        return held[name][:cut] + (later if name == "date" else list(np.array(later) * factors))

    scrambled = {name: spoilt(name) for name in held}
    truncated = {name: values[:cut] for name, values in held.items()}
    for other in (scrambled, truncated):
        monkeypatch.setattr(stocks, ticker, other)
        assert source.fetch_headlines(ticker, FIRST_SESSION, last).content == expected


def test_headlines_follow_from_the_ticker_and_not_from_process_state(source):
    np.random.seed(0)
    first = source.fetch_headlines("IBM", date(2005, 1, 1), date(2005, 6, 30))
    np.random.seed(1)
    assert source.fetch_headlines("IBM", date(2005, 1, 1), date(2005, 6, 30)) == first
    line = json.loads(first.content.splitlines()[0])
    assert list(line) == [
        "news_id",
        "ticker",
        "published_at",
        "title",
        "summary",
        "url",
        "provider",
    ]


def test_labelled_headlines_come_from_the_grammar(source):
    labelled = source.labelled_headlines()
    assert list(labelled.columns) == ["headline", "label", "split"]
    assert set(labelled["label"]) == {"negative", "neutral", "positive"}
    assert set(labelled["split"]) == {"train", "test"}


def test_a_short_history_has_no_headlines_before_it_is_long_enough(bars, headlines):
    first = headlines["FB"]["published_at"].min()
    opening = bars["FB"]["session"].iloc[wrap.HISTORY]
    assert first.tz_localize(None) > opening + timedelta(days=1)
