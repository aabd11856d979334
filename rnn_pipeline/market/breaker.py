"""One circuit breaker over all tickers, so that a source in trouble is left in peace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rnn_pipeline.market.sources import RateLimited, SourceUnavailable

#: Tickers in a row that may fail before the source is believed to be down.
TOLERATED = 3

#: Rests before a source that limits the rate is given up for this run.
RESTS = 3

#: Longest first rest in seconds; each further one may be twice as long.
FIRST_REST = 60.0


class CircuitBreaker:
    """Counts failures of a source, whichever ticker they hit.

    When the source says that it is asked too often, everything waits: for a random time, up to a
    limit that doubles (full jitter), at least half of the first one. Then the ticker that was
    refused is asked for again, as a probe. After :data:`RESTS` rests in a row, or
    :data:`TOLERATED` other failures in a row, the breaker is open and nothing more is asked.

    Args:
        sleep: waits that many seconds.
        uniform: draws a number from a range.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.opened_by = ""
        self._sleep = sleep
        self._uniform = uniform
        self._failures = 0
        self._rests = 0

    def succeeded(self) -> None:
        """The source answered."""
        self._failures = self._rests = 0

    def failed(self, error: SourceUnavailable) -> bool:
        """The source did not answer; returns whether to ask for the same ticker again."""
        if isinstance(error, RateLimited) and self._rests < RESTS:
            self._sleep(self._uniform(FIRST_REST / 2, FIRST_REST * 2**self._rests))
            self._rests += 1
            return True
        self._failures += 1
        if isinstance(error, RateLimited) or self._failures >= TOLERATED:
            self.opened_by = str(error)
        return False
