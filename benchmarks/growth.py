"""How cost grows with tickers, years and nodes: a model of what ``benchmarks.scale`` measured.

The cost of a stage is a fixed part, a part per ticker and a part per ticker-year, none of them
negative; and, only where these miss a measurement by more than a tenth and it halves the miss, one
that grows with the square of the tickers. On more nodes a stage is split by ticker groups: every
node pays the fixed part and what looks at the whole universe again, what holds the warehouse's
lock is done by one after the other, and the rest is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.optimize import nnls

CORES = 2
"""Of a node, as of the machine measured."""
TASK_S = 60.0
"""Seconds of work in one of Ray's tasks."""

Point = tuple[float, float, float]
"""Tickers, years, cost."""


@dataclass(frozen=True)
class Fit:
    """A cost by its parts, and the largest share by which it misses a point it was fitted to."""

    fixed: float = 0.0
    per_ticker: float = 0.0
    per_ticker_year: float = 0.0
    per_million_pairs: float = 0.0
    """Per million of tickers squared."""
    worst_miss: float = 0.0

    def at(self, tickers: float, years: float) -> float:
        """The cost of a universe."""
        return (
            self.fixed
            + self.per_ticker * tickers
            + self.per_ticker_year * tickers * years
            + self.per_million_pairs * tickers**2 / 1e6
        )


def fitted(points: Sequence[Point]) -> Fit:
    """The parts that miss the points by the least squares of relative errors.

    Raises:
        ValueError: fewer than three points, or a cost that is not positive.
    """
    if len(points) < 3 or min(cost for *_, cost in points) <= 0:
        raise ValueError(f"a fit needs three or more points of positive cost, not {points}")
    tickers, years, costs = np.array(points, dtype=np.float64).T
    parts = np.stack([np.ones_like(tickers), tickers, tickers * years, tickers**2 / 1e6], axis=1)

    def fit(columns: int) -> Fit:
        found, _ = nnls(parts[:, :columns] / costs[:, None], np.ones(len(costs)))
        missed = parts[:, :columns] @ found / costs - 1
        return Fit(*map(float, [*found, *[0.0] * (4 - columns), np.abs(missed).max()]))

    straight, bent = fit(3), fit(4)
    grows_faster = straight.worst_miss > 0.1 and bent.worst_miss < straight.worst_miss / 2
    # A square through as many points as parts misses nothing, whatever they say.
    return bent if grows_faster and len(points) > 4 else straight


@dataclass(frozen=True)
class Stage:
    """A stage's seconds on one node, and what of them more nodes do not share.

    Attributes:
        total: all of them.
        held: those in which it holds the warehouse's lock, or is the one process that hands out
            work.
        repeated: those for the whole universe, which every node spends on its own share.
        whole: it cannot be split by tickers.
    """

    total: Fit
    held: Fit = Fit()
    repeated: Fit = Fit()
    whole: bool = False

    def seconds(self, tickers: float, years: float, nodes: int) -> float:
        """On so many nodes."""
        total = self.total.at(tickers, years)
        if self.whole or nodes == 1:
            return total
        held, repeated = self.held.at(tickers, years), self.repeated.at(tickers, years)
        stays = min(total, self.total.fixed + held + repeated)
        return stays + (total - stays) / nodes


@dataclass(frozen=True)
class Each:
    """What is done for each of many things that do not depend on each other, on all nodes.

    Attributes:
        seconds_of_one: processor seconds of one core.
        per_ticker: how many there are of a ticker, by its years.
        cores: of a node that work on them.
        task_overhead_s: of the process that hands them out in tasks, where there are several nodes.
    """

    seconds_of_one: float
    per_ticker: Callable[[float], int]
    cores: int = CORES
    task_overhead_s: float = 0.0

    def seconds(self, tickers: float, years: float, nodes: int) -> float:
        """On so many nodes; on one without tasks."""
        work = tickers * self.per_ticker(years) * self.seconds_of_one
        tasks = ceil(work / TASK_S) if nodes > 1 else 0
        return work / (self.cores * nodes) + tasks * self.task_overhead_s


def of_folds(
    train: int, val: int, test: int, per_fold: int = 1, sessions_per_year: int = 252
) -> Callable[[float], int]:
    """So many per ticker for every fold that begins in so many years."""

    def count(years: float) -> int:
        return per_fold * max(0, ceil((years * sessions_per_year - train - val) / test))

    return count


def times(
    stages: Mapping[str, Stage | Each],
    sizes: Sequence[float],
    years: float,
    nodes: Sequence[int],
) -> dict[float, dict[int, dict[str, float]]]:
    """Seconds of each stage, by tickers and by nodes."""
    return {
        tickers: {
            count: {name: stage.seconds(tickers, years, count) for name, stage in stages.items()}
            for count in nodes
        }
        for tickers in sizes
    }


def in_words(seconds: float) -> str:
    """Seconds as a reader takes them in."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
