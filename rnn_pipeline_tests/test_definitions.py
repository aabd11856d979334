"""The asset graph as Dagster sees it, without running it."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from rnn_pipeline.definitions import defs
from rnn_pipeline.defs import automation, partitions
from rnn_pipeline.defs.resources import RESOURCES, WarehouseResource
from rnn_pipeline.features.folds import fold_table, walk_forward
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse

SETTINGS = partitions.SETTINGS

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
    "walk_forward_report": {"walk_forward_forecasts", "trading_decisions"},
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
        assert days == {"first": "2010-06-01", "last": day}


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


def requests(instance, cursor="0"):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    asked = list(automation.new_raw_data(context))
    ranges = [
        tuple(run.tags[f"dagster/asset_partition_range_{side}"] for side in ("start", "end"))
        for run in asked
    ]
    return ranges, context.cursor


def test_new_rows_wake_their_own_partitions_once(instance, raw_asset):
    aapl, fb, msft = partitions.register_tickers(instance, partitions.SETTINGS)
    days = (date(2011, 1, 1), date(2011, 2, 1))
    raw_asset("by_hand", [aapl, fb], days, inserted=3, revised=0)
    raw_asset("by_hand", [msft], (days[1], days[1]), inserted=0, revised=1)
    found, cursor = requests(instance)
    assert found == [
        ("2011-01-01|AAPL", "2011-02-01|FB"),
        ("2011-02-01|MSFT", "2011-02-01|MSFT"),
    ]
    assert requests(instance, cursor)[0] == []


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
