"""What is trained: two sizes of network, on noise, with the specifications as plain classes.

The classes stand for those of ``rnn_pipeline.settings``, which need pydantic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from rnn_pipeline.networks.fleet import Member

N_TRAIN, N_VAL, LOOKBACK, BATCH_SIZE = 2016, 500, 20, 32


@dataclass(frozen=True)
class Network:
    cell: str
    hidden_sizes: tuple[int, ...]
    dropout: float
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Training:
    epochs: int
    batch_size: int = BATCH_SIZE
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    input_noise: float = 0.0
    patience: int | None = None


@dataclass(frozen=True)
class Size:
    """P as tutorials have it; S as a walk-forward over many tickers does."""

    name: str
    n_features: int
    hidden_sizes: tuple[int, ...]
    dropout: float

    def network(self, cell: str) -> Network:
        return Network(cell, self.hidden_sizes, self.dropout)

    def flops(self, cell: str) -> float:
        """Floating-point operations of one optimizer step: two per weight and use, three times."""
        widths = (self.n_features, *self.hidden_sizes)
        weights = sum(h * (x + h) for x, h in itertools.pairwise(widths))
        return 6 * BATCH_SIZE * LOOKBACK * {"lstm": 4, "gru": 3}[cell] * weights


SIZES = (Size("P", 1, (64, 64), 0.2), Size("S", 10, (32,), 0.0))
CELLS = ("lstm", "gru")
STEPS = N_TRAIN // BATCH_SIZE


def member(size: Size, cell: str, seed: int, epochs: int, n_train: int = N_TRAIN) -> Member:
    """A network to train on noise of its own."""
    rng = np.random.default_rng(seed)
    rows = LOOKBACK + N_TRAIN + N_VAL
    inputs = rng.standard_normal((rows, size.n_features)).astype(np.float32)
    ends = np.arange(LOOKBACK - 1, rows - 1)
    return Member(
        key=str(seed),
        network=size.network(cell),
        training=Training(epochs),
        inputs=inputs,
        targets=np.append(inputs[1:, 0], np.float32(0)),
        train_ends=ends[:n_train],
        val_ends=ends[N_TRAIN : N_TRAIN + N_VAL],
        lookback=LOOKBACK,
        seed=seed,
    )


def few_steps(size: Size, cell: str, seed: int, steps: int) -> Member:
    """A member that takes so many optimizer steps, in one epoch."""
    return replace(member(size, cell, seed, epochs=1, n_train=steps * BATCH_SIZE))
