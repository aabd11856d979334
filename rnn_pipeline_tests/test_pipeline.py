"""The whole graph, run through Dagster on three tickers of the sample."""

import html
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from datetime import date

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from rnn_pipeline import chain, cli
from rnn_pipeline.cli.errors import RunFailed
from rnn_pipeline.definitions import defs
from rnn_pipeline.defs import automation
from rnn_pipeline.defs.automation import first_cause, stages
from rnn_pipeline.defs.evidence import figures_plausible
from rnn_pipeline.defs.features import SENTIMENT_MODEL, price_features, sequence_windows
from rnn_pipeline.defs.models import serving_files
from rnn_pipeline.defs.networks import checkpoint_path
from rnn_pipeline.defs.partitions import range_tags
from rnn_pipeline.defs.reporting import REPORT
from rnn_pipeline.defs.resources import WarehouseResource
from rnn_pipeline.defs.trading import price_signals, trading_signals
from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.evidence.lookahead import Knowledge, first_difference
from rnn_pipeline.features import catalogue
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.networks.walk_forward import Forecaster
from rnn_pipeline.replay import replay
from rnn_pipeline.settings import load_settings
from rnn_pipeline.trading import decisions
from rnn_pipeline.warehouse import Warehouse

SETTINGS = load_settings()
DERIVED = (
    *("price_features", "targets", "news_sentiment", "model_features", "baseline_forecasts"),
    *("forecasts", "forecast_quantiles", "evidence", "price_signals", "sentiment_signals"),
    *("signal_contributions", "trading_signals", "trading_decisions", "trading_account"),
)
SIGNALS = ("price_signals", "sentiment_signals", "trading_signals", "trading_decisions")
TRADED = ["AAPL", "MSFT"]
#: Assets that no stage of the demo makes.
BY_HAND = {"tuning_trials"}


@pytest.fixture(scope="module")
def store(demo):
    return Warehouse(SETTINGS.warehouse_path)


@pytest.fixture
def instance(demo):
    with cli.prepare(SETTINGS) as instance:
        yield instance


def derived_tables(store):
    """All that is made from raw rows, without who made it."""
    made_by = {"run_id", "version", "trained_until"}
    return {
        name: rows.drop(columns=made_by & set(rows.columns))
        for name in DERIVED
        for rows in (store.rows(name),)
    }


def test_the_demo_ends_with_todays_decisions_and_a_report(demo):
    assert demo.exit_code == 0, demo.output
    lines = demo.stdout.splitlines()
    for ticker in TRADED:
        (row,) = [line for line in lines if line.split()[:2] == [ticker, "2013-03-01"]]
        assert {"BUY", "HOLD", "SELL"} & set(row.split())
    assert any(line.startswith("FB: no signal, too little history") for line in lines)
    assert f"Report: {REPORT}" in lines
    page = REPORT.read_text()
    assert "synthetic" in page
    assert "<script" not in page


def test_progress_and_nothing_else_goes_to_the_error_stream(demo):
    assert "walk_forward_report done in" in demo.stderr
    assert "WARNING" not in demo.stderr
    assert "Error" not in demo.stderr


def of_the_demo():
    keys = defs.resolve_asset_graph().get_all_asset_keys()
    return [key for key in keys if key.to_user_string() not in BY_HAND]


def test_every_partition_of_every_asset_is_materialized(instance):
    for asset in of_the_demo():
        partitions_def = defs.resolve_asset_graph().get(asset).partitions_def
        if partitions_def is None:
            assert instance.get_latest_materialization_event(asset) is not None
        else:
            wanted = partitions_def.get_partition_keys(dynamic_partitions_store=instance)
            assert set(instance.get_materialized_partitions(asset)) == set(wanted), asset


def test_every_asset_shows_counts_and_most_show_a_picture(instance):
    pictured = set()
    for asset in of_the_demo():
        metadata = instance.get_latest_materialization_event(asset).asset_materialization.metadata
        assert any(isinstance(value.value, int | float) for value in metadata.values()), asset
        if any("data:image/png" in str(value.value) for value in metadata.values()):
            pictured.add(asset.to_user_string())
    assert pictured >= {
        *("raw_ohlcv", "raw_news", "price_features", "news_sentiment", "sequence_windows"),
        *("lstm_forecaster", "gru_forecaster", "pooled_gru_forecaster", "sentiment_model"),
        "walk_forward_forecasts",
        *("trading_signals", "walk_forward_report", "gradient_flow"),
    }


def test_dagster_is_told_the_verdict_that_heads_the_report(instance):
    event = instance.get_latest_materialization_event(dg.AssetKey("walk_forward_report"))
    told = event.asset_materialization.metadata["verdict"].value
    assert f"<h1>{html.escape(told)}</h1>" in " ".join(REPORT.read_text().split("\n"))


def test_a_suites_verdict_has_numbers_to_draw_a_history_of(instance):
    (check,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("raw_ohlcv"), "raw_ohlcv_holds"), limit=1
    )
    found = check.event.dagster_event.asset_check_evaluation_data.metadata
    assert found["rows_judged"].value > 1500
    assert found["rows_bad"].value == 0


def test_rows_are_one_per_ticker_and_session(store):
    bars = store.rows("raw_ohlcv")
    assert len(bars) == len(bars.drop_duplicates(["ticker", "session"])) > 1500
    for name in ("price_features", "news_sentiment", "model_features"):
        rows = store.rows(name)
        assert_frame_equal(
            rows[["ticker", "session"]], bars[["ticker", "session"]], check_dtype=False
        )


def test_forecasts_are_of_test_sessions_only(store):
    spans = store.rows("folds").set_index(["fold", "role"])
    forecasts = store.rows("forecasts")
    assert set(forecasts["ticker"]) == set(TRADED)
    for fold, rows in forecasts.groupby("fold"):
        test = spans.loc[(fold, "test")]
        assert rows["session"].between(test["first_session"], test["last_session"]).all()
        assert spans.loc[(fold, "val"), "last_session"] < rows["session"].min()


def test_a_ticker_with_too_little_history_gets_a_status_and_no_signal(store):
    sets = store.rows("window_sets").set_index("ticker")
    assert sets.loc["FB", "status"].startswith("too little history")
    assert (sets.loc[TRADED, "status"] == "ok").all()
    for name in ("forecasts", "price_signals", "trading_signals", "trading_decisions"):
        assert "FB" not in set(store.rows(name)["ticker"])


def test_baselines_stand_beside_the_networks_and_are_never_traded(store):
    every = store.rows("all_forecasts")
    by_kind = dict(iter(every.groupby("kind")))
    assert set(by_kind["baseline"]["model"]) == set(BASELINES)
    assert set(by_kind["network"]["model"]) == set(SETTINGS.model.networks)
    tested = [
        rows[["ticker", "session"]].drop_duplicates(ignore_index=True) for rows in by_kind.values()
    ]
    assert_frame_equal(*tested)
    traded = set(",".join(store.rows("price_signals")["model_hash"]).split(","))
    assert traded == set(by_kind["network"]["model_hash"])


def test_contributions_add_up_and_no_evidence_means_no_position(store):
    signals = store.rows("trading_signals")
    added = signals["price_contribution"] + signals["sentiment_contribution"]
    assert np.allclose(added, signals["signal"])
    decisions = store.rows("trading_decisions")
    assert (decisions.loc[decisions["grade"] == "none", "position"] == 0).all()
    gross = decisions.groupby("session")["position"].apply(lambda p: p.abs().sum())
    assert (gross <= SETTINGS.trading.max_gross + 1e-12).all()


def test_what_was_tried_is_in_the_ledger_and_counts(store):
    trials = store.rows("trials")
    models = ("gru", "lstm", "pooled_gru", "sentiment")
    tried = {(ticker, model) for ticker in TRADED for model in models}
    assert set(zip(trials["ticker"], trials["model"], strict=True)) == tried
    assert len(trials) == len(tried)
    assert trials["network_hash"].nunique() == len(models)
    assert set(store.rows("evidence")["trials"]) == {len(models)}


@pytest.mark.parametrize("leak", [False, True])
def test_figures_too_good_to_be_true_are_a_warning(tmp_path, leak):
    sessions = pd.bdate_range("2010-01-04", periods=400)
    outcome, noise = np.random.default_rng(0).normal(0, 0.01, (2, len(sessions)))
    rows = pd.DataFrame({"ticker": "AAPL", "session": sessions, "horizon": 1})
    resource = WarehouseResource(path=str(tmp_path / "a.duckdb"), payload_dir=str(tmp_path))
    with resource.store.batch() as batch:
        batch.append("targets", rows.assign(target=outcome))
        batch.append(
            "forecasts",
            rows.assign(
                fold=0,
                model="lstm",
                seed=0,
                forecast=outcome + noise if leak else noise,
                known_at=sessions.tz_localize("UTC"),
            ),
        )
    verdict = figures_plausible(warehouse=resource)
    assert verdict.passed is not leak
    assert verdict.severity == dg.AssetCheckSeverity.WARN
    assert ("rnn-pipeline lookahead" in verdict.description) is leak
    assert ("lstm of AAPL: information coefficient" in verdict.description) is leak


def test_the_chain_as_a_function_makes_what_the_assets_make(store):
    """The look-ahead test runs ``rnn_pipeline.chain``: it must be the graph, bit for bit."""
    knowledge = Knowledge(
        store.rows("raw_ohlcv"), store.rows("raw_news"), store.rows("labelled_headlines")
    )
    made = chain.run(knowledge, SETTINGS)
    for name in DERIVED:
        stored = store.rows(name)
        shared = [column for column in made[name].columns if column in stored.columns]
        made_by = {"run_id", "model_hash", "version", "trained_until"}
        assert set(stored.columns) - set(shared) <= made_by, name
        assert len(stored) > 0, name
        difference = first_difference(
            {name: stored[shared]}, {name: made[name][shared]}, "chain", pd.Timestamp(0)
        )
        assert difference is None, difference


def test_lookahead_audits_the_stored_data(demo):
    arguments = ["lookahead", "--cuts", "1", "--tickers", "AAPL,MSFT"]
    outcome = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.splitlines()[-1] == "the past stands still"
    (line,) = [line.split() for line in outcome.stdout.splitlines() if "trading_decisions" in line]
    assert line[1] == "4"
    assert int(line[2]) > 100
    assert line[3] == "0"


def test_running_again_changes_nothing_and_trains_nothing(store, instance):
    before = derived_tables(store)
    kept = ("raw_ohlcv", "raw_news", "quarantine", "trials")
    raw = {name: len(store.rows(name)) for name in kept}
    for name, tags in stages(instance):
        cli.run_job(instance, name, tags)
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)
    assert {name: len(store.rows(name)) for name in raw} == raw
    for model in SETTINGS.model.networks:
        event = instance.get_latest_materialization_event(dg.AssetKey(f"{model}_forecaster"))
        assert event.asset_materialization.metadata["networks_trained"].value == 0
    event = instance.get_latest_materialization_event(dg.AssetKey("baseline_forecasts"))
    assert event.asset_materialization.metadata["folds_fitted"].value == 0


def test_one_ticker_and_one_date_by_hand_give_the_same_rows(store, instance):
    """Month by month and ticker by ticker, or all at once: the same bits."""
    before = derived_tables(store)
    february = pd.Timestamp("2013-02-01").date()
    names = ("price_features", "news_sentiment", "model_features", "trading_decisions")
    with store.batch() as batch:
        for name in names:
            batch.replace(name, pd.DataFrame(), ticker="MSFT", session=("2013-02-01", "2013-02-28"))
    assert len(store.rows("price_features")) < len(before["price_features"])
    cli.run_job(instance, "react", range_tags(["MSFT"], february, february))
    for name in names:
        after = store.rows(name).drop(columns="run_id")
        assert_frame_equal(after, before[name], check_exact=True, obj=name)


def decided_anew(store, instance, job="decide"):
    """Forget every forecast after 12 February 2013, and decide on February and March again."""
    tested = pd.Timestamp("2013-02-12")
    versions = store.rows("models")
    with store.batch() as batch:
        for name in ("forecasts", "forecast_quantiles"):
            rows = store.rows(name)
            batch.replace(name, rows[rows["session"] <= tested], ticker=TRADED)
        batch.replace("models", versions.assign(tested_until=tested), ticker=TRADED)
    assert store.rows("forecasts")["session"].max() == tested
    february, march = date(2013, 2, 1), date(2013, 3, 1)
    tickers = list(instance.get_dynamic_partitions("ticker"))
    cli.run_job(instance, job, range_tags(tickers, february, march))


def test_new_sessions_are_forecast_as_the_walk_forward_forecast_them(store, instance, monkeypatch):
    """The morning's way, saved networks on the newest rows, gives the bits of the long way.

    It stops before sessions that are held out.
    """
    before = derived_tables(store)
    held_out = SETTINGS.folds.model_copy(update={"holdout_from": date(2013, 2, 20)})
    with monkeypatch.context() as patch:
        settings = SETTINGS.model_copy(update={"folds": held_out})
        patch.setattr("rnn_pipeline.defs.models.SETTINGS", settings)
        decided_anew(store, instance)
    # The 18th was a holiday.
    for name in ("forecasts", "forecast_quantiles", "price_signals"):
        assert store.rows(name)["session"].max() == pd.Timestamp("2013-02-19"), name
    decided_anew(store, instance)
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)


def test_networks_that_are_too_old_say_so_weigh_nothing_and_the_doctor_names_the_remedy(
    store, instance, monkeypatch
):
    """The networks spoke until 12 February with strong evidence; from the 13th on they are old."""
    before = derived_tables(store)
    evidence = store.rows("evidence")
    believed = evidence.assign(grade=evidence["grade"].mask(evidence["model"] == "lstm", "strong"))
    with store.batch() as batch:
        batch.replace("evidence", believed, ticker=TRADED)
    operations = SETTINGS.operations.model_copy(update={"model_expiry": 3})
    settings = SETTINGS.model_copy(update={"operations": operations})
    with monkeypatch.context() as patch:
        patch.setattr("rnn_pipeline.defs.trading.SETTINGS", settings)
        decided_anew(store, instance, "react")
        patch.setenv("RNN_PIPELINE_OPERATIONS__MODEL_EXPIRY", "3")
        page = CliRunner().invoke(cli.main, ["doctor", "--json"], catch_exceptions=False)
    newest = pd.Timestamp("2013-03-01")
    added = store.rows("signal_contributions", ticker="AAPL", session=(date(2013, 2, 1), newest))
    told = dict(iter(added.groupby("session")))
    young, old = (
        told[pd.Timestamp(day)].set_index("source") for day in ("2013-02-12", "2013-02-13")
    )
    assert young.loc["lstm", "weight"] > 0
    assert "lstm" not in old.index
    for source in ("lstm (expired)", "gru (expired)"):
        assert old.loc[source, ["grade", "weight", "contribution"]].tolist() == ["none", 0, 0]
    (reason,) = store.rows("price_signals", "reason", ticker="AAPL", session=newest)["reason"]
    assert "lstm (expired) none" in reason
    (decided,) = store.rows("trading_decisions", ticker="AAPL", session=newest).itertuples()
    assert (decided.grade, decided.position, decided.limited_by) == ("none", 0, "evidence")
    assert page.exit_code == 1
    (finding,) = [one for one in json.loads(page.stdout) if one["area"] == "models"]
    assert (finding["state"], finding["command"]) == ("broken", "rnn-pipeline retrain")
    assert finding["says"].endswith("sessions ago: expired")

    with store.batch() as batch:
        batch.replace("evidence", evidence, ticker=TRADED)
    decided_anew(store, instance, "react")
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)


def page():
    """The findings of the doctor, by area."""
    shown = CliRunner().invoke(cli.main, ["doctor", "--json"], catch_exceptions=False)
    return {one["area"]: one for one in json.loads(shown.stdout)}


KILLED = """
import os, signal
from rnn_pipeline.features import model
model.model_features = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from rnn_pipeline.cli import main
main(["backfill"])
"""


def test_a_daily_run_that_is_killed_goes_on_to_the_same_rows(store, instance, monkeypatch):
    """kill -9 in the middle of features, stopped in the middle of decisions, then left alone."""
    before = derived_tables(store)
    march = pd.Timestamp("2013-03-01").date()
    with store.batch() as batch:
        for name in ("price_features", "news_sentiment", "model_features", *SIGNALS):
            batch.replace(name, pd.DataFrame(), session=(march, march))
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert page()["runs"]["says"].startswith("the run of daily was killed in the middle")
    tags = range_tags(list(instance.get_dynamic_partitions("ticker")), march, march)

    def stopped(*_):
        raise KeyboardInterrupt("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(decisions, "decide", stopped)
        with pytest.raises(RunFailed, match="stopped"):
            cli.run_job(instance, "daily", tags)
    assert store.rows("trading_decisions", session=(march, march)).empty
    result = CliRunner().invoke(cli.main, ["backfill"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert page()["runs"]["state"] == "healthy"
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)


def test_training_that_was_stopped_on_the_way_is_still_due(store, instance, monkeypatch):
    """Networks are there and forecasts are not: the next evening trains, and does not go on."""
    newest = store.rows("folds")["fold"].max()
    with store.batch() as batch:
        batch.replace("folds", pd.DataFrame(), fold=int(newest))

    def due():
        return automation.training_due(store, SessionCalendar("XNYS"), date(2013, 3, 1))

    def stopped(*_):
        raise KeyboardInterrupt("stopped")

    tags = range_tags(list(instance.get_dynamic_partitions("ticker")))
    with monkeypatch.context() as patch:
        patch.setattr("rnn_pipeline.networks.walk_forward.walk_forward_forecasts", stopped)
        with pytest.raises(RunFailed, match="stopped"):
            cli.run_job(instance, "retrain", tags)
    assert due()
    cli.run_job(instance, "retrain", tags)
    assert not due()


def test_catching_up_again_changes_nothing_and_all_is_healthy(store, instance):
    kept = ("raw_ohlcv", "raw_news", "paper_orders", "paper_account", "paper_fills")
    before = derived_tables(store) | {name: len(store.rows(name)) for name in kept}
    result = CliRunner().invoke(cli.main, ["backfill"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "daily"
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)
    for name in kept:
        assert len(store.rows(name)) == before[name], name
    orders = store.rows("paper_orders")
    assert orders["ticker"].tolist() == TRADED
    assert set(orders["session"]) == {pd.Timestamp("2013-03-01")}
    found = page()
    assert [one for one in found.values() if one["state"] != "healthy"] == []
    assert {"bars", "models", "evidence", "decisions", "paper", "runs"} <= found.keys()
    shown = CliRunner().invoke(cli.main, ["paper", "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout)["account"][-1]["equity"] == 1.0


def made_by_a_daily_run(store, instance):
    """Run the daily job on the newest month: by asset, the sessions that it has made."""
    march = date(2013, 3, 1)
    tickers = list(instance.get_dynamic_partitions("ticker"))
    cli.run_job(instance, "daily", range_tags(tickers, date(2013, 2, 1), march))
    run = instance.get_runs(limit=1)[0].run_id
    made = store.read("SELECT asset, session FROM made_from WHERE run_id = ?", [run])
    return {str(asset): set(own["session"]) for asset, own in made.groupby("asset")}


def test_a_daily_run_leaves_alone_what_stands_and_draws_nothing(store, instance):
    made_by_a_daily_run(store, instance)
    report = REPORT.stat().st_mtime_ns
    before = {name: store.rows(name) for name in DERIVED}
    assert made_by_a_daily_run(store, instance) == {}
    for name, frame in before.items():
        assert_frame_equal(store.rows(name), frame, check_exact=True, obj=name)
    assert REPORT.stat().st_mtime_ns == report
    for asset in ("raw_ohlcv", "price_features", "trading_signals", "walk_forward_report"):
        metadata = instance.get_latest_materialization_event(
            dg.AssetKey(asset)
        ).asset_materialization.metadata
        assert metadata["rows"].value == 0, asset
        assert not any("data:image/png" in str(value.value) for value in metadata.values()), asset


def test_rows_that_broke_a_rule_are_judged_again(store, instance, monkeypatch):
    """A blocking check that failed does not pass the next evening for want of anything new."""
    made_by_a_daily_run(store, instance)
    day = pd.Timestamp("2013-03-01")
    bounds = catalogue.BOUNDS | {"rsi_14": (-2.0, -1.0)}
    with monkeypatch.context() as patch:
        patch.setattr("rnn_pipeline.features.catalogue.BOUNDS", bounds)
        with store.batch() as batch:
            batch.replace("price_features", pd.DataFrame(), session=day)
        for _ in range(2):
            with pytest.raises(RunFailed):
                made_by_a_daily_run(store, instance)
    assert made_by_a_daily_run(store, instance) == {"price_features": {day}}


def test_a_daily_run_makes_what_rests_on_a_change_and_no_more(store, instance):
    """A session that is gone, then other evidence: made from there on, to the bits of the batch."""
    made_by_a_daily_run(store, instance)
    before = derived_tables(store)
    day = pd.Timestamp("2013-02-27")
    with store.batch() as batch:
        batch.replace("price_features", pd.DataFrame(), session=day)
    assert made_by_a_daily_run(store, instance) == {
        "price_features": {day, pd.Timestamp("2013-02-28"), pd.Timestamp("2013-03-01")}
    }
    evidence = store.rows("evidence")
    with store.batch() as batch:
        batch.replace("evidence", evidence.assign(grade="strong"), ticker=TRADED)
    made = made_by_a_daily_run(store, instance)
    assert set(made) == {*SIGNALS, "paper_account", "walk_forward_report"}
    assert not store.rows("trading_signals").equals(before["trading_signals"])
    with store.batch() as batch:
        batch.replace("evidence", evidence, ticker=TRADED)
    made_by_a_daily_run(store, instance)
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ticker", "ibm"], "IBM not in the universe"),
        (["--first", "2013-02-02", "--last", "2013-02-01"], "is later than --last 2013-02-01"),
    ],
)
def test_a_range_that_cannot_be_filled_is_one_clear_line(demo, options, message):
    result = CliRunner().invoke(cli.main, ["backfill", *options])
    assert result.exit_code == 1
    assert message in result.stderr


def test_vitals_are_signs_of_life(store, instance):
    cli.run_job(instance, "vitals", {})
    for check in automation.VITALS:
        (key,) = check.check_keys
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event.asset_check_evaluation.passed, key


def test_a_partition_without_a_session_is_empty_and_no_failure(store, instance):
    """By hand, for a ticker before its first day."""
    before = derived_tables(store)
    january = date(2011, 1, 3)
    cli.run_job(instance, "daily", range_tags(["FB"], january, january))
    for name, frame in derived_tables(store).items():
        assert_frame_equal(frame, before[name], check_exact=True, obj=name)


@pytest.mark.parametrize(
    ("asset", "there", "missing"),
    [
        (price_features, (), "raw_ohlcv"),
        (trading_signals, (), "raw_ohlcv"),
        (trading_signals, ("raw_ohlcv",), "price_features"),
        (trading_signals, ("raw_ohlcv", "price_features"), "news_sentiment"),
        (sequence_windows, ("raw_ohlcv", "price_features", "news_sentiment"), "model_features"),
        (
            price_signals,
            ("raw_ohlcv", "price_features", "news_sentiment", "model_features"),
            "sequence_windows",
        ),
    ],
)
def test_by_hand_from_an_empty_warehouse_the_first_line_names_what_is_missing(
    tmp_path, store, asset, there, missing
):
    empty = Warehouse(tmp_path / "empty.duckdb")
    for table in there:
        with empty.batch() as batch:
            batch.append(table, store.rows(table, ticker=["AAPL"]).head(1))
    resources = dict(defs.resources)
    resources["warehouse"] = WarehouseResource(path=str(empty.path), payload_dir=str(tmp_path))
    key = "AAPL" if asset is sequence_windows else "2013-03-01|AAPL"
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("ticker", ["AAPL"])
        result = dg.materialize(
            [asset],
            instance=instance,
            partition_key=key,
            resources=resources,
            raise_on_error=False,
        )
    said = first_cause(event for event in result.all_events if event.is_step_failure)
    (name,) = asset.keys
    assert said.startswith(
        f"{name.path[0]}: {name.path[0]} needs {missing}, which has nothing on AAPL: run the job"
    )


def test_a_damaged_warehouse_is_one_clear_line(tmp_path):
    settings = load_settings(data_dir=tmp_path)
    settings.home.mkdir(parents=True)
    settings.warehouse_path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Exception, match="move it away and run again") as caught:
        Warehouse(settings.warehouse_path).rows("raw_ohlcv")
    assert str(settings.warehouse_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_counts_its_trials_and_prints_settings(store, instance):
    early = CliRunner().invoke(cli.main, ["tune", "--ticker", "AAPL"])
    assert early.exit_code == 1
    assert "fold 0 cannot be searched in (AAPL: too little history" in early.stderr
    arguments = ["tune", "--ticker", "aapl", "--fold", "1", "--trials"]
    begun = CliRunner().invoke(cli.main, [*arguments, "1"], catch_exceptions=False)
    assert begun.exit_code == 0, begun.output
    done = CliRunner().invoke(cli.main, [*arguments, "3"], catch_exceptions=False)
    assert "trial 2 of 3" in done.stderr
    assert "trial 1 of 3" not in done.stderr, "a search goes on where it was"
    trials = store.rows("tuning_trials", ticker="AAPL")
    assert trials["trial"].tolist() == [0, 1, 2]
    assert set(trials["state"]) <= {"complete", "pruned"}
    starts = store.rows("folds", "first_session", fold=1, role="val")["first_session"]
    assert (trials["known_at"].dt.tz_localize(None) < starts.iloc[0]).all()
    assert tomllib.loads(done.stdout)["model"]["networks"].keys() == {"tuned"}
    metadata = instance.get_latest_materialization_event(
        dg.AssetKey("tuning_trials")
    ).asset_materialization.metadata
    assert metadata["trials"].value == 3
    assert done.stdout.strip() in metadata["settings"].value
    assert "data:image/png" in metadata["history"].value


@pytest.fixture
def copy(store, tmp_path):
    """A warehouse that a test may tamper with."""
    path = tmp_path / "warehouse.duckdb"
    shutil.copy(store.path, path)
    return Warehouse(path)


def again(store, checkpoint=None):
    path = checkpoint or (lambda model: checkpoint_path(model, "AAPL"))
    return replay(
        store, SETTINGS, "AAPL", date(2013, 2, 20), path, SENTIMENT_MODEL, serving_files()
    )


def test_a_replayed_signal_is_the_same(demo):
    arguments = ["replay", "--ticker", "AAPL", "--session", "2013-02-20"]
    outcome = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.splitlines()[-1] == "same"
    assert "230 of price_features" in outcome.stdout


def test_a_later_revision_leaves_the_replay_and_is_named(copy):
    bar = copy.rows("raw_ohlcv", ticker="AAPL", session=date(2013, 2, 15))
    later = pd.Timestamp("2013-03-05", tz="UTC")
    with copy.batch() as batch:
        revised = bar.assign(revision=1, known_at=later, close=bar["close"] * 1.1)
        batch.append("raw_ohlcv", revised.assign(reason="correction"))
    found = again(copy)
    assert found.same
    (row,) = found.revisions.itertuples()
    assert (row.session, row.reason) == (pd.Timestamp("2013-02-15"), "correction")


def test_a_replay_names_changed_data_code_and_networks(copy, tmp_path):
    with copy.batch() as batch:
        rows = batch.read("SELECT * FROM price_features WHERE ticker = 'AAPL'")
        moved = rows.assign(rsi_14=rows["rsi_14"] + 1)
        batch.upsert("price_features", moved)
    found = again(copy)
    assert set(found.differences["column"]) == {"rsi_14"}
    assert found.causes[0].startswith("data: the bars known then")
    with copy.batch() as batch:
        batch.upsert("price_features", moved.assign(feature_set_hash="old"))
    assert again(copy).causes[0].startswith("code: price features were made by old")

    # As the walk-forward's: what a version forecast is replayed from its own file.
    with copy.batch() as batch:
        forecasts = batch.read("SELECT * FROM forecasts WHERE ticker = 'AAPL'")
        batch.upsert("forecasts", forecasts.assign(version=None))
    other = Forecaster.load(checkpoint_path("gru", "AAPL"))
    for member in other.members.values():
        next(iter(member.state.values())).add_(0.1)
    other.save(tmp_path / "gru.safetensors", {})
    paths = {model: checkpoint_path(model, "AAPL") for model in SETTINGS.model.networks}
    paths["gru"] = tmp_path / "gru.safetensors"
    found = again(copy, paths.get)
    assert any(cause.startswith("model: gru, fold") for cause in found.causes)
    told = found.differences[found.differences["stage"] == "forecasts"]
    assert set(told["column"]) == {"forecast", "model_hash"}
    assert told["row"].str.contains("gru").all()


def test_a_signal_that_was_never_made_is_one_clear_line(demo):
    arguments = ["replay", "--ticker", "AAPL", "--session", "2013-02-18"]
    outcome = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert outcome.exit_code == 1
    assert "no signal of AAPL on 2013-02-18 is stored" in outcome.stderr
