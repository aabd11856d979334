"""Daily trading research and live signals from recurrent networks, provably point in time.

The wings follow the flow of data: :mod:`~rnn_pipeline.warehouse` keeps what was known and when,
:mod:`~rnn_pipeline.market` brings bars and headlines in, :mod:`~rnn_pipeline.features` turns them
into what the :mod:`~rnn_pipeline.networks` see, :mod:`~rnn_pipeline.evidence` asks whether the
forecasts are worth anything, :mod:`~rnn_pipeline.trading` decides what to do about it, and
:mod:`~rnn_pipeline.reporting` draws it. Only ``defs``, ``definitions`` and ``cli`` know Dagster.

The wrappers and networks that need no pipeline are exported here. They are imported when they are
first asked for (PEP 562), so that ``import rnn_pipeline`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnn_pipeline.networks.estimators import MultivariateLSTM, TradingGRU, TradingLSTM
    from rnn_pipeline.networks.reading import SentimentLSTM
    from rnn_pipeline.networks.recurrent import GRUNet, LSTMNet, StackedLSTM
    from rnn_pipeline.networks.sentiment import SentimentClassifier

__all__ = [
    "GRUNet",
    "LSTMNet",
    "MultivariateLSTM",
    "SentimentClassifier",
    "SentimentLSTM",
    "StackedLSTM",
    "TradingGRU",
    "TradingLSTM",
]

_HOMES = {
    "GRUNet": "recurrent",
    "LSTMNet": "recurrent",
    "MultivariateLSTM": "estimators",
    "SentimentClassifier": "sentiment",
    "SentimentLSTM": "reading",
    "StackedLSTM": "recurrent",
    "TradingGRU": "estimators",
    "TradingLSTM": "estimators",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    exported = getattr(import_module(f"{__name__}.networks.{_HOMES[name]}"), name)
    globals()[name] = exported
    return exported


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
