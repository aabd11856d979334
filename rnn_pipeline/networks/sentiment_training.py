"""How the members of a sentiment model are trained, and what they become together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnn_pipeline.features.text import PAD, UNK, Vocabulary, tokenise
from rnn_pipeline.features.vectors import read_vectors
from rnn_pipeline.networks.checkpoints import FitFile
from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.inference import infer
from rnn_pipeline.networks.ngrams import CountedTexts, NgramClassifier
from rnn_pipeline.networks.reading import UNKNOWN, Headlines, SentimentLSTM
from rnn_pipeline.networks.recurrent import EMBEDDING_STD, initialise
from rnn_pipeline.networks.tensorboard import log_history
from rnn_pipeline.networks.training import FitState, fit, learning_rates
from rnn_pipeline.settings import SentimentSpec, TrainingSpec

#: A file or the package's name, word to vector, or one row for each word of the vocabulary.
Pretrained: TypeAlias = str | Path | Mapping[str, np.ndarray] | np.ndarray | Tensor

OnEpoch: TypeAlias = Callable[[int, float, float], None] | None
_Numbers: TypeAlias = NDArray[np.int64]
_Floats: TypeAlias = NDArray[np.float64]

HeldOut: TypeAlias = tuple[_Numbers, _Floats, _Floats]
"""Targets (m,), and the probabilities (m, classes) of a network and of an n-gram model."""

#: Standard deviation that pretrained vectors are scaled to.
_VECTOR_STD = 0.3

#: Shares of the n-gram model among which the held-out texts choose.
_MIXES = np.linspace(0.0, 1.0, 21)

_FEWEST_TEXTS = 4


class SentimentModel(nn.Module):
    """Networks that read, a linear model of n-grams, and the share of the latter."""

    mix: Tensor

    def __init__(self, vocab_size: int, n_classes: int, spec: SentimentSpec) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            SentimentLSTM(
                vocab_size,
                spec.embed_dim,
                spec.hidden_size,
                n_classes,
                dropout=spec.dropout,
                num_layers=spec.num_layers,
                bidirectional=True,
                max_pool=True,
                spellings=spec.spellings,
                with_cues=True,
                word_dropout=spec.word_dropout,
                embedding_dropout=spec.embedding_dropout,
            )
            for _ in range(spec.members)
        )
        self.ngrams = NgramClassifier(n_classes)
        self.register_buffer("mix", torch.zeros((), dtype=torch.float64))

    def probabilities(self, texts: Sequence[str], read: Headlines) -> _Floats:
        """How likely each class is: (n, n_classes), each row a function of its text alone."""

        def forward(row: Tensor) -> Tensor:
            inputs = read.batch(row)
            return torch.stack([one(*inputs).double().softmax(1) for one in self.members]).mean(0)

        rows = torch.arange(len(texts), device=read.ids.device)
        networks = infer(forward, rows).cpu().numpy()
        mix = float(self.mix)
        return (1.0 - mix) * networks + mix * self.ngrams.probabilities(CountedTexts.of(texts))


@dataclass(frozen=True)
class LabelledTexts:
    """Labelled texts; ``targets`` (n,) are places in ``classes``."""

    texts: list[str]
    targets: _Numbers
    classes: tuple[Any, ...]

    @classmethod
    def of(cls, texts: Iterable[str], labels: Iterable[Any]) -> LabelledTexts:
        """Number the labels by their order.

        Raises:
            ValueError: too few texts, one that is none, a label missing, or one label only.
        """
        checked = checked_texts(texts)
        # NumPy's scalars would neither sort beside Python's nor become JSON.
        plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
        if len(checked) != len(plain):
            raise ValueError(
                f"{len(checked)} texts but {len(plain)} labels; give one label per text"
            )
        if missing := sum(label is None or label != label for label in plain):
            raise ValueError(f"{missing} labels are missing (None or NaN): drop those texts")
        if len(checked) < _FEWEST_TEXTS:
            raise ValueError(
                f"{len(checked)} labelled texts are too few; give at least a few of each label"
            )
        kinds = {type(label) for label in plain}
        classes = tuple(sorted(set(plain), key=None if len(kinds) == 1 else str))
        if len(classes) < 2:
            raise ValueError(
                f"all {len(plain)} headlines are labelled {classes[0]!r}; a classifier needs at"
                " least two labels"
            )
        number = {label: place for place, label in enumerate(classes)}
        return cls(checked, np.array([number[label] for label in plain], np.int64), classes)

    def part(self, rows: Sequence[int] | _Numbers) -> LabelledTexts:
        """Some of the texts."""
        return LabelledTexts([self.texts[row] for row in rows], self.targets[rows], self.classes)

    def all_but(self, rows: _Numbers) -> _Numbers:
        """The other rows, in order."""
        return np.setdiff1d(np.arange(len(self.texts)), rows)

    def held_out(self, share: float, members: int, seed: int) -> list[_Numbers]:
        """The rows that each member holds out, labels in proportion; disjoint while they last.

        A label's only text is never held out, since the rest must hold every label.
        """
        n = len(self.texts)
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(n, generator=generator).numpy()
        place = np.empty(n)
        for number in range(len(self.classes)):
            own = shuffled[self.targets[shuffled] == number]
            place[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = shuffled[np.argsort(place[shuffled], kind="stable")]
        size = max(1, round(share * n))
        blocks = []
        for member in range(members):
            rows = np.sort(np.take(order, np.arange(size) + member * size, mode="wrap"))
            left = np.bincount(self.targets[self.all_but(rows)], minlength=len(self.classes))
            rows = rows[left[self.targets[rows]] > 0]
            if not len(rows):
                raise ValueError(
                    f"{n} texts with a validation_split of {share:g} leave none to validate on that"
                    " is not the only one of its label: give a few more of each label"
                )
            blocks.append(rows)
        return blocks


@dataclass(frozen=True)
class StartingVectors:
    """A pretrained start: ``rows`` (words, dim), and which words of the vocabulary have one."""

    rows: Tensor
    there: NDArray[np.bool_]

    @property
    def coverage(self) -> float:
        """Share of the vocabulary's words that have a pretrained vector."""
        return float(self.there[2:].mean()) if len(self.there) > 2 else 0.0

    @classmethod
    def of(cls, source: Pretrained, vocabulary: Vocabulary, seed: int) -> StartingVectors:
        """Scale vectors to the size at which others begin, and let those fill the gaps."""
        if isinstance(source, np.ndarray | Tensor):
            given = np.asarray(source, dtype=np.float32)
            if given.ndim != 2 or len(given) != len(vocabulary):
                raise ValueError(
                    f"pretrained_embeddings have shape {given.shape}, but the vocabulary has"
                    f" {len(vocabulary)} words: call build_vocab first and give one row per word"
                )
            there = np.asarray(given.any(axis=1))
        else:
            if isinstance(source, Mapping):
                found: Mapping[str, Any] = source
            else:
                found = read_vectors(source, vocabulary.words).vectors
            known = {word: found[word] for word in vocabulary.words if word in found}
            if not known:
                raise ValueError(
                    "none of the vocabulary's words has a pretrained vector: are they of this"
                    " language, and lower-case?"
                )
            given = np.zeros((len(vocabulary), len(next(iter(known.values())))), np.float32)
            for word, vector in known.items():
                given[vocabulary.index[word]] = vector
            there = np.array([word in known for word in vocabulary.words])
        if not np.isfinite(given).all():
            raise ValueError("pretrained_embeddings hold NaN or infinite values")
        there[vocabulary.index[PAD]] = there[vocabulary.index[UNK]] = False
        generator = torch.Generator().manual_seed(seed)
        rows = torch.empty(given.shape).normal_(std=EMBEDDING_STD, generator=generator)
        if there.any():
            rows[there] = torch.from_numpy(given[there] * (_VECTOR_STD / given[there].std()))
        rows[vocabulary.index[PAD]] = 0.0
        return cls(rows, there)


@dataclass(frozen=True, eq=False)
class MemberTrainer:
    """What the training of all members shares."""

    corpus: LabelledTexts
    read: Headlines
    counted: CountedTexts
    vocabulary: Vocabulary
    vectors: StartingVectors | None
    spec: SentimentSpec
    training: TrainingSpec
    device: torch.device
    precision: Precision
    files: Callable[[int], FitFile] | None = None
    """Where each member keeps its state on the way, by its number."""
    log_dir: Path | None = None
    """Below which each member's losses are written for TensorBoard."""

    def train(
        self, network: nn.Module, val_rows: _Numbers, seed: int, number: int, on_epoch: OnEpoch
    ) -> tuple[dict[str, list[float]], HeldOut]:
        """Train one member in place, without its held-out rows, and judge it on them."""
        assert isinstance(network, SentimentLSTM)
        train_rows = self.corpus.all_but(val_rows)
        part = self.corpus.part(train_rows)
        seed = seed * self.spec.members + number
        initialise(network, torch.Generator().manual_seed(seed))
        hidden = self._hidden(part.texts)
        seen = torch.arange(len(self.vocabulary)).masked_fill(hidden, UNKNOWN).to(self.device)
        target = torch.from_numpy(self.corpus.targets).to(self.device)
        tally = _Tally(network, self.spec.label_smoothing)

        def thaw(epochs_done: int) -> None:
            rests = self.vectors is not None and epochs_done < self.spec.frozen_epochs
            network.embedding.requires_grad_(not rests)

        if self.vectors is not None:
            network.start_from(self.vectors.rows)
        thaw(0)
        kept = None if self.files is None else _TalliedFile(self.files(number), tally, thaw)

        def batch(rows: Tensor) -> tuple[Tensor, ...]:
            ids, *others = self.read.batch(rows)
            return seen[ids], *others, target[rows]

        def after(epoch: int, train_loss: float, val_loss: float) -> None:
            tally.close_epoch()
            thaw(epoch + 1)
            if on_epoch is not None:
                on_epoch(number * self.training.epochs + epoch, train_loss, val_loss)

        with numerics(self.device, self.precision):
            history = fit(
                network.to(self.device),
                tally.loss,
                batch,
                torch.from_numpy(train_rows),
                torch.from_numpy(val_rows),
                self.training,
                seed,
                self.precision,
                on_epoch=after,
                checkpoint=kept,
            )
            *inputs, _ = batch(torch.from_numpy(val_rows).to(self.device))
            with torch.inference_mode():
                judged = network(*inputs).double().softmax(1).cpu().numpy()
        with torch.no_grad():
            # What it was never shown it shall go on to read as any other unknown word.
            network.embedding.weight[hidden] = network.embedding.weight[UNKNOWN].clone()
        if self.log_dir is not None:
            rates = learning_rates(self.training, len(train_rows))
            log_history(self.log_dir / "sentiment" / str(number), history, rates)
        beside = NgramClassifier(len(self.corpus.classes))
        beside.fit(self.counted.part(train_rows), part.targets)
        figures = {
            "train_loss": history.train_loss,
            "val_loss": history.val_loss,
            "train_acc": tally.train_acc,
            "val_acc": tally.val_acc,
        }
        counted = self.counted.part(val_rows)
        return figures, (self.corpus.targets[val_rows], judged, beside.probabilities(counted))

    def _hidden(self, texts: Sequence[str]) -> Tensor:
        """The vocabulary's words that only held-out texts brought in: (words,) bool.

        A word with a pretrained vector may be read: its vector knows nothing of these texts.
        """
        occurring = {word for one in texts for word in tokenise(one)}
        there = np.zeros(len(self.vocabulary), bool) if self.vectors is None else self.vectors.there
        return torch.tensor(
            [
                word not in occurring and not has_vector and number > UNKNOWN
                for number, (word, has_vector) in enumerate(
                    zip(self.vocabulary.words, there, strict=True)
                )
            ]
        )


class _Tally:
    """Cross-entropy that counts hits on the way: nothing has to be computed twice for accuracy.

    Labels are smoothed (Szegedy et al., 2016) in training alone, so that the loss by which epochs
    are chosen is the likelihood of the labels.
    """

    def __init__(self, network: nn.Module, smoothing: float) -> None:
        self.network = network
        self.smoothing = smoothing
        self.train_acc: list[float] = []
        self.val_acc: list[float] = []
        self._counts: dict[bool, list[Tensor]] = {True: [], False: []}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch."""
        training = self.network.training
        self._counts[training].append((logits.detach().argmax(1) == target).float())
        smoothing = self.smoothing if training else 0.0
        return nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)

    def close_epoch(self) -> None:
        """Note the accuracies of an epoch, unless that is done."""
        for training, noted in ((True, self.train_acc), (False, self.val_acc)):
            if counts := self._counts[training]:
                noted.append(torch.cat(counts).mean().item())
                counts.clear()


class _TalliedFile:
    """A state file that keeps the accuracies, too, of which ``fit`` knows nothing."""

    def __init__(self, file: FitFile, tally: _Tally, on_load: Callable[[int], None]) -> None:
        self.file = file
        self.tally = tally
        self.on_load = on_load
        self.every = file.every

    def save(self, state: FitState) -> None:
        """Keep the state of a training and of its tally."""
        self.tally.close_epoch()
        noted = torch.tensor([self.tally.train_acc, self.tally.val_acc], dtype=torch.float64)
        self.file.save(replace(state, tensors={**state.tensors, "tally": noted}))

    def load(self, recipe: str) -> FitState | None:
        """The state of the training, if it is this one; the tally takes its own."""
        state = self.file.load(recipe)
        if state is None:
            return None
        tensors = dict(state.tensors)
        self.tally.train_acc, self.tally.val_acc = tensors.pop("tally").tolist()
        self.on_load(len(self.tally.val_acc))
        return replace(state, tensors=tensors)


def likeliest_mix(held_out: Sequence[HeldOut]) -> float:
    """The share of the n-gram model under which the held-out labels are likeliest."""
    own = [
        np.stack([side[np.arange(len(targets)), targets] for side in sides])
        for targets, *sides in held_out
    ]
    network, beside = np.concatenate(own, axis=1)
    likelihood = [np.log((1.0 - mix) * network + mix * beside + 1e-12).mean() for mix in _MIXES]
    return float(_MIXES[int(np.argmax(likelihood))])


def checked_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list.

    Raises:
        ValueError: one is no string, or all of it is one string.
    """
    if texts is None or isinstance(texts, str):
        raise ValueError(f"texts must be a list of strings, got {texts!r}")
    checked = list(texts)
    for row, one in enumerate(checked):
        if not isinstance(one, str):
            raise ValueError(
                f"a text must be a string, got {one!r} in row {row}: drop or fill missing titles"
            )
    return checked
