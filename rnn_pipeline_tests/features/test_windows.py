"""Matrix, windows and fold data: what a network may see, and that nothing else reaches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn_pipeline.features.folds import Fold, walk_forward
from rnn_pipeline.features.windows import (
    FoldData,
    ModelMatrix,
    Scaler,
    fold_data,
    fold_datasets,
    fold_status,
    fold_windows,
    gather,
    window_ends,
    window_index,
)
from rnn_pipeline.settings import FoldSpec

COLUMNS = ("a", "b", "c")
AXIS = pd.bdate_range("2021-01-04", periods=120)
LOOKBACK = 6
SPEC = FoldSpec(mode="rolling", train_size=50, val_size=10, test_size=20)
HORIZON = 2


def make_features(ticker: str, sessions: pd.DatetimeIndex, seed: int) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(3, 2, (len(sessions), len(COLUMNS)))
    frame = pd.DataFrame(values, columns=list(COLUMNS))
    frame.insert(0, "session", sessions)
    frame.insert(0, "ticker", pd.Series([ticker] * len(sessions), dtype="str"))
    return frame


def make_targets(features: pd.DataFrame, horizon: int = HORIZON) -> pd.DataFrame:
    """Any number will do as a target; it ends ``horizon`` of the ticker's rows later."""
    by_ticker = features.groupby("ticker")
    return features[["ticker", "session"]].assign(
        horizon=horizon,
        target=by_ticker["a"].shift(-horizon) / 100,
        target_session=by_ticker["session"].shift(-horizon),
    )


@pytest.fixture
def features() -> pd.DataFrame:
    young = make_features("NEW", AXIS[30:], seed=2)
    return pd.concat([young, make_features("OLD", AXIS, seed=1)], ignore_index=True)


FOLDS = walk_forward(len(AXIS), SPEC, HORIZON)


def prepared(features: pd.DataFrame) -> tuple[ModelMatrix, pd.DataFrame]:
    matrix = ModelMatrix.build(features, COLUMNS, "0123")
    return matrix, window_index(matrix, make_targets(features), AXIS, LOOKBACK)


# Scaler


def test_scaler_standardises_what_it_was_fitted_on() -> None:
    rows = np.random.default_rng(0).normal([5, -2], [3, 0.1], (200, 2)).astype(np.float32)
    scaler = Scaler.fit(rows)
    scaled = scaler.transform(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(scaler.inverse(scaled), rows, rtol=1e-5)


def test_scaler_of_a_constant_column_and_of_one_series() -> None:
    scaler = Scaler.fit(np.full((77, 1), 0.1))
    assert scaler.std.tolist() == [1.0]
    assert abs(scaler.transform(np.array([[0.1]]))[0, 0]) < 1e-15
    series = Scaler.fit(np.array([1.0, 3.0]))
    assert (series.mean, series.std) == (2.0, 1.0)
    assert series.inverse(np.array([-1.0, 1.0], dtype=np.float32)).tolist() == [1.0, 3.0]


def test_scaler_survives_json_to_the_last_bit() -> None:
    for shape in ((50, 3), (50,)):
        scaler = Scaler.fit(np.random.default_rng(3).normal(size=shape))
        stored = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
        assert np.array_equal(stored.mean, scaler.mean)
        assert np.array_equal(stored.std, scaler.std)


def test_scaler_refuses_what_has_no_mean() -> None:
    with pytest.raises(ValueError, match="1 of 4 numbers are NaN or infinite"):
        Scaler.fit(np.array([[1.0, 2.0], [np.nan, 3.0]]))
    with pytest.raises(ValueError, match="0 rows"):
        Scaler.fit(np.empty((0, 2)))


# Matrix


def test_matrix_is_sorted_by_ticker_and_session(features: pd.DataFrame) -> None:
    matrix = ModelMatrix.build(features.sample(frac=1, random_state=0), COLUMNS)
    assert matrix.tickers == ("NEW", "OLD")
    assert (matrix.rows_of("NEW"), matrix.rows_of("OLD")) == (slice(0, 90), slice(90, 210))
    assert matrix.values.dtype == np.float32
    assert matrix.values.flags.c_contiguous
    old = features[features["ticker"] == "OLD"]
    np.testing.assert_array_equal(
        matrix.values[matrix.rows_of("OLD")], old[list(COLUMNS)].to_numpy(np.float32)
    )
    assert (pd.DatetimeIndex(matrix.sessions[matrix.rows_of("OLD")]) == AXIS).all()
    assert matrix.places.tolist() == [0] * 90 + [1] * 120


def test_matrix_comes_back_memory_mapped(features: pd.DataFrame, tmp_path: Path) -> None:
    matrix = ModelMatrix.build(features, COLUMNS, "0123")
    matrix.write(tmp_path / "m")
    stored = ModelMatrix.open(tmp_path / "m")
    assert isinstance(stored.values, np.memmap)
    assert not stored.values.flags.writeable
    assert np.array_equal(stored.values, matrix.values)
    assert np.array_equal(stored.sessions, matrix.sessions)
    assert np.array_equal(stored.offsets, matrix.offsets)
    assert stored.tickers == matrix.tickers
    assert (stored.columns, stored.feature_set_hash) == (COLUMNS, "0123")
    assert stored.content_hash == matrix.content_hash
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "matrix.json",
        "rows.npz",
        "values.npy",
    ]


def test_writing_again_replaces_without_disturbing_a_reader(
    features: pd.DataFrame, tmp_path: Path
) -> None:
    first = ModelMatrix.build(features, COLUMNS)
    first.write(tmp_path)
    reader = ModelMatrix.open(tmp_path)
    second = ModelMatrix.build(features.assign(a=0.0), COLUMNS)
    second.write(tmp_path)
    assert np.array_equal(reader.values, first.values)
    assert np.array_equal(ModelMatrix.open(tmp_path).values, second.values)


def test_a_write_killed_half_way_leaves_no_matrix(
    features: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ModelMatrix.build(features, COLUMNS).write(tmp_path)

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        ModelMatrix.build(features.assign(a=0.0), COLUMNS).write(tmp_path)
    with pytest.raises(ValueError, match="no complete model matrix"):
        ModelMatrix.open(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_content_hash_covers_everything(features: pd.DataFrame) -> None:
    base = ModelMatrix.build(features, COLUMNS, "0123")
    shuffled = ModelMatrix.build(features.sample(frac=1, random_state=5), COLUMNS, "0123")
    assert shuffled.content_hash == base.content_hash
    day = pd.Timedelta(days=1)
    others = [
        ModelMatrix.build(features, COLUMNS, "4567"),
        ModelMatrix.build(features, COLUMNS[::-1], "0123"),
        ModelMatrix.build(features.replace({"ticker": {"NEW": "MEW"}}), COLUMNS, "0123"),
        ModelMatrix.build(features.assign(session=features["session"] + day), COLUMNS, "0123"),
        ModelMatrix.build(features.assign(a=features["a"].where(features.index != 7)), COLUMNS),
    ]
    assert len({base.content_hash, *(other.content_hash for other in others)}) == 6


def test_an_empty_matrix(features: pd.DataFrame, tmp_path: Path) -> None:
    ModelMatrix.build(features.iloc[:0], COLUMNS).write(tmp_path)
    matrix = ModelMatrix.open(tmp_path)
    assert matrix.values.shape == (0, 3)
    index = window_index(matrix, make_targets(features), AXIS, LOOKBACK)
    assert len(index) == 0
    assert len(fold_status(matrix, index, FOLDS)) == 0
    assert list(fold_datasets(matrix, index, FOLDS)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "matrix.json").unlink(), r"no complete model matrix .*matrix\.json"),
        (lambda m: (m / "values.npy").unlink(), r"no complete model matrix .*values\.npy"),
        (lambda m: (m / "values.npy").write_bytes(b""), "damaged"),
        (lambda m: (m / "rows.npz").write_bytes(b"PK"), "damaged"),
        (lambda m: (m / "matrix.json").write_text("{}"), "damaged"),
        (lambda m: flip_last_byte(m / "values.npy"), "does not match its hash"),
        (lambda m: flip_last_byte(m / "values.npy", cut=True), "damaged"),
    ],
)
def test_a_damaged_matrix_is_refused(
    damage: object, message: str, features: pd.DataFrame, tmp_path: Path
) -> None:
    ModelMatrix.build(features, COLUMNS).write(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        ModelMatrix.open(tmp_path)


def flip_last_byte(path: Path, cut: bool = False) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + (b"" if cut else bytes([content[-1] ^ 1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="b"), r"lack the columns \['b'\]"),
        (lambda f: pd.concat([f, f.iloc[[3]]]), "1 rows stand twice, first NEW on 2021-02-18"),
        (lambda f: f.assign(b=np.inf), "b has infinite values"),
        (lambda f: f.assign(session=pd.NaT), "needs a ticker and a session"),
    ],
)
def test_wrong_features_are_named(change: object, message: str, features: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=message):
        ModelMatrix.build(change(features), COLUMNS)  # type: ignore[operator]


def test_unknown_ticker_is_named(features: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="'XYZ' is not in the matrix of 2 tickers"):
        ModelMatrix.build(features, COLUMNS).rows_of("XYZ")


# Windows


def brute_force_ends(frame: pd.DataFrame, lookback: int) -> list[tuple[str, pd.Timestamp]]:
    """Oracle: look at every (ticker, session) and ask for its last sessions one by one."""
    held = frame.dropna().set_index(["ticker", "session"]).index
    rows = set(held)
    place = {session: n for n, session in enumerate(AXIS)}
    return sorted(
        (ticker, session)
        for ticker, session in rows
        if place[session] >= lookback - 1
        and all((ticker, AXIS[place[session] - k]) in rows for k in range(lookback))
    )


@given(
    dropped=st.sets(st.integers(0, 209), max_size=12),
    blanked=st.sets(st.integers(0, 209), max_size=12),
    lookback=st.integers(1, 20),
)
@settings(max_examples=25, deadline=None)
def test_windows_span_no_gap_no_nan_no_other_ticker(
    dropped: set[int], blanked: set[int], lookback: int
) -> None:
    frame = pd.concat(
        [make_features("NEW", AXIS[30:], seed=2), make_features("OLD", AXIS, seed=1)],
        ignore_index=True,
    )
    frame.loc[sorted(blanked), "b"] = np.nan
    frame = frame.drop(index=sorted(dropped))
    matrix = ModelMatrix.build(frame, COLUMNS)
    ends = window_ends(matrix, lookback, AXIS)
    tickers = np.array(matrix.tickers)[matrix.places[ends]]
    found = list(zip(tickers, pd.DatetimeIndex(matrix.sessions[ends]), strict=True))
    assert found == brute_force_ends(frame, lookback)


def test_a_window_ends_with_its_ticker_even_where_the_next_one_follows_on() -> None:
    frame = pd.concat([make_features("GONE", AXIS[:50], 1), make_features("NEXT", AXIS[50:], 2)])
    ends = window_ends(ModelMatrix.build(frame, COLUMNS), LOOKBACK, AXIS)
    assert ends.tolist() == [*range(5, 50), *range(55, 120)]


def test_window_index_joins_each_window_to_its_target(features: pd.DataFrame) -> None:
    targets = make_targets(features)
    matrix, index = prepared(features)
    assert index["end_row"].tolist() == [*range(5, 90), *range(95, 210)]
    assert (index["end_row"] - index["start_row"] + 1 == LOOKBACK).all()
    expected = index.merge(targets, on=["ticker", "session"], suffixes=("", "_expected"))
    assert len(expected) == len(index)
    pd.testing.assert_series_equal(index["target"], expected["target_expected"], check_names=False)
    assert index["position"].tolist() == AXIS.get_indexer(index["session"]).tolist()
    known = index["target"].notna()
    assert (index["target_position"] == index["position"] + HORIZON)[known].all()
    assert (index["target_position"] == -1)[~known].all()
    assert (~known).sum() == 2 * HORIZON
    shuffled = window_index(matrix, targets.sample(frac=1, random_state=1), AXIS, LOOKBACK)
    pd.testing.assert_frame_equal(shuffled, index)


def test_targets_of_other_tickers_and_sessions_are_ignored(features: pd.DataFrame) -> None:
    matrix, index = prepared(features)
    more = pd.concat([make_features("AAA", AXIS, 4), make_features("NEW", AXIS[:30], 5)])
    targets = pd.concat([make_targets(more), make_targets(features)])
    pd.testing.assert_frame_equal(window_index(matrix, targets, AXIS, LOOKBACK), index)


def test_wrong_targets_and_axes_are_named(features: pd.DataFrame) -> None:
    matrix, targets = ModelMatrix.build(features, COLUMNS), make_targets(features)
    for wrong, axis, message in (
        (pd.concat([targets, targets.assign(horizon=5)]), AXIS, r"the horizons \[2, 5\]"),
        (pd.concat([targets, targets.iloc[[40]]]), AXIS, "1 sessions stand twice, first NEW on"),
        (targets, AXIS.delete(40), "2 rows are not on the axis of 119 sessions, first 2021-03-01"),
        (targets, AXIS[:100], "40 rows are not on the axis"),
        (targets, AXIS[::-1], "strictly increasing"),
        (
            targets.assign(target_session=pd.Timestamp("2021-01-09")),
            AXIS,
            "206 target sessions are not on the axis",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            window_index(matrix, wrong, axis, LOOKBACK)
    with pytest.raises(ValueError, match="lookback = 0"):
        window_ends(matrix, 0, AXIS)


def test_gather_by_hand() -> None:
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    batch = gather(values, np.array([2, 4, 2]), 3)
    assert batch.shape == (3, 3, 2)
    assert batch[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert batch[1].tolist() == [[4, 5], [6, 7], [8, 9]]
    assert np.array_equal(batch[0], batch[2])
    assert gather(values, np.array([], dtype=int), 3).shape == (0, 3, 2)
    with pytest.raises(ValueError, match="cannot end at row 1"):
        gather(values, np.array([1, 4]), 3)


# Roles and fold data


def test_roles_by_hand(features: pd.DataFrame) -> None:
    _, index = prepared(features)
    table = fold_windows(index, FOLDS[0])
    assert list(table.columns) == ["ticker", "end_row", "session", "fold", "role", "target"]
    old = table[table["ticker"] == "OLD"]
    spans = {role: AXIS.get_indexer(one["session"]) for role, one in old.groupby("role")}
    # train 0..47, the first window ends at 5; 48, 49 purged; val 50..57; 58, 59 purged; test 60..79
    assert spans["train"].tolist() == list(range(5, 48))
    assert spans["val"].tolist() == list(range(50, 58))
    assert spans["test"].tolist() == list(range(60, 80))
    new = table[table["ticker"] == "NEW"]
    assert AXIS.get_indexer(new["session"])[0] == 30 + LOOKBACK - 1


def test_only_a_test_window_may_lack_its_target(features: pd.DataFrame) -> None:
    last = FOLDS[-1]
    _, index = prepared(features)
    table = fold_windows(index, last)
    assert table.groupby("role")["target"].apply(lambda t: t.isna().sum()).to_dict() == {
        "test": 2 * HORIZON,
        "train": 0,
        "val": 0,
    }


def test_roles_keep_to_the_folds_ranges_whatever_the_targets(features: pd.DataFrame) -> None:
    matrix = ModelMatrix.build(features, COLUMNS)
    index = window_index(matrix, make_targets(features, horizon=1), AXIS, LOOKBACK)
    table = fold_windows(index, FOLDS[0])
    last = AXIS.get_indexer(table.groupby("role")["session"].max()[["train", "val", "test"]])
    assert last.tolist() == [47, 57, 79]


def test_a_label_that_ends_late_over_a_gap_is_purged() -> None:
    """Two missing sessions before validation stretch labels beyond the fold's own purge."""
    features = make_features("OLD", AXIS, seed=1).drop(index=[48, 49])
    _, index = prepared(features)
    table = fold_windows(index, FOLDS[0])
    train = AXIS.get_indexer(table.loc[table["role"] == "train", "session"])
    assert train[-1] == 45, "the labels of 46 and 47 end at 50 and 51"


@given(seed=st.integers(0, 1000), fold=st.sampled_from(FOLDS))
@settings(max_examples=20, deadline=None)
def test_no_label_of_one_role_ends_in_the_next(seed: int, fold: Fold) -> None:
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(len(AXIS), 110, replace=False))
    matrix, index = prepared(make_features("OLD", AXIS[kept], seed=1))
    table = fold_windows(index, fold).merge(index, on=["ticker", "end_row", "session", "target"])
    ends = table.groupby("role")["target_position"].max()
    assert ends.get("train", -1) < fold.val.start
    assert ends.get("val", -1) < fold.test.start
    train = table[table["role"] == "train"]
    first = AXIS.get_indexer(pd.DatetimeIndex(matrix.sessions[train["start_row"]]))
    assert (first >= fold.train.start).all()


def test_fold_data_holds_the_windows_of_its_fold(features: pd.DataFrame) -> None:
    matrix, index = prepared(features)
    for fold in FOLDS:
        data = fold_data(matrix, index, fold, "OLD", min_train=1)
        table = fold_windows(index, fold)
        table = table[table["ticker"] == "OLD"]
        for role, ends in (
            ("train", data.train_ends),
            ("val", data.val_ends),
            ("test", data.test_ends),
        ):
            rows = table.loc[table["role"] == role, "end_row"].to_numpy()
            windows = data.input_scaler.inverse(gather(data.inputs, ends, data.lookback))
            np.testing.assert_allclose(windows, gather(matrix.values, rows, LOOKBACK), atol=1e-5)
            np.testing.assert_allclose(
                data.target_scaler.inverse(data.targets[ends]),
                table.loc[table["role"] == role, "target"],
                atol=1e-7,
            )
            assert np.array_equal(data.sessions[ends], matrix.sessions[rows])
        assert data.inputs.dtype == data.targets.dtype == np.float32
        assert len(data.inputs) == len(data.targets) == len(data.sessions)
        assert (data.ticker, data.fold, data.lookback) == ("OLD", fold.number, LOOKBACK)
        assert data.train_ends[0] == LOOKBACK - 1, "nothing before the first training row"
        assert data.test_ends[-1] == len(data.inputs) - 1, "nothing after the last test row"
        others = np.setdiff1d(
            np.arange(len(data.targets)),
            np.concatenate([data.train_ends, data.val_ends, data.test_ends]),
        )
        assert np.isnan(data.targets[others]).all()


def test_scaler_sees_the_rows_of_training_windows_alone() -> None:
    features = make_features("OLD", AXIS, seed=1)
    # Row 20 is in no window, and rows 21 to 25 neither: the run after the hole is too short.
    features.loc[[20, 26], "b"] = np.nan
    matrix, index = prepared(features)
    data = fold_data(matrix, index, FOLDS[0], "OLD", min_train=1)
    rows = [*range(20), *range(27, 48)]
    expected = Scaler.fit(matrix.values[rows])
    assert np.array_equal(data.input_scaler.mean, expected.mean)
    assert np.array_equal(data.input_scaler.std, expected.std)
    target = index.set_index("position").loc[[*range(5, 20), *range(32, 48)], "target"]
    assert np.array_equal(data.target_scaler.mean, Scaler.fit(target.to_numpy()).mean)


def test_scrambling_what_comes_after_training_changes_no_scale(features: pd.DataFrame) -> None:
    matrix, index = prepared(features)
    scrambled = features.copy()
    later = (scrambled["session"] >= AXIS[FOLDS[0].val.start]).to_numpy()
    scrambled.loc[later, list(COLUMNS)] *= 1e6
    other_matrix, other_index = prepared(scrambled)
    for ticker in ("NEW", "OLD"):
        one = fold_data(matrix, index, FOLDS[0], ticker, min_train=1)
        other = fold_data(other_matrix, other_index, FOLDS[0], ticker, min_train=1)
        stop = int(one.train_ends[-1]) + 1
        assert np.array_equal(one.inputs[:stop], other.inputs[:stop])
        assert np.array_equal(one.targets[:stop], other.targets[:stop], equal_nan=True)
        for name in ("input_scaler", "target_scaler"):
            assert getattr(one, name).to_dict() == getattr(other, name).to_dict()
        assert one.training_hash != other.training_hash, "validation did change"


def test_later_sessions_change_nothing_that_was_there(features: pd.DataFrame) -> None:
    cut = AXIS[:85]
    short = features[features["session"] <= cut[-1]]
    matrix = ModelMatrix.build(short, COLUMNS)
    index = window_index(matrix, make_targets(short), cut, LOOKBACK)
    folds = walk_forward(len(cut), SPEC, HORIZON)
    assert len(folds[-1].test) == 5
    before = list(fold_datasets(matrix, index, folds, min_train=20))
    after = {
        (data.ticker, data.fold): data
        for data in fold_datasets(*prepared(features), FOLDS, min_train=20)
    }
    assert [(data.ticker, data.fold) for data in before] == [("NEW", 1), ("OLD", 0), ("OLD", 1)]
    for data in before:
        grown = after[data.ticker, data.fold]
        rows = len(data.inputs)
        assert np.array_equal(data.inputs, grown.inputs[:rows])
        assert np.array_equal(data.train_ends, grown.train_ends)
        assert np.array_equal(data.val_ends, grown.val_ends)
        assert np.array_equal(data.test_ends, grown.test_ends[: len(data.test_ends)])
        known = ~np.isnan(data.targets)
        assert np.array_equal(data.targets[known], grown.targets[:rows][known])
        assert data.training_hash == grown.training_hash


def test_another_ticker_changes_nothing(features: pd.DataFrame) -> None:
    alone = features[features["ticker"] == "OLD"]
    one = fold_data(*prepared(alone), FOLDS[1], "OLD", min_train=1)
    other = fold_data(*prepared(features), FOLDS[1], "OLD", min_train=1)
    assert np.array_equal(one.inputs, other.inputs)
    assert one.training_hash == other.training_hash


def test_training_hash_names_what_training_sees(features: pd.DataFrame) -> None:
    matrix, index = prepared(features)

    def hash_of(features: pd.DataFrame, fold: Fold = FOLDS[0]) -> str:
        return fold_data(*prepared(features), fold, "OLD", min_train=1).training_hash

    base = fold_data(matrix, index, FOLDS[0], "OLD", min_train=1).training_hash
    old = (features["ticker"] == "OLD") & (features["session"] == AXIS[55])
    assert hash_of(features.assign(b=features["b"].where(~old, 9.0))) != base
    tested = (features["ticker"] == "OLD") & (features["session"] == AXIS[70])
    assert hash_of(features.assign(b=features["b"].where(~tested, 9.0))) == base
    assert hash_of(features, FOLDS[1]) != base


def test_a_bar_that_came_late_and_completes_no_window_changes_no_training_hash(
    features: pd.DataFrame,
) -> None:
    # All bars are known on their day but one, which was missing for a while.
    known = features.assign(known_at=features["session"].dt.tz_localize("UTC"))
    late = ((known["ticker"] == "OLD") & (known["session"] == AXIS[25])).to_numpy()
    targets = make_targets(features)

    def data_of(features: pd.DataFrame, targets: pd.DataFrame) -> FoldData:
        matrix = ModelMatrix.build(features, COLUMNS)
        index = window_index(matrix, targets, AXIS, LOOKBACK)
        return fold_data(matrix, index, FOLDS[0], "OLD", min_train=1)

    before = data_of(known[~late], targets[~late])
    arrived = known.assign(
        known_at=known["known_at"].mask(late, pd.Timestamp("2022-01-01", tz="UTC"))
    )
    after = data_of(arrived, targets)
    assert len(after.inputs) == len(before.inputs) + 1
    assert len(after.train_ends) == len(before.train_ends)
    assert after.training_hash == before.training_hash

    # The same bar on its day completes windows; a target's change is seen, too.
    assert data_of(known, targets).training_hash != before.training_hash
    moved = targets["target"].where(targets["session"] != AXIS[20], 0.5)
    assert data_of(arrived, targets.assign(target=moved)).training_hash != before.training_hash


def test_windows_on_either_side_of_a_gap_are_told_from_windows_across_it() -> None:
    frame = make_features("OLD", AXIS, seed=1)
    matrix, index = prepared(frame)
    whole = fold_data(matrix, index, FOLDS[0], "OLD", min_train=1)
    left_out = index[~index["end_row"].between(26, 26 + LOOKBACK - 2)]
    parted = fold_data(matrix, left_out, FOLDS[0], "OLD", min_train=1)
    assert parted.input_scaler.to_dict() == whole.input_scaler.to_dict(), "the same rows"
    assert parted.training_hash != whole.training_hash


def test_fold_status_says_who_is_left_out_and_why(features: pd.DataFrame) -> None:
    gone = make_features("GONE", AXIS[:58], seed=3)
    holes = make_features("HOLES", AXIS.delete(range(48, 60)), seed=4)
    born = make_features("BORN", AXIS[110:], seed=5)
    features = pd.concat([features, gone, holes, born], ignore_index=True)
    matrix, index = prepared(features)
    status = fold_status(matrix, index, FOLDS, min_train=20)
    assert list(status.columns) == ["ticker", "fold", "train", "val", "test", "reason"]
    assert len(status) == 5 * len(FOLDS)
    reasons = status[status["fold"] == 0].set_index("ticker")["reason"].to_dict()
    assert reasons == {
        "BORN": "too little history: 0 training windows, 20 needed",
        "GONE": "no test window",
        "HOLES": "no validation window",
        "NEW": "too little history: 13 training windows, 20 needed",
        "OLD": "",
    }
    ready = status[status["reason"].isin(["", "no test window"])]
    yielded: list[FoldData] = list(fold_datasets(matrix, index, FOLDS, min_train=20))
    for data, row in zip(yielded, ready.itertuples(), strict=True):
        assert (data.ticker, data.fold) == (row.ticker, row.fold)
        counts = (len(data.train_ends), len(data.val_ends), len(data.test_ends))
        assert counts == (row.train, row.val, row.test)
    with pytest.raises(ValueError, match="NEW, fold 0: too little history: 13 training windows"):
        fold_data(matrix, index, FOLDS[0], "NEW", min_train=20)
