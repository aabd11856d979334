"""What docs/growth.md says of the figures of ``benchmarks.scale``: tables and a picture.

The model is that of ``benchmarks.growth``; here its stages are put together from the figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks.growth import Each, Fit, Stage, fitted, in_words, of_folds, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Path(__file__).parents[1] / "docs" / "growth.md"
PICTURE = PAGE.parent / "images" / "growth.svg"

SIZES = (24, 500, 5000)
YEARS = 10
NODES = (1, 10, 100)
RUNS = {"evening": "an evening", "rebuild": f"everything, {YEARS} years"}
NETWORKS = ("lstm", "gru", "stacked_lstm")
FOLDS = {"train": 1000, "val": 125, "test": 250}
"""The defaults; of each fold there are the networks by two seeds."""
RAY = Path(__file__).parent / "results" / "ray.json"
ASSUMED_OVERHEAD_S = 0.01
"""Of the process that hands out a Ray task, where ``benchmarks.ray_overhead`` was not run."""
WHOLE = ("decisions", "report", "Dagster")
"""Stages that look at all tickers at once, or that one database serves."""
HANDING_OUT = "training, handing out"
BASELINES = "baselines of a fold"

Figures = Mapping[str, Mapping[str, Any]]


def points(
    universes: Mapping[str, Any], *path: str, least: float = 0.0
) -> list[tuple[float, float, float]]:
    """A figure of every universe."""
    found = []
    for one in universes.values():
        value: Any = one
        for key in path:
            value = value[key]
        found.append((one["tickers"], one["years"], max(float(value), least)))
    return found


def fit_or_nothing(found: Sequence[tuple[float, float, float]]) -> Fit:
    """A fit; of what is nowhere there, nothing."""
    return fitted(found) if min(value for *_, value in found) > 0 else Fit()


def task_overhead_s() -> float:
    """Seconds that one Ray task costs besides its work."""
    if not RAY.exists():
        return ASSUMED_OVERHEAD_S
    return float(json.loads(RAY.read_text())["seconds"]["task, one after the other"]["median"])


def stages_of(run: str, figures: Figures) -> dict[str, Stage | Each]:
    """The model's stages of one kind of run, in the order in which they are listed there."""
    universes = figures["universes"]
    named = next(iter(universes.values()))[run]["by_stage"]
    loading = mean(value for *_, value in points(universes, run, "imports", "processor_s"))
    found: dict[str, Stage | Each] = {"imports": Stage(Fit(fixed=loading))}
    for name in named:

        def fit(figure: str, name: str = name) -> Fit:
            return fit_or_nothing(points(universes, run, "by_stage", name, figure))

        if name == "training":
            own = figures["training"]
            found[name] = Each(
                mean(own[network]["processor_s_of_one"] for network in NETWORKS),
                of_folds(**FOLDS, per_fold=2 * len(NETWORKS)),
                task_overhead_s=task_overhead_s(),
            )
            found[HANDING_OUT] = Stage(fit("main_thread_s"), whole=True)
            continue
        if name == "baselines":
            one = figures["training"][BASELINES]["processor_s_of_one"]
            found[name] = Each(one, of_folds(**FOLDS), cores=1)
            continue
        repeated = Fit()
        if name == "features":
            repeated = fit_or_nothing(points(universes, "shared", run, "processor_s"))
        held = Fit() if name in WHOLE else fit("held_processor_s")
        found[name] = Stage(fit("processor_s"), held, repeated, name in WHOLE)
    return found


def measured_up_to(figures: Figures) -> float:
    """Ticker-years of the largest universe."""
    return max(one["tickers"] * one["years"] for one in figures["universes"].values())


def tables(figures: Figures) -> dict[str, str]:
    """Every table by the name that its place on the page has."""
    return {
        "times": _times(figures),
        **{run: _by_stage(run, figures) for run in RUNS},
        "stored": _stored(figures),
        "networks": _networks(figures),
        "events": _events(figures),
        "wide": _wide(figures),
    }


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(figures: Figures) -> str:
    """The table that everything else is for."""
    rows = []
    for run, words in RUNS.items():
        found = times(stages_of(run, figures), SIZES, YEARS, NODES)
        for tickers, by_nodes in found.items():
            star = "\\*" if tickers * YEARS > measured_up_to(figures) else ""
            cells = [f"{in_words(sum(spent.values()))}{star}" for spent in by_nodes.values()]
            most = [_most(by_nodes[nodes]) for nodes in (NODES[0], NODES[-1])]
            rows.append([words, f"{tickers:,}", *cells, *most])
    head = [f"{nodes} node{'s' * (nodes > 1)}" for nodes in NODES]
    return _rows(["run", "tickers", *head, "most of it on one", f"most of it on {NODES[-1]}"], rows)


def _most(spent: Mapping[str, float]) -> str:
    whole = sum(spent.values())
    first = sorted(spent, key=lambda name: -spent[name])[:2]
    return ", ".join(f"{name} {spent[name] / whole:.0%}" for name in first)


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "0"


def _by_stage(run: str, figures: Figures) -> str:
    """What the model's numbers are."""
    rows = []
    for name, stage in stages_of(run, figures).items():
        if isinstance(stage, Each):
            continue
        whole = stage.total
        square = f" + {_number(whole.per_million_pairs)} N²/10⁶" if whole.per_million_pairs else ""
        shares = "all" if stage.whole else ""
        if not stage.whole:
            cost = whole.at(500, 2)
            stays = min(cost, whole.fixed + stage.held.at(500, 2) + stage.repeated.at(500, 2))
            shares = f"{stays / cost:.0%}"
        rows.append(
            [
                name,
                _number(whole.fixed),
                _number(1000 * whole.per_ticker),
                _number(1000 * whole.per_ticker_year) + square,
                f"{whole.worst_miss:.0%}",
                shares,
            ]
        )
    head = ["fixed, s", "per ticker, ms", "per ticker-year, ms", "worst miss", "not divided"]
    return _rows([RUNS[run], *head], rows)


def _stored(figures: Figures) -> str:
    """Bytes of what lies on disk, and memory."""
    universes = figures["universes"]
    kinds = next(iter(universes.values()))["bytes"]
    per_ticker = of_folds(**FOLDS, per_fold=2)(YEARS)
    of_networks = per_ticker * sum(figures["training"][name]["bytes_of_one"] for name in NETWORKS)
    rows = []
    for name in kinds:
        fit = fitted(points(universes, "bytes", name))
        if name == "networks":
            fit = Fit(per_ticker=of_networks)
        kilobytes = _number((fit.per_ticker / YEARS + fit.per_ticker_year) / 1000)
        cells = [f"{fit.at(size, YEARS) / 1e9:.2g} GB" for size in SIZES]
        rows.append([name, kilobytes, *cells])
    for run, words in RUNS.items():
        fit = fitted(points(universes, run, "peak_mb"))
        cells = [f"{fit.at(size, YEARS) / 1000:.2g} GB" for size in SIZES]
        rows.append([f"memory, {words}", _number(1000 * fit.per_ticker_year), *cells])
    head = ["kB per ticker-year", *(f"{size:,} tickers, {YEARS} years" for size in SIZES)]
    return _rows(["stored", *head], rows)


def _networks(figures: Figures) -> str:
    rows = [
        [
            name,
            _number(1000 * own["processor_s_of_one"]),
            _number(own["per_s_by_the_clock_on_two"]) if name != BASELINES else "",
            _number(own["bytes_of_one"] / 1000) if name != BASELINES else "",
        ]
        for name, own in figures["training"].items()
        if isinstance(own, Mapping)
    ]
    known = "measured" if RAY.exists() else "assumed"
    rows.append([f"Ray task, handed out ({known})", _number(1000 * task_overhead_s()), "", ""])
    head = ["one", "ms of one core", "per s on two cores, by the clock", "kB"]
    return _rows(head, rows)


def _events(figures: Figures) -> str:
    rows = [
        [
            f"{own['tickers']:,} tickers, {own['years']} year{'s' * (own['years'] > 1)} of months",
            f"{own['partitions']:,}",
            _number(own["every partition"]["processor_s"]),
            _number(own["processor_ms_of_one"]),
            _number(own["bytes_of_one"] / 1000),
            _number(own["newest date"]["processor_s"]),
        ]
        for own in figures["events"].values()
    ]
    head = ["partitions", "one run over all, s", "ms of one", "kB of one", "the newest month, s"]
    return _rows(["Dagster alone, one asset", *head], rows)


def _wide(figures: Figures) -> str:
    """What the model says of sizes that it was not fitted to."""
    rows = []
    for own in figures["wide"].values():
        cells = []
        for run in RUNS:
            for stage in ("ingest", "features"):
                spent = own[run][stage]["processor_s"]
                per_row = 1e6 * spent / own["tickers"] / (252 if run == "rebuild" else 1)
                cells.append(f"{_number(spent)} ({_number(per_row)})")
        rows.append([f"{own['tickers']:,}", *cells, f"{own['peak_mb'] / 1000:.2g} GB"])
    head = [
        f"{stage}, {words}"
        for words in ("one session more", "first load")
        for stage in ("ingest", "features")
    ]
    return _rows(["tickers, one year", *head, "memory"], rows)


def picture(figures: Figures) -> Figure:
    """Time against tickers: by nodes, and the stages of an evening on one."""
    import numpy as np

    from rnn_pipeline.reporting.style import (
        BLUE,
        GREEN,
        INK,
        ORANGE,
        PURPLE,
        label_ends,
        new_figure,
        panels,
        styled,
    )

    sizes = np.geomspace(SIZES[0], SIZES[-1], 40).tolist()
    evening = times(stages_of("evening", figures), sizes, YEARS, NODES)
    every = times(stages_of("rebuild", figures), sizes, YEARS, NODES)

    @styled
    def draw() -> Figure:
        figure = new_figure(
            "How long a run takes",
            f"By tickers, {YEARS} years of history; modelled from universes of up to"
            f" {measured_up_to(figures):,.0f} ticker-years (dotted line), both axes logarithmic.",
            height=3.6,
        )
        names = ["An evening", f"Everything, {YEARS} years", "An evening on one node, by stage"]
        cells = panels(figure, names, columns=3)
        for name, found in zip(names, (evening, every), strict=False):
            lines = {
                f"{nodes} node{'s' * (nodes > 1)}": (
                    [sum(by_nodes[nodes].values()) for by_nodes in found.values()],
                    hue,
                )
                for nodes, hue in zip(NODES, (BLUE, ORANGE, GREEN), strict=True)
            }
            _curves(cells[name][0], sizes, lines)
        hues = (BLUE, ORANGE, GREEN, PURPLE, INK, INK, INK, INK)
        of_one = [by_nodes[1] for by_nodes in evening.values()]
        stages = sorted(of_one[-1], key=lambda name: -of_one[-1][name])
        lines = {
            name: ([spent[name] for spent in of_one], hue)
            for name, hue in zip(stages, hues, strict=False)
        }
        _curves(cells[names[2]][0], sizes, lines)
        return figure

    def _curves(axes: Any, sizes: Any, lines: Mapping[str, tuple[list[float], str]]) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for seconds, hue in lines.values():
            axes.plot(sizes, seconds, color=hue)
        axes.axvline(measured_up_to(figures) / YEARS, color=INK, linestyle=":", linewidth=0.8)
        axes.set_xlim(SIZES[0], SIZES[-1])
        axes.set_xticks(SIZES, labels=[f"{size:,}" for size in SIZES])
        axes.set_xticks([], minor=True)
        low, high = axes.get_ylim()
        known = [1, 10, 60, 600, 3600, 36000, 360000]
        ticks = [tick for tick in known if low <= tick <= high]
        axes.set_yticks(ticks, labels=[_round_time(tick) for tick in ticks])
        axes.set_yticks([], minor=True)
        axes.grid(axis="y")
        ends = {name: (sizes[-1], seconds[-1], hue) for name, (seconds, hue) in lines.items()}
        label_ends(axes, ends, gap=0.07)

    return draw()


def _round_time(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h"


def write(figures: Figures) -> None:
    """Replace the page's tables, each between ``<!-- NAME -->`` and ``<!-- end -->``; its picture.

    Raises:
        ValueError: the page has no place for a table.
    """
    from rnn_pipeline.reporting.plots import svg

    text = PAGE.read_text()
    for name, table in tables(figures).items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        if not mark:
            raise ValueError(f"{PAGE.name} has no line <!-- {name} --> for the table")
        text = f"{before}{mark}\n{table}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    PAGE.write_text(text)
    PICTURE.write_text(svg(picture(figures)) + "\n")
