"""How much a model's forecasts may be believed, from what was known before they were made.

The evidence that applies to fold k comes from the forecasts of earlier folds alone, and of those
only the ones whose outcome was known before fold k's first test session. So a fold is traded on
evidence that its networks' predecessors earned out of sample, and the first fold on none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr

from rnn_pipeline.evidence.baselines import sentiment_forecasts
from rnn_pipeline.evidence.layouts import EVIDENCE_COLUMNS
from rnn_pipeline.evidence.metrics import average_seeds, group_statistics
from rnn_pipeline.settings import Grade

OVERALL_FOLD = -1
MIN_EFFECTIVE = 200
MIN_T: dict[Grade, float] = {"weak": 2.0, "moderate": 3.0, "strong": 4.0}
EVIDENCE_RULE = (
    f"A model has evidence on a ticker when at least {MIN_EFFECTIVE} of its out-of-sample forecasts"
    " (overlapping ones counted once) have a known outcome, their information coefficient is"
    " positive and significant, and either the hit rate's 95 % interval lies above one half or the"
    " squared error is below that of forecasting zero. The t-statistic of the information"
    f" coefficient makes the grade: weak from {MIN_T['weak']:g}, moderate from"
    f" {MIN_T['moderate']:g}, strong from {MIN_T['strong']:g}, each raised for the number of models"
    " tried on the ticker (Bonferroni). Otherwise there is none."
)


def evidence_grade(
    n_effective: float, ic_t: float, hit_low: float, r2_vs_zero: float, trials: int = 1
) -> Grade:
    """Grade evidence by the rule that ``EVIDENCE_RULE`` states in words.

    Args:
        n_effective: forecasts with a known outcome, overlap taken out (n / horizon).
        ic_t: t-statistic of the information coefficient; it has the coefficient's sign.
        hit_low: lower end of the hit rate's 95 % interval.
        r2_vs_zero: share of squared error saved against forecasting zero.
        trials: how many models were tried on the same outcomes. A later, finer count (tuning
            trials, feature sets) comes in here.

    A figure that is NaN is no evidence.

    Raises:
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError(
            f"trials is {trials}; at least the model itself was tried, so pass 1 or more"
        )
    if n_effective < MIN_EFFECTIVE or not (hit_low > 0.5 or r2_vs_zero > 0.0):
        return "none"
    # Bonferroni: the best of m lucky models may pass no more often than a single one would.
    chance = trials * ndtr(-ic_t)
    grades: tuple[Grade, ...] = ("strong", "moderate", "weak")
    return next((grade for grade in grades if chance <= ndtr(-MIN_T[grade])), "none")


def evidence_by_fold(forecasts: pd.DataFrame, trials: int | None = None) -> pd.DataFrame:
    """Grade each ticker, model and fold from the forecasts of the folds before it.

    A forecast counts for fold k when its outcome was known before the first session that fold k
    forecast for the ticker, which only a forecast of an earlier fold can be. The outcome is taken
    to be known at the ticker's ``horizon``-th forecast session after it, which is never too early.

    Args:
        forecasts: the forecasts frame; several models, tickers and seeds (which are averaged). The
            sentiment level laid out as a model is graded the same way.
        trials: models tried on each ticker; empty: the models among the forecasts that counted.

    Returns:
        An evidence frame: one row per ticker, model and fold of ``forecasts``, sorted by them.
        Where nothing was known yet, ``n`` is 0, the grade "none" and every figure NaN.
        ``forecast_std`` is the population standard deviation of the forecasts that counted,
        ``known_at`` the close of the fold's first session.

    Raises:
        ValueError: a column is missing, a forecast is not finite, or a row stands twice.
    """
    rows = _with_outcome_session(average_seeds(forecasts))
    graded = [
        _grade(_known_before(fold, rows), rows[rows["fold"] == fold], "min", trials, fold)
        for fold in np.unique(rows["fold"])
    ]
    return _evidence_frame(graded or [_grade(rows, rows, "min", trials, OVERALL_FOLD)])


def walk_forward_evidence(forecasts: pd.DataFrame, news_sentiment: pd.DataFrame) -> pd.DataFrame:
    """Grade every model, and the sentiment level as if it were one, by `evidence_by_fold`.

    Args:
        forecasts: of the networks, with ``actual``.
        news_sentiment: ticker, session, sentiment.
    """
    return evidence_by_fold(pd.concat([forecasts, sentiment_forecasts(news_sentiment, forecasts)]))


def overall_evidence(forecasts: pd.DataFrame, trials: int | None = None) -> pd.DataFrame:
    """Grade each ticker and model on all its forecasts: for reports, never for trading.

    Returns:
        An evidence frame as of :func:`evidence_by_fold` with ``fold`` = -1.
    """
    rows = average_seeds(forecasts)
    known = rows[rows["actual"].notna()]
    return _evidence_frame([_grade(known, rows, "max", trials, OVERALL_FOLD)])


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
    counted: pd.DataFrame, graded: pd.DataFrame, known: str, trials: int | None, fold: int
) -> pd.DataFrame:
    """Grade every ticker and model of ``graded`` by its rows in ``counted``, for ``fold``."""
    keys = ["ticker", "model"]
    figures = group_statistics(counted, keys).join(
        counted.groupby(keys)["forecast"].std(ddof=0).rename("forecast_std")
    )
    frame = graded.groupby(keys).agg(known_at=("known_at", known)).join(figures).reset_index()
    frame["n"] = frame["n"].fillna(0).astype(np.int64)
    frame["n_effective"] = frame["n_effective"].fillna(0.0)
    tried = frame["ticker"].map(counted.groupby("ticker")["model"].nunique()).fillna(1)
    frame["trials"] = tried.astype(np.int64) if trials is None else np.int64(trials)
    rule = ["n_effective", "ic_t", "hit_low", "r2_vs_zero", "trials"]
    grades = [evidence_grade(*row) for row in frame[rule].itertuples(index=False)]
    return frame.assign(
        grade=pd.Series(grades, dtype="str"), fold=np.full(len(frame), fold, dtype=np.int64)
    )


def _evidence_frame(graded: list[pd.DataFrame]) -> pd.DataFrame:
    frame = pd.concat(graded, ignore_index=True)[list(EVIDENCE_COLUMNS)]
    return frame.sort_values(["ticker", "model", "fold"], ignore_index=True)
