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


def test_rows_are_log_ratios_of_what_occurs_inside_a_class_and_outside() -> None:
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
    rows = ngrams._rows(CountedTexts.of(["up now"]), model.ratio[0].numpy())
    own_words = rows[:, :BUCKETS].toarray().ravel()
    found = own_words[own_words != 0]
    np.testing.assert_allclose(
        np.sort(found), np.sort(expected / np.linalg.norm(expected)), rtol=1e-6
    )
    # An n-gram that no text of the training has counts for nothing.
    unseen = CountedTexts.of(["never"]).occurs.indices
    assert (model.ratio[0].numpy()[unseen[unseen < BUCKETS]] == 0).all()


@pytest.mark.parametrize("targets", [TARGETS, (TARGETS % 2)], ids=["four classes", "two classes"])
def test_probabilities_are_those_of_one_solver_per_class(targets: np.ndarray) -> None:
    model = fitted(targets)
    own = []
    for k, ratio in enumerate(model.ratio.numpy()):
        rows = ngrams._rows(COUNTED, ratio)
        rows = rows[:, np.unique(rows.indices)]
        solver = LogisticRegression(C=ngrams.C, max_iter=300).fit(rows, targets == k)
        own.append(solver.predict_proba(rows)[:, 1])
    found = model.probabilities(COUNTED)
    np.testing.assert_allclose(found, (own / np.sum(own, axis=0)).T, atol=2e-3)
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
