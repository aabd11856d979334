"""Signals from forecasts and sentiment, their fusion, and what to do about it."""

from datetime import timedelta
from typing import Any, get_args

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.evidence import walk_forward_forecasts
from rnn_pipeline.defs.features import model_features, news_sentiment, price_features
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
from rnn_pipeline.reporting import plots
from rnn_pipeline.settings import Grade
from rnn_pipeline.trading import decisions, fusion, positions

#: Calendar days that surely hold the sessions which a window or a previous position needs.
_LOOK_BACK = timedelta(days=3 * SETTINGS.model.lookback + 30)

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
        batch.replace(
            table_name,
            rows.assign(run_id=context.run.run_id),
            ticker=span.tickers,
            session=(span.first, span.last),
        )


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
    from rnn_pipeline.networks.registry import marked_expired

    span = span_of(context)
    store = warehouse.store
    new = forecast_new_sessions(store, market.calendar, span, context.run.run_id)
    days = {"ticker": span.tickers, "session": (span.first, span.last)}
    forecasts = marked_expired(
        store.rows("walk_forward_forecasts", **days),
        market.calendar.sessions(market.calendar.first_session, span.last),
        SETTINGS.model_expiry,
    )
    evidence = store.rows("evidence", ticker=span.tickers)
    signals = fusion.price_signals(forecasts, evidence)
    made_by = forecasts.groupby(["ticker", "session"])["model_hash"].agg(_joined).reset_index()
    signals = signals.merge(made_by, on=["ticker", "session"])
    _write(warehouse, context, "price_signals", signals, span)
    return dg.MaterializeResult(
        metadata={**ranges(signals), **_grades(signals), "new_forecasts": len(new)}
    )


@dg.asset(
    deps=[
        news_sentiment,
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
    days = {"ticker": span.tickers, "session": (span.first, span.last)}
    sentiment = store.rows("news_sentiment", **days)
    rows = fusion.with_folds(sentiment, store.rows("walk_forward_forecasts", **days))
    signals = fusion.sentiment_signals(rows, store.rows("evidence", ticker=span.tickers))
    made_by = sentiment[["ticker", "session", "model_hash"]]
    signals = signals.merge(made_by, on=["ticker", "session"])
    _write(warehouse, context, "sentiment_signals", signals, span)
    return dg.MaterializeResult(metadata={**ranges(signals), **_grades(signals)})


@dg.asset(deps=[price_signals, sentiment_signals], **_SIGNALS)
def trading_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """Price and sentiment as one signal from -1 to +1, labelled BUY, HOLD or SELL.

    Each source's contribution is kept; a source without evidence contributes nothing.
    """
    span = span_of(context)
    store = warehouse.store
    days = {"ticker": span.tickers, "session": (span.first, span.last)}
    price, sentiment = (store.rows(name, **days) for name in ("price_signals", "sentiment_signals"))
    signals = fusion.fuse(price, sentiment, SETTINGS.trading)
    signals = signals.merge(price[["ticker", "session", "model_hash"]], on=["ticker", "session"])
    _write(warehouse, context, "trading_signals", signals, span)
    bars = store.bars(span.tickers, span.first, span.last)
    show(
        context,
        price_with_signals=plots.price_with_signals(bars, signals),
        contributions=plots.signal_history(signals),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(signals),
            **_grades(signals),
            **{f"label_{name}": int((signals["label"] == name).sum()) for name in _LABELS},
        }
    )


@dg.asset(deps=[trading_signals, price_features], **_SIGNALS)
def trading_decisions(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """What to hold from the next open, how that differs from before, and why in one sentence.

    Limits on the sum of all weights look at every ticker of a session, whichever are materialized.
    """
    span = span_of(context)
    store = warehouse.store
    days = (span.first - _LOOK_BACK, span.last)
    signals = store.rows("trading_signals", session=days)
    volatility = store.rows("price_features", "ticker, session, volatility_20", session=days)
    sized = positions.size_positions(
        signals, volatility, SETTINGS.trading, SETTINGS.backtest.sessions_per_year
    )
    mine = signals[
        signals["ticker"].isin(span.tickers) & (signals["session"] >= pd.Timestamp(span.first))
    ]
    decided = decisions.decide(mine, sized)
    decided = decided.merge(mine[["ticker", "session", "model_hash"]], on=["ticker", "session"])
    _write(warehouse, context, "trading_decisions", decided, span)
    current = decisions.current_decisions(decided)
    columns = ["ticker", "session", "forecast", "sentiment", "signal", "label", "grade", "position"]
    show(context, newest=table(current, [*columns, "reason"]))
    return dg.MaterializeResult(
        metadata={
            **ranges(decided),
            "gross_exposure_now": float(current["position"].abs().sum()),
        }
    )


def _grades(signals: pd.DataFrame) -> dict[str, int]:
    """Rows per evidence grade, under names that Dagster can plot over time."""
    return {f"grade_{grade}": int((signals["grade"] == grade).sum()) for grade in get_args(Grade)}


def _joined(hashes: pd.Series) -> str:
    return ",".join(sorted(set(hashes)))
