"""Raw bars, raw headlines and labelled headlines, with the checks that stand beside them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.metadata import holds, ranges, show, table
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKER_BY_DATE, Span, span_of
from rnn_pipeline.defs.pending import Pending, nothing_new, pending, pending_whole
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.market.commit import replay
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.ingest import Ingested, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.labels import read_labels
from rnn_pipeline.market.quality import Verdict, check_bars, check_headlines
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.market.sources import NewsSource
from rnn_pipeline.reporting import plots
from rnn_pipeline.warehouse import inputs


def _checks(asset: str, rows: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            f"{asset}_holds",
            asset=asset,
            blocking=True,
            description=f"Every stored row of the run keeps every rule of the suite for {rows}.",
        ),
        dg.AssetCheckSpec(
            f"{asset}_complete",
            asset=asset,
            description="Every ticker was answered, and no row had to be quarantined.",
        ),
    ]


def _complete(
    asset: str, ledger: list[Ingested], remarks: Sequence[str] = ()
) -> dg.AssetCheckResult:
    failed = [f"{line.ticker}: {line.status}" for line in ledger if line.status != "ok"]
    failed += remarks
    quarantined = sum(line.quarantined for line in ledger)
    if quarantined:
        failed.append(
            f"{quarantined} rows broke a rule; run rnn-pipeline quarantine list and release those"
            " that are right"
        )
    return dg.AssetCheckResult(
        check_name=f"{asset}_complete",
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(failed) or "every ticker was answered, nothing was quarantined",
    )


def _remarks(status: pd.DataFrame) -> list[str]:
    """What is wrong with tickers that were answered: their newest bar is old, or sessions lack."""
    old = status[status["status"].isin(["stale", "delisted"])]
    gaps = status[status["missing"] > 0]
    return [f"{row.ticker} is {row.status}: {row.reason}" for row in old.itertuples()] + [
        f"{row.ticker} lacks {row.missing:.0f} sessions, see missing_sessions"
        for row in gaps.itertuples()
    ]


def _lines(ledger: list[Ingested]) -> pd.DataFrame:
    columns = [field.name for field in fields(Ingested)]
    return pd.DataFrame([asdict(line) for line in ledger], columns=columns).drop(
        columns="table_name"
    )


def _counts(ledger: list[Ingested]) -> dict[str, Any]:
    lines = _lines(ledger)
    numbers = ["rows_in", "inserted", "revised", "unchanged", "quarantined"]
    return {name: int(lines[name].sum()) for name in numbers}


@dataclass(frozen=True)
class _Stored:
    """What the warehouse holds of a span, and what is said of it."""

    rows: pd.DataFrame
    verdict: Verdict
    shown: dict[str, dg.MarkdownMetadataValue]


@dataclass(frozen=True)
class _Kind:
    """One kind of rows: how they are taken in, which of them are to be judged, and how."""

    name: str
    rows: str
    description: str
    ingest: Callable[
        [WarehouseResource, MarketResource, Request, Callable[[str], None]], list[Ingested]
    ]
    remarks: Callable[[WarehouseResource, Span], Sequence[str]]
    pending: Callable[[dg.AssetExecutionContext, WarehouseResource, Span], Pending | None]
    stored: Callable[[WarehouseResource, MarketResource, Span], _Stored]


def _ingest_bars(
    warehouse: WarehouseResource,
    market: MarketResource,
    request: Request,
    progress: Callable[[str], None],
) -> list[Ingested]:
    return ingest_bars(
        warehouse.store, warehouse.payloads, market.feed, market.calendar, request, progress
    )


def _stored_bars(warehouse: WarehouseResource, market: MarketResource, span: Span) -> _Stored:
    store, calendar = warehouse.store, market.calendar
    bars = store.bars(span.tickers, span.first, span.last)
    sessions = calendar.sessions(span.first, span.last)
    judged = bars[bars["provenance"] != "released"]
    return _Stored(
        bars,
        check_bars(judged, sessions, calendar.closes(sessions), datetime.now(UTC)),
        {"status": table(store.rows("ticker_status", ticker=span.tickers))},
    )


def _ingest_headlines(
    warehouse: WarehouseResource,
    market: MarketResource,
    request: Request,
    progress: Callable[[str], None],
) -> list[Ingested]:
    return [
        line
        for source in market.sources
        if isinstance(source, NewsSource | FileSource)
        for line in ingest_headlines(warehouse.store, warehouse.payloads, source, request, progress)
    ]


def _pending_headlines(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, span: Span
) -> Pending | None:
    # A headline may be of any session, whichever it came in.
    work = pending_whole(context, warehouse.store, inputs.ALL_HEADLINES, tickers=span.tickers)
    return replace(work, span=span) if work else None


def _stored_headlines(warehouse: WarehouseResource, market: MarketResource, span: Span) -> _Stored:
    headlines = warehouse.store.headlines(
        span.tickers,
        pd.Timestamp(span.first, tz="UTC"),
        pd.Timestamp(span.last, tz="UTC") + pd.Timedelta(days=1),
    )
    headlines["session"] = market.calendar.session_of(headlines["usable_at"])
    judged = headlines[headlines["provenance"] != "released"]
    newest = headlines.sort_values("usable_at").tail(8)
    return _Stored(
        headlines,
        check_headlines(judged, datetime.now(UTC)),
        {"newest": table(newest, ["ticker", "published_at", "title", "provider"])},
    )


def _raw(kind: _Kind) -> dg.AssetsDefinition:
    """The asset that takes one kind of rows from the sources."""

    @dg.asset(
        name=kind.name,
        description=kind.description,
        partitions_def=TICKER_BY_DATE,
        backfill_policy=ONE_RUN,
        pool=WAREHOUSE_POOL,
        group_name="market",
        kinds={"duckdb"},
        check_specs=_checks(kind.name, kind.rows),
    )
    @says_why
    def asset(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
    ) -> dg.MaterializeResult:
        span, store = span_of(context), warehouse.store
        replay(store, warehouse.payloads, market.sources, context.log.warning)
        request = Request(span.tickers, span.first, span.last, context.run.run_id)
        ledger = kind.ingest(warehouse, market, request, context.log.info)
        complete = _complete(kind.name, ledger, kind.remarks(warehouse, span))
        waiting = store.rows("quarantine", ticker=span.tickers, table_name=kind.name)
        waiting = waiting[waiting["released_at"].isna()]
        told = {**_counts(ledger), "waiting_in_quarantine": len(waiting)}
        work = kind.pending(context, warehouse, span)
        if work is None:
            return nothing_new(f"{kind.name}_holds", also=[complete], **told)
        stored = kind.stored(warehouse, market, work.span)
        check = holds(f"{kind.name}_holds", stored.verdict)
        with store.batch() as batch:
            work.done(batch, sound=check.passed)
        show(
            context,
            coverage=lambda: plots.coverage(stored.rows),
            **stored.shown,
            quarantine=table(
                waiting.groupby(["ticker", "rule"])
                .agg(rows=("rule", "size"), since=("quarantined_at", "min"))
                .reset_index()
            ),
            ledger=table(_lines(ledger)),
        )
        return dg.MaterializeResult(
            metadata={**ranges(stored.rows), **told}, check_results=[check, complete]
        )

    return asset


raw_ohlcv = _raw(
    _Kind(
        name="raw_ohlcv",
        rows="bars",
        description="Daily bars with every revision and when it was known.\n\n"
        "Open, high, low, close and volume are split-adjusted, ``adj_close`` also carries"
        " dividends. Bars of unfinished sessions and bars that break a rule never get here. A drop"
        " folder gives all its new files, whichever partitions are asked for.",
        ingest=_ingest_bars,
        remarks=lambda warehouse, span: _remarks(
            warehouse.store.rows("ticker_status", ticker=span.tickers)
        ),
        pending=lambda context, warehouse, _span: pending(context, warehouse.store, inputs.BARS),
        stored=_stored_bars,
    )
)
raw_news = _raw(
    _Kind(
        name="raw_news",
        rows="headlines",
        description="Headlines with when they were published, first seen and usable.\n\n"
        "The embedded sample's headlines are synthetic: each says what the bar of its session"
        " shows, so they carry no information beyond price.",
        ingest=_ingest_headlines,
        remarks=lambda _warehouse, _span: (),
        pending=_pending_headlines,
        stored=_stored_headlines,
    )
)


@dg.asset(pool=WAREHOUSE_POOL, group_name="market", kinds={"duckdb"})
@says_why
def labelled_headlines(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """Headlines labelled negative, neutral or positive, for training the sentiment model.

    The embedded corpus comes from a headline grammar; its test rows use templates that no training
    row uses. The setting ``labels`` puts a file of labelled headlines in its place.
    """
    if SETTINGS.labels is None:
        corpus = SampleSource().labelled_headlines().assign(source="grammar")
    else:
        corpus = read_labels(SETTINGS.labels).assign(source=SETTINGS.labels.name)
    with warehouse.store.batch() as batch:
        batch.replace("labelled_headlines", corpus, label=["negative", "neutral", "positive"])
    counts = corpus.groupby(["split", "label"]).size().rename("rows").reset_index()
    examples = corpus.groupby("label").head(3)
    show(context, labels=table(counts), examples=table(examples, ["headline", "label", "split"]))
    return dg.MaterializeResult(metadata={"rows": len(corpus)})
