"""Trained networks on disk: many in one safetensors file, described by JSON in its header.

A file is written whole or not at all, holds nothing that could be executed, and hands out one
network without reading the others. Networks of one layout are stacked, a row each, so that the
file of ten thousand has a handful of tensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rnn_pipeline.networks.fleet import TrainedMember
from rnn_pipeline.networks.training import FitState, History
from rnn_pipeline.settings import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 2
# safetensors writes header entries in random order: a single entry keeps equal files equal. It is
# JSON behind its own SHA-256, because nothing else would notice a changed digit in a scaler.
HEADER = "rnn_pipeline"
DIGEST = 64

TRAINING = ("randomness", "devices", "recurrent", "training", "fleet", "kernels")
"""The modules of this wing that decide what training yields."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredNetwork:
    """One network of a checkpoint file."""

    key: str
    kind: str
    """What the network is, so that no one reads a file of another kind by mistake."""
    description: Mapping[str, Any]
    """All but the weights that is needed to rebuild it; JSON."""
    state: dict[str, Tensor]
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Finite numbers recorded while it learned, each series of its own length."""


def save_members(
    path: Path, members: Sequence[TrainedMember], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write forecasters to one file.

    Args:
        path: the file; an older one is replaced in one step.
        members: with distinct keys.
        metadata: anything JSON that a reader needs beside the networks: scalers, feature names,
            where the data came from.

    Raises:
        ValueError: a key stands twice, or the metadata is not JSON.
    """
    networks = [
        StoredNetwork(
            member.key,
            "forecaster",
            {
                "spec": member.network_spec.model_dump(mode="json"),
                "n_features": member.n_features,
                "lookback": member.lookback,
                "tickers": list(member.tickers),
            },
            member.state,
            {
                "train_loss": member.history.train_loss,
                "val_loss": member.history.val_loss,
                "best_epoch": [member.history.best_epoch],
            },
        )
        for member in members
    ]
    write_checkpoint(path, networks, metadata or {})


def load_members(path: Path, keys: Collection[str] | None = None) -> list[TrainedMember]:
    """Read forecasters back: those named by ``keys`` in that order, or all as they were saved.

    Raises:
        ValueError: the file is missing, damaged or of another format or kind, or lacks a key.
    """
    return [
        TrainedMember(
            network.key,
            NetworkSpec.model_validate(network.description["spec"]),
            network.description["n_features"],
            network.description["lookback"],
            network.state,
            History(
                list(network.series["train_loss"]),
                list(network.series["val_loss"]),
                int(network.series["best_epoch"][0]),
            ),
            tuple(network.description.get("tickers", ())),
        )
        for network in read_checkpoint(path, "forecaster", keys)
    ]


@dataclass(frozen=True)
class FitFile:
    """A file in which ``fit`` keeps a training's state, to go on after a kill.

    A state of another training is left aside with a warning, and the training begins anew: in a
    pipeline the data has changed by the next day, and a state can serve its own training alone. A
    damaged file is an error.
    """

    path: Path
    recipe: str = ""
    """What ``fit`` cannot see of how the network learns, such as a parameter of the loss."""
    every: int = 1
    """Epochs from one writing to the next."""

    def save(self, state: FitState) -> None:
        """Replace the file in one step."""
        description = {"recipe": self._recipe(state.recipe), "history": asdict(state.history)}
        write_checkpoint(
            self.path, [StoredNetwork("fit", "training state", description, state.tensors)], {}
        )

    def load(self, recipe: str) -> FitState | None:
        """Read the state back, where there is one of this training.

        Raises:
            ValueError: the file is damaged, or holds something else.
        """
        if not self.path.exists():
            return None
        (stored,) = read_checkpoint(self.path, "training state")
        if stored.description["recipe"] != self._recipe(recipe):
            _log.warning(
                "%s is the state of a training with other data, settings or code: it is not used,"
                " and this training begins at its first epoch",
                self.path,
            )
            return None
        return FitState(recipe, History(**stored.description["history"]), stored.state)

    def remove(self) -> None:
        """Delete the file, once what was trained is kept elsewhere."""
        self.path.unlink(missing_ok=True)

    def _recipe(self, seen: str) -> str:
        return _sha256(f"{seen} {self.recipe} {code_version()}")


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that was saved beside the networks; no weights are read.

    Raises:
        ValueError: the file is missing, damaged or of another format.
    """
    with _opened(path) as file:
        return _header(path, file)["metadata"]


def load_keys(path: Path) -> list[str]:
    """Read which networks a file holds; no weights are read.

    Raises:
        ValueError: the file is missing, damaged or of another format.
    """
    with _opened(path) as file:
        return [key for key, _group, _row in _header(path, file)["networks"]]


def checkpoint_hash(path: Path) -> str:
    """SHA-256 of the whole file, in hexadecimal.

    Raises:
        ValueError: the file is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _missing(path) from None


@cache
def code_version(*more: str) -> str:
    """Short hash of the source that decides what training yields.

    Args:
        more: modules of this wing that decide it beside :data:`TRAINING`.
    """
    digest = hashlib.sha256()
    for module in (*TRAINING, *more):
        place = Path(__file__).with_name(module)
        sources = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for source in sources:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of one network's weights by name, type, shape and bits, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy()
        digest.update(f"{name} {_type_name(array.dtype)} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@cache
def _type_name(dtype: np.dtype) -> str:
    """Of thousands of weights; NumPy takes longer to say it than to hash them."""
    return str(dtype)


def write_checkpoint(
    path: Path, networks: Sequence[StoredNetwork], metadata: Mapping[str, Any]
) -> None:
    """Write networks of any kind: to a temporary file beside ``path``, then renamed onto it.

    Raises:
        ValueError: a key stands twice, or a description or the metadata is not JSON.
    """
    keys = [network.key for network in networks]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"keys {twice} stand twice among the networks for {path}")
    groups: dict[str, list[StoredNetwork]] = {}
    places = []
    try:
        for network in networks:
            layout = _layout(network)
            group = groups.setdefault(layout, [])
            places.append([network.key, list(groups).index(layout), len(group)])
            group.append(network)
        header = {
            "format": FORMAT,
            "networks": places,
            "groups": [json.loads(layout) for layout in groups],
            "metadata": metadata,
        }
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata for {path} cannot be written as JSON: {error}") from None
    text = _sha256(text) + text
    tensors: dict[str, Tensor] = {}
    for number, group in enumerate(groups.values()):
        tensors |= _stacked(str(number), group)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        save_file(tensors, temporary, {HEADER: text})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(
    path: Path, kind: str, keys: Collection[str] | None = None
) -> list[StoredNetwork]:
    """Read networks of one kind: those named by ``keys`` in that order, or all as saved.

    Raises:
        ValueError: the file is missing, damaged or of another format or kind, or lacks a key.
    """
    with _opened(path) as file:
        header = _header(path, file)
        stored = {key: (group, row) for key, group, row in header["networks"]}
        wanted = list(stored) if keys is None else list(keys)
        if absent := [key for key in wanted if key not in stored]:
            raise ValueError(f"checkpoint {path} holds {sorted(stored)}, but not {absent}")
        # Tensors lie in a map of the file: of one with many rows, only those taken are read.
        stacks: dict[int, dict[str, Tensor]] = {}
        networks = []
        for key in wanted:
            number, row = stored[key]
            layout = header["groups"][number]
            if layout["kind"] != kind:
                raise ValueError(f"{key!r} in {path} is a {layout['kind']}, not a {kind}")
            if number not in stacks:
                names = [*layout["tensors"], *(SERIES + name for name in layout["series"]), DIGESTS]
                stacks[number] = {name: file.get_tensor(f"{number}/{name}") for name in names}
            stack = stacks[number]
            series = {}
            for name in layout["series"]:
                values = stack[SERIES + name][row]
                series[name] = values[~values.isnan()].tolist()
            # Copied, or the weights would lie in the map and change with the file.
            state = {name: stack[name][row].clone() for name in layout["tensors"]}
            network = StoredNetwork(key, kind, layout["description"], state, series)
            if _digest(network) != bytes(stack[DIGESTS][row].tolist()):
                raise _damaged(path, f"the weights of {key!r} do not match their hash")
            networks.append(network)
        return networks


# Beside the weights' names, which are attribute paths and so hold neither character.
SERIES = "series/"
DIGESTS = "sha256"


def _layout(network: StoredNetwork) -> str:
    """What networks must share to lie in one stack, as JSON."""
    return json.dumps(
        {
            "kind": network.kind,
            "description": network.description,
            "tensors": {
                name: [str(value.dtype), *value.shape]
                for name, value in sorted(network.state.items())
            },
            "series": sorted(network.series),
        },
        sort_keys=True,
        allow_nan=False,
    )


def _stacked(number: str, group: Sequence[StoredNetwork]) -> dict[str, Tensor]:
    """The tensors of a group, one network per row; shorter series end in NaN."""
    tensors = {
        f"{number}/{name}": torch.stack([network.state[name] for network in group])
        for name in group[0].state
    }
    for name in group[0].series:
        rows = [torch.tensor(network.series[name], dtype=torch.float64) for network in group]
        tensors[f"{number}/{SERIES}{name}"] = nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=torch.nan
        )
    digests = b"".join(map(_digest, group))
    tensors[f"{number}/{DIGESTS}"] = torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(
        len(group), -1
    )
    return tensors


def _digest(network: StoredNetwork) -> bytes:
    """SHA-256 of a network's key, weights and series."""
    series = {name: list(map(float, values)) for name, values in network.series.items()}
    text = json.dumps([network.key, weights_hash(network.state), series], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file for reading; what its reader finds wrong becomes a ValueError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise _missing(path) from None
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None


def _header(path: Path, file: safe_open) -> dict[str, Any]:
    """Verify and parse the header of an open checkpoint."""
    text = (file.metadata() or {}).get(HEADER, "")
    digest, text = text[:DIGEST], text[DIGEST:]
    if digest != _sha256(text):
        raise _damaged(path, "its header is missing or does not match its hash")
    header = json.loads(text)
    if header["format"] != FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {header['format']}, this version reads {FORMAT};"
            " delete it to train again, or use the version that wrote it"
        )
    return header


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _missing(path: Path) -> ValueError:
    return ValueError(f"checkpoint {path} does not exist; train the networks first")


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"checkpoint {path} is damaged ({what}); delete it and train again")
