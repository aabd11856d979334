import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rnn_pipeline.features.text import PAD, UNK, Vocabulary
from rnn_pipeline.networks import sentiment_training
from rnn_pipeline.networks.checkpoints import load_members, load_metadata, weights_hash
from rnn_pipeline.networks.sentiment import (
    LABELS,
    SentimentClassifier,
    load_sentiment,
    scores,
    train_or_load_sentiment,
    train_sentiment,
)
from rnn_pipeline.networks.sentiment_training import LabelledTexts, likeliest_mix
from rnn_pipeline.settings import SentimentSpec, TrainingSpec

from .members import CPU
from .test_tensorboard import scalars

# No word of these is in the lexicon: what is known of them is learned.
WORDS = {
    "positive": ("blorps", "zarps", "kreels", "wumbles"),
    "negative": ("gronks", "fleems", "drabbs", "snurfs"),
    "neutral": ("ploofs", "tarns", "quibs", "yorls"),
}
SPEC = SentimentSpec(
    members=2,
    embed_dim=12,
    hidden_size=12,
    max_len=12,
    spellings=500,
    least_steps=0,
    training=TrainingSpec(epochs=8, batch_size=32, learning_rate=0.01, patience=None),
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


TEXTS, TEXT_LABELS = corpus("firm", 5)
SOME = TEXTS[::6]


def trained(texts: list[str] = TEXTS, labels: Any = TEXT_LABELS, **fit: Any) -> SentimentClassifier:
    classifier = SentimentClassifier(spec=SPEC, device="cpu")
    classifier.fit(texts, labels, **fit)
    return classifier


@pytest.fixture(scope="module")
def model() -> SentimentClassifier:
    return trained()


def test_learns_words_and_transfers_to_unseen_subjects(model: SentimentClassifier) -> None:
    texts, labels = corpus("zeta", 1)
    assert model.evaluate(texts, labels)["accuracy"] > 0.95
    assert (model.predict(texts) == labels).mean() > 0.95
    found = dict(zip(texts, model.score(texts), strict=True))
    assert found["zeta0zarps zarps as markets open"] > 0.5
    assert found["zeta0gronks gronks as markets open"] < -0.5
    assert abs(found["zeta0yorls yorls as markets open"]) < 0.5


def test_few_texts_are_read_more_often_unless_told_how_often() -> None:
    spec = SPEC.model_copy(update={"members": 1, "least_steps": 100})
    classifier = SentimentClassifier(spec=spec, device="cpu")
    # Of 60 texts 54 are trained on, in two steps of 32: 50 epochs for 100 steps, but 40 at most.
    assert len(classifier.fit(TEXTS[:60], TEXT_LABELS[:60])["val_loss"]) == 40
    assert len(classifier.fit(TEXTS[:60], TEXT_LABELS[:60], epochs=3)["val_loss"]) == 3


def test_networks_learn_without_the_ngrams(model: SentimentClassifier) -> None:
    texts, labels = corpus("zeta", 1)
    mix = float(model.model.mix)
    model.model.mix.fill_(0.0)
    try:
        assert model.evaluate(texts, labels)["accuracy"] > 0.9
    finally:
        model.model.mix.fill_(mix)


def test_history_has_an_entry_per_epoch_and_lies_within_bounds(model: SentimentClassifier) -> None:
    assert set(model.history) == {"train_loss", "val_loss", "train_acc", "val_acc"}
    assert all(len(values) == 8 for values in model.history.values())
    assert model.history["val_loss"][-1] < model.history["val_loss"][0]
    assert all(0 <= value <= 1 for value in model.history["val_acc"])
    assert isinstance(model.device, torch.device)


def test_probabilities_add_up_and_scores_are_their_difference(model: SentimentClassifier) -> None:
    probabilities = model.predict_proba(SOME)
    assert probabilities.shape == (len(SOME), 3)
    assert model.classes == LABELS
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        model.score(SOME), probabilities[:, 2] - probabilities[:, 0], rtol=0, atol=1e-12
    )
    assert model.score([]).shape == (0,)
    assert model.predict_proba([]).shape == (0, 3)


def test_a_scores_bits_do_not_depend_on_its_company(model: SentimentClassifier) -> None:
    together = model.score(SOME)
    rng = np.random.default_rng(0)
    for size in (1, 1, 2, 7, 17):
        some = rng.permutation(len(SOME))[:size]
        assert (model.score([SOME[row] for row in some]) == together[some]).all()
    assert np.isfinite(model.score(["", "!!!", "word " * 500])).all()


def test_training_repeats_itself_and_the_seed_matters(model: SentimentClassifier) -> None:
    again = train_sentiment(TEXTS, TEXT_LABELS, SPEC, CPU)
    assert weights_hash(again.state) == weights_hash(model.state)
    short = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"epochs": 1})})
    hashes = {
        weights_hash(
            train_sentiment(TEXTS, TEXT_LABELS, short.model_copy(update={"seed": seed}), CPU).state
        )
        for seed in (0, 1)
    }
    assert len(hashes) == 2


def test_the_order_of_labels_and_their_kind_change_nothing(model: SentimentClassifier) -> None:
    numbers = {"negative": 3, "neutral": 5, "positive": 9}
    labels = np.array([numbers[label] for label in TEXT_LABELS])
    numbered = trained(labels=labels)
    assert (numbered.predict_proba(TEXTS[:20]) == model.predict_proba(TEXTS[:20])).all()
    assert (numbered.score(TEXTS[:20]) == model.score(TEXTS[:20])).all()
    predicted = numbered.predict(TEXTS[:20])
    assert predicted.shape == (20,)
    assert predicted.dtype.kind == "i"
    assert set(predicted) <= {3, 5, 9}


def test_words_of_held_out_texts_are_not_in_the_vocabulary() -> None:
    texts = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    labels = [LABELS[row % 3] for row in range(100)]
    changes = {"members": 1, "min_freq": 1, "val_share": 0.3}
    classifier = SentimentClassifier(spec=SPEC.model_copy(update=changes), device="cpu")
    classifier.fit(texts, labels, epochs=1)
    assert len(classifier.vocab) == 2 + 70


def test_no_network_learns_from_the_words_it_holds_out() -> None:
    """Words of another network's training texts are in the vocabulary, and unknown to this one."""
    texts = [f"{TEXTS[row]} only{chr(97 + row // 26)}{chr(97 + row % 26)}" for row in range(100)]
    spec = SPEC.model_copy(update={"min_freq": 1, "val_share": 0.3})
    classifier = SentimentClassifier(spec=spec, device="cpu")
    classifier.fit(texts, TEXT_LABELS[:100], epochs=1)
    held_out = LabelledTexts.of(texts, TEXT_LABELS[:100]).held_out(0.3, 2, seed=0)
    assert not set(held_out[0]) & set(held_out[1])
    for number, rows in enumerate(held_out):
        weight = classifier.model.members[number].embedding.weight
        for row in range(100):
            word = texts[row].split()[-1]
            unknown = torch.equal(weight[classifier.word2idx[word]], weight[1])
            assert unknown == (row in rows)


def test_held_out_texts_have_the_labels_in_proportion() -> None:
    labels = ["rare"] * 10 + ["common"] * 90
    texts = LabelledTexts.of([f"text {row}" for row in range(100)], labels)
    for rows in texts.held_out(0.2, 5, seed=4):
        assert len(rows) == 20
        assert (texts.targets[rows] == 1).sum() == 2
    single = LabelledTexts.of([f"text {row}" for row in range(20)], ["a"] * 19 + ["b"])
    assert all(19 not in rows for rows in single.held_out(0.2, 5, seed=0))


def test_the_mix_is_the_share_under_which_the_labels_are_likeliest() -> None:
    targets = np.array([0, 1, 0, 1])
    right = np.eye(2)[targets] * 0.8 + 0.1
    wrong = 1 - right
    assert likeliest_mix([(targets, right, wrong)]) == 0.0
    assert likeliest_mix([(targets, wrong, right)]) == 1.0
    # Each is sure of one half, and silent or slightly wrong on the other: best is half and half.
    left, other = right.copy(), right.copy()
    left[2:], other[:2] = 0.5, 0.5
    assert likeliest_mix([(targets, left, other)]) == pytest.approx(0.5)


def test_build_vocab_is_ordered_and_shown_in_both_directions() -> None:
    classifier = SentimentClassifier(device="cpu")
    assert classifier.word2idx == {}
    index = classifier.build_vocab(["rise rise rise fall", "fall once"], max_vocab=4)
    assert index == {PAD: 0, UNK: 1, "rise": 2, "fall": 3} == classifier.vocab
    assert classifier.idx2word == {0: PAD, 1: UNK, 2: "rise", 3: "fall"}


def test_save_and_load_give_the_same_bits(model: SentimentClassifier, tmp_path: Path) -> None:
    path = tmp_path / "sentiment.safetensors"
    model.save(path, {"corpus": "tests"})
    back = load_sentiment(path)
    assert (back.spec, back.vocabulary, back.history) == (
        model.spec,
        model.vocabulary,
        model.history,
    )
    assert (back.predict_proba(SOME) == model.predict_proba(SOME)).all()
    assert (SentimentClassifier.load(path).predict(SOME) == model.predict(SOME)).all()
    assert load_metadata(path) == {"corpus": "tests"}
    with pytest.raises(ValueError, match="is a SentimentClassifier, not a forecaster"):
        load_members(path)


def test_the_pipelines_model_is_trained_again_only_when_it_would_differ(tmp_path: Path) -> None:
    path = tmp_path / "sentiment.safetensors"
    spec = SPEC.model_copy(
        update={"members": 1, "training": SPEC.training.model_copy(update={"epochs": 1})}
    )
    texts, labels = TEXTS[:60], TEXT_LABELS[:60]
    assert train_or_load_sentiment(path, texts, labels, spec, CPU)[1]
    assert not train_or_load_sentiment(path, texts, labels, spec, CPU)[1]
    assert train_or_load_sentiment(path, texts[1:], labels[1:], spec, CPU)[1]


@pytest.mark.parametrize("epochs_done", [1, 4, 9, 16], ids=lambda n: f"after {n} epochs")
def test_a_training_that_was_killed_ends_with_the_weights_it_would_have_had(
    model: SentimentClassifier, tmp_path: Path, epochs_done: int
) -> None:
    seen: list[int] = []

    def power_cut(epoch: int, epochs: int, train_loss: float, val_loss: float) -> None:
        seen.append(epoch)
        if len(seen) == epochs_done:
            raise KeyboardInterrupt

    killed = SentimentClassifier(spec=SPEC, device="cpu", progress=power_cut)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(TEXTS, TEXT_LABELS, resume_dir=tmp_path)
    again = SentimentClassifier(spec=SPEC, device="cpu", progress=lambda *_: seen.append(0))
    again.fit(TEXTS, TEXT_LABELS, resume_dir=tmp_path)
    assert len(seen) == 2 * 8
    assert weights_hash(again.state) == weights_hash(model.state)
    assert again.history == model.history
    assert not list(tmp_path.iterdir())


def test_vectors_go_on_resting_after_a_kill(tmp_path: Path) -> None:
    def fitted(progress: Any, folder: Path | None) -> SentimentClassifier:
        spec = SPEC.model_copy(update={"members": 1, "frozen_epochs": 2})
        classifier = SentimentClassifier(spec=spec, device="cpu", progress=progress)
        asked = {"epochs": 4, "pretrained_embeddings": VECTORS}
        classifier.fit(TEXTS, TEXT_LABELS, **asked, resume_dir=folder)
        return classifier

    whole = fitted(False, None)
    for last in (1, 3):

        def power_cut(epoch: int, *_: float, last: int = last) -> None:
            if epoch == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(power_cut, tmp_path)
        assert weights_hash(fitted(False, tmp_path).state) == weights_hash(whole.state)


def test_the_state_of_another_training_is_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def power_cut(*_: float) -> None:
        raise KeyboardInterrupt

    fits = {"epochs": 2, "resume_dir": tmp_path}
    killed = SentimentClassifier(spec=SPEC, device="cpu", progress=power_cut)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(TEXTS, TEXT_LABELS, **fits)
    smoother = SPEC.model_copy(update={"label_smoothing": 0.2})
    classifier = SentimentClassifier(spec=smoother, device="cpu")
    classifier.fit(TEXTS, TEXT_LABELS, **fits)
    assert "other data, settings or code" in caplog.text


def test_every_network_is_logged_for_tensorboard(
    model: SentimentClassifier, tmp_path: Path
) -> None:
    again = trained(log_dir=tmp_path)
    logged = [scalars(tmp_path / "sentiment" / str(number)) for number in range(2)]
    for tag, name in (("loss/train", "train_loss"), ("loss/val", "val_loss")):
        values = np.mean([[value for _, value in one[tag]] for one in logged], axis=0)
        np.testing.assert_allclose(values, again.history[name], rtol=1e-6)
    assert weights_hash(again.state) == weights_hash(model.state)


def test_before_training_there_is_nothing_to_predict() -> None:
    for ask in ("predict", "predict_proba", "score"):
        with pytest.raises(ValueError, match=r"^Model must be trained before prediction$"):
            getattr(SentimentClassifier(device="cpu"), ask)(["a headline"])


def test_daily_scores_are_the_means_of_a_days_headlines(model: SentimentClassifier) -> None:
    headlines = pd.DataFrame(
        {
            "ticker": ["MSFT", "AAPL", "AAPL", "AAPL"],
            "date": ["2024-05-02", "2024-05-02 14:30", "2024-05-02 09:00", "2024-05-03"],
            "headline": TEXTS[:4],
        }
    )
    headlines["date"] = pd.to_datetime(headlines["date"], format="ISO8601")
    daily = model.daily_scores(headlines)
    one = model.score(TEXTS[:4])
    assert daily["ticker"].tolist() == ["AAPL", "AAPL", "MSFT"]
    assert daily["news_count"].tolist() == [2, 1, 1]
    np.testing.assert_allclose(daily["sentiment"], [one[1:3].mean(), one[3], one[0]], atol=1e-12)
    shuffled = model.daily_scores(headlines.iloc[[2, 0, 3, 1]])
    pd.testing.assert_frame_equal(daily, shuffled, check_exact=True)
    with pytest.raises(ValueError, match=r"columns \['date'\] are missing"):
        model.daily_scores(headlines.drop(columns="date"))


VECTORS = {
    verb: np.eye(3, 4, dtype=np.float32)[place]
    for place, verbs in enumerate(WORDS.values())
    for verb in verbs
}


def test_pretrained_vectors_rest_and_then_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in VECTORS.items()))
    started: list[torch.Tensor] = []
    initialised = sentiment_training.SentimentLSTM.start_from

    def noted(network: Any, rows: torch.Tensor) -> None:
        started.append(rows)
        initialised(network, rows)

    monkeypatch.setattr(sentiment_training.SentimentLSTM, "start_from", noted)
    for frozen, epochs, moves in ((2, 2, False), (1, 3, True)):
        spec = SPEC.model_copy(update={"members": 1, "frozen_epochs": frozen})
        classifier = SentimentClassifier(spec=spec, device="cpu")
        classifier.fit(TEXTS, TEXT_LABELS, epochs=epochs, pretrained_embeddings=path)
        assert classifier.spec.embed_dim == 4
        assert classifier.coverage == pytest.approx(12 / (len(classifier.vocab) - 2))
        rows = [classifier.word2idx[word] for word in VECTORS]
        (member,) = classifier.model.members
        weight = member.embedding.weight.detach()[rows]
        assert torch.equal(weight, started[-1][rows]) != moves


def test_vectors_come_as_a_mapping_or_a_matrix() -> None:
    mapped = trained(pretrained_embeddings=VECTORS, epochs=1)
    classifier = SentimentClassifier(spec=SPEC, device="cpu")
    index = classifier.build_vocab(TEXTS)
    matrix = np.zeros((len(index), 4), np.float32)
    for word, vector in VECTORS.items():
        matrix[index[word]] = vector
    classifier.fit(TEXTS, TEXT_LABELS, epochs=1, pretrained_embeddings=matrix)
    assert classifier.coverage == mapped.coverage > 0
    assert (classifier.predict_proba(TEXTS[:9]) == mapped.predict_proba(TEXTS[:9])).all()
    with pytest.raises(ValueError, match="one row per word"):
        classifier.fit(TEXTS, TEXT_LABELS, pretrained_embeddings=matrix[1:])
    with pytest.raises(ValueError, match="none of the vocabulary's words has a pretrained vector"):
        classifier.fit(TEXTS, TEXT_LABELS, pretrained_embeddings={"Rise": matrix[2]})


@pytest.mark.parametrize(
    ("labels", "score_of_first"),
    [(["down", "up"] * 20, None), ([0, 1] * 20, -1.0), ([True, False] * 20, 1.0)],
    ids=["strings", "numbers", "booleans"],
)
def test_two_labels_of_any_kind(labels: list[Any], score_of_first: float | None) -> None:
    texts = [f"acme {'gronks' if row % 2 == 0 else 'zings'} {row}" for row in range(40)]
    classifier = trained(texts, labels, epochs=4)
    assert classifier.predict(texts).tolist() == labels
    if score_of_first is None:
        with pytest.raises(ValueError, match=r"the labels \['down', 'up'\] say no direction"):
            classifier.score(texts)
    else:
        assert classifier.score(texts[:1])[0] * score_of_first > 0


def test_a_handful_of_texts_and_a_label_seen_once_are_enough() -> None:
    texts = ["shares rise", "profit falls", "board meets", "sales surge", "debt mounts", "odd"]
    classifier = trained(texts, ["up", "down", "flat", "up", "down", "other"], epochs=2)
    assert classifier.predict_proba(texts).shape == (6, 4)
    assert len(classifier.history["val_acc"]) == 2


@pytest.mark.parametrize(
    ("texts", "labels", "complaint"),
    [
        (["a"] * 9, ["up"] * 8, "9 texts but 8 labels"),
        (["a"] * 9, ["up"] * 9, "all 9 headlines are labelled 'up'; a classifier needs at least"),
        (["a", None, "b", "c"], ["up", "down"] * 2, "a text must be a string, got None in row 1"),
        (["a", "b", "c", "d"], ["up", "down", None, "up"], r"1 labels are missing \(None or NaN\)"),
        (["a", "b"], ["up", "down"], "2 labelled texts are too few"),
        ([], [], "0 labelled texts are too few"),
        ("one string", ["up"], "texts must be a list of strings"),
    ],
)
def test_unusable_texts_and_labels_are_refused(texts: Any, labels: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        trained(texts, labels)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": -1.0}, {"validation_split": 1.0}, {"hidden_dim": 0}]
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater|less"):
        trained(**wrong)


def test_the_pipeline_takes_its_own_labels_alone(model: SentimentClassifier) -> None:
    with pytest.raises(ValueError, match=r"unknown labels \['bullish'\]; use negative"):
        train_sentiment(["a", "b"], ["positive", "bullish"], SPEC, CPU)
    with pytest.raises(ValueError, match=r"unknown labels \['odd'\]"):
        model.evaluate(["a"], ["odd"])
    with pytest.raises(ValueError, match="no labelled headlines"):
        model.evaluate([], [])


def test_figures_of_a_confusion_matrix_by_hand() -> None:
    counts = pd.DataFrame([[3, 0, 1], [1, 1, 0], [0, 0, 4]], index=LABELS, columns=LABELS)
    # F1: negative 2*3/(4+4), neutral 2*1/(1+2), positive 2*4/(5+4)
    assert scores(counts) == {
        "accuracy": pytest.approx(0.8),
        "macro_f1": pytest.approx((6 / 8 + 2 / 3 + 8 / 9) / 3),
    }
    # A label that occurs nowhere is left out: only negative and positive count here.
    counts = pd.DataFrame([[1, 0, 0], [0, 0, 0], [1, 0, 0]], index=LABELS, columns=LABELS)
    assert scores(counts)["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_the_specification_is_json_and_a_vocabulary_survives_it(model: SentimentClassifier) -> None:
    described = json.loads(json.dumps(model._describe()))
    assert SentimentSpec.model_validate(described["spec"]) == model.spec
    assert Vocabulary.from_json(described["vocabulary"]) == model.vocabulary
