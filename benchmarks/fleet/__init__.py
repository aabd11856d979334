"""The fleet beside the usual ways of training many small recurrent networks.

    python -m benchmarks.fleet [--rounds 9] [--nixtla VENV/bin/python] [--write]

Needs torch and NumPy, and Numba on a CPU; checkpoints are measured where pydantic and safetensors
are there too.
"""
