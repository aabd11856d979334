"""The sentiment model: labelled headlines in, a trained network out, headlines to scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rnn_pipeline.features.text import Vocabulary
from rnn_pipeline.networks.checkpoints import (
    StoredNetwork,
    code_version,
    load_metadata,
    read_checkpoint,
    write_checkpoint,
)
from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.inference import infer
from rnn_pipeline.networks.recurrent import SentimentLSTM, initialise
from rnn_pipeline.networks.training import History, fit
from rnn_pipeline.settings import SentimentSpec

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True, eq=False)
class TrainedSentiment:
    """A trained sentiment network with the vocabulary of its training texts."""

    spec: SentimentSpec
    vocabulary: Vocabulary
    state: dict[str, Tensor]
    """The best epoch's weights, on the CPU."""
    history: History

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How likely each label is; a text's bits do not depend on the other texts.

        Returns:
            (n, 3) float32, columns in the order of ``LABELS``.
        """
        if len(texts) == 0:
            return np.empty((0, len(LABELS)), np.float32)
        network = SentimentLSTM(len(self.vocabulary), len(LABELS), self.spec)
        network.load_state_dict(self.state)
        network.eval()
        ids, lengths = map(torch.from_numpy, self.vocabulary.encode(texts, self.spec.max_len))

        def forward(row: Tensor) -> Tensor:
            return network(ids[row, : lengths[row]], lengths[row]).softmax(dim=1)

        return infer(forward, torch.arange(len(texts))).numpy()

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts from -1 (negative) to 1 (positive): P(positive) - P(negative).

        Returns:
            (n,) float64.
        """
        negative, _, positive = self.probabilities(texts).astype(np.float64).T
        return positive - negative

    def confusion(self, texts: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
        """Count texts by true label (index) and likeliest label (columns), both as in ``LABELS``.

        Raises:
            ValueError: there are no texts, or a label is unknown.
        """
        actual = _label_numbers(texts, labels)
        predicted = self.probabilities(texts).argmax(axis=1)
        counts = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
        np.add.at(counts, (actual, predicted), 1)
        return pd.DataFrame(counts, index=list(LABELS), columns=list(LABELS))

    def evaluate(self, texts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
        """Compare the likeliest labels of texts with the true ones (:func:`scores`)."""
        return scores(self.confusion(texts, labels))


def scores(confusion: pd.DataFrame) -> dict[str, float]:
    """Figures of a confusion matrix.

    Returns:
        ``accuracy``, and ``macro_f1``: the mean of 2 TP / (2 TP + FP + FN) over the labels that
        occur, be it as truth or as prediction.
    """
    counts = confusion.to_numpy(dtype=np.float64)
    hits = counts.diagonal()
    occurrences = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = occurrences > 0
    return {
        "accuracy": float(hits.sum() / counts.sum()),
        "macro_f1": float((2 * hits[occurs] / occurrences[occurs]).mean()),
    }


def train_sentiment(
    texts: Sequence[str],
    labels: Sequence[str],
    spec: SentimentSpec,
    device: torch.device,
    deterministic: bool = True,
    precision: Precision = "float32",
) -> TrainedSentiment:
    """Train the sentiment network; ``spec.seed`` decides everything that is random.

    A random ``spec.val_share`` of the texts is held out for early stopping and neither trains the
    network nor enters the vocabulary.

    Args:
        texts: headlines.
        labels: one of ``LABELS`` for each.
        spec: the network and how it learns.
        device: where; see :func:`~rnn_pipeline.networks.devices.resolve_device`.
        deterministic: repeat bit for bit on a GPU, too; on a CPU it is always so.
        precision: see :func:`~rnn_pipeline.networks.devices.numerics`.

    Raises:
        ValueError: too few texts, an unknown label, one label only, or a failed training.
    """
    texts = list(texts)
    targets = _label_numbers(texts, labels)
    if len(present := np.unique(targets)) < 2:
        raise ValueError(
            f"all {len(texts)} headlines are labelled {LABELS[present[0]]!r}; a classifier needs at"
            " least two labels"
        )
    generator = torch.Generator().manual_seed(spec.seed)
    order = torch.randperm(len(texts), generator=generator)
    n_val = max(1, round(spec.val_share * len(texts)))
    val_rows, train_rows = order[:n_val], order[n_val:]

    vocabulary = Vocabulary.build(
        [texts[row] for row in train_rows.tolist()], spec.max_vocab, spec.min_freq
    )
    ids, lengths, target = (
        torch.from_numpy(array).to(device)
        for array in (*vocabulary.encode(texts, spec.max_len), targets)
    )

    def batch(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Most headlines are far shorter than max_len: leave out the steps that no row needs.
        longest = int(lengths[rows].max())
        return ids[rows, :longest], lengths[rows], target[rows]

    network = SentimentLSTM(len(vocabulary), len(LABELS), spec)
    initialise(network, generator)
    with numerics(device, precision, deterministic):
        history = fit(
            network.to(device),
            nn.functional.cross_entropy,
            batch,
            train_rows,
            val_rows,
            spec.training,
            spec.seed,
            precision,
        )
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    return TrainedSentiment(spec, vocabulary, state, history)


def train_or_load_sentiment(
    path: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    spec: SentimentSpec,
    device: torch.device,
    deterministic: bool = True,
    precision: Precision = "float32",
) -> tuple[TrainedSentiment, bool]:
    """Take the model from its file where it was trained on just this, else train and save it.

    Returns:
        The model, and whether it was trained now.

    Raises:
        ValueError: see :func:`train_sentiment`.
    """
    recipe = hashlib.sha256(
        json.dumps(
            [list(texts), list(labels), spec.model_dump(mode="json"), code_version("sentiment")]
        ).encode()
    ).hexdigest()
    if path.exists() and load_metadata(path).get("recipe") == recipe:
        return load_sentiment(path), False
    trained = train_sentiment(texts, labels, spec, device, deterministic, precision)
    save_sentiment(path, trained, {"recipe": recipe})
    return trained, True


def save_sentiment(
    path: Path, trained: TrainedSentiment, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the model to one file, replacing an older one in one step.

    Raises:
        ValueError: the metadata is not JSON.
    """
    description = {
        "spec": trained.spec.model_dump(mode="json"),
        "vocabulary": trained.vocabulary.to_json(),
        "history": asdict(trained.history),
    }
    network = StoredNetwork("sentiment", "sentiment", description, trained.state)
    write_checkpoint(path, [network], metadata or {})


def load_sentiment(path: Path) -> TrainedSentiment:
    """Read the model back.

    Raises:
        ValueError: the file is missing, damaged or of another format or kind.
    """
    (network,) = read_checkpoint(path, "sentiment")
    return TrainedSentiment(
        SentimentSpec.model_validate(network.description["spec"]),
        Vocabulary.from_json(network.description["vocabulary"]),
        network.state,
        History(**network.description["history"]),
    )


def _label_numbers(texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Number each label by its place in ``LABELS``: (n,) int64."""
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels; give one label per text")
    if len(texts) == 0:
        raise ValueError("no labelled headlines; give at least a few of each label")
    if unknown := sorted(set(labels) - set(LABELS)):
        raise ValueError(f"unknown labels {unknown}; use {', '.join(LABELS)}")
    return np.array([LABELS.index(label) for label in labels], dtype=np.int64)
