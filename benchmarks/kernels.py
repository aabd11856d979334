"""The fused CPU kernel beside torch, per training step of one small network.

    python benchmarks/kernels.py [--rounds 9] [--out benchmarks/results/kernels.json]

Networks: P has 1 feature and two layers of 64, S has 10 features and one layer of 32; lookback 20,
batches of 32, Adam with weight decay and clipped gradients. The peer is a good loop over one
network: batches gathered from a view, torch's fused Adam, one thread. Both start from the same
weights, visit the same rows, and must agree after 30 steps before anything is timed. Rounds
alternate; medians and minima of CPU time say what a core does, of wall time what threads add.
The peak is that of multiplications and additions whose factors lie in the first-level cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

#: Otherwise glibc hands large arrays back after every operation, and page faults double torch's
#: time. It reads them when a process begins, hence the new start in main().
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_NUM_THREADS": "1",
}
LOOKBACK, BATCH, STEPS = 20, 32, 30
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {"P": (1, (64, 64)), "S": (10, (32,))}
TOLERANCE = 1e-4
GATES = {"lstm": 4, "gru": 3}


def step_flops(cell: str, n_features: int, hidden_sizes: tuple[int, ...]) -> float:
    """Of the matrix products of one step that a gradient needs, biases included."""
    flops, below = 0, n_features
    for depth, width in enumerate(hidden_sizes):
        columns = GATES[cell] * width
        forward, weights = below + width + 2, below + width + 2
        back = width + (below if depth else 0)
        flops += 2 * LOOKBACK * BATCH * columns * (forward + weights + back)
        below = width
    return flops


def make_member(cell: str, size: str, number: int = 0):  # type: ignore[no-untyped-def]
    import numpy as np

    from rnn_pipeline.networks.fleet import Member
    from rnn_pipeline.settings import NetworkSpec, TrainingSpec

    n_features, hidden_sizes = SIZES[size]
    rng = np.random.default_rng(number)
    n = STEPS * BATCH
    rows = LOOKBACK + n
    return Member(
        key=f"{cell}-{size}-{number}",
        network=NetworkSpec(cell=cell, hidden_sizes=hidden_sizes),
        training=TrainingSpec(epochs=1, batch_size=BATCH, clip_norm=1.0, weight_decay=1e-4),
        inputs=rng.standard_normal((rows, n_features)).astype(np.float32),
        targets=rng.standard_normal(rows).astype(np.float32),
        train_ends=np.arange(LOOKBACK - 1, LOOKBACK - 1 + n),
        val_ends=np.array([rows - 1]),
        lookback=LOOKBACK,
        seed=number,
    )


def torch_loop(member):  # type: ignore[no-untyped-def]
    """One epoch of a good loop; returns the weights."""
    import torch
    from torch import nn

    from rnn_pipeline.networks.fleet import windows_of
    from rnn_pipeline.networks.randomness import epoch_order
    from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise

    network = RecurrentForecaster(member.network, member.inputs.shape[1])
    initialise(network, torch.Generator().manual_seed(member.seed))
    parameters = list(network.parameters())
    spec = member.training
    adam = torch.optim.Adam(
        parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )
    windows = windows_of(torch.tensor(member.inputs), LOOKBACK)
    targets = torch.tensor(member.targets)[:, None]
    ends = torch.tensor(member.train_ends)
    order = torch.from_numpy(epoch_order(member.seed, 0, len(ends)))
    for rows in ends[order].split(BATCH):
        adam.zero_grad()
        forecasts = network(windows.index_select(0, rows - (LOOKBACK - 1)))
        nn.functional.mse_loss(forecasts, targets[rows]).backward()
        nn.utils.clip_grad_norm_(parameters, spec.clip_norm)
        adam.step()
    return network.state_dict()


def fused(members, threads: int):  # type: ignore[no-untyped-def]
    from rnn_pipeline.networks.kernels import cpu

    trained = {}
    cpu.train(members, threads=threads, on_trained=trained.__setitem__)
    return trained


def peak_gflops(reps: int = 400, depth: int = 4096) -> float:
    """Of one register tile whose factors are the same at every step, so deep that no start counts.

    On the processor it was tried on, within a percent of bare instructions in C.
    """
    import numpy as np
    from numba import njit

    from rnn_pipeline.networks.kernels.simd import LANES, TILE_VECTORS, multiply

    @njit
    def repeat(work: np.ndarray, reps: int) -> None:
        for _ in range(reps):
            multiply(work, True, 0, 64, 6, TILE_VECTORS, 4096, 64, 0, 8192, 0, depth)

    work = np.zeros(16_384, np.float32)
    repeat(work, 1)
    spent = []
    for _ in range(10):
        begun = time.process_time()
        repeat(work, reps)
        spent.append(time.process_time() - begun)
    return 2 * 6 * TILE_VECTORS * LANES * depth * reps / min(spent) / 1e9


def measure(rounds: int) -> dict[str, object]:
    import torch

    torch.set_num_threads(1)
    runs: dict[tuple[str, str, str], tuple[Callable[[], object], int]] = {}
    errors = {}
    for size in SIZES:
        for cell in GATES:
            one = make_member(cell, size)
            expected, (got,) = torch_loop(one), fused([one], 1).values()
            error = max(float((expected[n] - got.state[n]).abs().max()) for n in expected)
            if error > TOLERANCE:
                sys.exit(f"{cell} {size}: weights differ by {error:.1e} after {STEPS} steps")
            errors[cell, size] = error
            members = [make_member(cell, size, number) for number in range(8)]
            runs[cell, size, "torch"] = (lambda one=one: torch_loop(one)), 1
            for threads in (1, 2):
                name = f"fused, {threads} thread{'s' * (threads > 1)}"
                run = lambda members=members, threads=threads: fused(members, threads)  # noqa: E731
                runs[cell, size, name] = run, len(members)
    spent: dict[tuple[str, str, str], list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, (run, networks) in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            spent[key].append((cpu * 1e6 / networks / STEPS, wall * 1e6 / networks / STEPS))

    peak = peak_gflops()
    rows = []
    for size, (n_features, hidden_sizes) in SIZES.items():
        for cell in GATES:
            cpu = {
                n: [t[0] for t in spent[cell, size, n]]
                for c, s, n in runs
                if (c, s) == (cell, size)
            }
            wall = {n: [t[1] for t in spent[cell, size, n]] for n in cpu}
            flops = step_flops(cell, n_features, hidden_sizes)
            achieved = flops / min(cpu["fused, 1 thread"]) / 1e3
            rows.append(
                {
                    "network": size,
                    "cell": cell,
                    "error_after_30_steps": errors[cell, size],
                    "mflop": flops / 1e6,
                    "gflops": achieved,
                    "share_of_peak": achieved / peak,
                    "cpu_us": {n: [statistics.median(t), min(t)] for n, t in cpu.items()},
                    "wall_us": {n: [statistics.median(t), min(t)] for n, t in wall.items()},
                    "ratio_per_core": [
                        how(cpu["torch"]) / how(cpu["fused, 1 thread"])
                        for how in (statistics.median, min)
                    ],
                }
            )
    return {"peak_gflops": peak, "rounds": rounds, "median_and_min": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)

    import numba
    import torch

    found = measure(arguments.rounds)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load"
        f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()},"
        f" torch {torch.__version__}, numba {numba.__version__}",
        **found,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
