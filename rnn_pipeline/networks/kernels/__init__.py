"""Kernels that train many small networks at once; each module is imported when it is first used."""
