"""A linear model of n-grams: what stands beside the recurrent networks that read headlines.

N-grams are hard to beat on a few hundred texts, and err elsewhere than a network does. They are
hashed (Weinberger et al., 2009), so that no list of them has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class CountedTexts:
    """What the model is told of texts; each row is a function of its text."""

    occurs: csr_matrix
    """(n, KINDS * BUCKETS): 1 in the buckets of the n-grams that occur."""
    told: np.ndarray
    """(n, 4 * len(CUES)): words that rise, fall, praise, ..., and the same again where a word may
    turn them."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> CountedTexts:
        """Read texts."""
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import HashingVectorizer

        tokens = [tokenise(text) for text in texts]
        known = [cues(words) for words in tokens]
        own, every = (
            [cue_names(words, told[:, :n]) for words, told in zip(tokens, known, strict=True)]
            for n in (OWN_CUES, len(CUES))
        )
        options = {"n_features": BUCKETS, "alternate_sign": False, "norm": None, "binary": True}
        of_words = {"analyzer": "word", "tokenizer": _as_it_is, "token_pattern": None, **options}
        of_words |= {"preprocessor": _as_it_is}
        kinds = [
            HashingVectorizer(ngram_range=(1, 3), **of_words).transform(tokens),
            HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options).transform(texts),
            HashingVectorizer(ngram_range=(2, 3), **of_words).transform(own),
            HashingVectorizer(ngram_range=(1, 3), **of_words).transform(every),
        ]
        told = np.empty((len(texts), _N_CUES))
        for row, signs in enumerate(known):
            counts = np.concatenate([(signs > 0).sum(axis=0), (signs < 0).sum(axis=0)])
            told[row] = np.concatenate([counts, counts * (signs[:, TURN] > 0).any()])
        return cls(hstack(kinds, format="csr"), told)

    def part(self, rows: np.ndarray) -> CountedTexts:
        """Some of the texts."""
        return CountedTexts(self.occurs[rows], self.told[rows])


class NgramClassifier(nn.Module):
    """Logistic regressions on n-grams and on counts of the lexicon's cues.

    There are four kinds of n-grams: one to three words; two to five letters of a word; and up to
    three words of which those in the lexicon are replaced by their cues, once by those of the word
    itself and once by all, so that what "profit falls" taught holds for "profit tumbles".

    Against each class stand the others, twice: an n-gram that occurs in a text counts as the
    logarithm of the ratio of its shares in the class and outside (naive Bayes; Wang and Manning,
    2012), and as how rare it is (inverse document frequency). Each kind's row has length 1. The two
    answers are averaged: the first knows more where texts resemble those it has seen, the second
    where they do not.

    Its weights are buffers: they are fitted at once by a convex solver, not by gradient steps.

    Args:
        n_classes: at least 2.
    """

    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        # What an n-gram counts as: for each class by naive Bayes, and last, for all, by rarity.
        self.register_buffer("scale", torch.zeros(n_classes + 1, KINDS * BUCKETS))
        self.register_buffer("weight", torch.zeros(2, n_classes, KINDS * BUCKETS + _N_CUES))
        self.register_buffer("bias", torch.zeros(2, n_classes))

    def fit(self, texts: CountedTexts, targets: np.ndarray) -> None:
        """Learn from texts and their class numbers (n,); all classes must occur."""
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        occurs = texts.occurs
        n_classes = self.bias.shape[1]
        inside = np.stack(
            [np.asarray(occurs[targets == k].sum(axis=0)).ravel() for k in range(n_classes)]
        )
        total = inside.sum(axis=0)
        # Unseen n-grams have no weight; a letter n-gram of one text alone only slows the solver.
        used = total > 0
        used[_LETTERS] &= total[_LETTERS] > 1
        rarity = (np.log((1 + len(targets)) / (1 + total)) + 1) * used
        ratios = [_log_ratio(own, total - own, used) for own in inside]
        scale = np.stack([*ratios, rarity.astype(np.float32)])
        weight = np.zeros(tuple(self.weight.shape), dtype=np.float32)
        columns = np.flatnonzero(np.append(used, np.ones(_N_CUES, bool)))
        # A sum split over threads depends on their number.
        with threadpool_limits(1):
            for way, k, rows in _ways(texts, scale):
                solver = LogisticRegression(C=C, max_iter=300)
                solver.fit(rows[:, columns], targets == k)
                weight[way, k, columns] = solver.coef_[0]
                self.bias[way, k] = float(solver.intercept_[0])
        self.scale = torch.from_numpy(scale)
        self.weight = torch.from_numpy(weight)

    def probabilities(self, texts: CountedTexts) -> np.ndarray:
        """How likely each class is: (n, n_classes) float64, each row a function of its text."""
        weight, bias = (one.cpu().double().numpy() for one in (self.weight, self.bias))
        own = np.empty((2, len(texts.told), len(bias[0])))
        for way, k, rows in _ways(texts, self.scale.cpu().numpy()):
            own[way, :, k] = 1.0 / (1.0 + np.exp(-(rows @ weight[way, k] + bias[way, k])))
        return np.asarray((own / own.sum(axis=2, keepdims=True)).mean(axis=0))


def _ways(texts: CountedTexts, scale: np.ndarray) -> Iterator[tuple[int, int, csr_matrix]]:
    """What each regression is shown: 0 for naive Bayes or 1 for rarity, the class, the rows."""
    by_rarity = _rows(texts, scale[-1])
    for k in range(len(scale) - 1):
        yield 0, k, _rows(texts, scale[k])
        yield 1, k, by_rarity


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


def _rows(texts: CountedTexts, scale: np.ndarray) -> csr_matrix:
    """(n, KINDS * BUCKETS + _N_CUES): n-grams, each kind of length 1, and the cues' counts."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import normalize

    rows = texts.occurs.astype(np.float64)
    rows.data = scale.astype(np.float64)[rows.indices]
    kinds = (normalize(rows[:, k * BUCKETS : (k + 1) * BUCKETS]) for k in range(KINDS))
    return hstack([*kinds, csr_matrix(texts.told * CUE_WEIGHT)], format="csr")


def _as_it_is(tokens: list[str]) -> list[str]:
    return tokens
