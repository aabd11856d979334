"""The one training loop: Adam, early stopping, and randomness that belongs to the network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rnn_pipeline.networks.devices import Precision
from rnn_pipeline.networks.randomness import epoch_order, normal
from rnn_pipeline.networks.recurrent import draw_dropout

if TYPE_CHECKING:
    from rnn_pipeline.settings import TrainingSpec

Batch = Callable[[Tensor], tuple[Tensor, ...]]
"""Row numbers (batch,) to what the network takes, followed by the target."""


class NotFinite(ValueError):
    """A loss became NaN or infinite: the training has failed, whatever comes after."""


@dataclass(frozen=True)
class History:
    """How a network learned: mean loss per row, one value per epoch that was run."""

    train_loss: list[float]
    val_loss: list[float]
    best_epoch: int
    """The epoch, counted from 0, whose weights were kept."""


@dataclass(frozen=True, eq=False)
class FitState:
    """Where a training stands after an epoch: all that :func:`fit` needs to go on from there.

    Order, dropout and noise are functions of the seed and the step, so no generator is part of it.
    """

    recipe: str
    """Hash of what is trained on what, and how."""
    history: History
    """Of the epochs that are done."""
    tensors: dict[str, Tensor]
    """On the CPU: ``network.*`` as it is now, ``best.*`` of the best epoch, and for the ``i``-th
    parameter Adam's ``adam.{i}.exp_avg``, ``.exp_avg_sq`` and ``.step``."""


class FitCheckpoint(Protocol):
    """Where :func:`fit` keeps its state between epochs; ``checkpoints.FitFile`` is one."""

    every: int
    """Epochs from one :meth:`save` to the next."""

    def save(self, state: FitState) -> None:
        """Keep this state in the place of an earlier one, whole or not at all."""

    def load(self, recipe: str) -> FitState | None:
        """The state kept last, or None where there is none of this recipe."""


def learning_rates(spec: TrainingSpec, n_rows: int) -> np.ndarray:
    """The step size of every optimizer step.

    Over ``warmup_epochs`` it rises linearly to ``learning_rate``, which the last step of the
    warm-up has. After it, "constant" stays there, and "cosine" falls along half a cosine
    (Loshchilov and Hutter, 2017) that would reach 0 one step after the last.

    Args:
        spec: epochs, batch size and schedule.
        n_rows: training rows.

    Returns:
        (epochs, steps per epoch) float64.
    """
    steps = math.ceil(n_rows / spec.batch_size)
    total = spec.epochs * steps
    warmup = round(spec.warmup_epochs * steps)
    step = np.arange(total)
    rates = np.full(total, spec.learning_rate)
    if spec.schedule == "cosine":
        progress = (step - warmup + 1) / (total - warmup + 1)
        rates *= 0.5 * (1.0 + np.cos(np.pi * np.clip(progress, 0.0, 1.0)))
    rates[:warmup] = spec.learning_rate * (step[:warmup] + 1) / max(warmup, 1)
    return rates.reshape(spec.epochs, steps)


def require_finite(epoch: int, train_loss: float, val_loss: float, spec: TrainingSpec) -> None:
    """Refuse to go on with an epoch whose losses are not numbers.

    Raises:
        NotFinite: one is NaN or infinite; the message says in which epoch, and where to look.
    """
    if not math.isfinite(train_loss) or not math.isfinite(val_loss):
        raise NotFinite(
            f"the loss is not finite in epoch {epoch} (training {train_loss}, validation"
            f" {val_loss}): look for NaN, infinite or unscaled values in inputs and targets, or"
            f" lower the learning rate ({spec.learning_rate:g})"
        )


def fit(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Batch,
    train_rows: Tensor,
    val_rows: Tensor,
    spec: TrainingSpec,
    seed: int,
    precision: Precision = "float32",
    on_epoch: Callable[[int, float, float], None] | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> History:
    """Train ``network`` in place with Adam (Kingma and Ba, 2015) and early stopping.

    Afterwards the network holds the weights of its best epoch and is in evaluation mode.

    With a ``checkpoint``, a training that was killed goes on where it was last saved when ``fit``
    is called again with the same arguments, and ends with the weights, bit for bit, and the history
    that it would have had.

    Args:
        network: already on its device, with the weights to start from.
        loss: mean loss of (outputs, target).
        batch: gathers the given rows on the network's device.
        train_rows: (n,) int64 row numbers, on the CPU; shuffled anew in every epoch.
        val_rows: (m,) int64 row numbers, on the CPU; evaluated as one batch.
        spec: epochs, batch size, step size, weight decay, clipping, noise, patience.
        seed: decides the order of the rows, the dropout masks and the noise.
        precision: "bfloat16" computes the forward pass under autocast on a GPU; weights, gradients,
            Adam and the loss stay float32, whose range bfloat16 shares, so no loss is scaled.
        on_epoch: called after each epoch with its number (from 0), training and validation loss;
            what it raises ends the training.
        checkpoint: where to go on from and to save to. The state is of another training, and not
            used, where the network's layers or first weights, the batches, the specification, the
            seed or the precision differ.

    Raises:
        ValueError: no rows, or a loss that is not finite, with its epoch.
    """
    if not len(train_rows) or not len(val_rows):
        raise ValueError(
            f"{len(train_rows)} training and {len(val_rows)} validation rows: both are needed;"
            " give more history or smaller folds"
        )
    parameters = list(network.parameters())
    device = parameters[0].device
    rates = learning_rates(spec, len(train_rows))
    optimizer = torch.optim.Adam(
        parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16" and device.type == "cuda"
    )

    def mean_loss(rows: Tensor, noise_step: int | None = None) -> Tensor:
        *inputs, target = batch(rows)
        if noise_step is not None:
            x = inputs[0]
            index = torch.arange(x.numel(), device=device).view(x.shape)
            inputs[0] = x + spec.input_noise * normal(seed, noise_step, index)
        with autocast:
            outputs = network(*inputs)
        return loss(outputs.float() if outputs.dtype == torch.bfloat16 else outputs, target)

    train_losses: list[float] = []
    val_losses: list[float] = []
    best_epoch = 0
    best_state: dict[str, Tensor] = {}
    val_rows = val_rows.to(device)
    recipe = ""
    if checkpoint is not None:
        recipe = _recipe(network, batch, (train_rows.to(device), val_rows), spec, seed, precision)
        if (state := checkpoint.load(recipe)) is not None:
            train_losses, val_losses = state.history.train_loss, state.history.val_loss
            best_epoch = state.history.best_epoch
            best_state = _restore(state, network, optimizer)
    for epoch in range(len(val_losses), spec.epochs):
        if val_losses and spec.patience is not None and epoch - 1 - best_epoch >= spec.patience:
            break
        network.train()
        total = torch.zeros((), device=device)
        order = torch.from_numpy(epoch_order(seed, epoch, len(train_rows)))
        batches = train_rows[order].to(device).split(spec.batch_size)
        for step, rows in enumerate(batches, start=epoch * len(batches)):
            optimizer.param_groups[0]["lr"] = rates.flat[step]
            draw_dropout(network, seed, step)
            optimizer.zero_grad()
            batch_loss = mean_loss(rows, step if spec.input_noise else None)
            batch_loss.backward()
            if spec.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, spec.clip_norm)
            optimizer.step()
            total += batch_loss.detach() * len(rows)
        train_losses.append(total.item() / len(train_rows))

        network.eval()
        with torch.inference_mode():
            val_losses.append(mean_loss(val_rows).item())
        require_finite(epoch, train_losses[-1], val_losses[-1], spec)
        if not best_state or val_losses[-1] < val_losses[best_epoch]:
            best_epoch = epoch
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        if checkpoint is not None and (epoch + 1) % checkpoint.every == 0:
            history = History(train_losses, val_losses, best_epoch)
            checkpoint.save(_state(recipe, history, network, best_state, optimizer))
        if on_epoch is not None:
            on_epoch(epoch, train_losses[-1], val_losses[-1])
    network.load_state_dict(best_state)
    network.eval()
    return History(train_losses, val_losses, best_epoch)


def _recipe(
    network: nn.Module,
    batch: Batch,
    roles: tuple[Tensor, Tensor],
    spec: TrainingSpec,
    seed: int,
    precision: Precision,
) -> str:
    """Hash of everything that a training sees; the data as the network gets it, batch by batch."""
    digest = hashlib.sha256(repr([network, spec, seed, precision]).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    for rows in roles:
        for some in rows.split(spec.batch_size):
            for tensor in batch(some):
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _state(
    recipe: str,
    history: History,
    network: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> FitState:
    """Copy a training's state to the CPU."""
    moments = optimizer.state_dict()["state"]
    tensors = {
        **{f"network.{name}": value for name, value in network.state_dict().items()},
        **{f"best.{name}": value for name, value in best.items()},
        **{
            f"adam.{i}.{name}": value
            for i, of_parameter in moments.items()
            for name, value in of_parameter.items()
        },
    }
    copies = {name: value.to("cpu", copy=True) for name, value in tensors.items()}
    return FitState(recipe, history, copies)


def _restore(
    state: FitState, network: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put network and optimizer where a training stood; return its best epoch's weights."""
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "adam": {}}
    for name, value in state.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    network.load_state_dict(parts["network"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["adam"].items():
        i, _, moment = name.partition(".")
        moments.setdefault(int(i), {})[moment] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return parts["best"]
