"""The sentiment model: labelled headlines in, a trained classifier out, headlines to scores.

:class:`SentimentClassifier` is what users call and what the pipeline trains: the pipeline's part is
:func:`train_sentiment` and what stands behind it, its one setting a ``SentimentSpec``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnn_pipeline.features import lexicon, text, vectors
from rnn_pipeline.features.sentiment import daily_sentiment
from rnn_pipeline.features.text import Vocabulary
from rnn_pipeline.networks.base import Estimator, Options, Progress
from rnn_pipeline.networks.checkpoints import FitFile, code_version, load_metadata
from rnn_pipeline.networks.devices import Precision
from rnn_pipeline.networks.ngrams import CountedTexts
from rnn_pipeline.networks.reading import Headlines
from rnn_pipeline.networks.sentiment_training import (
    LabelledTexts,
    MemberTrainer,
    Pretrained,
    SentimentModel,
    StartingVectors,
    checked_texts,
    likeliest_mix,
)
from rnn_pipeline.settings import SentimentSpec

LABELS = ("negative", "neutral", "positive")

#: What labels of these names count in a score.
_POLARITY = {"negative": -1.0, "bearish": -1.0, "neutral": 0.0, "positive": 1.0, "bullish": 1.0}

#: Epochs that few texts are given at most, see ``SentimentSpec.least_steps``.
_MOST_EPOCHS = 40

_Floats: TypeAlias = NDArray[np.float64]


class SentimentClassifier(Estimator):
    """Classify texts with recurrent networks that read them, beside a linear model of n-grams.

    Each of ``spec.members`` networks holds out another ``validation_split`` of the texts: it learns
    nothing from them, not even their words, and keeps the epoch that does best on them. The
    networks' mean probability is mixed with that of the n-gram model, in the proportion under which
    the held-out texts are likeliest. So a few hundred texts lean on n-grams, thousands on reading.

    Args:
        spec: the networks and how they learn; ``fit`` can override what it takes.
        options: seed, device, training, precision, progress; see
            :class:`~rnn_pipeline.networks.base.Estimator`. Seed and training are the
            specification's unless given.

    Attributes:
        vocabulary: of the last ``build_vocab`` or ``fit``; None before.
        max_len: words read of a text.
        classes: the labels, as ``predict`` gives them and in the order of ``predict_proba``.
        coverage: share of the vocabulary's words that have a pretrained vector.
    """

    def __init__(self, *, spec: SentimentSpec | None = None, **options: Unpack[Options]) -> None:
        self.spec = spec or SentimentSpec()
        options.setdefault("seed", self.spec.seed)
        options.setdefault("training", self.spec.training)
        super().__init__(**options)
        self.vocabulary: Vocabulary | None = None
        self.max_len = self.spec.max_len
        self.classes: tuple[Any, ...] = ()
        self.coverage = 0.0

    @property
    def state(self) -> dict[str, Tensor]:
        """All weights, on the CPU.

        Raises:
            ValueError: not trained.
        """
        return {name: value.cpu() for name, value in self._trained().state_dict().items()}

    @property
    def word2idx(self) -> dict[str, int]:
        """Word to id: ``<PAD>`` 0, ``<UNK>`` 1; empty before there is a vocabulary."""
        return dict(self.vocabulary.index) if self.vocabulary else {}

    @property
    def idx2word(self) -> dict[int, str]:
        """Id to word."""
        return {number: word for word, number in self.word2idx.items()}

    @property
    def vocab(self) -> dict[str, int]:
        """Another name of ``word2idx``."""
        return self.word2idx

    def build_vocab(
        self, texts: Iterable[str], max_vocab: int = 10_000, min_freq: int = 2
    ) -> dict[str, int]:
        """Learn the words of training texts.

        ``fit`` does so by itself. Call this first to line up a matrix of pretrained vectors.

        Returns:
            Word to id, ``<PAD>`` 0 and ``<UNK>`` 1.

        Raises:
            ValueError: no word is left.
        """
        self.vocabulary = Vocabulary.build(checked_texts(texts), max_vocab, min_freq)
        return self.word2idx

    def fit(
        self,
        texts: Iterable[str],
        labels: Iterable[Any],
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        validation_split: float | None = None,
        max_len: int | None = None,
        embed_dim: int | None = None,
        hidden_dim: int | None = None,
        pretrained_embeddings: Pretrained | None = None,
        *,
        resume_dir: Path | None = None,
        log_dir: Path | None = None,
    ) -> dict[str, list[float]]:
        """Train on labelled texts; what is not given is the specification's.

        Args:
            texts: headlines.
            labels: one for each, of any kind: strings, numbers, booleans.
            epochs: of every network; the weights of its best one are kept.
            batch_size: texts in one step.
            lr: largest step size.
            validation_split: share of the texts that each network holds out.
            max_len: words read of a text.
            embed_dim: length of a word's vector; pretrained vectors bring their own.
            hidden_dim: units of the LSTM in each direction.
            pretrained_embeddings: a file, or ``"glove-6b-50d"`` (see
                :func:`~rnn_pipeline.features.vectors.read_vectors`); word to vector; or one row for
                each word of the vocabulary of ``build_vocab``. The vectors rest for the first
                ``spec.frozen_epochs`` and learn from then on.
            resume_dir: a folder to keep every network's state in while it trains. After a kill, the
                same call goes on there, to the same weights; the files go when all is trained.
            log_dir: a folder for TensorBoard: ``sentiment/0``, ... of each network.

        Returns:
            ``train_loss`` (under dropout, with smoothed labels), ``val_loss`` (cross-entropy),
            ``train_acc`` and ``val_acc``: one value per epoch, the mean over the networks.

        Raises:
            ValueError: too few texts, a text that is none, one label only, or an argument out of
                range; the message says which.
        """
        corpus = LabelledTexts.of(texts, labels)
        asked = {
            "val_share": validation_split,
            "max_len": max_len,
            "embed_dim": embed_dim,
            "hidden_size": hidden_dim,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        spec = SentimentSpec.model_validate(self.spec.model_dump() | given)
        size = self.training.batch_size if batch_size is None else batch_size
        rate = self.training.learning_rate if lr is None else lr
        if epochs is None:
            steps = max(1, round((1.0 - spec.val_share) * len(corpus.texts) / max(1, size)))
            wanted = min(_MOST_EPOCHS, math.ceil(spec.least_steps / steps))
            epochs = max(self.training.epochs, wanted)
        training = self._training(epochs, size, rate)
        held_out = corpus.held_out(spec.val_share, spec.members, self.seed)
        trained_on = sorted({row for rows in held_out for row in corpus.all_but(rows)})
        source = spec.vectors if pretrained_embeddings is None else pretrained_embeddings
        vocabulary = self._vocabulary(corpus.part(trained_on).texts, spec, source)
        start = None if source is None else StartingVectors.of(source, vocabulary, self.seed)
        if start is not None:
            spec = spec.model_copy(update={"embed_dim": start.rows.shape[1]})

        model = SentimentModel(len(vocabulary), len(corpus.classes), spec)
        read = Headlines(corpus.texts, vocabulary, spec.max_len, spec.spellings, self.device)
        counted = CountedTexts.of(corpus.texts)
        recipe = json.dumps([spec.model_dump(mode="json"), _code()])

        def file(number: int) -> FitFile:
            assert resume_dir is not None
            return FitFile(resume_dir / f"sentiment-{number}.safetensors", recipe)

        trainer = MemberTrainer(
            corpus,
            read,
            counted,
            vocabulary,
            start,
            spec,
            training,
            self.device,
            self.precision,
            None if resume_dir is None else file,
            log_dir,
        )
        with self._shown(training.epochs * spec.members) as on_epoch:
            learned = [
                trainer.train(model.members[number], rows, self.seed, number, on_epoch)
                for number, rows in enumerate(held_out)
            ]
        model.ngrams.fit(counted, corpus.targets)
        model.mix.fill_(likeliest_mix([held for _, held in learned]))
        if resume_dir is not None:
            for number in range(spec.members):
                file(number).remove()

        self.spec, self.vocabulary, self.classes = spec, vocabulary, corpus.classes
        self.max_len = spec.max_len
        self.coverage = 0.0 if start is None else start.coverage
        self.model = model.to(self.device).eval()
        # With early stopping the networks differ in their number of epochs: the least is shown.
        epochs_run = min(len(history["train_loss"]) for history, _ in learned)
        self.history = {
            name: np.mean([history[name][:epochs_run] for history, _ in learned], axis=0).tolist()
            for name in ("train_loss", "val_loss", "train_acc", "val_acc")
        }
        return self.history

    def _vocabulary(
        self, texts: Sequence[str], spec: SentimentSpec, source: Pretrained | None
    ) -> Vocabulary:
        """The words of texts, or those of ``build_vocab`` where a matrix stands for them."""
        if isinstance(source, np.ndarray | Tensor) and self.vocabulary is not None:
            return self.vocabulary
        try:
            return Vocabulary.build(texts, spec.max_vocab, spec.min_freq)
        except ValueError:
            # In a handful of texts no word may stand twice: then each one counts.
            return Vocabulary.build(texts, spec.max_vocab, min_freq=1)

    def predict_proba(self, texts: Iterable[str]) -> _Floats:
        """How likely each label is; a text's bits do not depend on the other texts.

        Returns:
            (n, classes), columns in the order of ``classes``.

        Raises:
            ValueError: not trained, or a text is none.
        """
        model = self._trained()
        assert isinstance(model, SentimentModel)
        assert self.vocabulary is not None
        wanted = checked_texts(texts)
        if not wanted:
            return np.empty((0, len(self.classes)))
        place = {text: number for number, text in enumerate(dict.fromkeys(wanted))}
        distinct = list(place)
        read = Headlines(distinct, self.vocabulary, self.max_len, self.spec.spellings, self.device)
        probabilities = model.probabilities(distinct, read)
        return probabilities[[place[text] for text in wanted]]

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """The likeliest label of each text: (n,), of the kind that was trained on.

        Raises:
            ValueError: not trained, or a text is none.
        """
        return np.array(self.classes)[self.predict_proba(texts).argmax(axis=1)]

    def score(self, texts: Iterable[str]) -> _Floats:
        """Score texts from -1 (negative) to 1 (positive): the mean of what the labels count.

        The labels negative, neutral and positive (or bearish and bullish) count -1, 0 and 1;
        numbers count by their order, evenly from -1 for the lowest to 1 for the highest.

        Returns:
            (n,); a text's bits do not depend on the other texts.

        Raises:
            ValueError: not trained, a text is none, or the labels say no direction.
        """
        self._trained()
        counts = _polarity(self.classes)
        probabilities = self.predict_proba(texts)
        # Column by column: a matrix product may add up in an order that depends on its shape.
        total = np.zeros(len(probabilities))
        for value, column in zip(counts, probabilities.T, strict=True):
            total += value * column
        return total

    def daily_scores(self, headlines: pd.DataFrame) -> pd.DataFrame:
        """One score per ticker and day from all its headlines.

        Args:
            headlines: ``ticker``, ``date`` (the day or session a headline counts for, any time of
                day is dropped) and ``headline``.

        Returns:
            ``ticker``, ``date``, ``sentiment`` (mean score, -1 to 1), ``news_count`` and
            ``sentiment_dispersion`` (population deviation), sorted by ticker and date.

        Raises:
            ValueError: not trained, a column is missing, or the labels say no direction.
        """
        self._trained()
        if absent := sorted({"ticker", "date", "headline"} - set(headlines.columns)):
            raise ValueError(f"columns {absent} are missing; there are {list(headlines.columns)}")
        days = pd.to_datetime(headlines["date"]).dt.normalize()
        scored = pd.DataFrame(
            {
                "ticker": headlines["ticker"],
                "usable_session": days,
                "score": self.score(headlines["headline"]),
            }
        )
        keys = scored[["ticker", "usable_session"]].drop_duplicates()
        sessions = keys.rename(columns={"usable_session": "session"})
        daily = daily_sentiment(scored, sessions.assign(known_at=sessions["session"]))
        daily = daily.rename(columns={"session": "date"})
        return daily[["ticker", "date", "sentiment", "news_count", "sentiment_dispersion"]]

    def confusion(self, texts: Sequence[str], labels: Sequence[Any]) -> pd.DataFrame:
        """Count texts by true label (index) and likeliest label (columns), both as in ``classes``.

        Raises:
            ValueError: there are no texts, or a label is unknown.
        """
        if not len(texts):
            raise ValueError("no labelled headlines; give at least a few of each label")
        if unknown := sorted(set(labels) - set(self.classes)):
            raise ValueError(f"unknown labels {unknown}; use {', '.join(map(str, self.classes))}")
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        actual = [self.classes.index(label) for label in labels]
        np.add.at(counts, (actual, self.predict_proba(texts).argmax(axis=1)), 1)
        return pd.DataFrame(counts, index=list(self.classes), columns=list(self.classes))

    def evaluate(self, texts: Sequence[str], labels: Sequence[Any]) -> dict[str, float]:
        """Compare the likeliest labels of texts with the true ones (:func:`scores`)."""
        return scores(self.confusion(texts, labels))

    def _describe(self) -> dict[str, Any]:
        assert self.vocabulary is not None
        return {
            "spec": self.spec.model_dump(mode="json"),
            "vocabulary": self.vocabulary.to_json(),
            "classes": list(self.classes),
            "coverage": self.coverage,
        }

    def _restore(self, description: dict[str, Any]) -> nn.Module:
        self.spec = SentimentSpec.model_validate(description["spec"])
        self.vocabulary = Vocabulary.from_json(description["vocabulary"])
        self.classes = tuple(description["classes"])
        self.coverage = description["coverage"]
        self.max_len = self.spec.max_len
        return SentimentModel(len(self.vocabulary), len(self.classes), self.spec)


def _polarity(classes: Sequence[Any]) -> list[float]:
    """What each label counts in a score."""
    named = [_POLARITY.get(str(label).lower()) for label in classes]
    if None not in named:
        return [value for value in named if value is not None]
    if all(isinstance(label, int | float) for label in classes):
        return np.linspace(-1.0, 1.0, len(classes)).tolist()
    raise ValueError(
        f"the labels {list(classes)} say no direction: a score needs {', '.join(LABELS)} or numbers"
    )


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
    precision: Precision = "float32",
    resume_dir: Path | None = None,
    log_dir: Path | None = None,
    progress: bool | Progress = False,
) -> SentimentClassifier:
    """Train the pipeline's sentiment model; ``spec.seed`` decides everything that is random.

    Args:
        texts: headlines.
        labels: one of ``LABELS`` for each.
        spec: the networks and how they learn.
        device: where; see :func:`~rnn_pipeline.networks.devices.resolve_device`.
        precision: see :func:`~rnn_pipeline.networks.devices.numerics`.
        resume_dir: see :meth:`SentimentClassifier.fit`.
        log_dir: see there.
        progress: see :class:`~rnn_pipeline.networks.base.Estimator`.

    Raises:
        ValueError: too few texts, an unknown label, one label only, or a failed training.
    """
    if unknown := sorted(set(labels) - set(LABELS)):
        raise ValueError(f"unknown labels {unknown}; use {', '.join(LABELS)}")
    classifier = SentimentClassifier(
        spec=spec, device=device, precision=precision, progress=progress
    )
    classifier.fit(texts, labels, resume_dir=resume_dir, log_dir=log_dir)
    return classifier


def train_or_load_sentiment(
    path: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    spec: SentimentSpec,
    device: torch.device,
    precision: Precision = "float32",
    log_dir: Path | None = None,
    progress: bool | Progress = False,
) -> tuple[SentimentClassifier, bool]:
    """Take the model from its file where it was trained on just this, else train and save it.

    A training that was killed goes on, from states in the folder of the file.

    Returns:
        The model, and whether it was trained now.

    Raises:
        ValueError: see :func:`train_sentiment`.
    """
    recipe = hashlib.sha256(
        json.dumps([list(texts), list(labels), spec.model_dump(mode="json"), _code()]).encode()
    ).hexdigest()
    if path.exists() and load_metadata(path).get("recipe") == recipe:
        return load_sentiment(path), False
    trained = train_sentiment(
        texts, labels, spec, device, precision, path.parent, log_dir, progress
    )
    trained.save(path, {"recipe": recipe})
    return trained, True


def load_sentiment(path: Path) -> SentimentClassifier:
    """Read the pipeline's model; it scores on the CPU, wherever it was trained.

    Raises:
        ValueError: the file is missing, damaged or of another format or kind.
    """
    return SentimentClassifier(device="cpu").load(path)


def _code() -> str:
    """Hash of the source that decides what the training yields."""
    version = code_version("ngrams", "reading", "sentiment", "sentiment_training")
    digest = hashlib.sha256(version.encode())
    for module in (lexicon, text, vectors):
        digest.update(Path(module.__file__ or "").read_bytes())
    return digest.hexdigest()[:16]
