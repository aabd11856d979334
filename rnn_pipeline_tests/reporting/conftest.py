from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.reporting import plots
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.trading.paper import EXPLANATIONS

from .frames import coverage, rolling, scored, tenths, walk

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out where only the words are looked at: drawing takes seconds."""
    monkeypatch.setattr(plots, "data_uri", lambda figure, kind: "data:,")


@pytest.fixture
def fold_table() -> pd.DataFrame:
    starts = pd.to_datetime(["2012-01-02", "2012-05-01", "2012-06-01", "2012-09-03"])
    return pd.DataFrame(
        [
            (
                fold,
                role,
                starts[i] + fold * pd.Timedelta(days=90),
                starts[i + 1] + pd.Timedelta(days=90 * fold - 3),
            )
            for fold in range(2)
            for i, role in enumerate(("train", "val", "test"))
        ],
        columns=["fold", "role", "first_session", "last_session"],
    )


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        [
            (model, ticker, 0, seed, epoch, 1 / (epoch + 1), 1.1 / (epoch + 1))
            for model in ("lstm", "gru")
            for ticker in ("AAPL", "IBM")
            for seed in range(2)
            for epoch in range(3 + seed)
        ],
        columns=["model", "ticker", "fold", "seed", "epoch", "train_loss", "val_loss"],
    )


@pytest.fixture
def equity() -> dict[str, pd.DataFrame]:
    axis = pd.bdate_range("2012-06-01", periods=60)
    return {
        "cash": pd.DataFrame({"session": axis, "equity": 1.0}),
        "signals": pd.DataFrame({"session": axis, "equity": np.linspace(1.0, 1.25, 60)}),
        "buy_and_hold": pd.DataFrame({"session": axis, "equity": np.linspace(1.0, 0.8, 60)}),
    }


@pytest.fixture
def make_report(
    fold_table: pd.DataFrame, history: pd.DataFrame, equity: dict[str, pd.DataFrame]
) -> Callable[..., Report]:
    """A full report over some tickers; keyword arguments replace its fields."""

    def make(tickers: list[str], **changes: object) -> Report:
        rows = walk(tickers, 60)
        today = rows[rows["session"] == rows["session"].max()]
        figures = ["total_return", "annual_return", "annual_volatility", "sharpe_ratio"]
        figures += ["max_drawdown", "turnover", "exposure", "cost_paid", "sortino_ratio"]
        figures += ["break_even_bps", "capacity"]
        fields: dict[str, object] = {
            "session": rows["session"].max(),
            "source": "sample",
            "decisions": today.assign(
                forecast=0.00123,
                sentiment=-0.25,
                grade="none",
                position=0.0,
                action="stay in cash",
                reason="Neither has shown evidence.",
            ),
            "statuses": pd.DataFrame({"ticker": ["FB"], "status": ["too little history"]}),
            "metrics": scored(),
            "metrics_by_ticker": scored(ticker=tickers),
            "metrics_by_fold": scored(fold=[0, 1]),
            "mean_ic": pd.DataFrame({"model": ["lstm"], "mean_ic": [0.031], "mean_ic_t": [1.2]}),
            "rolling_ic": rolling(),
            "reliability": tenths(),
            "calibration": coverage(),
            "evidence": scored(ticker=tickers)[["ticker", "model"]].assign(
                p_value=0.75, trials=6, sign_flip_rate=0.25, grade="none"
            ),
            "pooled_evidence": pd.DataFrame(
                {"model": ["lstm", "gru", "sentiment"], "p_value": [0.5, 0.25, 1.0]}
            ).assign(grade="none"),
            "luck": pd.DataFrame(
                {"model": ["lstm"], "superior_p": [0.625], "deflated_sharpe_ratio": [0.375]}
            ).assign(ic_low=-0.031, ic_high=0.062, in_confidence_set=True),
            "overfitting": 0.44,
            "evidence_rule": "The rule.",
            "fold_table": fold_table,
            "history": history,
            "equity": equity,
            "performance": pd.DataFrame(
                [
                    {"name": name, "fill": fill, **dict.fromkeys(figures, 0.125)}
                    for fill in ("open", "close")
                    for name in equity
                ]
            ),
            "alone": pd.DataFrame(
                [
                    {"model": model, **dict.fromkeys(figures, 0.25)}
                    for model in ("lstm", "gru", "zero")
                ]
            ),
            "costs": pd.DataFrame(
                [
                    {"name": name, "cost_bps": bps, "annual_return": 0.05 - 0.01 * bps}
                    for name in ("gru", "buy_and_hold")
                    for bps in (0.0, 5.0, 20.0)
                ]
            ),
            "cost_bps": 5.0,
            "bars": rows,
            "trading_signals": rows,
            "contributions": pd.DataFrame(
                [
                    (ticker, rows["session"].max(), *said)
                    for ticker in tickers
                    for said in (
                        ("lstm", 1, 0.002, 0.5, "weak", False, 0.25, 0.125),
                        ("lstm_h5", 5, -0.01, -1.0, "none", False, 0.0, 0.0),
                        ("sentiment", 0, 0.25, 0.5, "none", False, 0.0, 0.0),
                    )
                ],
                columns=[
                    *("ticker", "session", "source", "horizon", "forecast", "standardised"),
                    *("grade", "abstains", "weight", "contribution"),
                ],
            ),
            "paper": pd.DataFrame(
                {
                    "session": rows["session"].unique()[-3:],
                    "equity": [1.0, 1.01, 1.012],
                    "promise": [1.0, 1.012, 1.016],
                    **dict.fromkeys(EXPLANATIONS, 0.0),
                    "missed": [0.0, -0.001, -0.002],
                    "slippage": [0.0, -0.001, -0.002],
                }
            ),
            "missed_fills": pd.DataFrame(
                {
                    "ticker": tickers[:1],
                    "session": [rows["session"].max()],
                    "weight_wanted": [0.25],
                    "missed": ["no volume"],
                }
            ),
            "news_sentiment": rows,
            "headlines": pd.DataFrame(
                {
                    "ticker": tickers[:1],
                    "published_at": [pd.Timestamp("2012-06-01 21:05", tz="UTC")],
                    "title": ["Shares close higher"],
                    "score": [0.5],
                }
            ),
            "sentiment_metrics": pd.DataFrame(
                {"model": ["sentiment_lstm"], "n": [500], "accuracy": [0.912], "macro_f1": [0.9]}
            ),
            "confusion": pd.DataFrame(np.eye(3) * 50 + 5, index=LABELS, columns=LABELS),
            "data": pd.DataFrame(
                {
                    "ticker": tickers,
                    "bars": 300,
                    "first_session": rows["session"].min(),
                    "last_session": rows["session"].max(),
                    "headlines": 120,
                }
            ),
            "quarantine": pd.DataFrame(
                {"table_name": "raw_ohlcv", "ticker": tickers[0], "rule": ["low > high"] * 2}
            ),
            "provenance": {"Hashes": {"feature set": "3f9a5c"}},
            "notes": ("The headlines are synthetic.",),
        }
        return Report(**{**fields, **changes})  # type: ignore[arg-type]

    return make
