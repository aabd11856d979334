"""The report that a person reads in the morning."""

from datetime import date

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.evidence import unless_implausible, walk_forward_forecasts
from rnn_pipeline.defs.features import SENTIMENT_MODEL
from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.metadata import show
from rnn_pipeline.defs.paper import paper_account
from rnn_pipeline.defs.partitions import SETTINGS, universe
from rnn_pipeline.defs.pending import nothing_new, pending_whole
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, WarehouseResource
from rnn_pipeline.defs.trading import trading_decisions
from rnn_pipeline.evidence.backtest import backtest
from rnn_pipeline.evidence.plausibility import implausible_account
from rnn_pipeline.evidence.text_baseline import tfidf_confusion
from rnn_pipeline.reporting import evidence_plots, plots
from rnn_pipeline.reporting.assemble import assemble
from rnn_pipeline.reporting.html import HEADLINE_LIMIT, render_report
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.reporting.style import without_minor
from rnn_pipeline.reporting.tables import evidence_table_markdown
from rnn_pipeline.reporting.verdict import verdict
from rnn_pipeline.warehouse import Warehouse, inputs
from rnn_pipeline.warehouse.files import write_atomically

REPORT = SETTINGS.report_path


def read_report(store: Warehouse) -> Report:
    """The report as of what the warehouse holds now."""
    from rnn_pipeline.networks.sentiment import load_sentiment, scores

    tickers = list(universe(SETTINGS))
    mine = {"ticker": tickers}
    model = load_sentiment(SENTIMENT_MODEL)
    corpus = store.rows("labelled_headlines", "headline, label, split")
    train, test = (corpus[corpus["split"] == part] for part in ("train", "test"))
    headlines = store.headlines(tickers)
    newest = headlines.nlargest(HEADLINE_LIMIT, "published_at")
    confusion = model.confusion(test["headline"].tolist(), test["label"].tolist())
    decisions = store.rows("trading_decisions", **mine)
    newest_session = decisions["session"].max().date() if len(decisions) else date.min
    judged = {"sentiment": confusion, "tfidf_logistic": tfidf_confusion(train, test)}
    return assemble(
        SETTINGS,
        bars=store.bars(tickers),
        headlines=headlines.assign(
            score=pd.Series(model.score(newest["title"].tolist()), index=newest.index)
        ),
        news_sentiment=store.rows("news_sentiment", **mine),
        forecasts=store.rows("walk_forward_forecasts", **mine),
        quantiles=store.rows("walk_forward_quantiles", **mine),
        targets=store.rows("targets", horizon=list(SETTINGS.model.horizons), **mine),
        baselines=store.rows("walk_forward_baselines", **mine),
        trials=store.rows("trials", **mine),
        trading_signals=store.rows("trading_signals", **mine),
        contributions=store.rows("signal_contributions", session=newest_session, **mine),
        decisions=decisions,
        paper=store.rows("paper_account"),
        fills=store.rows("paper_fills"),
        statuses=store.rows("window_sets", "ticker, status", folds=0, **mine),
        fold_table=store.rows("folds"),
        history=store.rows("training_history", **mine),
        quarantine=store.rows("quarantine", **mine),
        sentiment_metrics=pd.DataFrame(
            [{"model": name, "n": len(test), **scores(counts)} for name, counts in judged.items()]
        ),
        confusion=confusion,
        lineage={
            "features": sorted(set(store.rows("model_features", **mine)["feature_set_hash"])),
            "checkpoints": sorted(store.rows("checkpoints", **mine)["checkpoint_hash"].str[:16]),
        },
    )


@dg.asset(
    deps=[walk_forward_forecasts, trading_decisions, paper_account],
    pool=WAREHOUSE_POOL,
    group_name="evidence",
    kinds={"html"},
)
@says_why
def walk_forward_report(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """One HTML page: today's decisions, and whether the models behind them have earned any trust.

    Models stand beside the zero forecast, persistence and reversal; the account beside buy-and-hold
    and cash, after costs, filled at the next open.
    """
    store = warehouse.store
    tables = ("evidence", "models", "trials", "quarantine")
    decided = inputs.undated(inputs.made("trading_decisions"))
    work = pending_whole(context, store, decided, *map(inputs.whole, tables))
    if work is None:
        return nothing_new()
    report = read_report(store)
    write_atomically(REPORT, render_report(report).encode())
    with store.batch() as batch:
        work.done(batch)
    show(
        context,
        evidence=dg.MarkdownMetadataValue(evidence_table_markdown(report.metrics)),
        equity=lambda: evidence_plots.equity_curves(report.equity),
        ic_through_time=lambda: evidence_plots.rolling_ic(report.rolling_ic),
        hit_rates=lambda: evidence_plots.hit_rates(without_minor(report.metrics_by_ticker)),
        reliability=lambda: evidence_plots.reliability(report.reliability),
        calibration=lambda: evidence_plots.quantile_coverage(report.calibration),
        costs=lambda: evidence_plots.cost_sensitivity(report.costs, report.cost_bps),
        folds=lambda: plots.fold_map(report.fold_table),
    )
    return dg.MaterializeResult(
        metadata={
            "verdict": verdict(report.evidence, report.pooled_evidence),
            "report": dg.MetadataValue.path(REPORT),
            "session": f"{report.session:%Y-%m-%d}",
            "forecasts_scored": int(report.metrics["n"].max()) if len(report.metrics) else 0,
        }
    )


@dg.asset_check(
    asset=walk_forward_report,
    name="account_plausible",
    description="The decisions' Sharpe ratio is one that daily holding periods have given.",
    pool=WAREHOUSE_POOL,
)
@says_why
def account_plausible(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """The account of the decisions, after costs, filled at the next open."""
    mine = list(universe(SETTINGS))
    decisions = warehouse.store.rows("trading_decisions", ticker=mine)
    found = pd.DataFrame({"reason": []})
    if len(decisions):
        account = backtest(decisions, warehouse.store.bars(mine), SETTINGS.backtest)
        found = implausible_account(account, "strategy")
    return unless_implausible(found)
