"""A linear model of n-grams: what stands beside the recurrent networks that read headlines.

TF-IDF of word and letter n-grams with logistic regression is hard to beat on a few hundred texts,
and errs elsewhere than a network does. N-grams are hashed (Weinberger et al., 2009), so that no
list of them has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rnn_pipeline.features.lexicon import CUES, cue_name, cues
from rnn_pipeline.features.text import tokenise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Columns of each kind of n-gram.
BUCKETS = 2**17

#: Inverse strength of the L2 penalty, and weight of the lexicon's counts beside unit-length rows;
#: both chosen by three-fold cross-validation on training headlines.
C, CUE_WEIGHT = 5.0, 0.15

#: Words, words with cues, letters.
KINDS = 3

_N_CUES = 4 * len(CUES)


class NgramClassifier(nn.Module):
    """Logistic regression on TF-IDF of three kinds of n-grams, and on counts of the lexicon's cues.

    The kinds: one to three words; two to five letters of a word; two or three words of which those
    in the lexicon are replaced by their cues, so that what "profit falls" taught holds for "profit
    tumbles".

    Its weights are buffers: they are fitted at once by a convex solver, not by gradient steps.

    Args:
        n_classes: at least 2.
    """

    idf: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("idf", torch.zeros(KINDS * BUCKETS, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(n_classes, KINDS * BUCKETS + _N_CUES))
        self.register_buffer("bias", torch.zeros(n_classes))

    def fit(self, texts: Sequence[str], targets: np.ndarray) -> None:
        """Learn from texts and their class numbers (n,); all classes must occur."""
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        counts = _counts(texts)
        occurrences = np.bincount(counts.indices, minlength=KINDS * BUCKETS)
        idf = np.log((1 + len(texts)) / (1 + occurrences)) + 1
        # A letter n-gram seen in one text alone only slows the solver down.
        idf[-BUCKETS:][occurrences[-BUCKETS:] < 2] = 0.0
        idf[occurrences == 0] = 0.0
        self.idf = torch.from_numpy(idf)
        rows = self._rows(texts, counts)
        used = np.flatnonzero(np.append(idf, np.ones(_N_CUES)))
        solver = LogisticRegression(C=C, max_iter=300)
        # A sum split over threads depends on their number.
        with threadpool_limits(1):
            solver.fit(rows[:, used], targets)
        weight = np.zeros(tuple(self.weight.shape), dtype=np.float32)
        # With two classes scikit-learn gives the second one's log-odds alone.
        weight[-len(solver.coef_) :, used] = solver.coef_
        self.weight = torch.from_numpy(weight)
        self.bias = torch.zeros(len(weight))
        self.bias[-len(solver.intercept_) :] = torch.from_numpy(solver.intercept_)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How likely each class is: (n, n_classes) float64, each row a function of its text."""
        weight, bias = (one.cpu().double().numpy() for one in (self.weight, self.bias))
        logits = self._rows(texts, _counts(texts)) @ weight.T + bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def _rows(self, texts: Sequence[str], counts: csr_matrix) -> csr_matrix:
        """(n, KINDS * BUCKETS + _N_CUES): TF-IDF, each kind of length 1, and the cues' counts."""
        from scipy.sparse import csr_matrix, hstack
        from sklearn.preprocessing import normalize

        rows = counts.astype(np.float64)
        rows.data = (1 + np.log(rows.data)) * self.idf.cpu().numpy()[rows.indices]
        kinds = (normalize(rows[:, k * BUCKETS : (k + 1) * BUCKETS]) for k in range(KINDS))
        told = np.stack([_told(text) for text in texts]) * CUE_WEIGHT
        return hstack([*kinds, csr_matrix(told)], format="csr")


def _counts(texts: Sequence[str]) -> csr_matrix:
    """How often each bucket's n-grams occur: (n, KINDS * BUCKETS), letters last."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    options = {"n_features": BUCKETS, "alternate_sign": False, "norm": None}
    by_word = {"token_pattern": None, "lowercase": False, **options}
    kinds = (
        HashingVectorizer(tokenizer=tokenise, ngram_range=(1, 3), **by_word),
        HashingVectorizer(tokenizer=_with_cues, ngram_range=(2, 3), **by_word),
        HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options),
    )
    return hstack([kind.transform(texts) for kind in kinds], format="csr")


def _with_cues(text: str) -> list[str]:
    return [cue_name(token) for token in tokenise(text)]


def _told(text: str) -> np.ndarray:
    """How many words rise, fall, praise, ... ; and the same again where a word may turn them."""
    known = cues(tokenise(text))
    counts = np.concatenate([(known > 0).sum(axis=0), (known < 0).sum(axis=0)]).astype(np.float64)
    return np.concatenate([counts, counts * (known[:, -1] > 0).any()])
