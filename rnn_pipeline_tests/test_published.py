"""The published protocol is what it says, and its samples know nothing of the move they ask for."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.published import acl18
from benchmarks.published.__main__ import PRICES, TEXTS, View, price_rows, text_rows
from benchmarks.published.acl18 import CALENDAR, Data
from rnn_pipeline.features.windows import gather

SESSIONS = CALENDAR.sessions(pd.Timestamp("2013-01-02").date(), pd.Timestamp("2016-01-08").date())
NEW_YORK = "America/New_York"
LETTERS = "abcdefghijklmnopqrst"


@pytest.fixture(scope="module")
def data() -> Data:
    """Two tickers of noise, and two texts a day, one after the close."""
    rng = np.random.default_rng(0)
    bars, texts = [], []
    for ticker in ("AAA", "BBB"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(SESSIONS))))
        opening = close * np.exp(rng.normal(0, 0.003, len(SESSIONS)))
        bars.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": SESSIONS,
                    "known_at": CALENDAR.closes(SESSIONS),
                    "open": opening,
                    "high": np.maximum(opening, close) * 1.001,
                    "low": np.minimum(opening, close) * 0.999,
                    "close": close,
                    "adj_close": close,
                    "volume": rng.integers(1_000, 9_000, len(SESSIONS)).astype(float),
                }
            )
        )
        words = rng.choice(["up", *(f"word{letter}" for letter in LETTERS)], (2, len(SESSIONS), 3))
        for hour, told in zip((11, 19), words, strict=True):
            moments = (SESSIONS + pd.Timedelta(hours=hour)).tz_localize(NEW_YORK)
            texts.append(
                pd.DataFrame(
                    {
                        "ticker": ticker,
                        "published_at": moments.tz_convert("UTC"),
                        "title": [" ".join(line) for line in told],
                    }
                )
            )
    return Data(pd.concat(bars, ignore_index=True), pd.concat(texts, ignore_index=True))


def scores(texts: pd.DataFrame) -> np.ndarray:
    return texts["title"].str.count("up").to_numpy() / 3.0


def with_texts(data: Data, clock: acl18.Clock) -> View:
    rows = price_rows(data.bars).merge(
        text_rows(data, clock, scores(data.texts)), on=["ticker", "session"]
    )
    return View(acl18.samples(rows, (*PRICES, *TEXTS), data.bars), {})


@pytest.mark.parametrize(
    ("move", "label"),
    [
        (-0.02, -1.0),
        (-0.005, -1.0),
        (-0.0049999, math.nan),
        (0.0, math.nan),
        (0.0055, math.nan),
        (0.0055001, 1.0),
        (math.nan, math.nan),
    ],
)
def test_small_moves_are_no_samples(move: float, label: float) -> None:
    assert np.array_equal(acl18.labels(np.array([move])), [label], equal_nan=True)


@pytest.mark.parametrize(
    ("day", "role"),
    [
        ("2013-12-31", ""),
        ("2014-01-02", "train"),
        ("2015-07-31", "train"),
        ("2015-08-03", "val"),
        ("2015-09-30", "val"),
        ("2015-10-01", "test"),
        ("2015-12-31", "test"),
        ("2016-01-04", ""),
    ],
)
def test_a_sample_is_for_what_the_day_of_its_move_says(day: str, role: str) -> None:
    assert acl18.role_of(pd.Series([pd.Timestamp(day)])).tolist() == [role]


def test_samples_are_the_moves_of_their_spans(data: Data) -> None:
    """Counted by hand from the closes of one ticker, and each label behind its window."""
    share = acl18.samples(price_rows(data.bars), PRICES, data.bars)[1]
    assert share.ticker == "BBB"
    close = data.bars[data.bars["ticker"] == "BBB"].set_index("session")["adj_close"]
    spans = {
        "train": ("2014-01-01", "2015-07-31"),
        "val": ("2015-08-01", "2015-09-30"),
        "test": ("2015-10-01", "2015-12-31"),
    }
    for role, span in spans.items():
        expected = {}
        for before, day in itertools.pairwise(SESSIONS):
            move = close[day] / close[before] - 1
            if pd.Timestamp(span[0]) <= day <= pd.Timestamp(span[1]):
                if move <= -0.005:
                    expected[before] = -1.0
                elif move > 0.0055:
                    expected[before] = 1.0
        ends = getattr(share, f"{role}_ends")
        made = zip(pd.DatetimeIndex(share.sessions[ends]), share.targets[ends], strict=True)
        assert dict(made) == expected
    seen = np.unique(share.train_ends[:, None] - np.arange(acl18.LOOKBACK))
    assert np.allclose(share.inputs[seen].mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("published", "close", "midnight"),
    [
        # A text of a Friday's morning, after its close, of Saturday, and of Sunday's night.
        ("2015-07-17 10:00", "2015-07-17", "2015-07-17"),
        ("2015-07-17 16:30", "2015-07-20", "2015-07-17"),
        ("2015-07-18 12:00", "2015-07-20", "2015-07-17"),
        ("2015-07-19 19:00", "2015-07-20", "2015-07-17"),
        # 20:30 in New York is the next day in UTC.
        ("2015-07-20 20:30", "2015-07-21", "2015-07-21"),
        # Before the early close of the day after Thanksgiving, and behind it.
        ("2015-11-27 12:59", "2015-11-27", "2015-11-27"),
        ("2015-11-27 13:01", "2015-11-30", "2015-11-27"),
    ],
)
def test_a_text_belongs_to_the_session_it_was_known_by(
    published: str, close: str, midnight: str
) -> None:
    moment = pd.Timestamp(published, tz=NEW_YORK).tz_convert("UTC")
    texts = pd.DataFrame({"published_at": [moment]})
    assert acl18.dated(texts, "close") == pd.DatetimeIndex([close])
    assert acl18.dated(texts, "midnight") == pd.DatetimeIndex([midnight])


@pytest.mark.parametrize("clock", ["close", "midnight"])
def test_no_sample_knows_the_session_of_its_move(data: Data, clock: acl18.Clock) -> None:
    """Everything from session t on is scrambled: windows that end at t-1 are the same bits."""
    row, day = SESSIONS[725], SESSIONS[726]
    assert acl18.role_of(pd.Series([day])) == ["test"]
    later = data.bars["session"] >= day
    bars = data.bars.copy()
    columns = ["open", "high", "low", "close", "adj_close", "volume"]
    bars.loc[later, columns] *= np.random.default_rng(1).uniform(0.9, 1.1, (later.sum(), 1))
    cutoff = (
        CALENDAR.closes(pd.DatetimeIndex([row]))[0] if clock == "close" else day.tz_localize("UTC")
    )
    after = data.texts["published_at"] > cutoff
    texts = data.texts.assign(title=data.texts["title"].where(~after, "up up up"))
    assert 0 < later.sum() < len(bars)
    assert 0 < after.sum() < len(texts)
    before, made = with_texts(data, clock), with_texts(replace(data, bars=bars, texts=texts), clock)
    moved = 0
    for old, new in zip(before.shares, made.shares, strict=True):
        known = old.sessions[old.test_ends] < np.datetime64(row)
        assert np.array_equal(old.test_ends[known], new.test_ends[: known.sum()])
        rows = old.sessions <= np.datetime64(row)
        assert np.array_equal(old.values[rows], new.values[rows], equal_nan=True)
        moved += (old.values[~rows] != new.values[~rows]).any(axis=1).sum()
        windows = gather(old.inputs, old.test_ends[known], acl18.LOOKBACK)
        assert np.array_equal(windows, gather(new.inputs, new.test_ends[: known.sum()], 5))
    assert moved > 50


def test_figures_are_those_of_the_books() -> None:
    actual = np.array([1, 1, 1, 1, -1, -1, -1, -1, -1, -1])
    predicted = np.array([1, 1, 1, -1, 1, 1, -1, -1, -1, -1])
    true_up, false_up, true_down, false_down = 3, 2, 4, 1
    by_hand = (true_up * true_down - false_up * false_down) / math.sqrt(
        (true_up + false_up)
        * (true_up + false_down)
        * (true_down + false_up)
        * (true_down + false_down)
    )
    assert acl18.matthews(actual, predicted) == pytest.approx(by_hand)
    metrics = pytest.importorskip("sklearn.metrics")
    assert acl18.matthews(actual, predicted) == pytest.approx(
        metrics.matthews_corrcoef(actual, predicted)
    )
    assert acl18.matthews(actual, np.ones(10)) == 0.0
    assert acl18.accuracy(actual, predicted) == 0.7


def test_samples_of_one_session_count_as_one() -> None:
    """Copies of 200 sessions' samples are no more evidence: p plus and minus 1.96 deviations."""
    predicted = np.where(np.arange(200) % 4 > 0, 1, -1)
    width = 1.96 * math.sqrt(0.75 * 0.25 / 200)
    sessions = np.repeat(SESSIONS[:200], 5)
    made = [np.repeat(predicted, 5)] * 2
    low, high = acl18.interval(acl18.accuracy, np.ones(1000), made, sessions)
    assert (low, high) == pytest.approx((0.75 - width, 0.75 + width), abs=0.01)


def test_a_folder_without_the_files_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        acl18.read(tmp_path)
