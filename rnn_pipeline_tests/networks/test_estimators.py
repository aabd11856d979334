from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rnn_pipeline.networks import backends, estimators
from rnn_pipeline.networks.checkpoints import weights_hash
from rnn_pipeline.networks.estimators import MultivariateLSTM, TradingGRU, TradingLSTM
from rnn_pipeline.networks.recurrent import GRUNet, LSTMNet, StackedLSTM
from rnn_pipeline.settings import TrainingSpec

SERIES = [TradingLSTM, TradingGRU]
LOOKBACK, ROWS = 6, 90
CUT = 72
"""Of 90 rows the last 18 validate: row 72 is the first that is a validation target."""

SMALL: dict[str, Any] = {"lookback": LOOKBACK, "epochs": 3, "lr": 0.01, "batch_size": 16}


def tiny(kind: type[TradingLSTM] = TradingLSTM, **options: Any) -> TradingLSTM:
    return kind(hidden_dim=5, num_layers=1, device="cpu", **options)


def wave(rows: int = ROWS) -> np.ndarray:
    return 100 + 10 * np.sin(np.arange(rows) / 4) + np.arange(rows) * 0.01


def frame(rows: int = ROWS) -> pd.DataFrame:
    """A target that follows two features by one row, under a calendar."""
    rng = np.random.default_rng(3)
    spread, volume = rng.standard_normal(rows), 1e6 * rng.random(rows)
    target = 0.5 + 0.02 * np.append(0.0, spread[:-1])
    index = pd.bdate_range("2024-01-01", periods=rows)
    return pd.DataFrame({"spread": spread, "volume": volume, "move": target}, index=index)


def weights(estimator: TradingLSTM | MultivariateLSTM) -> str:
    assert estimator.model is not None
    return weights_hash(estimator.model.state_dict())


def fitted_frame(rows: pd.DataFrame, **changes: Any) -> MultivariateLSTM:
    estimator = MultivariateLSTM(device="cpu", dropout=0.1)
    estimator.fit(rows, "move", **SMALL | {"hidden_dims": [4, 3]} | changes)
    return estimator


@pytest.fixture(scope="module", params=SERIES, ids=lambda kind: kind.__name__)
def trained(request: pytest.FixtureRequest) -> TradingLSTM:
    estimator = tiny(request.param)
    estimator.fit(wave(), **SMALL)
    return estimator


@pytest.fixture(scope="module")
def trained_frame() -> MultivariateLSTM:
    return fitted_frame(frame())


@pytest.mark.parametrize("kind", SERIES)
def test_windows_of_a_series_are_followed_by_their_targets(kind: type[TradingLSTM]) -> None:
    X, y = kind().prepare_sequences(pd.Series([3.0, 1, 4, 1, 5, 9]), 2)
    assert X[..., 0].tolist() == [[3, 1], [1, 4], [4, 1], [1, 5]]
    assert (X.shape, y.tolist()) == ((4, 2, 1), [4, 1, 5, 9])
    X[0] = 0.0
    assert X[1, 0, 0] == 1.0, "windows share memory"


def test_windows_of_features_are_followed_by_the_targets_of_the_next_row() -> None:
    features, target = np.arange(10.0).reshape(5, 2), np.arange(5.0) * 10
    X, y = MultivariateLSTM().prepare_sequences(features, target, 3)
    assert X.tolist() == [features[0:3].tolist(), features[1:4].tolist()]
    assert y.tolist() == [30, 40]


@pytest.mark.parametrize(
    ("kind", "network", "layer"), [(TradingLSTM, LSTMNet, nn.LSTM), (TradingGRU, GRUNet, nn.GRU)]
)
def test_the_two_wrappers_differ_by_their_cell(
    kind: type[TradingLSTM], network: type[nn.Module], layer: type[nn.Module]
) -> None:
    estimator = tiny(kind)
    estimator.fit(wave(), **SMALL)
    assert type(estimator.model) is network
    assert all(type(one) is layer for one in estimator.model.recurrent.layers)
    assert not estimator.model.training


def test_as_the_tutorial_has_it() -> None:
    estimator = TradingLSTM()
    assert estimator.model is None
    history = estimator.fit(wave(60), lookback=20, epochs=2)
    assert isinstance(estimator.device, torch.device)
    assert {name: len(losses) for name, losses in history.items()} == {
        "train_loss": 2,
        "val_loss": 2,
    }
    assert estimator.lookback == 20
    assert estimator.predict(wave(60), steps=5).shape == (5,)
    layers = estimator.model.recurrent.layers
    assert [(layer.input_size, layer.hidden_size) for layer in layers] == [(1, 64), (64, 64)]

    multivariate = MultivariateLSTM()
    multivariate.fit(frame(60), "move", 20, 2, 0.001, 32, 0.2, [8, 4])
    assert isinstance(multivariate.model, StackedLSTM)
    assert [layer.hidden_size for layer in multivariate.model.lstm_layers] == [8, 4]
    assert multivariate.predict(frame(60)).shape == (1,)


def test_a_sine_is_learned_far_better_than_the_mean_and_the_last_value() -> None:
    series = wave(460)
    estimator = TradingGRU(hidden_dim=12, num_layers=1, dropout=0.0, device="cpu")
    estimator.fit(series[:300], lookback=12, epochs=15, lr=0.02)
    unseen = series[301:]
    error = ((estimator.predict_all(series)[300:-1] - unseen) ** 2).mean()
    assert error < 0.01 * unseen.var()
    assert error < 0.1 * ((series[300:-1] - unseen) ** 2).mean()
    walked = estimator.predict(series[:300], steps=20)
    assert np.abs(walked - series[300:320]).max() < 3.0


def test_features_that_lead_the_target_are_found() -> None:
    rows = frame(400)
    estimator = MultivariateLSTM(device="cpu", dropout=0.0)
    estimator.fit(rows[:300], "move", 4, 12, 0.02, 32, 0.2, [8])
    error = ((estimator.predict_all(rows).shift() - rows["move"])[300:] ** 2).mean()
    assert error < 0.1 * rows["move"][300:].var()


def test_the_scaler_sees_training_rows_only(trained: TradingLSTM) -> None:
    seen = wave()[: CUT - 1]
    assert (trained.mean, trained.std) == (seen.mean(), seen.std())


def test_the_scalers_of_a_frame_see_what_training_windows_hold(
    trained_frame: MultivariateLSTM,
) -> None:
    rows = frame()
    held, followed = rows[["spread", "volume"]][: CUT - 2], rows["move"][LOOKBACK : CUT - 1]
    np.testing.assert_allclose(trained_frame.input_scaler.mean, held.mean(), rtol=1e-12)
    np.testing.assert_allclose(trained_frame.input_scaler.std, held.std(ddof=0), rtol=1e-12)
    assert trained_frame.target_scaler.mean == pytest.approx(followed.mean(), rel=1e-12)
    assert trained_frame.target_scaler.std == pytest.approx(followed.std(ddof=0), rel=1e-12)


@pytest.mark.parametrize("kind", SERIES)
def test_what_validates_changes_neither_scaler_nor_what_training_does(
    kind: type[TradingLSTM],
) -> None:
    # With one epoch the validation loss has nothing to choose among.
    once = SMALL | {"epochs": 1}
    plain, scrambled = tiny(kind), tiny(kind)
    history = plain.fit(wave(), **once)
    rows = wave()
    rows[CUT - 1 :] = np.random.default_rng(0).permutation(rows[CUT - 1 :]) * 7
    other = scrambled.fit(rows, **once)
    assert (scrambled.mean, scrambled.std) == (plain.mean, plain.std)
    assert weights(scrambled) == weights(plain)
    assert other["train_loss"] == history["train_loss"]
    assert other["val_loss"] != history["val_loss"]

    rows = wave()
    rows[CUT - 2] += 5.0
    nudged = tiny(kind)
    nudged.fit(rows, **once)
    assert weights(nudged) != weights(plain), "the last training target trains nothing"


def test_what_validates_changes_nothing_learned_from_a_frame() -> None:
    plain, rows = fitted_frame(frame(), epochs=1), frame()
    rows.iloc[CUT - 1 :] = rows.iloc[CUT - 1 :].to_numpy()[::-1] * 7
    # Row 70 is the last training target; its features are in no training window.
    rows.iloc[CUT - 2, :2] = 1e9
    scrambled = fitted_frame(rows, epochs=1)
    assert scrambled.input_scaler.to_dict() == plain.input_scaler.to_dict()
    assert scrambled.target_scaler.to_dict() == plain.target_scaler.to_dict()
    assert weights(scrambled) == weights(plain)


def test_the_losses_are_those_of_the_windows_in_time() -> None:
    estimator = tiny()
    # A learning rate of (almost) nothing: the losses are those of the first weights.
    history = estimator.fit(wave(), **SMALL | {"epochs": 1, "lr": 1e-12})
    X, y = estimator.prepare_sequences((wave() - estimator.mean) / estimator.std, LOOKBACK)
    with torch.no_grad():
        outputs = estimator.model(torch.tensor(X, dtype=torch.float32))[:, 0].double().numpy()
    errors = (outputs - y) ** 2
    # The window that ends at row e is number e - LOOKBACK + 1 and has its target in row e + 1:
    # validation targets are rows 72 to 89, training targets 6 to 70.
    assert history["val_loss"] == [pytest.approx(errors[CUT - LOOKBACK :].mean(), rel=1e-5)]
    assert len(errors[CUT - LOOKBACK :]) == 18
    plain = tiny()
    plain.size["dropout"] = 0.0
    losses = plain.fit(wave(), **SMALL | {"epochs": 1, "lr": 1e-12})["train_loss"]
    training = errors[: CUT - 1 - LOOKBACK]
    assert losses == [pytest.approx(training.mean(), rel=1e-4)]
    assert len(training) % SMALL["batch_size"], "the last batch is not a partial one"


def test_the_best_weights_come_back() -> None:
    estimator = tiny()
    history = estimator.fit(wave(), **SMALL | {"epochs": 8, "lr": 0.3})
    best = int(np.argmin(history["val_loss"]))
    assert best < 7, "the last epoch is the best one: raise the learning rate"
    X, y = estimator.prepare_sequences((wave() - estimator.mean) / estimator.std, LOOKBACK)
    with torch.no_grad():
        outputs = estimator.model(torch.tensor(X, dtype=torch.float32))[:, 0].double().numpy()
    last = ((outputs - y) ** 2)[CUT - LOOKBACK :]
    assert last.mean() == pytest.approx(history["val_loss"][best], rel=1e-4)


def test_every_row_at_once_is_what_each_row_gives_alone(trained: TradingLSTM) -> None:
    series = wave(40)
    together = trained.predict_all(series)
    assert np.isnan(together[: LOOKBACK - 1]).all()
    alone = [trained.predict(series[: end + 1])[0] for end in range(LOOKBACK - 1, 40)]
    assert together[LOOKBACK - 1 :].tolist() == alone

    series[20] = np.nan
    gaps = np.isnan(trained.predict_all(series))
    assert np.flatnonzero(gaps).tolist() == [*range(LOOKBACK - 1), *range(20, 20 + LOOKBACK)]
    kept = ~gaps
    assert (trained.predict_all(series)[kept] == together[kept]).all()


def test_every_row_of_a_frame_is_what_each_gives_alone(trained_frame: MultivariateLSTM) -> None:
    rows = frame(30)
    together = trained_frame.predict_all(rows)
    assert together.index.equals(rows.index)
    assert together.name == "move"
    assert together[: LOOKBACK - 1].isna().all()
    alone = [trained_frame.predict(rows[: end + 1])[0] for end in range(LOOKBACK - 1, 30)]
    assert together[LOOKBACK - 1 :].tolist() == alone
    rows.iloc[20, 0] = np.nan
    gaps = trained_frame.predict_all(rows).isna().to_numpy()
    assert np.flatnonzero(gaps).tolist() == [*range(LOOKBACK - 1), *range(20, 20 + LOOKBACK)]


def test_steps_feed_on_the_steps_before_them(trained: TradingLSTM) -> None:
    series = wave(30)
    ahead = trained.predict(series, steps=4)
    for forecast in ahead:
        # A forecast passes through float32 on its way back in, so the last digits may differ.
        assert trained.predict(series)[0] == pytest.approx(forecast, rel=1e-6)
        series = np.append(series, forecast)
    assert trained.predict(wave(30)[-LOOKBACK:], steps=4).tolist() == ahead.tolist()


def test_columns_are_taken_by_name_and_the_target_is_not_looked_at(
    trained_frame: MultivariateLSTM,
) -> None:
    rows = frame(30)
    expected = trained_frame.predict(rows)
    assert trained_frame.feature_columns == ("spread", "volume")
    for same in (
        rows[["volume", "move", "spread"]],
        rows.drop(columns="move"),
        rows.assign(move=np.nan, story="none"),
        rows.tail(LOOKBACK),
    ):
        assert trained_frame.predict(same).tolist() == expected.tolist()


def test_the_seed_decides_the_weights(trained_frame: MultivariateLSTM) -> None:
    assert weights(fitted_frame(frame())) == weights(trained_frame)
    first, again, other = tiny(seed=1), tiny(seed=1), tiny(seed=2)
    for number, estimator in enumerate((first, again, other)):
        torch.manual_seed(number)
        estimator.fit(wave(), **SMALL)
    assert weights(first) == weights(again) != weights(other)


def test_saved_and_loaded_forecasts_are_bit_identical(trained: TradingLSTM, tmp_path: Path) -> None:
    path = tmp_path / "series.safetensors"
    trained.save(path)
    back = type(trained)(device="cpu").load(path)
    assert (back.mean, back.std, back.lookback) == (trained.mean, trained.std, LOOKBACK)
    assert back.history == trained.history
    assert back.predict(wave(), steps=3).tolist() == trained.predict(wave(), steps=3).tolist()
    again = tmp_path / "again.safetensors"
    back.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_saved_frame_model_needs_nothing_else(
    trained_frame: MultivariateLSTM, tmp_path: Path
) -> None:
    path = tmp_path / "frame.safetensors"
    trained_frame.save(path)
    back = MultivariateLSTM(device="cpu").load(path)
    assert back.predict_all(frame()).equals(trained_frame.predict_all(frame()))
    assert [layer.hidden_size for layer in back.model.lstm_layers] == [4, 3]
    with pytest.raises(ValueError, match="is a MultivariateLSTM, not a TradingGRU"):
        TradingGRU.load(path)


def test_a_file_is_a_json_header_and_numbers(trained: TradingLSTM, tmp_path: Path) -> None:
    path = tmp_path / "series.safetensors"
    trained.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = json.loads(content[8 : 8 + length])
    described = tensors.pop("__metadata__")["rnn_pipeline"].partition("{")
    assert repr(trained.mean) in json.dumps(json.loads("".join(described[1:])))
    assert max(entry["data_offsets"][1] for entry in tensors.values()) == len(content) - 8 - length


@pytest.mark.parametrize("kind", [TradingLSTM, TradingGRU, MultivariateLSTM])
def test_nothing_is_predicted_before_training(kind: type[Any]) -> None:
    given = frame() if kind is MultivariateLSTM else wave()
    for ask in (kind().predict, kind().predict_all):
        with pytest.raises(ValueError, match=r"^Model must be trained before prediction$"):
            ask(given)


def test_early_stopping_is_there_for_those_who_ask() -> None:
    estimator = tiny(training=TrainingSpec(patience=1))
    history = estimator.fit(wave(), **SMALL | {"epochs": 30, "lr": 0.3})
    assert len(history["val_loss"]) < 30


@pytest.mark.parametrize("kind", [TradingLSTM, TradingGRU, MultivariateLSTM])
def test_the_fused_kernel_learns_what_torch_learns(kind: type[Any]) -> None:
    training = TrainingSpec(patience=2, weight_decay=0.01, clip_norm=0.5, input_noise=0.1)
    by_torch, fused = (
        kind(training=training, backend=backend, device="cpu") for backend in ("reference", "cpu")
    )
    rows = (frame(), "move") if kind is MultivariateLSTM else (wave(),)
    expected = by_torch.fit(*rows, **SMALL | {"epochs": 12})
    history = fused.fit(*rows, **SMALL | {"epochs": 12})
    for name, losses in expected.items():
        assert history[name] == pytest.approx(losses, abs=1e-5)
    assert np.argmin(history["val_loss"]) == np.argmin(expected["val_loss"])
    assert type(fused.model) is type(by_torch.model)
    assert not fused.model.training
    for name, value in by_torch.model.state_dict().items():
        torch.testing.assert_close(fused.model.state_dict()[name], value, rtol=0, atol=1e-4)
    assert weights(fused) != weights(by_torch), "both were trained by the same backend"
    np.testing.assert_allclose(fused.predict(rows[0]), by_torch.predict(rows[0]), rtol=1e-4)
    kept = weights(fused)
    fused.fit(*rows, **SMALL | {"epochs": 12})
    assert weights(fused) == kept, "a second fit differs"


def test_little_work_is_left_to_torch_and_more_to_the_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ratios = {"lstm": 2.0, "gru": 0.5}
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(backends, "SMALL_S", 0.0)
    monkeypatch.setattr(
        backends, "_measured_ratio", lambda member, _compute: ratios[member.network.cell]
    )

    def learned(kind: type[TradingLSTM], **options: Any) -> str:
        estimator = tiny(kind, **options)
        estimator.fit(wave(), **SMALL)
        return weights(estimator)

    by_torch, fused = (learned(TradingLSTM, backend=name) for name in ("reference", "cpu"))
    assert by_torch != fused
    assert learned(TradingLSTM) == by_torch
    monkeypatch.setattr(estimators, "SMALL_S", 0.0)
    assert learned(TradingLSTM) == fused
    assert learned(TradingGRU) == learned(TradingGRU, backend="reference")
    monkeypatch.setattr(estimators, "SMALL_S", 5.0)
    assert learned(TradingLSTM) == by_torch, "what was measured changed a small fit"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_progress_is_told_while_it_learns(backend: Any) -> None:
    told: list[tuple[int, int, float, float]] = []
    estimator = tiny(backend=backend, progress=lambda *losses: told.append(losses))
    history = estimator.fit(wave(), **SMALL)
    losses = zip(history["train_loss"], history["val_loss"], strict=True)
    assert told == [(epoch, 3, *both) for epoch, both in enumerate(losses, start=1)]

    def enough(*_: object) -> None:
        raise KeyboardInterrupt

    estimator.progress = enough
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(wave(), **SMALL)


def test_a_backend_that_is_unknown_or_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="backend 'gpu' is unknown; use auto, reference, cpu"):
        tiny(backend="gpu")
    monkeypatch.setattr(backends, "unavailable", lambda *_: "numba is not installed")
    with pytest.raises(ValueError, match=r"'cpu' cannot run here: numba is not .* to auto"):
        tiny(backend="cpu").fit(wave(), **SMALL)


def with_value(row: int, value: float) -> np.ndarray:
    values = wave()
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("series", "changes", "message"),
    [
        (wave(9), {}, r"9 rows are too few for windows of 6 .*: give 11 or more"),
        (with_value(40, np.nan), {}, "1 values are NaN or infinite, first in row 40 of the series"),
        (with_value(89, np.inf), {}, "first in row 89"),
        (np.append(np.full(80, 5.0), wave(10)), {}, "the series never changes over the 71"),
        (wave(90).reshape(45, 2), {}, r"a series of shape \(45, 2\): expected \(n,\)"),
        (wave(), {"lookback": 0}, "lookback 0: a window has at least 1 row"),
        (wave(), {"validation_split": 1.0}, r"validation_split 1\.0 must lie between 0 and 1"),
        (wave(), {"validation_split": 0.0}, r"validation_split 0\.0 must lie between 0 and 1"),
        (wave(), {"epochs": 0}, "epochs"),
        (wave(), {"batch_size": 0}, "batch_size"),
        (wave(), {"lr": 0.0}, r"lr = 0\.0"),
        (
            pd.Series(wave(), index=pd.bdate_range("2024-01-01", periods=ROWS)[::-1]),
            {},
            r"not in order of time: sort_index\(\) first",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_series_that_teaches_nothing_is_refused(
    series: Any, changes: dict[str, Any], message: str
) -> None:
    estimator = tiny()
    with pytest.raises(ValueError, match=message):
        estimator.fit(series, **SMALL | changes)
    assert estimator.model is None


def test_as_many_rows_as_the_message_asks_for_are_enough() -> None:
    history = tiny().fit(wave(11), **SMALL)
    assert len(history["train_loss"]) == 3


def test_a_failed_fit_leaves_the_model_as_it_was() -> None:
    estimator = tiny()
    estimator.fit(wave(), **SMALL)
    before = estimator.predict(wave())
    with pytest.raises(ValueError, match="not finite"):
        estimator.fit(wave(), **SMALL | {"lr": 1e38, "lookback": 9})
    assert estimator.lookback == LOOKBACK
    assert estimator.predict(wave()).tolist() == before.tolist()


def test_a_series_too_short_or_broken_to_forecast_from_is_refused(trained: TradingLSTM) -> None:
    with pytest.raises(ValueError, match="5 rows are less than one window: give the last 6"):
        trained.predict(wave(5))
    with pytest.raises(ValueError, match="first in row 2 of the last window"):
        trained.predict(with_value(86, np.nan))
    assert np.isfinite(trained.predict(with_value(83, np.nan))).all()
    with pytest.raises(ValueError, match="steps 0"):
        trained.predict(wave(), steps=0)


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        (frame(), "return", r"columns \['return'\] are missing; there are \['spread', 'volume', "),
        (frame()[["move"]], "move", "no feature columns beside 'move'"),
        (frame().assign(story="up"), "move", r"columns \['story'\] are not numeric"),
        (frame().assign(flat=1.0), "move", "flat never changes over the 71 training rows"),
        (frame().assign(move=1.0), "move", "move never changes"),
        (frame().replace({"volume": {frame()["volume"].iloc[7]: np.nan}}), "move", "7 of volume"),
        (frame()[::-1], "move", "not in order of time"),
        (frame(9), "move", "9 rows are too few"),
    ],
    ids=["absent", "alone", "words", "flat", "flat target", "gap", "backwards", "short"],
)
def test_a_frame_that_teaches_nothing_is_refused(
    rows: pd.DataFrame, target: str, message: str
) -> None:
    estimator = MultivariateLSTM(device="cpu")
    with pytest.raises(ValueError, match=message):
        estimator.fit(rows, target, **SMALL)
    assert estimator.model is None


def test_a_frame_too_short_broken_or_strange_to_forecast_from_is_refused(
    trained_frame: MultivariateLSTM,
) -> None:
    rows = frame()
    with pytest.raises(ValueError, match=r"columns \['volume'\] are missing"):
        trained_frame.predict(rows[["spread"]])
    with pytest.raises(ValueError, match="5 rows are less than one window"):
        trained_frame.predict(rows.tail(5))
    with pytest.raises(ValueError, match="not in order of time"):
        trained_frame.predict_all(rows[::-1])
    rows.iloc[-2, 1] = np.inf
    with pytest.raises(ValueError, match="first in row 4 of volume"):
        trained_frame.predict(rows)


def test_the_wrappers_know_neither_dagster_nor_the_warehouse() -> None:
    script = (
        "import sys\n"
        "from rnn_pipeline.networks import estimators\n"
        "loaded = {'dagster', 'duckdb', 'great_expectations', 'yfinance'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
