import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rnn_pipeline.features.text import Vocabulary
from rnn_pipeline.networks.checkpoints import load_members, load_metadata, weights_hash
from rnn_pipeline.networks.sentiment import (
    LABELS,
    TrainedSentiment,
    load_sentiment,
    save_sentiment,
    train_sentiment,
)
from rnn_pipeline.networks.training import History
from rnn_pipeline.settings import SentimentSpec, TrainingSpec

from .members import CPU

WORDS = {
    "positive": ("surges", "jumps", "beats", "gains"),
    "negative": ("plunges", "slumps", "misses", "falls"),
    "neutral": ("unveils", "reports", "holds", "names"),
}
SPEC = SentimentSpec(
    embed_dim=12,
    hidden_size=12,
    max_len=12,
    training=TrainingSpec(epochs=10, batch_size=32, learning_rate=0.01),
)


def corpus(subject: str, size: int) -> tuple[list[str], list[str]]:
    """Headlines whose label hangs on one word between a name seen once and words of no weight."""
    tails = ("", "as markets open", "after the quarter that nobody saw")
    rows = [
        (f"{subject}{number}{verb} {verb} {tail}", label)
        for number, tail in itertools.product(range(size), tails)
        for label, verbs in WORDS.items()
        for verb in verbs
    ]
    return [text for text, _ in rows], [label for _, label in rows]


TEXTS, TEXT_LABELS = corpus("firm", 10)


@pytest.fixture(scope="module")
def model() -> TrainedSentiment:
    return train_sentiment(TEXTS, TEXT_LABELS, SPEC, CPU)


def test_learns_words_and_transfers_to_unseen_subjects(model: TrainedSentiment) -> None:
    texts, labels = corpus("zeta", 5)
    assert model.evaluate(texts, labels)["accuracy"] > 0.95
    scores = dict(zip(texts, model.score(texts), strict=True))
    assert scores["zeta0surges surges as markets open"] > 0.5
    assert scores["zeta0slumps slumps as markets open"] < -0.5
    assert abs(scores["zeta0names names as markets open"]) < 0.5


def test_scores_are_the_difference_of_probabilities(model: TrainedSentiment) -> None:
    probabilities = model.probabilities(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)
    columns = {label: probabilities[:, place] for place, label in enumerate(LABELS)}
    np.testing.assert_allclose(
        model.score(TEXTS), columns["positive"] - columns["negative"], rtol=0, atol=1e-6
    )
    assert model.score([]).shape == (0,)


def test_a_scores_bits_do_not_depend_on_its_company(model: TrainedSentiment) -> None:
    together = model.score(TEXTS)
    rng = np.random.default_rng(0)
    for size in (1, 1, 2, 7, 63, 65, 200):
        some = rng.permutation(len(TEXTS))[:size]
        assert (model.score([TEXTS[row] for row in some]) == together[some]).all()
    assert np.isfinite(model.score(["", "!!!", "word " * 500])).all()


def test_training_repeats_itself_and_the_seed_matters(model: TrainedSentiment) -> None:
    hashes = [
        weights_hash(train_sentiment(TEXTS, TEXT_LABELS, spec, CPU).state)
        for spec in (SPEC, SPEC.model_copy(update={"seed": 1}))
    ]
    assert hashes[0] == weights_hash(model.state) != hashes[1]


def test_held_out_texts_are_not_in_the_vocabulary() -> None:
    texts = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    spec = SPEC.model_copy(update={"min_freq": 1, "val_share": 0.3})
    labels = [LABELS[row % 3] for row in range(100)]
    vocabulary = train_sentiment(texts, labels, spec, CPU).vocabulary
    assert len(vocabulary) == 2 + 70


def test_round_trip_is_bit_identical(model: TrainedSentiment, tmp_path: Path) -> None:
    path = tmp_path / "sentiment.safetensors"
    save_sentiment(path, model, {"corpus": "tests"})
    back = load_sentiment(path)
    assert (back.spec, back.vocabulary, back.history) == (SPEC, model.vocabulary, model.history)
    assert (back.score(TEXTS) == model.score(TEXTS)).all()
    assert load_metadata(path) == {"corpus": "tests"}
    with pytest.raises(ValueError, match="is a sentiment, not a forecaster"):
        load_members(path)


def test_evaluation_against_a_confusion_matrix_by_hand() -> None:
    class Fixed(TrainedSentiment):
        def probabilities(
            self, texts: Sequence[str]
        ) -> np.ndarray:  # the text says what is predicted
            return np.eye(3)[[LABELS.index(text) for text in texts]]

    fixed = Fixed(SPEC, Vocabulary(("<PAD>", "<UNK>")), {}, History([], [], 0))
    actual = ["negative"] * 4 + ["neutral"] * 2 + ["positive"] * 4
    predicted = ["negative"] * 3 + ["positive"] + ["neutral", "negative"] + ["positive"] * 4
    # F1: negative 2*3/(4+4), neutral 2*1/(1+2), positive 2*4/(5+4)
    assert fixed.evaluate(predicted, actual) == {
        "accuracy": pytest.approx(0.8),
        "macro_f1": pytest.approx((6 / 8 + 2 / 3 + 8 / 9) / 3),
    }
    # A label that occurs nowhere is left out: only negative and positive count here.
    assert fixed.evaluate(["negative"] * 2, ["negative", "positive"])["macro_f1"] == pytest.approx(
        (2 / 3 + 0) / 2
    )


def test_unusable_labels_are_refused(model: TrainedSentiment) -> None:
    with pytest.raises(ValueError, match=r"unknown labels \['bullish'\]; use negative"):
        train_sentiment(["a", "b"], ["positive", "bullish"], SPEC, CPU)
    with pytest.raises(ValueError, match="2 texts but 1 labels"):
        train_sentiment(["a", "b"], ["positive"], SPEC, CPU)
    with pytest.raises(ValueError, match="all 2 headlines are labelled 'neutral'"):
        train_sentiment(["a", "b"], ["neutral", "neutral"], SPEC, CPU)
    with pytest.raises(ValueError, match="no labelled headlines"):
        model.evaluate([], [])
