"""Raw answers on disk, compressed and addressed by the hash of their content."""

from __future__ import annotations

import gzip
import hashlib
import os
import uuid
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class PayloadStore:
    """Content-addressed files under one folder: ``ab/abcdef….gz``.

    The same bytes are stored once, so re-fetching an unchanged answer costs no space.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the payload with this hash lies."""
        return self.folder / sha256[:2] / f"{sha256}.gz"

    def put(self, content: bytes) -> str:
        """Keep a payload and return the hexadecimal SHA-256 of its content."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.path(sha256).exists():
            # mtime=0 makes the file itself reproducible, not only its content.
            write_atomically(self.path(sha256), gzip.compress(content, mtime=0))
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return a payload.

        Raises:
            FileNotFoundError: no payload with this hash is kept.
            ValueError: the file's content does not have the hash that names it.
        """
        try:
            content = gzip.decompress(self.path(sha256).read_bytes())
        except FileNotFoundError:
            raise FileNotFoundError(f"no payload {sha256} in {self.folder}") from None
        except (OSError, EOFError) as error:
            raise ValueError(f"payload {self.path(sha256)} is damaged: {error}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(
                f"payload {self.path(sha256)} is damaged: its content has another hash"
            )
        return content
