"""The whole graph on real bars and headlines: how long each asset takes, and how much is training.

    python -m benchmarks.walk_forward [--data ../shared/data/stocknet] [--tickers 24] [--write]

24 tickers, 5 years, two cells, 3 seeds, in one process through Dagster, in turn with the backend
that measures fastest, with the reference, and with warm starts: each in a process and a data folder
of its own. Not run where the data is absent: it is no part of the project.
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

RESULTS = Path(__file__).parent / "results" / "walk_forward.json"
SETTINGS = """
source = "files"
drop_dir = "{data}"
start = 2012-09-04
tickers = [{tickers}]

[model]
seeds = [0, 1, 2]
{model}

[model.networks.lstm]
cell = "lstm"

[model.networks.gru]
cell = "gru"

[folds]
train_size = 500
val_size = 60
test_size = 60

[compute]
backend = "{backend}"
"""
VARIANTS = {
    "auto": ("auto", ""),
    "reference": ("reference", ""),
    "auto, warm starts": ("auto", "warm_epochs = 4"),
}


def run_here() -> dict[str, Any]:
    """Run every stage with the settings in force; seconds per asset, and how good forecasts are."""
    begun = time.perf_counter()
    from rnn_pipeline import cli
    from rnn_pipeline.defs.automation import stages
    from rnn_pipeline.evidence.metrics import forecast_metrics
    from rnn_pipeline.settings import load_settings
    from rnn_pipeline.warehouse import Warehouse

    settings = load_settings()
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    with cli.prepare(settings) as instance:
        for name, tags in stages(instance):
            cli.run_job(instance, name, tags)
            run = instance.get_runs(limit=1)[0]
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time is not None and step.end_time is not None:
                    seconds[step.step_key] = step.end_time - step.start_time
    done = time.perf_counter()
    store = Warehouse(settings.warehouse_path)
    metrics = forecast_metrics(store.rows("walk_forward_forecasts"), by=("model",))
    training = sum(taken for name, taken in seconds.items() if name.endswith("_forecaster"))
    return {
        "seconds": done - started,
        "seconds_of_imports": started - begun,
        "share_of_forecasters": training / (done - started),
        "networks": int(store.rows("checkpoints")["networks"].sum()),
        "epochs": len(store.rows("training_history")),
        "seconds_per_asset": dict(sorted(seconds.items(), key=lambda item: -item[1])),
        "metrics": json.loads(metrics.to_json(orient="records")),
    }


def run_variant(variant: str, data: Path, tickers: list[str]) -> dict[str, Any]:
    """Run the graph in a process of its own on an empty data folder."""
    backend, model = VARIANTS[variant]
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.toml"
        quoted = ", ".join(f'"{ticker}"' for ticker in tickers)
        settings.write_text(
            SETTINGS.format(data=data, tickers=quoted, model=model, backend=backend)
        )
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RNN_PIPELINE_")}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.walk_forward", "--here"],
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
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk_forward")
    default = Path(__file__).parents[2] / "shared" / "data" / "stocknet"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--tickers", type=int, default=24)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run_here()))
        return
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there: nothing is measured")
    import pandas as pd

    names = pd.read_parquet(options.data / "ohlcv.parquet", columns=["ticker"])["ticker"]
    tickers = sorted(names.unique())[: options.tickers]
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        "tickers": len(tickers),
        "variants": {
            variant: run_variant(variant, options.data.resolve(), tickers)
            for variant in options.variants
        },
    }
    print(json.dumps(found, indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
