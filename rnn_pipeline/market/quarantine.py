"""Rows that broke a rule: put aside with the rule and where they came from, and taken back.

A person who knows better than a rule may release a row. It then becomes a revision like any other,
known from the moment of its release; rows without which nothing can be computed stay where they
are.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.market.sources import BAR_COLUMNS, as_bars, as_headlines
from rnn_pipeline.warehouse import Batch, Entry, Warehouse

#: What a row must hold even if a person vouches for it, by table.
_NEEDED = {
    "raw_ohlcv": ("ticker", "session", *BAR_COLUMNS[2:]),
    "raw_news": ("ticker", "news_id", "published_at", "title"),
}


class NotReleasable(ValueError):
    """A row is not in quarantine, or nothing could be computed from it."""


def put_aside(batch: Batch, bad: pd.DataFrame, entry: Entry) -> None:
    """Keep rejected rows, each once: as JSON, with its rules and the fetch it came with."""
    rows = bad[["ticker", "rule", "fetch_id"]].assign(
        table_name=entry.kind,
        row_json=[
            _as_json(row) for row in bad.drop(columns=["rule", "fetch_id"]).to_dict("records")
        ],
        quarantined_at=entry.fetched_at,
    )
    rows["quarantine_id"] = [
        hashlib.sha256(f"{entry.kind} {row}".encode()).hexdigest()[:16] for row in rows["row_json"]
    ]
    known = batch.read(
        "SELECT quarantine_id FROM quarantine WHERE list_contains(?, quarantine_id)",
        [rows["quarantine_id"].tolist()],
    )
    new = ~rows["quarantine_id"].isin(known["quarantine_id"])
    batch.append("quarantine", rows[new].drop_duplicates("quarantine_id"))


def waiting_rows(store: Batch | Warehouse, ids: list[str] | None = None) -> pd.DataFrame:
    """Quarantined rows that were not released, of these ids or all, with their payload's hash."""
    return store.read(
        "SELECT quarantine.*, payload_sha256 FROM quarantine LEFT JOIN raw_fetch USING (fetch_id)"
        " WHERE released_at IS NULL AND (? OR list_contains(?, quarantine_id))"
        " ORDER BY quarantined_at, quarantine_id",
        [ids is None, ids or []],
    )


def refusal(row: Any) -> str:
    """Why a quarantined row cannot be released; empty if it can."""
    values = json.loads(row.row_json)
    for name in _NEEDED[row.table_name]:
        value = values.get(name)
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            return f"{row.quarantine_id}: {name} is {value}, nothing can be computed from it"
        if name in BAR_COLUMNS[2:7] and value <= 0:
            return f"{row.quarantine_id}: {name} {value} is no price"
    if "session_on_calendar" in row.rule or "ticker_spelling" in row.rule:
        return f"{row.quarantine_id}: it belongs to no session or ticker ({row.rule})"
    return ""


def take_back(batch: Batch, entry: Entry) -> pd.DataFrame:
    """Mark an entry's released rows and return them as parsed rows with their ``fetch_id``."""
    held = waiting_rows(batch, list(entry.released))
    batch.upsert(
        "quarantine", held.drop(columns="payload_sha256").assign(released_at=entry.fetched_at)
    )
    rows = pd.DataFrame([json.loads(text) for text in held["row_json"]])
    rows["fetch_id"] = held["fetch_id"].to_numpy()
    if entry.kind == "raw_ohlcv":
        parsed = as_bars(rows.assign(session=pd.to_datetime(rows["session"])))
        keys = ["ticker", "session"]
        rows["session"] = pd.to_datetime(rows["session"]).astype("datetime64[us]")
    else:
        parsed, keys = as_headlines(rows), ["ticker", "news_id"]
    return parsed.merge(rows[[*keys, "fetch_id"]], on=keys).drop_duplicates(keys)


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps(
        {
            name: None
            if pd.isna(value)
            else value.isoformat()
            if isinstance(value, datetime)
            else value
            for name, value in row.items()
            if name != "place"
        },
        ensure_ascii=False,
    )
