"""How networks learned, as TensorBoard's event files.

Written from the history after a network is trained, so every backend gets the same logs, be it one
loop or a kernel that trains a thousand members at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnn_pipeline.networks.training import History


def log_history(folder: Path, history: History, rates: np.ndarray) -> None:
    """Write one network's losses and learning rates, in the place of earlier ones.

    The scalars, by epoch from 0: ``loss/train``, ``loss/val`` and ``learning_rate`` (of the epoch's
    last step). TensorBoard names the run by its folder.

    Args:
        folder: of this network alone.
        history: how it learned.
        rates: (epochs, steps) from :func:`~rnn_pipeline.networks.training.learning_rates`, of all
            epochs that were allowed for.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "compute.tensorboard is on, but TensorBoard is not installed: run"
            " `pip install 'rnn-pipeline[tensorboard]'`, or turn it off"
        ) from error
    # TensorBoard draws all event files of a folder as one run.
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    epochs = zip(history.train_loss, history.val_loss, rates[:, -1], strict=False)
    with SummaryWriter(str(folder)) as writer:
        for epoch, (train, val, rate) in enumerate(epochs):
            writer.add_scalar("loss/train", train, epoch)
            writer.add_scalar("loss/val", val, epoch)
            writer.add_scalar("learning_rate", rate, epoch)
