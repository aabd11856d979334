"""From stored frames to a report: scores, accounts and the provenance that go with them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd

from rnn_pipeline.evidence.backtest import (
    Backtest,
    Fill,
    backtest,
    buy_and_hold,
    capacity,
    cash,
    equal_weight,
    sign_positions,
)
from rnn_pipeline.evidence.baselines import BASELINES, sentiment_forecasts
from rnn_pipeline.evidence.calibration import quantile_calibration, reliability
from rnn_pipeline.evidence.information import mean_cross_sectional_ic
from rnn_pipeline.evidence.luck import luck_by_horizon
from rnn_pipeline.evidence.metrics import average_seeds, forecast_metrics, rolling_ic
from rnn_pipeline.evidence.significance import (
    EVIDENCE_RULE,
    overall_evidence,
    pooled_evidence,
    trials_counted,
)
from rnn_pipeline.reporting import evidence_plots
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.reporting.style import without_minor
from rnn_pipeline.settings import Settings
from rnn_pipeline.trading.decisions import current_decisions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_NOTES = (
    "The bars are real (bokeh_sampledata, 2000 to 2013). The headlines of the sample are synthetic:"
    " each says what the bar of its session shows, so they carry no information beyond price.",
)
_LIBRARIES = ("rnn-pipeline", "dagster", "torch", "pandas", "duckdb")
_ACCOUNTS = {
    "strategy": backtest,
    "buy_and_hold": buy_and_hold,
    "equal_weight": equal_weight,
    "cash": cash,
}
_FILLS: tuple[Fill, ...] = ("open", "close")


def assemble(
    settings: Settings,
    *,
    bars: pd.DataFrame,
    headlines: pd.DataFrame,
    news_sentiment: pd.DataFrame,
    forecasts: pd.DataFrame,
    quantiles: pd.DataFrame,
    targets: pd.DataFrame,
    baselines: pd.DataFrame,
    trials: pd.DataFrame,
    trading_signals: pd.DataFrame,
    contributions: pd.DataFrame,
    decisions: pd.DataFrame,
    paper: pd.DataFrame,
    fills: pd.DataFrame,
    statuses: pd.DataFrame,
    fold_table: pd.DataFrame,
    history: pd.DataFrame,
    quarantine: pd.DataFrame,
    sentiment_metrics: pd.DataFrame,
    confusion: pd.DataFrame,
    lineage: Mapping[str, Sequence[str]],
) -> Report:
    """Score forecasts beside their baselines, run the accounts, and lay the report's frames out.

    Args:
        settings: what was asked for; costs are taken from it and all of it is shown.
        bars: ticker, session, open, close, adj_close, volume of every ticker.
        headlines: ticker, published_at, title, and score of those to be listed.
        news_sentiment: ticker, session, sentiment, sentiment_mean_5, news_count.
        forecasts: the networks' walk-forward forecasts with ``actual``.
        quantiles: the networks' quantiles, a row each, with ``actual``.
        targets: what the unconditional quantiles beside them come from.
        baselines: those of the baselines; where there are any, only their rows are scored. Those of
            the shortest horizon are shown.
        trials: the ledger of what was tried; empty: each model and seed is a trial.
        trading_signals: of all sessions.
        contributions: signal_contributions; those of the newest decisions are shown.
        decisions: trading_decisions of all sessions; the account trades their positions.
        paper: the paper account, of all sessions.
        fills: paper_fills.
        statuses: ticker, status: tickers without decisions, and why.
        fold_table: fold, role, first_session, last_session.
        history: loss curves.
        quarantine: table_name, ticker, rule.
        sentiment_metrics: model, n, accuracy, macro_f1.
        confusion: true labels by predicted ones.
        lineage: name -> hashes that made the decisions.

    Returns:
        The report of the newest session among the decisions, or among the bars without any.
    """
    graded = _on_shared_rows(forecasts, baselines)
    if len(graded):
        graded = pd.concat([graded, sentiment_forecasts(news_sentiment, graded)])
    every = pd.concat([graded, baselines], ignore_index=True) if len(graded) else graded
    base = settings.model.base_horizon
    scored = every[~every["model"].isin(BASELINES) | (every["horizon"] == base)]
    evidence = overall_evidence(graded, trials if len(trials) else None)
    tried = trials_counted(evidence)
    # The sentiment level is no log return, so that it has no loss to be compared by.
    lucky = luck_by_horizon(
        every[every["model"] != "sentiment"], tried, settings.backtest.sessions_per_year
    )
    accounts = _accounts(decisions, bars, settings)
    alone = _alone(scored, bars, settings)
    networks = {name: alone[name] for name in settings.model.slots if name in alone}
    drawn = {name: account for (name, fill), account in accounts.items() if fill == "open"}
    counts = bars.groupby("ticker")["session"].agg(["size", "min", "max"]).reset_index()
    counts.columns = pd.Index(["ticker", "bars", "first_session", "last_session"])
    told = headlines.groupby("ticker").size()
    session = (decisions if len(decisions) else bars)["session"].max()
    return Report(
        session=session,
        source=settings.source,
        decisions=current_decisions(decisions),
        statuses=statuses,
        metrics=forecast_metrics(scored, by=("model",)),
        metrics_by_ticker=forecast_metrics(scored, by=("ticker", "model")),
        metrics_by_fold=forecast_metrics(graded, by=("fold", "model")),
        mean_ic=mean_cross_sectional_ic(average_seeds(scored)),
        rolling_ic=rolling_ic(scored),
        reliability=reliability(scored),
        calibration=quantile_calibration(
            _on_shared_rows(quantiles, baselines), targets, fold_table
        ),
        evidence=evidence,
        pooled_evidence=pooled_evidence(graded, evidence),
        luck=lucky.frame,
        overfitting=lucky.overfitting,
        evidence_rule=EVIDENCE_RULE,
        fold_table=fold_table,
        history=history,
        equity={name: account.frame for name, account in (drawn | networks).items()},
        performance=_performance(accounts, decisions, bars),
        alone=pd.DataFrame(
            [{"model": name} | account.summary() for name, account in alone.items()]
        ),
        costs=_costs(drawn | networks),
        cost_bps=settings.backtest.cost_bps,
        bars=bars,
        trading_signals=trading_signals,
        contributions=contributions[contributions["session"] == session],
        paper=paper,
        missed_fills=fills[fills["missed"] != ""],
        news_sentiment=news_sentiment,
        headlines=headlines.dropna(subset="score"),
        sentiment_metrics=sentiment_metrics,
        confusion=confusion,
        data=counts.assign(headlines=counts["ticker"].map(told).fillna(0).astype(int)),
        quarantine=quarantine,
        provenance={
            "Hashes": {name: ", ".join(hashes) for name, hashes in lineage.items()},
            "Settings": _flat(settings.model_dump(mode="json")),
            "Versions": {"Python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
        },
        notes=SAMPLE_NOTES if settings.source == "sample" else (),
    )


def forecast_page(
    forecasts: pd.DataFrame,
    quantiles: pd.DataFrame,
    evidence: pd.DataFrame,
    targets: pd.DataFrame,
    fold_table: pd.DataFrame,
    sessions_per_year: int,
) -> dict[str, pd.DataFrame | Figure]:
    """What the page of the forecasts shows: their scores, how lucky they are, and the evidence.

    Args:
        forecasts: of networks and baselines, with ``actual`` and kind ("network" | "baseline").
        quantiles: the networks' quantiles, a row each, with ``actual``.
        evidence: by ticker, model and fold; the newest fold's is shown.
        targets: as for :func:`assemble`, with horizon.
        fold_table: fold, role, first_session, last_session.
        sessions_per_year: what Sharpe ratios are scaled by.

    Returns:
        Title to table or picture.
    """
    networks = forecasts[forecasts["kind"] == "network"]
    shown = forecasts["horizon"] == forecasts["horizon"].min()
    metrics = forecast_metrics(
        forecasts[shown | (forecasts["kind"] == "network")], by=("ticker", "model")
    )
    lucky = luck_by_horizon(forecasts, trials_counted(evidence), sessions_per_year)
    calibration = quantile_calibration(quantiles, targets, fold_table)
    return {
        "metrics": metrics,
        "hit_rates": evidence_plots.hit_rates(without_minor(metrics)),
        "calibration": calibration,
        "quantile_coverage": evidence_plots.quantile_coverage(calibration),
        "luck": lucky.frame,
        "luck_of_all": pd.DataFrame(
            {"superior_p": [lucky.superior_p], "backtest_overfitting": [lucky.overfitting]}
        ),
        "across_tickers": mean_cross_sectional_ic(average_seeds(networks)),
        "evidence": evidence.groupby(["ticker", "model"]).tail(1),
    }


def _on_shared_rows(forecasts: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """The forecasts of sessions that the baselines forecast too: newer ones wait for a retrain."""
    if baselines.empty:
        return forecasts
    keys = ["ticker", "session", "horizon"]
    return forecasts.merge(baselines[keys].drop_duplicates(), on=keys)


def _accounts(
    decisions: pd.DataFrame, bars: pd.DataFrame, settings: Settings
) -> dict[tuple[str, Fill], Backtest]:
    """The account of the decisions and its benchmarks, at both fills."""
    if decisions.empty:
        return {}
    return {
        (name, fill): account(decisions, bars, settings.backtest, fill)
        for fill in _FILLS
        for name, account in _ACCOUNTS.items()
    }


def _alone(scored: pd.DataFrame, bars: pd.DataFrame, settings: Settings) -> dict[str, Backtest]:
    """What each model would have earned, traded by its sign whatever its evidence."""
    if scored.empty:
        return {}
    return {
        str(model): backtest(sign_positions(rows), bars, settings.backtest)
        for model, rows in average_seeds(scored).groupby("model")
    }


def _performance(
    accounts: Mapping[tuple[str, Fill], Backtest], decisions: pd.DataFrame, bars: pd.DataFrame
) -> pd.DataFrame:
    rows = [
        {"name": name, "fill": fill} | account.summary()
        for (name, fill), account in accounts.items()
    ]
    frame = pd.DataFrame(rows)
    if len(frame):
        own = (frame["name"] == "strategy") & (frame["fill"] == "open")
        frame["capacity"] = pd.Series(capacity(decisions, bars), frame.index).where(own)
    return frame


def _costs(accounts: Mapping[str, Backtest]) -> pd.DataFrame:
    """What accounts that trade at all would have earned at other costs."""
    return pd.concat(
        [
            account.cost_sensitivity().assign(name=name)
            for name, account in accounts.items()
            if account.frame["turnover"].any()
        ]
        or [pd.DataFrame()],
        ignore_index=True,
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as ``folds.train_size``, the way messages and the environment name them."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
