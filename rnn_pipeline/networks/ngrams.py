"""A linear model of n-grams: what stands beside the recurrent networks that read headlines.

N-grams are hard to beat on a few hundred texts, and err elsewhere than a network does. They are
hashed (Weinberger et al., 2009), so that no list of them has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rnn_pipeline.features.lexicon import CUES, OWN_CUES, TURN, cue_names, cues
from rnn_pipeline.features.text import tokenise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Columns of each kind of n-gram.
BUCKETS = 2**17

#: Inverse strength of the L2 penalty, and weight of the lexicon's counts beside unit-length rows;
#: both chosen by three-fold cross-validation on training headlines.
C, CUE_WEIGHT = 5.0, 0.15

#: Words, letters, words with their own cues, words with all cues.
KINDS = 4

_LETTERS = slice(BUCKETS, 2 * BUCKETS)
_N_CUES = 4 * len(CUES)


class NgramClassifier(nn.Module):
    """Logistic regression on n-grams weighted by naive Bayes, and on counts of the lexicon's cues.

    There are four kinds of n-grams: one to three words; two to five letters of a word; and up to
    three words of which those in the lexicon are replaced by their cues, once by those of the word
    itself and once by all, so that what "profit falls" taught holds for "profit tumbles".

    Against each class stand the others. An n-gram that occurs in a text counts as the logarithm of
    the ratio of its shares in the class and outside (Wang and Manning, 2012), and each kind's row
    has length 1.

    Its weights are buffers: they are fitted at once by a convex solver, not by gradient steps.

    Args:
        n_classes: at least 2.
    """

    ratio: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("ratio", torch.zeros(n_classes, KINDS * BUCKETS))
        self.register_buffer("weight", torch.zeros(n_classes, KINDS * BUCKETS + _N_CUES))
        self.register_buffer("bias", torch.zeros(n_classes))

    def fit(self, texts: Sequence[str], targets: np.ndarray) -> None:
        """Learn from texts and their class numbers (n,); all classes must occur."""
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        occurs, told = _occurs(texts), _told(texts)
        n_classes = len(self.ratio)
        inside = np.stack(
            [np.asarray(occurs[targets == k].sum(axis=0)).ravel() for k in range(n_classes)]
        )
        total = inside.sum(axis=0)
        # Unseen n-grams have no weight; a letter n-gram of one text alone only slows the solver.
        used = total > 0
        used[_LETTERS] &= total[_LETTERS] > 1
        ratio = np.stack([_log_ratio(own, total - own, used) for own in inside])
        weight = np.zeros(tuple(self.weight.shape), dtype=np.float32)
        columns = np.flatnonzero(np.append(used, np.ones(_N_CUES, bool)))
        # A sum split over threads depends on their number.
        with threadpool_limits(1):
            for k in range(n_classes):
                solver = LogisticRegression(C=C, max_iter=300)
                solver.fit(_rows(occurs, told, ratio[k])[:, columns], targets == k)
                weight[k, columns] = solver.coef_[0]
                self.bias[k] = float(solver.intercept_[0])
        self.ratio = torch.from_numpy(ratio)
        self.weight = torch.from_numpy(weight)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How likely each class is: (n, n_classes) float64, each row a function of its text."""
        occurs, told = _occurs(texts), _told(texts)
        own = np.empty((len(texts), len(self.ratio)))
        for k, (ratio, weight, bias) in enumerate(
            zip(
                self.ratio.cpu().numpy(), self.weight.cpu().numpy(), self.bias.tolist(), strict=True
            )
        ):
            logits = _rows(occurs, told, ratio) @ weight.astype(np.float64) + bias
            own[:, k] = 1.0 / (1.0 + np.exp(-logits))
        return own / own.sum(axis=1, keepdims=True)


def _log_ratio(inside: np.ndarray, outside: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Of each n-gram's smoothed shares in a class and outside, for each kind by itself: float32."""
    ratio = np.zeros(KINDS * BUCKETS)
    for kind in range(KINDS):
        part = slice(kind * BUCKETS, (kind + 1) * BUCKETS)
        there = used[part]
        if not there.any():
            continue
        own, other = inside[part] + 1.0, outside[part] + 1.0
        ratio[part] = np.log((own / own[there].sum()) / (other / other[there].sum())) * there
    return ratio.astype(np.float32)


def _rows(occurs: csr_matrix, told: np.ndarray, ratio: np.ndarray) -> csr_matrix:
    """(n, KINDS * BUCKETS + _N_CUES): log-ratios, each kind of length 1, and the cues' counts."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import normalize

    rows = occurs.astype(np.float64)
    rows.data = ratio.astype(np.float64)[rows.indices]
    kinds = (normalize(rows[:, k * BUCKETS : (k + 1) * BUCKETS]) for k in range(KINDS))
    return hstack([*kinds, csr_matrix(told * CUE_WEIGHT)], format="csr")


def _occurs(texts: Sequence[str]) -> csr_matrix:
    """Which buckets' n-grams occur in each text: (n, KINDS * BUCKETS), 1 where they do."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    options = {"n_features": BUCKETS, "alternate_sign": False, "norm": None, "binary": True}
    by_word = {"token_pattern": None, "lowercase": False, **options}
    kinds = (
        HashingVectorizer(tokenizer=tokenise, ngram_range=(1, 3), **by_word),
        HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options),
        HashingVectorizer(tokenizer=_with_own_cues, ngram_range=(2, 3), **by_word),
        HashingVectorizer(tokenizer=_with_cues, ngram_range=(1, 3), **by_word),
    )
    return hstack([kind.transform(texts) for kind in kinds], format="csr")


def _with_own_cues(text: str) -> list[str]:
    return cue_names(tokenise(text), OWN_CUES)


def _with_cues(text: str) -> list[str]:
    return cue_names(tokenise(text), len(CUES))


def _told(texts: Sequence[str]) -> np.ndarray:
    """Words that rise, fall, praise, ..., and the same again where a word may turn them."""
    rows = np.empty((len(texts), _N_CUES))
    for row, text in enumerate(texts):
        known = cues(tokenise(text))
        counts = np.concatenate([(known > 0).sum(axis=0), (known < 0).sum(axis=0)])
        rows[row] = np.concatenate([counts, counts * (known[:, TURN] > 0).any()])
    return rows
