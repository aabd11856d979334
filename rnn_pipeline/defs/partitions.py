"""Partitions per ticker and date, and the range of rows that a run's partitions stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from rnn_pipeline.market import sample
from rnn_pipeline.market.files import FileSource, Survey
from rnn_pipeline.settings import Settings, SettingsError, load_settings

SETTINGS = load_settings()

_CRON = {"day": "0 0 * * 1-5", "week": "0 0 * * 1", "month": "0 0 1 * *"}
_DATE = "%Y-%m-%d"

#: Dagster's cost is per key, and its documentation asks for no more of them on one asset.
MOST_KEYS = 100_000

#: Years of history asked for when neither the settings nor the source say where to begin.
_DEFAULT_YEARS = 5


def first_session(settings: Settings) -> date:
    """Where the date axis begins. It must not move from day to day, or partitions would vanish."""
    if settings.start is not None:
        return settings.start
    if settings.source == "sample":
        return sample.FIRST_SESSION
    if first := _survey(settings).first:
        return first
    return date(date.today().year - _DEFAULT_YEARS, 1, 1)


def last_day(settings: Settings) -> date:
    """The last day that data can exist for: today, or where the sample or the files end."""
    if settings.source == "sample":
        return sample.LAST_SESSION
    return min(_survey(settings).last or date.max, date.today())


def universe(settings: Settings) -> tuple[str, ...]:
    """The tickers that the settings ask for, or all that the sample or the files have."""
    return settings.tickers or _survey(settings).tickers or sample.TICKERS


def _survey(settings: Settings) -> Survey:
    """What the drop folder's bars are about, where there is one."""
    if settings.source != "files" or settings.drop_dir is None:
        return Survey()
    return FileSource(settings.drop_dir).survey()


def date_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """The date axis: one key per day (weekdays), week or month, named by its first day."""
    first = first_session(settings)
    if settings.partition_step == "month":
        first = first.replace(day=1)
    elif settings.partition_step == "week":
        first -= timedelta(days=first.weekday())
    # A fixed end keeps the UI from showing years of missing partitions after the sample; without
    # one, the current window exists from its first day on, since today's bar belongs to it.
    end = window_end(last_day(settings), settings) if settings.source == "sample" else None
    return dg.TimeWindowPartitionsDefinition(
        start=datetime.combine(first, time()),
        end=datetime.combine(end, time()) if end else None,
        fmt=_DATE,
        cron_schedule=_CRON[settings.partition_step],
        end_offset=0 if end else 1,
    )


def window_end(day: date, settings: Settings) -> date:
    """The first day of the date partition after the one that ``day`` lies in."""
    if settings.partition_step == "month":
        return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    monday = day + timedelta(days=7 - day.weekday())
    weekday = settings.partition_step == "day" and day.weekday() < 4
    return day + timedelta(days=1) if weekday else monday


DATES = date_partitions(SETTINGS)
TICKERS = dg.DynamicPartitionsDefinition(name="ticker")
TICKER_BY_DATE = dg.MultiPartitionsDefinition({"date": DATES, "ticker": TICKERS})

#: From an asset per ticker and date to one per ticker, and back.
BY_TICKER = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="ticker")

#: One run covers a range of partitions.
ONE_RUN = dg.BackfillPolicy.single_run()


@dataclass(frozen=True)
class Span:
    """The rows that a run's partitions stand for: every ticker, every day from first to last."""

    tickers: list[str]
    first: date
    last: date


def span_of(context: dg.AssetExecutionContext) -> Span:
    """The span of a run over :data:`TICKER_BY_DATE`, for one key or a range.

    Raises:
        dagster.Failure: the range is empty, which Dagster itself would call a success.
    """
    keys = [
        TICKER_BY_DATE.get_partition_key_from_str(key).keys_by_dimension for key in _keys(context)
    ]
    starts = [date.fromisoformat(key["date"]) for key in keys]
    last = window_end(max(starts), SETTINGS) - timedelta(days=1)
    return Span(
        tickers=list(dict.fromkeys(key["ticker"] for key in keys)),
        first=min(starts),
        last=min(last, last_day(SETTINGS)),
    )


def tickers_of(context: dg.AssetExecutionContext) -> list[str]:
    """The tickers of a run over :data:`TICKERS`."""
    return list(_keys(context))


def every_ticker(context: dg.AssetExecutionContext) -> list[str]:
    """All tickers that have a partition, whichever a run is about."""
    return list(context.instance.get_dynamic_partitions(str(TICKERS.name)))


def _keys(context: dg.AssetExecutionContext) -> Sequence[str]:
    keys = context.partition_keys
    if not keys:
        tags = context.run.tags
        raise dg.Failure(
            f"the partition range {tags.get(ASSET_PARTITION_RANGE_START_TAG)} to"
            f" {tags.get(ASSET_PARTITION_RANGE_END_TAG)} is empty: give the earlier date and the"
            " ticker that was added first as its start"
        )
    return keys


def range_tags(
    tickers: Sequence[str], first: date | None = None, last: date | None = None
) -> dict[str, str]:
    """Run tags for all partitions of tickers that follow each other, over a range of days.

    Without days the range is one over tickers alone. Beside what Dagster reads stands what a person
    looks for in the list of runs: ``tickers`` and ``sessions``.
    """
    start, end = tickers[0], tickers[-1]
    told = {"tickers": _from_to(start, end)}
    if first is not None and last is not None:
        keys = DATES.get_partition_keys()
        begin = max((key for key in keys if key <= first.isoformat()), default=keys[0])
        finish = max((key for key in keys if key <= last.isoformat()), default=keys[0])
        start, end = f"{begin}|{start}", f"{finish}|{end}"
        told["sessions"] = _from_to(f"{first}", f"{last}")
    return told | {ASSET_PARTITION_RANGE_START_TAG: start, ASSET_PARTITION_RANGE_END_TAG: end}


def corners_of(tags: Mapping[str, str]) -> tuple[tuple[str, date], tuple[str, date]] | None:
    """Ticker and date key of the first and the last partition of a run over :data:`TICKER_BY_DATE`.

    None for any other run.
    """
    one = tags.get(PARTITION_NAME_TAG)
    start = tags.get(ASSET_PARTITION_RANGE_START_TAG, one)
    end = tags.get(ASSET_PARTITION_RANGE_END_TAG, one)
    if start is None or end is None or "|" not in start:
        return None

    def corner(key: str) -> tuple[str, date]:
        parts = TICKER_BY_DATE.get_partition_key_from_str(key).keys_by_dimension
        return parts["ticker"], date.fromisoformat(parts["date"])

    return corner(start), corner(end)


def _from_to(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def check_size(settings: Settings) -> None:
    """Refuse a universe and a date axis whose product is more than Dagster can show.

    Raises:
        SettingsError: one line with the step to choose.
    """
    tickers = len(universe(settings))
    days = date_partitions(settings).get_num_partitions()
    if tickers * days <= MOST_KEYS:
        return
    wider = ("week", "month") if settings.partition_step == "day" else ("month",)
    for step in wider:
        other = settings.model_copy(update={"partition_step": step})
        if tickers * date_partitions(other).get_num_partitions() <= MOST_KEYS:
            advice = f'set partition_step = "{step}"'
            break
    else:
        advice = 'set partition_step = "month" and a later start, or divide the tickers'
    raise SettingsError(
        f"{tickers:,} tickers by {days:,} dates are {tickers * days:,} partitions, more than the"
        f" {MOST_KEYS:,} that Dagster works well with: {advice}"
    )


def newcomers(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    """Tickers of the settings that have no partition yet, where others have: they lack history."""
    there = instance.get_dynamic_partitions("ticker")
    return [ticker for ticker in universe(settings) if there and ticker not in there]


def registered_tickers(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    """The tickers that have a partition; where none has, those of the settings get one."""
    return list(instance.get_dynamic_partitions("ticker")) or register_tickers(instance, settings)


def register_tickers(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    """Make the ticker partitions those of the settings and return them in their order there.

    A ticker that was taken out of the settings loses its partition, not its rows, and Dagster
    remembers what was materialized should it come back.

    Raises:
        SettingsError: see :func:`check_size`; nothing has changed then.
    """
    check_size(settings)
    wanted = universe(settings)
    for ticker in instance.get_dynamic_partitions("ticker"):
        if ticker not in wanted:
            instance.delete_dynamic_partition("ticker", ticker)
    instance.add_dynamic_partitions("ticker", list(wanted))
    return list(instance.get_dynamic_partitions("ticker"))
