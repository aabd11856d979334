"""Can the evidence be fooled? Markets without a signal, with a planted one, and with a leak.

    python -m benchmarks.null_markets [--part null] [--tickers 60] [--bars ohlcv.parquet]

Every market goes through ``chain.run``, the whole pipeline without Dagster: bars and headlines,
features, windows, networks, forecasts, evidence. Prints one table as JSON; ``--figure`` keeps the
power against the strength of the signal as SVG.

- null: the share of tickers that any model is ever graded on, at any fold, and the mean skill.
- power: how often a planted signal is found, beside ridge regression on the same windows.
- leak: which leaks of the museum show in the figures alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.made_up import DAILY, garch
from rnn_pipeline import chain
from rnn_pipeline.chain import STAGES, Stages
from rnn_pipeline.evidence.lookahead import Knowledge
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.plausibility import implausible
from rnn_pipeline.evidence.significance import LEVELS, overall_evidence
from rnn_pipeline.features.windows import FoldData, gather
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import Settings, load_settings

CALENDAR = SessionCalendar()
FIRST = pd.Timestamp("2000-03-01")
PHRASES = {
    "positive": ("gains", "rises", "beats forecasts", "soars", "wins a contract"),
    "negative": ("falls", "slumps", "misses forecasts", "plunges", "loses a lawsuit"),
    "neutral": ("holds a meeting", "names a director", "moves its office", "plans a call"),
}
RIDGE_PENALTY = 10.0

Returns = Callable[[np.random.Generator, int], np.ndarray]


def random_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(0.0003, DAILY, n)


def linear(strength: float) -> Returns:
    """Each return continues the last one: the correlation of the two is the strength."""

    def simulate(rng: np.random.Generator, n: int) -> np.ndarray:
        shocks = rng.standard_normal(n) * np.sqrt(1 - strength**2)
        path = np.zeros(n)
        for day in range(1, n):
            path[day] = strength * path[day - 1] + shocks[day]
        return DAILY * path

    return simulate


def exclusive_or(strength: float) -> Returns:
    """A return leans to the product of the signs of those 3 and 7 sessions ago.

    No linear function of the past says anything about it.
    """

    def simulate(rng: np.random.Generator, n: int) -> np.ndarray:
        path = rng.standard_normal(n)
        for day in range(7, n):
            side = np.sign(path[day - 3] * path[day - 7])
            path[day] = strength * side + np.sqrt(1 - strength**2) * path[day]
        return DAILY * path

    return simulate


def bars_of(ticker: str, returns: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Bars of a ticker that opens at random around its last close."""
    close = 50 * np.exp(returns.cumsum())
    opening = np.concatenate([[50.0], close[:-1]]) * np.exp(rng.normal(0, 0.003, len(close)))
    shape = {
        "open": opening,
        "high": np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.003, len(close)))),
        "low": np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.003, len(close)))),
        "close": close,
        "volume": np.exp(rng.normal(13, 0.4, len(close))),
    }
    return raw_bars(ticker, pd.DataFrame(shape))


def shuffled(ticker: str, real: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Real sessions in random order: each keeps its return, its shape and its volume."""
    before = real["adj_close"].shift(1)
    scale = real["adj_close"] / real["close"]
    parts = {name: np.log(real[name] * scale / before) for name in ("open", "high", "low", "close")}
    days = pd.DataFrame(parts).assign(volume=real["volume"]).iloc[1:]
    days = days.iloc[rng.permutation(len(days))].reset_index(drop=True)
    level = np.exp(np.log(50) + days["close"].cumsum().shift(1, fill_value=0.0))
    moved = {name: level * np.exp(days[name]) for name in ("open", "high", "low", "close")}
    return raw_bars(ticker, pd.DataFrame(moved).assign(volume=days["volume"]))


def raw_bars(ticker: str, shape: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``raw_ohlcv`` from prices and volumes, session after session from the first."""
    # 252 sessions a year are seven in ten days.
    last = FIRST + pd.Timedelta(days=len(shape) * 3 // 2 + 10)
    sessions = CALENDAR.sessions(FIRST, last)[: len(shape)]
    return pd.DataFrame(
        {
            "ticker": pd.Series([ticker] * len(shape), dtype="str"),
            "session": sessions,
            "revision": 0,
            "known_at": CALENDAR.closes(sessions),
            **{name: shape[name].to_numpy() for name in shape},
            "adj_close": (
                shape["adj_close"] if "adj_close" in shape else shape["close"]
            ).to_numpy(),
            "dividend": 0.0,
            "split": 0.0,
            "is_final": True,
            "provenance": "assumed",
            "reason": "first load",
            "fetch_id": "",
        }
    )


def knowledge_of(bars: Sequence[pd.DataFrame], rng: np.random.Generator) -> Knowledge:
    """Bars, and headlines every fourth session that know nothing, in a mood that lasts a while."""
    every = pd.concat(bars, ignore_index=True)
    told = every[every.groupby("ticker").cumcount() % 4 == 0]
    moods = np.array(list(PHRASES))[np.repeat(rng.integers(0, 3, len(told) // 3 + 1), 3)]
    titles = [
        f"{ticker} {rng.choice(PHRASES[mood])}"
        for ticker, mood in zip(told["ticker"], moods, strict=False)
    ]
    published = (told["known_at"] - pd.Timedelta(hours=1)).array
    headlines = pd.DataFrame(
        {
            "news_id": [f"n{row}" for row in range(len(told))],
            "ticker": told["ticker"].array,
            "revision": 0,
            **dict.fromkeys(("published_at", "first_seen_at", "known_at", "usable_at"), published),
            "title": pd.Series(titles, dtype="str"),
            **dict.fromkeys(("summary", "url", "fetch_id"), ""),
            "provider": "simulated",
            "provenance": "assumed",
        }
    )
    corpus = pd.DataFrame(
        [
            (f"{firm} {phrase}", mood)
            for mood, phrases in PHRASES.items()
            for phrase in phrases
            for firm in ("Acme", "Bolt", "Crux", "Dune", "Echo", "Flux")
        ],
        columns=["headline", "label"],
    )
    return Knowledge(every, headlines, corpus.assign(split="train", source="simulated"))


def settings(
    features: Iterable[str],
    train_size: int,
    test_size: int,
    network: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Settings:
    """One small network per ticker and fold."""
    return load_settings(
        source="sample",
        folds={"train_size": train_size, "val_size": train_size // 5, "test_size": test_size},
        model={
            "features": list(features),
            "lookback": 8,
            "seeds": [0],
            "networks": {"network": network},
            "training": {"batch_size": 64, **training},
            "sentiment": {"embed_dim": 8, "hidden_size": 8, "training": {"epochs": 3}},
        },
    )


GRU = {"cell": "gru", "hidden_sizes": [8]}
FEATURES = ("return_1", "volatility_20", "close_to_sma_5", "sentiment")


def null_settings() -> Settings:
    return settings(FEATURES, 500, 250, GRU, {"epochs": 4, "learning_rate": 0.01})


def scored(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The chain's forecasts beside what happened."""
    outcomes = frames["targets"][["ticker", "session", "target"]]
    forecasts = frames["forecasts"].merge(outcomes, on=["ticker", "session"], how="left")
    return forecasts.rename(columns={"target": "actual"})


def interval(values: pd.Series) -> list[float]:
    """Mean with its 95 % interval over tickers, which are independent here."""
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(value), 5) for value in (mean, mean - 1.96 * error, mean + 1.96 * error)]


def share(found: int, of: int) -> dict[str, Any]:
    exact = binomtest(found, of).proportion_ci(0.95, "exact")
    return {"found": found, "of": of, "share": found / of, "interval": [exact.low, exact.high]}


def real_bars(source: Path | None) -> list[pd.DataFrame]:
    """Histories of real tickers: the embedded ones, or those of a Parquet file."""
    if source is not None:
        table = pd.read_parquet(source).sort_values("date")
        return [own.reset_index(drop=True) for _, own in table.groupby("ticker")]
    from bokeh_sampledata.stocks import AAPL, GOOG, IBM, MSFT

    return [pd.DataFrame(table) for table in (AAPL, GOOG, IBM, MSFT)]


def permuted_labels(rng: np.random.Generator) -> Stages:
    """The pipeline with each ticker's outcomes in random order."""

    def permuted(bars: pd.DataFrame, horizon: int) -> pd.DataFrame:
        outcomes = STAGES.targets(bars, horizon).sort_values(["ticker", "session"])
        known = outcomes.dropna(subset="target")
        mixed = known.groupby("ticker")["target"].transform(
            lambda own: rng.permutation(own.to_numpy())
        )
        return outcomes.assign(target=mixed)

    return replace(STAGES, targets=permuted)


def null_markets(tickers: int, sessions: int, source: Path | None) -> dict[str, Any]:
    """Each kind of null market: who is ever graded, and how good the forecasts say they are."""
    real = real_bars(source)
    rng = np.random.default_rng(7)
    names = [f"N{number:03d}" for number in range(tickers)]
    simulated = {
        "random walk": [bars_of(name, random_walk(rng, sessions), rng) for name in names],
        "GARCH, fat tails, no drift": [bars_of(name, garch(rng, sessions), rng) for name in names],
        "real sessions, shuffled": [
            shuffled(name, real[place % len(real)], rng).iloc[:sessions]
            for place, name in enumerate(names)
        ],
        "real bars, permuted labels": [
            raw_bars(name, real[place % len(real)].iloc[:sessions].drop(columns=["date"]))
            for place, name in enumerate(names)
        ],
    }
    found: dict[str, Any] = {}
    pooled, skill = [0, 0], []
    for kind, bars in simulated.items():
        started = time.perf_counter()
        stages = permuted_labels(rng) if "labels" in kind else STAGES
        frames = chain.run(knowledge_of(bars, rng), null_settings(), stages)
        forecasts = scored(frames)
        evidence = frames["evidence"]
        graded = evidence.assign(found=evidence["grade"] != "none")
        looks = overall_evidence(forecasts)
        last = looks[looks["grade"] != "none"]["ticker"]
        any_model = graded.groupby("ticker")["found"].any()
        any_model.loc[any_model.index.isin(last)] = True
        by_ticker = forecast_metrics(forecasts, by=("ticker", "model"))
        own = ic_within_folds(forecasts)
        skill.append((by_ticker, own))
        pooled = [pooled[0] + int(any_model.sum()), pooled[1] + len(any_model)]
        found[kind] = {
            "tickers_ever_graded": share(int(any_model.sum()), len(any_model)),
            "by_model": {
                model: int(own.groupby("ticker")["found"].any().sum())
                for model, own in graded.groupby("model")
            },
            "folds": int(forecasts["fold"].nunique()),
            "forecasts_per_ticker": float(by_ticker["n"].median()),
            **mean_skill(by_ticker, own),
            "seconds": round(time.perf_counter() - started),
        }
        progress(kind, found[kind])
    found["all"] = {
        "tickers_ever_graded": share(*pooled),
        "level": LEVELS["weak"],
        **mean_skill(*map(pd.concat, zip(*skill, strict=True))),
    }
    return found


def ic_within_folds(forecasts: pd.DataFrame) -> pd.Series:
    """Each ticker's information coefficient within folds, averaged over them by their forecasts.

    Every fold has a network of its own, which has learned the mean of the folds before. Ranked
    across folds, that is a bet that the mean persists; of independent outcomes, those before are
    the higher in the sample the lower these are, so it loses a little (Kendall 1954).
    """
    keys = ["ticker", "model"]
    folds = forecast_metrics(forecasts, by=(*keys, "fold")).dropna(subset="ic")
    weighted = folds.assign(ic=folds["ic"] * folds["n"]).groupby(keys)[["ic", "n"]].sum()
    return weighted["ic"] / weighted["n"]


def mean_skill(metrics: pd.DataFrame, within_folds: pd.Series) -> dict[str, list[float]]:
    """What the networks say of themselves, on average over tickers."""
    return {"mean_ic_within_folds": interval(within_folds)} | {
        f"mean_{name}": interval(metrics[name].dropna()) for name in ("ic", "ic_t", "r2_vs_zero")
    }


def ridge(data: FoldData) -> np.ndarray:
    """Ridge regression on the windows that the networks of a fold train on, asked at its test.

    Returns:
        (n_test,) scaled as the targets were.
    """
    flat = gather(data.inputs, np.concatenate([data.train_ends, data.test_ends]), data.lookback)
    flat = flat.reshape(len(flat), -1).astype(np.float64)
    flat = np.column_stack([flat, np.ones(len(flat))])
    train, test = np.split(flat, [len(data.train_ends)])
    penalty = RIDGE_PENALTY * np.eye(train.shape[1])
    penalty[-1, -1] = 0.0
    moments = train.T @ data.targets[data.train_ends].astype(np.float64)
    return test @ np.linalg.solve(train.T @ train + penalty, moments)


def beside_ridge(datasets: Iterable[FoldData], models: Sequence[Any]) -> pd.DataFrame:
    """The stage that forecasts, with ridge regression as one model more."""
    every = list(datasets)
    lines = [
        pd.DataFrame(
            {
                "ticker": data.ticker,
                "session": pd.DatetimeIndex(data.sessions[data.test_ends]),
                "fold": data.fold,
                "model": "ridge",
                "seed": 0,
                "forecast": data.target_scaler.inverse(ridge(data)),
                "model_hash": "ridge",
            }
        )
        for data in every
    ]
    return pd.concat([STAGES.forecasts(every, models), *lines], ignore_index=True)


@dataclass(frozen=True)
class Plant:
    """A signal, how it is learned, and the strengths that are tried."""

    returns: Callable[[float], Returns]
    strengths: tuple[float, ...]
    train_size: int
    test_size: int
    tested: int
    network: Mapping[str, Any]
    training: Mapping[str, Any]


# A product of two signs has no slope to follow at first: it takes long training, and data.
XOR_TRAINING = {
    "epochs": 40,
    "learning_rate": 0.005,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "weight_decay": 0.0,
    "patience": None,
}
PLANTED = {
    "linear": Plant(
        linear, (0.02, 0.05, 0.10, 0.20), 1000, 250, 2000, GRU, {"epochs": 8, "learning_rate": 0.01}
    ),
    "xor": Plant(
        exclusive_or,
        (0.02, 0.05, 0.10, 0.20, 0.30, 0.40),
        *(3000, 1000, 2000),
        {"cell": "rnn", "hidden_sizes": [16]},
        XOR_TRAINING,
    ),
    # One network over all tickers, which carry the same signal.
    "xor, pooled": Plant(
        exclusive_or,
        (0.10, 0.20, 0.30),
        *(3000, 1000, 2000),
        {"cell": "gru", "hidden_sizes": [16], "pooled": True},
        XOR_TRAINING | {"batch_size": 256, "learning_rate": 0.01},
    ),
}


def power(signals: Sequence[str], tickers: int) -> list[dict[str, Any]]:
    """How often each model finds a signal of each kind and strength, by the end of its history."""
    lines = []
    for signal in signals:
        plant = PLANTED[signal]
        asked = settings(
            ["return_1"], plant.train_size, plant.test_size, plant.network, plant.training
        )
        sessions = plant.train_size + asked.folds.val_size + plant.tested
        for strength in plant.strengths:
            started = time.perf_counter()
            rng = np.random.default_rng(int(1000 * strength))
            bars = [
                bars_of(f"P{number:03d}", plant.returns(strength)(rng, sessions), rng)
                for number in range(tickers)
            ]
            stages = replace(STAGES, forecasts=beside_ridge)
            forecasts = scored(chain.run(knowledge_of(bars, rng), asked, stages))
            evidence = overall_evidence(forecasts)
            for model, own in evidence.groupby("model"):
                found = int((own["grade"] != "none").sum())
                lines.append(
                    {
                        "signal": signal,
                        "strength": strength,
                        "model": model,
                        **share(found, len(own)),
                        "mean_ic": interval(own["ic"].fillna(0.0)),
                        "forecasts_per_ticker": float(own["n"].median()),
                        "seconds": round(time.perf_counter() - started),
                    }
                )
                progress(signal, lines[-1])
    return lines


def leaks(tickers: int, sessions: int) -> dict[str, Any]:
    """Which leaks of the museum make a random walk look too good to be true."""
    from rnn_pipeline_tests.leaks.museum import EXHIBITS

    rng = np.random.default_rng(11)
    bars = [bars_of(f"L{number:03d}", random_walk(rng, sessions), rng) for number in range(tickers)]
    knowledge = knowledge_of(bars, rng)
    runs = {"no leak": STAGES} | {exhibit.name: exhibit.leak(knowledge) for exhibit in EXHIBITS}
    found = {}
    for name, stages in runs.items():
        forecasts = scored(chain.run(knowledge, null_settings(), stages))
        one, all_together = (
            forecast_metrics(forecasts, by) for by in (("ticker", "model"), ("model",))
        )
        flagged = implausible(pd.concat([one, all_together]))
        found[name] = {
            "pooled_ic": round(float(all_together["ic"].iloc[0]), 4),
            "pooled_hit_rate": round(float(all_together["hit_rate"].iloc[0]), 4),
            "flagged": bool(len(flagged)),
            "figures": sorted(set(flagged["figure"])),
        }
        progress(name, found[name])
    return found


def progress(name: str, found: Mapping[str, Any]) -> None:
    print(name, json.dumps(found), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("null", "power", "leak", "all"), default="all")
    parser.add_argument("--tickers", type=int, default=60, help="of each null market")
    parser.add_argument("--planted", type=int, default=12, help="tickers per planted signal")
    parser.add_argument("--signals", nargs="+", choices=PLANTED, default=list(PLANTED))
    parser.add_argument("--sessions", type=int, default=1600)
    parser.add_argument("--bars", type=Path, help="Parquet file of real bars, for the embedded")
    parser.add_argument("--figure", type=Path, help="where to keep the plot of power")
    asked = parser.parse_args()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load"
        f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
    }
    if asked.part in ("null", "all"):
        report["null"] = null_markets(asked.tickers, asked.sessions, asked.bars)
    if asked.part in ("leak", "all"):
        report["leak"] = leaks(asked.planted, asked.sessions)
    if asked.part in ("power", "all"):
        report["power"] = power(asked.signals, asked.planted)
    if asked.figure and "power" in report:
        from rnn_pipeline.reporting.evidence_plots import power_curves
        from rnn_pipeline.reporting.plots import svg

        asked.figure.write_text(svg(power_curves(pd.DataFrame(report["power"]))))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
