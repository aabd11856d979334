import numpy as np
import pytest

from rnn_pipeline.features.lexicon import CUES, cue_name, cues, known_words
from rnn_pipeline.features.text import tokenise


def test_a_headlines_words_carry_direction_tone_and_turn() -> None:
    tokens = tokenise("Profit doesn't rise, but losses narrowed")
    by_word = dict(zip(tokens, cues(tokens).tolist(), strict=True))
    assert by_word == {
        "profit": [0, 1, 0],
        "does": [0, 0, 0],
        "n't": [0, 0, 1],
        "rise": [1, 0, 0],
        "but": [0, 0, 1],
        "losses": [0, -1, 0],
        "narrowed": [-1, 0, 0],
    }
    assert cues([]).shape == (0, len(CUES))


@pytest.mark.parametrize("word", ["jumps", "jumped", "jumping", "rallies", "rallied", "rising"])
def test_verbs_are_known_in_all_their_forms(word: str) -> None:
    assert known_words()[word][0] == 1


@pytest.mark.parametrize("word", ["slipped", "slipping", "dropped", "eased", "tumbling"])
def test_doubled_consonants_and_silent_letters_are_known(word: str) -> None:
    assert known_words()[word][0] == -1


def test_every_word_can_occur_as_a_token() -> None:
    words = [word for word in known_words() if tokenise(f"x {word}") != ["x", word]]
    assert words == []


def test_cues_stand_for_words_of_the_lexicon_alone() -> None:
    assert cue_name("tumbles") == cue_name("plunged") == "<-00>"
    assert cue_name("shares") == "shares"
    assert np.isin(list(known_words().values()), (-1, 0, 1)).all()
