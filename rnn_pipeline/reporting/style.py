"""The look all pictures share: one palette, one set of matplotlib parameters, one way to lay out.

Backgrounds are transparent, so every colour is of middle luminance: at least 3 : 1 against white
and against a near-black page, and the four hues stay apart for colour-blind readers. Axes and text
are grey; colour is for data. Baselines are grey too, so that only the models stand out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.baselines import BASELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#7b7f86"
BLUE, ORANGE, GREEN, PURPLE = HUES = ("#2b87e3", "#dd6a1c", "#3b9a5a", "#ad4aa4")
UP, DOWN = BLUE, ORANGE
MODEL_HUES = {"lstm": BLUE, "gru": ORANGE, "stacked_lstm": GREEN}
BENCHMARKS = ("buy_and_hold", "equal_weight", "cash")
GREY = (*BASELINES, *BENCHMARKS)
"""Drawn in grey: what a model or a strategy is held against."""
RIVALS = ("ridge", "lightgbm")
"""The baselines that learn returns stand for all where many lines or panels would confuse."""
LineStyle = str | tuple[int, tuple[int, ...]]
DASHES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
GREY_DASHES: tuple[LineStyle, ...] = (
    *DASHES,
    *((0, dashes) for dashes in ((8, 2), (5, 1, 1, 1, 1, 1), (1, 3), (2, 1), (8, 2, 2, 2))),
)
ACRONYMS = frozenset({"lstm", "gru", "rnn", "ic"})
NAMES = {"lightgbm": "LightGBM", "tfidf_logistic": "TF-IDF + logistic regression"}

WIDE, HALF = 10.6, 5.1
"""Figure widths in inches: the full page, and half of it."""

PARAMETERS = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.titlesize": 9.0,
    "date.converter": "concise",
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "butt",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "rnn_pipeline",
    "text.color": INK,
    # A ticker or a headline may hold a dollar sign; nothing here is a formula.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8.0,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.labelsize": 8.0,
    "ytick.major.size": 0.0,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run ``draw`` under :data:`PARAMETERS`, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        from matplotlib import style

        with style.context(["default", PARAMETERS]):
            return draw(*args, **kwargs)

    return drawn


def display_name(name: str) -> str:
    """``stacked_lstm_h5`` as a reader writes it: ``Stacked LSTM, 5 sessions``."""
    if name in NAMES:
        return NAMES[name]
    if ahead := re.fullmatch(r"(.+)_h(\d+)", name):
        return f"{display_name(ahead[1])}, {ahead[2]} sessions"
    words = [word.upper() if word in ACRONYMS else word for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: models first, in the order of their hues, baselines last."""
    rank = {name: place for place, name in enumerate((*MODEL_HUES, "", *GREY))}
    return sorted(set(names), key=lambda name: (rank.get(name, rank[""]), name))


def without_minor(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of all models, and of the baselines those of :data:`RIVALS` alone."""
    if frame.empty:
        return frame
    return frame[~frame["model"].isin(set(BASELINES) - set(RIVALS))]


def line_styles(names: Iterable[str]) -> dict[str, tuple[str, LineStyle]]:
    """Colour and dash pattern per name: a fixed hue for a known model, grey for a baseline."""
    names = list(names)
    free = [hue for hue in HUES if hue not in {MODEL_HUES.get(name) for name in names}] or HUES
    newcomers = [name for name in names if name not in MODEL_HUES and name not in GREY]
    greys = [name for name in names if name in GREY]
    return {
        **{name: (MODEL_HUES[name], "-") for name in names if name in MODEL_HUES},
        **{
            name: (free[i % len(free)], DASHES[i // len(free) % len(DASHES)])
            for i, name in enumerate(newcomers)
        },
        **{name: (INK, GREY_DASHES[i % len(GREY_DASHES)]) for i, name in enumerate(greys)},
    }


def new_figure(title: str, note: str = "", *, width: float = WIDE, height: float) -> Figure:
    """An empty figure in inches, with what is seen above it and how to read it below."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, x=0.002, ha="left", fontsize=10.5, fontweight="bold")
    if note:
        figure.supxlabel(note, x=0.002, ha="left", fontsize=8.0)
    return figure


def nothing_to_draw(title: str, sentence: str, *, width: float = HALF) -> Figure:
    """The picture of an empty frame: a sentence in place of axes."""
    figure = new_figure(title, width=width, height=0.9)
    figure.text(0.002, 0.3, sentence, ha="left", va="center")
    return figure


def panel_columns(n: int) -> int:
    """Columns that leave few gaps in a grid of ``n`` panels: at most three."""
    return {1: 1, 2: 2, 4: 2}.get(n, 3)


def panels(
    figure: Figure,
    names: Sequence[str],
    heights: Sequence[float] = (1.0,),
    *,
    columns: int,
    span: pd.Series | None = None,
) -> dict[str, list[Axes]]:
    """Small multiples: one panel per name, each of axes stacked on one horizontal axis.

    Args:
        figure: where to draw.
        names: titles of the panels, row by row.
        heights: relative heights of a panel's axes, from the top.
        columns: panels in one row.
        span: sessions that all panels show; only the lowest panel of a column is then dated.
    """
    rows = -(-len(names) // columns)
    # One grid for all axes, not one per panel: the layout then gives all panels the same size.
    grid = figure.add_gridspec(rows * len(heights), columns, height_ratios=[*heights] * rows)
    cells: dict[str, list[Axes]] = {}
    for position, name in enumerate(names):
        row, column = divmod(position, columns)
        places = [grid[row * len(heights) + layer, column] for layer in range(len(heights))]
        top = figure.add_subplot(places[0])
        cell = [top, *(figure.add_subplot(place, sharex=top) for place in places[1:])]
        for axes in cell[:-1]:
            axes.tick_params(labelbottom=False, length=0)
            axes.spines.bottom.set_visible(False)
        top.set_title(name)
        if span is not None:
            date_axis(cell[-1], span)
            if position + columns < len(names):
                cell[-1].tick_params(labelbottom=False)
        cells[name] = cell
    return cells


def date_axis(axes: Axes, span: pd.Series) -> None:
    """Show the sessions from the first to the last of ``span``, with three to six dates."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first, last = pd.Timestamp(span.min()), pd.Timestamp(span.max())
    margin = max((last - first) * 0.01, pd.Timedelta(days=1))
    axes.set_xlim(first - margin, last + margin)
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def few(tickers: Iterable[str], limit: int) -> tuple[list[str], str]:
    """The first ``limit`` tickers in order, and a sentence about those left out."""
    ordered = sorted(set(tickers))
    left_out = len(ordered) - limit
    if left_out <= 0:
        return ordered, ""
    return ordered[:limit], f"The first {limit} of {len(ordered)} tickers; {left_out} not shown."


def percent_axis(axis: Axis, digits: int = 0) -> None:
    """Show an axis of fractions in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, digits, symbol=" %"))


def round_steps(axes: Axes) -> None:
    """Ticks of the vertical axis in steps of 1, 2 or 5: a step of 2.5 would need a digit more."""
    axes.locator_params(axis="y", steps=[1, 2, 5, 10])


def label_ends(axes: Axes, ends: Mapping[str, tuple[object, float, str]], gap: float) -> None:
    """Write each line's name at its last point, pushed apart to at least ``gap`` of the height.

    Args:
        axes: where the lines were drawn; its limits must be final.
        ends: text -> (x, y, colour) of the last point.
        gap: smallest distance between two labels, as a fraction of the axes' height.
    """
    to_fraction = axes.transData + axes.transAxes.inverted()
    x_number = axes.convert_xunits
    heights = {
        text: float(to_fraction.transform((float(x_number(x)), y))[1])
        for text, (x, y, _) in ends.items()
    }
    order = sorted(heights, key=lambda text: heights[text])
    placed = np.array([heights[text] for text in order])
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    # Whatever was pushed above the top comes down again, neighbours with it.
    if len(placed):
        placed[-1] = min(placed[-1], 1.0)
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    for text, height in zip(order, placed, strict=True):
        axes.text(
            1.015,
            height,
            text,
            transform=axes.transAxes,
            color=ends[text][2],
            fontsize=8.0,
            va="center",
        )


def legend_above(axes: Axes) -> None:
    """The legend in one line above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=4,
        borderaxespad=0.0,
        handlelength=1.2,
        columnspacing=1.4,
    )
