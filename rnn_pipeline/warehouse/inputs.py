"""What the rows of a session rest on, as one digest: how a daily run knows what is new.

Row *t* of any table rests on what was known at the close of *t*. So it stands as long as nothing
that was known by then has changed, and an input is a query that dates changes: it gives a session
and the digest of what came to be known with it. The digest of *t* is that of everything dated up
to *t*; from the first session on whose digest differs, rows are made again.

A revision of an old bar is dated to the session on whose evening it was known, as the rows that
may use it are (see ``Warehouse.bars_by_era``): what was made before it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd

from rnn_pipeline.warehouse.schema import TABLES
from rnn_pipeline.warehouse.store import Batch, Warehouse

#: The session of what has none: it is dated before all others.
UNDATED = date(1900, 1, 1)

# By when the bars of a session, and of all before it, had come in. A row that became known later
# is dated to the first session that could know it.
_CLOSES = """
WITH evenings AS (
    SELECT session, max(max(known_at)) OVER (ORDER BY session) AS known
    FROM raw_ohlcv WHERE revision = 0 AND is_final GROUP BY session
),
closes AS (SELECT min(session) AS evening, known FROM evenings GROUP BY known)
"""

#: Final bars, every revision of them.
BARS = f"""{_CLOSES}
SELECT greatest(session, evening) AS session, bit_xor(hash(
    ticker, session, revision, known_at, open, high, low, close, adj_close, volume
)) AS digest
FROM raw_ohlcv ASOF JOIN closes ON known_at <= known WHERE is_final GROUP BY ALL
"""

#: Headlines as they were first seen.
HEADLINES = f"""{_CLOSES}
SELECT evening AS session, bit_xor(hash(ticker, news_id, usable_at, title)) AS digest
FROM raw_news ASOF JOIN closes ON usable_at <= known WHERE revision = 0 GROUP BY ALL
"""


#: Headlines and their edits, whatever session they belong to.
ALL_HEADLINES = f"""
SELECT DATE '{UNDATED}' AS session, bit_xor(hash(ticker, news_id, revision)) AS digest FROM raw_news
"""


def rows_of(table: str, day: str = "session") -> str:
    """The rows of a table, dated by one of its columns."""
    return (
        f"SELECT {day} AS session, bit_xor(hash(it)) AS digest"
        f" FROM (SELECT COLUMNS(lambda name: name <> 'run_id') FROM {table}) AS it GROUP BY {day}"
    )


def whole(table: str) -> str:
    """A table of which every session may use all rows."""
    return (
        f"SELECT DATE '{UNDATED}' AS session, bit_xor(hash(it)) AS digest"
        f" FROM (SELECT COLUMNS(lambda name: name <> 'run_id') FROM {table}) AS it"
    )


def made(*assets: str) -> str:
    """What assets made of a session, told by what they made it from."""
    names = ", ".join(f"'{asset}'" for asset in assets)
    return (
        "SELECT session, bit_xor(hash(asset, session, inputs)) AS digest"
        f" FROM made_from WHERE asset IN ({names}) GROUP BY session"
    )


def undated(query: str) -> str:
    """All of an input, for an asset that rests on it as a whole."""
    return f"SELECT DATE '{UNDATED}' AS session, bit_xor(digest) AS digest FROM ({query})"


def digests(
    store: Warehouse, asset: str, sessions: Sequence[date], queries: Iterable[str], made_by: str
) -> dict[date, str]:
    """One digest per session of everything that the queries date up to it.

    Each holds the digest of the session before: an account, or a refit, goes on from there.

    Args:
        store: the warehouse.
        asset: whose records say what the session before ``sessions`` was made from.
        sessions: in their order.
        queries: of this module; each gives sessions and digests.
        made_by: names what else the rows rest on: code, settings, tickers.
    """
    if not sessions:
        return {}
    axis = np.array(sessions, dtype="datetime64[D]")
    columns = []
    with store.connection() as connection:
        before = connection.execute(
            "SELECT inputs FROM made_from WHERE asset = ? AND session < ?"
            " ORDER BY session DESC LIMIT 1",
            [asset, sessions[0]],
        ).fetchone()
        for query in queries:
            rows = connection.execute(query).fetchnumpy()
            place = axis.searchsorted(_days(rows["session"]))
            by_session = np.zeros(len(axis) + 1, np.uint64)
            values = np.ma.filled(rows["digest"], 0).astype(np.uint64)
            np.bitwise_xor.at(by_session, place, values)
            columns.append(np.bitwise_xor.accumulate(by_session)[:-1])
    found = {}
    digest = before[0] if before else ""
    for session, parts in zip(sessions, np.column_stack(columns), strict=True):
        digest = hashlib.sha256(f"{digest} {made_by} {parts.tolist()}".encode()).hexdigest()[:16]
        found[session] = digest
    return found


def standing(store: Warehouse, asset: str, sessions: Sequence[date]) -> dict[date, str]:
    """What sessions of an asset were made from, of those whose rows are all still there."""
    span = [min(sessions), max(sessions)]
    with store.connection() as connection:
        rows = connection.execute(
            "SELECT session, inputs FROM made_from"
            f" LEFT JOIN ({_counted(asset)}) AS there USING (session)"
            " WHERE asset = ? AND session BETWEEN ? AND ? AND rows = coalesce(n, 0)",
            [*span, asset, *span],
        ).fetchall()
    return dict(rows)


def first_unfinished(
    store: Warehouse, tickers: Sequence[str], begins: date, before: date | None
) -> date | None:
    """The first session that is not done to the end, None where all are.

    It has bars without features, as a killed run or a bar that came late leaves them, or features
    that nothing was decided on.
    """
    with store.connection() as connection:
        row = connection.execute(
            """
            SELECT min(session) FROM (
                SELECT session FROM raw_ohlcv ANTI JOIN model_features USING (ticker, session)
                WHERE is_final AND list_contains(?, ticker)
                UNION ALL
                SELECT session FROM model_features
                WHERE session > (SELECT max(session) FROM trading_decisions)
            )
            WHERE session >= ? AND session < coalesce(?, DATE '9999-12-31')
            """,
            [list(tickers), begins, before],
        ).fetchone()
    return row[0] if row else None


def record(
    batch: Batch, asset: str, inputs: Mapping[date, str], run_id: str, *, whole: bool
) -> None:
    """Write down what sessions were made from, in the transaction that writes their rows.

    Args:
        batch: after the rows were written.
        asset: which, by the name of its table.
        inputs: session to digest.
        run_id: Dagster's.
        whole: whether the rows of all tickers were made; if not, it is forgotten what the sessions
            were made from, so that they are made again when all tickers are asked for.
    """
    span = (min(inputs), max(inputs))
    there = batch.read(_counted(asset), list(span))
    rows = dict(zip(there["session"].dt.date, there["n"], strict=True))
    records = pd.DataFrame(
        {
            "asset": asset,
            "session": pd.to_datetime(list(inputs)),
            "inputs": list(inputs.values()),
            "rows": [rows.get(session, 0) for session in inputs],
            "run_id": run_id,
        }
    )
    batch.replace("made_from", records if whole else records[:0], asset=asset, session=span)


def _counted(asset: str) -> str:
    """Rows by session between two days; an asset without a table of sessions has none."""
    if "session DATE" not in TABLES.get(asset, ""):
        return "SELECT DATE '1900-01-01' AS session, 0 AS n WHERE false AND ?::DATE > ?::DATE"
    return (
        f"SELECT session, count(*) AS n FROM {asset} WHERE session BETWEEN ? AND ? GROUP BY session"
    )


def _days(sessions: np.ndarray) -> np.ndarray:
    return np.asarray(sessions).astype("datetime64[D]")
