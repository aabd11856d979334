"""Which networks may speak: the versions of every model, their states, and their files.

A *slot* is a place for a network in the settings (``model.networks``). What stands there over time
are *recipes*: a network, its training, features and folds. Each recipe's forecasts, evidence and
checkpoints are kept under a name of its own, the *model*: the slot's name for the first recipe,
``slot@hash`` for later ones, so that no recipe ever overwrites what another one said. A *version*
is the networks that one recipe's newest fold left behind, for one ticker; those of a pooled network
change for all its tickers at once.

Of each ticker and slot one version is the **champion**, whose forecasts reach signals, and at most
one a **candidate**, which forecasts the same sessions unheard; all others are **retired**. Nothing
here is overwritten: a frame of events says what became what, from which session on, when and why,
and a version's state is that of its newest event.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from rnn_pipeline.networks.checkpoints import (
    checkpoint_hash,
    code_version,
    load_members,
    load_metadata,
    save_members,
    weights_hash,
)
from rnn_pipeline.networks.walk_forward import FoldScales, Forecaster

if TYPE_CHECKING:
    from rnn_pipeline.networks.fleet import TrainedMember
    from rnn_pipeline.settings import FoldSpec, ModelSettings

State = Literal["candidate", "champion", "retired"]

#: Before every session: the first champion of a slot speaks for all of its walk-forward.
BEGINNING = pd.Timestamp("1900-01-01")

VERSION_COLUMNS = (
    "ticker",
    "slot",
    "model",
    "version",
    "recipe",
    "grid",
    "horizon",
    "pooled",
    "fold",
    "trained_until",
    "tested_until",
    "seen_until",
    "checkpoint",
    "code_version",
    "created_at",
)
EVENT_COLUMNS = (
    "event",
    *VERSION_COLUMNS,
    "state",
    "was",
    "from_session",
    "changed_at",
    "change",
    "reason",
)
NO_EVENTS = pd.DataFrame(columns=list(EVENT_COLUMNS))
_PLACE = ["ticker", "slot"]
_VERSION = ["ticker", "model", "version"]


@dataclass(frozen=True)
class Recipe:
    """What a slot's networks are made by.

    Attributes:
        recipe: hash of network, training, features, lookback, horizon and folds. Not of seeds: they
            are draws from one recipe.
        grid: hash of folds and horizon alone. Recipes of different grids forecast different things,
            so that nothing compares them.
        pooled: one network over all tickers.
        model: under which name its forecasts, evidence and checkpoints are kept.
        horizon: sessions ahead that its networks forecast.
    """

    recipe: str
    grid: str
    pooled: bool
    model: str
    horizon: int


def recipes(
    model: ModelSettings, folds: FoldSpec, columns: Sequence[str], events: pd.DataFrame
) -> dict[str, Recipe]:
    """The recipes that the settings ask for, by slot, under the names that they have or will have.

    Args:
        model: networks, training, lookback, and the horizons, each of which has recipes of its own.
        folds: the walk-forward; a holdout hides sessions and is no part of a recipe.
        columns: the features shown to the networks.
        events: what is registered.
    """
    spans = folds.model_dump(mode="json", exclude={"holdout_from"})
    made = {}
    for part in model.by_horizon():
        horizon = part.base_horizon
        grid = _digest([spans, horizon])
        shared = [
            part.training.model_dump(mode="json"),
            part.warm_epochs,
            list(columns),
            part.lookback,
            grid,
        ]
        for slot, network in part.networks.items():
            recipe = _digest([network.model_dump(mode="json"), *shared])
            known = events[events["slot"] == slot]
            named = known.loc[known["recipe"] == recipe, "model"]
            name = slot if known.empty else f"{slot}@{recipe[:8]}"
            model_name = str(named.iloc[0]) if len(named) else name
            made[slot] = Recipe(recipe, grid, network.pooled, model_name, horizon)
    return made


def version_of(forecaster: Forecaster) -> str:
    """Hash of the newest fold's networks: what they were made from, and what they became."""
    newest = forecaster.last_fold
    told = sorted(
        [seed, forecaster.recipes[fold, seed], weights_hash(member.state)]
        for (fold, seed), member in forecaster.members.items()
        if fold == newest
    )
    return _digest(told)


def current(events: pd.DataFrame) -> pd.DataFrame:
    """The newest event of each version that is not retired: ``EVENT_COLUMNS``."""
    newest = events.sort_values("event").groupby(_VERSION, as_index=False).tail(1)
    return newest[newest["state"] != "retired"].sort_values([*_PLACE, "state"], ignore_index=True)


def serving(events: pd.DataFrame) -> pd.DataFrame:
    """Which version forecasts which sessions.

    Returns:
        ``VERSION_COLUMNS``, state, begin, end: a version that is champion or candidate forecasts
        the sessions with ``begin <= session < end`` (``end`` is NaT while it still does), behind
        the last one that its walk-forward tested.
    """
    rows = events.sort_values("event")
    following = rows.groupby(_VERSION)["from_session"].shift(-1)
    # A change that came into force no later than the one before it leaves that one no session.
    rows = rows.assign(begin=rows["from_session"], end=following)
    empty = rows["end"] <= rows["begin"]
    return rows.loc[
        (rows["state"] != "retired") & ~empty, [*VERSION_COLUMNS, "state", "begin", "end"]
    ]


class _Changes:
    """New events, one after the other, and the state that they leave behind."""

    def __init__(self, events: pd.DataFrame, now: pd.Timestamp) -> None:
        self.events = events
        self.now = now
        self.rows: list[dict[str, Any]] = []
        self.next = int(events["event"].max()) + 1 if len(events) else 0
        newest = events.sort_values("event").groupby(_VERSION, as_index=False).tail(1)
        self.state: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in newest.to_dict("records"):
            self.state.setdefault((row["ticker"], row["slot"]), {})[row["version"]] = row

    def of(self, ticker: str, slot: str, state: State) -> list[dict[str, Any]]:
        """The versions of a ticker and slot that are in a state."""
        versions = self.state.get((ticker, slot), {}).values()
        return [row for row in versions if row["state"] == state]

    def champion(self, ticker: str, slot: str) -> dict[str, Any] | None:
        """The one, or None."""
        return next(iter(self.of(ticker, slot, "champion")), None)

    def add(
        self,
        version: Mapping[str, Any],
        state: State,
        from_session: pd.Timestamp,
        change: str,
        reason: str,
    ) -> None:
        """Say what a version becomes."""
        own = self.state.setdefault((version["ticker"], version["slot"]), {})
        before = own.get(version["version"])
        row = {name: version[name] for name in VERSION_COLUMNS} | {
            "event": self.next,
            "state": state,
            "was": before["state"] if before else "",
            "from_session": from_session,
            "changed_at": self.now,
            "change": change,
            "reason": reason,
        }
        self.next += 1
        self.rows.append(row)
        own[version["version"]] = row

    def crown(
        self, version: Mapping[str, Any], from_session: pd.Timestamp, change: str, reason: str
    ) -> None:
        """Make a version the champion in the place of the one there is."""
        champion = self.champion(version["ticker"], version["slot"])
        if champion is not None:
            from_session = max(from_session, champion["from_session"])
            self.add(champion, "retired", from_session, change, reason)
        self.add(version, "champion", from_session, change, reason)

    @property
    def frame(self) -> pd.DataFrame:
        """The new events."""
        return pd.DataFrame(self.rows, columns=list(EVENT_COLUMNS))


def new_versions(
    forecasters: Iterable[Forecaster],
    recipe: Recipe,
    slot: str,
    trained_until: Mapping[int, pd.Timestamp],
    last_session: pd.Timestamp,
    now: pd.Timestamp,
) -> pd.DataFrame:
    """Describe what a training left behind: VERSION_COLUMNS without a ``checkpoint``.

    Args:
        forecasters: of one slot.
        recipe: what made them.
        slot: where they stand in the settings.
        trained_until: fold -> the last session before its first test session.
        last_session: the newest session whose outcomes anybody can have seen.
        now: the moment.
    """
    rows = [
        {
            "ticker": forecaster.ticker,
            "slot": slot,
            "model": recipe.model,
            "version": version_of(forecaster),
            "recipe": recipe.recipe,
            "grid": recipe.grid,
            "horizon": recipe.horizon,
            "pooled": recipe.pooled,
            "fold": forecaster.last_fold,
            "trained_until": trained_until[forecaster.last_fold],
            "tested_until": forecaster.tested_until,
            "seen_until": last_session,
            "code_version": code_version(),
            "created_at": now,
        }
        for forecaster in forecasters
    ]
    names = [name for name in VERSION_COLUMNS if name != "checkpoint"]
    return pd.DataFrame(rows, columns=names)


def unregistered(
    events: pd.DataFrame, versions: pd.DataFrame, kept: Collection[str]
) -> pd.DataFrame:
    """Those versions that are to enter the registry: new ones, and retired ones that come back.

    A version that a person rolled back does not come back by itself.

    Args:
        events: what is registered.
        versions: of :func:`new_versions`.
        kept: checkpoints that are whole; versions in service whose file was lost are among the
            result.
    """
    newest = events.sort_values("event").groupby(_VERSION, as_index=False).tail(1)
    columns = [*_VERSION, "state", "change", "checkpoint"]
    told = versions.merge(newest[columns], on=_VERSION, how="left")
    serves = told["state"].isin(["candidate", "champion"]) & told["checkpoint"].isin(list(kept))
    rolled_back = (told["state"] == "retired") & (told["change"] == "rollback")
    return versions[~(serves | rolled_back).to_numpy()].reset_index(drop=True)


def register(
    events: pd.DataFrame,
    versions: pd.DataFrame,
    asked: Mapping[str, Recipe],
    tickers: Collection[str],
    now: pd.Timestamp,
    last_session: pd.Timestamp,
) -> pd.DataFrame:
    """What becomes of trained versions, and of those that the settings no longer ask for.

    - The first version of a ticker and slot is its champion.
    - A refit of the champion's own recipe takes over with the next session: the walk-forward graded
      the recipe, refits included.
    - Another recipe is a candidate; a refit of it takes its place. With other folds or another
      horizon it takes over with the next session, since nothing compares the two.
    - A candidate whose recipe the settings no longer ask for is retired, and whoever stands in a
      slot that is no longer in the settings.

    Args:
        events: what is registered.
        versions: of :func:`unregistered`, with ``checkpoint``.
        asked: of :func:`recipes`.
        tickers: those that the run is about.
        now: the moment.
        last_session: the newest stored one; changes come into force with the next.

    Returns:
        The new events.
    """
    changes = _Changes(events, now)
    following = last_session + pd.Timedelta(days=1)
    for version in versions.to_dict("records"):
        ticker, slot = version["ticker"], version["slot"]
        known = changes.state.get((ticker, slot), {}).get(version["version"])
        if known is not None and known["state"] != "retired":
            again = known | {"checkpoint": version["checkpoint"]}
            changes.add(
                again, known["state"], known["from_session"], "restored", "its file was lost"
            )
            continue
        champion = changes.champion(ticker, slot)
        candidates = [
            row
            for row in changes.of(ticker, slot, "candidate")
            if row["recipe"] == version["recipe"]
        ]
        if champion is None:
            past = any(row["was"] for row in changes.state.get((ticker, slot), {}).values())
            begins = following if past else BEGINNING
            changes.crown(version, begins, "first", "there was no other")
        elif version["recipe"] == champion["recipe"]:
            changes.crown(
                version, following, "refit", f"refit of its recipe, fold {version['fold']}"
            )
        elif version["grid"] != champion["grid"]:
            reason = "folds or horizon have changed, so that nothing compares the two"
            changes.crown(version, following, "new grid", reason)
        else:
            change, reason = "candidate", "another recipe than the champion's"
            for row in candidates:
                change, reason = "refit", f"refit of its recipe, fold {version['fold']}"
                changes.add(row, "retired", following, change, reason)
                version["seen_until"] = row["seen_until"]
            changes.add(version, "candidate", following, change, reason)
    for ticker, slot in list(changes.state):
        if ticker not in tickers:
            continue
        wanted = asked.get(slot)
        for row in changes.of(ticker, slot, "candidate"):
            if wanted is None or row["recipe"] != wanted.recipe:
                changes.add(row, "retired", following, "dropped", "the settings dropped its recipe")
        champion = changes.champion(ticker, slot)
        if wanted is None and champion is not None:
            reason = "its slot is no longer in the settings"
            changes.add(champion, "retired", following, "dropped", reason)
    return changes.frame


def challenges(events: pd.DataFrame) -> pd.DataFrame:
    """Candidates beside the champions that they must beat.

    Returns:
        ticker, slot, pooled, candidate and champion (names of models), seen_until (sessions after
        it had been seen when neither was made), trials (candidate recipes that were ever tried in
        this place, this one included).
    """
    now = current(events)
    candidates = now[now["state"] == "candidate"].rename(columns={"model": "candidate"})
    champions = now.loc[now["state"] == "champion", [*_PLACE, "model"]]
    both = candidates.merge(champions.rename(columns={"model": "champion"}), on=_PLACE)
    tried = events[events["state"] == "candidate"].groupby(_PLACE)["recipe"].nunique()
    both = both.merge(tried.rename("trials").reset_index(), on=_PLACE)
    columns = [*_PLACE, "pooled", "candidate", "champion", "seen_until", "trials"]
    return both[columns]


def promote(
    events: pd.DataFrame,
    chosen: pd.DataFrame,
    from_session: pd.Timestamp,
    now: pd.Timestamp,
    change: str,
    reason: str,
) -> pd.DataFrame:
    """Make candidates champions.

    Args:
        events: what is registered.
        chosen: ticker, slot of the candidates.
        from_session: the first one that they speak for.
        now: the moment.
        change: "promoted" on evidence, "forced" without.
        reason: in a sentence.

    Returns:
        The new events.

    Raises:
        ValueError: there is no candidate.
    """
    changes = _Changes(events, now)
    for ticker, slot in chosen[_PLACE].drop_duplicates().itertuples(index=False):
        candidates = changes.of(ticker, slot, "candidate")
        if not candidates:
            raise ValueError(
                f"{slot} of {ticker} has no candidate: `rnn-pipeline models` lists all"
            )
        changes.crown(candidates[0], from_session, change, reason)
    return changes.frame


def rollback(
    events: pd.DataFrame,
    chosen: pd.DataFrame,
    from_session: pd.Timestamp,
    now: pd.Timestamp,
    kept: Collection[str],
) -> pd.DataFrame:
    """Go back to the champion before the one there is; doing so twice goes back twice.

    Args:
        events: what is registered.
        chosen: ticker, slot.
        from_session: the first session that the former champion speaks for again.
        now: the moment.
        kept: checkpoints whose files are still there.

    Returns:
        The new events.

    Raises:
        ValueError: there was no earlier champion, or its networks are no longer kept.
    """
    changes = _Changes(events, now)
    crowned = events[events["state"] == "champion"].sort_values("event")
    for ticker, slot in chosen[_PLACE].drop_duplicates().itertuples(index=False):
        own = crowned[(crowned["ticker"] == ticker) & (crowned["slot"] == slot)]
        past: list[str] = []
        for row in own.itertuples():
            if row.change == "rollback":
                past.pop()
            elif row.change != "restored":
                past.append(str(row.version))
        if len(past) < 2:
            raise ValueError(f"{slot} of {ticker} has no earlier champion to go back to")
        former = changes.state[ticker, slot][past[-2]]
        if former["checkpoint"] not in kept:
            raise ValueError(
                f"the networks of the earlier champion of {slot} of {ticker} (version"
                f" {former['version']}) are no longer kept: raise operations.keep_retired next time"
            )
        changes.crown(former, from_session, "rollback", f"back from version {past[-1]}")
    return changes.frame


def still_needed(events: pd.DataFrame, keep_retired: int) -> set[str]:
    """Checkpoints of versions in service, and of each ticker and slot's newest former champions."""
    newest = events.sort_values("event").groupby(_VERSION, as_index=False).tail(1)
    active = newest[newest["state"] != "retired"]
    # A candidate that never spoke is nothing to go back to.
    spoke = events.loc[events["state"] == "champion", _VERSION].drop_duplicates()
    retired = newest[newest["state"] == "retired"].merge(spoke, on=_VERSION)
    latest = retired.sort_values("event").groupby(_PLACE).tail(keep_retired)
    return set(active["checkpoint"]) | set(latest["checkpoint"])


def marked_expired(forecasts: pd.DataFrame, sessions: pd.DatetimeIndex, limit: int) -> pd.DataFrame:
    """Let forecasts of networks that are too old speak under a name that has no evidence.

    So they count for nothing in a signal, and its reason names them.

    Args:
        forecasts: ticker, session, model, trained_until: the end of the networks' training for
            forecasts of new sessions, NaT for those of the walk-forward, which are never too old.
        sessions: every session of the exchange from the earliest ``trained_until`` on.
        limit: sessions after the end of the training from which forecasts are too old.
    """
    trained = pd.to_datetime(forecasts["trained_until"])
    age = sessions.searchsorted(pd.DatetimeIndex(forecasts["session"])) - sessions.searchsorted(
        pd.DatetimeIndex(trained.fillna(BEGINNING))
    )
    expired = trained.notna() & (age > limit)
    names = forecasts["model"].where(~expired, forecasts["model"] + " (expired)")
    return forecasts.assign(model=names)


class ServingFiles:
    """The newest folds' networks of many tickers in few files, named by what is in them.

    A retraining writes its checkpoints anew; these files stay as long as a version needs them.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, forecasters: Iterable[Forecaster]) -> str:
        """Write the newest fold's networks of one model's forecasters.

        Returns:
            The file's SHA-256, which is its name.
        """
        members: dict[str, TrainedMember] = {}
        described = {}
        for forecaster in forecasters:
            newest = forecaster.last_fold
            own = {
                seed: member
                for (fold, seed), member in forecaster.members.items()
                if fold == newest
            }
            members |= {member.key: member for member in own.values()}
            described[forecaster.ticker] = {
                "model": forecaster.model,
                "columns": list(forecaster.columns),
                "tested_until": forecaster.tested_until.isoformat(),
                "fold": newest,
                "scales": forecaster.scales[newest].to_dict(),
                "members": {str(seed): member.key for seed, member in own.items()},
                "recipes": {str(seed): forecaster.recipes[newest, seed] for seed in own},
            }
        written = self.folder / f".{uuid.uuid4().hex}"
        try:
            save_members(written, list(members.values()), {"forecasters": described})
            name = checkpoint_hash(written)
            written.replace(self._path(name))
        finally:
            written.unlink(missing_ok=True)
        return name

    def load(
        self, checkpoint: str, tickers: Collection[str] | None = None
    ) -> dict[str, Forecaster]:
        """Read forecasters back, by ticker: the newest fold's networks alone.

        Args:
            checkpoint: the file's SHA-256.
            tickers: whose; None: all.

        Raises:
            ValueError: the file is missing, or is not what it was when it was written.
        """
        path = self._path(checkpoint)
        found = checkpoint_hash(path)
        if found != checkpoint:
            raise ValueError(
                f"serving file {path} is damaged (its SHA-256 is {found[:16]}): nothing is forecast"
                " with it; run the job retrain, which writes it anew"
            )
        described = load_metadata(path)["forecasters"]
        wanted = [ticker for ticker in described if tickers is None or ticker in tickers]
        keys = dict.fromkeys(key for t in wanted for key in described[t]["members"].values())
        members = {member.key: member for member in load_members(path, list(keys))}
        made = {}
        for ticker in wanted:
            told = described[ticker]
            fold = told["fold"]
            made[ticker] = Forecaster(
                ticker=ticker,
                model=told["model"],
                columns=tuple(told["columns"]),
                members={(fold, int(seed)): members[key] for seed, key in told["members"].items()},
                scales={fold: FoldScales.from_dict(told["scales"])},
                recipes={(fold, int(seed)): made_by for seed, made_by in told["recipes"].items()},
                tested_until=pd.Timestamp(told["tested_until"]),
            )
        return made

    def kept(self) -> set[str]:
        """The files that are there."""
        return {path.stem for path in self.folder.glob("*.safetensors")}

    def whole(self) -> set[str]:
        """The files that are what they were when they were written; reads all of them."""
        return {name for name in self.kept() if checkpoint_hash(self._path(name)) == name}

    def prune(self, needed: Collection[str]) -> int:
        """Delete the files that no version needs, and say how many they were."""
        gone = self.kept() - set(needed)
        for name in gone:
            self._path(name).unlink()
        return len(gone)

    def _path(self, checkpoint: str) -> Path:
        return self.folder / f"{checkpoint}.safetensors"


def _digest(described: Any) -> str:
    """Short hash of anything JSON."""
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
