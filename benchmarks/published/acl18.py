"""The protocol of Xu and Cohen (ACL 2018), known as StockNet or ACL18: does tomorrow's close rise?

A sample is one ticker and one session *t*. Its move is adjusted close of *t* over adjusted close of
the ticker's session before, less 1. A move of at most -0.5 % is down, one above 0.55 % is up, and
what lies between is no sample. Sessions of *t* from 2014-01-01 and before 2015-08-01 train, before
2015-10-01 validate, before 2016-01-01 test. Figures are accuracy and Matthews' correlation.

What is known: every feature of a sample is one of session *t-1* or earlier, read at its close. For
texts there are two clocks. ``close`` is this project's contract: what was published by the close of
*t-1*. ``midnight`` is the authors': what was published on calendar days (UTC) before *t*, which
adds the evening, night and weekend in between. None of it is from after the open of *t*, but the
move begins at the close of *t-1*, before these texts: part of it had happened when they were
written, and nobody could have traded on it at the price that the move is measured from.

Where this differs from the paper: the authors read 5 calendar days, here a window has 5 sessions;
they keep only samples with texts for every session of the window, here all are kept, and those
with a text for session *t* are also counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnn_pipeline.features.windows import FoldData, ModelMatrix, Scaler, window_index
from rnn_pipeline.market.calendar import SessionCalendar

Clock = Literal["close", "midnight"]

TRAIN_FROM = pd.Timestamp("2014-01-01")
VAL_FROM = pd.Timestamp("2015-08-01")
TEST_FROM = pd.Timestamp("2015-10-01")
TEST_UNTIL = pd.Timestamp("2016-01-01")
DOWN, UP = -0.005, 0.0055
LOOKBACK = 5

CALENDAR = SessionCalendar()


@dataclass(frozen=True)
class Data:
    """Bars and texts of a folder.

    Attributes:
        bars: ticker, session, known_at (its close), open, high, low, close, adj_close, volume.
        texts: ticker, published_at (UTC), title.
    """

    bars: pd.DataFrame
    texts: pd.DataFrame


def read(folder: Path) -> Data:
    """Read ``ohlcv.parquet`` and ``headlines.csv.gz``.

    Raises:
        ValueError: a file is missing or lacks a column.
    """
    try:
        bars = pd.read_parquet(folder / "ohlcv.parquet")
        texts = pd.read_csv(
            folder / "headlines.csv.gz", usecols=["ticker", "published_at", "headline"]
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} cannot be read: {error}") from None
    bars = bars.rename(columns={"date": "session"})
    bars["session"] = pd.to_datetime(bars["session"]).astype("datetime64[s]")
    bars = bars.sort_values(["ticker", "session"], ignore_index=True)
    texts["published_at"] = pd.to_datetime(texts["published_at"], utc=True)
    return Data(
        bars.assign(known_at=CALENDAR.closes(bars["session"])),
        texts.rename(columns={"headline": "title"}),
    )


def labels(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """-1 for down, 1 for up, NaN for a move that is no sample."""
    return np.select([moves <= DOWN, moves > UP], [-1.0, 1.0], np.nan)


def moves(bars: pd.DataFrame) -> pd.DataFrame:
    """What follows each row of bars: ticker, session, target (a label), target_session (*t*)."""
    groups = bars.sort_values(["ticker", "session"]).groupby("ticker")
    move = groups["adj_close"].shift(-1) / bars["adj_close"] - 1
    return bars[["ticker", "session"]].assign(
        target=labels(move.to_numpy()), target_session=groups["session"].shift(-1)
    )


def dated(texts: pd.DataFrame, clock: Clock) -> pd.DatetimeIndex:
    """The session (*t-1*) to whose row each text belongs, by one of the clocks."""
    published = pd.DatetimeIndex(texts["published_at"])
    if clock == "close":
        return pd.DatetimeIndex(CALENDAR.session_of(published))
    days = published.tz_localize(None).normalize()
    axis = CALENDAR.sessions(
        (days.min() - pd.Timedelta(days=15)).date(), (days.max() + pd.Timedelta(days=15)).date()
    )
    return axis[axis.searchsorted(days, side="right") - 1]


def role_of(target_session: pd.Series) -> NDArray[np.str_]:
    """What a sample of session *t* is for: train, val, test, or nothing (empty)."""
    edges = [TRAIN_FROM, VAL_FROM, TEST_FROM, TEST_UNTIL]
    place = pd.DatetimeIndex(edges).searchsorted(pd.DatetimeIndex(target_session), side="right")
    return np.array(["", "train", "val", "test", ""])[place]


def samples(
    rows: pd.DataFrame, columns: tuple[str, ...], bars: pd.DataFrame, lookback: int = LOOKBACK
) -> list[FoldData]:
    """Each ticker's samples, scaled by its own training rows.

    Args:
        rows: ticker, session and ``columns``, all known at the session's close.
        columns: features.
        bars: for the moves that follow.
        lookback: sessions in one window, *t-1* the last.

    Returns:
        By ticker; targets are -1 and 1, unscaled. Tickers without a training or validation sample
        are left out.
    """
    matrix = ModelMatrix.build(rows, columns)
    axis = CALENDAR.sessions(rows["session"].min().date(), bars["session"].max().date())
    index = window_index(matrix, moves(bars).dropna(), axis, lookback)
    index = index[index["target_position"] >= 0]
    index = index.assign(role=role_of(pd.Series(axis[index["target_position"]])))
    made = []
    for ticker, own in index.groupby("ticker"):
        offset = matrix.rows_of(str(ticker)).start
        ends = {
            role: own.loc[own["role"] == role, "end_row"].to_numpy() - offset
            for role in ("train", "val", "test")
        }
        if not len(ends["train"]) or not len(ends["val"]):
            continue
        values = matrix.values[matrix.rows_of(str(ticker))]
        seen = np.unique(ends["train"][:, None] - np.arange(lookback))
        targets = np.full(len(values), np.nan, dtype=np.float32)
        targets[own["end_row"] - offset] = own["target"]
        made.append(
            FoldData(
                ticker=str(ticker),
                fold=0,
                lookback=lookback,
                values=values,
                targets=targets,
                input_scaler=Scaler.fit(values[seen]),
                target_scaler=Scaler(np.float64(0), np.float64(1)),
                train_ends=ends["train"],
                val_ends=ends["val"],
                test_ends=ends["test"],
                sessions=matrix.sessions[matrix.rows_of(str(ticker))],
            )
        )
    return made


def accuracy(actual: NDArray, predicted: NDArray) -> float:
    """Share of the labels that are right."""
    return float((actual == predicted).mean())


def matthews(actual: NDArray, predicted: NDArray) -> float:
    """Matthews' correlation coefficient (1975) of labels -1 and 1; 0 where one side is constant."""
    if len(np.unique(actual)) < 2 or len(np.unique(predicted)) < 2:
        return 0.0
    return float(np.corrcoef(actual, predicted)[0, 1])


def interval(
    figure: Callable[[NDArray, NDArray], float],
    actual: NDArray,
    made: Sequence[NDArray],
    sessions: NDArray,
    draws: int = 1000,
) -> list[float]:
    """95 % interval of a figure's mean over ``made``, from sessions drawn with replacement.

    Sessions are drawn, not samples, because the moves of one session go together.

    Args:
        figure: of actual and predicted labels.
        actual: (n,) labels.
        made: (n,) predicted labels, of one seed each.
        sessions: (n,) of the samples.
        draws: of the bootstrap.
    """
    _, place = np.unique(sessions, return_inverse=True)
    rows = [np.flatnonzero(place == session) for session in range(place.max() + 1)]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        drawn = np.concatenate([rows[n] for n in rng.integers(len(rows), size=len(rows))])
        means.append(np.mean([figure(actual[drawn], predicted[drawn]) for predicted in made]))
    return np.quantile(means, [0.025, 0.975]).tolist()
