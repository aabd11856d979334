"""Forecasts of sessions that no network was trained on, graded, and the report about them."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.features import news_sentiment, sequence_windows, session_axis
from rnn_pipeline.defs.guidance import require, says_why
from rnn_pipeline.defs.metadata import ranges, show, table
from rnn_pipeline.defs.models import asked_recipes, register_trained
from rnn_pipeline.defs.networks import (
    folds_of,
    forecasters,
    read_fold_datasets,
    stored_forecasters,
)
from rnn_pipeline.defs.partitions import BY_TICKER, ONE_RUN, SETTINGS, TICKERS, tickers_of
from rnn_pipeline.defs.resources import (
    COMPUTE_POOL,
    WAREHOUSE_POOL,
    MarketResource,
    WarehouseResource,
)
from rnn_pipeline.evidence.baselines import BASELINES, walk_forward_baselines
from rnn_pipeline.evidence.comparison import opening_the_newest_fold
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.plausibility import ADVICE, implausible_forecasts
from rnn_pipeline.evidence.significance import (
    EVIDENCE_RULE,
    charged_evidence,
    trials_counted,
    with_sentiment,
)
from rnn_pipeline.features.folds import fold_table
from rnn_pipeline.reporting.assemble import forecast_page
from rnn_pipeline.reporting.tables import evidence_table_markdown


@dg.asset(
    partitions_def=TICKERS,
    backfill_policy=ONE_RUN,
    deps=[sequence_windows],
    pool=COMPUTE_POOL,
    group_name="evidence",
    kinds={"scikitlearn", "lightgbm"},
)
@says_why
def baseline_forecasts(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """What networks must beat, on their own windows and folds: simple rules and fitted models.

    A fold is fitted again only where its rows have changed. Nothing here is traded.
    """
    from rnn_pipeline.networks.walk_forward import stamped

    tickers = tickers_of(context)
    store = warehouse.store
    require(store, "baseline_forecasts", tickers, until="sequence_windows")
    features = store.rows("model_features", ticker=tickers)
    made, fitted = [], 0
    for horizon in SETTINGS.model.horizons:
        rows, new = walk_forward_baselines(
            read_fold_datasets(warehouse, market, tickers, horizon),
            store.rows("targets", ticker=tickers, horizon=horizon),
            store.rows("baseline_forecasts", ticker=tickers, horizon=horizon),
        )
        made.append(stamped(rows, features, horizon))
        fitted += new
    rows = pd.concat(made).assign(run_id=context.run.run_id)
    with store.batch() as batch:
        batch.replace("baseline_forecasts", rows, ticker=tickers)
    scored = store.rows("walk_forward_baselines", ticker=tickers)
    metrics = forecast_metrics(scored, by=("ticker", "horizon", "model"))
    show(context, metrics=table(metrics))
    return dg.MaterializeResult(
        metadata={**ranges(scored), "baselines": len(BASELINES), "folds_fitted": fitted}
    )


@dg.asset(
    partitions_def=TICKERS,
    backfill_policy=ONE_RUN,
    deps=[
        *forecasters,
        baseline_forecasts,
        dg.AssetDep(news_sentiment, partition_mapping=BY_TICKER),
    ],
    pool=WAREHOUSE_POOL,
    group_name="evidence",
    kinds={"pytorch", "duckdb"},
)
@says_why
def walk_forward_forecasts(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """Every network's forecast of its fold's test sessions, and the evidence each fold begins with.

    The evidence of a fold comes from earlier folds' forecasts alone; the sentiment level is graded
    by the same rule.
    """
    from rnn_pipeline.networks import walk_forward

    tickers = tickers_of(context)
    store = warehouse.store
    require(store, "walk_forward_forecasts", tickers, until="sequence_windows")
    asked = asked_recipes(store)
    names = [recipe.model for recipe in asked.values()]
    models = {slot: stored_forecasters(recipe.model, tickers) for slot, recipe in asked.items()}
    features = store.rows("model_features", ticker=tickers)
    rows = pd.concat(
        [
            walk_forward.stamped(
                walk_forward.walk_forward_forecasts(
                    read_fold_datasets(warehouse, market, tickers, part.base_horizon),
                    [models[slot] for slot in part.networks],
                ),
                features,
                part.base_horizon,
            )
            for part in SETTINGS.model.by_horizon()
        ]
    ).assign(run_id=context.run.run_id)
    # What was forecast for a session when it was new is the record, whatever a refit would say.
    mine, of_models = {"ticker": tickers}, {"ticker": tickers, "model": names}
    kept = store.rows("forecasts", **of_models)
    kept = kept[kept["version"].notna()]
    quantiles = store.rows("forecast_quantiles", **of_models)
    quantiles = quantiles.drop(walk_forward.without(quantiles, kept).index)
    rows = walk_forward.without(rows, kept)
    with store.batch() as batch:
        batch.replace("forecasts", kept, **of_models)
        batch.append("forecasts", rows)
        batch.replace("forecast_quantiles", quantiles, **of_models)
        batch.append("forecast_quantiles", walk_forward.quantile_rows(rows))
    evidence, added = charged_evidence(
        opening_the_newest_fold(store.rows("recipe_forecasts", **mine)),
        store.rows("news_sentiment", **mine),
        store.rows("trials", **mine),
        store.rows("tuning_trials", **mine),
        SETTINGS.model,
        SETTINGS.folds,
        pd.Timestamp(datetime.now(UTC)),
        {slot: recipe.model for slot, recipe in asked.items()},
    )
    with store.batch() as batch:
        batch.append("trials", added.assign(run_id=context.run.run_id))
        batch.replace("evidence", evidence.assign(run_id=context.run.run_id), **mine)
    axis = session_axis(warehouse, market)
    folds = folds_of(axis, SETTINGS.model.base_horizon)
    changed = register_trained(store, models, tickers, axis, folds, context.run.run_id)
    # Last of all: a fold that stands here counts as trained, also after a kill on the way.
    with store.batch() as batch:
        batch.replace("folds", fold_table(folds, axis), fold=(0, 1_000_000))
    forecasts = store.rows("walk_forward_forecasts", **mine)
    page = forecast_page(
        store.rows("all_forecasts", **mine),
        store.rows("walk_forward_quantiles", **mine),
        evidence,
        store.rows("targets", horizon=list(SETTINGS.model.horizons), **mine),
        store.rows("folds"),
        SETTINGS.backtest.sessions_per_year,
    )
    newest = dg.MarkdownMetadataValue(evidence_table_markdown(page.pop("evidence")))
    show(context, **page, evidence=newest)
    return dg.MaterializeResult(
        metadata={
            **ranges(forecasts),
            "folds": int(forecasts["fold"].nunique()),
            "versions_registered": int(changed["state"].isin(["champion", "candidate"]).sum()),
            "trials": trials_counted(evidence),
            "evidence_rule": EVIDENCE_RULE,
        }
    )


@dg.asset_check(
    asset=walk_forward_forecasts,
    name="figures_plausible",
    description="No figure is above what daily data has ever given: that would rather be a leak.",
    pool=WAREHOUSE_POOL,
)
@says_why
def figures_plausible(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Information coefficient, hit rate, R² and Sharpe ratio of each model, and on each ticker."""
    store = warehouse.store
    forecasts = store.rows("walk_forward_forecasts")
    scored = with_sentiment(forecasts, store.rows("news_sentiment"))
    return unless_implausible(implausible_forecasts(scored, SETTINGS.backtest.sessions_per_year))


def unless_implausible(found: pd.DataFrame) -> dg.AssetCheckResult:
    """A warning that names the figures which are too good to be true."""
    return dg.AssetCheckResult(
        passed=found.empty,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            "; ".join([*found["reason"].head(5), ADVICE])
            if len(found)
            else "every figure is one that daily data can give"
        ),
        metadata={"implausible": table(found)},
    )


@dg.asset_check(
    asset=walk_forward_forecasts,
    name="no_look_ahead",
    description=(
        "The chain, run again with the future cut off, scrambled and restated, says the same of"
        " the past, bit for bit. The job audit runs it."
    ),
    pool=WAREHOUSE_POOL,
)
@says_why
def no_look_ahead(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> dg.AssetCheckResult:
    """See ``rnn_pipeline.audit``."""
    from rnn_pipeline.audit import audit, longest, summary

    store = warehouse.store
    findings = audit(store, longest(store), SETTINGS, cuts=1, progress=context.log.info)
    return dg.AssetCheckResult(
        passed=findings.clean,
        description="; ".join(map(str, findings.differences)) or "the past stands still",
        metadata={"compared": table(summary(findings))},
    )
