"""Labelled headlines from a file, in the layouts in which such data is published."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pandas as pd

LABELS = ("negative", "neutral", "positive")

#: Share of headlines that are for testing.
TEST_SHARE = 0.2

_TEXT_COLUMNS = ("headline", "title", "sentence", "text")
_LABEL_COLUMNS = ("label", "sentiment", "decisions")


def read_labels(path: Path) -> pd.DataFrame:
    """Read headlines labelled negative, neutral or positive.

    Layouts: CSV or Parquet with ``headline, label`` (and ``split``, if there is one); SEntFiN's
    (``Title`` and ``Decisions``, a label per company: kept where all companies share one);
    Financial PhraseBank's text files (``sentence@label``, Latin-1). Without a ``split`` a fifth is
    for testing, chosen by the headline's own words, so that it stays so when rows are added.

    Args:
        path: a ``.csv``, ``.parquet`` or ``.txt`` file.

    Returns:
        headline, label, split ("train" or "test"), each headline once.

    Raises:
        ValueError: the file cannot be read, lacks a column or holds another label.
    """
    try:
        rows = _read(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"labels {path} cannot be read: {str(error).splitlines()[0]}") from None
    rows = rows.dropna(subset=["headline", "label"])
    rows["label"] = rows["label"].astype(str).str.strip().str.lower()
    if len(strange := rows[~rows["label"].isin(LABELS)]):
        raise ValueError(
            f"labels {path}: {strange['label'].iloc[0]!r} is no label: use {', '.join(LABELS)}"
        )
    if rows.empty:
        raise ValueError(f"labels {path} holds no labelled headline")
    if "split" not in rows:
        rows["split"] = ["test" if _for_testing(text) else "train" for text in rows["headline"]]
    rows = rows.drop_duplicates("headline", ignore_index=True)
    return rows[["headline", "label", "split"]]


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".txt":
        lines = path.read_text(encoding="latin-1").splitlines()
        pairs = [line.rsplit("@", 1) for line in lines if line.strip()]
        return pd.DataFrame(pairs, columns=["headline", "label"])
    rows = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    rows.columns = pd.Index([str(name).strip().lower() for name in rows.columns])
    headline = _found(rows, _TEXT_COLUMNS)
    label = _found(rows, _LABEL_COLUMNS)
    rows = rows.rename(columns={headline: "headline", label: "label"})
    if label == "decisions":
        rows["label"] = [_agreed(text) for text in rows["label"]]
    return rows


def _found(rows: pd.DataFrame, names: tuple[str, ...]) -> str:
    for name in names:
        if name in rows:
            return name
    raise ValueError(f"it needs a column {' or '.join(names)}; it has {', '.join(rows.columns)}")


def _agreed(decisions: str) -> str | None:
    """The label that all companies of a headline share; None if they differ."""
    labels = set(ast.literal_eval(decisions).values())
    return labels.pop() if len(labels) == 1 else None


def _for_testing(headline: str) -> bool:
    digest = hashlib.sha256(" ".join(headline.lower().split()).encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64
