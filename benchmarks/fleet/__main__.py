"""Gate, then measure in alternating rounds, then print: see the package."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fleet import gpu
from benchmarks.fleet.peers import Net, Nixtla, Processes, good_loop, tutorial
from benchmarks.fleet.sizes import CELLS, LOOKBACK, SIZES, STEPS, Network, Size, few_steps, member
from rnn_pipeline.networks.backends import Backend
from rnn_pipeline.networks.fleet import Compute, Member, TrainedMember, train_each, train_members
from rnn_pipeline.networks.inference import predict_members
from rnn_pipeline.networks.kernels import cpu

#: Otherwise glibc hands large arrays back after every operation, and page faults drown the rest.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
RESULTS = Path(__file__).parents[1] / "results" / "fleet.json"
CPU = torch.device("cpu")
CORES = len(os.sched_getaffinity(0))
TOLERANCE = 1e-4
MEMBERS, BUDGET_GB = 1000, 0.125


@contextmanager
def threads(number: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fleet(size: Size, cell: str, workers: int, epochs: int = 5, each: int = 2) -> float:
    """Seconds per network and epoch, with everything that belongs to training it.

    Unlike the peers' first weights, a member's are drawn within the time that is taken.
    """
    members = [member(size, cell, seed, epochs) for seed in range(each * workers)]
    with threads(workers):
        begun = time.perf_counter()
        train_members(members, Compute(CPU, backend="cpu"))
        return (time.perf_counter() - begun) / (epochs * len(members))


def largest_difference(one: TrainedMember, other: TrainedMember) -> float:
    return max(float((one.state[name] - other.state[name]).abs().max()) for name in one.state)


def gate(backend: Backend, device: torch.device) -> list[dict[str, Any]]:
    """Compare with torch's own layers after 30 steps, for members of unequal length."""
    lines = []
    for size in SIZES:
        for cell in CELLS:
            members = [few_steps(size, cell, seed, 30) for seed in range(3)]
            members.append(few_steps(size, cell, 3, 1))
            alone = train_members(members, Compute(CPU, backend="reference"))
            together = train_members(members, Compute(device, backend=backend))
            difference = max(map(largest_difference, alone, together))
            lines.append({"size": size.name, "cell": cell, "backend": backend, "error": difference})
            if not difference < TOLERANCE:
                sys.exit(f"not the same network, so nothing is timed: {lines[-1]}")
    return lines


def training(rounds: int, nixtla: Path | None) -> list[dict[str, Any]]:
    """All ways in turn, round after round; milliseconds per network and epoch."""
    processes = Processes(CORES)
    ways: dict[str, Callable[[Size, str], float]] = {
        "fleet": lambda size, cell: fleet(size, cell, CORES),
        "fleet, one thread": lambda size, cell: fleet(size, cell, 1),
        "(a) tutorial loop": tutorial,
        "(b) good loop, one thread": _good_loop_on_one_thread,
        f"(c) good loop in {CORES} processes": processes,
    }
    if nixtla is not None:
        peer = Nixtla(nixtla)
        ways[f"(d) neuralforecast {peer.version}"] = peer
    lines = []
    for size in SIZES:
        for cell in CELLS:
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for round_ in range(-1, rounds):  # the first warms up
                for way, run in ways.items():
                    seconds = run(size, cell)
                    if round_ >= 0:
                        taken[way].append(1000 * seconds)
            for way, times in taken.items():
                base = taken["fleet, one thread" if way.startswith("(b)") else "fleet"]
                lines.append({"size": size.name, "cell": cell, "way": way, **figures(times, base)})
                show(f"{size.name} {cell:4} {way}", lines[-1])
    return lines


def figures(times: list[float], base: list[float]) -> dict[str, float]:
    """Medians and minima, and what they are of those of ``base``."""
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "ratio_of_medians": statistics.median(times) / statistics.median(base),
        "ratio_of_minima": min(times) / min(base),
    }


def _good_loop_on_one_thread(size: Size, cell: str) -> float:
    with threads(1):
        return good_loop(size, cell)


def show(name: str, line: dict[str, Any]) -> None:
    """One row of the table."""
    print(
        f"{name:42} {line['median_ms']:9.1f} {line['min_ms']:9.1f}"
        f" {line['ratio_of_medians']:8.2f} {line['ratio_of_minima']:8.2f}",
        flush=True,
    )


def memory(size_name: str) -> dict[str, float]:
    """What a thousand members add to a process that has trained a few; in a process of its own.

    What was handed over is counted and dropped, as the pipeline drops what it has written.
    """
    (size,) = (size for size in SIZES if size.name == size_name)
    compute = Compute(CPU, backend="cpu", memory_gb=BUDGET_GB)
    with threads(CORES):
        train_members([few_steps(size, "lstm", seed, 4) for seed in range(4)], compute)
        before = most = _resident_mib()

        def stream() -> Iterator[Member]:
            for seed in range(MEMBERS):
                yield few_steps(size, "lstm", seed, 4)

        weights = 0

        def look(trained: Mapping[int, TrainedMember]) -> None:
            nonlocal most, weights
            most = max(most, _resident_mib())
            weights += sum(t.nbytes for one in trained.values() for t in one.state.values())

        train_each(stream(), compute, look)
    data = MEMBERS * (few_steps(size, "lstm", 0, 4).inputs.nbytes)
    return {
        "members": MEMBERS,
        "budget_mib": BUDGET_GB * 1024,
        "grown_mib": most - before,
        "weights_mib": weights / 2**20,
        "inputs_mib": data / 2**20,
    }


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def apart(function: str, *arguments: str) -> Any:
    """Run a function of this module in a process of its own, with the allocator as it comes."""
    code = f"import json; from benchmarks.fleet import __main__ as m; print(json.dumps(m.{function}"
    shown = ", ".join(map(repr, arguments))
    done = subprocess.run(
        [sys.executable, "-c", f"{code}({shown})))"],
        env={name: value for name, value in os.environ.items() if name not in ALLOCATOR},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def untrained(size: Size, cell: str, number: int) -> list[TrainedMember]:
    """Members with the weights they would start from, and the losses of fifty epochs."""
    from rnn_pipeline.networks.recurrent import RecurrentForecaster, initialise
    from rnn_pipeline.networks.training import History

    rng = np.random.default_rng(0)
    spec: Network = size.network(cell)
    made = []
    for seed in range(number):
        network = RecurrentForecaster(spec, size.n_features)
        initialise(network, torch.Generator().manual_seed(seed))
        history = History(rng.random(50).tolist(), rng.random(50).tolist(), 3)
        state = network.state_dict()
        made.append(TrainedMember(str(seed), spec, size.n_features, LOOKBACK, state, history))
    return made


def inference(rounds: int, number: int = 500) -> list[dict[str, Any]]:
    """One window for each of 500 networks, on one thread, beside a loop over nn modules."""
    lines = []
    for size in SIZES:
        for cell in CELLS:
            members = untrained(size, cell, number)
            rng = np.random.default_rng(0)
            windows = rng.standard_normal((number, LOOKBACK, size.n_features)).astype(np.float32)
            ends = [np.array([LOOKBACK - 1])] * number
            networks = [Net(size, cell).eval() for _ in members]

            def loop(networks: list[Net] = networks, windows: np.ndarray = windows) -> None:
                with torch.inference_mode():
                    for network, window in zip(networks, windows, strict=True):
                        network(torch.from_numpy(window)[None])

            ways: dict[str, Callable[[], object]] = {
                "fleet": lambda m=members, w=windows, e=ends: predict_members(m, list(w), e),
                "loop": loop,
            }
            taken: dict[str, list[float]] = {way: [] for way in ways}
            with threads(1):
                for round_ in range(-1, rounds):
                    for way, run in ways.items():
                        begun = time.perf_counter()
                        run()
                        if round_ >= 0:
                            taken[way].append(1000 * (time.perf_counter() - begun))
            for way, times in taken.items():
                base = taken["fleet"]
                lines.append({"size": size.name, "cell": cell, "way": way, **figures(times, base)})
                show(f"{size.name} {cell:4} {way}, {number} windows", lines[-1])
    return lines


def checkpoints(number: int = 10_000) -> dict[str, float] | str:
    """Ten thousand networks of size S in one file."""
    try:
        from rnn_pipeline.networks.checkpoints import load_members, save_members
        from rnn_pipeline.settings import NetworkSpec
    except ModuleNotFoundError as error:
        return f"skipped: {error.name} is not installed"
    from dataclasses import replace

    size = SIZES[1]
    spec = NetworkSpec(cell="lstm", hidden_sizes=size.hidden_sizes)
    members = [replace(one, network_spec=spec) for one in untrained(size, "lstm", number)]
    found: dict[str, float] = {"networks": number}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.safetensors"
        day = [one.key for one in members[:: number // 500]]
        for name, run in (
            ("save_s", lambda: save_members(path, members)),
            ("load_one_s", lambda: load_members(path, [members[number // 2].key])),
            ("load_500_s", lambda: load_members(path, day)),
            ("load_all_s", lambda: load_members(path)),
        ):
            times = []
            for _ in range(1 if name in ("save_s", "load_all_s") else 5):
                begun = time.perf_counter()
                run()
                times.append(time.perf_counter() - begun)
            found[name] = min(times)
        found["mib"] = path.stat().st_size / 2**20
    return found


def machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": names[0] if names else platform.processor(),
        "cores": CORES,
        "load": os.getloadavg()[0],
        "threads_of_torch": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--nixtla", type=Path, help="python of an environment with neuralforecast")
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.fleet", *sys.argv[1:]],
            os.environ | ALLOCATOR,
        )
    found: dict[str, Any] = {"machine": machine(), "steps_per_epoch": STEPS}
    print(json.dumps(found["machine"]))
    found["equality"] = []
    if reason := cpu.available():
        print(f"nothing is measured on the CPU: {reason}")
    else:
        found["equality"] += gate("cpu", CPU)
        worst = max(line["error"] for line in found["equality"])
        print(f"weights after 30 steps: within {worst:.1e} of torch's own")
        columns = f"{'median':>9} {'min':>9} {'ratio':>8} {'of min':>8}"
        print(f"{'training, ms per network and epoch':42} {columns}")
        found["training"] = training(options.rounds, options.nixtla)
        print(f"{'inference, ms on one thread':42} {columns}")
        found["inference"] = inference(options.rounds)
        found["memory"] = {size.name: apart("memory", size.name) for size in SIZES}
    found["checkpoints"] = checkpoints()
    if torch.cuda.is_available():
        found["equality"] += gate("gpu", torch.device("cuda"))
        found["gpu"] = gpu.rows()
    for name in ("memory", "checkpoints", "gpu"):
        print(name, json.dumps(found.get(name), indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
