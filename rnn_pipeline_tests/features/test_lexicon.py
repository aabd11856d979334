import numpy as np
import pytest

from rnn_pipeline.features import lexicon
from rnn_pipeline.features.lexicon import CUES, OWN_CUES, TONE, cue_names, cues, known_words
from rnn_pipeline.features.text import tokenise


def told(headline: str) -> dict[str, dict[str, float]]:
    """By word: the cues that are not 0."""
    tokens = tokenise(headline)
    return {
        token: {cue: sign for cue, sign in zip(CUES, row, strict=True) if sign}
        for token, row in zip(tokens, cues(tokens).tolist(), strict=True)
    }


def test_a_headlines_words_carry_what_is_known_of_them() -> None:
    assert told("Profit doesn't rise, but losses narrowed") == {
        "profit": {"tone": 1, "thing": 1},
        "does": {"doubt": 1},
        "n't": {"turn": 1},
        "rise": {"direction": 1},
        "but": {"turn": 1},
        "losses": {"tone": -1, "thing": -1},
        "narrowed": {"direction": -1},
    }
    assert told("Analyst says buy, CEO may sell") == {
        "analyst": {},
        "says": {"plain": 1},
        "buy": {"tone": 1, "advice": 1},
        "ceo": {"plain": 1},
        "may": {"turn": 1, "doubt": 1},
        "sell": {"tone": -1, "advice": -1},
    }
    assert cues([]).shape == (0, len(CUES))


def test_the_words_of_a_phrase_have_its_tone_and_the_longest_phrase_wins() -> None:
    assert told("stay away") == {"stay": {"tone": -1}, "away": {"tone": -1}}
    assert told("stay long") == {"stay": {"tone": 1}, "long": {"tone": 1}}
    narrows = cues(tokenise("Acme net loss narrows"))
    assert narrows[:, TONE].tolist() == [0, 1, 1, 1]
    assert cues(tokenise("Acme net loss grows"))[:3, TONE].tolist() == [0, -1, -1]
    # A phrase that breaks off is none.
    assert cues(["stay"])[0, TONE] == 0


@pytest.mark.parametrize("word", ["jumps", "jumped", "jumping", "rallies", "rallied", "rising"])
def test_verbs_are_known_in_all_their_forms(word: str) -> None:
    assert known_words()[word][0] == 1


@pytest.mark.parametrize("word", ["slipped", "slipping", "dropped", "eased", "tumbling"])
def test_doubled_consonants_and_silent_letters_are_known(word: str) -> None:
    assert known_words()[word][0] == -1


def test_every_word_and_phrase_can_occur_as_tokens() -> None:
    words = [word for word in known_words() if tokenise(f"x {word}") != ["x", word]]
    assert words == []
    phrases = [" ".join(words) for found in lexicon._phrases().values() for words, _ in found]
    assert [p for p in phrases if tokenise(p.replace(" n't", "n't")) != p.split()] == []


def test_cues_stand_for_words_of_the_lexicon_alone() -> None:
    tokens = ["tumbles", "plunged", "acme", "shares"]
    known = cues(tokens)
    # Of its own, what moves has no sign.
    assert cue_names(tokens, known[:, :OWN_CUES]) == ["<-00>", "<-00>", "acme", "shares"]
    assert cue_names(["shares"], known[3:]) == ["<000+000>"]
    assert np.isin(list(known_words().values()), (-1, 0, 1)).all()
