"""The whole pipeline on an exchange with other sessions, closes and holidays, from files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.warehouse import Warehouse

SETTINGS = """
source = "files"
drop_dir = "{folder}/drop"
exchange = "{exchange}"
tickers = ["{ticker}"]
start = 2020-01-06

[folds]
train_size = 100
val_size = 20
test_size = 40

[model]
lookback = 5
seeds = [0]
networks = {{ gru = {{ cell = "gru", hidden_sizes = [4] }} }}

[model.training]
epochs = 1

[model.sentiment]
members = 1
least_steps = 0
embed_dim = 8
hidden_size = 8

[model.sentiment.training]
epochs = 1
"""


EXCHANGE, TICKER = "XTKS", "7203.T"
CALENDAR = SessionCalendar(EXCHANGE)
SESSIONS = CALENDAR.sessions(pd.Timestamp("2020-01-06"), pd.Timestamp("2021-11-30"))
MARK = "s3cr3t-that-must-not-be-seen"
SECRETS = {
    "RNN_PIPELINE_SMTP_USER": f"user-{MARK}",
    "RNN_PIPELINE_SMTP_PASSWORD": f"password-{MARK}",
    "RNN_PIPELINE_WEBHOOK_TOKEN": f"token-{MARK}",
    "RNN_PIPELINE_LAKE_CATALOG": f"postgresql://writer:{MARK}@127.0.0.1:9/lake",
    "AWS_ACCESS_KEY_ID": f"id-{MARK}",
    "AWS_SECRET_ACCESS_KEY": f"key-{MARK}",
    # Nobody listens there: what is said of the failure must not hold the address.
    "RNN_PIPELINE_ALERTS__WEBHOOK": f"http://127.0.0.1:9/{MARK}",
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with secrets in its environment."""
    code = "from rnn_pipeline.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env=os.environ
        | SECRETS
        | {
            "RNN_PIPELINE_SETTINGS_FILE": str(folder / "settings.toml"),
            "RNN_PIPELINE_DATA_DIR": str(folder / "data"),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder after `demo` on two years of one ticker, and what the commands printed."""
    folder = tmp_path_factory.mktemp("exchange")
    rng = np.random.default_rng(3)
    close = 2_000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(SESSIONS))))
    bars = pd.DataFrame({"ticker": TICKER, "session": SESSIONS, "close": close})
    bars = bars.assign(open=close, high=close * 1.01, low=close * 0.99, adj_close=close, volume=1e6)
    closed = CALENDAR.closes(SESSIONS)[-30]
    news = pd.DataFrame(
        {
            "ticker": TICKER,
            "published_at": [closed + pd.Timedelta(minutes=minute) for minute in (-1, 1)],
            "headline": ["Carmaker lifts its outlook", "Carmaker recalls a model"],
        }
    )
    (folder / "drop").mkdir()
    bars.to_csv(folder / "drop" / "bars.csv", index=False)
    news.to_csv(folder / "drop" / "news.csv", index=False)
    for path in (folder / "drop").iterdir():
        os.utime(path, (0, 0))  # what was written just now may still be growing
    text = SETTINGS.format(folder=folder, exchange=EXCHANGE, ticker=TICKER)
    (folder / "settings.toml").write_text(text)
    done = run(folder, "demo")
    assert done.returncode == 0, done.stderr
    told = run(folder, "doctor", "--alert")
    assert told.returncode == 1, "old bars are not healthy"
    return folder, done.stdout + done.stderr + told.stdout + told.stderr


def test_signals_of_an_exchange_follow_its_own_calendar(walked: tuple[Path, str]) -> None:
    marine_day = pd.Timestamp("2021-07-22")
    assert marine_day not in SESSIONS
    assert marine_day in SessionCalendar("XNYS").sessions(SESSIONS[0], SESSIONS[-1])
    store = Warehouse(walked[0] / "data" / "files" / "warehouse.duckdb")
    assert store.bars([TICKER])["session"].tolist() == SESSIONS.tolist()
    signals = store.rows("trading_signals")
    assert set(signals["session"]) <= set(SESSIONS)
    assert signals["session"].max() == SESSIONS[-1]
    assert len(store.rows("forecasts")) > 100
    assert signals["known_at"].tolist() == CALENDAR.closes(signals["session"]).tolist()
    counted = store.rows("news_sentiment").set_index("session")["news_count"]
    # A minute before the close belongs to the session, a minute after it to the next one.
    assert counted[counted > 0].to_dict() == {SESSIONS[-30]: 1, SESSIONS[-29]: 1}
    folds = store.rows("folds", role="test")
    assert set(folds["first_session"]) <= set(SESSIONS)


def test_secrets_of_the_environment_are_in_no_file_and_no_line(walked: tuple[Path, str]) -> None:
    """Logs, events, metadata, payloads, reports, what commands print and what alerts remember."""
    folder, printed = walked
    assert "webhook" in printed
    assert MARK not in printed
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files), "Dagster's event log is among them"
    assert [path for path in files if MARK.encode() in path.read_bytes()] == []
