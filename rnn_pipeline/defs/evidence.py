"""Forecasts of sessions that no network was trained on, graded, and the report about them."""

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.features import news_sentiment
from rnn_pipeline.defs.metadata import ranges, show, table
from rnn_pipeline.defs.networks import forecasters, load_forecasters, read_fold_datasets
from rnn_pipeline.defs.partitions import BY_TICKER, ONE_RUN, SETTINGS, TICKERS, tickers_of
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.evidence.baselines import sentiment_forecasts
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.significance import EVIDENCE_RULE, evidence_by_fold
from rnn_pipeline.reporting import plots

NO_FORECASTS = pd.DataFrame(
    {name: [] for name in ("ticker", "session", "fold", "model", "seed", "forecast", "model_hash")}
)


def stamped(
    forecasts: pd.DataFrame, features: pd.DataFrame, context: dg.AssetExecutionContext
) -> pd.DataFrame:
    """Forecasts as the table keeps them: when each could be made, and what made it."""
    from rnn_pipeline.networks.checkpoints import code_version

    lineage = features[["ticker", "session", "known_at", "feature_set_hash"]]
    return forecasts.merge(lineage, on=["ticker", "session"]).assign(
        horizon=SETTINGS.model.horizon, code_version=code_version(), run_id=context.run_id
    )


@dg.asset(
    partitions_def=TICKERS,
    backfill_policy=ONE_RUN,
    deps=[*forecasters, dg.AssetDep(news_sentiment, partition_mapping=BY_TICKER)],
    pool=WAREHOUSE_POOL,
    group_name="evidence",
    kinds={"pytorch", "duckdb"},
)
def walk_forward_forecasts(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """Every network's forecast of its fold's test sessions, and the evidence each fold begins with.

    The evidence of a fold comes from earlier folds' forecasts alone; the sentiment level is graded
    by the same rule.
    """
    tickers = tickers_of(context)
    store = warehouse.store
    models = [load_forecasters(model, tickers) for model in SETTINGS.model.networks]
    tests = [
        model[data.ticker].forecast_test(data)
        for data in read_fold_datasets(warehouse, market, tickers)
        for model in models
        if data.ticker in model
    ]
    features = store.rows("model_features", ticker=tickers)
    rows = stamped(pd.concat(tests or [NO_FORECASTS]), features, context)
    with store.batch() as batch:
        batch.replace("forecasts", rows, ticker=tickers)
    forecasts = store.rows("walk_forward_forecasts", ticker=tickers)
    sentiment = sentiment_forecasts(store.rows("news_sentiment", ticker=tickers), forecasts)
    evidence = evidence_by_fold(pd.concat([forecasts, sentiment]))
    with store.batch() as batch:
        batch.replace("evidence", evidence.assign(run_id=context.run_id), ticker=tickers)
    metrics = forecast_metrics(forecasts, by=("ticker", "model"))
    show(context, metrics=table(metrics), hit_rates=plots.hit_rates(metrics))
    return dg.MaterializeResult(
        metadata={
            **ranges(forecasts),
            "folds": int(forecasts["fold"].nunique()),
            "evidence_rule": EVIDENCE_RULE,
        }
    )
