import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from rnn_pipeline.evidence.text_baseline import tfidf_confusion, tfidf_labels
from rnn_pipeline.networks.sentiment import scores

TEXTS = [
    *("profit rises", "shares rise on profit", "profit rises again"),
    *("loss widens", "shares fall on loss", "loss widens again"),
]
MOODS = ["positive"] * 3 + ["negative"] * 3


def test_words_of_the_training_headlines_decide() -> None:
    asked = ["Profit rises 5%", "LOSS widens!", "widens the loss"]
    assert tfidf_labels(TEXTS, MOODS, asked).tolist() == ["positive", "negative", "negative"]


def test_what_is_asked_beside_a_headline_changes_nothing_of_it() -> None:
    many = tfidf_labels(TEXTS, MOODS, ["profit rises", *["a wholly new phrase"] * 50])
    assert tfidf_labels(TEXTS, MOODS, ["profit rises"])[0] == many[0]


def test_its_figures_are_those_of_scikit_learn() -> None:
    asked = ["profit rises", "loss widens", "shares rise again", "profit again", "a loss"]
    truth = ["positive", "negative", "negative", "positive", "neutral"]
    told = tfidf_labels(TEXTS, MOODS, asked)
    figures = scores(
        tfidf_confusion(
            pd.DataFrame({"headline": TEXTS, "label": MOODS}),
            pd.DataFrame({"headline": asked, "label": truth}),
        )
    )
    assert 0 < figures["accuracy"] == accuracy_score(truth, told) < 1
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, told, average="macro"))
