"""The fleet on a GPU beside a loop of cuDNN networks, and beside what the chip can do."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.fleet.peers import good_loop
from benchmarks.fleet.sizes import CELLS, SIZES, STEPS, Size, member
from rnn_pipeline.networks.devices import Precision, numerics
from rnn_pipeline.networks.fleet import Compute, train_members

MEMBERS, EPOCHS = 4096, 4


def peak_flops(precision: Precision, n: int = 8192, repeats: int = 20) -> float:
    """Floating-point operations per second of a large matrix product."""
    device = torch.device("cuda")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    with numerics(device, precision, deterministic=False):
        for _ in range(3):
            a @ b
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(repeats):
            a @ b
        torch.cuda.synchronize()
    return 2 * n**3 * repeats / (time.perf_counter() - begun)


def fleet_seconds(size: Size, cell: str, precision: Precision, members: int, epochs: int) -> float:
    """Seconds to train a fleet, data and graphs included."""
    group = [member(size, cell, seed, epochs) for seed in range(members)]
    begun = time.perf_counter()
    train_members(group, Compute(torch.device("cuda"), backend="gpu", precision=precision))
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def rows() -> list[dict[str, Any]]:
    """Per size, cell and precision: milliseconds per network and epoch, ratio, FLOP/s."""
    precisions: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
    peaks = {precision: peak_flops(precision) for precision in precisions}
    lines = []
    for size in SIZES:
        for cell in CELLS:
            good_loop(size, cell, device="cuda")
            loop = good_loop(size, cell, epochs=2, device="cuda")
            for precision in precisions:
                fleet_seconds(size, cell, precision, members=600, epochs=1)
                # Set-up is paid once a fleet: the longer run less the shorter one is the training.
                short, long = (
                    fleet_seconds(size, cell, precision, MEMBERS, epochs) for epochs in (1, EPOCHS)
                )
                per_epoch = (long - short) / ((EPOCHS - 1) * MEMBERS)
                flops = size.flops(cell) * STEPS / per_epoch
                lines.append(
                    {
                        "size": size.name,
                        "cell": cell,
                        "precision": precision,
                        "members": MEMBERS,
                        "cudnn_loop_ms": 1000 * loop,
                        "fleet_ms": 1000 * per_epoch,
                        "ratio": loop / per_epoch,
                        "set_up_s": short - per_epoch * MEMBERS,
                        "tflops": flops / 1e12,
                        "peak_tflops": peaks[precision] / 1e12,
                        "minutes_for_10000_networks_x_50_epochs": per_epoch * 10_000 * 50 / 60,
                    }
                )
    return lines
