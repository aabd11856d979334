import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rnn_pipeline.networks import ngrams
from rnn_pipeline.networks.ngrams import BUCKETS, CountedTexts, NgramClassifier

TEXTS = [
    f"{subject} {verb} {tail}"
    for subject in ("Acme", "Zeta Corp", "Oil")
    for verb in ("surges", "plunges", "holds", "slips")
    for tail in ("on news", "after results")
]
TARGETS = np.array([["surges", "plunges", "holds", "slips"].index(t.split()[-3]) for t in TEXTS])

COUNTED = CountedTexts.of(TEXTS)


def fitted(targets: np.ndarray) -> NgramClassifier:
    model = NgramClassifier(int(targets.max()) + 1)
    model.fit(COUNTED, targets)
    return model


def test_rows_are_log_ratios_of_shares_inside_a_class_and_outside_and_rarities() -> None:
    texts = ["up up", "up now", "down now", "down", "flat"]
    targets = np.array([0, 0, 1, 1, 1])
    model = NgramClassifier(2)
    model.fit(CountedTexts.of(texts), targets)
    # Texts that hold each n-gram of one to three words, in class 0 and outside. The totals are
    # equal, so that "now" tells nothing.
    counts = {
        ("up",): (2, 0),
        ("up", "up"): (1, 0),
        ("up", "now"): (1, 0),
        ("now",): (1, 1),
        ("down",): (0, 2),
        ("down", "now"): (0, 1),
        ("flat",): (0, 1),
    }
    inside, outside = (sum(pair[side] + 1 for pair in counts.values()) for side in (0, 1))
    ratio = {
        gram: math.log((own + 1) / inside) - math.log((other + 1) / outside)
        for gram, (own, other) in counts.items()
    }
    expected = np.array([ratio[gram] for gram in (("up",), ("up", "now"))])
    rows = ngrams._rows(CountedTexts.of(["up now"]), model.scale[0].numpy())
    own_words = rows[:, :BUCKETS].toarray().ravel()
    found = own_words[own_words != 0]
    np.testing.assert_allclose(
        np.sort(found), np.sort(expected / np.linalg.norm(expected)), rtol=1e-6
    )
    # An n-gram that no text of the training has counts for nothing.
    unseen = CountedTexts.of(["never"]).occurs.indices
    assert (model.scale.numpy()[:, unseen[unseen < BUCKETS]] == 0).all()
    # By rarity: "up" occurs in two of five texts, "up now" in one; once is enough for "now".
    rarity = {1: math.log(6 / 2) + 1, 2: math.log(6 / 3) + 1}
    expected = np.array([rarity[count] for count in (2, 2, 1)])
    rows = ngrams._rows(CountedTexts.of(["up now"]), model.scale[-1].numpy())
    own_words = rows[:, :BUCKETS].toarray().ravel()
    np.testing.assert_allclose(
        np.sort(own_words[own_words != 0]),
        np.sort(expected / np.linalg.norm(expected)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("targets", [TARGETS, (TARGETS % 2)], ids=["four classes", "two classes"])
def test_probabilities_are_the_mean_of_two_solvers_per_class(targets: np.ndarray) -> None:
    model = fitted(targets)
    *ratios, rarity = model.scale.numpy()
    answers = []
    for scales in (ratios, [rarity] * len(ratios)):
        own = []
        for k, scale in enumerate(scales):
            rows = ngrams._rows(COUNTED, scale)
            rows = rows[:, np.unique(rows.indices)]
            solver = LogisticRegression(C=ngrams.C, max_iter=300).fit(rows, targets == k)
            own.append(solver.predict_proba(rows)[:, 1])
        answers.append((own / np.sum(own, axis=0)).T)
    found = model.probabilities(COUNTED)
    np.testing.assert_allclose(found, np.mean(answers, axis=0), atol=2e-3)
    assert (found.argmax(axis=1) == targets).all()


def test_a_texts_bits_do_not_depend_on_its_company() -> None:
    model = fitted(TARGETS)
    unseen = [*TEXTS, "", "!!!", "Acme soars", "word " * 300]
    together = model.probabilities(CountedTexts.of(unseen))
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        some = rng.permutation(len(unseen))[:size]
        assert (
            model.probabilities(CountedTexts.of([unseen[row] for row in some])) == together[some]
        ).all()


def test_the_weights_are_a_state_that_can_be_kept() -> None:
    model = fitted(TARGETS)
    other = NgramClassifier(4)
    other.load_state_dict(model.state_dict())
    assert (other.probabilities(COUNTED) == model.probabilities(COUNTED)).all()
    assert not list(model.parameters())
    assert torch.isfinite(model.weight).all()
