"""Raw answers on disk, compressed and addressed by the hash of their content."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from rnn_pipeline.warehouse.files import write_atomically
from rnn_pipeline.warehouse.journal import Journal


class PayloadStore:
    """Content-addressed files under one folder: ``ab/abcdef….gz``.

    The same bytes are stored once, so re-fetching an unchanged answer costs no space. The journal
    of what was fetched, from which the warehouse can be made anew, lies beside them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal")

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
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"payload {self.path(sha256)} is damaged: {error}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(
                f"payload {self.path(sha256)} is damaged: its content has another hash"
            )
        return content
