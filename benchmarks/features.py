"""Features and windows at scale, beside a straightforward pandas implementation.

    python benchmarks/features.py [--tickers 500] [--sessions 2500] [--rounds 3]

Prints one table as JSON. Each size runs in a process of its own, so that its peak memory is its
own; the comparison alternates the two implementations and takes medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from rnn_pipeline.features.catalogue import NAMES, WARM_UP, feature_table
from rnn_pipeline.features.cross_section import cross_features
from rnn_pipeline.features.folds import walk_forward
from rnn_pipeline.features.price import MOVING_AVERAGES, targets
from rnn_pipeline.features.windows import ModelMatrix, fold_status, gather, window_index
from rnn_pipeline.settings import FoldSpec
from rnn_pipeline.warehouse import Warehouse

#: Otherwise glibc hands large arrays back after every operation, and page faults drown the rest.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
LOOKBACK, COLUMNS = 60, NAMES[:20]


def make_bars(tickers: int, sessions: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = tickers * sessions
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (tickers, sessions)), axis=1)).ravel()
    opening = close * np.exp(rng.normal(0, 0.005, rows))
    days = pd.bdate_range("2010-01-04", periods=sessions)
    return pd.DataFrame(
        {
            "ticker": pd.array(np.repeat([f"T{n:04d}" for n in range(tickers)], sessions), "str"),
            "session": np.tile(days, tickers),
            "known_at": np.tile(days + pd.Timedelta(hours=21), tickers),
            "open": opening,
            "high": np.maximum(opening, close) * 1.01,
            "low": np.minimum(opening, close) * 0.99,
            "close": close,
            "adj_close": close * 0.9,
            "volume": rng.integers(1_000, 1_000_000, rows).astype(float),
            "era": 0,
            "in_era": True,
        }
    ).assign(known_at=lambda frame: frame["known_at"].dt.tz_localize("UTC"))


def pandas_features(bars: pd.DataFrame) -> pd.DataFrame:
    """The same columns as one would write them: ticker by ticker with rolling and ewm."""
    frames = []
    for _, one in bars.groupby("ticker"):
        scale = one["adj_close"] / one["close"]
        o, h, lo, c = (one[name] * scale for name in ("open", "high", "low", "close"))
        v, turnover, previous = one["volume"], one["close"] * one["volume"], c.shift()
        rate, change = np.log(c / previous), c.diff()
        sma = {n: c.rolling(n).mean() for n in (5, 10, 20, 50)}
        usual = v.rolling(20).mean()
        gain = change.clip(lower=0).ewm(alpha=1 / 14).mean()
        loss = (-change).clip(lower=0).ewm(alpha=1 / 14).mean()
        line = c.ewm(span=12).mean() - c.ewm(span=26).mean()
        signal = line.ewm(span=9).mean()
        band = 2 * c.rolling(20).std(ddof=0)
        true_range = np.maximum(h, previous) - np.minimum(lo, previous)
        spread = np.log(h / lo)
        garman_klass = 0.5 * spread**2 - (2 * np.log(2) - 1) * np.log(c / o) ** 2
        weekday, month = one["session"].dt.weekday, one["session"].dt.month - 1
        made = {
            "return_1": c / previous - 1,
            "log_return_1": rate,
            "volatility_20": rate.rolling(20).std(),
            **{f"close_to_sma_{n}": c / mean - 1 for n, mean in sma.items()},
            "sma_5_to_sma_20": sma[5] / sma[20] - 1,
            "sma_20_to_sma_50": sma[20] / sma[50] - 1,
            "volume_to_sma_20": v / usual,
            "volume_sma_5_to_sma_20": v.rolling(5).mean() / usual,
            "rsi_14": 100 * gain / (gain + loss),
            "macd": line / c,
            "macd_signal": signal / c,
            "macd_histogram": (line - signal) / c,
            "bollinger_position_20": 0.5 + (c - sma[20]) / (2 * band),
            "atr_14": true_range.ewm(alpha=1 / 14).mean() / c,
            **{f"return_{n}": c.pct_change(n) for n in (2, 3, 5, 10, 20, 60)},
            "close_to_high_252": c / h.rolling(252).max() - 1,
            "parkinson_20": np.sqrt((spread**2).rolling(20).mean() / (4 * np.log(2))),
            "garman_klass_20": np.sqrt(garman_klass.rolling(20).mean()),
            "overnight_gap": o / previous - 1,
            "intraday_return": c / o - 1,
            "intraday_range": (h - lo) / c,
            "volume_z_20": (v - usual) / v.rolling(20).std(),
            "dollar_volume_to_sma_20": turnover / turnover.rolling(20).mean(),
            "log_dollar_volume_20": np.log1p(turnover.rolling(20).mean()),
            "weekday_sin": np.sin(2 * np.pi * weekday / 5),
            "weekday_cos": np.cos(2 * np.pi * weekday / 5),
            "month_sin": np.sin(2 * np.pi * month / 12),
            "month_cos": np.cos(2 * np.pi * month / 12),
            "days_since_previous": one["session"].diff().dt.days,
            **{f"sma_{n}": mean for n, mean in sma.items()},
            "volume_sma_20": usual,
        }
        frames.append(one[["ticker", "session", "known_at"]].assign(**made))
    rows = pd.concat(frames, ignore_index=True)
    sessions = rows.groupby("session")
    market = sessions["return_1"].transform("mean")
    compared = {
        "market_return_1": market,
        "market_breadth": (rows["return_1"] > 0).groupby(rows["session"]).transform("mean"),
        **{
            f"return_{n}_less_market": rows[f"return_{n}"]
            - sessions[f"return_{n}"].transform("mean")
            for n in (1, 5, 20)
        },
    }
    for base in ("return_1", "return_20", "volatility_20", "log_dollar_volume_20"):
        compared[f"{base}_rank"] = (sessions[base].rank() - 1) / (
            sessions[base].transform("count") - 1
        )
    return rows.assign(**compared)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_size(tickers: int, sessions: int) -> dict[str, float]:
    """Features, then windows, of one size."""
    bars = make_bars(tickers, sessions)
    small = bars[bars["ticker"] < "T0002"]
    feature_table(small, small.iloc[:0])  # imports and caches
    before = peak_mib()
    took = [seconds(lambda: feature_table(bars, bars.iloc[:0])) for _ in range(3)]
    found = {"tickers": tickers, "features_s": statistics.median(took)}
    found["features_peak_extra_mib"] = peak_mib() - before
    days = sorted(bars["session"].unique())[-(WARM_UP + 1) :]
    recent = bars[bars["session"].isin(days)]
    found["incremental_day_s"] = statistics.median(
        seconds(lambda: feature_table(recent, recent.iloc[:0])) for _ in range(5)
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse(Path(folder) / "warehouse.duckdb")
        with store.batch() as batch:
            batch.append("raw_ohlcv", bars.assign(revision=0, is_final=True))
        names, span = store.tickers(), (date(2010, 1, 1), days[-1].date())
        found["bars_by_era_s"] = seconds(lambda: store.bars_by_era(names, *span, WARM_UP))
        found["bars_by_era_day_s"] = seconds(
            lambda: store.bars_by_era(names, span[1], span[1], WARM_UP)
        )
    return found


def windows(tickers: int, sessions: int) -> dict[str, float]:
    """The window index and one gathered batch; the matrix is what must be in memory anyway."""
    rng = np.random.default_rng(0)
    rows = make_bars(tickers, sessions)[["ticker", "session", "adj_close"]]
    axis = pd.DatetimeIndex(sorted(rows["session"].unique()))
    outcome = targets(rows, 1)
    shown = rows[["ticker", "session"]].assign(
        **{name: rng.normal(size=len(rows)) for name in COLUMNS}
    )
    matrix = ModelMatrix.build(shown, COLUMNS)
    before = peak_mib()
    started = time.perf_counter()
    index = window_index(matrix, outcome, axis, LOOKBACK)
    status = fold_status(matrix, index, walk_forward(len(axis), FoldSpec(), 1))
    indexed = time.perf_counter() - started
    ends = index["end_row"].to_numpy()
    batch = rng.choice(ends, 128)
    return {
        "windows": len(index),
        "folds_x_tickers": len(status),
        "index_s": indexed,
        "gather_128_us": 1e6
        * min(seconds(lambda: gather(matrix.values, batch, LOOKBACK)) for _ in range(20)),
        "matrix_mib": matrix.values.nbytes / 2**20,
        "peak_extra_mib": peak_mib() - before,
        "copied_windows_would_take_mib": len(index) * LOOKBACK * len(COLUMNS) * 4 / 2**20,
    }


def beside_pandas(tickers: int, sessions: int, rounds: int) -> dict[str, float]:
    """Alternating runs of both implementations, after checking that they agree."""
    bars = make_bars(tickers, sessions)
    few = bars[bars["ticker"] < "T0010"]
    ours, theirs = feature_table(few, few.iloc[:0]), pandas_features(few)
    recursive = {"rsi_14", "macd", "macd_signal", "macd_histogram", "atr_14"}
    for name in [*NAMES, *(feature.name for feature in MOVING_AVERAGES)]:
        # Windowed and recursive averages differ by the weight beyond the window.
        tolerance = 2e-2 if name in recursive else 1e-8
        late = ours.groupby("ticker").cumcount() >= WARM_UP
        if not np.allclose(ours[name][late], theirs[name][late], rtol=tolerance, atol=tolerance):
            raise SystemExit(f"{name} differs between the implementations")
    took: dict[str, list[float]] = {"panel": [], "pandas": []}
    for _ in range(rounds):
        took["panel"].append(seconds(lambda: feature_table(bars, bars.iloc[:0])))
        took["pandas"].append(seconds(lambda: pandas_features(bars)))
    whole = feature_table(bars, bars.iloc[:0])
    medians = {name: statistics.median(times) for name, times in took.items()}
    return {f"{name}_s": value for name, value in medians.items()} | {
        "ratio": medians["pandas"] / medians["panel"],
        "columns": len(NAMES) + len(MOVING_AVERAGES),
        "cross_section_alone_s": seconds(lambda: cross_features(whole)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2_500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", default="", help="used by the benchmark itself")
    asked = parser.parse_args()
    if asked.part:
        part = {"size": one_size, "windows": windows}.get(asked.part)
        found = (
            part(asked.tickers, asked.sessions)
            if part
            else beside_pandas(asked.tickers, asked.sessions, asked.rounds)
        )
        print(json.dumps(found))
        return

    def run(part: str, tickers: int) -> dict[str, float]:
        command = [sys.executable, __file__, "--part", part, "--tickers", str(tickers)]
        command += ["--sessions", str(asked.sessions), "--rounds", str(asked.rounds)]
        environment = os.environ | ALLOCATOR
        ran = subprocess.run(command, check=True, capture_output=True, env=environment)
        return json.loads(ran.stdout)

    sizes = [n for n in (50, 100, asked.tickers) if n <= asked.tickers]
    report = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load"
        f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, numpy"
        f" {np.__version__}, pandas {pd.__version__}",
        "sessions": asked.sessions,
        "growth": [run("size", n) for n in sizes],
        "windows": run("windows", asked.tickers),
        "beside_pandas": run("pandas", asked.tickers),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
