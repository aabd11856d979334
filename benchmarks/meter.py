"""What a process uses between two moments: time, processor time and memory, sampled beside it.

For work whose parts tell when they began and ended only afterwards, as Dagster's steps do.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Self

EVERY_S = 0.02


class Meter:
    """Samples this process while the context is open."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._samples: list[tuple[float, ...]] = []
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._main = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def _take(self) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * self._page
        main = time.clock_gettime(self._main)
        self._samples.append((time.time(), time.process_time(), main, resident / 2**20))

    def _sample(self) -> None:
        while not self._done.wait(EVERY_S):
            self._take()

    def __enter__(self) -> Self:
        self._take()
        self._sampler.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._sampler.join()
        self._take()

    def between(self, begin: float, end: float) -> dict[str, Any]:
        """What was used between two moments of ``time.time()``, after the context has closed.

        Returns:
            seconds; processor_seconds of all threads, main_thread_seconds of the one that the
            context was opened in; peak_mb, the most memory resident.
        """
        import numpy as np

        moments, processor, main, resident = np.array(self._samples).T
        used = [np.interp([begin, end], moments, clock) for clock in (processor, main)]
        inside = resident[(moments >= begin) & (moments <= end)]
        at_ends = np.interp([begin, end], moments, resident)
        return {
            "seconds": end - begin,
            "processor_seconds": float(used[0][1] - used[0][0]),
            "main_thread_seconds": float(used[1][1] - used[1][0]),
            "peak_mb": float(max(*at_ends, *inside)),
        }
