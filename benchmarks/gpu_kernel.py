"""The GPU backend's engines and precisions, beside one cuDNN network at a time.

    python benchmarks/gpu_kernel.py [--device cuda] [--sizes P S] [--cells lstm gru]
                                    [--members N] [--rounds 3] [--profile]

Needs torch, NumPy and, for the fused engine, Triton. Prints one table as JSON: microseconds per
member and optimizer step (validation's share included), the rate of arithmetic that this is, and
what the issue's 10,000 networks, 50 epochs of 63 steps, would take. No row is timed before its
engine agrees with the reference. The time of an epoch is the difference between trainings of few
and of more epochs, so that compiling, capturing and copying do not count; variants alternate, and
medians and minima are given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.fleet import Member, TrainedMember
from rnn_pipeline.networks.kernels import gpu
from rnn_pipeline.networks.kernels.reference import train_member

BATCH, LOOKBACK, STEPS, VALIDATION = 32, 20, 63, 400
SIZES = {"P": (1, (64, 64)), "S": (10, (32,))}
GATES = {"lstm": 4, "gru": 3}
EPOCHS = 1, 4
VARIANTS = (
    ("stacked", "float32"),
    ("stacked", "tf32"),
    ("fused", "float32"),
    ("fused", "float32 as tf32x3"),
    ("fused", "tf32"),
    ("fused", "bfloat16"),
)


def make_members(n: int, size: str, cell: str, epochs: int) -> list[Member]:
    """Members that share one noise series and differ in their seeds."""
    n_features, hidden_sizes = SIZES[size]
    rows = LOOKBACK - 1 + STEPS * BATCH + VALIDATION
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((rows, n_features)).astype(np.float32)
    targets = rng.standard_normal(rows).astype(np.float32)
    ends = np.arange(LOOKBACK - 1, rows)
    network: Any = SimpleNamespace(cell=cell, hidden_sizes=hidden_sizes, dropout=0.2, quantiles=())
    training: Any = SimpleNamespace(
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=1e-3,
        weight_decay=1e-4,
        schedule="constant",
        warmup_epochs=0.0,
        clip_norm=1.0,
        input_noise=0.0,
        patience=None,
    )
    train_ends, val_ends = ends[:-VALIDATION], ends[-VALIDATION:]
    return [
        Member(str(seed), network, training, inputs, targets, train_ends, val_ends, LOOKBACK, seed)
        for seed in range(n)
    ]


def flops_per_step(size: str, cell: str) -> float:
    """Of one member's optimizer step: three products forward and back, and validation's share."""
    n_features, hidden_sizes = SIZES[size]
    weights = sum(
        GATES[cell] * hidden * (below + hidden)
        for below, hidden in itertools.pairwise((n_features, *hidden_sizes))
    )
    forward = 2 * LOOKBACK * weights
    return forward * (3 * BATCH + VALIDATION / STEPS)


def trained(members: Sequence[Member], device: torch.device, variant: tuple[str, str]) -> list:
    """Train and wait."""
    engine, precision = variant
    precision, _, triton_name = precision.partition(" as ")
    results: dict[int, TrainedMember] = {}
    with input_precision(triton_name or None):
        gpu.train(
            members,
            device=device,
            precision=precision,
            engine=engine,
            on_trained=results.__setitem__,
        )
    return [results[place] for place in range(len(members))]


@contextmanager
def input_precision(name: str | None) -> Iterator[None]:
    """Let the fused engine's float32 be ``name`` to Triton."""
    if name is None:
        yield
        return
    from rnn_pipeline.networks.kernels.gpu_fused import INPUT_PRECISION

    usual = INPUT_PRECISION["float32"]
    INPUT_PRECISION["float32"] = name
    try:
        yield
    finally:
        INPUT_PRECISION["float32"] = usual


def error(size: str, cell: str, device: torch.device, variant: tuple[str, str]) -> float:
    """Largest difference of a parameter from the reference after an epoch; raises if too large."""
    (member,) = make_members(1, size, cell, epochs=1)
    expected = train_member(member, torch.device("cpu"))
    (result,) = trained([member], device, variant)
    largest = max(
        (result.state[name] - value).abs().max().item() for name, value in expected.state.items()
    )
    if variant[1].startswith("float32") and largest > 1e-4:
        raise SystemExit(f"{size} {cell} {variant}: differs from the reference by {largest}")
    return largest


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def per_step(n: int, size: str, cell: str, device: torch.device, variant: tuple[str, str]) -> float:
    """Seconds per member and optimizer step."""
    few, more = (
        seconds(lambda epochs=epochs: trained(make_members(n, size, cell, epochs), device, variant))
        for epochs in EPOCHS
    )
    return (more - few) / ((EPOCHS[1] - EPOCHS[0]) * STEPS * n)


def one_by_one(size: str, cell: str, device: torch.device) -> float:
    """Seconds per optimizer step of one network after the other, with torch's own layers."""
    member = make_members(1, size, cell, EPOCHS[0])[0]
    with numerics(device, "float32"):
        train_member(member, device)
        return seconds(lambda: train_member(member, device)) / (EPOCHS[0] * STEPS)


def profile(n: int, size: str, cell: str, device: torch.device, variant: tuple[str, str]) -> dict:
    """Milliseconds of the ten kernels that take most of one training."""
    activity = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as recorded:
        trained(make_members(n, size, cell, EPOCHS[0]), device, variant)
    kernels = sorted(recorded.key_averages(), key=lambda k: -k.self_device_time_total)[:10]
    return {kernel.key[:60]: round(kernel.self_device_time_total / 1e3, 2) for kernel in kernels}


def rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(arguments.device)
    variants = VARIANTS if device.type == "cuda" else VARIANTS[:1]
    table = []
    for size, cell in itertools.product(arguments.sizes, arguments.cells):
        members = {
            variant: arguments.members
            or (gpu.SLOTS if variant[0] == "stacked" else gpu.FUSED_SLOTS)
            for variant in variants
        }
        errors = {variant: error(size, cell, device, variant) for variant in variants}
        times: dict[tuple[str, str], list[float]] = {variant: [] for variant in variants}
        alone = []
        for _ in range(arguments.rounds):
            alone.append(one_by_one(size, cell, device))
            for variant, n in members.items():
                times[variant].append(per_step(n, size, cell, device, variant))
        for variant, n in members.items():
            median, least = statistics.median(times[variant]), min(times[variant])
            row = {
                "size": size,
                "cell": cell,
                "engine": variant[0],
                "precision": variant[1],
                "members": n,
                "largest_parameter_error": errors[variant],
                "us_per_step": round(1e6 * median, 2),
                "us_per_step_least": round(1e6 * least, 2),
                "times_one_by_one": round(statistics.median(alone) / median, 1),
                "tflops": round(flops_per_step(size, cell) / median / 1e12, 2),
                "minutes_of_10000_networks": round(median * 10_000 * 50 * STEPS / 60, 1),
            }
            if arguments.profile:
                row["kernels_ms"] = profile(n, size, cell, device, variant)
            print(json.dumps(row), file=sys.stderr, flush=True)
            table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--members", type=int, help="trained side by side; as the backend would")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--cells", nargs="+", choices=GATES, default=list(GATES))
    parser.add_argument("--profile", action="store_true", help="add the kernels that take most")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    machine = torch.cuda.get_device_name() if cuda else platform.processor()
    print(json.dumps({"machine": machine, "torch": torch.__version__, "rows": rows(arguments)}))


if __name__ == "__main__":
    main()
