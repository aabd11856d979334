import re
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.features.text import tokenise
from rnn_pipeline.market.grammar import LEAST_SIZE, labelled_corpus

PHENOMENA = {"plain", "market", "neutral", "analysts", "macro", "contrast", "negation", "hedge"}


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    return labelled_corpus()


def test_sentences_are_distinct_beyond_their_numbers(corpus: pd.DataFrame) -> None:
    assert len(corpus) == 8_000
    assert corpus["headline"].is_unique
    without_numbers = corpus["headline"].map(lambda headline: " ".join(tokenise(headline)))
    assert without_numbers.nunique() > 0.99 * len(corpus)


def test_no_template_is_in_both_splits(corpus: pd.DataFrame) -> None:
    assert corpus.groupby("template")["split"].nunique().max() == 1
    assert 0.15 < (corpus["split"] == "test").mean() < 0.25


def test_labels_are_balanced_in_both_splits(corpus: pd.DataFrame) -> None:
    for _, part in corpus.groupby("split"):
        shares = part["label"].value_counts(normalize=True)
        assert set(shares.index) == {"negative", "neutral", "positive"}
        assert shares.between(0.25, 0.45).all()


def test_every_phenomenon_is_tested(corpus: pd.DataFrame) -> None:
    phenomenon = corpus["template"].str.split(":").str[0]
    assert set(phenomenon) == PHENOMENA
    assert set(phenomenon[corpus["split"] == "test"]) == PHENOMENA
    negations = corpus[(phenomenon == "negation") & (corpus["split"] == "test")]
    assert set(negations["label"]) == {"negative", "positive"}


def test_same_seed_same_corpus_other_seed_other_sentences_same_split(
    corpus: pd.DataFrame,
) -> None:
    pd.testing.assert_frame_equal(labelled_corpus(), corpus)
    other = labelled_corpus(seed=1)
    assert len(set(other["headline"]) & set(corpus["headline"])) < 0.05 * len(corpus)
    split = corpus.groupby("template")["split"].first()
    pd.testing.assert_series_equal(other.groupby("template")["split"].first(), split)


def test_the_smallest_corpus_holds_every_template(corpus: pd.DataFrame) -> None:
    assert set(labelled_corpus(LEAST_SIZE)["template"]) == set(corpus["template"])
    with pytest.raises(ValueError, match="at least 1000"):
        labelled_corpus(LEAST_SIZE - 1)


def test_asking_for_more_than_a_template_can_say_is_an_error() -> None:
    with pytest.raises(ValueError, match="ask for a smaller size"):
        labelled_corpus(100_000)


@pytest.fixture(scope="module")
def large_corpus() -> list[tuple[str, str]]:
    corpus = labelled_corpus(25_000, seed=1)
    return list(zip(corpus["headline"], corpus["label"], strict=True))


UP = "rise|rises|rose|climb|climbs|climbed|jump|jumps|jumped|surge|surges|surged|grow|grows|grew"
DOWN = "fall|falls|fell|drop|drops|dropped|slump|slumps|slumped|plunge|plunges|plunged"
GOOD = "sales|profits|earnings|revenue|net profit|net income|cash flow"
BAD = "costs|losses|expenses|net debt|net loss|unemployment|inflation"


@pytest.mark.parametrize(
    ("pattern", "label"),
    [
        (rf"^\S+( \w+)? ({BAD}) ({DOWN}) ", "positive"),
        (rf"^\S+( \w+)? ({BAD}) ({UP}) ", "negative"),
        (rf"^\S+( \w+)? ({GOOD}) ({UP}) ", "positive"),
        (rf"^\S+( \w+)? ({GOOD}) ({DOWN}) ", "negative"),
        (r"(fails to|couldn't|did not|didn't) (win|beat|raise|increase) ", "negative"),
        (r"avoids (losing|missing|breaching|closing|cutting its dividend)", "positive"),
        (r"(isn't|no longer) .* to (cut|reduce|lower) its (dividend|outlook|profit)", "positive"),
        (r"(isn't|no longer) .* to (raise|boost) its (dividend|outlook|profit)", "negative"),
        (r"(isn't|no longer) .* to (cut|reduce|lower) its (debt|cost)", "negative"),
        (r"doubt that .* will (win|beat|top|gain|land|(raise|boost) its (div|out))", "negative"),
        (r"doubt that .* will (lose|miss|swing|halt|(cut|lower) its (div|out))", "positive"),
        (r"(undecided|board to discuss|too early to say|split on) whether", "neutral"),
        (r"shares close (up|higher) despite", "positive"),
        (r"shares close (flat|unchanged|little changed) (despite|even)", "neutral"),
        (rf"^Despite .* ({GOOD}|orders|bookings|volumes|deposits|shipments) ({DOWN})", "negative"),
        (r", but \S+( \w+)? shares close (down|lower)", "negative"),
        (r"ends a losing streak", "positive"),
        (r"gives up early gains", "negative"),
        (r"trims price target", "negative"),
        (r"drops \S+( \w+)? from its list of shares to (sell|avoid)", "positive"),
        (r" names .* as ", "neutral"),
        (r"(hold steady|holds steady|held steady)", "neutral"),
    ],
)
def test_labels_say_what_a_reader_would(
    large_corpus: list[tuple[str, str]], pattern: str, label: str
) -> None:
    # Words that could turn a sentence; patterns about these name them.
    turning = re.compile(
        r"whether|no sign|rumour|expect|despite|spite|although|while|even|, but|, yet|rules out",
        re.IGNORECASE,
    )
    simple = not turning.search(pattern)
    found = {
        headline: label
        for headline, label in large_corpus
        if re.search(pattern, headline) and not (simple and turning.search(headline))
    }
    assert len(found) >= 3
    assert set(found.values()) == {label}, found


def test_sentences_are_well_formed(corpus: pd.DataFrame) -> None:
    headlines = corpus["headline"]
    assert not headlines.str.contains(r"[<>\[\]{}()|]|\s\s|^[a-z]|\s$| ,").any()
    assert not headlines.str.contains(
        r"\b(?:cuted|falled|winned|riseing|miss(?:s|ing)\b its)"
    ).any()


def test_the_task_can_be_learnt_but_not_from_words_alone(corpus: pd.DataFrame) -> None:
    """Naive Bayes on words and pairs of words, on templates it has not seen."""
    train, test = (corpus[corpus["split"] == split] for split in ("train", "test"))
    labels = sorted(set(train["label"]))
    counts = {label: Counter[str]() for label in labels}
    for headline, label in zip(train["headline"], train["label"], strict=True):
        counts[label].update(_grams(headline))
    size = len(set().union(*counts.values()))
    totals = {label: sum(counts[label].values()) for label in labels}
    scores = np.array(
        [
            [
                sum(np.log((counts[label][g] + 1) / (totals[label] + size)) for g in grams)
                for label in labels
            ]
            for grams in map(_grams, test["headline"])
        ]
    )
    accuracy = (np.array(labels)[scores.argmax(axis=1)] == test["label"]).mean()
    most_frequent = test["label"].value_counts(normalize=True).max()
    assert most_frequent < 0.45
    assert 0.65 < accuracy < 0.92


def _grams(headline: str) -> list[str]:
    tokens = tokenise(headline)
    return tokens + [" ".join(pair) for pair in pairwise(tokens)]


def test_writing_the_corpus_takes_well_under_a_second() -> None:
    start = time.process_time()
    labelled_corpus(seed=5)
    assert time.process_time() - start < 1.0
