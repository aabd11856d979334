"""How much a model's forecasts may be believed, from what was known before they were made.

The evidence that applies to fold k comes from the forecasts of earlier folds alone, and of those
only the ones whose outcome was known before fold k's first test session. So a fold is traded on
evidence that its networks' predecessors earned out of sample, and the first fold on none.

A grade is looked at again with every fold, and whoever looks often enough sees something. The level
therefore holds over the whole sequence of looks, however many there are and however far apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtr

from rnn_pipeline.evidence.baselines import sentiment_forecasts
from rnn_pipeline.evidence.layouts import EVIDENCE_COLUMNS
from rnn_pipeline.evidence.metrics import FORECAST_KEYS, average_seeds, group_statistics
from rnn_pipeline.evidence.trials import (
    count_trials,
    first_seen,
    new_trials,
    recipes,
    trials_of,
    tuning_counts,
)
from rnn_pipeline.settings import FoldSpec, Grade, ModelSettings

OVERALL_FOLD = -1
MIN_EFFECTIVE = 200
LEVELS: dict[Grade, float] = {"weak": 0.05, "moderate": 0.005, "strong": 0.0005}
"""Largest chance that luck alone ever earns the grade."""

EVIDENCE_RULE = (
    f"A model has evidence on a ticker when at least {MIN_EFFECTIVE} of its out-of-sample forecasts"
    " (overlapping ones counted once) have a known outcome, their information coefficient is"
    " positive and significant, and either the hit rate's 95 % interval lies above one half or the"
    " squared error is below that of forecasting zero. The p-value makes the grade: weak up to"
    f" {LEVELS['weak']:.2%}, moderate up to {LEVELS['moderate']:.2%}, strong up to"
    f" {LEVELS['strong']:.2%}. It bounds the chance that, on a ticker that cannot be forecast, any"
    " of all the recipes tried on it would ever have looked this good, however many folds are"
    " looked at: the t-statistic allows for autocorrelation, the bound for looking again and again"
    " (Robbins 1970), and it is multiplied by the number of trials (Bonferroni). Otherwise there is"
    " no evidence."
)


def sequential_p_value(ic_t: float, n_effective: float) -> float:
    """The chance that luck alone ever looks this good, at any look from ``MIN_EFFECTIVE`` on.

    Robbins (1970): for a sum that wanders like Brownian motion, the chance that its deviate z ever
    exceeds sqrt(a^2 + log(n / m)) at some n >= m is 1 - Phi(a) + a phi(a). Solved for a, that is a
    p-value which may be looked at as often as one likes. At n = m it is 5 % for z = 2.50, where a
    single look would ask for 1.64; at n = 10 m for z = 2.92.

    Args:
        ic_t: the statistic's normal deviate at this look.
        n_effective: independent forecasts it rests on.

    Returns:
        At most 1, which it is for z <= sqrt(log(n / m)) and for fewer than ``MIN_EFFECTIVE``
        forecasts; NaN for a deviate that is NaN.
    """
    if math.isnan(ic_t):
        return math.nan
    if n_effective < MIN_EFFECTIVE or ic_t <= 0:
        return 1.0
    square = ic_t**2 - math.log(n_effective / MIN_EFFECTIVE)
    if square <= 0:
        return 1.0
    a = math.sqrt(square)
    return float(ndtr(-a)) + a * math.exp(-square / 2) / math.sqrt(2 * math.pi)


def evidence_p_value(ic_t: float, n_effective: float, trials: int) -> float:
    """:func:`sequential_p_value` of the best of ``trials``, however they depend on each other.

    Raises:
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError(
            f"trials is {trials}; at least the model itself was tried, so pass 1 or more"
        )
    return min(1.0, trials * sequential_p_value(ic_t, n_effective))


def evidence_grade(p_value: float, hit_low: float, r2_vs_zero: float) -> Grade:
    """Grade evidence by the rule that ``EVIDENCE_RULE`` states in words.

    Args:
        p_value: of :func:`evidence_p_value`.
        hit_low: lower end of the hit rate's 95 % interval.
        r2_vs_zero: share of squared error saved against forecasting zero.

    A figure that is NaN is no evidence.
    """
    if not (hit_low > 0.5 or r2_vs_zero > 0.0):
        return "none"
    grades: tuple[Grade, ...] = ("strong", "moderate", "weak")
    return next((grade for grade in grades if p_value <= LEVELS[grade]), "none")


def evidence_by_fold(forecasts: pd.DataFrame, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Grade each ticker, model and fold from the forecasts of the folds before it.

    A forecast counts for fold k when its outcome was known before the first session that fold k
    forecast for the ticker, which only a forecast of an earlier fold can be. The outcome is taken
    to be known at the ticker's ``horizon``-th forecast session after it, which is never too early.

    Args:
        forecasts: the forecasts frame; several models, tickers and seeds (which are averaged). The
            sentiment level laid out as a model is graded the same way.
        trials: the ledger of what was tried (see :mod:`~rnn_pipeline.evidence.trials`); empty: each
            model and seed among the forecasts is a trial.

    Returns:
        An evidence frame: one row per ticker, model and fold of ``forecasts``, sorted by them.
        Where nothing was known yet, ``n`` is 0, the grade "none" and every figure NaN.

        - forecast_std: population standard deviation of the forecasts that counted
        - seed_dispersion: root mean square of the spread between seeds, in ``forecast_std``
        - sign_flip_rate: share of single networks that took the other side than their mean; NaN,
          as ``seed_dispersion``, for models of one seed
        - trials, p_value: see :func:`evidence_p_value`
        - known_at: the close of the fold's first session

    Raises:
        ValueError: a column is missing, a forecast is not finite, or a row stands twice.
    """
    rows = _with_outcome_session(_with_seeds(forecasts))
    ledger = first_seen(forecasts) if trials is None else trials
    graded = [
        _grade(_known_before(fold, rows), rows[rows["fold"] == fold], "min", ledger, fold)
        for fold in np.unique(rows["fold"])
    ]
    return _evidence_frame(graded or [_grade(rows, rows, "min", ledger, OVERALL_FOLD)])


def walk_forward_evidence(
    forecasts: pd.DataFrame, news_sentiment: pd.DataFrame, trials: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Grade every model, and the sentiment level as if it were one, by `evidence_by_fold`.

    Args:
        forecasts: of the networks, with ``actual``.
        news_sentiment: ticker, session, sentiment.
        trials: as of :func:`evidence_by_fold`.
    """
    return evidence_by_fold(with_sentiment(forecasts, news_sentiment), trials)


def charged_evidence(
    forecasts: pd.DataFrame,
    news_sentiment: pd.DataFrame,
    ledger: pd.DataFrame,
    searched: pd.DataFrame,
    model: ModelSettings,
    folds: FoldSpec,
    now: pd.Timestamp,
    names: Mapping[str, str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Charge what made the forecasts to the ledger of trials, then grade them.

    Args:
        forecasts: of the networks, with ``actual``; those of earlier recipes have been charged.
        news_sentiment: ticker, session, sentiment.
        ledger: trials that have been charged already.
        searched: the configurations that searches looked at: ticker, model.
        model: the recipes of the networks.
        folds: what they were trained and tested on.
        now: when the outcomes are looked at.
        names: slot in ``model.slots`` -> the model that its recipe's forecasts are kept as.

    Returns:
        The evidence, as of :func:`walk_forward_evidence`, and the rows that the ledger must gain.
    """
    tried = tried_now(
        forecasts, news_sentiment, model, folds, now, names, tuned=tuning_counts(searched)
    )
    added = new_trials(ledger, tried)
    return walk_forward_evidence(forecasts, news_sentiment, pd.concat([ledger, added])), added


def tried_now(
    forecasts: pd.DataFrame,
    news_sentiment: pd.DataFrame,
    model: ModelSettings,
    folds: FoldSpec,
    now: pd.Timestamp,
    names: Mapping[str, str] | None = None,
    tuned: Mapping[tuple[str, str], int] | None = None,
) -> pd.DataFrame:
    """List the trials that the settings ask for, network by network and horizon by horizon.

    Args:
        forecasts: of the networks; those of other recipes are left out.
        news_sentiment: ticker, session, sentiment; the level is a trial of the shortest horizon.
        model: the recipes of the networks.
        folds: what they were trained and tested on.
        now: when the outcomes are looked at.
        names: slot -> the model that its recipe's forecasts are kept as; empty: the slot's own.
        tuned: as of :func:`~rnn_pipeline.evidence.trials.trials_of`.

    Returns:
        The frame of trials.
    """
    listed = []
    for part in model.by_horizon():
        described = recipes(part, folds)
        networks = {
            (names or {}).get(slot, slot): told for slot, told in described.pop("networks").items()
        }
        own = forecasts[forecasts["model"].isin(networks)]
        if part.base_horizon == model.base_horizon:
            own = with_sentiment(own, news_sentiment)
        listed.append(trials_of(own, networks=networks, **described, tried_at=now, tuned=tuned))
    return pd.concat(listed, ignore_index=True)


def with_sentiment(forecasts: pd.DataFrame, news_sentiment: pd.DataFrame) -> pd.DataFrame:
    """Forecasts with the sentiment level as one model more."""
    return pd.concat([forecasts, sentiment_forecasts(news_sentiment, forecasts)])


def overall_evidence(forecasts: pd.DataFrame, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Grade each ticker and model on all its forecasts: for reports, never for trading.

    Returns:
        An evidence frame as of :func:`evidence_by_fold` with ``fold`` = -1.
    """
    rows = _with_seeds(forecasts)
    ledger = first_seen(forecasts) if trials is None else trials
    known = rows[rows["actual"].notna()]
    return _evidence_frame([_grade(known, rows, "max", ledger, OVERALL_FOLD)])


def _with_seeds(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Forecasts averaged over seeds, with the variance between seeds and how many disagree."""
    rows = average_seeds(forecasts)
    keys = list(FORECAST_KEYS)
    each = forecasts[[*keys, "seed", "forecast"]].sort_values([*keys, "seed"])
    each = each.merge(rows[[*keys, "forecast"]], on=keys, suffixes=("", "_mean"))
    # Signs of different products: a zero forecast takes no side and so flips nothing.
    each["flipped"] = (each["forecast"] * each["forecast_mean"] < 0).astype(np.float64)
    groups = each.groupby(keys)
    between = groups.agg(seed_variance=("forecast", "var"), flipped=("flipped", "mean"))
    between["seed_variance"] *= 1 - 1 / groups.size()
    between.loc[between["seed_variance"].isna(), "flipped"] = np.nan
    return rows.merge(between.reset_index(), on=keys)


def _with_outcome_session(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the session at whose close each row's outcome was known; NaT while it lies ahead."""
    sessions = rows[["ticker", "horizon", "session"]].drop_duplicates()
    axes = [
        axis.assign(outcome_session=axis.groupby("ticker")["session"].shift(-int(horizon)))
        for horizon, axis in sessions.sort_values("session").groupby("horizon")
    ]
    return rows.merge(pd.concat(axes), on=["ticker", "horizon", "session"]) if axes else rows


def _known_before(fold: int, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose outcome was known before ``fold`` began for their ticker: all of earlier folds."""
    first_session = rows[rows["fold"] == fold].groupby("ticker")["session"].min()
    start = rows["ticker"].map(first_session)
    return rows[(rows["outcome_session"] < start) & rows["actual"].notna()]


def _grade(
    counted: pd.DataFrame, graded: pd.DataFrame, known: str, ledger: pd.DataFrame, fold: int
) -> pd.DataFrame:
    """Grade every ticker and model of ``graded`` by its rows in ``counted``, for ``fold``."""
    keys = ["ticker", "model"]
    groups = counted.groupby(keys)
    figures = group_statistics(counted, keys).assign(
        forecast_std=groups["forecast"].std(ddof=0), sign_flip_rate=groups["flipped"].mean()
    )
    spread = np.sqrt(groups["seed_variance"].mean())
    figures["seed_dispersion"] = spread / figures["forecast_std"].where(figures["forecast_std"] > 0)
    frame = graded.groupby(keys).agg(known_at=("known_at", known)).join(figures).reset_index()
    frame["n"] = frame["n"].fillna(0).astype(np.int64)
    frame["n_effective"] = frame["n_effective"].fillna(0.0)
    frame["trials"] = count_trials(ledger, frame)
    rule = ["ic_t", "n_effective", "trials"]
    frame["p_value"] = [evidence_p_value(*row) for row in frame[rule].itertuples(index=False)]
    frame["p_value"] = frame["p_value"].astype(np.float64)
    rule = ["p_value", "hit_low", "r2_vs_zero"]
    grades = [evidence_grade(*row) for row in frame[rule].itertuples(index=False)]
    return frame.assign(
        grade=pd.Series(grades, dtype="str"), fold=np.full(len(frame), fold, dtype=np.int64)
    )


def _evidence_frame(graded: list[pd.DataFrame]) -> pd.DataFrame:
    frame = pd.concat(graded, ignore_index=True)[list(EVIDENCE_COLUMNS)]
    return frame.sort_values(["ticker", "model", "fold"], ignore_index=True)


def trials_counted(evidence: pd.DataFrame) -> int:
    """The largest number of trials on a ticker; at least the one that is looked at."""
    return int(evidence["trials"].max()) if len(evidence) else 1


def pooled_evidence(forecasts: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Grade each model on all tickers together: for reports, never for trading.

    Many weak effects can be significant together where none is alone.

    Args:
        forecasts: the forecasts frame.
        evidence: of :func:`overall_evidence`; the largest number of trials on a ticker is counted.

    Returns:
        model, p_value (:func:`evidence_p_value` of the pooled coefficient), grade.
    """
    rows = average_seeds(forecasts)
    figures = group_statistics(rows[rows["actual"].notna()], ["model"])
    trials = trials_counted(evidence)
    p_values = [
        evidence_p_value(ic_t, n_effective, trials)
        for ic_t, n_effective in zip(figures["ic_t"], figures["n_effective"], strict=True)
    ]
    figures = figures.assign(p_value=np.array(p_values, dtype=np.float64))
    grades = [
        evidence_grade(*row)
        for row in figures[["p_value", "hit_low", "r2_vs_zero"]].itertuples(index=False)
    ]
    graded = figures[["p_value"]].assign(grade=pd.Series(grades, figures.index, dtype="str"))
    return graded.reset_index()
