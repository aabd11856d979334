import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rnn_pipeline.networks import checkpoints
from rnn_pipeline.networks.checkpoints import (
    checkpoint_hash,
    load_members,
    load_metadata,
    save_members,
    weights_hash,
)
from rnn_pipeline.networks.fleet import TrainedMember, train_members
from rnn_pipeline.networks.inference import predict_member
from rnn_pipeline.networks.sentiment import load_sentiment
from rnn_pipeline.settings import NetworkSpec

from .members import REFERENCE, make_member

METADATA = {"features": ["return_1", "rsi_14"], "scaler": {"mean": [0.1, 1 / 3]}, "fold": 3}


@pytest.fixture(scope="module")
def members() -> list[TrainedMember]:
    return train_members(
        [
            make_member("IBM/lstm/0"),
            make_member("AAPL/gru/1", network=NetworkSpec(cell="gru", hidden_sizes=(4, 3))),
            make_member("AAPL/gru/2", network=NetworkSpec(cell="gru", hidden_sizes=(4,)), seed=1),
        ],
        REFERENCE,
    )


@pytest.fixture
def path(tmp_path: Path, members: list[TrainedMember]) -> Path:
    path = tmp_path / "new" / "folder" / "AAPL.safetensors"
    save_members(path, members, METADATA)
    return path


def data_start(path: Path) -> int:
    """Where the tensors begin: safetensors puts a length and a JSON header before them."""
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def test_round_trip_is_bit_identical(path: Path, members: list[TrainedMember]) -> None:
    inputs, ends = make_member().inputs, np.arange(5, 130)
    loaded = load_members(path)
    assert load_metadata(path) == METADATA
    for saved, back in zip(members, loaded, strict=True):
        assert (saved.key, saved.network_spec, saved.n_features, saved.lookback) == (
            (back.key, back.network_spec, back.n_features, back.lookback)
        )
        assert saved.history == back.history
        assert weights_hash(saved.state) == weights_hash(back.state)
        assert (predict_member(saved, inputs, ends) == predict_member(back, inputs, ends)).all()


def test_members_come_by_key_in_the_order_asked_for(path: Path) -> None:
    keys = ["AAPL/gru/2", "IBM/lstm/0"]
    assert [member.key for member in load_members(path, keys)] == keys
    assert load_members(path, []) == []
    with pytest.raises(ValueError, match=r"holds \['AAPL/gru/1'.*but not \['MSFT'\]"):
        load_members(path, ["IBM/lstm/0", "MSFT"])


def test_one_member_is_read_without_the_others(
    path: Path, members: list[TrainedMember], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but its own weights is hashed, however many lie in the file."""
    twins = [replace(members[0], key=str(number)) for number in range(50)]
    save_members(path, [*twins, *members])
    hashed = []

    def spy(state: dict[str, torch.Tensor]) -> str:
        hashed.append(state)
        return weights_hash(state)

    monkeypatch.setattr(checkpoints, "weights_hash", spy)
    (loaded,) = load_members(path, ["AAPL/gru/2"])
    (state,) = hashed
    assert state is loaded.state
    # Memory of its own: a row of the stack would keep the whole file in reach.
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in state.values())


def test_many_members_of_one_layout_share_their_tensors(
    tmp_path: Path, members: list[TrainedMember]
) -> None:
    with_history = replace(members[0].history, train_loss=[0.5], val_loss=[0.25], best_epoch=0)
    several = [
        replace(members[0], key="long"),
        replace(members[2], key="other layout"),
        replace(members[0], key="short", history=with_history),
    ]
    save_members(tmp_path / "few", several)
    with safe_open(tmp_path / "few", framework="pt") as file:
        assert len(list(file.keys())) == 2 * (len(members[0].state) + 4)
    loaded = load_members(tmp_path / "few")
    assert [member.key for member in loaded] == ["long", "other layout", "short"]
    assert [member.history for member in loaded] == [member.history for member in several]


def test_equal_contents_make_equal_files(
    path: Path, members: list[TrainedMember], tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    save_members(again, load_members(path), dict(reversed(METADATA.items())))
    save_members(other, members, METADATA | {"fold": 4})
    assert checkpoint_hash(again) == checkpoint_hash(path) != checkpoint_hash(other)


def test_weights_hash_sees_names_shapes_and_bits() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    variants = [
        state,
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"c": torch.zeros(2, 3), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0000001])},
        {"a": torch.zeros(2, 3), "b": torch.ones(2, dtype=torch.float64)},
        {"a": -torch.zeros(2, 3), "b": torch.ones(2)},
    ]
    assert len({weights_hash(variant) for variant in variants}) == len(variants)
    assert weights_hash(dict(reversed(state.items()))) == weights_hash(state)


def test_a_flipped_bit_in_one_member_spares_the_others(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = json.loads(content[8 : data_start(path)])
    begin, _ = header["0/head.weight"]["data_offsets"]
    content[data_start(path) + begin] ^= 1
    path.write_bytes(content)
    assert load_members(path, ["AAPL/gru/1"])[0].key == "AAPL/gru/1"
    with pytest.raises(ValueError, match=r"damaged .*'IBM/lstm/0' do not match"):
        load_members(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, start: b"",
        lambda content, start: b"not a checkpoint",
        lambda content, start: content[:-5],
        lambda content, start: content[: start // 2],
        lambda content, start: content.replace(b"rsi_14", b"rsi_41"),
        lambda content, start: content.replace(b"head.bias", b"head.bios", 1),
    ],
    ids=["empty", "text", "short", "half a header", "metadata", "name"],
)
def test_damaged_files_are_named(path: Path, damage: Callable[[bytes, int], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes(), data_start(path)))
    with pytest.raises(ValueError, match=r"AAPL.safetensors is damaged .* train again"):
        load_members(path)


def test_files_of_others_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist; train"):
        load_members(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nowhere does not exist; train"):
        checkpoint_hash(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a forecaster, not a SentimentClassifier"):
        load_sentiment(path)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="header is missing"):
        load_metadata(tmp_path / "foreign")


def test_another_format_is_refused(
    path: Path, members: list[TrainedMember], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", 3)
    with pytest.raises(ValueError, match="has format 2, this version reads 3"):
        load_members(path)


def test_a_failed_write_leaves_the_old_file(
    path: Path, members: list[TrainedMember], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint_hash(path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            save_members(path, members[:1], {})
    with pytest.raises(ValueError, match="JSON"):
        save_members(path, members, {"mean": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_members(path, members, {"day": np.datetime64("2012-01-03")})
    with pytest.raises(ValueError, match=r"\['IBM/lstm/0'\] stand twice"):
        save_members(path, [members[0], members[0]], {})
    assert checkpoint_hash(path) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
