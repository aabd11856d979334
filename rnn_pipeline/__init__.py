"""Daily trading research and live signals from recurrent networks, provably point in time.

The wings follow the flow of data: :mod:`~rnn_pipeline.warehouse` keeps what was known and when,
:mod:`~rnn_pipeline.market` brings bars and headlines in, :mod:`~rnn_pipeline.features` turns them
into what the :mod:`~rnn_pipeline.networks` see, :mod:`~rnn_pipeline.evidence` asks whether the
forecasts are worth anything, :mod:`~rnn_pipeline.trading` decides what to do about it, and
:mod:`~rnn_pipeline.reporting` draws it. Only ``defs``, ``definitions`` and ``cli`` know Dagster.

What is of use without the pipeline is exported here: networks and estimators, features, folds,
as-of reads, evidence. Each is imported when it is first asked for (PEP 562), so that
``import rnn_pipeline`` waits for nothing and a fold does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnn_pipeline.evidence.backtest import backtest
    from rnn_pipeline.evidence.baselines import rule_forecasts
    from rnn_pipeline.evidence.metrics import forecast_metrics
    from rnn_pipeline.evidence.significance import evidence_by_fold, overall_evidence
    from rnn_pipeline.features.catalogue import feature_table
    from rnn_pipeline.features.folds import fold_table, walk_forward
    from rnn_pipeline.features.price import Feature, price_features, targets
    from rnn_pipeline.features.sentiment import daily_sentiment
    from rnn_pipeline.market.calendar import SessionCalendar
    from rnn_pipeline.networks.estimators import MultivariateLSTM, TradingGRU, TradingLSTM
    from rnn_pipeline.networks.reading import SentimentLSTM
    from rnn_pipeline.networks.recurrent import GRUNet, LSTMNet, StackedLSTM
    from rnn_pipeline.networks.sentiment import SentimentClassifier
    from rnn_pipeline.settings import (
        BacktestSpec,
        FoldSpec,
        NetworkSpec,
        Settings,
        TradingSpec,
        TrainingSpec,
        load_settings,
    )
    from rnn_pipeline.trading.positions import size_positions
    from rnn_pipeline.warehouse.store import Warehouse

__all__ = [
    "BacktestSpec",
    "Feature",
    "FoldSpec",
    "GRUNet",
    "LSTMNet",
    "MultivariateLSTM",
    "NetworkSpec",
    "SentimentClassifier",
    "SentimentLSTM",
    "SessionCalendar",
    "Settings",
    "StackedLSTM",
    "TradingGRU",
    "TradingLSTM",
    "TradingSpec",
    "TrainingSpec",
    "Warehouse",
    "backtest",
    "daily_sentiment",
    "evidence_by_fold",
    "feature_table",
    "fold_table",
    "forecast_metrics",
    "load_settings",
    "overall_evidence",
    "price_features",
    "rule_forecasts",
    "size_positions",
    "targets",
    "walk_forward",
]

_HOMES = {
    "BacktestSpec": "settings",
    "Feature": "features.price",
    "FoldSpec": "settings",
    "GRUNet": "networks.recurrent",
    "LSTMNet": "networks.recurrent",
    "MultivariateLSTM": "networks.estimators",
    "NetworkSpec": "settings",
    "SentimentClassifier": "networks.sentiment",
    "SentimentLSTM": "networks.reading",
    "SessionCalendar": "market.calendar",
    "Settings": "settings",
    "StackedLSTM": "networks.recurrent",
    "TradingGRU": "networks.estimators",
    "TradingLSTM": "networks.estimators",
    "TradingSpec": "settings",
    "TrainingSpec": "settings",
    "Warehouse": "warehouse.store",
    "backtest": "evidence.backtest",
    "daily_sentiment": "features.sentiment",
    "evidence_by_fold": "evidence.significance",
    "feature_table": "features.catalogue",
    "fold_table": "features.folds",
    "forecast_metrics": "evidence.metrics",
    "load_settings": "settings",
    "overall_evidence": "evidence.significance",
    "price_features": "features.price",
    "rule_forecasts": "evidence.baselines",
    "size_positions": "trading.positions",
    "targets": "features.price",
    "walk_forward": "features.folds",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    exported = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = exported
    return exported


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
