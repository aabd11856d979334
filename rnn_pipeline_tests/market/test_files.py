"""The drop folder: layouts, bad files, and a file that is taken in once."""

import gzip
import os
import time
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from rnn_pipeline.market.files import REJECTED, FileSource
from rnn_pipeline.market.ingest import Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.sources import BadPayload
from rnn_pipeline.warehouse import PayloadStore, Warehouse

from .tables import CALENDAR, LATER, counts, month

STOCKNET = Path(__file__).parents[3] / "shared" / "data" / "stocknet"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def take_in(tmp_path, folder):
    return Taker(tmp_path, folder)


class Taker:
    def __init__(self, home: Path, folder: Path):
        self.store = Warehouse(home / "warehouse.duckdb")
        self.payloads = PayloadStore(home / "payloads")
        self.source = FileSource(folder)
        self.request = Request([], date(2024, 3, 1), date(2024, 3, 28), "run", lambda: LATER)

    def bars(self):
        return ingest_bars(self.store, self.payloads, self.source, CALENDAR, self.request)

    def news(self):
        return ingest_headlines(self.store, self.payloads, self.source, self.request)


def settled(path: Path) -> Path:
    """As if the file had been copied into the folder a minute ago."""
    os.utime(path, (time.time() - 60,) * 2)
    return path


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return settled(path)


CSV = """Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits
2024-03-04,10,12,9,11,10.5,100,0,0
2024-03-05 00:00:00-05:00,11,13,10,12,11.5,200,0.25,2
"""
NEWS = """ticker,published_at,headline
AAA,2024-03-05T14:30:00Z,"Profit, at last"
aaa,2024-03-05T10:30:00-05:00,Sales fall
"""


@pytest.mark.parametrize("name", ["AAA.csv", "aaa.csv.gz"])
def test_a_csv_as_yfinance_writes_it_is_named_after_its_ticker(folder, name):
    source = FileSource(folder)
    rows = source.parse_bars(source.read(write(folder / name, CSV)))
    assert rows["ticker"].tolist() == ["AAA", "AAA"]
    assert rows["session"].dt.strftime("%m-%d").tolist() == ["03-04", "03-05"]
    assert rows.loc[1, ["open", "adj_close", "dividend", "split"]].tolist() == [11, 11.5, 0.25, 2]


def test_parquet_of_several_tickers_is_one_file(folder, take_in):
    frame = pd.concat([month("AAA"), month("BBB")]).rename(columns={"session": "date"})
    frame.drop(columns=["dividend", "split"]).to_parquet(folder / "all.parquet")
    settled(folder / "all.parquet")
    assert [(line.ticker, *counts(line)) for line in take_in.bars()] == [
        ("AAA", 20, 0, 0, 0),
        ("BBB", 20, 0, 0, 0),
    ]
    fetches = take_in.store.rows("raw_fetch").sort_values("ticker")
    assert fetches["payload_sha256"].nunique() == 1
    assert fetches[["ticker", "first", "last"]].iloc[0].tolist() == [
        "AAA", pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-28"),
    ]  # fmt: skip
    assert take_in.store.rows("ticker_status")["status"].tolist() == ["ok", "ok"]


def test_a_file_is_taken_in_once_by_content_not_by_name(folder, take_in):
    write(folder / "AAA.csv", CSV)
    assert [counts(line) for line in take_in.bars()] == [(2, 0, 0, 0)]
    (folder / "AAA.csv").rename(folder / "again.csv")
    assert take_in.bars() == []
    assert (folder / "again.csv").exists()
    write(folder / "AAA.csv", CSV.replace("11,10.5", "11.5,10.5"))
    assert [counts(line) for line in take_in.bars()] == [(0, 1, 1, 0)]


def test_headlines_get_an_id_from_their_moment_and_words(folder, take_in):
    write(folder / "news.csv", NEWS)
    assert [counts(line) for line in take_in.news()] == [(2, 0, 0, 0)]
    rows = take_in.store.headlines(["AAA"])
    assert rows["title"].tolist() == ["Profit, at last", "Sales fall"]
    assert rows["published_at"].dt.hour.tolist() == [14, 15]
    write(folder / "more.csv", NEWS + "AAA,2024-03-06T10:00:00Z,New\n")
    assert [counts(line) for line in take_in.news()] == [(1, 0, 2, 0)]


BAD = {
    "half.csv": (
        "Date,Open,High,Low,Close\n2024-03-04,10,12,9,11\n",
        "lacks the columns adj_close",
    ),
    "prose.csv": ("Dear all,\n\nplease find attached\n", "lacks the columns"),
    "broken.parquet": ("PAR1 and then nothing", "cannot be read"),
    "twice.csv": ("ticker,symbol,date,open,high,low,close,adj_close,volume\n", "'ticker' twice"),
    "empty.csv": ("", "cannot be read"),
    "broken.csv.gz": (None, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_moved_aside_with_its_reason_and_the_others_are_taken(folder, take_in, name):
    text, reason = BAD[name]
    if text is None:
        (folder / name).write_bytes(gzip.compress(CSV.encode())[:-20])
        settled(folder / name)
    else:
        write(folder / name, text)
    write(folder / "zzz.csv", CSV)
    lines = {line.ticker: line for line in take_in.bars()}
    assert reason in lines[name].status
    assert counts(lines["ZZZ"]) == (2, 0, 0, 0)
    assert not (folder / name).exists()
    assert (folder / REJECTED / name).exists()
    assert reason in (folder / REJECTED / f"{name}.reason.txt").read_text()
    assert take_in.bars() == []


def test_a_moment_without_a_zone_is_no_moment(folder, take_in):
    write(folder / "news.csv", NEWS.replace("14:30:00Z", "14:30:00"))
    (line,) = take_in.news()
    assert "has no time zone: write it as in" in line.status
    source = FileSource(folder)
    payload = source.read(write(folder / "n.csv", "published_at,title\n2024-03-05,x\n"))
    with pytest.raises(BadPayload, match="no time zone"):
        source.parse_headlines(payload)


def test_what_is_no_number_no_day_or_no_ticker_waits_in_quarantine(folder, take_in):
    header = "ticker,date,open,high,low,close,adj_close,volume\n"
    good = "NAN,2024-03-04,10,12,9,11,11,5\n"
    bad = (
        "AAA,2024-03-04,ten,12,9,11,11,5\n"
        "AAA,4 March,10,12,9,11,11,5\n"
        "../../etc/passwd,2024-03-04,10,12,9,11,11,5\n"
        "A'; DROP TABLE raw_ohlcv; --,2024-03-04,10,12,9,11,11,5\n"
    )
    write(folder / "mixed.csv", header + good + bad)
    take_in.bars()
    assert take_in.store.bars(["NAN"])["close"].tolist() == [11.0]
    assert sorted(take_in.store.rows("quarantine")["rule"]) == [
        "open_present",
        "session_on_calendar",
        "ticker_spelling",
        "ticker_spelling",
    ]


def test_a_file_that_is_still_being_written_is_left_for_the_next_time(folder, take_in):
    (folder / "AAA.csv").write_text(CSV[:100])
    (folder / ".AAA.csv.part").write_text(CSV)
    assert take_in.bars() == []
    write(folder / "AAA.csv", CSV)
    assert len(take_in.bars()) == 1


def test_a_read_only_folder_is_left_as_it_is(folder, monkeypatch):
    path = write(folder / "half.csv", BAD["half.csv"][0])
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError))
    FileSource(folder).put_aside(path, "reason")
    assert path.exists()


def test_the_folder_says_what_it_is_about(folder):
    source = FileSource(folder)
    assert source.survey().tickers == ()
    write(folder / "BBB.csv", CSV)
    write(folder / "AAA.csv", CSV.replace("2024-03-04", "2024-02-28"))
    write(folder / "half.csv", BAD["half.csv"][0])
    survey = source.survey()
    assert (survey.tickers, survey.first, survey.last) == (
        ("AAA", "BBB"), date(2024, 2, 28), date(2024, 3, 5),
    )  # fmt: skip


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it or set drop_dir"):
        FileSource(tmp_path / "none").waiting("raw_ohlcv")


@pytest.mark.realdata
@pytest.mark.skipif(not STOCKNET.is_dir(), reason="the folder of real data is not there")
def test_the_stocknet_files_go_in_as_they_are(tmp_path):
    taker = Taker(tmp_path, STOCKNET)
    bars, headlines = taker.bars(), taker.news()
    assert (len(bars), sum(line.inserted for line in bars)) == (24, 30_192)
    assert sum(line.quarantined for line in bars + headlines) == 0
    assert sum(line.inserted for line in headlines) == 15_956
    stored = taker.store.headlines([line.ticker for line in headlines])
    sessions = CALENDAR.session_of(stored["usable_at"])
    assert sessions.isin(CALENDAR.sessions(date(2013, 12, 31), date(2016, 1, 4))).all()
    closes = pd.Series(CALENDAR.closes(pd.DatetimeIndex(sessions)), index=stored.index)
    assert (stored["usable_at"] <= closes).all()
    assert taker.bars() == taker.news() == []
