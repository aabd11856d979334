"""From headlines to word ids: a tokeniser made of regular expressions, and a vocabulary.

Tokens follow the Penn Treebank where it matters (``n't`` and ``'s`` stand apart), because that is
how published word vectors were trained and because one ``n't`` then negates every verb. Numbers
become classes: a network cannot learn from each of them, only from their sign and kind.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PAD, UNK = "<PAD>", "<UNK>"

# Format characters (zero-width, bidirectional marks, soft hyphens), variation selectors and skin
# tones carry no meaning here, and would make two words or two emoji of one.
_IGNORED = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff\U0001f3fb-\U0001f3ff]"
)
_TAG = re.compile(
    r"<(script|style)\b[^<>]*>[^<]*</\1\s*>"  # their content is code
    r"|</?[a-z!][^<>]*>",
    re.IGNORECASE,
)
_PLAIN = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "–": "-", "—": "-", "−": "-"})
_NEGATION = re.compile(r"n't\b")

# A sign belongs to a number only where no word or number comes before it: "up +3%", not "2-3%".
_TOKEN = re.compile(
    r"""
    (?P<number>
        (?P<sign>(?<![\w.)%])[+-])?
        (?P<currency>(?:[a-z]{0,2}[$€£¥₹])\s?)?
        \.?\d+(?:[.,:/]\d+)*
        (?:st|nd|rd|th|k|mn?|mln|bn?|tn|x)?
        (?![^\W_])
        (?P<percent>\s?(?:%|percent\b|per\ cent\b|pct\b))?
    )
    | n't\b
    | '(?:s|re|ve|ll|d|m)\b
    | (?:[^\W\d_]\.){2,}                    # u.s.
    | [^\W_]+(?:&[^\W_]+)*                  # words, q3, 5g, s&p
    | [\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]    # arrows, symbols, emoji
    | [?!]
    """,
    re.VERBOSE,
)


def tokenise(text: str) -> list[str]:
    """Split a headline into lower-case tokens.

    Numbers become ``<num>``, ``<pct>`` or ``<money>``, with their sign in front if they have one
    (``-<pct>``). Of punctuation only ``?`` and ``!`` stay; each emoji is one token. HTML tags
    and scripts are dropped and entities resolved. Time is linear in the length of the text.

    Raises:
        ValueError: ``text`` is not a string.
    """
    if not isinstance(text, str):
        raise ValueError(f"a text must be a string, got {text!r}: drop or fill missing titles")
    text = unicodedata.normalize("NFKC", _TAG.sub(" ", html.unescape(text))).translate(_PLAIN)
    text = _NEGATION.sub(" n't", _IGNORED.sub("", text).lower())
    return [_number_class(match) or match.group() for match in _TOKEN.finditer(text)]


def _number_class(match: re.Match[str]) -> str:
    """The class of a number with its sign, or an empty string for any other token."""
    if not match["number"]:
        return ""
    kind = "<pct>" if match["percent"] else "<money>" if match["currency"] else "<num>"
    return (match["sign"] or "") + kind


@dataclass(frozen=True)
class Vocabulary:
    """The words a network knows, by id: ``<PAD>`` is 0, ``<UNK>`` 1, then the most frequent first.

    Raises:
        ValueError: the first two words are not those, or a word is repeated.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:2] != (PAD, UNK):
            raise ValueError(f"a vocabulary starts with {PAD}, {UNK}, got {self.words[:2]}")
        if len(set(self.words)) < len(self.words):
            repeated = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"the word {repeated!r} stands twice in the vocabulary")

    @classmethod
    def build(cls, texts: Iterable[str], max_vocab: int, min_freq: int) -> Vocabulary:
        """Learn the words of training texts; texts to be judged later must not be among them.

        Args:
            texts: headlines of the training rows alone.
            max_vocab: most words kept, ``<PAD>`` and ``<UNK>`` included; the rarest go first,
                and of equally frequent words the last in the alphabet.
            min_freq: occurrences a word needs. With 2 or more, words seen once train ``<UNK>``.

        Raises:
            ValueError: no word is left.
        """
        counts = Counter(token for text in texts for token in tokenise(text))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [word for word, count in ranked if count >= min_freq][: max(max_vocab - 2, 0)]
        if not kept:
            raise ValueError(
                f"no word is left of {len(counts)} with min_freq={min_freq} and"
                f" max_vocab={max_vocab}: give more texts, or lower min_freq"
            )
        return cls((PAD, UNK, *kept))

    @classmethod
    def from_json(cls, words: Sequence[str]) -> Vocabulary:
        """The vocabulary that :meth:`to_json` described."""
        return cls(tuple(words))

    def to_json(self) -> list[str]:
        """The words in the order of their ids, for JSON."""
        return list(self.words)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """Word to id."""
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str], max_len: int) -> tuple[np.ndarray, np.ndarray]:
        """Word ids of texts, padded behind, and how many of them are real.

        A text without any token becomes one ``<UNK>``, so that every sequence has a last state.

        Returns:
            ``ids`` int64 of shape (n, max_len), the first ``max_len`` tokens of each text, and
            ``lengths`` int64 of shape (n,) within 1 and ``max_len``.

        Raises:
            ValueError: ``max_len`` is less than 1, or a text is not a string.
        """
        if max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        ids = np.zeros((len(texts), max_len), dtype=np.int64)
        lengths = np.ones(len(texts), dtype=np.int64)
        unknown = self.index[UNK]
        for row, text in enumerate(texts):
            known = [self.index.get(token, unknown) for token in tokenise(text)[:max_len]]
            known = known or [unknown]
            ids[row, : len(known)] = known
            lengths[row] = len(known)
        return ids, lengths
