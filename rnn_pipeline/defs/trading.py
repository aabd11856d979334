"""Signals from forecasts and sentiment, their fusion, and what to do about it."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, get_args

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.evidence import walk_forward_forecasts
from rnn_pipeline.defs.features import COLUMNS, model_features, news_sentiment, price_features
from rnn_pipeline.defs.guidance import require
from rnn_pipeline.defs.metadata import ranges, show, table
from rnn_pipeline.defs.models import forecast_new_sessions
from rnn_pipeline.defs.partitions import (
    BY_TICKER,
    ONE_RUN,
    SETTINGS,
    TICKER_BY_DATE,
    Span,
    span_of,
)
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.features.windows import ModelMatrix
from rnn_pipeline.reporting import plots
from rnn_pipeline.settings import Grade
from rnn_pipeline.trading import decisions, fusion, lineage

#: Calendar days that surely hold the sessions which a window needs.
_LOOK_BACK = timedelta(days=3 * SETTINGS.model.lookback + 30)

#: What tells a user why a signal is what it is.
_WHY = [
    "ticker",
    "source",
    "horizon",
    "forecast",
    "standardised",
    "grade",
    "weight",
    "contribution",
]

_LABELS = ("BUY", "HOLD", "SELL")

#: What the assets of this wing have in common.
_SIGNALS: dict[str, Any] = {
    "partitions_def": TICKER_BY_DATE,
    "backfill_policy": ONE_RUN,
    "pool": WAREHOUSE_POOL,
    "group_name": "trading",
    "kinds": {"duckdb"},
}


def _write(
    warehouse: WarehouseResource,
    context: dg.AssetExecutionContext,
    table_name: str,
    rows: pd.DataFrame,
    span: Span,
) -> None:
    with warehouse.store.batch() as batch:
        batch.replace(table_name, rows.assign(run_id=context.run.run_id), **_of(span))


@dg.asset(
    deps=[
        model_features,
        dg.AssetDep(walk_forward_forecasts, partition_mapping=BY_TICKER),
    ],
    **_SIGNALS,
)
def price_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """All networks' forecasts of a session as one signal, weighted by the evidence of its fold.

    Sessions newer than the last walk-forward test are forecast here, once, by the champions and
    candidates of the registry; only champions are heard.
    """
    span = span_of(context)
    store = warehouse.store
    require(store, "price_signals", span.tickers, until="sequence_windows")
    new = forecast_new_sessions(store, market.calendar, span, context.run.run_id)
    forecasts = _heard(warehouse, market, span)
    evidence = store.rows("evidence", ticker=span.tickers)
    signals = fusion.price_signals(forecasts, evidence, SETTINGS.model.base_horizon)
    if len(signals):
        days = (span.first - _LOOK_BACK, span.last)
        features = store.rows("model_features", ticker=span.tickers, session=days)
        matrix = ModelMatrix.build(features, COLUMNS)
        made_by = lineage.price_lineage(forecasts, matrix, SETTINGS.model.lookback)
        signals = signals.merge(made_by, on=["ticker", "session"])
    _write(warehouse, context, "price_signals", signals, span)
    if len(signals):
        current = decisions.current_decisions(signals)
        show(context, made_of=table(current, ["ticker", *lineage.LINEAGE]))
    return dg.MaterializeResult(
        metadata={**ranges(signals), **_grades(signals), "new_forecasts": len(new)}
    )


@dg.asset(
    deps=[
        news_sentiment,
        # It forecasts the newest sessions, and a forecast says in which fold its session lies.
        price_signals,
        dg.AssetDep(walk_forward_forecasts, partition_mapping=BY_TICKER),
    ],
    **_SIGNALS,
)
def sentiment_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """The sentiment of a session as a signal, weighted by the evidence of its fold."""
    span = span_of(context)
    store = warehouse.store
    require(store, "sentiment_signals", span.tickers, until="sequence_windows")
    sentiment = store.rows("news_sentiment", **_of(span))
    rows = fusion.with_folds(sentiment, store.rows("walk_forward_forecasts", **_of(span)))
    signals = fusion.sentiment_signals(rows, store.rows("evidence", ticker=span.tickers))
    signals = signals.merge(lineage.sentiment_lineage(sentiment), on=["ticker", "session"])
    _write(warehouse, context, "sentiment_signals", signals, span)
    newest = signals.groupby("ticker").tail(1)
    show(context, newest=table(newest, ["ticker", "session", "signal", "weight", "grade"]))
    return dg.MaterializeResult(metadata={**ranges(signals), **_grades(signals)})


@dg.asset(deps=[price_signals, sentiment_signals], **_SIGNALS)
def trading_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """All sources as one signal from -1 to +1, labelled BUY, HOLD or SELL.

    The policy of the settings says how much each source counts; what each adds is kept.
    """
    span = span_of(context)
    store = warehouse.store
    require(store, "trading_signals", span.tickers, until="sequence_windows")
    price, sentiment = (
        store.rows(name, **_of(span)) for name in ("price_signals", "sentiment_signals")
    )
    forecasts = _heard(warehouse, market, span)
    if len(forecasts) and price.empty:
        raise dg.Failure(
            f"trading_signals needs price_signals, which has nothing on {', '.join(span.tickers)}"
            f" from {span.first} to {span.last}: run the job decide for these partitions"
        )
    news = fusion.with_folds(store.rows("news_sentiment", **_of(span)), forecasts)
    evidence = store.rows("evidence", ticker=span.tickers)
    sources = [
        fusion.price_sources(forecasts, evidence, SETTINGS.model.base_horizon),
        fusion.sentiment_sources(news, evidence),
    ]
    added = fusion.contributions(
        price, pd.concat(sources), SETTINGS.trading, lambda tickers: _history(warehouse, tickers)
    )
    signals = fusion.fuse(price, sentiment, added, SETTINGS.trading)
    signals = signals.merge(lineage.fused_lineage(price, sentiment), on=["ticker", "session"])
    _write(warehouse, context, "signal_contributions", added, span)
    _write(warehouse, context, "trading_signals", signals, span)
    bars = store.bars(span.tickers, span.first, span.last)
    newest = added[added["session"] == added["session"].max()]
    show(
        context,
        price_with_signals=plots.price_with_signals(bars, signals),
        contributions=plots.signal_history(signals),
        why=table(newest, _WHY),
        made_of=table(decisions.current_decisions(signals), ["ticker", *lineage.LINEAGE]),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(signals),
            **_grades(signals),
            **{f"label_{name}": int((signals["label"] == name).sum()) for name in _LABELS},
            "policy": SETTINGS.trading.policy,
            "abstains": int(signals["abstains"].sum()),
        }
    )


@dg.asset(deps=[trading_signals, price_features], **_SIGNALS)
def trading_decisions(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """What to hold from the next open, how that differs from before, and why in one sentence.

    Limits look at every ticker of a session, whichever are materialized, and go on from the
    account as the session before left it.
    """
    from rnn_pipeline.chain import sized

    span = span_of(context)
    store = warehouse.store
    require(store, "trading_decisions", span.tickers, until="sequence_windows")
    weights, accounts = sized(store, SETTINGS, span.first, span.last)
    mine = store.rows("trading_signals", **_of(span))
    made_by = mine[["ticker", "session", *lineage.LINEAGE]]
    decided = decisions.decide(mine, weights).merge(made_by, on=["ticker", "session"])
    _write(warehouse, context, "trading_decisions", decided, span)
    with store.batch() as batch:
        rows = accounts.assign(run_id=context.run.run_id)
        batch.replace("trading_account", rows, session=(span.first, span.last))
    current = decisions.current_decisions(decided)
    columns = ["ticker", "session", "forecast", "sentiment", "signal", "label", "grade", "position"]
    show(
        context,
        newest=table(current, [*columns, "reason"]),
        made_of=table(current, ["ticker", *lineage.LINEAGE]),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(decided),
            "gross_exposure_now": float(current["position"].abs().sum()),
            "drawdown_now": float(accounts["drawdown"].iloc[-1]) if len(accounts) else 0.0,
        }
    )


def _grades(signals: pd.DataFrame) -> dict[str, int]:
    """Rows per evidence grade, under names that Dagster can plot over time."""
    return {f"grade_{grade}": int((signals["grade"] == grade).sum()) for grade in get_args(Grade)}


def _of(span: Span) -> dict[str, Any]:
    """The rows of a span, for ``Warehouse.rows``."""
    return {"ticker": span.tickers, "session": (span.first, span.last)}


def _heard(warehouse: WarehouseResource, market: MarketResource, span: Span) -> pd.DataFrame:
    """The forecasts that signals are made of; those of expired networks say so in their name."""
    from rnn_pipeline.networks.registry import marked_expired

    return marked_expired(
        warehouse.store.rows("walk_forward_forecasts", **_of(span)),
        market.calendar.sessions(market.calendar.first_session, span.last),
        SETTINGS.model_expiry,
    )


def _history(warehouse: WarehouseResource, tickers: Collection[str]) -> pd.DataFrame:
    """What the sources of tickers ever said, for a policy that learns."""
    return fusion.source_history(
        *(
            warehouse.store.rows(name, ticker=list(tickers))
            for name in ("recipe_forecasts", "news_sentiment")
        )
    )
