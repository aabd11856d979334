"""Every declared feature of bars, by family: those of the first set, and what else researchers use.

`DECLARED` is computed and stored for every session; the networks see the columns that
``model.features`` chooses. Like the first set, all are functions of their own window alone, and
scale-free but for ``log_dollar_volume_20``, which splits and dividends do not move either.
"""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pandas as pd

from rnn_pipeline.features.cross_section import (
    CROSS_FEATURES,
    base_columns,
    cross_features,
    cross_set_hash,
)
from rnn_pipeline.features.price import (
    FLAT,
    MOVING_AVERAGES,
    PRICE_FEATURES,
    Array,
    Feature,
    Panel,
    feature_set_hash,
    price_features,
    warm_up,
)

YEAR = 252
"""Sessions in 52 weeks."""

_ANY = float("inf")


def _return_over(panel: Panel, n: int) -> Array:
    return panel.close / panel.lag(panel.close, n) - 1.0


def _parkinson(panel: Panel, n: int) -> Array:
    spread = np.log(panel.high / panel.low)
    return np.sqrt(panel.rolling_mean(spread * spread, n) / (4.0 * np.log(2.0)))


def _garman_klass(panel: Panel, n: int) -> Array:
    spread = np.log(panel.high / panel.low)
    moved = np.log(panel.close / panel.open)
    daily = 0.5 * spread * spread - (2.0 * np.log(2.0) - 1.0) * moved * moved
    # A close that a source rounded to just above the high makes a still day's variance negative.
    return np.sqrt(np.maximum(panel.rolling_mean(daily, n), 0.0))


def _volume_z(panel: Panel, n: int) -> Array:
    mean = panel.rolling_mean(panel.volume, n)
    deviation = panel.rolling_std(panel.volume, n, ddof=1)
    return np.where(deviation <= FLAT * mean, 0.0, (panel.volume - mean) / deviation)


def _dollar_volume_to_sma(panel: Panel, n: int) -> Array:
    usual = panel.rolling_mean(panel.dollar_volume, n)
    return np.where(usual == 0.0, 1.0, panel.dollar_volume / usual)


def _log_dollar_volume(panel: Panel, n: int) -> Array:
    return np.log1p(panel.rolling_mean(panel.dollar_volume, n))


def _overnight_gap(panel: Panel) -> Array:
    return panel.open / panel.lag(panel.close, 1) - 1.0


def _intraday_return(panel: Panel) -> Array:
    return panel.close / panel.open - 1.0


def _intraday_range(panel: Panel) -> Array:
    return (panel.high - panel.low) / panel.close


def _distance_to_high(panel: Panel, n: int) -> Array:
    return np.minimum(panel.close / panel.rolling_max(panel.high, n) - 1.0, 0.0)


def _weekday(panel: Panel, wave: np.ufunc) -> Array:
    # 1970-01-01 was a Thursday; five sessions make a week.
    return wave(2.0 * np.pi * ((panel.day + 3) % 7) / 5.0)


def _month(panel: Panel, wave: np.ufunc) -> Array:
    month = panel.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    return wave(2.0 * np.pi * month / 12.0)


def _days_since_previous(panel: Panel) -> Array:
    day = panel.day.astype(np.float64)
    return day - panel.lag(day, 1)


_WAVE = (-1.0, 1.0)

MOMENTUM: tuple[Feature, ...] = (
    *(
        Feature(f"return_{n}", f"c_t / c_(t-{n}) - 1", n, partial(_return_over, n=n), (-1.0, _ANY))
        for n in (2, 3, 5, 10, 20, 60)
    ),
    Feature(
        "close_to_high_252",
        "c_t / max(high over 252 sessions) - 1",
        YEAR - 1,
        partial(_distance_to_high, n=YEAR),
        (-1.0, 0.0),
        ("high", "close", "adj_close"),
    ),
)

RANGES: tuple[Feature, ...] = (
    Feature(
        "parkinson_20",
        "sqrt(mean over 20 of ln(high / low)^2 / (4 ln 2)), per session (Parkinson 1980)",
        19,
        partial(_parkinson, n=20),
        (0.0, _ANY),
        ("high", "low"),
    ),
    Feature(
        "garman_klass_20",
        "sqrt(mean over 20 of ln(high / low)^2 / 2 - (2 ln 2 - 1) ln(close / open)^2), per session"
        " (Garman and Klass 1980)",
        19,
        partial(_garman_klass, n=20),
        (0.0, _ANY),
        ("open", "high", "low", "close"),
    ),
    Feature(
        "overnight_gap",
        "open_t / c_(t-1) - 1",
        1,
        _overnight_gap,
        (-1.0, _ANY),
        ("open", "close", "adj_close"),
    ),
    Feature(
        "intraday_return",
        "close_t / open_t - 1",
        0,
        _intraday_return,
        (-1.0, _ANY),
        ("open", "close"),
    ),
    Feature(
        "intraday_range",
        "(high_t - low_t) / close_t",
        0,
        _intraday_range,
        (0.0, _ANY),
        ("high", "low", "close"),
    ),
)

LIQUIDITY: tuple[Feature, ...] = (
    Feature(
        "volume_z_20",
        "(volume_t - SMA20) / sample standard deviation over 20; 0 where volume stood still",
        19,
        partial(_volume_z, n=20),
        (-4.25, 4.25),
        ("volume",),
        "neutral",
    ),
    Feature(
        "dollar_volume_to_sma_20",
        "close_t volume_t / SMA20(close volume); 1 where nothing was traded for 20 sessions",
        19,
        partial(_dollar_volume_to_sma, n=20),
        (0.0, 20.0),
        ("close", "volume"),
        "neutral",
    ),
    Feature(
        "log_dollar_volume_20",
        "ln(1 + SMA20(close volume)), in the currency of the bars",
        19,
        partial(_log_dollar_volume, n=20),
        (0.0, _ANY),
        ("close", "volume"),
    ),
)

CALENDAR: tuple[Feature, ...] = (
    *(
        Feature(
            f"weekday_{name}",
            f"{name}(2 pi weekday / 5), Monday is 0",
            0,
            partial(_weekday, wave=wave),
            _WAVE,
            ("session",),
        )
        for name, wave in (("sin", np.sin), ("cos", np.cos))
    ),
    *(
        Feature(
            f"month_{name}",
            f"{name}(2 pi month / 12), January is 0",
            0,
            partial(_month, wave=wave),
            _WAVE,
            ("session",),
        )
        for name, wave in (("sin", np.sin), ("cos", np.cos))
    ),
    Feature(
        "days_since_previous",
        "calendar days since the ticker's previous bar",
        1,
        _days_since_previous,
        (1.0, _ANY),
        ("session",),
    ),
)

DECLARED: tuple[Feature, ...] = (*PRICE_FEATURES, *MOMENTUM, *RANGES, *LIQUIDITY, *CALENDAR)
"""All features of a ticker's own bars. Those that compare tickers are in `cross_section`."""

BOUNDS: dict[str, tuple[float, float] | None] = {
    **{feature.name: feature.bounds for feature in DECLARED},
    **{feature.name: feature.bounds for feature in CROSS_FEATURES},
}
"""What the value of each feature may lie between."""

NAMES: tuple[str, ...] = tuple(BOUNDS)
"""All columns that a network may be shown of a session's prices."""

_COMPARED = tuple(feature for feature in DECLARED if feature.name in base_columns(CROSS_FEATURES))

WARM_UP = warm_up((*DECLARED, *MOVING_AVERAGES))
"""Bars before a row that its features look at."""

UNIVERSE_WARM_UP = warm_up(_COMPARED)
"""Bars before a row of another ticker that the comparison with it looks at."""


def feature_table(bars: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Compute everything declared, and the moving averages, for all rows of ``bars``.

    Args:
        bars: point-in-time bars of some tickers with ``known_at``, as for `price_features`.
        others: likewise of all other tickers of the universe, for the same sessions: what the
            cross-section is taken over must not depend on which tickers are computed. No rows
            where ``bars`` hold the whole universe.

    Returns:
        ticker, session, known_at and one float64 column per feature, sorted by ticker and session.

    Raises:
        ValueError: as `price_features`.
    """
    rows = price_features(bars, (*DECLARED, *MOVING_AVERAGES))
    shared = ["ticker", "session", "known_at", *(feature.name for feature in _COMPARED)]
    universe = [rows[shared]]
    if len(others):
        universe.append(price_features(others, _COMPARED)[shared])
    compared = cross_features(pd.concat(universe, ignore_index=True))
    if len(others):
        compared = compared[compared["ticker"].isin(rows["ticker"].unique())]
    # Both are in order of ticker and session, so that the rows of these tickers match one by one.
    return rows.assign(
        **{feature.name: compared[feature.name].to_numpy() for feature in CROSS_FEATURES}
    )


def feature_table_hash() -> str:
    """Name exactly what made a row of `feature_table`."""
    parts = feature_set_hash((*DECLARED, *MOVING_AVERAGES)), cross_set_hash(CROSS_FEATURES)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def in_warm_up(bars: pd.DataFrame) -> pd.DataFrame:
    """Say which features a row of `feature_table` cannot have yet.

    Args:
        bars: as for `feature_table`; with up to `WARM_UP` rows before the wanted ones.

    Returns:
        ticker, session, and per feature of `NAMES` whether too few bars of its segment precede it.
    """
    ordered = bars.sort_values(["ticker", "era", "session"])
    position = ordered.groupby(["ticker", "era"]).cumcount()[ordered["in_era"]]
    own = {feature.name: feature.warm_up for feature in DECLARED}
    needed = own | {feature.name: own[feature.base] for feature in CROSS_FEATURES}
    inside = pd.DataFrame({name: position < needed[name] for name in NAMES})
    return pd.concat([ordered.loc[ordered["in_era"], ["ticker", "session"]], inside], axis=1)
