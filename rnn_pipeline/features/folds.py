"""Walk-forward folds: train on the past, stop on what follows, test on what follows that.

The one idea: a fold is three ranges of positions on one axis of sessions, the same for all tickers,
counted from the first session. A label at position *t* is known at *t + horizon*, so the last
``horizon`` positions before validation, and before test, belong to no role: their labels would end
inside the next one. That is the purge (Lopez de Prado 2018, chapter 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rnn_pipeline.settings import FoldSpec


@dataclass(frozen=True)
class Fold:
    """Positions of one fold's sessions; a position is usable in the role whose range holds it.

    Attributes:
        number: From 0, in order of time.
        train: Sessions whose rows and labels the networks learn from.
        val: Sessions whose labels decide when to stop.
        test: Sessions that are forecast.
    """

    number: int
    train: range
    val: range
    test: range


def walk_forward(n_sessions: int, spec: FoldSpec, horizon: int) -> tuple[Fold, ...]:
    """Cut an axis of sessions into walk-forward folds.

    Fold *k* starts ``k * spec.stride`` sessions after the first one. Its training span has
    ``train_size`` sessions (``rolling``) or begins at session 0 and grows (``expanding``), its
    validation span the next ``val_size``, its test span the next ``test_size``. Of training and of
    validation the last ``horizon`` sessions are purged.

    Folds are added while there is a session left to test, so the last test span may be short. More
    sessions first complete it, without touching its training and validation, and then add folds:
    no other fold changes. With ``step`` empty every session after the first validation span is
    tested exactly once; with ``step > test_size`` the sessions between test spans are not tested.

    Args:
        n_sessions: Length of the axis.
        spec: Sizes, stride and mode.
        horizon: Sessions from a forecast to the end of its label.

    Returns:
        The folds, in order of time; at least one.

    Raises:
        ValueError: fewer sessions than one fold needs, or a span that the purge would leave empty.

    Examples:
        >>> from rnn_pipeline.settings import FoldSpec
        >>> spec = FoldSpec(mode="rolling", train_size=20, val_size=5, test_size=4)
        >>> for fold in walk_forward(31, spec, horizon=2):
        ...     print(f"Fold {fold.number}:")
        ...     print(f"  train {fold.train[0]} to {fold.train[-1]}")
        ...     print(f"  val   {list(fold.val)}")
        ...     print(f"  test  {list(fold.test)}")
        Fold 0:
          train 0 to 17
          val   [20, 21, 22]
          test  [25, 26, 27, 28]
        Fold 1:
          train 4 to 21
          val   [24, 25, 26]
          test  [29, 30]
        >>> expanding = spec.model_copy(update={"mode": "expanding"})
        >>> [fold.train for fold in walk_forward(31, expanding, horizon=2)]
        [range(0, 18), range(0, 22)]
    """
    if horizon < 1:
        raise ValueError(f"horizon = {horizon}: must be at least 1 session ahead")
    for name, size in (("train_size", spec.train_size), ("val_size", spec.val_size)):
        if size <= horizon:
            raise ValueError(
                f"{name} = {size} leaves nothing after purging horizon = {horizon} sessions;"
                f" raise {name} above the horizon"
            )
    needed = spec.train_size + spec.val_size + 1
    if n_sessions < needed:
        raise ValueError(
            f"{n_sessions} sessions are too few for one fold: it needs {needed} (train_size"
            f" {spec.train_size} + val_size {spec.val_size} + 1 to test); load more history or"
            " lower the sizes"
        )
    folds = []
    for number, start in enumerate(range(0, n_sessions - needed + 1, spec.stride)):
        train_end = start + spec.train_size
        val_end = train_end + spec.val_size
        folds.append(
            Fold(
                number=number,
                train=range(start if spec.mode == "rolling" else 0, train_end - horizon),
                val=range(train_end, val_end - horizon),
                test=range(val_end, min(val_end + spec.test_size, n_sessions)),
            )
        )
    return tuple(folds)


def inner_folds(fold: Fold, splits: int, val_share: float, horizon: int) -> tuple[Fold, ...]:
    """Cut a fold's training span into folds of its own, for choices made before it is tested.

    The last ``splits`` blocks of the span validate, each after training on all of the span before
    it, purged as ever. There is no test span: the empty range says that labels must have ended
    before the fold's own validation begins, which its purge has seen to.

    Args:
        fold: Whose training span.
        splits: How many.
        val_share: Share of the span in one block.
        horizon: Sessions from a forecast to the end of its label.

    Raises:
        ValueError: the first split is left without training sessions.

    Examples:
        >>> fold = Fold(0, train=range(0, 100), val=range(102, 110), test=range(112, 120))
        >>> [(split.train, split.val) for split in inner_folds(fold, 2, 0.2, horizon=2)]
        [(range(0, 58), range(60, 80)), (range(0, 78), range(80, 100))]
    """
    # Not scikit-learn's TimeSeriesSplit, which does the same: it would be needed for this alone.
    size = round(val_share * len(fold.train))
    first = fold.train.stop - splits * size
    if size < 1 or first - horizon <= fold.train.start:
        raise ValueError(
            f"{len(fold.train)} training sessions of fold {fold.number} are too few for {splits}"
            f" splits that validate {val_share:g} of them each: lower either, or raise train_size"
        )
    return tuple(
        Fold(
            number=number,
            train=range(fold.train.start, start - horizon),
            val=range(start, start + size),
            test=range(fold.val.start, fold.val.start),
        )
        for number, start in enumerate(range(first, fold.train.stop, size))
    )


def open_sessions(sessions: pd.DatetimeIndex, spec: FoldSpec) -> int:
    """Count the sessions that folds may use: those before the holdout, or all without one.

    The holdout begins at a date, not a number of sessions before the newest: which session is
    tested must not depend on how many follow it.

    Args:
        sessions: The axis that folds' positions count on.
        spec: With ``holdout_from``.
    """
    if spec.holdout_from is None:
        return len(sessions)
    return int(sessions.searchsorted(pd.Timestamp(spec.holdout_from)))


def fold_table(folds: Sequence[Fold], sessions: pd.DatetimeIndex) -> pd.DataFrame:
    """Say in dates what was trained and tested when, for reports and plots.

    Args:
        folds: From `walk_forward`.
        sessions: The axis that the folds' positions count on.

    Returns:
        fold, role ("train", "val", "test"), first_session, last_session (both included), sessions;
        three rows per fold, in order of time.

    Raises:
        ValueError: the axis is shorter than the folds.
    """
    last = max((fold.test[-1] for fold in folds), default=-1)
    if last >= len(sessions):
        raise ValueError(
            f"the folds reach position {last}, but there are only {len(sessions)} sessions: pass"
            " the axis that the folds were made for"
        )
    spans = [
        (fold.number, role, getattr(fold, role))
        for fold in folds
        for role in ("train", "val", "test")
    ]
    return pd.DataFrame(
        {
            "fold": [number for number, _, _ in spans],
            "role": [role for _, role, _ in spans],
            "first_session": sessions[[span[0] for _, _, span in spans]],
            "last_session": sessions[[span[-1] for _, _, span in spans]],
            "sessions": [len(span) for _, _, span in spans],
        }
    )
