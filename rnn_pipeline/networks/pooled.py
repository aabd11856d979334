"""One network over all tickers: what it learns from, and what becomes of it for each of them.

A pooled network is trained like any other, on the tickers' rows stacked. Every ticker keeps its own
scales, so that a step of one and a target of another are of the same size; no window crosses from
one ticker to the next. With an embedding the network is told whose window it reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from rnn_pipeline.features.windows import FoldData
from rnn_pipeline.networks.fleet import TrainedMember

EVERYONE = "all"
"""Stands for a ticker in the keys of pooled networks; no ticker is in lower case."""

_EMBEDDING = "embedding.weight"
_WEIGHT, _BIAS = (f"recurrent.layers.0.{name}_ih_l0" for name in ("weight", "bias"))


@dataclass(frozen=True, eq=False)
class PooledFold:
    """What a pooled network learns from in one fold: training and validation, nothing later.

    Attributes:
        shares: of every ticker that takes part, by ticker.
    """

    shares: tuple[FoldData, ...]

    @property
    def ticker(self) -> str:
        """Whose network it is."""
        return EVERYONE

    @property
    def fold(self) -> int:
        """Number of the fold."""
        return self.shares[0].fold

    @property
    def lookback(self) -> int:
        """Rows in one window."""
        return self.shares[0].lookback

    @property
    def tickers(self) -> tuple[str, ...]:
        """Of the shares."""
        return tuple(share.ticker for share in self.shares)

    @property
    def _rows(self) -> list[int]:
        """Rows of each share up to the end of its last validation window."""
        return [int(share.val_ends[-1]) + 1 for share in self.shares]

    @property
    def inputs(self) -> np.ndarray:
        """(rows, n_features) float32, each ticker's scaled by its own scaler; made anew."""
        shares = zip(self.shares, self._rows, strict=True)
        return np.concatenate(
            [share.input_scaler.transform(share.values[:n]) for share, n in shares]
        )

    @property
    def targets(self) -> np.ndarray:
        """(rows,) float32, likewise."""
        shares = zip(self.shares, self._rows, strict=True)
        return np.concatenate([share.targets[:n] for share, n in shares])

    @property
    def owners(self) -> np.ndarray:
        """(rows,) int64, the place of each row's ticker in ``tickers``."""
        return np.repeat(np.arange(len(self.shares)), self._rows)

    @property
    def train_ends(self) -> np.ndarray:
        """Rows at which training windows end."""
        return self._stacked([share.train_ends for share in self.shares])

    @property
    def val_ends(self) -> np.ndarray:
        """Rows at which validation windows end."""
        return self._stacked([share.val_ends for share in self.shares])

    def _stacked(self, ends: Iterable[np.ndarray]) -> np.ndarray:
        """Rows of the shares as rows of the stack."""
        first = np.cumsum([0, *self._rows[:-1]])
        return np.concatenate([own + start for own, start in zip(ends, first, strict=True)])

    @cached_property
    def training_hash(self) -> str:
        """SHA-256 over all that training can see: equal hash, equal network for the same seed."""
        shares = " ".join(share.training_hash for share in self.shares)
        return hashlib.sha256(shares.encode()).hexdigest()


def pooled(datasets: Iterable[FoldData]) -> list[PooledFold]:
    """Pool every fold's tickers: the folds in order of time, whatever the order of ``datasets``."""
    ordered = sorted(datasets, key=lambda data: (data.fold, data.ticker))
    return [PooledFold(tuple(own)) for _, own in groupby(ordered, key=lambda data: data.fold)]


def for_ticker(member: TrainedMember, ticker: str) -> TrainedMember:
    """The network as it is for one ticker: a plain one, which every kernel can run.

    The ticker's vector e is the same at every step, so its part W e of the first layer's gates
    joins their bias. A network without an embedding is the same for all.

    Raises:
        ValueError: it has an embedding and was not trained on this ticker.
    """
    if not member.tickers:
        return member
    if ticker not in member.tickers:
        raise ValueError(
            f"network {member.key!r} was not trained on {ticker}, but on"
            f" {', '.join(member.tickers)}: retrain it"
        )
    state = {
        name.removeprefix("network."): value
        for name, value in member.state.items()
        if name != _EMBEDDING
    }
    told = member.state[_EMBEDDING][member.tickers.index(ticker)]
    weight = state[_WEIGHT]
    moved = (weight[:, member.n_features :].double() * told.double()).sum(dim=1)
    state[_WEIGHT] = weight[:, : member.n_features].contiguous()
    state[_BIAS] = (state[_BIAS].double() + moved).to(weight.dtype)
    spec = member.network_spec.model_copy(update={"ticker_embedding": 0})
    return replace(member, network_spec=spec, state=state, tickers=())


def starting_from(before: TrainedMember, tickers: tuple[str, ...]) -> Mapping[str, Tensor]:
    """The weights of a network, for one of other tickers to start from.

    A ticker that it was not trained on begins with the mean of the vectors of all that it was.
    """
    if not before.tickers:
        return before.state
    vectors = before.state[_EMBEDDING]
    known = dict(zip(before.tickers, vectors, strict=True))
    mean = vectors.mean(dim=0)
    return before.state | {_EMBEDDING: torch.stack([known.get(name, mean) for name in tickers])}
