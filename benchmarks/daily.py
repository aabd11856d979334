"""A daily run on many tickers: from one session's new bars to decisions, by stage.

    python -m benchmarks.daily [--tickers 500] [--sessions 1300] [--folder DATA] [--write]

Simulated bars (GARCH with fat tails) of a history are taken in, features stored, and two networks
with two seeds trained for one epoch on every ticker: what they say does not matter here. Then one
more session arrives as a file, and the job ``daily`` runs through Dagster in a process of its own,
as cron would start it; and once more with nothing new; then a second and a third session. Seconds
are wall time by asset, beside processor time; imports stand apart. A folder that is kept goes on
with the sessions after those that it has had.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.made_up import SOON_TRAINED, drop, environment, universe
from benchmarks.meter import Meter

RESULTS = Path(__file__).parent / "results" / "daily.json"
SETTINGS = """
source = "files"
drop_dir = "{drop}"
start = {start}
tickers = [{tickers}]

[folds]
train_size = {train}
val_size = {val}
test_size = 250

[model]
seeds = [0, 1]

[model.networks.lstm]
cell = "lstm"
hidden_sizes = [16]

[model.networks.gru]
cell = "gru"
hidden_sizes = [16]
{soon_trained}"""
RUNS = {"day 1": 1, "nothing new": 0, "day 2": 1, "day 3": 1}
#: Sessions that a kept folder can go on with.
ARRIVING = 60
LAST = "2024-06-24"


def load_history(store: Any, settings: Any, last: Any) -> None:
    """Take the history in and store its features: what years of daily runs leave behind."""
    from rnn_pipeline.defs.features import COLUMNS, SENTIMENT_MODEL
    from rnn_pipeline.defs.resources import MARKET
    from rnn_pipeline.features import catalogue, model, price, sentiment
    from rnn_pipeline.market.ingest import Request, ingest_bars
    from rnn_pipeline.networks.sentiment import load_sentiment
    from rnn_pipeline.warehouse import PayloadStore

    tickers, first = list(settings.tickers), settings.start
    request = Request(tickers, first, last, "history")
    payloads = PayloadStore(settings.payload_dir)
    ingest_bars(store, payloads, MARKET.feed, MARKET.calendar, request)
    bars = store.bars_by_era(tickers, first, last, catalogue.WARM_UP)
    prices = catalogue.feature_table(bars, bars.iloc[:0]).assign(
        feature_set_hash=catalogue.feature_table_hash()
    )
    score = load_sentiment(SENTIMENT_MODEL).score
    news = sentiment.news_sentiment(store.headlines(tickers), bars, MARKET.calendar, score)
    targets = price.targets(bars, settings.model.horizon).dropna(subset="target")
    with store.batch() as batch:
        batch.append("price_features", prices)
        batch.append("targets", targets)
        batch.append("news_sentiment", news)
        batch.append("model_features", model.model_features(prices, news, COLUMNS))


def measured(instance: Any, job: str, tags: dict[str, str]) -> dict[str, Any]:
    """Run a job in this process; seconds of each asset and of the whole, by clock and processor.

    Dagster says when a step began and ended; processor time is sampled beside it.
    """
    from rnn_pipeline import cli

    with Meter() as meter:
        begun = time.time()
        cli.run_job(instance, job, tags)
        ended = time.time()
    run = instance.get_runs(limit=1)[0]
    steps = {
        step.step_key: (step.start_time, step.end_time)
        for step in instance.get_run_step_stats(run.run_id)
        if step.start_time is not None and step.end_time is not None
    }

    def between(begin: float, end: float) -> dict[str, float]:
        used = meter.between(begin, end)
        return {name: round(used[name], 2) for name in ("seconds", "processor_seconds")}

    return {
        **between(begun, ended),
        "to_decisions": between(begun, steps["trading_decisions"][1]),
        "load": round(os.getloadavg()[0], 1),
        "by_asset": {name: between(*span) for name, span in steps.items()},
    }


def prepared(folder: Path, axis: Any) -> dict[str, Any]:
    """Take the history in and train, with the settings in force."""
    import dagster as dg

    from rnn_pipeline import cli
    from rnn_pipeline.definitions import defs
    from rnn_pipeline.defs.evidence import baseline_forecasts, walk_forward_forecasts
    from rnn_pipeline.defs.features import sequence_windows
    from rnn_pipeline.defs.market import labelled_headlines
    from rnn_pipeline.defs.networks import forecasters, sentiment_model
    from rnn_pipeline.defs.partitions import SETTINGS, range_tags, register_tickers
    from rnn_pipeline.warehouse import Warehouse

    past = axis[-ARRIVING - 1]
    bars = universe(SETTINGS.tickers, axis)
    bars.to_parquet(folder / "coming.parquet")
    drop(bars[bars["session"] <= past], folder / "drop", "history")
    store = Warehouse(SETTINGS.warehouse_path)
    found: dict[str, Any] = {}
    with cli.prepare(SETTINGS) as instance:
        tickers = register_tickers(instance, SETTINGS)
        untimed = {"instance": instance, "resources": defs.resources}
        started = time.perf_counter()
        assert dg.materialize([labelled_headlines, sentiment_model], **untimed).success
        load_history(store, SETTINGS, past.date())
        found["seconds_of_history"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        trained = [sequence_windows, baseline_forecasts, *forecasters, walk_forward_forecasts]
        assert dg.materialize(trained, **untimed, tags=range_tags(tickers)).success
        found["seconds_of_training"] = round(time.perf_counter() - started, 1)
        # The first run of a month makes all of it.
        cli.run_job(instance, "daily", range_tags(tickers, past.date(), past.date()))
    found["rows"] = {
        name: int(store.read(f"SELECT count(*) AS n FROM {name}")["n"][0])
        for name in ("raw_ohlcv", "forecasts", "models")
    }
    return found


def run_of_a_day(folder: Path, sessions: int) -> dict[str, Any]:
    """Let the next ``sessions`` arrive and measure the daily run on them."""
    begun = time.perf_counter()
    import pandas as pd

    from rnn_pipeline import cli
    from rnn_pipeline.definitions import defs
    from rnn_pipeline.defs.automation import evening
    from rnn_pipeline.defs.partitions import SETTINGS, range_tags
    from rnn_pipeline.defs.resources import WAREHOUSE
    from rnn_pipeline.warehouse import Warehouse

    defs.resolve_job_def("daily")
    imports = time.perf_counter() - begun
    store = Warehouse(SETTINGS.warehouse_path)
    had = pd.Timestamp(store.last_session())
    bars = pd.read_parquet(folder / "coming.parquet")
    coming = sorted(bars.loc[bars["session"] > had, "session"].unique())[:sessions]
    if coming:
        drop(bars[bars["session"].isin(coming)], folder / "drop", f"{coming[-1]:%Y-%m-%d}")
    last = max([had, *coming]).date()
    with cli.prepare(SETTINGS) as instance:
        tickers, since = evening(instance, WAREHOUSE)
        found = measured(instance, "daily", range_tags(tickers, since, last))
    decided = store.rows("trading_decisions", "ticker", session=last)
    assert len(decided) == len(tickers), f"{len(decided)} of {len(tickers)} have a decision"
    return {"seconds_of_imports": round(imports, 1), **found}


def ask(folder: Path, options: argparse.Namespace, step: str) -> dict[str, Any]:
    """Run a step in a process that has the settings of the folder."""
    arguments = ["--folder", str(folder), "--sessions", str(options.sessions), "--step", step]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.daily", *arguments],
        env=environment(folder / "settings.toml", folder),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def history_and_coming(sessions: int) -> Any:
    """The axis of sessions: a history, and behind it what arrives."""
    import pandas as pd

    from rnn_pipeline.market.calendar import SessionCalendar

    axis = SessionCalendar("XNYS").sessions(datetime(2000, 1, 1).date(), pd.Timestamp(LAST).date())
    return axis[-(sessions + ARRIVING) :]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare the folder unless that was done, and run the days."""
    kept = folder / "prepared.json"
    if not kept.exists():
        (folder / "drop").mkdir(parents=True)
        settings = SETTINGS.format(
            drop=folder / "drop",
            start=history_and_coming(options.sessions)[0].date().isoformat(),
            tickers=", ".join(f'"T{number:03d}"' for number in range(options.tickers)),
            train=round(options.sessions * 0.75),
            val=round(options.sessions * 0.1),
            soon_trained=SOON_TRAINED,
        )
        (folder / "settings.toml").write_text(settings)
        kept.write_text(json.dumps(ask(folder, options, "prepare")))
    found: dict[str, Any] = {"prepared": json.loads(kept.read_text())}
    for name, arriving in RUNS.items():
        found[name] = ask(folder, options, str(arriving))
        print(name, json.dumps(found[name]), file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daily")
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=1300, help="of history")
    parser.add_argument("--folder", type=Path, help="keep the data there")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "prepare":
        print(json.dumps(prepared(options.folder, history_and_coming(options.sessions))))
        return
    if options.step:
        print(json.dumps(run_of_a_day(options.folder, int(options.step))))
        return
    with tempfile.TemporaryDirectory() as passing:
        measured_days = measure((options.folder or Path(passing)).resolve(), options)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "tickers": options.tickers,
        "sessions": options.sessions,
        **measured_days,
    }
    print(json.dumps(found, indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
