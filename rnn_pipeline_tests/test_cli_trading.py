"""The commands that show signals, decisions and orders, on a warehouse filled by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from rnn_pipeline.cli import main
from rnn_pipeline.settings import load_settings
from rnn_pipeline.warehouse import Warehouse

OLD, NEW = pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-03")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RNN_PIPELINE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RNN_PIPELINE_TRADING__ACCOUNT", "10000")
    return tmp_path


@pytest.fixture
def store(home) -> Warehouse:
    rows = pd.DataFrame(
        [("AAA", OLD, 0.1, "BUY"), ("AAA", NEW, 0.2, "BUY"), ("BBB", NEW, 0.0, "HOLD")],
        columns=["ticker", "session", "position", "label"],
    ).assign(
        forecast=0.001, sentiment=0.5, signal=0.3, grade="weak", policy="evidence",
        previous_position=0.0, action="do it", reason="Because.", model_hash="m", data_hash="d",
        price_contribution=0.2, sentiment_contribution=0.1, limited_by="volatility",
        known_at=pd.Timestamp("2024-01-03 21:00", tz="UTC"),
    )  # fmt: skip
    added = pd.DataFrame(
        [("AAA", "gru", 0.2), ("AAA", "sentiment", 0.1), ("BBB", "gru", 0.3)],
        columns=["ticker", "source", "contribution"],
    ).assign(session=NEW, horizon=1, forecast=0.001, standardised=0.5, weight=0.4, grade="weak")
    bars = rows[["ticker", "session"]].assign(
        revision=0, known_at=rows["known_at"], close=[90.0, 100.0, 50.0], is_final=True
    )
    store = Warehouse(load_settings().warehouse_path)
    with store.batch() as batch:
        batch.append("trading_signals", rows)
        batch.append("trading_decisions", rows)
        batch.append("signal_contributions", added)
        batch.append("raw_ohlcv", bars)
    return store


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_the_newest_session_is_shown_with_its_reasons(store) -> None:
    shown = run("decisions")
    assert shown.exit_code == 0, shown.output
    assert "Decisions at the open after 2024-01-03" in shown.stdout
    assert "AAA: do it. Because." in shown.stdout.splitlines()
    assert "2024-01-02" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert shown.stderr == ""


def test_a_session_and_tickers_can_be_asked_for(store) -> None:
    old = json.loads(run("decisions", "--session", "2024-01-02", "--json").stdout)
    assert [(row["ticker"], row["session"], row["position"]) for row in old] == [
        ("AAA", "2024-01-02", 0.1)
    ]
    one = json.loads(run("decisions", "--ticker", "bbb", "--json").stdout)
    assert [row["ticker"] for row in one] == ["BBB"]
    assert one[0]["known_at"].startswith("2024-01-03T21:00")
    assert one[0]["code_version"] is None


@pytest.mark.parametrize("command", ["signals", "decisions"])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--session", "2024-01-01"], "nothing is stored for any ticker on 2024-01-01"),
        (["--ticker", "AAA", "--ticker", "ZZZ"], "nothing is stored for ZZZ on 2024-01-03"),
        (["--session", "yesterday"], "does not match the format"),
    ],
)
def test_what_is_not_there_is_one_line_on_the_other_output(store, command, asked, message) -> None:
    shown = run(command, *asked)
    assert shown.exit_code != 0
    assert message in shown.stderr
    assert shown.stdout == ""


@pytest.mark.parametrize("command", ["signals", "decisions"])
def test_without_a_warehouse_the_next_step_is_named(home, command) -> None:
    shown = run(command)
    assert shown.exit_code == 1
    assert "there is no warehouse at" in shown.stderr
    assert "rnn-pipeline demo" in shown.stderr
    assert not load_settings().warehouse_path.exists()


def test_nothing_decided_yet_is_said(home) -> None:
    Warehouse(load_settings().warehouse_path).rows("meta")
    assert "nothing was decided yet" in run("decisions").stderr


def test_signals_show_what_each_source_adds(store) -> None:
    shown = run("signals")
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert "AAA gru +0.10 % +0.50 weak 0.40 +0.20" in lines
    assert "AAA sentiment 0.00 +0.50 weak 0.40 +0.10" in lines
    told = json.loads(run("signals", "--ticker", "AAA", "--json").stdout)
    assert [(each["source"], each["contribution"]) for each in told[0]["contributions"]] == [
        ("gru", 0.2),
        ("sentiment", 0.1),
    ]


def test_orders_lead_from_the_holdings_to_the_decisions(store, tmp_path) -> None:
    holdings = tmp_path / "holdings.csv"
    holdings.write_text("ticker,shares\nAAA,5\nBBB,3\nOLD,7\n")
    shown = run("decisions", "--holdings", str(holdings), "--json")
    orders = {row["ticker"]: (row["side"], row["shares"]) for row in json.loads(shown.stdout)}
    assert orders == {"AAA": ("BUY", 15), "BBB": ("SELL", 3)}
    assert shown.stderr == "OLD is held, but nothing was decided of it: left alone\n"
    table = run("decisions", "--holdings", "none").stdout
    assert any(line.split()[:3] == ["AAA", "BUY", "20"] for line in table.splitlines())
    holdings.write_text("ticker,shares\nAAA,20\n")
    assert "Nothing to order" in run("decisions", "--holdings", str(holdings)).stdout
    holdings.write_text("stock,shares\nAAA,20\n")
    wrong = run("decisions", "--holdings", str(holdings))
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "lack the columns ticker" in wrong.stderr


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_an_export_holds_the_view_and_the_orders(store, tmp_path, ending) -> None:
    path = tmp_path / f"decisions.{ending}"
    shown = run("decisions", "--holdings", "none", "--export", str(path))
    assert f"2 decisions written to {path}" in shown.stderr
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[ending]
    rows = read(path)
    view = store.rows("decisions_v1")
    assert list(rows.columns)[: len(view.columns)] == list(view.columns)
    assert rows["position"].tolist() == [0.2, 0.0]
    assert rows["shares"].fillna(0).tolist() == [20, 0]
    assert pd.to_datetime(rows["session"]).tolist() == [NEW, NEW]


def test_an_export_of_another_kind_is_refused(store, tmp_path) -> None:
    wrong = run("decisions", "--export", str(tmp_path / "decisions.xls"))
    assert wrong.exit_code == 1
    assert "must end in .csv, .json or .parquet" in wrong.stderr
    nowhere = run("decisions", "--export", str(tmp_path / "no" / "such.csv"))
    assert nowhere.exit_code == 1
    assert "no/such.csv" in nowhere.stderr


def test_the_report_is_a_path_that_can_be_opened(home, monkeypatch) -> None:
    missing = run("report")
    assert missing.exit_code == 1
    assert "there is no report at" in missing.stderr
    path = load_settings().report_path
    path.parent.mkdir(parents=True)
    path.write_text("<html>")
    assert run("report").stdout == f"{path}\n"
    opened = []
    monkeypatch.setattr("click.launch", lambda url: opened.append(url) or 0)
    assert run("report", "--open").exit_code == 0
    assert opened == [str(path)]
