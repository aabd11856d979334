"""What was tried, so that the luck of the best of many can be taken off.

A *trial* is one network of one recipe: a network's specification, a feature set, a way of training
and a seed; a recipe whose specification was searched for counts once per configuration that the
search looked at. The ledger of trials is append-only and grows by itself: whoever grades forecasts
writes what made them (:func:`new_trials`), so that a recipe looked at once and given up still
counts against those that stayed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import FoldSpec, ModelSettings

_RECIPE = ["network_hash", "feature_set_hash", "training_hash", "seed"]
_PLACE = ["ticker", "model", "seed"]
TRIAL_COLUMNS = (*_PLACE, *_RECIPE[:3], "tuning_trials", "tried_at")


def trials_of(
    forecasts: pd.DataFrame,
    networks: Mapping[str, Any],
    features: Any,
    training: Any,
    tried_at: pd.Timestamp,
    tuned: Mapping[tuple[str, str], int] | None = None,
) -> pd.DataFrame:
    """List the trials that made forecasts.

    Args:
        forecasts: ticker, session, model, seed; feature_set_hash where rows have one.
        networks: model -> its specification, as JSON; a model without one is its name.
        features: what else tells feature sets apart, as JSON: the columns shown to the networks.
        training: how networks are trained and on what folds, as JSON.
        tried_at: when the outcomes of these forecasts are first looked at.
        tuned: (ticker, model) -> configurations that a search chose from; 1 where there was none.

    Returns:
        One row per ticker, model and seed: TRIAL_COLUMNS.
    """
    require(forecasts, "forecasts", (*_PLACE, "session"))
    if "feature_set_hash" not in forecasts:
        forecasts = forecasts.assign(feature_set_hash="")
    newest = forecasts.sort_values("session").groupby(_PLACE, as_index=False)
    rows = newest["feature_set_hash"].last()
    counts = dict(tuned or {})
    made_from = rows["feature_set_hash"].fillna("")
    return rows.assign(
        network_hash=[_digest(networks.get(model, model)) for model in rows["model"]],
        feature_set_hash=[_digest([features, made]) for made in made_from],
        training_hash=_digest(training),
        tuning_trials=[
            max(counts.get(key, 1), 1) for key in zip(rows["ticker"], rows["model"], strict=True)
        ],
        tried_at=tried_at,
    )[list(TRIAL_COLUMNS)]


def recipes(model: ModelSettings, folds: FoldSpec) -> dict[str, Any]:
    """What :func:`trials_of` tells recipes apart by, from the settings.

    The sentiment level is a model as well. A holdout hides sessions and tries nothing.
    """
    told = model.model_dump(mode="json")
    networks = told.pop("networks") | {"sentiment": told.pop("sentiment")}
    del told["seeds"]
    spans = folds.model_dump(mode="json", exclude={"holdout_from"})
    return {"networks": networks, "features": told.pop("features"), "training": [told, spans]}


def tuning_counts(searched: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Configurations that searches looked at, by ticker and model.

    Args:
        searched: one row per configuration: ticker, model.
    """
    return searched.groupby(["ticker", "model"]).size().to_dict()


def new_trials(ledger: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``current`` that the ledger must gain.

    Those whose ticker, model and seed were last tried with another recipe, or never, or have been
    searched further since. Going back to an old recipe is a row again, because that choice, too,
    was made with all outcomes in sight.
    """
    told = [*_RECIPE[:3], "tuning_trials"]
    last = ledger.sort_values("tried_at").groupby(_PLACE, as_index=False)[told].last()
    both = current.merge(last, on=_PLACE, how="left", suffixes=("", "_last"))
    same = np.logical_and.reduce([(both[name] == both[f"{name}_last"]).to_numpy() for name in told])
    return current[~same].reset_index(drop=True)


def first_seen(forecasts: pd.DataFrame) -> pd.DataFrame:
    """The ledger of forecasts about which nothing else is known: each model and seed is a trial.

    It is dated to the first forecast of each ticker, model and seed.
    """
    rows = forecasts.groupby(_PLACE, as_index=False).agg(tried_at=("known_at", "min"))
    return rows.assign(
        network_hash=rows["model"], feature_set_hash="", training_hash="", tuning_trials=1
    )[list(TRIAL_COLUMNS)]


def count_trials(ledger: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """Count the trials on a ticker that a forecast of it may owe its looks to.

    Counted are all distinct trials on the ticker, of whatever model, that were made before the fold
    began or before the model's own recipe was settled on, whichever is later. So a history that is
    forecast today answers for everything tried on it until today, and a fold that was lived
    through answers for what had been tried when it began, whatever is tried later.

    Args:
        ledger: TRIAL_COLUMNS.
        asked: ticker, model, known_at (of the fold's beginning).

    Returns:
        (len(asked),) int64, each at least 1.

    Raises:
        ValueError: the ledger lacks a column.
    """
    require(ledger, "trials", TRIAL_COLUMNS)
    ledger = ledger.assign(tried_at=pd.to_datetime(ledger["tried_at"], utc=True))
    places = asked[["ticker", "model", "known_at"]].reset_index(drop=True)
    # Of a model that is not in the ledger nothing says when it was settled on: take the latest.
    for keys, name in ((["ticker", "model"], "settled"), (["ticker"], "newest")):
        last = ledger.groupby(keys, as_index=False).agg(**{name: ("tried_at", "max")})
        places = places.merge(last, on=keys, how="left")
    until = places["settled"].fillna(places["newest"])
    places["until"] = until.where(until > places["known_at"], places["known_at"])
    distinct = ledger.groupby(["ticker", *_RECIPE], as_index=False).agg(
        tried_at=("tried_at", "min"), n=("tuning_trials", "max")
    )
    pairs = places.reset_index(names="place").merge(distinct, on="ticker")
    counts = pairs[pairs["tried_at"] <= pairs["until"]].groupby("place")["n"].sum()
    return counts.reindex(range(len(asked)), fill_value=1).to_numpy(np.int64)


def _digest(described: Any) -> str:
    """Short hash of anything JSON."""
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
