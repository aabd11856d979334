"""The asset graph as Dagster sees it, without running it."""

import logging
import os
import subprocess
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.events.log import EventLogEntry
from dagster._core.test_utils import create_run_for_test

from rnn_pipeline.definitions import defs
from rnn_pipeline.defs import automation, partitions
from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.killed_runs import close_killed_runs
from rnn_pipeline.defs.resources import RESOURCES, WarehouseResource
from rnn_pipeline.defs.terminal import terminal
from rnn_pipeline.features.folds import fold_table, walk_forward
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import SettingsError, load_settings
from rnn_pipeline.warehouse import Warehouse

SETTINGS = partitions.SETTINGS
SINCE_2016 = date(2016, 11, 1)
ENDS = ("start", "end")

# The tests define assets of their own; see rnn_pipeline/defs/__init__.py for the reason.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

GRAPH = {
    "raw_ohlcv": set(),
    "raw_news": set(),
    "labelled_headlines": set(),
    "sentiment_model": {"labelled_headlines"},
    "price_features": {"raw_ohlcv"},
    "news_sentiment": {"raw_ohlcv", "raw_news", "sentiment_model"},
    "model_features": {"price_features", "news_sentiment"},
    "sequence_windows": {"model_features"},
    "gradient_flow": set(),
    "lstm_forecaster": {"sequence_windows"},
    "gru_forecaster": {"sequence_windows"},
    "pooled_gru_forecaster": {"sequence_windows"},
    "tuning_trials": {"sequence_windows"},
    "baseline_forecasts": {"sequence_windows"},
    "walk_forward_forecasts": {
        *("lstm_forecaster", "gru_forecaster", "pooled_gru_forecaster"),
        *("baseline_forecasts", "news_sentiment"),
    },
    "price_signals": {"model_features", "walk_forward_forecasts"},
    "sentiment_signals": {"news_sentiment", "price_signals", "walk_forward_forecasts"},
    "trading_signals": {"price_signals", "sentiment_signals"},
    "trading_decisions": {"trading_signals", "price_features"},
    "walk_forward_report": {"walk_forward_forecasts", "trading_decisions", "paper_account"},
    "paper_account": {"trading_decisions", "raw_ohlcv"},
}
PER_TICKER_AND_DATE = {
    *("raw_ohlcv", "raw_news", "price_features", "news_sentiment", "model_features"),
    *("price_signals", "sentiment_signals", "trading_signals", "trading_decisions"),
}


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def test_the_graph_is_the_documented_one(graph):
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == GRAPH


def test_every_asset_is_described_grouped_and_pooled(graph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name != "default", key
        assert node.pools, key


def test_data_and_signals_are_partitioned_by_ticker_and_date(graph):
    by_both = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if isinstance(graph.get(key).partitions_def, dg.MultiPartitionsDefinition)
    }
    assert by_both == PER_TICKER_AND_DATE


def test_every_partitioned_asset_takes_a_range_in_one_run(graph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if node.partitions_def is not None:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


@pytest.mark.parametrize(
    ("step", "first", "second_to_last", "last"),
    [
        ("day", "2000-03-01", "2013-02-28", "2013-03-01"),
        ("week", "2000-02-28", "2013-02-18", "2013-02-25"),
        ("month", "2000-03-01", "2013-02-01", "2013-03-01"),
    ],
)
def test_the_samples_date_axis_ends_with_the_sample(step, first, second_to_last, last):
    settings = load_settings(partition_step=step, start=date(2000, 3, 1))
    keys = partitions.date_partitions(settings).get_partition_keys()
    assert (keys[0], keys[-2], keys[-1]) == (first, second_to_last, last)


def test_todays_partition_exists_for_live_data():
    settings = load_settings(source="yahoo", start=date(2024, 1, 1), partition_step="month")
    keys = partitions.date_partitions(settings).get_partition_keys()
    assert keys[0] == "2024-01-01"
    assert keys[-1] == date.today().replace(day=1).isoformat()


def test_the_ticker_partitions_follow_the_settings(instance):
    instance.add_dynamic_partitions("ticker", ["OLD", "MSFT"])
    assert set(partitions.register_tickers(instance, partitions.SETTINGS)) == {"AAPL", "FB", "MSFT"}


def span(instance, tags):
    """What an asset body makes of a run's tags."""
    seen = []

    @dg.asset(partitions_def=partitions.TICKER_BY_DATE, backfill_policy=partitions.ONE_RUN)
    def probe(context: dg.AssetExecutionContext) -> None:
        seen.append(partitions.span_of(context))

    job = dg.define_asset_job("probe_job", [probe])
    resolved = dg.Definitions(assets=[probe], jobs=[job]).resolve_job_def("probe_job")
    resolved.execute_in_process(instance=instance, tags=tags)
    return seen[0]


def test_a_range_is_a_rectangle_of_tickers_and_days(instance):
    tickers = partitions.register_tickers(instance, partitions.SETTINGS)
    tags = partitions.range_tags(tickers[:2], date(2011, 1, 20), date(2011, 4, 2))
    assert span(instance, tags) == partitions.Span(tickers[:2], date(2011, 1, 1), date(2011, 4, 30))


def test_a_person_finds_a_run_by_its_tickers_and_sessions():
    day, month = date(2013, 2, 28), date(2013, 2, 1)
    one = partitions.range_tags(["FB"], day, day)
    assert (one["tickers"], one["sessions"]) == ("FB", "2013-02-28")
    range_ = partitions.range_tags(["AAPL", "FB", "MSFT"], month, day)
    assert (range_["tickers"], range_["sessions"]) == ("AAPL to MSFT", "2013-02-01 to 2013-02-28")
    assert "sessions" not in partitions.range_tags(["FB"])


def test_the_newest_partition_ends_with_the_data(instance):
    partitions.register_tickers(instance, partitions.SETTINGS)
    tags = partitions.range_tags(["FB"], date(2013, 3, 1), date(2013, 3, 1))
    assert span(instance, tags).last == date(2013, 3, 1)


def test_an_empty_range_fails_instead_of_doing_nothing(instance):
    partitions.register_tickers(instance, partitions.SETTINGS)
    tags = partitions.range_tags(["FB"], date(2012, 1, 1), date(2011, 1, 1))
    with pytest.raises(dg.Failure, match=r"2012-01-01\|FB to 2011-01-01\|FB is empty"):
        span(instance, tags)


@pytest.fixture
def store(tmp_path):
    return Warehouse(tmp_path / "warehouse.duckdb")


def tick(schedule, instance, store, day):
    moment = datetime.fromisoformat(f"{day}T18:00").replace(tzinfo=ZoneInfo("America/New_York"))
    mine = WarehouseResource(path=str(store.path), payload_dir=str(store.path.parent))
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=moment,
        resources=RESOURCES | {"warehouse": mine},
    ) as context:
        return schedule(context)


def train(store, day, behind=0):
    """Store the folds that the settings cut up to a day, the last ones perhaps not yet."""
    axis = SessionCalendar("XNYS").sessions(partitions.first_session(SETTINGS), day)
    folds = walk_forward(len(axis), SETTINGS.folds, SETTINGS.model.horizon)
    spans = fold_table(folds[: len(folds) - behind], axis)
    with store.batch() as batch:
        batch.append("folds", spans)
    return axis[folds[-1].test[0]].date()


def bars_of(days, **values):
    sessions = pd.to_datetime(days)
    known = sessions.tz_localize("UTC") + pd.Timedelta(hours=21)
    return pd.DataFrame({"ticker": "AAPL", "session": sessions, "known_at": known}).assign(**values)


def stored(store, bars, features, decided):
    """The newest session of each is as given; features may have a gap."""
    with store.batch() as batch:
        batch.append("raw_ohlcv", bars_of(bars, revision=0, is_final=True))
        batch.append("model_features", bars_of(features))
        batch.append("trading_decisions", bars_of(decided))


DAYS = ["2013-02-25", "2013-02-26", "2013-02-27", "2013-02-28"]


@pytest.mark.parametrize(
    ("features", "decided", "since"),
    [
        (DAYS, DAYS, 3),
        (DAYS[:1], DAYS[:1], 1),
        (DAYS, DAYS[:2], 2),
        (DAYS[1:], DAYS[1:], 0),
        (DAYS, [], 3),
    ],
    ids=["nothing", "features and decisions", "decisions", "a bar that came late", "no networks"],
)
def test_an_evening_begins_where_an_earlier_run_was_cut_short(
    instance, store, features, decided, since
):
    stored(store, DAYS, features, decided)
    resource = WarehouseResource(path=str(store.path), payload_dir=str(store.path.parent))
    assert automation.evening(instance, resource)[1] == date.fromisoformat(DAYS[since])


def test_sessions_that_are_held_out_are_not_left_undone(instance, store, monkeypatch):
    stored(store, DAYS, DAYS, DAYS[:2])
    folds = SETTINGS.folds.model_copy(update={"holdout_from": date.fromisoformat(DAYS[2])})
    held_out = SETTINGS.model_copy(update={"folds": folds})
    monkeypatch.setattr(automation, "SETTINGS", held_out)
    resource = WarehouseResource(path=str(store.path), payload_dir=str(store.path.parent))
    assert automation.evening(instance, resource)[1] == date.fromisoformat(DAYS[3])


def under_way(instance, pid, began):
    """A run that a process executes, with a slot of the warehouse's pool."""
    run = create_run_for_test(instance, job_name="daily", status=dg.DagsterRunStatus.STARTED)
    event = DagsterEvent(
        DagsterEventType.ENGINE_EVENT.value,
        "daily",
        event_specific_data=EngineEventData.in_process(pid),
    )
    instance.handle_new_event(
        EventLogEntry(None, 10, "", run.run_id, began, job_name="daily", dagster_event=event)
    )
    storage = instance.event_log_storage
    assert storage.claim_concurrency_slot("warehouse", run.run_id, "raw_ohlcv").is_claimed
    return run.run_id


@pytest.mark.parametrize("how", ["gone", "number given again", "alive"])
def test_a_killed_run_is_ended_and_holds_up_no_other(instance, how):
    instance.event_log_storage.set_concurrency_slots("warehouse", 1)
    process = subprocess.Popen(["true"])
    process.wait()
    pid = process.pid if how == "gone" else os.getpid()
    run_id = under_way(instance, pid, 0.0 if how == "number given again" else time.time())
    killed = close_killed_runs(instance)
    claim = instance.event_log_storage.claim_concurrency_slot("warehouse", "next", "raw_ohlcv")
    failed = instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    ended = how != "alive"
    assert (killed, claim.is_claimed, failed) == (["daily"] if ended else [], ended, ended)


def test_a_run_that_tells_no_process_is_left_alone(instance):
    create_run_for_test(instance, job_name="daily", status=dg.DagsterRunStatus.STARTED)
    assert close_killed_runs(instance) == []


@pytest.mark.parametrize("schedule", automation.SCHEDULES, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("2012-12-25", "no session"),
        ("2012-10-29", "no session"),
        ("2013-03-04", "ends on 2013-03-01"),
    ],
)
def test_schedules_rest_when_there_is_nothing_to_do(instance, store, schedule, day, reason):
    assert reason in tick(schedule, instance, store, day).skip_message


def test_the_schedule_runs_all_tickers_of_a_session(instance, store):
    train(store, date(2013, 2, 28))
    request = tick(automation.after_the_close, instance, store, "2013-02-28")
    start, end = (
        request.tags[f"dagster/asset_partition_range_{side}"].split("|")
        for side in ("start", "end")
    )
    tickers = list(instance.get_dynamic_partitions("ticker"))
    assert (start[1], end[1]) == (tickers[0], tickers[-1])
    assert end[0] == "2013-02-01"
    assert request.run_key == "2013-02-28"
    assert (
        "no training" in tick(automation.as_folds_begin, instance, store, "2013-02-28").skip_message
    )


def test_files_that_have_not_come_yet_stop_neither_the_morning_nor_the_evening(
    instance, store, tmp_path, monkeypatch
):
    """Whether bars are missing is what the morning's checks are for."""
    prices = dict.fromkeys(("open", "high", "low", "close", "adj_close", "volume"), 1.0)
    bars = pd.DataFrame([{"ticker": "AAPL", "session": "2013-01-31", **prices}])
    (tmp_path / "drop").mkdir()
    bars.to_csv(tmp_path / "drop" / "bars.csv", index=False)
    os.utime(tmp_path / "drop" / "bars.csv", (0, 0))  # it does not grow any more
    files = SETTINGS.model_copy(update={"source": "files", "drop_dir": tmp_path / "drop"})
    monkeypatch.setattr(automation, "SETTINGS", files)
    train(store, date(2013, 1, 31))
    assert tick(automation.before_the_open, instance, store, "2013-02-01").run_key
    request = tick(automation.after_the_close, instance, store, "2013-02-01")
    assert request.tags["dagster/asset_partition_range_end"].startswith("2013-01-01|")


def test_the_evening_on_which_a_fold_begins_trains_instead(instance, store):
    begins = train(store, date(2013, 2, 28), behind=1)
    before = SessionCalendar("XNYS").sessions(begins - timedelta(days=9), begins)[-2]
    assert (
        "no training"
        in tick(automation.as_folds_begin, instance, store, f"{before:%Y-%m-%d}").skip_message
    )
    for day in (begins.isoformat(), "2013-02-28"):
        assert "has begun" in tick(automation.after_the_close, instance, store, day).skip_message
        request = tick(automation.as_folds_begin, instance, store, day)
        days = request.run_config["ops"]["run_every_stage"]["config"]
        assert days == {"first": "2010-06-01", "last": day, "tickers": []}


@pytest.mark.parametrize(
    ("mode", "day", "due"),
    [
        ("fold", "2013-02-28", True),
        ("weekly", "2013-02-28", False),
        ("weekly", "2013-02-25", True),
        ("weekly", "2013-02-19", True),  # after Presidents' Day
        ("weekly", "2013-02-20", False),
        ("manual", "2013-02-25", False),
    ],
)
def test_the_cadence_of_training_is_a_setting(store, monkeypatch, mode, day, due):
    settings = load_settings(operations={"retrain": mode})
    monkeypatch.setattr(automation, "SETTINGS", settings)
    train(store, date(2013, 2, 28), behind=1)
    calendar = SessionCalendar("XNYS")
    assert automation.training_due(store, calendar, date.fromisoformat(day)) is due


def test_the_vitals_are_checked_in_the_morning(instance, store):
    assert tick(automation.before_the_open, instance, store, "2013-02-28").run_key


def test_vitals_hold_up_no_other_job():
    checks = {key.name for check in automation.VITALS for key in check.check_keys}
    assert len(checks) == len(automation.VITALS)
    for job in ("refresh", "retrain", "decide", "daily", "react"):
        layer = defs.resolve_job_def(job).asset_layer
        assert not checks & {key.name for key in layer.asset_graph.asset_check_keys}, job
    keys = defs.resolve_job_def("vitals").asset_layer.asset_graph.asset_check_keys
    assert {key.name for key in keys} == checks | {"model_features_as_in_training"}


def test_what_should_come_daily_says_so():
    policies = {
        spec.key.to_user_string(): spec.freshness_policy for spec in defs.resolve_all_asset_specs()
    }
    fresh = {name for name, policy in policies.items() if policy is not None}
    assert fresh == {
        *("raw_ohlcv", "raw_news", "price_features", "trading_signals", "trading_decisions")
    }


def sent(monkeypatch):
    """Deliver to a list."""
    told = []
    monkeypatch.setattr(automation, "hooks_of", lambda spec: {"list": told.extend})
    return told


def run(instance, asset, **options):
    """Materialize one asset and return the run and its last event."""
    job = dg.Definitions(assets=[asset], jobs=[dg.define_asset_job("evening_job", [asset])])
    resolved = job.resolve_job_def("evening_job")
    result = resolved.execute_in_process(instance=instance, raise_on_error=False, **options)
    ends = (dg.DagsterEventType.RUN_SUCCESS.value, dg.DagsterEventType.RUN_FAILURE.value)
    events = [event for event in result.all_events if event.event_type_value in ends]
    return result.dagster_run, events[-1]


def test_a_failed_run_is_told_with_its_cause(instance, monkeypatch, tmp_path):
    told = sent(monkeypatch)
    monkeypatch.setattr(automation, "SETTINGS", load_settings(data_dir=tmp_path))

    @dg.asset
    @says_why
    def broken() -> None:
        raise ValueError("the vendor is on holiday")

    for tags in ({}, {"parent": "another run"}):
        failed, event = run(instance, broken, tags=tags)
        context = dg.build_run_status_sensor_context(
            "run_failed", event, instance, failed
        ).for_run_failure()
        automation.run_failed(context)
    (alert,) = told
    assert (alert.key, alert.severity) == ("run evening_job", "error")
    assert alert.text == "broken: the vendor is on holiday"
    (step,) = instance.get_records_for_run(
        failed.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    ).records
    shown = step.event_log_entry.dagster_event.step_failure_data.error
    assert shown.message.splitlines()[0].endswith("Failure: ValueError: the vendor is on holiday")
    assert shown.cause.cls_name == "ValueError"
    assert alert.command == "rnn-pipeline doctor"


def test_checks_that_do_not_hold_are_told(instance, monkeypatch, tmp_path):
    told = sent(monkeypatch)
    monkeypatch.setattr(automation, "SETTINGS", load_settings(data_dir=tmp_path))
    specs = [dg.AssetCheckSpec(name, asset="checked") for name in ("bars_current", "fine", "odd")]

    @dg.asset(check_specs=specs)
    def checked() -> dg.MaterializeResult:
        results = [
            dg.AssetCheckResult(
                check_name="bars_current",
                passed=False,
                description="no bar of today",
                metadata={"alert_key": "bars", "command": "rnn-pipeline backfill"},
            ),
            dg.AssetCheckResult(check_name="fine", passed=True),
            dg.AssetCheckResult(
                check_name="odd", passed=False, severity=dg.AssetCheckSeverity.WARN
            ),
        ]
        return dg.MaterializeResult(check_results=results)

    succeeded, event = run(instance, checked)
    context = dg.build_run_status_sensor_context("checks_failed", event, instance, succeeded)
    automation.checks_failed(context)
    assert [(alert.key, alert.severity, alert.command) for alert in told] == [
        ("bars", "error", "rnn-pipeline backfill"),
        ("odd", "warning", ""),
    ]
    assert told[0].text == "no bar of today"
    automation.checks_failed(context)
    assert len(told) == 2


@pytest.fixture
def raw_asset(instance):
    """Materialize partitions of raw_ohlcv as a job of the given name would."""

    def materialize(job_name, tickers, days, **counts):
        @dg.asset(
            name="raw_ohlcv",
            partitions_def=partitions.TICKER_BY_DATE,
            backfill_policy=partitions.ONE_RUN,
        )
        def raw(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata=counts)

        job = dg.define_asset_job(job_name, [raw])
        resolved = dg.Definitions(assets=[raw], jobs=[job]).resolve_job_def(job_name)
        resolved.execute_in_process(instance=instance, tags=partitions.range_tags(tickers, *days))

    return materialize


def requests(instance, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    asked = list(automation.new_raw_data(context))
    ranges = [
        tuple(run.tags[f"dagster/asset_partition_range_{side}"] for side in ("start", "end"))
        for run in asked
    ]
    return ranges, context.cursor


@pytest.mark.parametrize("left", [None, "17"], ids=["first tick", "cursor of an older version"])
def test_new_rows_wake_their_own_partitions_once(instance, raw_asset, left):
    aapl, fb, msft = partitions.register_tickers(instance, partitions.SETTINGS)
    days = (date(2011, 1, 1), date(2011, 2, 1))
    raw_asset("by_hand", [aapl, fb], days, inserted=3, revised=0)
    raw_asset("by_hand", [msft], (days[1], days[1]), inserted=0, revised=1)
    found, cursor = requests(instance, left)
    assert found == [
        ("2011-01-01|AAPL", "2011-02-01|FB"),
        ("2011-02-01|MSFT", "2011-02-01|MSFT"),
    ]
    assert requests(instance, cursor)[0] == []
    raw_asset("by_hand", [fb], (days[0], days[0]), inserted=1, revised=0)
    assert requests(instance, cursor)[0] == [("2011-01-01|FB", "2011-01-01|FB")]


def test_many_runs_are_looked_at_some_at_a_time_and_each_once(instance, raw_asset, monkeypatch):
    monkeypatch.setattr(automation, "_RUNS_PER_TICK", 2)
    aapl, fb, msft = partitions.register_tickers(instance, partitions.SETTINGS)
    for ticker, month in [(aapl, 1), (aapl, 3), (fb, 1), (msft, 2), (fb, 5)]:
        raw_asset("by_hand", [ticker], (date(2011, month, 1),) * 2, inserted=1, revised=0)
    cursor, found = None, []
    for _ in range(4):
        asked, cursor = requests(instance, cursor)
        found.append(asked)
    assert found == [
        [("2011-01-01|AAPL", "2011-03-01|AAPL")],
        [("2011-01-01|FB", "2011-01-01|FB"), ("2011-02-01|MSFT", "2011-02-01|MSFT")],
        [("2011-05-01|FB", "2011-05-01|FB")],
        [],
    ]


@pytest.mark.parametrize(
    ("job", "counts"),
    [("by_hand", {"inserted": 0, "revised": 0}), ("daily", {"inserted": 5, "revised": 0})],
)
def test_unchanged_data_and_runs_that_go_on_by_themselves_wake_nobody(
    instance, raw_asset, job, counts
):
    tickers = partitions.register_tickers(instance, partitions.SETTINGS)
    raw_asset(job, tickers[:1], (date(2011, 1, 1), date(2011, 1, 1)), **counts)
    assert requests(instance)[0] == []


def test_a_product_that_is_too_large_names_the_step_before_anything_is_registered(instance):
    many = [f"T{number}" for number in range(500)]
    daily = load_settings(source="yahoo", tickers=many, start=SINCE_2016, partition_step="day")
    with pytest.raises(SettingsError, match=r'^500 tickers by .*: set partition_step = "month"$'):
        partitions.register_tickers(instance, daily)
    assert list(instance.get_dynamic_partitions("ticker")) == []
    monthly = daily.model_copy(update={"partition_step": "month"})
    assert partitions.register_tickers(instance, monthly) == many


@pytest.mark.parametrize(
    ("tickers", "step", "advice"),
    [
        (24, "day", None),
        (100, "day", 'partition_step = "week"'),
        (300, "day", 'partition_step = "month"'),
        (300, "week", 'partition_step = "month"'),
        (9_000, "month", "a later start, or divide the tickers"),
    ],
)
def test_the_step_to_choose_is_the_narrowest_that_fits(tickers, step, advice):
    settings = load_settings(
        source="yahoo",
        tickers=[f"T{number}" for number in range(tickers)],
        start=SINCE_2016,
        partition_step=step,
    )
    if advice is None:
        partitions.check_size(settings)
        return
    with pytest.raises(SettingsError) as refusal:
        partitions.check_size(settings)
    assert advice in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    """Write the settings' file anew, as a user does beside a running Dagster."""
    path = tmp_path / "rnn_pipeline.toml"
    monkeypatch.setenv("RNN_PIPELINE_SETTINGS_FILE", str(path))
    return lambda *tickers: path.write_text(f"tickers = {list(tickers)}\n")


def test_new_tickers_in_the_file_are_filled_alone_and_without_a_restart(instance, settings_file):
    old = ["AAPL", "IBM"]
    new = [f"NEW{number}" for number in range(10)]
    settings_file(*old)
    first = automation.universe(dg.build_sensor_context(instance=instance))
    assert isinstance(first, dg.SkipReason)  # the first load of everything is the user's to start
    settings_file(*old, *new)
    request = automation.universe(dg.build_sensor_context(instance=instance))
    config = request.run_config["ops"]["run_every_stage"]["config"]
    assert config["tickers"] == new
    whose = {
        tuple(tags[f"dagster/asset_partition_range_{side}"].split("|")[-1] for side in ENDS)
        for _, tags in automation.Days(**config).stages(instance)
    }
    assert whose == {(new[0], new[-1])}
    again = automation.universe(dg.build_sensor_context(instance=instance))
    assert isinstance(again, dg.SkipReason)


def test_the_evenings_run_leaves_new_tickers_to_the_one_that_fills_them(instance, store):
    instance.add_dynamic_partitions("ticker", ["AAPL"])
    assert automation.evening(instance, WarehouseResource(path=str(store.path), payload_dir=""))[
        0
    ] == ["AAPL"]
    assert partitions.newcomers(instance, SETTINGS) == ["FB", "MSFT"]


def test_bars_of_a_new_ticker_are_no_reason_to_make_the_others_again(instance, store):
    stored(store, DAYS, DAYS, DAYS)
    with store.batch() as batch:
        batch.append("raw_ohlcv", bars_of(DAYS, ticker="FB", revision=0, is_final=True))
    instance.add_dynamic_partitions("ticker", ["AAPL", "FB"])
    resource = WarehouseResource(path=str(store.path), payload_dir="")
    assert automation.evening(instance, resource)[1] == date.fromisoformat(DAYS[0])
    assert automation.evening(instance, resource, ["FB"]) == (
        ["AAPL"],
        date.fromisoformat(DAYS[3]),
    )


def test_a_ticker_that_was_removed_keeps_its_rows_and_its_materializations(
    instance, raw_asset, store, settings_file
):
    settings_file("AAPL", "FB")
    partitions.register_tickers(instance, load_settings())
    days = (date(2011, 1, 1), date(2011, 3, 1))
    raw_asset("by_hand", ["AAPL", "FB"], days, inserted=1, revised=0)
    with store.batch() as batch:
        batch.append("ticker_status", pd.DataFrame({"ticker": ["AAPL", "FB"], "status": "ok"}))
    settings_file("AAPL")
    assert partitions.register_tickers(instance, load_settings()) == ["AAPL"]
    assert store.rows("ticker_status", "ticker")["ticker"].tolist() == ["AAPL", "FB"]
    settings_file("AAPL", "FB")
    partitions.register_tickers(instance, load_settings())
    there = instance.get_materialized_partitions(dg.AssetKey("raw_ohlcv"))
    assert {key for key in there if key.endswith("|FB")} == {
        f"2011-0{month}-01|FB" for month in (1, 2, 3)
    }


@pytest.mark.parametrize(
    ("tickers", "months", "runs"), [(1, 12, 1), (3, 1, 1), (2, 12, 2), (3, 2, 2)]
)
def test_a_backfill_by_hand_is_as_many_runs_as_the_shorter_side(instance, tickers, months, runs):
    """Dagster's rule, on which the documentation leans; range_tags makes one run of any range."""
    known = partitions.register_tickers(instance, SETTINGS)[:tickers]
    keys = [
        dg.MultiPartitionKey({"date": f"2011-{month:02}-01", "ticker": ticker})
        for month in range(1, months + 1)
        for ticker in known
    ]
    subset = partitions.TICKER_BY_DATE.subset_with_partition_keys(keys)
    with partition_loading_context(dynamic_partitions_store=instance):
        assert len(subset.get_partition_key_ranges(partitions.TICKER_BY_DATE)) == runs


def specs():
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_an_assets_page_says_whose_it_is_what_it_holds_and_where_its_code_lies(name):
    spec = specs()[name]
    assert spec.owners
    assert spec.kinds
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith(".py")
    line = Path(reference.file_path).read_text().splitlines()[reference.line_number - 1]
    assert line.strip().startswith("@dg.asset(")
    if name in {"sentiment_model", "gradient_flow", "walk_forward_report"}:  # files, not tables
        return
    columns = spec.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns if not column.description] == []


def test_the_columns_shown_are_those_of_the_table(store):
    for name in set(GRAPH) - {"sentiment_model", "gradient_flow", "walk_forward_report"}:
        table = {"sequence_windows": "window_sets", "walk_forward_forecasts": "forecasts"}
        stored = store.rows(table.get(name, "checkpoints" if "_forecaster" in name else name))
        shown = [column.name for column in specs()[name].metadata["dagster/column_schema"].columns]
        assert shown[: len(stored.columns)] == list(stored.columns)
        assert len(set(shown)) == len(shown)


def test_columns_come_from_columns_that_are_there_and_say_so():
    told = {
        (name, column.name): column.description
        for name, spec in specs().items()
        if "dagster/column_schema" in spec.metadata
        for column in spec.metadata["dagster/column_schema"].columns
    }
    shown = {
        name: {column.name for column in spec.metadata["dagster/column_schema"].columns}
        for name, spec in specs().items()
        if "dagster/column_schema" in spec.metadata
    }
    for name, spec in specs().items():
        lineage = spec.metadata.get("dagster/column_lineage")
        for column, sources in (lineage.deps_by_column if lineage else {}).items():
            assert column in shown[name], (name, column)
            for source in sources:
                origin = source.asset_key.to_user_string()
                assert source.column_name in shown[origin], source
                assert f"{origin}." in told[name, column] or f"{origin} (" in told[name, column]
    assert specs()["trading_signals"].metadata["dagster/column_lineage"]


def test_what_the_launchpad_asks_for_is_described():
    for name in ("demo", "renew", "tune"):
        job = defs.resolve_job_def(name)
        fields = job.run_config_schema.config_type.fields["ops"].config_type.fields
        for op in fields.values():
            config = op.config_type.fields.get("config")
            for key, field in (config.config_type.fields if config else {}).items():
                assert field.description, (name, key)
                assert not field.is_required, (name, key)


def test_schedules_follow_the_settings_and_know_that_some_exchanges_trade_on_sundays():
    assert automation.after_the_close.cron_schedule == "0 18 * * *"
    assert automation.as_folds_begin.cron_schedule == "0 18 * * *"
    assert automation.before_the_open.cron_schedule == "0 7 * * *"
    assert {schedule.execution_timezone for schedule in automation.SCHEDULES} == {
        "America/New_York"
    }


def test_a_terminal_shows_what_the_library_says_outside_of_a_runs_log(monkeypatch, capsys):
    library = logging.getLogger("rnn_pipeline.networks")
    monkeypatch.setattr(library, "handlers", [])
    for _ in range(2):  # a command runs several jobs
        terminal.logger_fn(dg.build_init_logger_context())
    logging.getLogger("rnn_pipeline.networks.kernels.cpu").info("compiling about %s s", 20)
    assert capsys.readouterr().err == "    compiling about 20 s\n"
