"""Jobs, the daily schedule, and the sensors that wake the graph on new data."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from pydantic import Field

from rnn_pipeline.alerts import Alert, deliver, hooks_of
from rnn_pipeline.defs.evidence import no_look_ahead
from rnn_pipeline.defs.features import model_features_as_in_training
from rnn_pipeline.defs.health import ALERT_KEY, VITALS
from rnn_pipeline.defs.killed_runs import close_killed_runs
from rnn_pipeline.defs.partitions import (
    SETTINGS,
    corners_of,
    first_session,
    last_day,
    newcomers,
    range_tags,
    register_tickers,
    registered_tickers,
)
from rnn_pipeline.defs.pending import ONLY_NEW
from rnn_pipeline.defs.resources import MarketResource, WarehouseResource
from rnn_pipeline.features.folds import open_sessions, walk_forward
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.files import FileSource
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse, inputs

_SOURCES = ["raw_ohlcv", "raw_news"]
_FEATURES = ["price_features", "news_sentiment", "model_features"]
_SIGNALS = ["price_signals", "sentiment_signals", "trading_signals", "trading_decisions"]
_REPORT = ["walk_forward_report", "paper_account"]
_FORECASTERS = [f"{model}_forecaster" for model in SETTINGS.model.slots]

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

_TIMEZONE = SessionCalendar(SETTINGS.exchange).timezone

#: Tag of a run that another run started.
_PARENT = "parent"

#: Jobs that bring raw rows and go on to features themselves.
_GOING_ON = ("daily", "refresh")

_ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)

#: Runs that one tick of the sensor looks at: about a second of one core.
_RUNS_PER_TICK = 200
_LOOK_BACK_S = 60.0


def _of(*assets: str) -> dg.AssetSelection:
    """Assets with their own checks, those that look at all that is stored left out."""
    slow = (no_look_ahead, model_features_as_in_training)
    return dg.AssetSelection.assets(*assets) - dg.AssetSelection.checks(*VITALS, *slow)


refresh = dg.define_asset_job(
    "refresh",
    selection=_of("labelled_headlines", "sentiment_model", *_SOURCES, *_FEATURES),
    description="From the sources to features, with the sentiment model; nothing is forecast.",
)
retrain = dg.define_asset_job(
    "retrain",
    # The look-ahead test trains for itself, so it has a job of its own.
    selection=_of(
        *("gradient_flow", "sequence_windows", "baseline_forecasts"),
        *(*_FORECASTERS, "walk_forward_forecasts"),
    ),
    description=(
        "Train what is not trained yet on every fold, and grade it; after refresh. The schedule"
        " as_folds_begin does it when it is due."
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
    selection=_of(*_SIGNALS, *_REPORT),
    description=(
        "Signals and decisions from saved networks and stored features, the report and the paper"
        " account."
    ),
)
daily = dg.define_asset_job(
    "daily",
    selection=_of(*_SOURCES, *_FEATURES, *_SIGNALS, *_REPORT),
    tags=ONLY_NEW,
    description=(
        "From new bars and headlines to decisions, with the networks saved by retrain; what stands"
        " is left alone."
    ),
)
react = dg.define_asset_job(
    "react",
    selection=_of(*_FEATURES, *_SIGNALS),
    tags=ONLY_NEW,
    description="Features to decisions, for the tickers and sessions whose raw data has changed.",
)

vitals = dg.define_asset_job(
    "vitals",
    selection=dg.AssetSelection.checks(*VITALS, model_features_as_in_training),
    description="Whether everything is there and as it was: what pages before the open.",
)
take_in = dg.define_asset_job(
    "take_in",
    selection=_of(*_SOURCES),
    description="Bars and headlines alone; new ones then wake features and signals.",
)


def stages(
    instance: dg.DagsterInstance,
    first: date | None = None,
    last: date | None = None,
    tickers: Sequence[str] | None = None,
) -> list[tuple[str, dict[str, str]]]:
    """The jobs that together materialize the whole graph, in order, with their run tags.

    Args:
        instance: Dagster's.
        first: first session; None: of all.
        last: last session; None: that data can exist for.
        tickers: None: all that have a partition, and from the first session on, those of the
            settings that have none yet, too.
    """
    if tickers is None:
        everything = first is None
        tickers = (register_tickers if everything else registered_tickers)(instance, SETTINGS)
    days = (first or first_session(SETTINGS), last or last_day(SETTINGS))
    rectangles = list(blocks(instance, dict.fromkeys(tickers, days)))
    return [
        (job, range_tags(group, *(() if job == "retrain" else days)))
        for job in ("refresh", "retrain", "decide")
        for group, *_ in rectangles
    ]


class Days(dg.Config):
    """Which sessions, and whose."""

    first: str = Field(
        default="", description="first session, as 2024-01-31; empty: the settings' first"
    )
    last: str = Field(default="", description="last session; empty: that data can exist for")
    tickers: list[str] = Field(default=[], description="empty: all that have a partition")

    def stages(self, instance: dg.DagsterInstance) -> list[tuple[str, dict[str, str]]]:
        """The jobs of the whole graph for these days."""
        first, last = (date.fromisoformat(day) if day else None for day in (self.first, self.last))
        return stages(instance, first, last, self.tickers or None)


@dg.op
def run_every_stage(context: dg.OpExecutionContext, config: Days) -> None:
    """Run refresh, retrain and decide one after the other, each as a run of its own."""
    for name, tags in config.stages(context.instance):
        context.log.info(f"stage {name}")
        job = context.repository_def.get_job(name)
        job.execute_in_process(instance=context.instance, tags={**tags, _PARENT: context.run_id})


@dg.job(description="The whole graph on all tickers and dates: refresh, retrain, decide.")
def demo() -> None:
    """Run the stages; a job of assets with different partitions cannot be one run."""
    run_every_stage()


@dg.job(
    description=(
        "The whole graph on some sessions or tickers: on an evening on which a fold begins, and for"
        " tickers that are new to the settings."
    )
)
def renew() -> None:
    """Run the stages on what has come since the last run, or on who is new."""
    run_every_stage()


JOBS: list[Any] = [
    *(demo, refresh, retrain, tune, audit, decide, daily, renew, react, take_in, vitals)
]


def training_due(store: Warehouse, calendar: SessionCalendar, today: date) -> bool:
    """Whether a fold has begun by ``today`` that no network was trained for, as the settings ask.

    Stored sessions do not matter: the evening's own bars are not there yet.
    """
    mode = SETTINGS.operations.retrain
    this_week = calendar.sessions(today - timedelta(days=today.weekday()), today)
    if mode == "manual" or (mode == "weekly" and len(this_week) != 1):
        return False
    axis = calendar.sessions(first_session(SETTINGS), today)
    begun = walk_forward(
        open_sessions(axis, SETTINGS.folds), SETTINGS.folds, SETTINGS.model.base_horizon
    )
    trained = store.rows("folds", "fold")["fold"].max()
    return bool(begun) and not begun[-1].number <= trained


def evening(
    instance: dg.DagsterInstance, warehouse: WarehouseResource, lacking: Collection[str] = ()
) -> tuple[list[str], date]:
    """The universe, and the session from which on the evening's run catches up.

    Usually the newest stored one. Where an earlier run was cut short, the first that it left
    undone: its bars are there, so that the newest bar alone would not tell.

    Args:
        instance: Dagster's.
        warehouse: where bars and decisions are.
        lacking: tickers that another run fills: that they have nothing yet was not left undone.
    """
    everyone = registered_tickers(instance, SETTINGS)
    tickers = [ticker for ticker in everyone if ticker not in lacking]
    begins = first_session(SETTINGS)
    left = inputs.first_unfinished(warehouse.store, tickers, begins, SETTINGS.folds.holdout_from)
    newest = warehouse.store.last_session() or begins
    return tickers, min(newest, left or newest)


def _no_session(today: date, calendar: SessionCalendar) -> str:
    """Why nothing is to be run today; empty on a session day."""
    if not calendar.is_session(today):
        return f"{today} is no session of {SETTINGS.exchange}"
    if SETTINGS.source == "sample" and today > last_day(SETTINGS):
        return f"the embedded sample ends on {last_day(SETTINGS)}"
    return ""


@dataclass(frozen=True)
class _Tick:
    """A schedule's tick on a session day."""

    instance: dg.DagsterInstance
    warehouse: WarehouseResource
    calendar: SessionCalendar
    today: date

    @property
    def newest(self) -> date:
        """The last day that there can be data of: files may end earlier, or come late."""
        return min(self.today, last_day(SETTINGS))


def _on_session_days(
    job: Any, moment: time
) -> Callable[[Callable[[_Tick], dg.RunRequest | dg.SkipReason]], dg.ScheduleDefinition]:
    """A schedule of the exchange's clock that rests where there is no session."""

    def made_of(asked: Callable[[_Tick], dg.RunRequest | dg.SkipReason]) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=asked.__name__,
            description=asked.__doc__,
            job=job,
            # Every day: there are exchanges that trade on Sundays.
            cron_schedule=f"{moment.minute} {moment.hour} * * *",
            execution_timezone=_TIMEZONE,
            default_status=_LIVE,
        )
        def schedule(
            context: dg.ScheduleEvaluationContext,
            warehouse: WarehouseResource,
            market: MarketResource,
        ) -> dg.RunRequest | dg.SkipReason:
            today = context.scheduled_execution_time.date()
            if reason := _no_session(today, market.calendar):
                return dg.SkipReason(reason)
            close_killed_runs(context.instance)
            return asked(_Tick(context.instance, warehouse, market.calendar, today))

        return schedule

    return made_of


@_on_session_days(daily, SETTINGS.operations.evening)
def after_the_close(tick: _Tick) -> dg.RunRequest | dg.SkipReason:
    """The evening of a session day: the session, and days that were missed."""
    if training_due(tick.warehouse.store, tick.calendar, tick.today):
        return dg.SkipReason("a fold has begun: as_folds_begin runs the day, with training")
    tickers, since = evening(tick.instance, tick.warehouse)
    return dg.RunRequest(
        run_key=tick.today.isoformat(), tags=range_tags(tickers, since, tick.newest)
    )


@_on_session_days(renew, SETTINGS.operations.evening)
def as_folds_begin(tick: _Tick) -> dg.RunRequest | dg.SkipReason:
    """In place of the daily run where training is due (setting ``operations.retrain``)."""
    if not training_due(tick.warehouse.store, tick.calendar, tick.today):
        return dg.SkipReason("no training is due")
    _, since = evening(tick.instance, tick.warehouse)
    days = Days(first=since.isoformat(), last=tick.newest.isoformat())
    return dg.RunRequest(
        run_key=f"renew {tick.today}", run_config=dg.RunConfig(ops={"run_every_stage": days})
    )


@_on_session_days(vitals, SETTINGS.operations.morning)
def before_the_open(tick: _Tick) -> dg.RunRequest:
    """The checks that page, in the morning of session days."""
    return dg.RunRequest(run_key=f"vitals {tick.today}")


SCHEDULES = [after_the_close, as_folds_begin, before_the_open]


@dg.run_failure_sensor(default_status=_WATCHING)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    """Tell a person that a run failed, and why. What a run started, it answers for itself."""
    run = context.dagster_run
    if _PARENT in run.tags:
        return
    _tell(
        Alert(
            f"run {run.job_name}",
            "error",
            f"the run of {run.job_name} failed",
            first_cause(context.get_step_failure_events()) or context.failure_event.message or "",
            "rnn-pipeline doctor",
        )
    )


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, default_status=_WATCHING)
def checks_failed(context: dg.RunStatusSensorContext) -> None:
    """Tell a person which checks of a run did not pass."""
    records = context.instance.get_records_for_run(
        context.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    _tell(*(_alert(check) for check in found if not check.passed))


def _alert(check: AssetCheckEvaluation) -> Alert:
    key, command = (check.metadata.get(name) for name in (ALERT_KEY, "command"))
    return Alert(
        str(key.value) if key else check.check_name,
        "error" if check.severity is dg.AssetCheckSeverity.ERROR else "warning",
        f"{check.check_name} of {check.asset_key.to_user_string()} does not hold",
        check.description or "",
        str(command.value) if command else "",
    )


def _tell(*alerts: Alert) -> None:
    deliver(alerts, hooks_of(SETTINGS.alerts), SETTINGS.alert_memory, datetime.now(UTC))


def first_cause(failures: Iterable[dg.DagsterEvent]) -> str:
    """The innermost error of the first step that failed, without Dagster's wrapping; or ""."""
    for event in failures:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is None:
            return f"{event.step_key}: failed"
        # "package.module.Class: what happened" is for the log; here what happened will do.
        return f"{event.step_key}: {error.message.strip().split(f'{error.cls_name}: ', 1)[-1]}"
    return ""


@dg.sensor(job=renew, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def universe(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Keep the tickers as the settings have them, fill new ones, and end runs that were killed."""
    close_killed_runs(context.instance)
    settings = load_settings()
    new = newcomers(context.instance, settings)
    tickers = register_tickers(context.instance, settings)
    if not new:
        return dg.SkipReason(f"{len(tickers)} tickers: {', '.join(tickers[:10])}")
    return dg.RunRequest(
        run_key=f"{date.today()}: {', '.join(new)}",
        run_config=dg.RunConfig(ops={"run_every_stage": Days(tickers=new)}),
    )


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
    """A file that is new in the drop folder, by its content, is taken in once.

    Tickers that are new to the universe get their partitions from the sensor ``universe``, whose
    run takes their files in and gives them all of their history: had they partitions already, it
    would not know them for new.
    """
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
    found = source.survey([files[key] for key in new])
    settings = load_settings()
    context.update_cursor(" ".join(sorted(files)))
    if found.tickers and set(found.tickers) <= set(newcomers(context.instance, settings)):
        return dg.SkipReason(f"left to the sensor universe, as new: {', '.join(found.tickers)}")
    order = registered_tickers(context.instance, settings)
    places = [order.index(ticker) for ticker in found.tickers if ticker in order]
    tickers = order[min(places, default=0) : max(places, default=len(order) - 1) + 1]
    first, last = found.first or first_session(SETTINGS), found.last or last_day(SETTINGS)
    return dg.RunRequest(run_key=" ".join(new), tags=range_tags(tickers, first, last))


@dg.sensor(job=react, minimum_interval_seconds=60, default_status=_WATCHING)
def new_raw_data(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """Raw rows that came in on their own make features and signals of just their partitions.

    Runs of the jobs that go on to signals themselves, and runs that changed nothing, wake nobody.
    Whole runs are looked at, not their materializations, of which one run has tens of thousands.
    """
    left = json.loads(context.cursor or "{}")
    # Versions before this one left the number of an event.
    seen: dict[str, float] = left if isinstance(left, dict) else {}
    # A run may come to be listed a little after one that ended later, so some are looked at again.
    after = max(seen.values(), default=_LOOK_BACK_S) - _LOOK_BACK_S
    seen = {run_id: ended for run_id, ended in seen.items() if ended > after}
    ended = context.instance.get_run_records(
        dg.RunsFilter(statuses=_ENDED, updated_after=datetime.fromtimestamp(after, UTC)),
        limit=_RUNS_PER_TICK + len(seen),
        order_by="update_timestamp",
        ascending=True,
    )
    order = list(context.instance.get_dynamic_partitions("ticker"))
    touched: dict[str, tuple[date, date]] = {}
    for record in ended:
        run = record.dagster_run
        if run.run_id in seen:
            continue
        seen[run.run_id] = record.update_timestamp.timestamp()
        corners = corners_of(run.tags)
        if corners is None or run.job_name in _GOING_ON:
            continue
        (begin, begins), (end, ends) = corners
        if not _brought_rows(context, record, f"{begins}|{begin}"):
            continue
        # A ticker that was taken out of the settings since has no place in the order.
        if {begin, end} <= set(order):
            for ticker in order[order.index(begin) : order.index(end) + 1]:
                first, last = touched.get(ticker, (begins, ends))
                touched[ticker] = min(first, begins), max(last, ends)
    newest = max(seen, key=seen.__getitem__, default="")
    for tickers, first, last in blocks(context.instance, touched):
        yield dg.RunRequest(run_key=f"{newest}:{tickers[0]}", tags=range_tags(tickers, first, last))
    context.update_cursor(json.dumps(seen))


def _brought_rows(
    context: dg.SensorEvaluationContext, record: dg.RunRecord, partition: str
) -> bool:
    """Whether a run brought raw rows, by one of its partitions: each carries the run's counts."""
    for name in _SOURCES:
        materialized = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(name),
                asset_partitions=[partition],
                after_timestamp=record.start_time,
            ),
            limit=_RUNS_PER_TICK,
        )
        for each in materialized.records:
            if each.run_id == record.dagster_run.run_id and each.asset_materialization is not None:
                told = each.asset_materialization.metadata
                if any(told[count].value for count in ("inserted", "revised") if count in told):
                    return True
    return False


def blocks(
    instance: dg.DagsterInstance, touched: Mapping[str, tuple[date, date]]
) -> Iterator[tuple[list[str], date, date]]:
    """Neighbouring tickers with the same first and last day: one run covers a rectangle."""
    order = list(instance.get_dynamic_partitions("ticker"))
    spans = [touched.get(ticker) for ticker in order]
    for span, group in groupby(zip(order, spans, strict=True), key=lambda pair: pair[1]):
        if span is not None:
            yield [ticker for ticker, _ in group], *span
