"""What the report's page is made of: one frame per question, checked where they enter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.trading.paper import EXPLANATIONS

_FIGURES = ("n", "mse", "mae", "r2_vs_zero", "hit_rate", "hit_low", "hit_high", "ic", "ic_t")
_ACCOUNT = (
    *("total_return", "annual_return", "annual_volatility", "sharpe_ratio", "sortino_ratio"),
    *("max_drawdown", "turnover", "exposure", "cost_paid", "break_even_bps"),
)
_REQUIRED = {
    "decisions": (
        *("ticker", "session", "forecast", "sentiment", "signal", "label", "grade", "position"),
        *("action", "reason"),
    ),
    "statuses": ("ticker", "status"),
    "metrics": ("model", *_FIGURES),
    "metrics_by_ticker": ("ticker", "model", *_FIGURES),
    "metrics_by_fold": ("fold", "model", "ic"),
    "mean_ic": ("model", "mean_ic", "mean_ic_t"),
    "rolling_ic": ("model", "session", "ic"),
    "reliability": ("model", "bin", "forecast", "actual", "low", "high"),
    "calibration": (
        *("model", "level", "n", "coverage", "low", "high", "pinball", "unconditional", "skill"),
    ),
    "evidence": ("ticker", "model", "p_value", "trials", "sign_flip_rate", "grade"),
    "pooled_evidence": ("model", "p_value", "grade"),
    "luck": (
        *("model", "superior_p", "deflated_sharpe_ratio", "ic_low", "ic_high"),
        "in_confidence_set",
    ),
    "fold_table": ("fold", "role", "first_session", "last_session"),
    "history": ("fold", "seed", "epoch", "train_loss", "val_loss"),
    "performance": ("name", "fill", *_ACCOUNT, "capacity"),
    "alone": ("model", *_ACCOUNT),
    "costs": ("name", "cost_bps", "annual_return"),
    "bars": ("ticker", "session", "adj_close"),
    "trading_signals": (
        *("ticker", "session", "price_contribution", "sentiment_contribution", "signal", "label"),
    ),
    "contributions": (
        *("ticker", "session", "source", "horizon", "forecast", "standardised", "grade"),
        *("abstains", "weight", "contribution"),
    ),
    "paper": ("session", "equity", "promise", *EXPLANATIONS),
    "missed_fills": ("ticker", "session", "weight_wanted", "missed"),
    "news_sentiment": ("ticker", "session", "sentiment_mean_5", "news_count"),
    "headlines": ("ticker", "published_at", "title", "score"),
    "sentiment_metrics": ("model", "n", "accuracy", "macro_f1"),
    "data": ("ticker", "bars", "first_session", "last_session", "headlines"),
    "quarantine": ("table_name", "ticker", "rule"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything the page shows. A frame that is left empty becomes a sentence in its place.

    Attributes:
        session: the session whose close the decisions were taken at.
        source: where the data comes from, as in the settings.
        decisions: trading_decisions of that session: ticker, session, forecast, sentiment, signal,
            label, grade, position, action, reason.
        statuses: ticker, status: tickers without a decision, and why ("too little history: ...").
        metrics: ``forecast_metrics(..., by=("model",))`` of models and baselines together.
        metrics_by_ticker: the same by ("ticker", "model").
        metrics_by_fold: the same by ("fold", "model"); only ic is shown.
        mean_ic: ``mean_cross_sectional_ic``: model, mean_ic, mean_ic_t.
        rolling_ic: model, session, ic.
        reliability: model, bin, forecast, actual, low, high.
        calibration: ``quantile_calibration``: model, level, n, coverage, low, high, pinball,
            unconditional, skill.
        evidence: ``overall_evidence``: ticker, model, p_value, trials, sign_flip_rate, grade.
        pooled_evidence: ``pooled_evidence``: model, p_value, grade.
        luck: the frame of ``Luck``: model, superior_p, deflated_sharpe_ratio, ic_low, ic_high,
            in_confidence_set.
        overfitting: probability of backtest overfitting among all models and seeds.
        evidence_rule: how the grades are given, in words.
        fold_table: fold, role, first_session, last_session.
        history: ticker, model, fold, seed, epoch, train_loss, val_loss.
        equity: name -> session, equity (the frames of ``Backtest``), filled at the next open.
        performance: name, fill ("open" | "close"), the figures of ``Backtest.summary``, capacity;
            of the decisions' account and its benchmarks.
        alone: model and the figures of ``Backtest.summary``: each model traded by its sign alone.
        costs: name, cost_bps, annual_return: accounts at several costs.
        cost_bps: what trades are charged in all other frames, in basis points.
        bars: ticker, session, adj_close.
        trading_signals: ticker, session, price_contribution, sentiment_contribution, signal, label.
        contributions: signal_contributions of the decisions' session: ticker, session, source,
            horizon, forecast, standardised, grade, abstains, weight, contribution.
        paper: the paper account: session, equity, promise and what explains their difference.
        missed_fills: paper orders that were not filled: ticker, session, weight_wanted, missed.
        news_sentiment: ticker, session, sentiment_mean_5, news_count.
        headlines: ticker, published_at, title, score (-1..1); the latest are listed.
        sentiment_metrics: model, n, accuracy, macro_f1 on the held-out headlines.
        confusion: counts; index: true labels, columns: predicted ones, in the same order.
        data: ticker, bars, first_session, last_session, headlines (counts).
        quarantine: table_name, ticker, rule; one row per rejected row.
        provenance: heading -> name -> value: hashes, settings, versions.
        notes: sentences the reader must know about the data.

    Raises:
        ValueError: a frame with rows lacks a column that the page needs.
    """

    session: pd.Timestamp
    source: str
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    statuses: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics_by_ticker: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics_by_fold: pd.DataFrame = field(default_factory=pd.DataFrame)
    mean_ic: pd.DataFrame = field(default_factory=pd.DataFrame)
    rolling_ic: pd.DataFrame = field(default_factory=pd.DataFrame)
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)
    calibration: pd.DataFrame = field(default_factory=pd.DataFrame)
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame)
    pooled_evidence: pd.DataFrame = field(default_factory=pd.DataFrame)
    luck: pd.DataFrame = field(default_factory=pd.DataFrame)
    overfitting: float = float("nan")
    evidence_rule: str = ""
    fold_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    equity: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    performance: pd.DataFrame = field(default_factory=pd.DataFrame)
    alone: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    cost_bps: float = float("nan")
    bars: pd.DataFrame = field(default_factory=pd.DataFrame)
    trading_signals: pd.DataFrame = field(default_factory=pd.DataFrame)
    contributions: pd.DataFrame = field(default_factory=pd.DataFrame)
    paper: pd.DataFrame = field(default_factory=pd.DataFrame)
    missed_fills: pd.DataFrame = field(default_factory=pd.DataFrame)
    news_sentiment: pd.DataFrame = field(default_factory=pd.DataFrame)
    headlines: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentiment_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    confusion: pd.DataFrame = field(default_factory=pd.DataFrame)
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    quarantine: pd.DataFrame = field(default_factory=pd.DataFrame)
    provenance: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, columns in _REQUIRED.items():
            frame = getattr(self, name)
            if len(frame):
                require(frame, f"report.{name}", columns)
            else:
                # An empty frame may come without columns: give it those that are asked of it, of
                # the one type that joins with any name.
                absent = dict.fromkeys(set(columns) - set(frame.columns), "object")
                told = frame.reindex(columns=list(columns)).astype(absent)
                object.__setattr__(self, name, told)
