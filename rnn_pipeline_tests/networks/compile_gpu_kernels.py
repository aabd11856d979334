"""Compile recurrent kernels for an H100, on any machine; print what each takes of the chip.

Arguments: names of kernels, ``_forward`` or ``_backward``. Prints one JSON object a line. A script
of its own, because a process in which Triton interprets cannot compile.
"""

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rnn_pipeline.networks.kernels import gpu_fused

H100 = GPUTarget("cuda", 90, 32)
SIZES = {"P", "T", "B", "weight_at", "bias_at"}
CONSTANTS = {"H": 64, "HP": 64, "BP": 32, "BT": 32, "LSTM": True, "PRECISION": "ieee"}


def compiled(kernel: Any, warps: int) -> Any:
    """``kernel`` for members of 64 units and 32 windows, all addresses aligned as torch's are."""
    names = kernel.arg_names
    signature = {
        name: "constexpr" if name in CONSTANTS else "i32" if name in SIZES else "*fp32"
        for name in names
    }
    constants = {(names.index(n),): v for n, v in CONSTANTS.items() if n in names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name not in CONSTANTS and name != "T"
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}
    return triton.compile(source, target=H100, options=options)


def resources(kernel: Any, warps: int) -> dict[str, int]:
    """Registers a thread, bytes of stack (that is, spilled) a thread, bytes shared a program."""
    binary = compiled(kernel, warps)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    return {
        "registers": int(found[1]),
        "stack": int(found[2]),
        "shared": binary.metadata.shared,
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"kernel": name} | resources(getattr(gpu_fused, name), warps=8)))
