"""Forecasts and sentiment become one signal per ticker and session, weighted by evidence.

Every model, with its horizon, is a source, and so is sentiment. A source is measured in standard
deviations of its own earlier out-of-sample forecasts: two of them make a full signal. Where
forecasts stand side by side as returns they are brought to one horizon, the shortest: of a forecast
over five sessions a fifth is expected of the next one. What a source may count for is decided by
the evidence grade of its fold, and "none" counts for nothing; how sources are put together is a
policy (:mod:`~rnn_pipeline.trading.policies`). Each row depends on its own ticker and session and
on what was known of earlier folds only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.metrics import average_seeds
from rnn_pipeline.evidence.significance import with_sentiment
from rnn_pipeline.settings import Grade, TradingSpec
from rnn_pipeline.trading.policies import (
    HISTORY_COLUMNS,
    SENTIMENT,
    History,
    answer_of,
    standardise,
)

GRADE_WEIGHT: dict[Grade, float] = {"none": 0.0, "weak": 0.25, "moderate": 0.5, "strong": 1.0}
SOURCE_COLUMNS = (
    "ticker",
    "session",
    "source",
    "horizon",
    "fold",
    "networks",
    "forecast",
    "dispersion",
    "expected",
    "forecast_std",
    "standardised",
    "grade",
    "evidence_weight",
    "known_at",
)
PRICE_SIGNAL_COLUMNS = (
    "ticker",
    "session",
    "forecast",
    "dispersion",
    "agreement",
    "networks",
    "signal",
    "grade",
    "weight",
    "reason",
    "known_at",
)
SENTIMENT_SIGNAL_COLUMNS = (
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
CONTRIBUTION_COLUMNS = (
    "ticker",
    "session",
    "source",
    "horizon",
    "fold",
    "networks",
    "forecast",
    "dispersion",
    "standardised",
    "grade",
    "abstains",
    "weight",
    "contribution",
    "known_at",
)
TRADING_SIGNAL_COLUMNS = (
    "ticker",
    "session",
    "forecast",
    "dispersion",
    "agreement",
    "abstains",
    "sentiment",
    "price_contribution",
    "sentiment_contribution",
    "signal",
    "label",
    "grade",
    "policy",
    "reason",
    "known_at",
)
_GRADE_OF_WEIGHT = {weight: grade for grade, weight in GRADE_WEIGHT.items()}
_KEYS = ["ticker", "session"]


def price_sources(
    forecasts: pd.DataFrame, evidence: pd.DataFrame, base_horizon: int
) -> pd.DataFrame:
    """Lay each model's forecast out as a source, beside the evidence of its fold.

    Args:
        forecasts: the forecasts frame of the networks to be combined; without baselines. A model
            has one horizon.
        evidence: the evidence frame by fold; a fold without a row there has no evidence.
        base_horizon: sessions that all forecasts are brought to.

    Returns:
        One row per ticker, session and source (the model's name), sorted by them: horizon, fold,
        networks (how many seeds), forecast (their mean, log return over the horizon), dispersion
        (their standard deviation), expected (the forecast, brought to ``base_horizon``),
        forecast_std, standardised (-1..1: the forecast in full signals, two deviations each, 0
        where the deviation is unknown), grade, evidence_weight, known_at.

    Raises:
        ValueError: bad forecasts (see :func:`average_seeds`), or a model with several horizons.
    """
    models = average_seeds(forecasts)
    keys = [*_KEYS, "model"]
    if (twice := models.duplicated(keys)).any():
        model = models.loc[twice, "model"].iloc[0]
        horizons = sorted(models.loc[models["model"] == model, "horizon"].unique().tolist())
        raise ValueError(
            f"the forecasts of {model!r} have the horizons {horizons}; evidence is graded for one,"
            " so give each horizon a model of its own"
        )
    seeds = forecasts.sort_values([*keys, "seed"]).groupby(keys)["forecast"]
    spread = pd.DataFrame({"networks": seeds.size(), "dispersion": seeds.std(ddof=0)})
    models = models.merge(spread.reset_index(), on=keys)
    models["expected"] = models["forecast"] * (base_horizon / models["horizon"])
    return _sources(models, evidence)


def sentiment_sources(news_sentiment: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Lay sentiment out as a source.

    Args:
        news_sentiment: as in :func:`sentiment_signals`.
        evidence: the evidence frame by fold; its rows of model "sentiment" are used.

    Returns:
        As :func:`price_sources`; ``forecast`` is the level (-1..1), ``dispersion`` its standard
        deviation over five sessions, ``horizon`` 0; no return is ``expected`` of it (NaN).

    Raises:
        ValueError: a column is missing, a level is not finite, or a row stands twice.
    """
    columns = ("fold", "sentiment", "sentiment_std_5", "known_at")
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
    rows = rows.assign(model=SENTIMENT, horizon=0, networks=1, expected=np.nan).astype(
        {"fold": np.int64, "model": "str"}
    )
    return _sources(rows, evidence[evidence["model"] == SENTIMENT])


def price_signals(
    forecasts: pd.DataFrame, evidence: pd.DataFrame, base_horizon: int
) -> pd.DataFrame:
    """Combine the networks' forecasts into one price signal per ticker and session.

    Args:
        forecasts: as in :func:`price_sources`.
        evidence: as in :func:`price_sources`.
        base_horizon: as in :func:`price_sources`.

    Returns:
        Sorted by ticker and session; those who have a say are the models with evidence, or all
        where none has:

        - forecast: mean over the models that have a say of what they expect (log return over
          ``base_horizon`` sessions)
        - dispersion: standard deviation over the forecasts of all their networks
        - agreement: share of these networks that take the side of ``forecast``
        - networks: how many they are
        - signal: -1..1, mean of the models' standardised forecasts, weighted by their evidence;
          where none has evidence, the plain mean (for information: its weight is 0)
        - grade, weight: the best grade among the models, and its ``GRADE_WEIGHT``
        - reason, known_at

    Raises:
        ValueError: see :func:`price_sources`.
    """
    models = price_sources(forecasts, evidence, base_horizon)
    best = models.groupby(_KEYS)["evidence_weight"].transform("max")
    models = models[(models["evidence_weight"] > 0) | (best == 0)].assign(
        # Where nobody has evidence, all count alike, for information.
        share=models["evidence_weight"].where(best > 0, 1.0)
    )
    models["weighted"] = models["share"] * models["standardised"]
    groups = models.groupby(_KEYS)
    frame = groups.agg(
        forecast=("expected", "mean"),
        weight=("evidence_weight", "max"),
        known_at=("known_at", "max"),
    )
    frame["signal"] = (groups["weighted"].sum() / groups["share"].sum()).clip(-1.0, 1.0)
    voices = forecasts.merge(
        models[[*_KEYS, "source"]], left_on=[*_KEYS, "model"], right_on=[*_KEYS, "source"]
    ).sort_values([*_KEYS, "model", "seed"], ignore_index=True)
    voices["forecast"] *= base_horizon / voices["horizon"]
    side = voices.merge(frame["forecast"].reset_index(), on=_KEYS, suffixes=("", "_mean"))
    voices["agrees"] = (side["forecast"] * side["forecast_mean"] > 0).astype(np.float64)
    every = voices.groupby(_KEYS)
    frame["dispersion"] = every["forecast"].std(ddof=0)
    frame["agreement"] = every["agrees"].mean()
    frame["networks"] = every.size()
    frame["grade"] = frame["weight"].map(_GRADE_OF_WEIGHT).astype("str")
    models["told"] = ", " + models["source"] + " " + models["grade"]
    told = models.groupby(_KEYS)["told"].sum().str.removeprefix(", ")
    reasons = [
        f"forecast {percent(forecast)} (spread {percent(spread, sign=False)} over"
        f" {count} network{'s' * (count > 1)}, {percent(agree, 0, sign=False)} on its side);"
        f" evidence: {grades}"
        for forecast, spread, count, agree, grades in zip(
            frame["forecast"],
            frame["dispersion"],
            frame["networks"],
            frame["agreement"],
            told,
            strict=True,
        )
    ]
    frame["reason"] = pd.Series(reasons, index=frame.index, dtype="str")
    return frame.reset_index()[list(PRICE_SIGNAL_COLUMNS)]


def sentiment_signals(news_sentiment: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Turn the sentiment level into a signal, by the same rule as a price forecast.

    Args:
        news_sentiment: ticker, session, fold, sentiment, sentiment_std_5, news_count, known_at.
            Rows with an empty fold lie before the first test session and get no signal.
        evidence: the evidence frame by fold; its rows of model "sentiment" are used.

    Returns:
        Sorted by ticker and session: forecast (the level, -1..1), dispersion (its standard
        deviation over five sessions), signal, grade, weight, reason, known_at.

    Raises:
        ValueError: see :func:`sentiment_sources`.
    """
    require(news_sentiment, "news_sentiment", ("news_count",))
    frame = sentiment_sources(news_sentiment, evidence).rename(
        columns={"standardised": "signal", "evidence_weight": "weight"}
    )
    counts = frame[_KEYS].merge(news_sentiment[[*_KEYS, "news_count"]], on=_KEYS)["news_count"]
    reasons = [
        f"{count} headline{'s' * (count > 1)}, sentiment {level:+z.2f}; evidence: {grade}"
        if count
        else f"no headlines; evidence: {grade}"
        for count, level, grade in zip(counts, frame["forecast"], frame["grade"], strict=True)
    ]
    frame["reason"] = pd.Series(reasons, dtype="str")
    return frame[list(SENTIMENT_SIGNAL_COLUMNS)]


def with_folds(news_sentiment: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """Give sentiment the fold of its session; sessions that no network forecast are left out.

    Args:
        news_sentiment: ticker, session and any other columns.
        forecasts: ticker, session, fold.
    """
    fold_of = forecasts.groupby(_KEYS, as_index=False)["fold"].max()
    return news_sentiment.merge(fold_of, on=_KEYS)


def source_history(forecasts: pd.DataFrame, news_sentiment: pd.DataFrame) -> pd.DataFrame:
    """Lay out what the sources said beside what came of it, for policies that learn.

    Args:
        forecasts: the forecasts frame with target_session, the session at whose close the outcome
            was known (empty while it lies ahead).
        news_sentiment: ticker, session, sentiment.

    Returns:
        One row per ticker, session and source (``HISTORY_COLUMNS``).
    """
    rows = average_seeds(with_sentiment(forecasts, news_sentiment))
    keys = [*_KEYS, "horizon"]
    ends = forecasts[[*keys, "target_session"]].drop_duplicates(keys)
    return rows.merge(ends, on=keys).rename(columns={"model": "source"})[list(HISTORY_COLUMNS)]


def contributions(
    price: pd.DataFrame, sources: pd.DataFrame, spec: TradingSpec, history: History
) -> pd.DataFrame:
    """Say what each source adds to the signal, by the policy that the settings name.

    Price sources abstain where fewer than ``min_agreement`` of the networks take the side of their
    mean, or where these scatter by more than ``max_dispersion`` times it. Where all sources
    together exceed a full signal their weights are scaled down alike.

    Args:
        price: from :func:`price_signals`.
        sources: :func:`price_sources` and :func:`sentiment_sources`, one below the other.
        spec: the policy and its settings.
        history: gives :func:`source_history` of tickers, the folds of ``sources`` included, to a
            policy that asks for it.

    Returns:
        A signal_contributions frame sorted by ticker, session and source, one row per row of
        ``sources``: what it said (forecast, dispersion, networks), standardised (on the policy's
        scale), abstains, weight and contribution, which is their product. The contributions of a
        ticker and session add up to its signal.

    Raises:
        ValueError: a column is missing, a row stands twice, or ``price`` was not made of the same
            forecasts and evidence as ``sources``.
    """
    require(sources, "sources", SOURCE_COLUMNS, unique=[*_KEYS, "source"])
    _require_same(price, sources)
    disagree = price["agreement"] < spec.min_agreement
    if spec.max_dispersion is not None:
        disagree |= price["dispersion"] > spec.max_dispersion * price["forecast"].abs()
    rows = sources.merge(price[_KEYS].assign(abstains=disagree), on=_KEYS)
    rows["abstains"] &= rows["source"] != SENTIMENT
    rows = rows.sort_values([*_KEYS, "source"], ignore_index=True)
    answer = answer_of(spec.policy, rows, spec, history)
    rows = rows.assign(standardised=answer["standardised"], weight=answer["weight"])
    signal = (rows["weight"] * rows["standardised"]).groupby([rows[key] for key in _KEYS])
    # Dividing by 1 where nothing exceeds a full signal leaves every bit as it is; adding 0.0 turns
    # -0.0 (no weight times a negative signal) into 0.0.
    rows["weight"] /= signal.transform("sum").abs().clip(lower=1.0)
    rows["contribution"] = rows["weight"] * rows["standardised"] + 0.0
    return rows[list(CONTRIBUTION_COLUMNS)]


def fuse(
    price: pd.DataFrame, sentiment: pd.DataFrame, added: pd.DataFrame, spec: TradingSpec
) -> pd.DataFrame:
    """Add up the sources' contributions and label the signal.

    Args:
        price: from :func:`price_signals`; its tickers and sessions are those of the result.
        sentiment: from :func:`sentiment_signals`.
        added: from :func:`contributions`.
        spec: thresholds of the labels.

    Returns:
        A trading_signals frame sorted by ticker and session: forecast, dispersion and agreement as
        in ``price``, abstains (whether prices have no say because the networks disagree), sentiment
        (level, 0.0 where there is none), price_contribution, sentiment_contribution, signal (their
        sum, -1..1), label (BUY above ``buy_above``, SELL below ``sell_below``, else HOLD), grade
        (the best one of the sources that contribute; "none" where none does), policy, reason,
        known_at.

    Raises:
        ValueError: a column is missing, or a ticker and session stand twice.
    """
    require(price, "price_signals", PRICE_SIGNAL_COLUMNS, unique=_KEYS)
    require(sentiment, "sentiment_signals", SENTIMENT_SIGNAL_COLUMNS, unique=_KEYS)
    require(added, "contributions", CONTRIBUTION_COLUMNS, unique=[*_KEYS, "source"])
    news = added["source"] == SENTIMENT
    counted = added["grade"].map(GRADE_WEIGHT).where(added["contribution"] != 0, 0.0)
    told = added.assign(
        price_contribution=added["contribution"].where(~news, 0.0),
        sentiment_contribution=added["contribution"].where(news, 0.0),
        counted=counted.astype(np.float64),
    )
    summed = told.groupby(_KEYS, as_index=False).agg(
        price_contribution=("price_contribution", "sum"),
        sentiment_contribution=("sentiment_contribution", "sum"),
        counted=("counted", "max"),
        abstains=("abstains", "any"),
    )
    columns = [*_KEYS, "forecast", "known_at"]
    frame = price.sort_values(_KEYS).merge(summed, on=_KEYS)
    frame = frame.merge(sentiment[columns], on=_KEYS, how="left", suffixes=("", "_news"))
    # Rounding may carry a full signal past 1, by the last bit.
    signal = (frame["price_contribution"] + frame["sentiment_contribution"]).clip(-1.0, 1.0)
    label = np.select([signal > spec.buy_above, signal < spec.sell_below], ["BUY", "SELL"], "HOLD")
    grade = frame["counted"].map(_GRADE_OF_WEIGHT).astype("str")
    known_at, news_known_at = frame["known_at"], frame["known_at_news"]
    reasons = [
        _reason(*row)
        for row in zip(
            frame["price_contribution"],
            frame["sentiment_contribution"],
            grade,
            frame["abstains"],
            frame["agreement"],
            strict=True,
        )
    ]
    return frame.assign(
        sentiment=frame["forecast_news"].fillna(0.0),
        signal=signal,
        label=pd.Series(label, dtype="str"),
        grade=grade,
        policy=pd.Series([spec.policy] * len(frame), dtype="str"),
        reason=pd.Series(reasons, dtype="str"),
        known_at=known_at.where(~(news_known_at > known_at), news_known_at),
    )[list(TRADING_SIGNAL_COLUMNS)]


def percent(fraction: float, digits: int = 2, *, sign: bool = True) -> str:
    """Write a fraction as people read it: 0.0012 is "+0.12 %"."""
    return f"{fraction * 100:{'+' if sign else ''}z.{digits}f} %"


def _reason(by_price: float, by_news: float, grade: str, abstains: bool, agreement: float) -> str:
    earned = "no" if grade == "none" else grade
    adds = f"price adds {by_price:+z.2f}, sentiment adds {by_news:+z.2f} ({earned} evidence)"
    if abstains:
        share = percent(agreement, 0, sign=False)
        return f"{adds}; prices abstain: {share} of the networks are on one side"
    if by_price == by_news == 0:
        return "neither price nor sentiment has shown evidence here"
    return adds


def _require_same(price: pd.DataFrame, sources: pd.DataFrame) -> None:
    """A source must not speak louder than the price signal that it is a part of."""
    models = sources[sources["source"] != SENTIMENT]
    best = models.groupby(_KEYS)["evidence_weight"].max().rename("best").reset_index()
    both = price[[*_KEYS, "weight"]].merge(best, on=_KEYS, how="left")
    other = both[both["weight"] != both["best"]]
    if len(other):
        row = other.iloc[0]
        raise ValueError(
            f"the price signal of {row['ticker']} on {row['session']:%Y-%m-%d} weighs"
            f" {row['weight']}, its best source {row['best']}: make both of the same forecasts and"
            " evidence"
        )


def _sources(rows: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Join each row's evidence: its grade, the weight of that, and the standardised forecast."""
    keys = ["ticker", "model", "fold"]
    columns = [*keys, "forecast_std", "grade"]
    require(evidence, "evidence", columns, unique=keys)
    frame = rows.merge(evidence[columns], on=keys, how="left").rename(columns={"model": "source"})
    frame["grade"] = frame["grade"].fillna("none")
    frame["evidence_weight"] = frame["grade"].map(GRADE_WEIGHT).astype(np.float64)
    frame["forecast_std"] = frame["forecast_std"].astype(np.float64)
    frame["standardised"] = standardise(frame["forecast"], frame["forecast_std"])
    return frame.sort_values([*_KEYS, "source"], ignore_index=True)[list(SOURCE_COLUMNS)]
