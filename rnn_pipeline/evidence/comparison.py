"""Whether a candidate has beaten the champion on sessions that neither had seen.

Of every session both have forecast, with networks trained before it and recipes settled before it:
the champion's squared error minus the candidate's. The mean of that series is tested as every other
claim here: allowing for autocorrelation, for being looked at every day, and for the number of
candidates that were tried in this place.
"""

from __future__ import annotations

import pandas as pd

from rnn_pipeline.evidence.information import mean_t
from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.evidence.significance import LEVELS, evidence_p_value

COMPARISON_COLUMNS = (
    "ticker",
    "slot",
    "sessions",
    "n_effective",
    "champion_mse",
    "candidate_mse",
    "t",
    "p_value",
    "beaten",
)


def compare(
    forecasts: pd.DataFrame, challenges: pd.DataFrame, until: pd.Timestamp | None = None
) -> pd.DataFrame:
    """Hold candidates against their champions.

    Args:
        forecasts: ticker, session, model, seed, horizon, forecast, actual, target_session.
        challenges: ticker, slot, pooled, candidate, champion, seen_until, trials. A pooled network
            is compared by the mean over its tickers within each session, and all its rows get the
            same answer.
        until: count outcomes known at this session's close; None: all.

    Returns:
        COMPARISON_COLUMNS, one row per challenge: mean squared errors over the shared sessions, the
        normal deviate of the mean difference, ``p_value`` (1.0 below 200 independent sessions) and
        whether it is at most 5 %. A tie is not beaten.

    Raises:
        ValueError: a column is missing.
    """
    columns = ("ticker", "session", "model", "seed", "horizon", "forecast", "actual")
    require(forecasts, "forecasts", (*columns, "target_session"))
    rows = forecasts[forecasts["actual"].notna()]
    if until is not None:
        rows = rows[rows["target_session"] <= until]
    mean = rows.groupby(["ticker", "model", "horizon", "session"], as_index=False).agg(
        forecast=("forecast", "mean"), actual=("actual", "first")
    )
    mean["loss"] = (mean["forecast"] - mean["actual"]) ** 2
    losses = mean[["ticker", "model", "horizon", "session", "loss"]]
    both = challenges
    for role in ("candidate", "champion"):
        own = losses.rename(columns={"model": role, "loss": f"{role}_mse"})
        keys = ["ticker", role] if role == "candidate" else ["ticker", role, "horizon", "session"]
        both = both.merge(own, on=keys)
    both = both[both["session"] > both["seen_until"]]
    # A pooled network is one, whatever it is asked about: its tickers' errors are one series.
    both["place"] = both["ticker"].where(~both["pooled"].astype(bool), "")
    figures = ["champion_mse", "candidate_mse"]
    tested = [
        _tested(own.groupby("session", as_index=False)[figures].mean(), *keys)
        for keys, own in (
            ((place, slot, int(own["horizon"].iloc[0]), int(own["trials"].max())), own)
            for (place, slot), own in both.groupby(["place", "slot"])
        )
    ]
    found = pd.DataFrame(tested, columns=["place", *COMPARISON_COLUMNS[1:]])
    asked = challenges.assign(
        place=challenges["ticker"].where(~challenges["pooled"].astype(bool), "")
    )
    answer = asked[["ticker", "slot", "place"]].merge(found, on=["place", "slot"], how="left")
    none = {"sessions": 0, "n_effective": 0.0, "p_value": 1.0, "beaten": False}
    answer = answer.fillna(none).astype({"sessions": "int64", "beaten": "bool"})
    return answer[list(COMPARISON_COLUMNS)]


def _tested(
    by_session: pd.DataFrame, place: str, slot: str, horizon: int, trials: int
) -> dict[str, object]:
    """One comparison; ``by_session`` is in order of time."""
    difference = (by_session["champion_mse"] - by_session["candidate_mse"]).to_numpy()
    t = mean_t(difference, horizon)
    n_effective = len(difference) / horizon
    p_value = evidence_p_value(t, n_effective, trials)
    return {
        "place": place,
        "slot": slot,
        "sessions": len(difference),
        "n_effective": n_effective,
        "champion_mse": by_session["champion_mse"].mean(),
        "candidate_mse": by_session["candidate_mse"].mean(),
        "t": t,
        "p_value": p_value,
        # NaN, from a difference that never varies, is no evidence.
        "beaten": p_value <= LEVELS["weak"],
    }


def opening_the_newest_fold(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Add a row to models that forecast a ticker but have no row of its newest fold yet.

    A champion whose recipe the settings have left is not refit, and speaks on in the folds that
    others begin: it is graded for them, too, from what it forecast before. The added row has no
    outcome, and is dated as the others' first one of the fold.

    Args:
        forecasts: the forecasts frame, several models and tickers.
    """
    newest = forecasts.groupby("ticker")["fold"].transform("max")
    begun = forecasts[forecasts["fold"] == newest].sort_values("session")
    first = begun.groupby("ticker", as_index=False).head(1)
    models = forecasts[["ticker", "model"]].drop_duplicates()
    there = begun[["ticker", "model"]].drop_duplicates().assign(there=True)
    absent = models.merge(there, how="left")
    absent = absent[absent["there"].isna()][["ticker", "model"]]
    if absent.empty:
        return forecasts
    added = first.drop(columns="model").merge(absent, on="ticker")
    added = added.assign(seed=0, forecast=0.0, actual=float("nan"))
    return pd.concat([forecasts, added[forecasts.columns]], ignore_index=True)
