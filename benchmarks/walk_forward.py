"""The whole graph on real bars and headlines: how long each asset takes, and how much is training.

    python -m benchmarks.walk_forward [--data ../shared/data/stocknet] [--tickers 24] [--write]

24 tickers, 5 years, two cells, 3 seeds, through Dagster. Three runs in one data folder, each in a
process of its own: all but the last two months from nothing; then a month in which a fold begins,
whose networks are trained; then one in which none does. After that the forecasters alone, from
nothing, with the reference and with warm starts (``--variants`` leaves them out). Not run where the
data is absent: it is no part of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.made_up import environment

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).parent / "results" / "walk_forward.json"
SETTINGS = """
source = "files"
drop_dir = "{drop}"
start = 2012-09-04
tickers = {tickers}

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
MODELS = ("lstm", "gru")
STAGES = ("refresh", "retrain", "decide")
WITH_A_NEW_FOLD, WITHOUT = date(2017, 7, 1), date(2017, 8, 1)
"""First days of the months that are added."""
VARIANTS = {"reference": ("reference", ""), "warm starts": ("auto", "warm_epochs = 4")}


def run_here(wanted: Sequence[str], first: date | None) -> dict[str, Any]:
    """Run stages with the settings in force; seconds per asset, and how good forecasts are."""
    begun = time.perf_counter()
    import dagster as dg

    from rnn_pipeline import cli
    from rnn_pipeline.defs.automation import stages
    from rnn_pipeline.evidence.metrics import forecast_metrics
    from rnn_pipeline.settings import load_settings
    from rnn_pipeline.warehouse import Warehouse

    settings = load_settings()
    started, processor = time.perf_counter(), time.process_time()
    seconds: dict[str, float] = {}
    trained = {}
    with cli.prepare(settings) as instance:
        for name, tags in stages(instance, first):
            if name not in wanted:
                continue
            cli.run_job(instance, name, tags)
            run = instance.get_runs(limit=1)[0]
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time is not None and step.end_time is not None:
                    seconds[step.step_key] = step.end_time - step.start_time
        for model in MODELS:
            event = instance.get_latest_materialization_event(dg.AssetKey(f"{model}_forecaster"))
            assert event is not None
            assert event.asset_materialization is not None
            trained[model] = event.asset_materialization.metadata["networks_trained"].value
    done = time.perf_counter()
    store = Warehouse(settings.warehouse_path)
    metrics = forecast_metrics(store.rows("walk_forward_forecasts"), by=("model",))
    forecasters = sum(seconds[f"{model}_forecaster"] for model in MODELS)
    return {
        "seconds": done - started,
        "seconds_of_processor": time.process_time() - processor,
        "seconds_of_imports": started - begun,
        "seconds_of_forecasters": forecasters,
        "share_of_forecasters": forecasters / (done - started),
        "networks": int(store.rows("checkpoints")["networks"].sum()),
        "networks_trained": trained,
        "seconds_per_asset": dict(sorted(seconds.items(), key=lambda item: -item[1])),
        "metrics": json.loads(metrics.to_json(orient="records")),
    }


class Runs:
    """Runs one after the other on one data folder, each in a process of its own."""

    def __init__(self, folder: Path, data: Path, n_tickers: int) -> None:
        import pandas as pd

        self.folder = folder
        self.drop = folder / "drop"
        self.drop.mkdir()
        bars = pd.read_parquet(data / "ohlcv.parquet")
        headlines = pd.read_csv(data / "headlines.csv.gz")
        self.tickers = sorted(bars["ticker"].unique())[:n_tickers]
        self.bars = bars[bars["ticker"].isin(self.tickers)]
        self.headlines = headlines[headlines["ticker"].isin(self.tickers)]

    def bars_between(self, first: date | None, stop: date | None) -> pd.DataFrame:
        days = self.bars["date"].astype("datetime64[s]")
        chosen = days.notna()
        if first is not None:
            chosen &= days >= str(first)
        if stop is not None:
            chosen &= days < str(stop)
        return self.bars[chosen]

    def take_in(self, first: date | None, stop: date | None) -> None:
        """Put the bars of a span into the drop folder; headlines all come with the first."""
        self.bars_between(first, stop).to_parquet(self.drop / f"bars-{first or 'first'}.parquet")
        if first is None:
            self.headlines.to_csv(self.drop / "headlines.csv.gz", index=False)
        time.sleep(3.0)  # a file that has just changed might still be on its way

    def run(
        self,
        stages: Sequence[str] = STAGES,
        first: date | None = None,
        backend: str = "auto",
        model: str = "",
    ) -> dict[str, Any]:
        settings = self.folder / "settings.toml"
        settings.write_text(
            SETTINGS.format(
                drop=self.drop, tickers=json.dumps(self.tickers), model=model, backend=backend
            )
        )
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.walk_forward", "--here", json.dumps(stages)]
            + (["--first", str(first)] if first else []),
            env=environment(settings, self.folder / "data"),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    def forget_networks(self) -> None:
        for model in MODELS:
            for networks in self.folder.glob(f"data/**/checkpoints/{model}"):
                shutil.rmtree(networks)


def show(name: str, found: dict[str, Any]) -> None:
    trained = sum(found["networks_trained"].values())
    print(
        f"{name:36} {found['seconds']:7.0f} s, processor {found['seconds_of_processor']:7.0f} s,"
        f" forecasters {found['seconds_of_forecasters']:6.0f} s"
        f" ({found['share_of_forecasters']:.0%}), {trained} networks trained",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk_forward")
    default = Path(__file__).parents[2] / "shared" / "data" / "stocknet"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--tickers", type=int, default=24)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    parser.add_argument("--here", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=date.fromisoformat, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run_here(options.here, options.first)))
        return
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there: nothing is measured")
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}",
        "tickers": options.tickers,
        "runs": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options.data, options.tickers)

        def record(name: str, **how: Any) -> None:
            found["runs"][name] = runs.run(**how)
            show(name, found["runs"][name])

        runs.take_in(None, WITH_A_NEW_FOLD)
        record("from nothing")
        runs.take_in(WITH_A_NEW_FOLD, WITHOUT)
        record("a month more, a fold begins", first=WITH_A_NEW_FOLD)
        runs.take_in(WITHOUT, None)
        record("a month more, none begins", first=WITHOUT)
        for variant in options.variants:
            backend, model = VARIANTS[variant]
            runs.forget_networks()
            how = {"stages": ["retrain"], "backend": backend, "model": model}
            record(f"forecasters alone, {variant}", **how)
    for asset, seconds in found["runs"]["from nothing"]["seconds_per_asset"].items():
        months = [
            found["runs"][name]["seconds_per_asset"].get(asset, 0.0)
            for name in ("a month more, a fold begins", "a month more, none begins")
        ]
        print(f"{asset:44} {seconds:8.1f} s {months[0]:8.1f} s {months[1]:8.1f} s")
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
