import os
from contextlib import suppress

import pytest
import torch

from rnn_pipeline.networks.devices import numerics, resolve_device


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=available: found)
        assert resolve_device("auto").type == expected
        assert resolve_device("cpu").type == "cpu"


def test_a_missing_gpu_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device 'cuda'.*finds no GPU.*COMPUTE__DEVICE=auto"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        resolve_device("tpu")


def test_the_cpu_computes_on_one_thread_and_gets_its_threads_back() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with numerics(torch.device("cpu")):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with suppress(KeyError), numerics(torch.device("cpu")):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("precision", "flag"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")]
)
def test_gpu_flags_hold_inside_only(
    precision: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flags() -> tuple[str, str, bool]:
        return (
            torch.backends.cuda.matmul.fp32_precision,
            torch.backends.cudnn.rnn.fp32_precision,
            torch.are_deterministic_algorithms_enabled(),
        )

    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    before = flags()
    with suppress(KeyError), numerics(torch.device("cuda"), precision, deterministic=True):
        assert flags() == (flag, flag, True)
        raise KeyError
    assert flags() == before
    assert environment == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
