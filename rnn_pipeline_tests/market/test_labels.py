"""Labelled headlines in the layouts in which they are published."""

import pandas as pd
import pytest

from rnn_pipeline.market.labels import read_labels

PAIRS = [("Profit rises", "positive"), ("Sales fall", "negative"), ("Board meets", "neutral")]


def pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["headline"], frame["label"], strict=True))


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_headline_and_label(tmp_path, name):
    frame = pd.DataFrame(PAIRS, columns=["headline", "label"])
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    assert pairs(read_labels(path)) == PAIRS


def test_sentfin_keeps_headlines_whose_companies_agree(tmp_path):
    path = tmp_path / "SEntFiN-v1.1.csv"
    path.write_text(
        "S No.,Title,Decisions,Words\n"
        "1,Profit rises,\"{'Acme': 'positive'}\",2\n"
        "2,Acme gains on Bolt,\"{'Acme': 'positive', 'Bolt': 'negative'}\",4\n"
        "3,Both fall,\"{'Acme': 'negative', 'Bolt': 'negative'}\",2\n"
    )
    assert pairs(read_labels(path)) == [("Profit rises", "positive"), ("Both fall", "negative")]


def test_phrasebank_is_latin_1_with_an_at_sign_before_the_label(tmp_path):
    path = tmp_path / "Sentences_AllAgree.txt"
    path.write_bytes("Myynti kasvoi Itämerellä@positive\nmail a@b.fi@neutral\n\n".encode("latin-1"))
    assert pairs(read_labels(path)) == [
        ("Myynti kasvoi Itämerellä", "positive"),
        ("mail a@b.fi", "neutral"),
    ]


def test_a_fifth_is_for_testing_and_stays_so(tmp_path):
    rows = pd.DataFrame({"headline": [f"Line {n}" for n in range(2000)], "label": "neutral"})
    path = tmp_path / "labels.csv"
    rows.to_csv(path, index=False)
    split = read_labels(path).set_index("headline")["split"]
    assert 0.17 < (split == "test").mean() < 0.23
    rows[500:].to_csv(path, index=False)
    pd.testing.assert_series_equal(read_labels(path).set_index("headline")["split"], split[500:])


def test_a_split_of_its_own_is_kept_and_repeats_are_dropped(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("headline,label,split\nA,positive,test\nA,positive,train\nB,NEUTRAL ,train\n")
    assert read_labels(path).to_numpy().tolist() == [
        ["A", "positive", "test"],
        ["B", "neutral", "train"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("headline,label\nA,bullish\n", "'bullish' is no label: use negative, neutral, positive"),
        ("headline,mood\nA,positive\n", "needs a column label or sentiment or decisions"),
        ("headline,label\n", "holds no labelled headline"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(path)
    assert "\n" not in str(error.value)
