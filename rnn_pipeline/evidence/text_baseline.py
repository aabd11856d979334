"""What a sentiment network must beat: counted words, without their order.

TF-IDF of words and pairs of words and a logistic regression on top: the baseline of the literature
on headlines. It reads the tokens that the network reads, learns from the same rows and is judged
on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rnn_pipeline.features.text import tokenise

STRENGTH = 10.0
"""Inverse of the penalty; customary for TF-IDF, and not searched for."""


def tfidf_confusion(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Learn from labelled headlines and count how others are labelled.

    Args:
        train: headline, label; the vocabulary comes from these headlines alone.
        test: likewise.

    Returns:
        Counts by true label (index) and predicted label (columns), in one order.

    Raises:
        ValueError: no word stands in two training headlines, or they have one label.
    """
    predicted = tfidf_labels(train["headline"], train["label"], test["headline"])
    labels = sorted({*train["label"], *test["label"]})
    counts = pd.crosstab(test["label"].to_numpy(), predicted)
    return counts.reindex(index=labels, columns=labels, fill_value=0)


def tfidf_labels(texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]) -> np.ndarray:
    """Learn from labelled headlines and label others.

    Args:
        texts: training headlines; the vocabulary comes from them alone.
        labels: one per text, of at least two kinds.
        asked: headlines to be labelled.

    Returns:
        (len(asked),) labels.

    Raises:
        ValueError: no word of the training headlines stands in two of them, or one kind of label.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    words = TfidfVectorizer(
        tokenizer=tokenise,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 2),
        min_df=2,
        sublinear_tf=True,
    )
    model = make_pipeline(words, LogisticRegression(C=STRENGTH, max_iter=1000))
    with threadpool_limits(1):
        return model.fit(list(texts), list(labels)).predict(list(asked))
