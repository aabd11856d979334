"""From stored frames to a report: scores, accounts and the provenance that go with them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import pandas as pd

from rnn_pipeline.evidence.backtest import Fill, backtest, buy_and_hold, cash
from rnn_pipeline.evidence.baselines import baseline_forecasts, sentiment_forecasts
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.significance import EVIDENCE_RULE, overall_evidence
from rnn_pipeline.reporting.html import Report
from rnn_pipeline.settings import Settings
from rnn_pipeline.trading.decisions import current_decisions

SAMPLE_NOTES = (
    "The bars are real (bokeh_sampledata, 2000 to 2013). The headlines of the sample are synthetic:"
    " each says what the bar of its session shows, so they carry no information beyond price.",
)
_LIBRARIES = ("rnn-pipeline", "dagster", "torch", "pandas", "duckdb")
_ACCOUNTS = {"strategy": backtest, "buy_and_hold": buy_and_hold, "cash": cash}
_FILLS: tuple[Fill, ...] = ("open", "close")


def assemble(
    settings: Settings,
    *,
    bars: pd.DataFrame,
    headlines: pd.DataFrame,
    news_sentiment: pd.DataFrame,
    forecasts: pd.DataFrame,
    trials: pd.DataFrame,
    trading_signals: pd.DataFrame,
    decisions: pd.DataFrame,
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
        bars: ticker, session, open, close, adj_close of every ticker.
        headlines: ticker, published_at, title, and score of those to be listed.
        news_sentiment: ticker, session, sentiment, sentiment_mean_5, news_count.
        forecasts: the networks' walk-forward forecasts with ``actual``.
        trials: the ledger of what was tried.
        trading_signals: of all sessions.
        decisions: trading_decisions of all sessions; the account trades their positions.
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
    scored = forecasts
    if len(forecasts):
        scored = pd.concat(
            [
                forecasts,
                sentiment_forecasts(news_sentiment, forecasts),
                baseline_forecasts(bars, forecasts),
            ],
            ignore_index=True,
        )
    graded = scored[scored["model_hash"] != "baseline"]
    performance, equity = _accounts(decisions, bars, settings)
    counts = bars.groupby("ticker")["session"].agg(["size", "min", "max"]).reset_index()
    counts.columns = pd.Index(["ticker", "bars", "first_session", "last_session"])
    told = headlines.groupby("ticker").size()
    return Report(
        session=(decisions if len(decisions) else bars)["session"].max(),
        source=settings.source,
        decisions=current_decisions(decisions),
        statuses=statuses,
        metrics=forecast_metrics(scored, by=("model",)),
        metrics_by_ticker=forecast_metrics(scored, by=("ticker", "model")),
        metrics_by_fold=forecast_metrics(graded, by=("fold", "model")),
        evidence=overall_evidence(graded, trials),
        evidence_rule=EVIDENCE_RULE,
        fold_table=fold_table,
        history=history,
        equity=equity,
        performance=performance,
        bars=bars,
        trading_signals=trading_signals,
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


def _accounts(
    decisions: pd.DataFrame, bars: pd.DataFrame, settings: Settings
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Figures of every account at both fills, and the equity of those filled at the open."""
    if decisions.empty:
        return pd.DataFrame(), {}
    results = {
        (name, fill): account(decisions, bars, settings.backtest, fill)
        for fill in _FILLS
        for name, account in _ACCOUNTS.items()
    }
    performance = pd.DataFrame(
        [
            {"name": name, "fill": fill} | result.summary()
            for (name, fill), result in results.items()
        ]
    )
    return performance, {name: results[name, "open"].frame for name in _ACCOUNTS}


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
