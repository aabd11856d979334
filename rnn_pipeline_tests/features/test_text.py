import json
import time

import numpy as np
import pytest

from rnn_pipeline.features.text import PAD, UNK, Vocabulary, tokenise


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Apple's Q3 profit rises", "apple 's q3 profit rises"),
        ("up +3.5% or -2 percent, not 10-20 pct", "up +<pct> or -<pct> not <num> <pct>"),
        ("falls –5% to $1.2bn, €340 million", "falls -<pct> to <money> <money> million"),
        ("1,200 jobs; 20-day high, 4th time", "<num> jobs <num> day high <num> time"),
        ("won't, can’t, doesn't", "wo n't ca n't does n't"),
        ("AT&amp;T beats S&P 500 &quot;now&quot;", "at&t beats s&p <num> now"),
        ("<b>Bold</b> &lt;script&gt;x", "bold x"),
        ("<script a=1>alert(1)</script> &lt;STYLE&gt;p{}&lt;/style&gt;a <scripts>b", "a b"),
        ("3 < 4 and 5 > 2", "<num> <num> and <num> <num>"),
        ("U.S. 5G deal?!", "u.s. 5g deal ? !"),
        ("🚀🚀🏽 to the ▲", "🚀 🚀 to the ▲"),
        ("re\u200bsult \u202eabc", "result abc"),
        ("naïve ＡＢＣ ١٢ ％", "naïve abc <pct>"),
        ("", ""),
        (" -- … \t\n", ""),
    ],
)
def test_tokenise(text: str, tokens: str) -> None:
    assert tokenise(text) == tokens.split()


@pytest.mark.parametrize("value", [None, float("nan"), 3])
def test_a_text_must_be_a_string(value: object) -> None:
    with pytest.raises(ValueError, match="must be a string"):
        tokenise(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1,",
        "<a",
        "<script>",
        "</script ",
        "n't",
        "&amp;",
        "a&",
        "a.",
        "$ ",
        "🚀",
        "'",
        "<",
        "\ufdfa",
        "us$",
        "-",
    ],
)
def test_hostile_titles_take_linear_time(unit: str) -> None:
    start = time.process_time()
    tokenise(unit * (100_000 // len(unit)))
    assert time.process_time() - start < 1.0


def test_vocabulary_is_ordered_by_frequency_then_alphabet() -> None:
    texts = ["beta alpha", "alpha beta gamma", "delta gamma alpha", "rare"]
    vocabulary = Vocabulary.build(texts, max_vocab=100, min_freq=2)
    assert vocabulary.words == (PAD, UNK, "alpha", "beta", "gamma")
    assert len(vocabulary) == 5
    assert Vocabulary.build(reversed(texts), 100, 2) == vocabulary
    assert Vocabulary.build(texts, max_vocab=4, min_freq=1).words == (PAD, UNK, "alpha", "beta")


def test_encode_gives_true_lengths_and_unknown_words() -> None:
    vocabulary = Vocabulary((PAD, UNK, "shares", "rise", "<pct>"))
    ids, lengths = vocabulary.encode(
        ["Shares rise 5%", "shares plunge", "", "rise " * 9], max_len=4
    )
    np.testing.assert_array_equal(ids, [[2, 3, 4, 0], [2, 1, 0, 0], [1, 0, 0, 0], [3, 3, 3, 3]])
    np.testing.assert_array_equal(lengths, [3, 2, 1, 4])
    assert ids.dtype == lengths.dtype == np.int64


def test_encode_no_texts() -> None:
    ids, lengths = Vocabulary((PAD, UNK)).encode([], max_len=3)
    assert ids.shape == (0, 3)
    assert lengths.shape == (0,)


def test_json_round_trip() -> None:
    vocabulary = Vocabulary.build(["ups & downs 🚀", "naïve"], max_vocab=10, min_freq=1)
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_bad_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="starts with"):
        Vocabulary(("the", PAD, UNK))
    with pytest.raises(ValueError, match="'the' stands twice"):
        Vocabulary((PAD, UNK, "the", "the"))
    with pytest.raises(ValueError, match="no word is left of 2 with min_freq=2"):
        Vocabulary.build(["one two"], max_vocab=10, min_freq=2)
    with pytest.raises(ValueError, match="max_vocab=2"):
        Vocabulary.build(["one one"], max_vocab=2, min_freq=1)
    with pytest.raises(ValueError, match="max_len must be at least 1, got 0"):
        Vocabulary((PAD, UNK)).encode(["a"], max_len=0)
