"""What made a signal: hashes of the data, features, code and networks that it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.features.windows import ModelMatrix

LINEAGE = ("data_hash", "feature_set_hash", "code_version", "model_hash")
_KEYS = ["ticker", "session"]
_SENTIMENT = ("sentiment", "news_count", "sentiment_mean_5", "sentiment_std_5")


def price_lineage(forecasts: pd.DataFrame, matrix: ModelMatrix, lookback: int) -> pd.DataFrame:
    """Name what the price signals rest on.

    Args:
        forecasts: ticker, session, feature_set_hash, code_version, model_hash.
        matrix: the features that were forecast from, ``lookback - 1`` rows before included.
        lookback: rows in one window.

    Returns:
        One row per ticker and session of ``forecasts``: data_hash (of the window of features that
        the networks were shown, before scaling), feature_set_hash (of what computed these),
        code_version (of training, and of all that makes signals of forecasts), model_hash (of all
        networks that forecast, joined by commas).
    """
    made = _together(forecasts, ["feature_set_hash", "code_version", "model_hash"])
    shown = []
    for ticker, own in made.groupby("ticker"):
        rows = matrix.rows_of(str(ticker))
        days = own["session"].to_numpy().astype("datetime64[D]")
        ends = rows.start + np.searchsorted(matrix.sessions[rows].astype("datetime64[D]"), days)
        shown += [
            _hash(matrix.values[max(end + 1 - lookback, rows.start) : end + 1]) for end in ends
        ]
    code = {version: _short(f"{version} {signal_code()}") for version in set(made["code_version"])}
    return made.assign(
        data_hash=pd.Series(shown, index=made.index, dtype="str"),
        code_version=made["code_version"].map(code).astype("str"),
    )[[*_KEYS, *LINEAGE]]


def sentiment_lineage(news_sentiment: pd.DataFrame) -> pd.DataFrame:
    """Name what the sentiment signals rest on.

    Args:
        news_sentiment: ticker, session, the columns of sentiment, and model_hash.

    Returns:
        ticker, session, data_hash (of the row's sentiment), code_version, model_hash.
    """
    require(news_sentiment, "news_sentiment", (*_KEYS, *_SENTIMENT, "model_hash"))
    rows = news_sentiment[list(_SENTIMENT)].to_numpy(dtype=np.float64)
    return news_sentiment[[*_KEYS, "model_hash"]].assign(
        data_hash=pd.Series(map(_hash, rows), index=news_sentiment.index, dtype="str"),
        code_version=_short(signal_code()),
    )


def fused_lineage(price: pd.DataFrame, sentiment: pd.DataFrame) -> pd.DataFrame:
    """Name what the trading signals rest on: what both of their sources do.

    Args:
        price: ticker, session and `LINEAGE`.
        sentiment: ticker, session, data_hash, model_hash; a row of ``price`` may have none here.

    Returns:
        ticker, session and `LINEAGE`, one row per row of ``price``.
    """
    both = price[[*_KEYS, *LINEAGE]].merge(
        sentiment[[*_KEYS, "data_hash", "model_hash"]], on=_KEYS, how="left", suffixes=("", "_news")
    )
    data = [
        _short(_joined(pair))
        for pair in zip(both["data_hash"], both["data_hash_news"], strict=True)
    ]
    models = [
        _joined(pair) for pair in zip(both["model_hash"], both["model_hash_news"], strict=True)
    ]
    return both.assign(
        data_hash=pd.Series(data, dtype="str"), model_hash=pd.Series(models, dtype="str")
    )[[*_KEYS, *LINEAGE]]


@cache
def signal_code() -> str:
    """Short hash of the source that makes signals and decisions of forecasts."""
    digest = hashlib.sha256()
    for wing in ("rnn_pipeline.evidence", "rnn_pipeline.trading"):
        found = find_spec(wing)
        for folder in found.submodule_search_locations or () if found else ():
            for path in sorted(Path(folder).glob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _joined(hashes: Iterable[object]) -> str:
    """Hashes in alphabetical order, each once; a list of hashes counts as its members."""
    members = {part for text in hashes if isinstance(text, str) for part in text.split(",")}
    return ",".join(sorted(members))


def _together(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row per ticker and session, with all its hashes of each column, joined by commas.

    Few combinations occur, so each is joined once.
    """
    keys = rows[_KEYS].drop_duplicates().sort_values(_KEYS, ignore_index=True)
    for column in columns:
        codes, names = pd.factorize(rows[column], sort=True)
        each = rows[_KEYS].assign(code=codes).drop_duplicates().sort_values([*_KEYS, "code"])
        sizes = each.groupby(_KEYS)["code"].transform("size").to_numpy()
        texts = np.empty(len(each), dtype=object)
        for size in np.unique(sizes):
            of_size = sizes == size
            sets, place = np.unique(
                each["code"].to_numpy()[of_size].reshape(-1, size), axis=0, return_inverse=True
            )
            joined = np.array([",".join(names[members]) for members in sets], dtype=object)
            texts[of_size] = np.repeat(joined[place.ravel()], size)
        told = each[_KEYS].assign(**{column: pd.Series(texts, index=each.index, dtype="str")})
        keys = keys.merge(told.drop_duplicates(_KEYS), on=_KEYS)
    return keys


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
