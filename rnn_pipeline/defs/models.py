"""The registry of models at work: what retraining left behind, and what forecasts new sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rnn_pipeline.defs.features import COLUMNS
from rnn_pipeline.defs.partitions import SETTINGS, Span
from rnn_pipeline.evidence.comparison import compare
from rnn_pipeline.evidence.significance import MIN_EFFECTIVE
from rnn_pipeline.features.model import model_features
from rnn_pipeline.features.windows import ModelMatrix, window_ends
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from rnn_pipeline.features.folds import Fold
    from rnn_pipeline.networks.registry import Recipe, ServingFiles
    from rnn_pipeline.networks.walk_forward import Forecaster


def serving_files() -> ServingFiles:
    """The networks that forecast new sessions."""
    from rnn_pipeline.networks.registry import ServingFiles

    return ServingFiles(SETTINGS.checkpoint_dir / "serving")


def asked_recipes(store: Warehouse) -> dict[str, Recipe]:
    """What the settings ask for, by slot, under the names that forecasts are kept by."""
    from rnn_pipeline.networks.registry import recipes

    return recipes(SETTINGS.model, SETTINGS.folds, COLUMNS, store.rows("models"))


def append_events(store: Warehouse, events: pd.DataFrame, run_id: str) -> None:
    """Add to the registry, and delete the files that no version needs any more."""
    from rnn_pipeline.networks.registry import still_needed

    if events.empty:
        return
    with store.batch() as batch:
        batch.append("models", events.assign(run_id=run_id))
    serving_files().prune(still_needed(store.rows("models"), SETTINGS.operations.keep_retired))


def register_trained(
    store: Warehouse,
    trained: Mapping[str, Mapping[str, Forecaster]],
    tickers: Collection[str],
    axis: pd.DatetimeIndex,
    folds: Sequence[Fold],
    run_id: str,
) -> pd.DataFrame:
    """Enter what retraining left behind into the registry.

    Args:
        store: the warehouse.
        trained: slot -> ticker -> forecaster.
        tickers: those that the run is about.
        axis: the sessions that ``folds`` count on.
        folds: of the walk-forward.
        run_id: Dagster's.

    Returns:
        The new events.
    """
    from rnn_pipeline.networks import registry

    now = pd.Timestamp(datetime.now(UTC))
    events, asked, files = store.rows("models"), asked_recipes(store), serving_files()
    trained_until = {fold.number: axis[fold.test[0] - 1] for fold in folds}
    whole = files.whole()
    entering = []
    for slot, forecasters in trained.items():
        versions = registry.new_versions(
            forecasters.values(), asked[slot], slot, trained_until, axis[-1], now
        )
        versions = registry.unregistered(events, versions, whole)
        if len(versions):
            kept = files.save(forecasters[ticker] for ticker in versions["ticker"])
            entering.append(versions.assign(checkpoint=kept))
    entered = pd.concat(entering) if entering else registry.NO_EVENTS
    added = registry.register(events, entered, asked, tickers, now, axis[-1])
    append_events(store, added, run_id)
    return added


def forecast_new_sessions(
    store: Warehouse, calendar: SessionCalendar, span: Span, run_id: str
) -> pd.DataFrame:
    """Forecast the span's sessions that no one has forecast yet, by champions and candidates.

    A session that was forecast once is not forecast again: what was said then is the record. Where
    candidates have beaten their champions with the outcomes that these sessions brought, they take
    their place from the session after on.

    Returns:
        The new rows of ``forecasts``.

    Raises:
        ValueError: a file of networks is damaged.
    """
    from rnn_pipeline.networks.registry import serving
    from rnn_pipeline.networks.walk_forward import no_forecasts, quantile_rows, stamped

    events = store.rows("models", ticker=span.tickers)
    held_out, end = SETTINGS.folds.holdout_from, span.last
    if held_out is not None:
        end = min(end, held_out - timedelta(days=1))
    days = {"ticker": span.tickers, "session": (span.first, end)}
    there = store.rows("model_features", "ticker, session", **days)
    wanted = there.merge(serving(events), on="ticker")
    behind = wanted["session"] > wanted["tested_until"]
    in_force = (wanted["begin"] <= wanted["session"]) & ~(wanted["end"] <= wanted["session"])
    wanted = wanted[behind & in_force]
    # All that speak of one session do so in one fold, the newest that any of them has.
    wanted["newest_fold"] = wanted.groupby(["ticker", "session"])["fold"].transform("max")
    done = store.rows("forecasts", "DISTINCT ticker, model, session", **days)
    wanted = wanted.merge(done.assign(done=True), how="left")
    wanted = wanted[wanted["done"].isna()]
    if wanted.empty:
        return no_forecasts()
    made, shown = _ask(store, calendar, wanted)
    # Versions of a warehouse that never knew several horizons do not name theirs.
    horizon = pd.to_numeric(wanted["horizon"]).fillna(SETTINGS.model.base_horizon).astype("int64")
    wanted["horizon"] = horizon
    told = ["ticker", "model", "session", "version", "trained_until", "newest_fold", "horizon"]
    made = made.drop(columns="fold").merge(wanted[told], on=["ticker", "model", "session"])
    made = made.rename(columns={"newest_fold": "fold"})
    rows = pd.concat(
        [stamped(own, shown, int(ahead)) for ahead, own in made.groupby("horizon")],
        ignore_index=True,
    )
    with store.batch() as batch:
        batch.append("forecasts", rows.assign(run_id=run_id))
        batch.append("forecast_quantiles", quantile_rows(rows.assign(run_id=run_id)))
    _settle(store, events, sorted(rows["session"].unique()), run_id)
    return rows


def _ask(
    store: Warehouse, calendar: SessionCalendar, wanted: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask each version for its sessions; also the features of all sessions that were looked at."""
    from rnn_pipeline.networks.walk_forward import forecast_together

    files = serving_files()
    forecasters = {
        (str(checkpoint), ticker): forecaster
        for checkpoint, own in wanted.groupby("checkpoint")
        for ticker, forecaster in files.load(str(checkpoint), set(own["ticker"])).items()
    }
    longest = max(forecaster.lookback for forecaster in forecasters.values())
    first, last = wanted["session"].min(), wanted["session"].max()
    days = (first - timedelta(days=3 * longest + 30), last)
    tickers = sorted(wanted["ticker"].unique())
    shown: dict[tuple[str, ...], pd.DataFrame] = {}
    matrices: dict[tuple[str, ...], ModelMatrix] = {}
    ends = {}
    questions = []
    for (checkpoint, ticker), own in wanted.groupby(["checkpoint", "ticker"]):
        forecaster = forecasters[str(checkpoint), str(ticker)]
        columns, lookback = forecaster.columns, forecaster.lookback
        if columns not in shown:
            shown[columns] = _features(store, columns, tickers, days)
            matrices[columns] = ModelMatrix.build(shown[columns], columns)
        matrix = matrices[columns]
        if (columns, lookback) not in ends:
            axis = calendar.sessions(
                shown[columns]["session"].min().date(), shown[columns]["session"].max().date()
            )
            ends[columns, lookback] = window_ends(matrix, lookback, axis)
        sessions = pd.DatetimeIndex(own["session"])
        questions.append(forecaster.asked_new(matrix, ends[columns, lookback], sessions))
    return forecast_together(questions), next(iter(shown.values()))


def _features(
    store: Warehouse, columns: tuple[str, ...], tickers: list[str], days: tuple[date, date]
) -> pd.DataFrame:
    """What networks are shown: those of another recipe may have learned from other columns."""
    where = {"ticker": tickers, "session": days}
    if columns == COLUMNS:
        told = ", ".join(["ticker", "session", "known_at", "feature_set_hash", *columns])
        return store.rows("model_features", told, **where)
    prices, sentiment = (store.rows(name, **where) for name in ("price_features", "news_sentiment"))
    return model_features(prices, sentiment, columns)


def _settle(
    store: Warehouse, events: pd.DataFrame, sessions: Sequence[pd.Timestamp], run_id: str
) -> None:
    """Promote candidates that have beaten their champions, looking at each session's close.

    A run that catches up on days looks as often, and decides as, runs on each of the days.
    """
    from rnn_pipeline.networks.registry import challenges, promote

    asked = challenges(events)
    if asked.empty:
        return
    forecasts = store.rows(
        "recipe_forecasts",
        ticker=asked["ticker"].unique().tolist(),
        model=pd.concat([asked["candidate"], asked["champion"]]).unique().tolist(),
        session=(asked["seen_until"].min(), max(sessions)),
    )
    shared = np.sort(forecasts["session"].unique())
    for session in sessions:
        if np.searchsorted(shared, session) < MIN_EFFECTIVE:
            continue
        verdicts = compare(forecasts, asked, until=session)
        for verdict in verdicts[verdicts["beaten"]].itertuples():
            reason = (
                f"beat the champion on {verdict.sessions} sessions that neither had seen: squared"
                f" error {verdict.candidate_mse:.3e} against {verdict.champion_mse:.3e}, p"
                f" {verdict.p_value:.4f}"
            )
            chosen = verdicts.loc[[verdict.Index], ["ticker", "slot"]]
            now, following = pd.Timestamp(datetime.now(UTC)), session + timedelta(days=1)
            added = promote(store.rows("models"), chosen, following, now, "promoted", reason)
            append_events(store, added, run_id)
        won = verdicts.loc[verdicts["beaten"], ["ticker", "slot"]]
        asked = asked.merge(won.assign(won=True), how="left")
        asked = asked[asked["won"].isna()].drop(columns="won").reset_index(drop=True)
        if asked.empty:
            return
