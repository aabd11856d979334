"""How cost grows with the universe: each stage measured at several sizes, and a model of the rest.

    python -m benchmarks.scale [--parts universes wide training events] [--write]

- universes: made-up bars of 24 to 500 tickers and 2 to 8 years go through the jobs ``refresh``,
  ``retrain`` and ``decide`` from nothing, and one evening more through ``daily``. Three networks
  with two seeds, as the defaults, but of 8 units and trained for one epoch. By stage: processor and
  wall seconds, those with the warehouse's lock held, memory; and bytes of what is stored.
- wide: 500 to 5,000 tickers by one year, taken in and made into features without Dagster.
- training: the default networks on the default folds, a sample of the members (each is trained for
  itself, so a fleet costs its multiple), the smallest network, and a fold's baselines.
- events: Dagster alone, with empty assets of up to 5,000 tickers by the months of a year.

Every figure comes from a process of its own. ``--write`` replaces the kept figures of the parts
that were run, and the page's tables and picture, which are made of all of them; ``--page`` makes
these alone.
Only on Linux: threads and memory are read from its clocks and files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import growth_page
from benchmarks.growth_page import BASELINES
from benchmarks.made_up import SOON_TRAINED, drop, environment, universe
from benchmarks.meter import Meter

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd

RESULTS = Path(__file__).parent / "results" / "scale.json"
SETTINGS = """
source = "files"
drop_dir = "{drop}"
start = {start}
tickers = [{tickers}]

[folds]
train_size = {train}
val_size = {val}
test_size = 250

[model.networks.lstm]
cell = "lstm"
hidden_sizes = [8]

[model.networks.gru]
cell = "gru"
hidden_sizes = [8]

[model.networks.stacked_lstm]
cell = "lstm"
hidden_sizes = [8, 8]

[compute]
backend = "cpu"
{soon_trained}"""
LAST = "2024-06-24"
A_YEAR = 252
"""Sessions."""
UNIVERSES = ((24, 2), (24, 8), (100, 2), (500, 2))
"""Tickers and years; with fewer than two the features' warm-up leaves no fold."""
SAMPLED_FROM = (24, 8)
"""The universe whose bars the sample of members learns from."""
WIDE = (500, 1500, 5000)
EVENTS = ((24, 10), (500, 1), (1500, 1), (5000, 1))
TICKERS_SAMPLED = 4

STAGES = {
    "ingest": ("raw_ohlcv", "raw_news"),
    "features": ("price_features", "news_sentiment", "model_features"),
    "windows": ("sequence_windows",),
    "training": ("lstm_forecaster", "gru_forecaster", "stacked_lstm_forecaster"),
    "baselines": ("baseline_forecasts",),
    "evaluation": ("walk_forward_forecasts",),
    "signals": ("price_signals", "sentiment_signals", "trading_signals"),
    "decisions": ("trading_decisions", "paper_account"),
    "report": ("walk_forward_report",),
    "sentiment model": ("labelled_headlines", "sentiment_model", "gradient_flow"),
}
STORED = {
    "warehouse": "warehouse.duckdb",
    "payloads": "payloads",
    "matrices": "matrices",
    "networks": "checkpoints",
    "Dagster": "dagster",
}


def stage_of(step: str) -> str:
    """The stage that an asset, or a check beside it, belongs to."""
    return next(
        stage for stage, assets in STAGES.items() if any(step.startswith(own) for own in assets)
    )


@contextmanager
def turns() -> Iterator[list[tuple[float, float]]]:
    """When the warehouse's lock is held for writing while the context is open."""
    from rnn_pipeline.warehouse import Warehouse

    spans: list[tuple[float, float]] = []
    original = Warehouse.batch

    @contextmanager
    def timed(store: Warehouse) -> Iterator[Any]:
        begun = time.time()
        with original(store) as batch:
            yield batch
        spans.append((begun, time.time()))

    Warehouse.batch = timed  # type: ignore[method-assign,assignment]
    try:
        yield spans
    finally:
        Warehouse.batch = original  # type: ignore[method-assign]


def used(call: Callable[[], Any]) -> dict[str, float]:
    """Processor and wall seconds of a call, and those with the warehouse's lock held."""
    with turns() as held, Meter() as meter:
        begun = time.time()
        call()
        ended = time.time()
    return of_span(meter, held, begun, ended)


def of_span(
    meter: Meter, held: Sequence[tuple[float, float]], begun: float, ended: float
) -> dict[str, float]:
    """What the meter saw between two moments."""
    found = meter.between(begun, ended)
    locked = [
        meter.between(max(start, begun), min(stop, ended))
        for start, stop in held
        if start < ended and stop > begun
    ]
    spent = {
        "s": found["seconds"],
        "processor_s": found["processor_seconds"],
        "main_thread_s": found["main_thread_seconds"],
        "held_s": sum(one["seconds"] for one in locked),
        "held_processor_s": sum(one["processor_seconds"] for one in locked),
        "peak_mb": found["peak_mb"],
    }
    return {name: round(value, 3) for name, value in spent.items()}


def added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Figures of several spans together."""
    return {
        name: round((max if name == "peak_mb" else sum)(part[name] for part in parts), 3)
        for name in parts[0]
    }


def run_jobs(
    instance: dg.DagsterInstance, jobs: Sequence[tuple[str, dict[str, str]]]
) -> dict[str, Any]:
    """Run jobs one after the other; what the bodies of each stage's assets used, and the rest."""
    from dagster import DagsterEventType

    from rnn_pipeline import cli

    runs: list[tuple[str, float, float]] = []
    with turns() as held, Meter() as meter:
        for name, tags in jobs:
            begun = time.time()
            cli.run_job(instance, name, tags)
            runs.append((instance.get_runs(limit=1)[0].run_id, begun, time.time()))
    bodies: dict[str, list[dict[str, float]]] = {}
    kinds = {DagsterEventType.STEP_START, DagsterEventType.STEP_OUTPUT}
    for run_id, *_ in runs:
        started: dict[str, float] = {}
        for entry in instance.all_logs(run_id, of_type=kinds):
            event = entry.dagster_event
            if event is None or event.step_key is None:
                continue
            if event.event_type is DagsterEventType.STEP_START:
                started[event.step_key] = entry.timestamp
            elif event.step_key in started:
                span = (started.pop(event.step_key), entry.timestamp)
                bodies.setdefault(stage_of(event.step_key), []).append(of_span(meter, held, *span))
    by_stage = {name: added(bodies[name]) for name in STAGES if name in bodies}
    whole = added([of_span(meter, held, begun, ended) for _, begun, ended in runs])
    by_stage["Dagster"] = {
        name: 0.0
        if name == "peak_mb"
        else round(value - sum(own[name] for own in by_stage.values()), 3)
        for name, value in whole.items()
    }
    return {**whole, "by_stage": by_stage}


def imports() -> dict[str, float]:
    """What loading the code location takes."""

    def load() -> None:
        from rnn_pipeline.definitions import defs

        defs.resolve_job_def("daily")

    wall, processor = time.perf_counter(), time.process_time()
    load()
    return {
        "s": round(time.perf_counter() - wall, 2),
        "processor_s": round(time.process_time() - processor, 2),
    }


def rebuild() -> dict[str, Any]:
    """Everything from nothing, with the settings in force."""
    loading = imports()
    from rnn_pipeline import cli
    from rnn_pipeline.defs.automation import stages
    from rnn_pipeline.defs.partitions import SETTINGS

    with cli.prepare(SETTINGS) as instance:
        found = run_jobs(instance, stages(instance))
    return {"imports": loading, **found}


def evening() -> dict[str, Any]:
    """The daily run, with a session that has come."""
    loading = imports()
    from rnn_pipeline import cli
    from rnn_pipeline.defs import automation
    from rnn_pipeline.defs.partitions import SETTINGS, last_day, range_tags
    from rnn_pipeline.defs.resources import WAREHOUSE

    with cli.prepare(SETTINGS) as instance:
        tickers, since = automation.evening(instance, WAREHOUSE)
        tags = range_tags(tickers, since, last_day(SETTINGS))
        found = run_jobs(instance, [("daily", tags)])
    decided = WAREHOUSE.store.rows("trading_decisions", "ticker", session=last_day(SETTINGS))
    assert len(decided) == len(tickers), f"{len(decided)} of {len(tickers)} have a decision"
    return {"imports": loading, **found}


def shared() -> dict[str, Any]:
    """What features of one ticker cost that compares itself with all: each node's own share."""
    from rnn_pipeline.defs.partitions import SETTINGS, first_session
    from rnn_pipeline.defs.resources import WAREHOUSE
    from rnn_pipeline.features import catalogue

    store = WAREHOUSE.store
    one, *rest = store.tickers()
    last = store.last_session()
    assert last is not None

    def compare(first: date) -> None:
        bars = store.bars_by_era([one], first, last, catalogue.WARM_UP)
        others = store.bars_by_era(rest, first, last, catalogue.UNIVERSE_WARM_UP)
        catalogue.feature_table(bars, others)

    compare(last)
    return {
        "evening": used(lambda: compare(last)),
        "rebuild": used(lambda: compare(first_session(SETTINGS))),
    }


def wide() -> dict[str, Any]:
    """Bars into the warehouse and their features, of a history and of one session more."""
    from rnn_pipeline.defs.partitions import SETTINGS, first_session
    from rnn_pipeline.defs.resources import MARKET, WAREHOUSE
    from rnn_pipeline.features import catalogue, price
    from rnn_pipeline.market.ingest import Request, ingest_bars

    store, tickers, begins = WAREHOUSE.store, list(SETTINGS.tickers), first_session(SETTINGS)
    coming = SETTINGS.data_dir / "coming.parquet"

    def take_in() -> None:
        request = Request(tickers, begins, date.fromisoformat(LAST), "")
        ingest_bars(store, WAREHOUSE.payloads, MARKET.feed, MARKET.calendar, request)

    def make_features(first: date, last: date) -> None:
        bars = store.bars_by_era(tickers, first, last, catalogue.WARM_UP)
        rows = catalogue.feature_table(bars, bars.iloc[:0])
        outcomes = price.targets(bars, 1).dropna(subset="target")
        with store.batch() as batch:
            batch.append("price_features", rows.assign(feature_set_hash=""))
            batch.upsert("targets", outcomes)

    def newest() -> date:
        found = store.last_session()
        assert found is not None
        return found

    first = used(take_in)
    features = used(lambda: make_features(begins, newest()))
    coming.rename(SETTINGS.data_dir / "drop" / coming.name)
    second = used(take_in)
    return {
        "rebuild": {"ingest": first, "features": features},
        "evening": {
            "ingest": second,
            "features": used(lambda: make_features(newest(), newest())),
        },
    }


def training() -> dict[str, Any]:
    """A sample of members on the default folds: seconds of one, whichever its architecture."""
    import torch

    from rnn_pipeline.defs.features import COLUMNS
    from rnn_pipeline.defs.networks import read_fold_datasets
    from rnn_pipeline.defs.resources import MARKET, WAREHOUSE
    from rnn_pipeline.evidence.baselines import walk_forward_baselines
    from rnn_pipeline.networks.fleet import Compute
    from rnn_pipeline.networks.walk_forward import train_walk_forward
    from rnn_pipeline.settings import ModelSettings, NetworkSpec, TrainingSpec

    model = ModelSettings()
    sampled = WAREHOUSE.store.tickers()[:TICKERS_SAMPLED]
    asked = {
        "smallest": (NetworkSpec(cell="lstm", hidden_sizes=(8,)), TrainingSpec(epochs=1)),
        **{name: (network, model.training) for name, network in model.networks.items()},
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:

        def train(
            name: str, network: NetworkSpec, spec: TrainingSpec, tickers: list[str], threads: int
        ) -> int:
            torch.set_num_threads(threads)

            def keep(made: Sequence[Any]) -> None:
                for one in made:
                    one.save(Path(folder) / name / f"{one.ticker}.safetensors", {})

            return train_walk_forward(
                name,
                COLUMNS,
                read_fold_datasets(WAREHOUSE, MARKET, tickers, 1),
                network,
                spec,
                model.seeds,
                Compute(torch.device("cpu"), "cpu"),
                {},
                keep,
            )

        for name, (network, spec) in asked.items():
            train(name, network, TrainingSpec(epochs=1), sampled[:1], 1)  # compiled by now
            alone, together = (
                used(partial(train, name, network, spec, sampled, threads)) for threads in (1, 2)
            )
            files = list((Path(folder) / name).iterdir())
            networks = train(name, network, TrainingSpec(epochs=1), sampled, 2)
            in_threads = alone["processor_s"] - alone["main_thread_s"]
            found[name] = {
                "networks": networks,
                "processor_s_of_one": round(in_threads / networks, 5),
                "main_thread_s_of_one": round(alone["main_thread_s"] / networks, 5),
                "per_s_on_one_core": round(networks / in_threads, 1),
                "per_s_by_the_clock_on_two": round(networks / together["s"], 1),
                "bytes_of_one": round(sum(file.stat().st_size for file in files) / networks),
            }
    torch.set_num_threads(1)
    targets = WAREHOUSE.store.rows("targets", ticker=sampled, horizon=1)
    fitted = 0

    def fit(tickers: list[str]) -> None:
        nonlocal fitted
        datasets = read_fold_datasets(WAREHOUSE, MARKET, tickers, 1)
        _, fitted = walk_forward_baselines(datasets, targets)

    fit(sampled[:1])  # imported by now
    spent = used(partial(fit, sampled))
    found[BASELINES] = {
        "folds": fitted,
        "processor_s_of_one": round(spent["processor_s"] / fitted, 5),
    }
    return found


def events() -> dict[str, Any]:
    """Dagster alone: every partition of an empty asset in one run, and the newest date's."""
    from benchmarks.orchestration import run_probe
    from rnn_pipeline import cli
    from rnn_pipeline.defs.partitions import DATES, SETTINGS, register_tickers

    with cli.prepare(SETTINGS) as instance:
        tickers = register_tickers(instance, SETTINGS)
        keys = [date.fromisoformat(key) for key in DATES.get_partition_keys()]
        newest = used(lambda: run_probe(instance, tickers, keys[-1], keys[-1]))
        before = stored(SETTINGS.home)["Dagster"]
        every = used(lambda: run_probe(instance, tickers, keys[0], keys[-1]))
    partitions = len(tickers) * len(keys)
    return {
        "partitions": partitions,
        "every partition": every,
        "newest date": newest,
        "bytes_of_one": round((stored(SETTINGS.home)["Dagster"] - before) / partitions),
        "processor_ms_of_one": round(1000 * every["processor_s"] / partitions, 3),
    }


PARTS_HERE = {call.__name__: call for call in (rebuild, evening, shared, wide, training, events)}


def stored(home: Path) -> dict[str, int]:
    """Bytes of what lies in a data folder."""
    return {
        name: sum(
            file.stat().st_size
            for file in ([home / part] if (home / part).is_file() else (home / part).rglob("*"))
            if file.is_file()
        )
        for name, part in STORED.items()
    }


def axis_of(years: float, more: int = 0) -> pd.DatetimeIndex:
    """The newest sessions: so many years, and ``more`` behind them."""
    import pandas as pd

    from rnn_pipeline.market.calendar import SessionCalendar

    axis = SessionCalendar("XNYS").sessions(date(2000, 1, 3), pd.Timestamp(LAST))
    return axis[-(round(years * A_YEAR) + more) :]


def furnish(folder: Path, tickers: int, years: float, bars: bool = True) -> None:
    """Settings, and bars in the drop folder but for the newest session, which is to come."""
    axis = axis_of(years, more=1)
    names = [f"T{number:04d}" for number in range(tickers)]
    (folder / "drop").mkdir()
    settings = SETTINGS.format(
        drop=folder / "drop",
        start=axis[0].date().isoformat(),
        tickers=json.dumps(names)[1:-1],
        train=round(0.4 * len(axis)),
        val=round(0.05 * len(axis)),
        soon_trained=SOON_TRAINED,
    )
    (folder / "settings.toml").write_text(settings)
    if bars:
        made = universe(names, axis)
        drop(made[made["session"] < axis[-1]], folder / "drop", "history")
        drop(made[made["session"] == axis[-1]], folder, "coming")


def ask(folder: Path, part: str, **more: str) -> dict[str, Any]:
    """One part in a process of its own, with the settings of a folder; and its peak of memory."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.scale", "--here", part],
        env=environment(folder / "settings.toml", folder) | more,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("RNN_PIPELINE_SCALE_LOG") else subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tell(name: str, found: Mapping[str, Any]) -> None:
    """A figure as it comes: the whole takes a quarter of an hour."""
    print(f"{datetime.now(UTC):%H:%M:%S} {name}: {json.dumps(found)}", file=sys.stderr, flush=True)


def size(tickers: float, years: float) -> str:
    return f"{tickers} x {years}"


def measure_universes(known: dict[str, Any]) -> dict[str, Any]:
    """Each universe through the jobs."""
    for tickers, years in UNIVERSES:
        with tempfile.TemporaryDirectory() as passing:
            folder, name = Path(passing), size(tickers, years)
            furnish(folder, tickers, years)
            found: dict[str, Any] = {"tickers": tickers, "years": years}
            found["rebuild"] = ask(folder, "rebuild")
            tell(f"{name}, rebuild", found["rebuild"])
            found["bytes"] = stored(folder / "files")
            (folder / "coming.parquet").rename(folder / "drop" / "coming.parquet")
            found["evening"] = ask(folder, "evening")
            tell(f"{name}, evening", found["evening"])
            found["shared"] = ask(folder, "shared")
            tell(f"{name}, what every node repeats", found["shared"])
            tell(f"{name}, bytes", found["bytes"])
        known[name] = found
    return known


def measure_wide(known: dict[str, Any]) -> dict[str, Any]:
    """Many tickers, one year."""
    for tickers in WIDE:
        with tempfile.TemporaryDirectory() as passing:
            folder, name = Path(passing), size(tickers, 1)
            furnish(folder, tickers, 1)
            found = {"tickers": tickers, "years": 1, **ask(folder, "wide")}
            tell(f"{name}, without Dagster", found)
        known[name] = found
    return known


def measure_training(_: dict[str, Any]) -> dict[str, Any]:
    """A sample of members, on the matrices of one universe."""
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(passing)
        furnish(folder, TICKERS_SAMPLED, SAMPLED_FROM[1])
        ask(folder, "rebuild")
        prefix = "RNN_PIPELINE_FOLDS__"
        folds = {f"{prefix}TRAIN_SIZE": "1000", f"{prefix}VAL_SIZE": "125"}
        found = ask(folder, "training", **folds)
    tell("training", found)
    return found


def measure_events(known: dict[str, Any]) -> dict[str, Any]:
    """Dagster alone."""
    today = datetime.now(UTC).date()
    for tickers, years in EVENTS:
        with tempfile.TemporaryDirectory() as passing:
            furnish(Path(passing), tickers, years, bars=False)
            # The date axis ends today; the source of these settings is never asked.
            start = today.replace(year=today.year - years, day=1)
            asked = {"RNN_PIPELINE_SOURCE": "yahoo", "RNN_PIPELINE_START": start.isoformat()}
            found = ask(Path(passing), "events", **asked)
            tell(f"{size(tickers, years)}, Dagster's events", found)
        known[size(tickers, years)] = {"tickers": tickers, "years": years, **found}
    return known


PARTS = {
    "universes": measure_universes,
    "wide": measure_wide,
    "training": measure_training,
    "events": measure_events,
}


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", action="store_true", help=f"{RESULTS.name}, page and picture")
    parser.add_argument("--page", action="store_true", help="page and picture alone")
    parser.add_argument("--here", choices=list(PARTS_HERE), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        found = PARTS_HERE[asked.here]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak_mb": round(peak)}))
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not asked.page:
        begun = time.perf_counter()
        for part in asked.parts:
            measured = PARTS[part]({})
            known[part] = {
                "date": datetime.now(UTC).isoformat(timespec="minutes"),
                "machine": f"{os.cpu_count()} cores ({platform.machine()}),"
                f" load {os.getloadavg()[0]:.1f}",
                "figures": measured,
            }
        tell("all of it", {"minutes": round((time.perf_counter() - begun) / 60, 1)})
        if asked.write:
            RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    if missing := [part for part in PARTS if part not in known]:
        sys.exit(f"no page without the parts {', '.join(missing)}")
    figures = {part: known[part]["figures"] for part in PARTS}
    print("\n\n".join(growth_page.tables(figures).values()))
    if asked.write or asked.page:
        growth_page.write(figures)


if __name__ == "__main__":
    main()
