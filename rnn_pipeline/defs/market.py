"""Raw bars, raw headlines and labelled headlines, with the checks that stand beside them."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.metadata import holds, ranges, show, table
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKER_BY_DATE, Span, span_of
from rnn_pipeline.defs.pending import nothing_new, pending, pending_whole
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.market.commit import replay
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.ingest import Ingested, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.labels import read_labels
from rnn_pipeline.market.quality import check_bars, check_headlines
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
        failed.append(f"{quarantined} rows broke a rule and wait in the table quarantine")
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


def _request(context: dg.AssetExecutionContext, span: Span) -> Request:
    return Request(span.tickers, span.first, span.last, context.run.run_id)


def _lines(ledger: list[Ingested]) -> pd.DataFrame:
    columns = [field.name for field in fields(Ingested)]
    return pd.DataFrame([asdict(line) for line in ledger], columns=columns).drop(
        columns="table_name"
    )


def _counts(ledger: list[Ingested]) -> dict[str, Any]:
    lines = _lines(ledger)
    numbers = ["rows_in", "inserted", "revised", "unchanged", "quarantined"]
    return {name: int(lines[name].sum()) for name in numbers}


@dg.asset(
    partitions_def=TICKER_BY_DATE,
    backfill_policy=ONE_RUN,
    pool=WAREHOUSE_POOL,
    group_name="market",
    kinds={"duckdb"},
    check_specs=_checks("raw_ohlcv", "bars"),
)
def raw_ohlcv(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """Daily bars with every revision and when it was known.

    Open, high, low, close and volume are split-adjusted, ``adj_close`` also carries dividends.
    Bars of unfinished sessions and bars that break a rule never get here. A drop folder gives all
    its new files, whichever partitions are asked for.
    """
    span = span_of(context)
    store, calendar = warehouse.store, market.calendar
    replay(store, warehouse.payloads, market.sources, context.log.warning)
    ledger = ingest_bars(
        store,
        warehouse.payloads,
        market.feed,
        calendar,
        _request(context, span),
        context.log.info,
    )
    status = store.rows("ticker_status", ticker=span.tickers)
    complete = _complete("raw_ohlcv", ledger, _remarks(status))
    work = pending(context, store, inputs.BARS)
    if work is None:
        return nothing_new("raw_ohlcv_holds", also=[complete], **_counts(ledger))
    span = work.span
    bars = store.bars(span.tickers, span.first, span.last)
    sessions = calendar.sessions(span.first, span.last)
    judged = bars[bars["provenance"] != "released"]
    verdict = check_bars(judged, sessions, calendar.closes(sessions), datetime.now(UTC))
    check = holds("raw_ohlcv_holds", verdict)
    with store.batch() as batch:
        work.done(batch, sound=check.passed)
    show(
        context,
        coverage=lambda: plots.coverage(bars),
        ledger=table(_lines(ledger)),
        status=table(status),
    )
    return dg.MaterializeResult(
        metadata={**ranges(bars), **_counts(ledger)},
        check_results=[
            check,
            complete,
        ],
    )


@dg.asset(
    partitions_def=TICKER_BY_DATE,
    backfill_policy=ONE_RUN,
    pool=WAREHOUSE_POOL,
    group_name="market",
    kinds={"duckdb"},
    check_specs=_checks("raw_news", "headlines"),
)
def raw_news(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """Headlines with when they were published, first seen and usable.

    The embedded sample's headlines are synthetic: each says what the bar of its session shows, so
    they carry no information beyond price.
    """
    span = span_of(context)
    store, calendar = warehouse.store, market.calendar
    replay(store, warehouse.payloads, market.sources, context.log.warning)
    ledger = [
        line
        for source in market.sources
        if isinstance(source, NewsSource | FileSource)
        for line in ingest_headlines(
            store, warehouse.payloads, source, _request(context, span), context.log.info
        )
    ]
    complete = _complete("raw_news", ledger)
    work = pending_whole(context, store, inputs.ALL_HEADLINES, tickers=span.tickers)
    if work is None:
        return nothing_new("raw_news_holds", also=[complete], **_counts(ledger))
    headlines = store.headlines(
        span.tickers,
        pd.Timestamp(span.first, tz="UTC"),
        pd.Timestamp(span.last, tz="UTC") + pd.Timedelta(days=1),
    )
    headlines["session"] = calendar.session_of(headlines["usable_at"])
    judged = headlines[headlines["provenance"] != "released"]
    verdict = check_headlines(judged, datetime.now(UTC))
    check = holds("raw_news_holds", verdict)
    with store.batch() as batch:
        work.done(batch, sound=check.passed)
    newest = headlines.sort_values("usable_at").tail(8)
    show(
        context,
        coverage=lambda: plots.coverage(headlines),
        newest=table(newest, ["ticker", "published_at", "title", "provider"]),
        ledger=table(_lines(ledger)),
    )
    return dg.MaterializeResult(
        metadata={**ranges(headlines), **_counts(ledger)},
        check_results=[check, complete],
    )


@dg.asset(pool=WAREHOUSE_POOL, group_name="market", kinds={"duckdb"})
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
