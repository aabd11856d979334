"""Forecasts and sentiment become one signal per ticker and session, weighted by evidence.

A forecast is measured in standard deviations of the model's own earlier out-of-sample forecasts:
two of them make a full signal. What the signal may count for is decided by the evidence grade of
its fold, and "none" counts for nothing. Each row depends on its own ticker and session and on the
evidence of its fold only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.metrics import average_seeds
from rnn_pipeline.settings import Grade, TradingSpec

GRADE_WEIGHT: dict[Grade, float] = {"none": 0.0, "weak": 0.25, "moderate": 0.5, "strong": 1.0}
FULL_SIGNAL = 2.0
SOURCE_SIGNAL_COLUMNS = (
    "ticker",
    "session",
    "forecast",
    "dispersion",
    "signal",
    "grade",
    "weight",
    "reason",
    "known_at",
)
TRADING_SIGNAL_COLUMNS = (
    "ticker",
    "session",
    "forecast",
    "sentiment",
    "price_contribution",
    "sentiment_contribution",
    "signal",
    "label",
    "grade",
    "reason",
    "known_at",
)
_GRADE_OF_WEIGHT = {weight: grade for grade, weight in GRADE_WEIGHT.items()}
_KEYS = ["ticker", "session"]


def price_signals(forecasts: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Combine the networks' forecasts into one price signal per ticker and session.

    Args:
        forecasts: the forecasts frame of the networks to be combined, of one horizon; without
            baselines.
        evidence: the evidence frame by fold; a fold without a row there has no evidence.

    Returns:
        Sorted by ticker and session:

        - forecast: mean over models of their seeds' mean (log return)
        - dispersion: standard deviation over all forecasts, one per model and seed
        - signal: -1..1, mean of the models' standardised forecasts, weighted by their evidence;
          where none has evidence, the plain mean (for information: its weight is 0)
        - grade, weight: the best grade among the models, and its ``GRADE_WEIGHT``
        - reason, known_at

    Raises:
        ValueError: bad forecasts (see :func:`average_seeds`), or several horizons at once.
    """
    models = _with_evidence(average_seeds(forecasts), evidence, ["ticker", "model", "fold"])
    horizons = models["horizon"].unique()
    if len(horizons) > 1:
        raise ValueError(
            f"forecasts have the horizons {sorted(horizons.tolist())}; their returns cannot be"
            " averaged, so pass one horizon at a time"
        )
    models["weighted"] = models["weight"] * models["signal"]
    models["told"] = ", " + models["model"] + " " + models["grade"]
    groups = models.groupby(_KEYS)
    frame = groups.agg(
        forecast=("forecast", "mean"), weight=("weight", "max"), known_at=("known_at", "max")
    )
    total = groups["weight"].sum()
    frame["signal"] = (groups["weighted"].sum() / total).where(total > 0, groups["signal"].mean())
    frame["signal"] = frame["signal"].clip(-1.0, 1.0)
    every = forecasts.sort_values([*_KEYS, "model", "seed"]).groupby(_KEYS)["forecast"]
    frame["dispersion"] = every.std(ddof=0)
    frame["grade"] = frame["weight"].map(_GRADE_OF_WEIGHT).astype("str")
    told = groups["told"].sum().str.removeprefix(", ")
    reasons = [
        f"forecast {percent(forecast)} (spread {percent(spread, sign=False)} over"
        f" {count} network{'s' * (count > 1)}); evidence: {grades}"
        for forecast, spread, count, grades in zip(
            frame["forecast"], frame["dispersion"], every.size(), told, strict=True
        )
    ]
    frame["reason"] = pd.Series(reasons, index=frame.index, dtype="str")
    return frame.reset_index()[list(SOURCE_SIGNAL_COLUMNS)]


def sentiment_signals(news_sentiment: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Turn the sentiment level into a signal, by the same rule as a price forecast.

    Args:
        news_sentiment: ticker, session, fold, sentiment, sentiment_std_5, news_count, known_at.
            Rows with an empty fold lie before the first test session and get no signal.
        evidence: the evidence frame by fold; its rows of model "sentiment" are used.

    Returns:
        The layout of :func:`price_signals`; ``forecast`` is the level (-1..1), ``dispersion`` its
        standard deviation over five sessions.

    Raises:
        ValueError: a column is missing, a level is not finite, or a row stands twice.
    """
    columns = ("fold", "sentiment", "sentiment_std_5", "news_count", "known_at")
    require(
        news_sentiment,
        "news_sentiment",
        (*_KEYS, *columns),
        unique=_KEYS,
        finite=("sentiment",),
    )
    rows = news_sentiment.dropna(subset="fold").rename(
        columns={"sentiment": "forecast", "sentiment_std_5": "dispersion"}
    )
    rows = rows.astype({"fold": np.int64}).sort_values(_KEYS, ignore_index=True)
    own = evidence[evidence["model"] == "sentiment"]
    frame = _with_evidence(rows, own, ["ticker", "fold"])
    reasons = [
        f"{count} headline{'s' * (count > 1)}, sentiment {level:+z.2f}; evidence: {grade}"
        if count
        else f"no headlines; evidence: {grade}"
        for count, level, grade in zip(
            frame["news_count"], frame["forecast"], frame["grade"], strict=True
        )
    ]
    frame["reason"] = pd.Series(reasons, dtype="str")
    return frame[list(SOURCE_SIGNAL_COLUMNS)]


def with_folds(news_sentiment: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """Give sentiment the fold of its session; sessions that no network forecast are left out.

    Args:
        news_sentiment: ticker, session and any other columns.
        forecasts: ticker, session, fold.
    """
    fold_of = forecasts.groupby(_KEYS, as_index=False)["fold"].max()
    return news_sentiment.merge(fold_of, on=_KEYS)


def fuse(price: pd.DataFrame, sentiment: pd.DataFrame, spec: TradingSpec) -> pd.DataFrame:
    """Add both sources' contributions to one signal and label it.

    A contribution is weight times signal; where both together exceed a full signal they are scaled
    down alike, so that the two columns always add up to ``signal``. A row of ``price`` without a
    row of ``sentiment`` gets none. This is the evidence-weighted policy: another policy is another
    function of the same two frames.

    Args:
        price: from :func:`price_signals`; its tickers and sessions are those of the result.
        sentiment: from :func:`sentiment_signals`.
        spec: thresholds of the labels.

    Returns:
        A trading_signals frame sorted by ticker and session: forecast (log return), sentiment
        (level, 0.0 where there is none), price_contribution, sentiment_contribution, signal
        (-1..1), label (BUY above ``buy_above``, SELL below ``sell_below``, else HOLD), grade (the
        better one of the sources that contribute; "none" where neither does), reason, known_at.

    Raises:
        ValueError: a column is missing, or a ticker and session stand twice.
    """
    require(price, "price_signals", SOURCE_SIGNAL_COLUMNS, unique=_KEYS)
    require(sentiment, "sentiment_signals", SOURCE_SIGNAL_COLUMNS, unique=_KEYS)
    news = sentiment[[*_KEYS, "forecast", "signal", "weight", "known_at"]]
    frame = price.sort_values(_KEYS).merge(news, on=_KEYS, how="left", suffixes=("", "_news"))

    from_price = frame["weight"] * frame["signal"]
    from_news = (frame["weight_news"] * frame["signal_news"]).fillna(0.0)
    # Dividing by 1 where nothing exceeds a full signal leaves every bit as it is; adding 0.0 turns
    # -0.0 (no weight times a negative signal) into 0.0.
    excess = (from_price + from_news).abs().clip(lower=1.0)
    from_price, from_news = from_price / excess + 0.0, from_news / excess + 0.0
    signal = (from_price + from_news).clip(-1.0, 1.0)
    weight = np.maximum(
        frame["weight"].where(from_price != 0, 0.0), frame["weight_news"].where(from_news != 0, 0.0)
    )
    grade = weight.map(_GRADE_OF_WEIGHT)
    label = np.select([signal > spec.buy_above, signal < spec.sell_below], ["BUY", "SELL"], "HOLD")
    known_at, news_known_at = frame["known_at"], frame["known_at_news"]
    reasons = [
        f"price adds {by_price:+z.2f}, sentiment adds {by_news:+z.2f} ({best} evidence)"
        if best != "none"
        else "neither price nor sentiment has shown evidence here"
        for by_price, by_news, best in zip(from_price, from_news, grade, strict=True)
    ]
    return pd.DataFrame(
        {
            "ticker": frame["ticker"],
            "session": frame["session"],
            "forecast": frame["forecast"],
            "sentiment": frame["forecast_news"].fillna(0.0),
            "price_contribution": from_price,
            "sentiment_contribution": from_news,
            "signal": signal,
            "label": pd.Series(label, dtype="str"),
            "grade": grade.astype("str"),
            "reason": pd.Series(reasons, dtype="str"),
            "known_at": known_at.where(~(news_known_at > known_at), news_known_at),
        },
        columns=list(TRADING_SIGNAL_COLUMNS),
    )


def percent(fraction: float, digits: int = 2, *, sign: bool = True) -> str:
    """Write a fraction as people read it: 0.0012 is "+0.12 %"."""
    return f"{fraction * 100:{'+' if sign else ''}z.{digits}f} %"


def _with_evidence(rows: pd.DataFrame, evidence: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Join each row's evidence: its grade, the weight of that, and the standardised signal."""
    columns = [*keys, "forecast_std", "grade"]
    require(evidence, "evidence", columns, unique=keys)
    frame = rows.merge(evidence[columns], on=keys, how="left")
    frame["grade"] = frame["grade"].fillna("none")
    frame["weight"] = frame["grade"].map(GRADE_WEIGHT).astype(np.float64)
    scale = FULL_SIGNAL * frame["forecast_std"].astype(np.float64)
    frame["signal"] = (frame["forecast"] / scale.where(scale > 0)).clip(-1.0, 1.0).fillna(0.0)
    return frame
