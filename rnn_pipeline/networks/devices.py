"""Where networks train, and the numerical flags that hold while they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16", "float64"]


def resolve_device(name: Literal["auto", "cpu", "cuda"] = "auto") -> torch.device:
    """The device to train on: ``auto`` is the GPU where there is one, else the CPU.

    Raises:
        ValueError: ``cuda`` is asked for and torch finds none, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r} is unknown; use auto, cpu or cuda")
    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if name == "auto":
        return torch.device("cpu")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    raise ValueError(
        f"device 'cuda' was asked for, but torch {torch.__version__} ({built}) finds no GPU here;"
        " set the device to auto or cpu (RNN_PIPELINE_COMPUTE__DEVICE=auto), or install an NVIDIA"
        " driver and a CUDA build of torch"
    )


@contextmanager
def numerics(
    device: torch.device, precision: Precision = "float32", deterministic: bool = True
) -> Iterator[None]:
    """Hold torch's numerical flags for one computation and put the old ones back afterwards.

    On a CPU: one thread per operation, because a sum split over threads depends on their number;
    whoever wants more cores computes several networks at once. ``precision`` is a matter of GPUs.

    On a GPU: ``precision`` "float32" is true float32 (torch's own default lets cuDNN's recurrent
    kernels round to TF32); "tf32" and "bfloat16" allow TF32. ``deterministic`` picks kernels that
    repeat bit for bit and may be slower.
    """
    if device.type == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        return

    if deterministic:
        # cuBLAS reads this when the process first uses it; torch refuses to go on without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    exact = precision in ("float32", "float64")
    matmul: Any = torch.backends.cuda.matmul
    rnn: Any = torch.backends.cudnn.rnn  # annotated: torch's stubs do not know the attribute yet
    before = (matmul.fp32_precision, rnn.fp32_precision)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    matmul.fp32_precision = rnn.fp32_precision = "ieee" if exact else "tf32"
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        matmul.fp32_precision, rnn.fp32_precision = before
        torch.use_deterministic_algorithms(was_deterministic)
