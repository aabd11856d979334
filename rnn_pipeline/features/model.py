"""What a network is shown of a session: chosen price features and the session's sentiment.

Every declared feature is computed and stored; which of them are columns of the model matrix is the
setting ``model.features``, because each one costs training time and may only add noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rnn_pipeline.features.catalogue import NAMES
from rnn_pipeline.features.price import PRICE_FEATURES
from rnn_pipeline.features.sentiment import DECLARED_SENTIMENT, SENTIMENT_FEATURES

DEFAULT_FEATURES = (*(feature.name for feature in PRICE_FEATURES), *SENTIMENT_FEATURES)
"""The columns of a window where the settings name none, in their order."""

_KEYS = ["ticker", "session"]


def model_columns(wanted: Sequence[str]) -> tuple[str, ...]:
    """The columns of the model matrix, in the order asked for.

    Args:
        wanted: names from ``model.features``; none means `DEFAULT_FEATURES`.

    Raises:
        ValueError: a name is not declared, or stands twice.
    """
    declared = (*NAMES, *DECLARED_SENTIMENT)
    unknown = [name for name in wanted if name not in declared]
    if unknown:
        raise ValueError(
            f"model.features names {unknown}, which no feature is called: choose among"
            f" {', '.join(declared)}"
        )
    if len(set(wanted)) < len(wanted):
        twice = sorted({name for name in wanted if list(wanted).count(name) > 1})
        raise ValueError(f"model.features names {twice} twice: name each feature once")
    return tuple(wanted) or DEFAULT_FEATURES


def model_features(
    prices: pd.DataFrame, sentiment: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Lay price features and sentiment side by side, for the sessions that have both.

    Returns:
        ticker, session, known_at, feature_set_hash and ``columns``.
    """
    rows = prices.merge(sentiment[[*_KEYS, *DECLARED_SENTIMENT]], on=_KEYS)
    return rows[[*_KEYS, "known_at", "feature_set_hash", *columns]]
