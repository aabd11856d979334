"""Walk-forward folds: what they promise, for any sizes."""

from __future__ import annotations

import doctest
from datetime import date
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_pipeline.features import folds as folds_module
from rnn_pipeline.features.folds import Fold, fold_table, open_sessions, walk_forward
from rnn_pipeline.settings import FoldSpec


@st.composite
def walks(draw: st.DrawFn) -> tuple[int, FoldSpec, int]:
    """Any valid number of sessions, specification and horizon."""
    test_size = draw(st.integers(1, 30))
    spec = FoldSpec(
        mode=draw(st.sampled_from(["expanding", "rolling"])),
        train_size=draw(st.integers(20, 60)),
        val_size=draw(st.integers(5, 20)),
        test_size=test_size,
        step=draw(st.none() | st.integers(test_size, test_size + 20)),
    )
    horizon = draw(st.integers(1, spec.val_size - 1))
    n = draw(st.integers(spec.train_size + spec.val_size + 1, 300))
    return n, spec, horizon


def test_the_example_in_the_docstring_is_true() -> None:
    result = doctest.testmod(folds_module)
    assert result.attempted > 0
    assert result.failed == 0


def test_folds_by_hand() -> None:
    spec = FoldSpec(mode="rolling", train_size=20, val_size=6, test_size=5, step=7)
    assert walk_forward(40, spec, 3) == (
        Fold(0, range(0, 17), range(20, 23), range(26, 31)),
        Fold(1, range(7, 24), range(27, 30), range(33, 38)),
    )
    expanding = spec.model_copy(update={"mode": "expanding"})
    assert [fold.train for fold in walk_forward(40, expanding, 3)] == [range(0, 17), range(0, 24)]


@given(walks())
def test_no_label_ends_inside_the_next_role(walk: tuple[int, FoldSpec, int]) -> None:
    n, spec, horizon = walk
    for fold in walk_forward(n, spec, horizon):
        assert len(fold.train) > 0
        assert len(fold.val) > 0
        assert fold.train[-1] + horizon < fold.val[0]
        assert fold.val[-1] + horizon < fold.test[0]
        # The purge takes no more than it must.
        assert fold.train[-1] + horizon + 1 == fold.val[0]
        assert fold.val[-1] + horizon + 1 == fold.test[0]


@given(walks())
def test_sessions_are_tested_once_and_in_order(walk: tuple[int, FoldSpec, int]) -> None:
    n, spec, horizon = walk
    folds = walk_forward(n, spec, horizon)
    tested = [position for fold in folds for position in fold.test]
    assert tested == sorted(set(tested))
    assert tested[-1] < n
    assert [fold.number for fold in folds] == list(range(len(folds)))
    first = spec.train_size + spec.val_size
    if spec.stride == spec.test_size:
        assert tested == list(range(first, n))
    for earlier, later in pairwise(folds):
        assert later.test.start - earlier.test.start == spec.stride
        assert len(earlier.test) == spec.test_size
        shift = spec.stride if spec.mode == "rolling" else 0
        assert later.train.start - earlier.train.start == shift


@given(walks(), st.integers(1, 60))
def test_more_sessions_leave_earlier_folds_alone(
    walk: tuple[int, FoldSpec, int], added: int
) -> None:
    n, spec, horizon = walk
    before, after = walk_forward(n, spec, horizon), walk_forward(n + added, spec, horizon)
    assert after[: len(before) - 1] == before[:-1]
    last, same = before[-1], after[len(before) - 1]
    assert (last.train, last.val) == (same.train, same.val)
    assert list(same.test)[: len(last.test)] == list(last.test)
    if len(last.test) == spec.test_size:
        assert last == same


def test_the_smallest_history_and_one_less() -> None:
    spec = FoldSpec(train_size=20, val_size=5, test_size=10)
    assert walk_forward(26, spec, 1) == (Fold(0, range(0, 19), range(20, 24), range(25, 26)),)
    with pytest.raises(ValueError, match=r"25 sessions are too few for one fold: it needs 26"):
        walk_forward(25, spec, 1)


@pytest.mark.parametrize(
    ("horizon", "message"),
    [(0, "horizon = 0"), (5, "val_size = 5 leaves nothing"), (20, "train_size = 20 leaves")],
)
def test_a_purge_that_leaves_nothing_is_refused(horizon: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        walk_forward(100, FoldSpec(train_size=20, val_size=5, test_size=10), horizon)


def test_fold_table_names_dates() -> None:
    sessions = pd.bdate_range("2024-01-01", periods=40)
    folds = walk_forward(40, FoldSpec(train_size=20, val_size=5, test_size=10), 1)
    table = fold_table(folds, sessions)
    assert list(table.columns) == ["fold", "role", "first_session", "last_session", "sessions"]
    assert table["role"].tolist() == ["train", "val", "test"] * 2
    assert table["sessions"].tolist() == [19, 4, 10, 19, 4, 5]
    assert table.loc[2, "first_session"] == sessions[25]
    assert table.loc[2, "last_session"] == sessions[34]
    assert table["last_session"].iloc[-1] == sessions[-1]
    assert len(fold_table((), sessions)) == 0
    with pytest.raises(ValueError, match="position 39, but there are only 30 sessions"):
        fold_table(folds, sessions[:30])


def test_the_holdout_belongs_to_no_fold_however_long_it_grows() -> None:
    spec = FoldSpec(train_size=20, val_size=5, test_size=4, holdout_from=date(2020, 2, 20))
    for n in (45, 60, 200):
        axis = pd.bdate_range("2020-01-01", periods=n)
        folds = walk_forward(open_sessions(axis, spec), spec, horizon=1)
        last = max(axis[position] for fold in folds for position in fold.test)
        assert last == pd.Timestamp("2020-02-19")
    axis = pd.bdate_range("2020-01-01", periods=60)
    assert open_sessions(axis, spec.model_copy(update={"holdout_from": None})) == 60
