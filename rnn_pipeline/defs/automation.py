"""Jobs, the daily schedule, and the sensors that wake the graph on new data."""

from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from itertools import groupby
from typing import Any

import dagster as dg

from rnn_pipeline.defs.evidence import no_look_ahead
from rnn_pipeline.defs.partitions import (
    SETTINGS,
    TICKER_BY_DATE,
    first_session,
    last_day,
    range_tags,
    register_tickers,
)
from rnn_pipeline.defs.resources import MarketResource, WarehouseResource
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.files import FileSource

_SOURCES = ["raw_ohlcv", "raw_news"]
_FEATURES = ["price_features", "news_sentiment", "model_features"]
_SIGNALS = ["price_signals", "sentiment_signals", "trading_signals", "trading_decisions"]
_REPORT = ["walk_forward_report", "paper_account"]
_FORECASTERS = [f"{model}_forecaster" for model in SETTINGS.model.networks]

#: The sample never changes, so nothing needs to watch it.
_LIVE = (
    dg.DefaultScheduleStatus.STOPPED
    if SETTINGS.source == "sample"
    else dg.DefaultScheduleStatus.RUNNING
)
_WATCHING = (
    dg.DefaultSensorStatus.STOPPED
    if SETTINGS.source == "sample"
    else dg.DefaultSensorStatus.RUNNING
)

#: Materializations that one tick of the sensor looks at.
_EVENTS_PER_TICK = 10_000

refresh = dg.define_asset_job(
    "refresh",
    selection=["labelled_headlines", "sentiment_model", *_SOURCES, *_FEATURES],
    description="From the sources to features, with the sentiment model; nothing is forecast.",
)
retrain = dg.define_asset_job(
    "retrain",
    # The look-ahead test trains for itself, so it has a job of its own.
    selection=dg.AssetSelection.assets(
        *("gradient_flow", "sequence_windows", "baseline_forecasts"),
        *(*_FORECASTERS, "walk_forward_forecasts"),
    )
    - dg.AssetSelection.checks(no_look_ahead),
    description=(
        "Train what is not trained yet on every fold, and grade it. Run it weekly, after refresh."
    ),
)
tune = dg.define_asset_job(
    "tune",
    selection=["tuning_trials"],
    description="Search for better settings, after retrain; put what it finds into the settings.",
)
audit = dg.define_asset_job(
    "audit",
    selection=dg.AssetSelection.checks(no_look_ahead),
    description="Prove on the stored data that no row uses what was known after it.",
)
decide = dg.define_asset_job(
    "decide",
    selection=[*_SIGNALS, *_REPORT],
    description=(
        "Signals and decisions from saved networks and stored features, the report and the paper"
        " account."
    ),
)
daily = dg.define_asset_job(
    "daily",
    selection=[*_SOURCES, *_FEATURES, *_SIGNALS, *_REPORT],
    description="From new bars and headlines to decisions, with the networks saved by retrain.",
)
react = dg.define_asset_job(
    "react",
    selection=[*_FEATURES, *_SIGNALS],
    description="Features to decisions, for the tickers and sessions whose raw data has changed.",
)

take_in = dg.define_asset_job(
    "take_in",
    selection=_SOURCES,
    description="Bars and headlines alone; new ones then wake features and signals.",
)


def stages(
    instance: dg.DagsterInstance, first: date | None = None, last: date | None = None
) -> list[tuple[str, dict[str, str]]]:
    """The jobs that together materialize the whole graph, in order, with their run tags."""
    tickers = register_tickers(instance, SETTINGS)
    days = (first or first_session(SETTINGS), last or last_day(SETTINGS))
    return [
        ("refresh", range_tags(tickers, *days)),
        ("retrain", range_tags(tickers)),
        ("decide", range_tags(tickers, *days)),
    ]


@dg.op
def run_every_stage(context: dg.OpExecutionContext) -> None:
    """Run refresh, retrain and decide one after the other, each as a run of its own."""
    for name, tags in stages(context.instance):
        context.log.info(f"stage {name}")
        job = context.repository_def.get_job(name)
        job.execute_in_process(instance=context.instance, tags={**tags, "parent": context.run_id})


@dg.job(description="The whole graph on all tickers and dates: refresh, retrain, decide.")
def demo() -> None:
    """Run the stages; a job of assets with different partitions cannot be one run."""
    run_every_stage()


JOBS: list[Any] = [demo, refresh, retrain, tune, audit, decide, daily, react, take_in]


@dg.schedule(
    job=daily,
    cron_schedule="0 18 * * 1-5",
    execution_timezone=SessionCalendar(SETTINGS.exchange).timezone,
    default_status=_LIVE,
)
def after_the_close(
    context: dg.ScheduleEvaluationContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.RunRequest | dg.SkipReason:
    """Two hours after the usual close, on session days; catches up on days that were missed."""
    today = context.scheduled_execution_time.date()
    if not market.calendar.is_session(today):
        return dg.SkipReason(f"{today} is no session of {SETTINGS.exchange}")
    if today > last_day(SETTINGS):
        return dg.SkipReason(f"source {SETTINGS.source} ends on {last_day(SETTINGS)}")
    tickers = register_tickers(context.instance, SETTINGS)
    since = warehouse.store.last_session() or first_session(SETTINGS)
    return dg.RunRequest(run_key=today.isoformat(), tags=range_tags(tickers, since, today))


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def universe(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Keep the ticker partitions as the settings have them."""
    tickers = register_tickers(context.instance, SETTINGS)
    return dg.SkipReason(f"{len(tickers)} tickers: {', '.join(tickers[:10])}")


@dg.sensor(
    job=take_in,
    minimum_interval_seconds=30,
    default_status=(
        dg.DefaultSensorStatus.RUNNING
        if SETTINGS.source == "files"
        else dg.DefaultSensorStatus.STOPPED
    ),
)
def drop_folder(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A file that is new in the drop folder, by its content, is taken in once."""
    if SETTINGS.drop_dir is None:
        return dg.SkipReason("there is no drop folder: set source = files and drop_dir")
    source = FileSource(SETTINGS.drop_dir)
    files = {
        sha256(path.read_bytes()).hexdigest()[:16]: path
        for table in _SOURCES
        for path in source.waiting(table)
    }
    new = sorted(files.keys() - set((context.cursor or "").split()))
    if not new:
        return dg.SkipReason(f"nothing new in {SETTINGS.drop_dir}")
    register_tickers(context.instance, SETTINGS)
    found = source.survey([files[key] for key in new])
    order = list(context.instance.get_dynamic_partitions("ticker"))
    places = [order.index(ticker) for ticker in found.tickers if ticker in order]
    tickers = order[min(places, default=0) : max(places, default=len(order) - 1) + 1]
    context.update_cursor(" ".join(sorted(files)))
    first, last = found.first or first_session(SETTINGS), found.last or last_day(SETTINGS)
    return dg.RunRequest(run_key=" ".join(new), tags=range_tags(tickers, first, last))


@dg.sensor(job=react, minimum_interval_seconds=60, default_status=_WATCHING)
def new_raw_data(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """Raw rows that came in on their own make features and signals of just their partitions.

    Runs of the jobs that go on to signals themselves, and runs that changed nothing, wake nobody.
    """
    cursor = int(context.cursor or 0)
    touched: dict[str, set[str]] = {}
    newest = cursor
    for name in _SOURCES:
        records = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), after_storage_id=cursor),
            limit=_EVENTS_PER_TICK,
            ascending=True,
        ).records
        for record in records:
            newest = max(newest, record.storage_id)
            if record.partition_key is None or not _changed(context.instance, record):
                continue
            key = TICKER_BY_DATE.get_partition_key_from_str(record.partition_key)
            dates = touched.setdefault(key.keys_by_dimension["ticker"], set())
            dates.add(key.keys_by_dimension["date"])
    for tickers, first, last in _blocks(context.instance, touched):
        yield dg.RunRequest(run_key=f"{newest}:{tickers[0]}", tags=range_tags(tickers, first, last))
    context.update_cursor(str(newest))


def _changed(instance: dg.DagsterInstance, record: dg.EventLogRecord) -> bool:
    """Whether a materialization brought rows, in a run that goes no further than raw data."""
    materialization = record.asset_materialization
    run = instance.get_run_by_id(record.run_id)
    if materialization is None or run is None or run.job_name in {"daily", "refresh"}:
        return False
    counts = (materialization.metadata.get(name) for name in ("inserted", "revised"))
    return any(count is not None and count.value for count in counts)


def _blocks(
    instance: dg.DagsterInstance, touched: dict[str, set[str]]
) -> Iterator[tuple[list[str], date, date]]:
    """Neighbouring tickers with the same dates, since one run covers a rectangle of partitions."""
    order = list(instance.get_dynamic_partitions("ticker"))
    spans = [
        (min(touched[ticker]), max(touched[ticker])) if ticker in touched else None
        for ticker in order
    ]
    for span, group in groupby(zip(order, spans, strict=True), key=lambda pair: pair[1]):
        if span is not None:
            first, last = map(date.fromisoformat, span)
            yield [ticker for ticker, _ in group], first, last
