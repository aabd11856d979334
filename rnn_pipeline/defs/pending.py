"""What a run has to make: on its tags, all that it was asked for, or only what is new.

A run that a person starts makes all of its partitions. A daily run is tagged :data:`ONLY_NEW`: of
each asset it makes the sessions from the first one on that rests on something else than its rows
were made from (``rnn_pipeline.warehouse.inputs``). New sessions rest on something new; so do old
ones after a change of code, settings, tickers or networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

import rnn_pipeline
from rnn_pipeline.defs.partitions import SETTINGS, Span, every_ticker, span_of
from rnn_pipeline.warehouse import Batch, Warehouse, inputs

#: Tag of runs that leave alone what stands.
ONLY_NEW = {"rnn_pipeline/only_new": "true"}


@dataclass(frozen=True)
class Pending:
    """The rows of an asset that a run has to make.

    Attributes:
        span: the tickers and sessions.
        asset: which.
        inputs: session to the digest of what it rests on.
        run_id: Dagster's.
        whole: whether the tickers are all that there are.
    """

    span: Span
    asset: str
    inputs: dict[date, str]
    run_id: str
    whole: bool

    def done(self, batch: Batch, *, sound: bool = True) -> None:
        """Write down what the rows were made from, in the transaction that has written them.

        Rows that broke a rule do not stand: the next run makes and judges them again.
        """
        if self.inputs:
            whole = self.whole and sound
            inputs.record(batch, self.asset, self.inputs, self.run_id, whole=whole)


def pending(
    context: dg.AssetExecutionContext, store: Warehouse, *queries: str, by: str = ""
) -> Pending | None:
    """What is to be made of an asset per ticker and date; None where all of it stands.

    Args:
        context: of the run.
        store: the warehouse.
        queries: what the asset rests on (``rnn_pipeline.warehouse.inputs``).
        by: hash of what makes the rows, beside code and settings.
    """
    span = span_of(context)
    known = store.read(
        "SELECT DISTINCT session FROM raw_ohlcv WHERE session BETWEEN ? AND ? ORDER BY session",
        [span.first, span.last],
    )
    return _pending(context, store, span, known["session"].dt.date.tolist(), queries, by)


def pending_whole(
    context: dg.AssetExecutionContext,
    store: Warehouse,
    *queries: str,
    tickers: list[str] | None = None,
) -> Pending | None:
    """Likewise of an asset that is made as a whole, for some tickers or for all."""
    day = inputs.UNDATED
    span = Span(every_ticker(context) if tickers is None else tickers, day, day)
    return _pending(context, store, span, [day], queries, "")


def only_new(context: dg.AssetExecutionContext) -> bool:
    """Whether the run leaves alone what stands."""
    return ONLY_NEW.items() <= context.run.tags.items()


def nothing_new(
    *checks: str, also: Sequence[dg.AssetCheckResult] = (), **metadata: Any
) -> dg.MaterializeResult:
    """The result of an asset that stands as it is.

    Args:
        checks: those that looked at its rows when they were made.
        also: what other checks found now.
        metadata: what else is to be told.
    """
    held = [
        dg.AssetCheckResult(
            check_name=check, passed=True, description="nothing is new; what stands held"
        )
        for check in checks
    ]
    return dg.MaterializeResult(metadata={"rows": 0, **metadata}, check_results=[*held, *also])


def _pending(
    context: dg.AssetExecutionContext,
    store: Warehouse,
    span: Span,
    sessions: Sequence[date],
    queries: Sequence[str],
    by: str,
) -> Pending | None:
    asset = context.asset_key.to_user_string()
    every = every_ticker(context)
    whole = set(span.tickers) >= set(every)
    made_by = f"{_code()} {SETTINGS.model_dump_json()} {sorted(every)} {by}"
    found = inputs.digests(store, asset, sessions, queries, made_by)
    if only_new(context) and whole and found:
        stands = inputs.standing(store, asset, sessions)
        changed = [day for day, digest in found.items() if stands.get(day) != digest]
        if not changed:
            return None
        span = replace(span, first=changed[0])
        found = {day: digest for day, digest in found.items() if day >= changed[0]}
    return Pending(span, asset, found, context.run.run_id, whole)


@cache
def _code() -> str:
    """Hash of the package's source: after an upgrade everything is made again, once."""
    digest = hashlib.sha256()
    for source in sorted(Path(rnn_pipeline.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
