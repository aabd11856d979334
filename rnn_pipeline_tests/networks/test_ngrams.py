import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rnn_pipeline.features.text import tokenise
from rnn_pipeline.networks import ngrams
from rnn_pipeline.networks.ngrams import BUCKETS, NgramClassifier

TEXTS = [
    f"{subject} {verb} {tail}"
    for subject in ("Acme", "Zeta Corp", "Oil")
    for verb in ("surges", "plunges", "holds", "slips")
    for tail in ("on news", "after results")
]
TARGETS = np.array([["surges", "plunges", "holds", "slips"].index(t.split()[-3]) for t in TEXTS])


def fitted(targets: np.ndarray) -> NgramClassifier:
    model = NgramClassifier(int(targets.max()) + 1)
    model.fit(TEXTS, targets)
    return model


def test_rows_are_the_tfidf_that_everyone_uses() -> None:
    rows = fitted(TARGETS)._rows(TEXTS, ngrams._counts(TEXTS))
    words = TfidfVectorizer(
        tokenizer=tokenise,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 3),
        sublinear_tf=True,
    ).fit_transform(TEXTS)
    # Hashing renames columns; what the texts have in common stays.
    ours = rows[:, :BUCKETS]
    np.testing.assert_allclose((ours @ ours.T).toarray(), (words @ words.T).toarray(), atol=1e-12)


@pytest.mark.parametrize("targets", [TARGETS, (TARGETS % 2)], ids=["four classes", "two classes"])
def test_probabilities_are_those_of_the_solver(targets: np.ndarray) -> None:
    model = fitted(targets)
    rows: csr_matrix = model._rows(TEXTS, ngrams._counts(TEXTS))
    rows = rows[:, np.unique(rows.indices)]
    solver = LogisticRegression(C=ngrams.C, max_iter=300).fit(rows, targets)
    found = model.probabilities(TEXTS)
    np.testing.assert_allclose(found, solver.predict_proba(rows), atol=2e-3)
    assert (found.argmax(axis=1) == targets).all()


def test_a_texts_bits_do_not_depend_on_its_company() -> None:
    model = fitted(TARGETS)
    unseen = [*TEXTS, "", "!!!", "Acme soars", "word " * 300]
    together = model.probabilities(unseen)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        some = rng.permutation(len(unseen))[:size]
        assert (model.probabilities([unseen[row] for row in some]) == together[some]).all()


def test_the_weights_are_a_state_that_can_be_kept() -> None:
    model = fitted(TARGETS)
    other = NgramClassifier(4)
    other.load_state_dict(model.state_dict())
    assert (other.probabilities(TEXTS) == model.probabilities(TEXTS)).all()
    assert not list(model.parameters())
    assert torch.isfinite(model.weight).all()
