"""Many forecasters trained together, each as if it were alone.

A *member* is one small network with its data and its seed. Everything that trains forecasters goes
through :func:`train_members`; what becomes of a member depends on nothing else in the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
from rnn_pipeline.networks.training import History, fit

if TYPE_CHECKING:
    from rnn_pipeline.settings import NetworkSpec, TrainingSpec


@dataclass(frozen=True, eq=False)
class Member:
    """One forecaster to be trained: its network, its data and its seed.

    Row ``i`` of ``inputs`` is a session; a window that ends at row ``e`` is
    ``inputs[e - lookback + 1 : e + 1]`` and its target is ``targets[e]``.
    """

    key: str
    network: NetworkSpec
    training: TrainingSpec
    inputs: np.ndarray
    """(rows, n_features) float32, scaled."""
    targets: np.ndarray
    """(rows,) float32, scaled; only the rows where a window ends need a value."""
    train_ends: np.ndarray
    """Rows where training windows end, inclusive."""
    val_ends: np.ndarray
    """Rows where validation windows end, inclusive."""
    lookback: int
    seed: int

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.targets.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"member {self.key!r}: inputs {self.inputs.shape} and targets"
                f" {self.targets.shape} must be (rows, n_features) and (rows,)"
            )
        for role, ends in (("training", self.train_ends), ("validation", self.val_ends)):
            check_ends(f"{role} of member {self.key!r}", ends, self.lookback, len(self.inputs))


@dataclass(frozen=True, eq=False)
class TrainedMember:
    """A trained forecaster: all that is needed to forecast with it again."""

    key: str
    network_spec: NetworkSpec
    n_features: int
    lookback: int
    state: dict[str, Tensor]
    """The best epoch's weights, on the CPU."""
    history: History


def check_ends(what: str, ends: np.ndarray, lookback: int, n_rows: int) -> None:
    """Refuse windows that would begin before the first row or end behind the last.

    Raises:
        ValueError: there are none, or one reaches outside; the message begins with ``what``.
    """
    if len(ends) == 0:
        raise ValueError(
            f"{what}: no windows among {n_rows} rows; with lookback {lookback} it takes more"
            " history or smaller folds"
        )
    if ends.min() < lookback - 1 or ends.max() >= n_rows:
        raise ValueError(
            f"{what}: windows end at rows {ends.min()} to {ends.max()}, but with lookback"
            f" {lookback} and {n_rows} rows they must end within {lookback - 1} to {n_rows - 1}"
        )


def windows_of(inputs: Tensor, lookback: int) -> Tensor:
    """All windows of ``inputs`` (rows, n_features) as a view, nothing copied.

    Returns:
        (rows - lookback + 1, lookback, n_features); window ``i`` ends at row ``i + lookback - 1``.
    """
    return inputs.unfold(0, lookback, 1).transpose(1, 2)


def train_members(
    members: Iterable[Member],
    device: torch.device,
    deterministic: bool = True,
    on_trained: Callable[[int, TrainedMember], None] | None = None,
    precision: Precision = "float32",
) -> list[TrainedMember]:
    """Train forecasters; what becomes of one depends on nothing else in the list.

    On a CPU as many are trained at once as torch may use threads (``torch.get_num_threads()``),
    each on one thread: a second thread hardly helps so small a network, and torch releases
    Python's lock while it computes.

    Args:
        members: what to train.
        device: where; see :func:`~rnn_pipeline.networks.devices.resolve_device`.
        deterministic: repeat bit for bit on a GPU, too; on a CPU it is always so.
        on_trained: called in this thread with a member's place in the list as soon as it is
            trained, in whatever order that happens.
        precision: see :func:`~rnn_pipeline.networks.devices.numerics`.

    Returns:
        The trained members, in the order of ``members``.

    Raises:
        ValueError: a member's training failed; the message names its key.
    """
    trained: dict[int, TrainedMember] = {}
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    # A new thread starts with OpenMP's own number of threads, whatever torch was told elsewhere.
    with (
        numerics(device, precision, deterministic),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        try:
            places = {
                pool.submit(train_member, member, device, precision): place
                for place, member in enumerate(members)
            }
            for future in as_completed(places):
                place = places[future]
                trained[place] = future.result()
                if on_trained is not None:
                    on_trained(place, trained[place])
        finally:
            pool.shutdown(cancel_futures=True)
    return [trained[place] for place in sorted(trained)]


def train_member(
    member: Member,
    device: torch.device,
    precision: Precision = "float32",
    on_epoch: Callable[[int, float, float], None] | None = None,
) -> TrainedMember:
    """Train one member by torch's loop on the calling thread, which must hold ``numerics``.

    Args:
        member: what to train.
        device: where.
        precision: see :func:`~rnn_pipeline.networks.training.fit`.
        on_epoch: likewise.

    Raises:
        ValueError: its training failed; the message names its key.
    """
    n_features = member.inputs.shape[1]
    network = RecurrentForecaster(member.network, n_features)
    initialise(network, torch.Generator().manual_seed(member.seed))
    network.to(device)

    # torch.tensor copies: inputs may be a read-only memory map, and on a GPU they lie there once.
    inputs = torch.tensor(member.inputs, dtype=torch.float32, device=device)
    targets = torch.tensor(member.targets, dtype=torch.float32, device=device)
    windows = windows_of(inputs, member.lookback)

    def batch(ends: Tensor) -> tuple[Tensor, Tensor]:
        return windows.index_select(0, ends - (member.lookback - 1)), targets[ends, None]

    try:
        history = fit(
            network,
            nn.functional.mse_loss,
            batch,
            torch.tensor(member.train_ends, dtype=torch.int64),
            torch.tensor(member.val_ends, dtype=torch.int64),
            member.training,
            member.seed,
            precision,
            on_epoch,
        )
    except ValueError as error:
        raise type(error)(f"member {member.key!r}: {error}") from None
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    return TrainedMember(member.key, member.network, n_features, member.lookback, state, history)
