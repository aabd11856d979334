"""What is healthy, stale or broken, and the command that mends it.

Every examination looks at one thing and says one sentence. ``rnn-pipeline doctor`` shows them all
on a page; the asset checks that run before the open are the same functions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Literal

import pandas as pd

from rnn_pipeline.alerts import Alert, hooks_of, recall
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import Settings
from rnn_pipeline.warehouse import (
    PayloadStore,
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseVersionError,
)

State = Literal["healthy", "stale", "broken"]

#: Time after a close by which its bar should be there: sources are late, and a run takes a while.
_GRACE = timedelta(hours=4)
#: Sessions whose forecasts and fills are looked at as the newest.
_RECENT = 20
#: Forecasts have drifted when more than this share of the newest lies outside the middle 99 %.
_OUTSIDE = 0.05
#: Signals have flipped when more than this share of tickers changed sides, and twice the usual.
_FLIPPED = 0.5
_PAYLOADS_LOOKED_FOR = 2_000
_SHOWN = 5
_DAY = timedelta(days=1)
# The registry's rule in SQL, since its module brings torch along: a version is what its newest
# event made it.
_CHAMPIONS = """
SELECT ticker, slot, trained_until FROM models WHERE list_contains(?, ticker)
QUALIFY event = max(event) OVER (PARTITION BY ticker, model, version) AND state = 'champion'
ORDER BY ALL
"""
_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """What an examination found.

    Attributes:
        area: what was examined, such as "bars".
        state: healthy; stale (works, on old or thin ground); broken (needs a hand).
        says: one sentence.
        command: what mends it; empty where nothing is to do.
    """

    area: str
    state: State
    says: str
    command: str = ""

    def alert(self) -> Alert:
        """The finding as something a person is told."""
        severity: Literal["error", "warning"] = "error" if self.state == "broken" else "warning"
        return Alert(self.area, severity, f"{self.area}: {self.says}", command=self.command)


@dataclass(frozen=True)
class Patient:
    """What is examined, and when.

    Attributes:
        settings: those in force.
        store: their warehouse; best one of little patience with whoever holds it.
        tickers: the universe.
        last_day: the last day that data can exist for.
        now: zone-aware.
    """

    settings: Settings
    store: Warehouse
    tickers: tuple[str, ...]
    last_day: date
    now: datetime

    @cached_property
    def calendar(self) -> SessionCalendar:
        """Of the settings' exchange."""
        return SessionCalendar(self.settings.exchange)

    @cached_property
    def expected(self) -> pd.Timestamp:
        """The newest session whose bars should be there by now."""
        closed = self.calendar.last_closed(pd.Timestamp(self.now) - _GRACE)
        end = min(closed, pd.Timestamp(self.last_day))
        return self.calendar.sessions(end - 14 * _DAY, end)[-1]

    @cached_property
    def newest_bars(self) -> pd.Series:
        """Session of the newest final bar, by ticker of the universe."""
        found = self.store.read(
            "SELECT ticker, max(session) AS session FROM raw_ohlcv"
            " WHERE is_final AND list_contains(?, ticker) GROUP BY ticker ORDER BY ticker",
            [list(self.tickers)],
        )
        return found.set_index("ticker")["session"]

    def behind(self, session: pd.Timestamp) -> int:
        """Sessions between this one and the expected one."""
        return max(len(self.calendar.sessions(session, self.expected)) - 1, 0)

    def newest(self, table: str) -> pd.Timestamp:
        """Newest session of a table for the universe; NaT where it has none."""
        found = self.store.read(
            f"SELECT max(session) AS session FROM {table} WHERE list_contains(?, ticker)",
            [list(self.tickers)],
        )
        return pd.Timestamp(found["session"][0])


def bars(patient: Patient) -> Finding:
    """Whether the newest bar of every ticker that has any is the newest there should be."""
    newest = patient.newest_bars
    if newest.empty:
        return Finding("bars", "broken", "no bar is stored", "rnn-pipeline demo")
    behind = {ticker: patient.behind(session) for ticker, session in newest.items()}
    late = {ticker: sessions for ticker, sessions in behind.items() if sessions}
    day = f"{patient.expected:%Y-%m-%d}"
    if not late:
        return Finding("bars", "healthy", f"{len(newest)} tickers have their bar of {day}")
    state: State = "broken" if len(late) == len(newest) else "stale"
    shown = _names(f"{ticker} ({sessions} sessions late)" for ticker, sessions in late.items())
    return Finding("bars", state, f"no bar of {day}: {shown}", "rnn-pipeline backfill")


def tickers(patient: Patient) -> Finding:
    """Whether every ticker of the universe is known to its source and still traded."""
    missing = [ticker for ticker in patient.tickers if ticker not in patient.newest_bars.index]
    status = patient.store.rows("ticker_status", ticker=list(patient.tickers))
    gone = status[status["status"].isin(["unknown", "delisted"])]
    if missing:
        return Finding(
            "tickers",
            "broken",
            f"without any bar: {_names(missing)}; mend the spelling in the setting tickers, or",
            f"rnn-pipeline backfill --ticker {missing[0]}",
        )
    if len(gone):
        shown = _names(f"{row.ticker} is {row.status}" for row in gone.itertuples())
        return Finding("tickers", "stale", f"{shown}: take it out of the setting tickers")
    gaps = status.loc[status["missing"] > 0, "ticker"]
    lacking = f"; sessions are missing of {_names(gaps)}" if len(gaps) else ""
    return Finding("tickers", "healthy", f"{len(patient.tickers)} tickers are known{lacking}")


def headlines(patient: Patient) -> Finding:
    """Whether news still comes in."""
    found = patient.store.read(
        "SELECT count(*) AS n, max(usable_at) AS newest FROM raw_news"
        " WHERE list_contains(?, ticker)",
        [list(patient.tickers)],
    )
    if not found["n"][0]:
        return Finding("headlines", "healthy", "there are none; sentiment counts as neutral")
    newest = pd.Timestamp(found["newest"][0])
    silent = patient.expected.tz_localize("UTC") - newest
    says = f"{found['n'][0]} headlines, the newest of {newest:%Y-%m-%d}"
    if silent > 10 * _DAY:
        return Finding(
            "headlines",
            "stale",
            f"{says}: {silent.days} days of silence; try the addresses of the setting feeds, then",
            "rnn-pipeline backfill",
        )
    return Finding("headlines", "healthy", says)


def features(patient: Patient) -> Finding:
    """Whether features reach as far as bars."""
    return _reaches(patient, "features", "model_features")


def signals(patient: Patient) -> Finding:
    """Whether signals reach as far as bars."""
    return _reaches(patient, "signals", "trading_signals")


def decisions(patient: Patient) -> Finding:
    """Whether there are decisions for the next open."""
    return _reaches(patient, "decisions", "trading_decisions")


def _reaches(patient: Patient, area: str, table: str) -> Finding:
    newest, bar = patient.newest(table), patient.newest_bars.max()
    if pd.isna(newest):
        return Finding(area, "broken", "there are none", "rnn-pipeline retrain")
    if newest < bar:
        return Finding(
            area,
            "stale",
            f"the newest are of {newest:%Y-%m-%d}, bars of {bar:%Y-%m-%d}",
            "rnn-pipeline backfill",
        )
    return Finding(area, "healthy", f"as of {newest:%Y-%m-%d}")


def flips(patient: Patient) -> Finding:
    """Whether signals changed sides between the two newest sessions, and more than usual."""
    rows = patient.store.rows(
        "trading_signals", "ticker, session, signal", ticker=list(patient.tickers)
    )
    table = rows.pivot(index="session", columns="ticker", values="signal").tail(250)
    both = (table * table.shift(1)).iloc[1:]
    speak = (both != 0) & both.notna()
    share = (both < 0).sum(axis=1) / speak.sum(axis=1)
    if share.dropna().empty:
        return Finding("flips", "healthy", "no ticker had signals in two sessions running")
    now, usual = share.fillna(0.0).iloc[-1], share.iloc[:-1].fillna(0.0).mean()
    count = int((both.iloc[-1] < 0).sum())
    says = f"{count} of {int(speak.iloc[-1].sum())} signals changed sides"
    if now > max(_FLIPPED, 2 * usual) and count >= 2:
        return Finding(
            "flips",
            "stale",
            f"{says}, usually {usual:.0%} do: look at the report before trading",
            "rnn-pipeline report --open",
        )
    return Finding("flips", "healthy", says)


def forecast_drift(patient: Patient) -> Finding:
    """Whether the newest forecasts lie where those that were graded lay, and still move."""
    rows = patient.store.rows(
        "forecasts", "ticker, session, model, seed, forecast", ticker=list(patient.tickers)
    )
    days = rows["session"].drop_duplicates().sort_values()
    if len(days) < 3 * _RECENT:
        return Finding("forecasts", "healthy", f"{len(days)} sessions are too few to compare")
    newest = rows["session"] > days.iloc[-_RECENT - 1]
    keys = ["ticker", "model", "seed"]
    before = rows[~newest].groupby(keys)["forecast"]
    low, high = before.quantile(0.005).rename("low"), before.quantile(0.995).rename("high")
    joined = rows[newest].join(low, on=keys).join(high, on=keys)
    outside = ~joined["forecast"].between(joined["low"], joined["high"])
    share = outside.groupby(joined["model"]).mean()
    moves = (
        rows[newest].groupby("model")["forecast"].std()
        / rows[~newest].groupby("model")["forecast"].std()
    )
    drifted = [f"{model}: {part:.0%} outside" for model, part in share.items() if part > _OUTSIDE]
    drifted += [f"{model} hardly moves any more" for model in moves.index[moves < 0.1]]
    if drifted:
        return Finding(
            "forecasts",
            "stale",
            f"the last {_RECENT} sessions are unlike those that were graded ({_names(drifted)}):"
            " look before trading; the next fold trains anew",
            "rnn-pipeline report --open",
        )
    return Finding("forecasts", "healthy", f"as of {days.iloc[-1]:%Y-%m-%d}, as they were graded")


def models(patient: Patient) -> Finding:
    """Whether every ticker has champions, and how many sessions ago their training ended."""
    settings, store = patient.settings, patient.store
    champions = store.read(_CHAMPIONS, [list(patient.tickers)])
    if champions.empty:
        return Finding("models", "broken", "no network was trained", "rnn-pipeline retrain")
    sets = store.rows("window_sets", ticker=list(patient.tickers))
    wanted = sets.loc[sets["folds"] > 0, "ticker"]
    lacking = sorted(set(wanted) - set(champions["ticker"]))
    if lacking:
        return Finding(
            "models", "broken", f"no network speaks for {_names(lacking)}", "rnn-pipeline retrain"
        )
    ended = champions["trained_until"].min()
    age, stride = patient.behind(ended), settings.folds.stride
    expiry = settings.operations.model_expiry or 2 * stride
    says = f"champions know sessions up to {ended:%Y-%m-%d}, {age} sessions ago"
    if age > expiry:
        return Finding("models", "broken", f"{says}: expired", "rnn-pipeline retrain")
    if age > settings.folds.test_size:
        return Finding("models", "stale", f"{says}: a fold is due", "rnn-pipeline retrain")
    return Finding("models", "healthy", says)


def evidence(patient: Patient) -> Finding:
    """Whether a model that had shown evidence has none in its newest fold."""
    rows = patient.store.rows(
        "evidence", "ticker, model, fold, grade", ticker=list(patient.tickers)
    ).sort_values("fold")
    if rows.empty:
        return Finding("evidence", "broken", "nothing was graded", "rnn-pipeline retrain")
    grades = rows.groupby(["ticker", "model"])["grade"]
    newest = grades.last()
    before = grades.nth(-2)
    before = rows.loc[before.index].set_index(["ticker", "model"])["grade"].reindex(newest.index)
    lost = newest.index[(newest == "none") & before.notna() & (before != "none")]
    kept = int((newest != "none").sum())
    says = f"{kept} of {len(newest)} models have any; the others are not traded"
    if len(lost):
        shown = _names(f"{model} of {ticker}" for ticker, model in lost)
        return Finding(
            "evidence", "stale", f"lost by {shown}; {says}", "rnn-pipeline report --open"
        )
    return Finding("evidence", "healthy", says)


def paper(patient: Patient) -> Finding:
    """Whether the paper account keeps up, and orders are filled."""
    store = patient.store
    account = store.rows("paper_account")
    if account.empty:
        return Finding("paper", "healthy", "nothing was decided yet that could be traded on paper")
    newest, bar = account["session"].max(), patient.newest_bars.max()
    last = account.iloc[-1]
    says = f"the account is at {last['equity']:.4f}, the backtest at {last['promise']:.4f}"
    if newest < bar:
        return Finding(
            "paper", "stale", f"{says}, as of {newest:%Y-%m-%d}", "rnn-pipeline backfill"
        )
    fills = store.rows("paper_fills", session=(account["session"].iloc[-_RECENT:].min(), newest))
    missed = (fills["missed"] != "").sum()
    if missed > len(fills) / 5:
        return Finding(
            "paper",
            "stale",
            f"{says}; {missed} of {len(fills)} orders missed",
            "rnn-pipeline paper",
        )
    return Finding("paper", "healthy", says)


def payloads(patient: Patient) -> Finding:
    """Whether the raw answers are there from which the warehouse can be made anew."""
    kept = PayloadStore(patient.settings.payload_dir)
    known = patient.store.read("SELECT coalesce(max(entry), 0) AS entry FROM raw_fetch")["entry"][0]
    named = patient.store.read(
        "SELECT DISTINCT payload_sha256 FROM raw_fetch WHERE payload_sha256 <> ''"
        " ORDER BY payload_sha256 LIMIT ?",
        [_PAYLOADS_LOOKED_FOR],
    )["payload_sha256"]
    gone = [name for name in named if not kept.path(name).exists()]
    if gone:
        return Finding(
            "payloads",
            "broken",
            f"{len(gone)} of {len(named)} raw answers are gone, {gone[0][:12]} among them: put"
            f" {kept.folder} back from a copy",
        )
    written = kept.journal.last_number()
    if written > known:
        return Finding(
            "payloads",
            "stale",
            f"{written - known} batches of the journal are not in the warehouse yet",
            "rnn-pipeline backfill",
        )
    return Finding("payloads", "healthy", f"{written} batches are kept")


def quarantine(patient: Patient) -> Finding:
    """How many rows wait for a decision."""
    waiting = len(
        patient.store.rows("quarantine", "quarantine_id, released_at").query("released_at.isna()")
    )
    if waiting:
        return Finding(
            "quarantine", "stale", f"{waiting} rows broke a rule", "rnn-pipeline quarantine list"
        )
    return Finding("quarantine", "healthy", "no row waits")


def disk(patient: Patient) -> Finding:
    """How much room is left where the data lies."""
    folder = patient.settings.data_dir.expanduser().resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GB
    says = f"{free:.1f} GB are free below {folder}"
    if free < 1:
        return Finding("disk", "broken", f"{says}: make room, or move data_dir")
    return Finding("disk", "stale" if free < 5 else "healthy", says)


def alerting(patient: Patient) -> Finding:
    """Who is told, and whether the last attempt came through."""
    ways = [name for name in hooks_of(patient.settings.alerts) if name != "log"]
    failed = recall(patient.settings.alert_memory)["failed"]
    broken = [f"{name} ({failed[name]['error']})" for name in ways if name in failed]
    if broken:
        return Finding(
            "alerts",
            "broken",
            f"not delivered by {_names(broken)}: mend the settings below alerts, then",
            "rnn-pipeline doctor --alert",
        )
    told = f"by {' and '.join(ways)}" if ways else "in the log alone (settings below alerts)"
    return Finding("alerts", "healthy", f"people are told {told}")


def warehouse(patient: Patient) -> Finding:
    """Whether the file is there, whole, of this program's version, and free."""
    store = patient.store
    if not store.exists():
        return Finding("warehouse", "broken", f"there is none at {store}", "rnn-pipeline demo")
    try:
        store.read("SELECT 1")
    except WarehouseLocked as error:
        return Finding("warehouse", "stale", str(error), "rnn-pipeline doctor")
    except WarehouseVersionError as error:
        return Finding("warehouse", "broken", str(error), "rnn-pipeline upgrade")
    except WarehouseError as error:
        return Finding("warehouse", "broken", str(error), "rnn-pipeline rebuild")
    return Finding("warehouse", "healthy", f"{store.size() / 1e6:,.0f} MB at {store}")


Examination = Callable[[Patient], Finding]

#: What is looked at in the warehouse, in the order in which data flows.
STORED: tuple[Examination, ...] = (
    *(payloads, quarantine, bars, tickers, headlines, features, models),
    *(forecast_drift, evidence, signals, flips, decisions, paper),
)


def examine(patient: Patient) -> list[Finding]:
    """Everything that can be said without Dagster. Never raises for what it finds.

    Where the warehouse cannot be read, what lies in it is left out.
    """
    found = [disk(patient), warehouse(patient)]
    if found[-1].state == "healthy":
        found += [_examined(examination, patient) for examination in STORED]
    return [*found, alerting(patient)]


def _examined(examination: Examination, patient: Patient) -> Finding:
    area = examination.__name__
    try:
        return examination(patient)
    except WarehouseError as error:
        return Finding(area, "broken", str(error), "rnn-pipeline rebuild")
    except Exception as error:
        return Finding(area, "broken", f"could not be examined: {type(error).__name__}: {error}")


def _names(names: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    every: Sequence[str] = [str(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
