"""Raw bars, raw headlines and labelled headlines, with the checks that stand beside them."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.metadata import holds, ranges, show, table
from rnn_pipeline.defs.partitions import ONE_RUN, TICKER_BY_DATE, Span, span_of
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.market.ingest import Ingested, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.quality import check_bars, check_headlines
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.reporting import plots


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


def _complete(asset: str, ledger: list[Ingested]) -> dg.AssetCheckResult:
    failed = [f"{line.ticker}: {line.status}" for line in ledger if line.status != "ok"]
    quarantined = sum(line.quarantined for line in ledger)
    if quarantined:
        failed.append(f"{quarantined} rows broke a rule and wait in the table quarantine")
    return dg.AssetCheckResult(
        check_name=f"{asset}_complete",
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(failed) or "every ticker was answered, nothing was quarantined",
    )


def _request(context: dg.AssetExecutionContext, span: Span) -> Request:
    return Request(span.tickers, span.first, span.last, datetime.now(UTC), context.run.run_id)


def _lines(ledger: list[Ingested]) -> pd.DataFrame:
    return pd.DataFrame([asdict(line) for line in ledger]).drop(columns="table_name")


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
    Bars of unfinished sessions and bars that break a rule never get here.
    """
    span = span_of(context)
    store, calendar = warehouse.store, market.calendar
    ledger = ingest_bars(
        store,
        warehouse.payloads,
        market.feed,
        calendar,
        _request(context, span),
        context.log.info,
    )
    bars = store.bars(span.tickers, span.first, span.last)
    sessions = calendar.sessions(span.first, span.last)
    verdict = check_bars(bars, sessions, calendar.closes(sessions), datetime.now(UTC))
    show(context, coverage=plots.coverage(bars), ledger=table(_lines(ledger)))
    return dg.MaterializeResult(
        metadata={**ranges(bars), **_counts(ledger)},
        check_results=[holds("raw_ohlcv_holds", verdict), _complete("raw_ohlcv", ledger)],
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
    ledger = ingest_headlines(
        store, warehouse.payloads, market.feed, _request(context, span), context.log.info
    )
    headlines = store.headlines(
        span.tickers,
        pd.Timestamp(span.first, tz="UTC"),
        pd.Timestamp(span.last, tz="UTC") + pd.Timedelta(days=1),
    )
    headlines["session"] = calendar.session_of(headlines["usable_at"])
    verdict = check_headlines(headlines, datetime.now(UTC))
    newest = headlines.sort_values("usable_at").tail(8)
    show(
        context,
        coverage=plots.coverage(headlines),
        newest=table(newest, ["ticker", "published_at", "title", "provider"]),
        ledger=table(_lines(ledger)),
    )
    return dg.MaterializeResult(
        metadata={**ranges(headlines), **_counts(ledger)},
        check_results=[holds("raw_news_holds", verdict), _complete("raw_news", ledger)],
    )


@dg.asset(pool=WAREHOUSE_POOL, group_name="market", kinds={"duckdb"})
def labelled_headlines(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """Headlines labelled negative, neutral or positive, for training the sentiment model.

    The embedded corpus comes from a headline grammar; its test rows use templates that no training
    row uses.
    """
    corpus = SampleSource().labelled_headlines().assign(source="grammar")
    with warehouse.store.batch() as batch:
        batch.replace("labelled_headlines", corpus, source="grammar")
    counts = corpus.groupby(["split", "label"]).size().rename("rows").reset_index()
    examples = corpus.groupby("label").head(3)
    show(context, labels=table(counts), examples=table(examples, ["headline", "label", "split"]))
    return dg.MaterializeResult(metadata={"rows": len(corpus)})
