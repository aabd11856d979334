"""What every wrapper shares: where and how it trains, when it refuses, how it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any, Literal, Protocol, TypedDict, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from rnn_pipeline.networks.checkpoints import StoredNetwork, read_checkpoint, write_checkpoint
from rnn_pipeline.networks.devices import Precision, resolve_device
from rnn_pipeline.settings import TrainingSpec

EVERY_EPOCH = TrainingSpec(patience=None)
"""How a wrapper learns unless told otherwise: early stopping is for those who ask for it."""


class Progress(Protocol):
    """What a wrapper calls after each epoch."""

    def __call__(self, epoch: int, epochs: int, train_loss: float, val_loss: float) -> None:
        """Learn that ``epoch`` (from 1) of the ``epochs`` asked for is done, and its losses."""


class Options(TypedDict, total=False):
    """Arguments that every :class:`Estimator` takes."""

    seed: int
    device: Literal["auto", "cpu", "cuda"] | torch.device
    training: TrainingSpec
    precision: Precision
    progress: bool | Progress


E = TypeVar("E", bound="Estimator")


class _OnClassOrInstance:
    """A method that, called on the class, works on a new instance."""

    def __init__(self, method: Callable[[Any, str | Path], Any]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: E | None, owner: type[E]) -> Callable[[str | Path], E]:
        return MethodType(self.method, owner() if instance is None else instance)


class Estimator(ABC):
    """A network with the data around it, scikit-learn style: fit, predict, save, load.

    Training is a function of data and ``seed``: fitting twice gives the same weights.

    Args:
        seed: decides the first weights, the order of the rows, dropout and noise.
        device: "auto" (a GPU where there is one), "cpu", "cuda", or a ``torch.device``.
        training: how it learns, beyond what ``fit`` takes (epochs, batch size, learning rate):
            weight decay, clipping, schedule, noise, and ``patience`` for early stopping.
        precision: see :func:`~rnn_pipeline.networks.devices.numerics`.
        progress: True draws a bar on the terminal; or a function to call after each epoch.

    Attributes:
        model: the trained network on ``device``, in evaluation mode; None before ``fit``.
        device: a ``torch.device``.
        history: what ``fit`` returned last; empty before.

    Raises:
        ValueError: the device is unknown or not there.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] | torch.device = "auto",
        training: TrainingSpec = EVERY_EPOCH,
        precision: Precision = "float32",
        progress: bool | Progress = False,
    ) -> None:
        self.model: nn.Module | None = None
        self.history: dict[str, list[float]] = {}
        self.seed = seed
        self.device = device if isinstance(device, torch.device) else resolve_device(device)
        self.training = training
        self.precision = precision
        self.progress = progress

    @abstractmethod
    def _describe(self) -> dict[str, Any]:
        """All that ``_restore`` needs, as JSON."""

    @abstractmethod
    def _restore(self, description: dict[str, Any]) -> nn.Module:
        """Take over what ``_describe`` gave, and return the network for the weights to come."""

    def save(self, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the trained network to one safetensors file with a JSON header, nothing pickled.

        Args:
            path: the file; an older one is replaced in one step.
            metadata: anything JSON to keep beside it (``checkpoints.load_metadata``).

        Raises:
            ValueError: it is not trained, or the metadata is not JSON.
        """
        network = self._trained("saving")
        description = {
            "seed": self.seed,
            "training": self.training.model_dump(mode="json"),
            "history": self.history,
            **self._describe(),
        }
        state = {name: value.cpu() for name, value in network.state_dict().items()}
        kind = type(self).__name__
        write_checkpoint(
            Path(path), [StoredNetwork(kind, kind, description, state)], metadata or {}
        )

    @_OnClassOrInstance
    def load(self: E, path: str | Path) -> E:
        """Read what ``save`` wrote: ``TradingLSTM.load(path)``, or into one already made.

        Returns:
            The estimator, which predicts what the saved one did, bit for bit on the same device.

        Raises:
            ValueError: the file is missing, damaged, another estimator's, or of a version of this
                program whose networks had another layout.
        """
        (stored,) = read_checkpoint(Path(path), type(self).__name__)
        description = dict(stored.description)
        try:
            network = self._restore(description)
            network.load_state_dict(stored.state)
        except (KeyError, RuntimeError):
            raise ValueError(
                f"checkpoint {path} is a {type(self).__name__} of another version of this program:"
                " train it again (in the pipeline: run the job refresh)"
            ) from None
        self.seed = description["seed"]
        self.training = TrainingSpec.model_validate(description["training"])
        self.history = description["history"]
        self.model = network.to(self.device).eval()
        return self

    def _trained(self, purpose: str = "prediction") -> nn.Module:
        """The network.

        Raises:
            ValueError: there is none yet.
        """
        if self.model is None:
            raise ValueError(f"Model must be trained before {purpose}")
        return self.model

    def _training(self, epochs: int, batch_size: int, lr: float) -> TrainingSpec:
        """How it learns, with what ``fit`` was given.

        Raises:
            ValueError: one of them is out of range; the message names it.
        """
        asked = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}
        try:
            return TrainingSpec.model_validate(self.training.model_dump() | asked)
        except ValidationError as error:
            lines = [
                ": ".join([*(f"{name} = {item['input']!r}" for name in item["loc"]), item["msg"]])
                for item in error.errors()
            ]
            raise ValueError("; ".join(lines).replace("learning_rate", "lr")) from None

    @contextmanager
    def _shown(self, epochs: int) -> Iterator[Callable[[int, float, float], None] | None]:
        """What a trainer calls after each epoch, while progress is on show."""
        if not self.progress:
            yield None
        elif callable(tell := self.progress):
            yield lambda epoch, train_loss, val_loss: tell(epoch + 1, epochs, train_loss, val_loss)
        else:
            from rich.console import Console
            from rich.progress import Progress as Bar

            with Bar(console=Console(stderr=True)) as bar:
                task = bar.add_task(type(self).__name__, total=epochs)
                yield lambda epoch, train_loss, val_loss: bar.update(
                    task,
                    completed=epoch + 1,
                    description=f"{type(self).__name__} loss {train_loss:.4g}, val {val_loss:.4g}",
                )
