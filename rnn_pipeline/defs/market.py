"""Raw bars, raw headlines and labelled headlines, with the checks that stand beside them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.metadata import holds, ranges, show, table
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKER_BY_DATE, span_of
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.market.commit import replay
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.market.ingest import Ingested, Request, ingest_bars, ingest_headlines
from rnn_pipeline.market.labels import read_labels
from rnn_pipeline.market.quality import Verdict, check_bars, check_headlines
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.market.sources import NewsSource
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
class _Taken:
    """What a run took of one kind of rows: all that is stored of its span, and how it came."""

    rows: pd.DataFrame
    ledger: list[Ingested]
    verdict: Verdict
    remarks: Sequence[str]
    shown: dict[str, dg.MarkdownMetadataValue]


#: Bring the rows of a request into the warehouse.
_Take = Callable[[WarehouseResource, MarketResource, Request, Callable[[str], None]], _Taken]


def _bars(
    warehouse: WarehouseResource,
    market: MarketResource,
    request: Request,
    progress: Callable[[str], None],
) -> _Taken:
    store, calendar = warehouse.store, market.calendar
    ledger = ingest_bars(store, warehouse.payloads, market.feed, calendar, request, progress)
    bars = store.bars(request.tickers, request.first, request.last)
    sessions = calendar.sessions(request.first, request.last)
    judged = bars[bars["provenance"] != "released"]
    status = store.rows("ticker_status", ticker=request.tickers)
    return _Taken(
        bars,
        ledger,
        check_bars(judged, sessions, calendar.closes(sessions), datetime.now(UTC)),
        _remarks(status),
        {"status": table(status)},
    )


def _headlines(
    warehouse: WarehouseResource,
    market: MarketResource,
    request: Request,
    progress: Callable[[str], None],
) -> _Taken:
    store = warehouse.store
    ledger = [
        line
        for source in market.sources
        if isinstance(source, NewsSource | FileSource)
        for line in ingest_headlines(store, warehouse.payloads, source, request, progress)
    ]
    headlines = store.headlines(
        request.tickers,
        pd.Timestamp(request.first, tz="UTC"),
        pd.Timestamp(request.last, tz="UTC") + pd.Timedelta(days=1),
    )
    headlines["session"] = market.calendar.session_of(headlines["usable_at"])
    judged = headlines[headlines["provenance"] != "released"]
    newest = headlines.sort_values("usable_at").tail(8)
    return _Taken(
        headlines,
        ledger,
        check_headlines(judged, datetime.now(UTC)),
        (),
        {"newest": table(newest, ["ticker", "published_at", "title", "provider"])},
    )


def _raw(name: str, rows: str, description: str, take: _Take) -> dg.AssetsDefinition:
    """The asset that takes one kind of rows from the sources."""

    @dg.asset(
        name=name,
        description=description,
        partitions_def=TICKER_BY_DATE,
        backfill_policy=ONE_RUN,
        pool=WAREHOUSE_POOL,
        group_name="market",
        kinds={"duckdb"},
        check_specs=_checks(name, rows),
    )
    def asset(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
    ) -> dg.MaterializeResult:
        span = span_of(context)
        replay(warehouse.store, warehouse.payloads, market.sources, context.log.warning)
        request = Request(span.tickers, span.first, span.last, context.run.run_id)
        taken = take(warehouse, market, request, context.log.info)
        waiting = warehouse.store.rows("quarantine", ticker=span.tickers, table_name=name)
        waiting = waiting[waiting["released_at"].isna()]
        show(
            context,
            coverage=plots.coverage(taken.rows),
            **taken.shown,
            quarantine=table(
                waiting.groupby(["ticker", "rule"])
                .agg(rows=("rule", "size"), since=("quarantined_at", "min"))
                .reset_index()
            ),
            ledger=table(_lines(taken.ledger)),
        )
        return dg.MaterializeResult(
            metadata={
                **ranges(taken.rows),
                **_counts(taken.ledger),
                "waiting_in_quarantine": len(waiting),
            },
            check_results=[
                holds(f"{name}_holds", taken.verdict),
                _complete(name, taken.ledger, taken.remarks),
            ],
        )

    return asset


raw_ohlcv = _raw(
    "raw_ohlcv",
    "bars",
    "Daily bars with every revision and when it was known.\n\n"
    "Open, high, low, close and volume are split-adjusted, ``adj_close`` also carries dividends."
    " Bars of unfinished sessions and bars that break a rule never get here. A drop folder gives"
    " all its new files, whichever partitions are asked for.",
    _bars,
)
raw_news = _raw(
    "raw_news",
    "headlines",
    "Headlines with when they were published, first seen and usable.\n\n"
    "The embedded sample's headlines are synthetic: each says what the bar of its session shows, so"
    " they carry no information beyond price.",
    _headlines,
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
