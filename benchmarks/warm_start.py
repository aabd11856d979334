"""What a fold loses and saves when it starts from the weights of the fold before.

    python -m benchmarks.warm_start [--data ../shared/data/stocknet] [--tickers 6] [--write]

Forecasts tomorrow's absolute return, because volatility can be forecast: with returns themselves a
difference in quality would drown in noise. Every walk-forward trains the same folds with three
seeds, and is timed in processor seconds, which a busy machine lengthens least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rnn_pipeline.features.folds import walk_forward
from rnn_pipeline.features.windows import FoldData, ModelMatrix, fold_datasets, window_index
from rnn_pipeline.networks.fleet import Compute
from rnn_pipeline.networks.walk_forward import (
    Forecaster,
    train_walk_forward,
    walk_forward_forecasts,
)
from rnn_pipeline.settings import FoldSpec, NetworkSpec, TrainingSpec

RESULTS = Path(__file__).parent / "results" / "warm_start.json"
COLUMNS = ("return_1", "return_5", "return_20", "volatility_5", "volatility_20", "volume")
FOLDS = FoldSpec(train_size=500, val_size=60, test_size=60)
LOOKBACK = 20


def table(bars: pd.DataFrame) -> pd.DataFrame:
    """Features, target and actual of one ticker, in order of its sessions."""
    bars = bars.sort_values("date", ignore_index=True)
    rate = np.log(bars["adj_close"]).diff()
    volume = np.log(bars["volume"])
    return pd.DataFrame(
        {
            "ticker": bars["ticker"],
            "session": pd.to_datetime(bars["date"]),
            "return_1": rate,
            "return_5": rate.rolling(5).sum(),
            "return_20": rate.rolling(20).sum(),
            "volatility_5": rate.rolling(5).std(),
            "volatility_20": rate.rolling(20).std(),
            "volume": volume - volume.rolling(20).mean(),
            "target": rate.abs().shift(-1),
        }
    ).assign(target_session=lambda rows: rows["session"].shift(-1))


def datasets(rows: pd.DataFrame) -> list[FoldData]:
    axis = pd.DatetimeIndex(sorted(rows["session"].unique()))
    matrix = ModelMatrix.build(rows, COLUMNS)
    known = rows[["ticker", "session", "target", "target_session"]].dropna()
    index = window_index(matrix, known, axis, LOOKBACK)
    return list(fold_datasets(matrix, index, walk_forward(len(axis), FOLDS, horizon=1)))


def measure(
    data: list[FoldData], rows: pd.DataFrame, cell: str, warm_epochs: int | None
) -> dict[str, Any]:
    begun = time.process_time()
    made: list[Forecaster] = []
    networks = train_walk_forward(
        cell,
        COLUMNS,
        data,
        NetworkSpec(cell=cell),
        TrainingSpec(),
        seeds=(0, 1, 2),
        compute=Compute(torch.device("cpu"), backend="cpu"),
        networks={},
        on_complete=made.extend,
        warm_epochs=warm_epochs,
    )
    taken = time.process_time() - begun
    forecasts = walk_forward_forecasts(data, [{one.ticker: one for one in made}])
    mean = forecasts.groupby(["ticker", "session"], as_index=False)["forecast"].mean()
    both = mean.merge(rows[["ticker", "session", "target"]]).dropna()
    error = ((both["forecast"] - both["target"]) ** 2).mean()
    by_ticker = both.groupby("ticker")[["forecast", "target"]]
    ics = by_ticker.apply(lambda own: own["forecast"].corr(own["target"], method="spearman"))
    return {
        "cell": cell,
        "warm_epochs": warm_epochs,
        "networks": networks,
        "epochs": sum(len(forecaster.history) for forecaster in made),
        "processor_s": taken,
        "information_coefficient": float(ics.mean()),
        "squared_error_to_variance": float(error / both["target"].var(ddof=0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm_start")
    default = Path(__file__).parents[2] / "shared" / "data" / "stocknet"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--tickers", type=int, default=6)
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there: nothing is measured")
    bars = pd.read_parquet(options.data / "ohlcv.parquet")
    tickers = sorted(bars["ticker"].unique())[: options.tickers]
    rows = pd.concat(
        [table(bars[bars["ticker"] == ticker]) for ticker in tickers], ignore_index=True
    )
    data = datasets(rows)
    measure(data[:1], rows, "lstm", None)  # compiles
    lines = []
    for cell in ("lstm", "gru"):
        for warm_epochs in (None, 6, 4, 2):
            lines.append(measure(data, rows, cell, warm_epochs))
            print(json.dumps(lines[-1]), flush=True)
    if options.write:
        found = {
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "machine": f"{os.cpu_count()} cores ({platform.machine()}), load"
            f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
            "tickers": len(tickers),
            "lines": lines,
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
