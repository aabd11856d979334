"""What Ray adds to training: a cluster's start, a task, a fold's data, and when that is below 5 %.

    python -m benchmarks.ray_overhead [--rounds 5] [--write]

On a cluster of this machine, so no network is between the nodes; without the dashboard.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

RESULTS = Path(__file__).parent / "results" / "ray.json"
SHARE = 0.05
"""Of a task's time that may be Ray's."""
WAVE = 200
"""Empty tasks of one measurement."""
SESSIONS = 750
"""Of a fold's data: 500 to train on, 120 to validate, and what its windows reach back to."""


def seconds(of: Callable[[], object]) -> float:
    """What a call takes."""
    begun = time.perf_counter()
    of()
    return time.perf_counter() - begun


def empty(*_data: object) -> None:
    """A task without work."""


def measured(rounds: int) -> dict[str, object]:
    """Medians and minima over the rounds, in seconds."""
    import ray
    from ray.cluster_utils import Cluster

    def started() -> Cluster:
        head = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        ray.init(made.address, logging_level=logging.ERROR, log_to_driver=False)
        return made

    begun = time.perf_counter()
    cluster = started()
    start = time.perf_counter() - begun
    try:
        joined = seconds(lambda: cluster.add_node(num_cpus=1))
        task = ray.remote(empty).options(num_cpus=1, max_retries=0)
        warm_worker = ray.remote(_imported).options(num_cpus=1, max_retries=0)
        first = seconds(lambda: ray.get(warm_worker.remote()))
        ray.get([task.remote() for _ in range(WAVE)])
        taken: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            taken.setdefault(name, []).append(value)

        rows = {
            f"fold, {columns} columns, {tickers} tickers": np.random.default_rng(0)
            .standard_normal((SESSIONS * tickers, columns))
            .astype(np.float32)
            for columns, tickers in ((25, 1), (25, 24))
        }
        for _ in range(rounds):
            note("task, one after the other", seconds(lambda: ray.get(task.remote())))
            wave = seconds(lambda: ray.get([task.remote() for _ in range(WAVE)]))
            note("task, many at once", wave / WAVE)
            for name, array in rows.items():
                refs = []
                note(f"put: {name}", seconds(lambda a=array, r=refs: r.append(ray.put(a))))
                note(f"task that reads: {name}", seconds(lambda r=refs: ray.get(task.remote(*r))))
    finally:
        ray.shutdown()
        cluster.shutdown()
    found: dict[str, object] = {
        "start of a cluster of one node": round(start, 1),
        "a node that joins": round(joined, 1),
        "first task of a worker, which imports torch": round(first, 1),
        "bytes": {name: array.nbytes for name, array in rows.items()},
        **{
            name: {"median": round(median(all_), 5), "min": round(min(all_), 5)}
            for name, all_ in taken.items()
        },
    }
    each = median(taken["task, one after the other"]) + median(
        taken["put: fold, 25 columns, 24 tickers"]
    )
    found["seconds of work in a task from which on Ray is below 5 %"] = round(
        each * (1 - SHARE) / SHARE, 2
    )
    return found


def _imported() -> None:
    """What the first task of a worker waits for."""
    import rnn_pipeline.networks.cluster  # noqa: F401


def main() -> None:
    """Print the figures, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"keep them in {RESULTS.name}")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    load = os.getloadavg()[0]
    result = {
        "conditions": {
            "when": datetime.now(UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {load:.1f} before",
            "ray": ray.__version__,
            "rounds": options.rounds,
        },
        "seconds": measured(options.rounds),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
