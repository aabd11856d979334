"""Signals from forecasts and sentiment, their fusion, and what to do about it."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, get_args

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.evidence import walk_forward_forecasts
from rnn_pipeline.defs.features import COLUMNS, model_features, news_sentiment, price_features
from rnn_pipeline.defs.guidance import require, says_why
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
from rnn_pipeline.defs.pending import Pending, nothing_new, pending
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.features.windows import ModelMatrix
from rnn_pipeline.reporting import plots
from rnn_pipeline.settings import Grade
from rnn_pipeline.trading import decisions, fusion, lineage
from rnn_pipeline.warehouse import inputs

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
    work: Pending,
) -> None:
    with warehouse.store.batch() as batch:
        batch.replace(table_name, rows.assign(run_id=context.run.run_id), **_of(work.span))
        if table_name == work.asset:
            work.done(batch)


@dg.asset(
    deps=[
        model_features,
        dg.AssetDep(walk_forward_forecasts, partition_mapping=BY_TICKER),
    ],
    **_SIGNALS,
)
@says_why
def price_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """All networks' forecasts of a session as one signal, weighted by the evidence of its fold.

    Sessions newer than the last walk-forward test are forecast here, once, by the champions and
    candidates of the registry; only champions are heard.
    """
    store = warehouse.store
    require(store, "price_signals", span_of(context).tickers, until="sequence_windows")
    rest_on = [
        inputs.made("model_features"),
        inputs.rows_of("forecasts"),
        inputs.whole("models"),
        inputs.whole("evidence"),
    ]
    work = pending(context, store, *rest_on)
    if work is None:
        return nothing_new()
    new = forecast_new_sessions(store, market.calendar, work.span, context.run.run_id)
    # The signals rest on the forecasts that were just made.
    work = pending(context, store, *rest_on) or work
    span = work.span
    forecasts = _heard(warehouse, market, span)
    evidence = store.rows("evidence", ticker=span.tickers)
    signals = fusion.price_signals(forecasts, evidence, SETTINGS.model.base_horizon)
    if len(signals):
        days = (span.first - _LOOK_BACK, span.last)
        features = store.rows("model_features", ticker=span.tickers, session=days)
        matrix = ModelMatrix.build(features, COLUMNS)
        made_by = lineage.price_lineage(forecasts, matrix, SETTINGS.model.lookback)
        signals = signals.merge(made_by, on=["ticker", "session"])
    _write(warehouse, context, "price_signals", signals, work)
    if len(signals):
        current = decisions.current_decisions(signals)
        show(context, made_of=table(current, ["ticker", *lineage.LINEAGE]))
    return dg.MaterializeResult(
        metadata={**ranges(signals), **_grades(signals), "new_forecasts": len(new)}
    )


@dg.asset(
    # A session has a fold once it was forecast.
    deps=[
        news_sentiment,
        price_signals,
        dg.AssetDep(walk_forward_forecasts, partition_mapping=BY_TICKER),
    ],
    **_SIGNALS,
)
@says_why
def sentiment_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """The sentiment of a session as a signal, weighted by the evidence of its fold."""
    store = warehouse.store
    require(store, "sentiment_signals", span_of(context).tickers, until="sequence_windows")
    work = pending(context, store, inputs.made("news_sentiment", "price_signals"))
    if work is None:
        return nothing_new()
    span = work.span
    sentiment = store.rows("news_sentiment", **_of(span))
    rows = fusion.with_folds(sentiment, store.rows("walk_forward_forecasts", **_of(span)))
    signals = fusion.sentiment_signals(rows, store.rows("evidence", ticker=span.tickers))
    signals = signals.merge(lineage.sentiment_lineage(sentiment), on=["ticker", "session"])
    _write(warehouse, context, "sentiment_signals", signals, work)
    newest = signals.groupby("ticker").tail(1)
    show(context, newest=table(newest, ["ticker", "session", "signal", "weight", "grade"]))
    return dg.MaterializeResult(metadata={**ranges(signals), **_grades(signals)})


@dg.asset(deps=[price_signals, sentiment_signals], **_SIGNALS)
@says_why
def trading_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """All sources as one signal from -1 to +1, labelled BUY, HOLD or SELL.

    The policy of the settings says how much each source counts; what each adds is kept.
    """
    store = warehouse.store
    require(store, "trading_signals", span_of(context).tickers, until="sequence_windows")
    rest_on = [inputs.made("price_signals", "sentiment_signals")]
    if SETTINGS.trading.policy == "stacking":
        rest_on += [inputs.rows_of("targets", "target_session"), inputs.rows_of("news_sentiment")]
    work = pending(context, store, *rest_on)
    if work is None:
        return nothing_new()
    span = work.span
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
    _write(warehouse, context, "signal_contributions", added, work)
    _write(warehouse, context, "trading_signals", signals, work)
    newest = added[added["session"] == added["session"].max()]
    show(
        context,
        price_with_signals=lambda: plots.price_with_signals(
            store.bars(span.tickers, span.first, span.last), signals
        ),
        contributions=lambda: plots.signal_history(signals),
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
@says_why
def trading_decisions(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """What to hold from the next open, how that differs from before, and why in one sentence.

    Limits look at every ticker of a session, whichever are materialized, and go on from the
    account as the session before left it.
    """
    from rnn_pipeline.chain import sized

    store = warehouse.store
    require(store, "trading_decisions", span_of(context).tickers, until="sequence_windows")
    work = pending(context, store, inputs.made("trading_signals", "price_features"))
    if work is None:
        return nothing_new()
    span = work.span
    weights, accounts = sized(store, SETTINGS, span.first, span.last)
    mine = store.rows("trading_signals", **_of(span))
    made_by = mine[["ticker", "session", *lineage.LINEAGE]]
    decided = decisions.decide(mine, weights).merge(made_by, on=["ticker", "session"])
    run_id = context.run.run_id
    with store.batch() as batch:
        days = (span.first, span.last)
        batch.replace("trading_account", accounts.assign(run_id=run_id), session=days)
        batch.replace("trading_decisions", decided.assign(run_id=run_id), **_of(span))
        work.done(batch)
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
