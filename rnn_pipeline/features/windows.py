"""From features to samples, without copies: the matrix, its windows, and each fold's share.

The one idea: a sample is a row number. All tickers' features lie in one array on disk, a window is
the ``lookback`` rows that end at a row, and only the windows of one batch are ever gathered. What a
fold may see follows from positions on the axis of sessions that its tickers share.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnn_pipeline.features.folds import Fold

MIN_TRAIN_WINDOWS = 64
"""Fewer training windows than this and a ticker is left out of a fold."""

UNTESTED = "no test window"
"""Why a ticker is not forecast in a fold although networks may learn from it there."""


# Larger than any number of days since 1970, so that (ticker, day) packs into one sorted integer.
_DAY_RANGE = 2**32


@dataclass(frozen=True, eq=False)
class Scaler:
    """Standardisation with the mean and deviation of the rows it was fitted on.

    Attributes:
        mean: (n_features,) or, for a single series, ().
        std: Likewise; 1 where the fitted rows are all equal.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: NDArray) -> Scaler:
        """Take mean and population standard deviation over the first axis.

        Args:
            rows: (n, n_features) or (n,).

        Raises:
            ValueError: no rows, or a number that is not finite.
        """
        # A fresh array: the order in which numbers are added must not depend on how they lay.
        rows = np.array(rows, dtype=np.float64, order="C")
        if len(rows) == 0:
            raise ValueError("cannot fit a scaler on 0 rows")
        if not np.isfinite(rows).all():
            raise ValueError(
                f"cannot fit a scaler: {int((~np.isfinite(rows)).sum())} of {rows.size} numbers"
                " are NaN or infinite; fit it on complete windows only"
            )
        constant = rows.max(axis=0) == rows.min(axis=0)
        return cls(rows.mean(axis=0), np.where(constant, 1.0, rows.std(axis=0)))

    def transform(self, values: NDArray) -> NDArray[np.float32]:
        """Scale to mean 0 and deviation 1 of the fitted rows; NaN stays NaN."""
        return ((values - self.mean) / self.std).astype(np.float32)

    def inverse(self, scaled: NDArray) -> NDArray[np.float64]:
        """Undo `transform`."""
        return np.asarray(scaled, dtype=np.float64) * self.std + self.mean

    def to_dict(self) -> dict[str, list[float] | float]:
        """For JSON: every float survives exactly."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, list[float] | float]) -> Scaler:
        """Undo `to_dict`."""
        return cls(np.asarray(stored["mean"]), np.asarray(stored["std"]))


@dataclass(frozen=True, eq=False)
class ModelMatrix:
    """Features of all tickers of a run in one contiguous array, by ticker and session.

    Attributes:
        values: (rows, n_features) float32; memory-mapped and read-only when opened from disk.
        sessions: (rows,) datetime64[D].
        tickers: The tickers in the order of their rows.
        offsets: (len(tickers) + 1,) rows at which each ticker starts, and the end.
        columns: Names of the features.
        feature_set_hash: What computed them.
    """

    values: NDArray[np.float32]
    sessions: NDArray[np.datetime64]
    tickers: tuple[str, ...]
    offsets: NDArray[np.int64]
    columns: tuple[str, ...]
    feature_set_hash: str = ""

    @classmethod
    def build(
        cls, features: pd.DataFrame, columns: Sequence[str], feature_set_hash: str = ""
    ) -> ModelMatrix:
        """Lay out a feature frame (ticker, session, ``columns``) in any row order.

        With ``known_at``, a row that became known after a later row of its ticker is blanked: when
        that later row was computed it was a gap, and a window across it stays broken for ever.
        Otherwise a bar that arrives years late would complete windows of the past and so retrain
        networks on what nobody had known.

        Raises:
            ValueError: a column is missing or infinite, or a (ticker, session) stands twice.
        """
        missing = [name for name in ("ticker", "session", *columns) if name not in features]
        if missing:
            raise ValueError(f"features lack the columns {missing}; they have {list(features)}")
        if features[["ticker", "session"]].isna().any(axis=None):
            raise ValueError("features: every row needs a ticker and a session")
        codes, tickers = pd.factorize(features["ticker"], sort=True)
        days = _days(features["session"])
        order = np.lexsort((days, codes))
        codes, days = codes[order], days[order]
        twice = np.flatnonzero((np.diff(codes) == 0) & (np.diff(days) == 0))
        if len(twice):
            first = twice[0]
            raise ValueError(
                f"features: {len(twice)} rows stand twice, first {tickers[codes[first]]} on"
                f" {days[first].astype('datetime64[D]')}"
            )
        values = np.empty((len(features), len(columns)), dtype=np.float32)
        for place, name in enumerate(columns):
            values[:, place] = features[name].to_numpy()[order]
            if np.isinf(values[:, place]).any():
                raise ValueError(f"features: {name} has infinite values; give them a value or NaN")
        if "known_at" in features:
            values[_arrived_late(codes, features["known_at"].to_numpy()[order])] = np.nan
        return cls(
            values=values,
            sessions=days.astype("datetime64[D]"),
            tickers=tuple(map(str, tickers)),
            offsets=np.searchsorted(codes, np.arange(len(tickers) + 1)),
            columns=tuple(columns),
            feature_set_hash=feature_set_hash,
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything in the matrix: equal content, equal hash."""
        digest = hashlib.sha256(
            json.dumps([self.columns, self.feature_set_hash, self.tickers]).encode()
        )
        for array in (self.offsets, self.sessions.astype(np.int64), self.values):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(rows,) place of each row's ticker in ``tickers``."""
        return np.repeat(np.arange(len(self.tickers)), np.diff(self.offsets))

    def rows_of(self, ticker: str) -> slice:
        """The rows of one ticker, in order of its sessions.

        Raises:
            ValueError: the matrix has no such ticker.
        """
        if ticker not in self.tickers:
            raise ValueError(
                f"ticker {ticker!r} is not in the matrix of {len(self.tickers)} tickers"
            )
        place = self.tickers.index(ticker)
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    def write(self, folder: Path) -> None:
        """Store as ``values.npy``, ``rows.npz`` and ``matrix.json``, replacing what was there.

        The JSON goes first and comes last: a write killed half-way leaves no matrix rather than a
        wrong one. A reader that has the old one mapped keeps it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "matrix.json").unlink(missing_ok=True)
        with _replacing(folder / "values.npy") as file:
            np.save(file, self.values)
        with _replacing(folder / "rows.npz") as file:
            np.savez(file, sessions=self.sessions, offsets=self.offsets)
        described = {
            "tickers": self.tickers,
            "columns": self.columns,
            "feature_set_hash": self.feature_set_hash,
            "content_hash": self.content_hash,
        }
        with _replacing(folder / "matrix.json") as file:
            file.write(json.dumps(described, indent=1).encode())

    @classmethod
    def open(cls, folder: Path) -> ModelMatrix:
        """Map a stored matrix into memory, after checking it against its hash.

        Raises:
            ValueError: there is no complete matrix in the folder, or it was damaged.
        """
        try:
            described = json.loads((folder / "matrix.json").read_text())
            with np.load(folder / "rows.npz") as rows:
                sessions, offsets = rows["sessions"], rows["offsets"]
            matrix = cls(
                values=np.load(folder / "values.npy", mmap_mode="r" if len(sessions) else None),
                sessions=sessions,
                tickers=tuple(described["tickers"]),
                offsets=offsets,
                columns=tuple(described["columns"]),
                feature_set_hash=described["feature_set_hash"],
            )
            whole = matrix.content_hash == described["content_hash"]
        except FileNotFoundError as error:
            raise ValueError(
                f"no complete model matrix in {folder} ({Path(error.filename).name} is missing);"
                " build it again"
            ) from None
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"the model matrix in {folder} is damaged ({error})") from None
        if not whole:
            raise ValueError(
                f"the model matrix in {folder} is damaged: its content does not match its hash;"
                " build it again"
            )
        return matrix


def _arrived_late(codes: NDArray[np.int64], known_at: NDArray) -> NDArray[np.bool_]:
    """Mark rows that became known after a later row of the same ticker, in order of both."""
    known = pd.Series(pd.to_datetime(known_at, utc=True))
    earliest_after = known[::-1].groupby(codes[::-1]).cummin()[::-1]
    return (known > earliest_after).to_numpy()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write beside a file and put it in its place when done."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _days(sessions: pd.Series | pd.DatetimeIndex | NDArray) -> NDArray[np.int64]:
    """Sessions as days since 1970, whatever their unit; NaT is the smallest number."""
    return np.asarray(sessions).astype("datetime64[D]").astype(np.int64)


def _positions(days: NDArray[np.int64], sessions: pd.DatetimeIndex, what: str) -> NDArray[np.int64]:
    """Places of days on the axis of sessions.

    Raises:
        ValueError: a day is not a session of the axis, or the axis is out of order.
    """
    axis = _days(sessions)
    if (np.diff(axis) <= 0).any():
        raise ValueError("the axis of sessions must be strictly increasing: sort it, drop repeats")
    places = np.searchsorted(axis, days)
    absent = np.append(axis, np.iinfo(np.int64).min)[places] != days
    if absent.any():
        raise ValueError(
            f"{int(absent.sum())} {what} are not on the axis of {len(axis)} sessions, first"
            f" {days[absent][0].astype('datetime64[D]')}; quarantine those rows or extend the axis"
        )
    return places


def window_ends(
    matrix: ModelMatrix, lookback: int, sessions: pd.DatetimeIndex
) -> NDArray[np.int64]:
    """Find the rows at which a complete window ends, for all tickers at once.

    A complete window is ``lookback`` rows of one ticker at consecutive sessions, without a NaN.

    Args:
        matrix: The features.
        lookback: Rows in one window.
        sessions: The axis: every session of the exchange from the first to the last of the matrix.

    Raises:
        ValueError: the lookback is below 1, or the matrix holds a day that is no session.
    """
    return _complete(matrix, lookback, _positions(_days(matrix.sessions), sessions, "rows"))


def _complete(
    matrix: ModelMatrix, lookback: int, positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    if lookback < 1:
        raise ValueError(f"lookback = {lookback}: a window has at least 1 row")
    rows = np.arange(len(positions))
    incomplete = np.isnan(matrix.values).any(axis=1)
    broken = np.ones(len(rows), dtype=bool)
    broken[1:] = np.diff(positions) != 1
    broken[matrix.offsets[:-1]] = True
    # The first row that a window ending here may start at: after the last break or gap.
    earliest = np.where(incomplete, rows + 1, np.where(broken, rows, 0))
    return np.flatnonzero(rows - np.maximum.accumulate(earliest) + 1 >= lookback)


def window_index(
    matrix: ModelMatrix, targets: pd.DataFrame, sessions: pd.DatetimeIndex, lookback: int
) -> pd.DataFrame:
    """List every complete window with its target, one row each: what training reads.

    Args:
        matrix: The features.
        targets: ticker, session, target, target_session of one horizon.
        sessions: The axis on which folds count positions.
        lookback: Rows in one window.

    Returns:
        ticker, start_row and end_row (rows of the matrix, both included), session and position of
        the last row, target (NaN where not yet known), target_position (-1 where not yet known);
        in order of end_row.

    Raises:
        ValueError: as `window_ends`; targets of several horizons; a target that stands twice.
    """
    if "horizon" in targets and targets["horizon"].nunique() > 1:
        raise ValueError(
            f"targets hold the horizons {sorted(set(targets['horizon']))}: pass one of them"
        )
    days = _days(matrix.sessions)
    positions = _positions(days, sessions, "rows")
    ends = _complete(matrix, lookback, positions)

    target = np.full(len(days), np.nan)
    target_position = np.full(len(days), -1)
    place = pd.Index(matrix.tickers).get_indexer(targets["ticker"])
    wanted = np.flatnonzero((place >= 0) & targets["target"].notna())
    rows = _rows_at(matrix, place[wanted], _days(targets["session"])[wanted])
    wanted, rows = wanted[rows >= 0], rows[rows >= 0]
    repeated = np.flatnonzero(np.bincount(rows, minlength=1) > 1)
    if len(repeated):
        raise ValueError(
            f"targets: {len(repeated)} sessions stand twice, first"
            f" {matrix.tickers[matrix.places[repeated[0]]]} on {matrix.sessions[repeated[0]]}"
        )
    target[rows] = targets["target"].to_numpy()[wanted]
    target_position[rows] = _positions(
        _days(targets["target_session"])[wanted], sessions, "target sessions"
    )
    tickers = pd.Series(matrix.tickers, dtype="str")
    return pd.DataFrame(
        {
            "ticker": tickers.array.take(matrix.places[ends]),
            "start_row": ends - lookback + 1,
            "end_row": ends,
            "session": matrix.sessions[ends].astype("datetime64[s]"),
            "position": positions[ends],
            "target": target[ends],
            "target_position": target_position[ends],
        }
    )


def _rows_at(
    matrix: ModelMatrix, places: NDArray[np.int64], days: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows of the matrix that hold these tickers on these days; -1 where there is none."""
    keys = matrix.places * _DAY_RANGE + _days(matrix.sessions)
    wanted = places * _DAY_RANGE + days
    rows = np.searchsorted(keys, wanted)
    found = np.append(keys, np.iinfo(np.int64).min)[rows] == wanted
    return np.where(found, rows, -1)


def _roles(index: pd.DataFrame, fold: Fold) -> dict[str, NDArray[np.bool_]]:
    """Say for each window of an index whether it trains, validates or tests in a fold.

    A training window lies wholly in the training span. A training or validation label must be known
    and end before the next span starts: the fold's own purge sees to that where a ticker has every
    session, and the target's position where its bars have a gap.
    """
    start, position, target_position = (
        index[name].to_numpy() for name in ("start_row", "position", "target_position")
    )
    first_position = position - (index["end_row"].to_numpy() - start)
    known = target_position >= 0
    return {
        "train": (first_position >= fold.train.start)
        & (position < fold.train.stop)
        & known
        & (target_position < fold.val.start),
        "val": (position >= fold.val.start)
        & (position < fold.val.stop)
        & known
        & (target_position < fold.test.start),
        "test": (position >= fold.test.start) & (position < fold.test.stop),
    }


def fold_windows(index: pd.DataFrame, fold: Fold) -> pd.DataFrame:
    """List the windows of one fold with their roles, to look at.

    Returns:
        ticker, end_row, session, fold, role ("train", "val", "test"), target (NaN in test where not
        yet known), in order of end_row. Purged windows are absent.
    """
    roles = _roles(index, fold)
    role = np.select(list(roles.values()), list(roles), default="")
    table = index[["ticker", "end_row", "session"]].assign(
        fold=fold.number,
        role=pd.Series(role, index=index.index, dtype="str"),
        target=index["target"],
    )
    return table[table["role"] != ""].reset_index(drop=True)


def fold_status(
    matrix: ModelMatrix,
    index: pd.DataFrame,
    folds: Iterable[Fold],
    min_train: int = MIN_TRAIN_WINDOWS,
) -> pd.DataFrame:
    """Count every ticker's windows in every fold, and say which are left out and why.

    Returns:
        ticker, fold, train, val, test (numbers of windows), reason (empty where the ticker is
        forecast in the fold); one row per ticker of the matrix and fold.
    """
    place = matrix.places[index["end_row"].to_numpy()]
    tables = []
    for fold in folds:
        counts = {
            role: np.bincount(place[chosen], minlength=len(matrix.tickers))
            for role, chosen in _roles(index, fold).items()
        }
        table = pd.DataFrame(
            {"ticker": pd.Series(matrix.tickers, dtype="str"), "fold": fold.number, **counts}
        )
        table["reason"] = [
            _left_out(fold, row.train, row.val, row.test, min_train) for row in table.itertuples()
        ]
        tables.append(table)
    status = pd.concat(tables, ignore_index=True)
    return status.sort_values(["ticker", "fold"], ignore_index=True)


def _left_out(fold: Fold, train: int, val: int, test: int, min_train: int) -> str:
    if train < min_train:
        return f"too little history: {train} training windows, {min_train} needed"
    if val == 0:
        return "no validation window"
    return UNTESTED if fold.test and test == 0 else ""


@dataclass(frozen=True, eq=False)
class FoldData:
    """What one network of one ticker sees in one fold, and nothing beyond it.

    Rows are numbered from the first row of the first training window to the end of the last window
    of the fold. Scales come from the training windows alone, so a later session adds a test window
    and changes no number that was there.

    Attributes:
        ticker: The ticker.
        fold: Number of the fold.
        lookback: Rows in one window.
        values: (rows, n_features) float32, a view of the matrix, so that the data of thousands of
            networks takes no memory before it is scaled; NaN in no window.
        targets: (rows,) float32, scaled; NaN where not yet known and at rows without a role.
        input_scaler: Fitted on the rows that training windows cover.
        target_scaler: Fitted on the targets of the training windows; ``inverse`` turns a forecast
            into a log return.
        train_ends: (n_train,) rows at which the training windows end.
        val_ends: (n_val,) likewise for validation.
        test_ends: (n_test,) likewise for test; there may be none.
        sessions: (rows,) datetime64[D].
    """

    ticker: str
    fold: int
    lookback: int
    values: NDArray[np.float32]
    targets: NDArray[np.float32]
    input_scaler: Scaler
    target_scaler: Scaler
    train_ends: NDArray[np.int64]
    val_ends: NDArray[np.int64]
    test_ends: NDArray[np.int64]
    sessions: NDArray[np.datetime64]

    @property
    def inputs(self) -> NDArray[np.float32]:
        """(rows, n_features) float32, the values scaled; computed anew each time."""
        return self.input_scaler.transform(self.values)

    @cached_property
    def training_hash(self) -> str:
        """SHA-256 over all that training can see: equal hash, equal network for the same seed.

        That is the rows of its training and validation windows and their targets. Rows between
        windows are left out, so that a late bar which completes no window trains nothing anew, and
        so are test windows: a fold whose test span has grown need not train again.
        """
        ends = np.concatenate([self.train_ends, self.val_ends])
        seen = _covered(ends, self.lookback, len(self.values))
        scales = [self.input_scaler.to_dict(), self.target_scaler.to_dict()]
        counts = [len(self.train_ends), len(self.val_ends)]
        digest = hashlib.sha256(json.dumps([self.lookback, self.ticker, scales, counts]).encode())
        for array in (
            np.cumsum(seen)[ends],  # where they end among the rows that count
            self.input_scaler.transform(self.values[seen]),
            self.targets[ends],
        ):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def fold_data(
    matrix: ModelMatrix,
    index: pd.DataFrame,
    fold: Fold,
    ticker: str,
    min_train: int = MIN_TRAIN_WINDOWS,
) -> FoldData:
    """Cut out and scale one ticker's share of one fold.

    Raises:
        ValueError: the ticker is not in the matrix, or has too little to learn from in this fold
            (`fold_status`).
    """
    rows = matrix.rows_of(ticker)
    first, last = np.searchsorted(index["end_row"].to_numpy(), [rows.start, rows.stop])
    own = index.iloc[first:last]
    roles = _roles(own, fold)
    counts = {role: int(chosen.sum()) for role, chosen in roles.items()}
    reason = _left_out(fold, **counts, min_train=min_train)
    if reason not in ("", UNTESTED):
        raise ValueError(f"{ticker}, fold {fold.number}: {reason}")

    start, end = own["start_row"].to_numpy(), own["end_row"].to_numpy()
    lookback = int(end[0] - start[0]) + 1
    used = np.logical_or.reduce(list(roles.values()))
    origin, stop = int(start[used][0]), int(end[used][-1]) + 1
    values = matrix.values[origin:stop]
    ends = {role: end[chosen] - origin for role, chosen in roles.items()}

    targets = np.full(stop - origin, np.nan)
    targets[end[used] - origin] = own["target"].to_numpy()[used]
    input_scaler = Scaler.fit(values[_covered(ends["train"], lookback, len(values))])
    target_scaler = Scaler.fit(targets[ends["train"]])
    return FoldData(
        ticker=ticker,
        fold=fold.number,
        lookback=lookback,
        values=values,
        targets=target_scaler.transform(targets),
        input_scaler=input_scaler,
        target_scaler=target_scaler,
        train_ends=ends["train"],
        val_ends=ends["val"],
        test_ends=ends["test"],
        sessions=matrix.sessions[origin:stop],
    )


def fold_datasets(
    matrix: ModelMatrix,
    index: pd.DataFrame,
    folds: Sequence[Fold],
    min_train: int = MIN_TRAIN_WINDOWS,
) -> Iterator[FoldData]:
    """Yield every ticker's share of every fold that networks may learn from, one at a time.

    In order of ticker and fold. `fold_status` names those that are left out. A ticker without a
    test window is there: whether a pooled network learns from it must not depend on what follows.
    """
    by_number = {fold.number: fold for fold in folds}
    status = fold_status(matrix, index, folds, min_train)
    for row in status[status["reason"].isin(["", UNTESTED])].itertuples():
        yield fold_data(matrix, index, by_number[row.fold], row.ticker, min_train)


def _covered(ends: NDArray[np.int64], lookback: int, rows: int) -> NDArray[np.bool_]:
    """Mark the rows that lie in at least one of the windows."""
    opened = np.bincount(ends - lookback + 1, minlength=rows + 1)
    closed = np.bincount(ends + 1, minlength=rows + 1)
    return np.cumsum(opened - closed)[:rows] > 0


def gather(values: NDArray, ends: NDArray[np.int64], lookback: int) -> NDArray:
    """Copy the windows of one batch out of the rows they share.

    Args:
        values: (rows, n_features).
        ends: (n,) last row of each window.
        lookback: Rows in one window.

    Returns:
        (n, lookback, n_features), oldest row first.

    Raises:
        ValueError: a window would start before the first row.
    """
    if len(ends) and ends.min() < lookback - 1:
        raise ValueError(
            f"a window of {lookback} rows cannot end at row {ends.min()}: it would start before"
            " the first row"
        )
    return values[ends[:, None] + np.arange(1 - lookback, 1)]
