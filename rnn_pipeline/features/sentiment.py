"""Scores of single headlines become one row of sentiment per ticker and session.

A session without news is an observation, not a gap: it has no headlines and sentiment 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from rnn_pipeline.market.calendar import SessionCalendar

#: Sessions over which the mean and the deviation are taken, the row's own included.
SPAN = 5

#: A headline usable at a session became so after the session before it closed: days that surely
#: hold both, the longest closures of an exchange included.
NEWS_REACH = pd.Timedelta(days=15)

#: The columns that describe a session's news to the networks.
SENTIMENT_FEATURES = ("sentiment", "news_count", f"sentiment_mean_{SPAN}", f"sentiment_std_{SPAN}")

#: Those, and what else is kept of a session's news.
DECLARED_SENTIMENT = (*SENTIMENT_FEATURES, f"sentiment_momentum_{SPAN}", "sentiment_dispersion")

_KEY = ["ticker", "session"]


def news_sentiment(
    headlines: pd.DataFrame,
    sessions: pd.DataFrame,
    calendar: SessionCalendar,
    score: Callable[[Sequence[str]], np.ndarray],
) -> pd.DataFrame:
    """Score headlines and aggregate them to the sessions at whose close they could be used.

    Args:
        headlines: ticker, title, usable_at (UTC).
        sessions: the rows wanted, as for `daily_sentiment`.
        calendar: dates a moment to the first session that closes at or after it.
        score: titles to scores from -1 to 1; a title's score must not depend on the others.

    Returns:
        As `daily_sentiment`.
    """
    scored = headlines.assign(
        usable_session=calendar.session_of(headlines["usable_at"]),
        score=score(headlines["title"].tolist()),
    )
    return daily_sentiment(scored, sessions)


def daily_sentiment(scored: pd.DataFrame, sessions: pd.DataFrame) -> pd.DataFrame:
    """Aggregate headline scores to sessions.

    A row depends on its session's scores and on the ``SPAN - 1`` rows before it, and every sum is
    taken in an order fixed by those alone: neither the order of the input nor anything later can
    change one bit of it.

    Args:
        scored: one row per headline with ``ticker``, ``usable_session`` (the first session whose
            close is at or after the headline could be used) and ``score``, P(positive) minus
            P(negative). Headlines of other sessions than those asked for are left out.
        sessions: the rows wanted: ``ticker``, ``session`` and ``known_at``. With ``era`` every
            (ticker, era) is a history of its own; with ``in_era`` only the rows where it holds are
            returned, the others are looked back on (see ``Warehouse.bars_by_era``).

    Returns:
        One row for every row of ``sessions``, sorted by ticker and session: ``sentiment`` (mean
        score, -1 to 1, 0.0 without news), ``news_count``, ``sentiment_mean_5`` and
        ``sentiment_std_5`` (over sessions, not headlines; the deviation is the population's, as it
        describes these five and estimates nothing; NaN in a ticker's first four rows),
        ``sentiment_momentum_5`` (``sentiment`` less its mean, NaN likewise),
        ``sentiment_dispersion`` (population deviation of the session's scores, 0.0 for fewer than
        two), and ``known_at``.

    Raises:
        ValueError: a score is missing or outside -1..1, or a ticker and session stands twice.
    """
    scores = scored["score"].astype("float64")
    outside = scores[~scores.between(-1, 1)]
    if len(outside):
        raise ValueError(
            f"{len(outside)} scores are not within -1..1, the first is {outside.iloc[0]}:"
            " a score is P(positive) - P(negative)"
        )
    carried = [name for name in ("era", "in_era", "known_at") if name in sessions]
    segment = ["ticker", *({"era"} & set(carried))]
    rows = sessions[[*_KEY, *carried]].sort_values([*segment, "session"], ignore_index=True)
    repeated = rows.duplicated([*segment, "session"])
    if repeated.any():
        twice = rows.loc[repeated.idxmax()]
        raise ValueError(
            f"{twice['ticker']} {twice['session']:%Y-%m-%d} stands twice in sessions:"
            " give one row per ticker and session"
        )
    # pandas adds up a group in the order of its rows: sorted, that is the order of the scores.
    groups = (
        scored[["ticker"]]
        .assign(session=scored["usable_session"].astype(rows["session"].dtype), score=scores)
        .sort_values([*_KEY, "score"])
        .groupby(_KEY)["score"]
    )
    by_session = pd.DataFrame(
        {
            "sentiment": groups.mean(),
            "news_count": groups.size(),
            "sentiment_dispersion": groups.std(ddof=0),
        }
    ).reset_index()
    rows = rows.merge(by_session, on=_KEY, how="left", validate="many_to_one")
    rows["sentiment"] = rows["sentiment"].fillna(0.0)
    rows["news_count"] = rows["news_count"].fillna(0).astype("int64")
    mean, std = _trailing(
        rows["sentiment"].to_numpy(), rows.groupby(segment, sort=False).ngroup().to_numpy()
    )
    rows[f"sentiment_mean_{SPAN}"] = mean
    rows[f"sentiment_std_{SPAN}"] = std
    rows[f"sentiment_momentum_{SPAN}"] = rows["sentiment"] - mean
    rows["sentiment_dispersion"] = rows["sentiment_dispersion"].fillna(0.0)
    if "in_era" in rows:
        rows = rows[rows["in_era"]].sort_values(_KEY, ignore_index=True)
    return rows[[*_KEY, *DECLARED_SENTIMENT, "known_at"]]


def _trailing(values: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each row and the ``SPAN - 1`` before it in its segment.

    Lag by lag from the oldest on, so that each row is the same sum wherever it stands: a running
    sum would carry the rounding of the whole history before it.
    """
    mean = np.full(len(values), np.nan)
    std = np.full(len(values), np.nan)
    if len(values) < SPAN:
        return mean, std
    lags = sliding_window_view(values, SPAN).T
    centre = sum(lags, start=np.float64(0)) / SPAN
    variance = sum(((lag - centre) ** 2 for lag in lags), start=np.float64(0)) / SPAN
    # The rows are sorted by segment: a span lies within one if it starts and ends in the same.
    whole = segments[: 1 - SPAN] == segments[SPAN - 1 :]
    mean[SPAN - 1 :] = np.where(whole, centre, np.nan)
    std[SPAN - 1 :] = np.where(whole, np.sqrt(variance), np.nan)
    return mean, std
