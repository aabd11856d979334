import subprocess
import sys

import pandas as pd
import pytest

from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    UnknownTicker,
    as_bars,
    as_headlines,
    validate_ticker,
)


@pytest.mark.parametrize(
    "ticker",
    ["AAPL", "F", "^GSPC", "^N225", "BRK-B", "BTC-USD", "0700.HK", "EURUSD=X", "ES=F", "DX-Y.NYB"],
)
def test_tickers_in_yahoos_spelling_pass(ticker):
    assert validate_ticker(ticker) == ticker


@pytest.mark.parametrize(
    "ticker",
    [
        "",
        "aapl",
        "AAPL\n",
        "AA PL",
        " AAPL",
        "../../etc/passwd",
        "..",
        "AAPL/..",
        "AAPL?range=max",
        "AAPL#",
        "AAPL&x=1",
        "A%2F",
        "AAPL;DROP TABLE raw_ohlcv",
        "'",
        "-AAPL",
        "AAPL-",
        "A..B",
        "^",
        "ＡＡＰＬ",
        "AAPL\u202e",
        "A" * 13,
        "A" * 100_000,
    ],
)
def test_what_cannot_be_a_ticker_is_refused_in_one_line(ticker):
    with pytest.raises(UnknownTicker, match="is not a ticker: write it as Yahoo does") as caught:
        validate_ticker(ticker)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_frames_have_their_columns_types_and_order_even_when_empty():
    bars = as_bars(pd.DataFrame(columns=list(BAR_COLUMNS)))
    assert list(bars.columns) == list(BAR_COLUMNS)
    assert bars["session"].dtype.kind == "M"
    assert set(bars.dtypes[2:]) == {pd.Series(dtype="float64").dtype}
    headlines = as_headlines(pd.DataFrame(columns=list(HEADLINE_COLUMNS)))
    assert list(headlines.columns) == list(HEADLINE_COLUMNS)
    assert str(headlines["published_at"].dt.tz) == "UTC"


def test_headlines_are_sorted_and_an_unreadable_moment_is_left_empty():
    row = dict.fromkeys(HEADLINE_COLUMNS, "x")
    rows = pd.DataFrame(
        [
            row | {"news_id": "c", "published_at": "someday"},
            row | {"news_id": "b", "published_at": "2024-07-03T16:00:00-04:00"},
            row | {"news_id": "a", "published_at": "2024-07-03T18:30:00Z"},
        ]
    )
    headlines = as_headlines(rows)
    assert list(headlines["news_id"]) == ["a", "b", "c"]
    assert headlines["published_at"][1] == pd.Timestamp("2024-07-03 20:00", tz="UTC")
    assert headlines["published_at"].isna().tolist() == [False, False, True]


def test_importing_the_wing_loads_nothing_heavy():
    code = (
        "import sys; from rnn_pipeline.market import calendar, sample, sources, yahoo;"
        "heavy = {'yfinance', 'curl_cffi', 'exchange_calendars', 'bokeh_sampledata', 'torch',"
        " 'great_expectations', 'dagster', 'tenacity'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
