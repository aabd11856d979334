"""A daily run on many tickers: from one session's new bars to decisions, by stage.

    python -m benchmarks.daily [--tickers 500] [--sessions 1300] [--write]

Simulated bars (GARCH with fat tails) of a history are taken in, features stored, and two networks
with two seeds trained for one epoch on every ticker: what they say does not matter here. Then one
more session arrives as a file, and the job ``daily`` runs in one process through Dagster; and once
more with nothing new; then a second and a third session. Seconds are wall time by asset, beside the
processor time of the whole run.
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

[model.training]
epochs = 1

[model.sentiment]
members = 1
least_steps = 0
embed_dim = 8
hidden_size = 8
"""
ARRIVING = 3
LAST = "2024-06-24"


def simulated(tickers: list[str], sessions: int) -> Any:
    """Bars of a history and of the sessions that arrive, one frame."""
    import numpy as np
    import pandas as pd

    from benchmarks.null_markets import garch
    from rnn_pipeline.market.calendar import SessionCalendar

    axis = SessionCalendar("XNYS").sessions(datetime(2000, 1, 1).date(), pd.Timestamp(LAST).date())
    axis = axis[-(sessions + ARRIVING) :]
    rng = np.random.default_rng(0)
    frames = []
    for ticker in tickers:
        close = 50 * np.exp(np.cumsum(garch(rng, len(axis))))
        open_ = close * np.exp(rng.normal(0, 0.004, len(axis)))
        spread = np.exp(np.abs(rng.normal(0, 0.006, len(axis))))
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": axis,
                    "open": open_,
                    "high": np.maximum(open_, close) * spread,
                    "low": np.minimum(open_, close) / spread,
                    "close": close,
                    "adj_close": close,
                    "volume": rng.lognormal(13, 0.4, len(axis)).round(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def dropped(bars: Any, drop: Path, name: str) -> None:
    """Put bars into the drop folder, as old as a file must be to be taken in."""
    bars.to_parquet(drop / f"{name}.parquet")
    os.utime(drop / f"{name}.parquet", (time.time() - 60,) * 2)


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
    """Run a job in this process; seconds of each asset and of the whole."""
    from rnn_pipeline import cli

    wall, processor = time.perf_counter(), time.process_time()
    cli.run_job(instance, job, tags)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    run = instance.get_runs(limit=1)[0]
    steps = {
        step.step_key: round(step.end_time - step.start_time, 2)
        for step in instance.get_run_step_stats(run.run_id)
        if step.start_time is not None and step.end_time is not None
    }
    return {
        "seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "load": round(os.getloadavg()[0], 1),
        "by_asset": steps,
    }


def run_here(drop: Path, sessions: int) -> dict[str, Any]:
    """Prepare a data folder and measure the daily runs, with the settings in force."""
    begun = time.perf_counter()
    import dagster as dg

    from rnn_pipeline import cli
    from rnn_pipeline.definitions import defs
    from rnn_pipeline.defs.evidence import walk_forward_forecasts
    from rnn_pipeline.defs.features import sequence_windows
    from rnn_pipeline.defs.market import labelled_headlines
    from rnn_pipeline.defs.networks import forecasters, sentiment_model
    from rnn_pipeline.defs.partitions import SETTINGS, range_tags, register_tickers
    from rnn_pipeline.warehouse import Warehouse

    imports = time.perf_counter() - begun
    bars = simulated(list(SETTINGS.tickers), sessions)
    axis = sorted(bars["session"].unique())
    past = axis[sessions - 1]
    dropped(bars[bars["session"] <= past], drop, "history")
    store = Warehouse(SETTINGS.warehouse_path)
    found: dict[str, Any] = {"seconds_of_imports": round(imports, 1)}
    with cli.prepare(SETTINGS) as instance:
        tickers = register_tickers(instance, SETTINGS)
        untimed = {"instance": instance, "resources": defs.resources}
        started = time.perf_counter()
        assert dg.materialize([labelled_headlines, sentiment_model], **untimed).success
        load_history(store, SETTINGS, past.date())
        found["seconds_of_history"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        # Neither baselines nor the look-ahead test: what is measured needs networks alone.
        trained = [sequence_windows, *forecasters, walk_forward_forecasts]
        assert dg.materialize(trained, **untimed, tags=range_tags(tickers)).success
        found["seconds_of_training"] = round(time.perf_counter() - started, 1)
        cli.run_job(instance, "decide", range_tags(tickers, past.date(), past.date()))
        found["rows"] = {
            name: int(store.read(f"SELECT count(*) AS n FROM {name}")["n"][0])
            for name in ("raw_ohlcv", "forecasts", "models")
        }
        for number, day in enumerate(axis[sessions:]):
            dropped(bars[bars["session"] == day], drop, f"day {number}")
            tags = range_tags(tickers, day.date(), day.date())
            found[f"day {number + 1}"] = measured(instance, "daily", tags)
            if number == 0:
                found["nothing new"] = measured(instance, "daily", tags)
        decided = store.rows("trading_decisions", "ticker", session=day.date())
        assert len(decided) == len(tickers), f"{len(decided)} of {len(tickers)} have a decision"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daily")
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=1300, help="of history")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run_here(options.here, options.sessions)))
        return
    import pandas as pd

    from rnn_pipeline.market.calendar import SessionCalendar

    axis = SessionCalendar("XNYS").sessions(datetime(2000, 1, 1).date(), pd.Timestamp(LAST).date())
    names = ", ".join(f'"T{number:03d}"' for number in range(options.tickers))
    with tempfile.TemporaryDirectory() as folder:
        drop = Path(folder) / "drop"
        drop.mkdir()
        settings = Path(folder) / "settings.toml"
        settings.write_text(
            SETTINGS.format(
                drop=drop,
                start=axis[-(options.sessions + ARRIVING)].date().isoformat(),
                tickers=names,
                train=round(options.sessions * 0.75),
                val=round(options.sessions * 0.1),
            )
        )
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RNN_PIPELINE_")}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.daily", "--here", str(drop)),
                *("--sessions", str(options.sessions)),
            ],
            env=clean
            | {
                "RNN_PIPELINE_SETTINGS_FILE": str(settings),
                "RNN_PIPELINE_DATA_DIR": folder,
                "DAGSTER_HOME": "",
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "tickers": options.tickers,
        "sessions": options.sessions,
        **json.loads(done.stdout.splitlines()[-1]),
    }
    print(json.dumps(found, indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
