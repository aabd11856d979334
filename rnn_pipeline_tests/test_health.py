"""What the doctor says of warehouses that were made ill on purpose."""

import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from rnn_pipeline import health
from rnn_pipeline.cli import main
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import PayloadStore, Warehouse

DAYS = pd.bdate_range("2024-02-26", "2024-03-15")
TODAY = DAYS[-1]
NOON = datetime(2024, 3, 16, 12, tzinfo=UTC)


def keys(days=DAYS, tickers=("AAA", "BBB")):
    index = pd.MultiIndex.from_product([tickers, days], names=["ticker", "session"])
    return index.to_frame(index=False)


def bars(days=DAYS, tickers=("AAA", "BBB")):
    rows = keys(days, tickers)
    known_at = rows["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    return rows.assign(revision=0, known_at=known_at, is_final=True, close=1.0)


def fill(store, **tables):
    with store.batch() as batch:
        for name, rows in tables.items():
            batch.append(name, rows)


@pytest.fixture
def patient(tmp_path):
    settings = load_settings(data_dir=tmp_path, tickers=("AAA", "BBB"), folds={"test_size": 20})
    store = Warehouse(settings.warehouse_path, 0.1)
    return health.Patient(settings, store, ("AAA", "BBB"), TODAY.date(), NOON)


def test_bars_of_the_newest_closed_session_are_asked_for(patient):
    assert health.bars(patient) == health.Finding(
        "bars", "broken", "no bar is stored", "rnn-pipeline demo"
    )
    del patient.__dict__["newest_bars"]
    fill(patient.store, raw_ohlcv=bars())
    assert health.bars(patient).says == "2 tickers have their bar of 2024-03-15"


@pytest.mark.parametrize(
    ("hour", "expected"), [(15, "2024-03-14"), (23, "2024-03-14"), (24 + 1, "2024-03-15")]
)
def test_a_bar_is_due_some_hours_after_its_close(patient, hour, expected):
    moment = datetime(2024, 3, 15, tzinfo=UTC) + pd.Timedelta(hours=hour)
    late = health.Patient(patient.settings, patient.store, ("AAA",), date(2030, 1, 1), moment)
    assert f"{late.expected:%Y-%m-%d}" == expected


def test_late_bars_are_counted_in_sessions(patient):
    fill(patient.store, raw_ohlcv=pd.concat([bars(tickers=["AAA"]), bars(DAYS[:-3], ["BBB"])]))
    found = health.bars(patient)
    assert (found.state, found.command) == ("stale", "rnn-pipeline backfill")
    assert "BBB (3 sessions late)" in found.says
    assert "AAA" not in found.says
    assert found.alert().severity == "warning"


def test_a_ticker_without_bars_or_delisted_is_named(patient):
    fill(patient.store, raw_ohlcv=bars(tickers=["AAA"]))
    found = health.tickers(patient)
    assert (found.state, found.command) == ("broken", "rnn-pipeline backfill --ticker BBB")
    del patient.__dict__["newest_bars"]
    status = pd.DataFrame({"ticker": ["BBB"], "status": ["delisted"], "missing": [0]})
    fill(patient.store, raw_ohlcv=bars(tickers=["BBB"]), ticker_status=status)
    assert "BBB is delisted: take it out" in health.tickers(patient).says


@pytest.mark.parametrize(
    ("examination", "table"),
    [
        (health.features, "model_features"),
        (health.signals, "trading_signals"),
        (health.decisions, "trading_decisions"),
    ],
)
def test_what_is_computed_reaches_as_far_as_bars(patient, examination, table):
    fill(patient.store, raw_ohlcv=bars())
    assert examination(patient).state == "broken"
    fill(patient.store, **{table: keys(DAYS[:-1])})
    assert "2024-03-14, bars of 2024-03-15" in examination(patient).says
    fill(patient.store, **{table: keys(DAYS[-1:])})
    assert examination(patient).state == "healthy"


def test_flipped_signals_are_told_from_signals_that_always_flip(patient):
    steady = keys().assign(signal=0.5)
    fill(patient.store, trading_signals=steady)
    assert health.flips(patient).says == "0 of 2 signals changed sides"
    flipped = steady.assign(signal=np.where(steady["session"] == TODAY, -0.5, 0.5))
    with patient.store.batch() as batch:
        batch.replace("trading_signals", flipped, ticker=["AAA", "BBB"])
    found = health.flips(patient)
    assert found.state == "stale"
    assert found.says.startswith("2 of 2 signals changed sides, usually 0% do")
    always = steady.assign(signal=np.where(np.arange(len(steady)) % 2, -0.5, 0.5))
    with patient.store.batch() as batch:
        batch.replace("trading_signals", always, ticker=["AAA", "BBB"])
    assert health.flips(patient).state == "healthy"


@pytest.mark.parametrize(
    ("newest", "words"),
    [
        (lambda old: old, ""),
        (lambda old: old + 0.1, "lstm: 100% outside"),
        (lambda old: old * 1e-3, "lstm hardly moves"),
    ],
)
def test_forecasts_unlike_the_graded_ones_are_named(patient, newest, words):
    days = pd.bdate_range("2023-11-01", "2024-03-15")
    rows = keys(days).assign(model="lstm", seed=0, horizon=1, fold=0)
    forecast = 0.01 * np.sin(np.arange(len(rows)))
    recent = rows["session"] > days[-21]
    rows["forecast"] = np.where(recent, newest(forecast), forecast)
    fill(patient.store, forecasts=rows)
    found = health.forecast_drift(patient)
    assert found.state == ("stale" if words else "healthy")
    assert words in found.says


def event(number, ticker, trained_until, version="1", state="champion"):
    return {
        "event": number,
        "ticker": ticker,
        "slot": "lstm",
        "model": "lstm",
        "version": version,
        "state": state,
        "trained_until": pd.Timestamp(trained_until),
    }


@pytest.mark.parametrize(
    ("ended", "state", "words"),
    [
        ("2024-03-01", "healthy", "10 sessions ago"),
        ("2024-02-01", "stale", "a fold is due"),
        ("2023-12-29", "broken", "expired"),
    ],
)
def test_networks_grow_old_by_sessions(patient, ended, state, words):
    retired = event(0, "AAA", "2020-01-02", "0"), event(1, "AAA", "2020-01-02", "0", "retired")
    events = [*retired, event(2, "AAA", ended), event(3, "CCC", "2020-01-02")]
    fill(
        patient.store,
        models=pd.DataFrame(events),
        window_sets=pd.DataFrame({"ticker": ["AAA", "BBB", "CCC"], "folds": [1, 0, 1]}),
    )
    found = health.models(patient)
    assert found.state == state
    assert words in found.says


def test_a_ticker_whose_networks_are_gone_is_named(patient):
    assert health.models(patient).says == "no network was trained"
    fill(
        patient.store,
        models=pd.DataFrame([event(0, "AAA", TODAY)]),
        window_sets=pd.DataFrame({"ticker": ["AAA", "BBB"], "folds": [1, 1]}),
    )
    assert health.models(patient).says == "no network speaks for BBB"


def test_evidence_that_a_newer_fold_lost_is_named(patient):
    grades = [("AAA", "lstm", "weak", "none"), ("BBB", "lstm", "none", "strong")]
    rows = [
        {"ticker": ticker, "model": model, "fold": fold, "grade": grade}
        for ticker, model, *both in grades
        for fold, grade in enumerate(both)
    ]
    fill(patient.store, evidence=pd.DataFrame(rows))
    found = health.evidence(patient)
    assert found.state == "stale"
    assert found.says.startswith("lost by lstm of AAA; 1 of 2")


def test_missed_orders_are_counted(patient):
    account = pd.DataFrame({"session": DAYS, "equity": 1.01, "promise": 1.02})
    fills = keys(DAYS[-5:]).assign(missed=["no bar"] * 3 + [""] * 7)
    fill(patient.store, raw_ohlcv=bars(), paper_account=account, paper_fills=fills)
    found = health.paper(patient)
    assert found.says == "the account is at 1.0100, the backtest at 1.0200; 3 of 10 orders missed"
    assert found.command == "rnn-pipeline paper"


def test_lost_payloads_are_noticed(patient):
    kept = PayloadStore(patient.settings.payload_dir).put(b"answer")
    fetched = pd.DataFrame({"fetch_id": ["1"], "entry": [1], "payload_sha256": [kept]})
    fill(patient.store, raw_fetch=fetched)
    assert health.payloads(patient).state == "healthy"
    lost = fetched.assign(fetch_id="2", payload_sha256="0" * 64)
    fill(patient.store, raw_fetch=lost)
    assert health.payloads(patient).says.startswith("1 of 2 raw answers are gone, 000000000000")


def test_a_failing_way_of_telling_is_broken(patient):
    told = load_settings(data_dir=patient.settings.data_dir, alerts={"webhook": "http://x"})
    memory = {"told": {}, "failed": {"webhook": {"at": "now", "error": "Timeout"}}}
    told.alert_memory.parent.mkdir(parents=True, exist_ok=True)
    told.alert_memory.write_text(json.dumps(memory))
    found = health.alerting(health.Patient(told, patient.store, (), TODAY.date(), NOON))
    assert (found.state, "webhook (Timeout)" in found.says) == ("broken", True)


def test_an_examination_that_fails_is_a_finding(patient, monkeypatch):
    def bad(patient):
        raise ZeroDivisionError("a day without sessions")

    monkeypatch.setattr(health, "STORED", (bad,))
    fill(patient.store, raw_ohlcv=bars())
    found = {one.area: one for one in health.examine(patient)}
    assert found["bad"].state == "broken"
    assert "ZeroDivisionError: a day without sessions" in found["bad"].says


def doctor(tmp_path, monkeypatch, **environment):
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(f"RNN_PIPELINE_{name}", value)
    return CliRunner().invoke(main, ["doctor", "--json"], catch_exceptions=False)


def test_the_doctor_takes_an_empty_folder_and_leaves_it_empty(tmp_path, monkeypatch):
    result = doctor(tmp_path, monkeypatch)
    assert result.exit_code == 1
    ill = [one for one in json.loads(result.stdout) if one["state"] != "healthy"]
    assert [(one["area"], one["command"]) for one in ill] == [("warehouse", "rnn-pipeline demo")]
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_takes_a_broken_file_and_broken_settings(tmp_path, monkeypatch):
    path = load_settings(data_dir=tmp_path).warehouse_path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 1000)
    ill = [one for one in json.loads(doctor(tmp_path, monkeypatch).stdout) if one["command"]]
    assert [one["area"] for one in ill] == ["warehouse"]
    assert "move it away" in ill[0]["says"]
    result = doctor(tmp_path, monkeypatch, FOLDS__TRAIN_SIZE="ten")
    assert result.exit_code == 1
    (only,) = json.loads(result.stdout)
    assert "setting folds.train_size = 'ten'" in only["says"]


def test_the_doctor_writes_a_page_and_tells_a_person_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path))
    runner = CliRunner()
    first = runner.invoke(main, ["doctor", "--alert"])
    assert "told by log: warehouse" in first.stderr
    assert "BROKEN warehouse" in first.stdout
    assert "-> rnn-pipeline demo" in first.stdout
    assert "told" not in runner.invoke(main, ["doctor", "--alert"]).stderr
