"""Small forecasters to train in the tests of this wing."""

from typing import Any

import numpy as np
import torch

from rnn_pipeline.networks.fleet import Compute, Member
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

CPU = torch.device("cpu")
REFERENCE = Compute(CPU, backend="reference")
LOOKBACK = 6


def make_member(key: str = "AAPL", **changes: Any) -> Member:
    """Noise with three features; 93 training and 30 validation windows make ragged batches."""
    rng = np.random.default_rng(7)
    fields: dict[str, Any] = {
        "key": key,
        "network": NetworkSpec(cell="lstm", hidden_sizes=(5,)),
        "training": TrainingSpec(epochs=3, batch_size=32, patience=None),
        "inputs": rng.standard_normal((130, 3)).astype(np.float32),
        "targets": rng.standard_normal(130).astype(np.float32),
        "train_ends": np.arange(5, 98),
        "val_ends": np.arange(99, 129),
        "lookback": LOOKBACK,
        "seed": 0,
    }
    return Member(**fields | changes)
