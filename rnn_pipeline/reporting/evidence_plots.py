"""Pictures of what the forecasts were worth: through time, by size, and after costs.

As in :mod:`~rnn_pipeline.reporting.plots`, every function takes frames and returns a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rnn_pipeline.reporting.style import (
    GREY,
    HALF,
    INK,
    RIVALS,
    WIDE,
    date_axis,
    display_name,
    in_order,
    label_ends,
    line_styles,
    new_figure,
    nothing_to_draw,
    panels,
    percent_axis,
    styled,
    without_minor,
)
from rnn_pipeline.reporting.tables import format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 4


@styled
def rolling_ic(rolling: pd.DataFrame) -> Figure:
    """Information coefficient of the last 250 sessions, through time.

    Args:
        rolling: model, session, ic; of the baselines only ``RIVALS`` are drawn.
    """
    title = "Information coefficient through time"
    shown = without_minor(rolling)
    if shown.empty:
        return nothing_to_draw(title, "Not enough tested sessions yet.", width=WIDE)
    figure = new_figure(
        title, "Rank correlation of forecasts and outcomes over the last 250 sessions.", height=3.2
    )
    axes = figure.subplots()
    models = in_order(shown["model"])
    looks = line_styles(models)
    ends: dict[str, tuple[object, float, str]] = {}
    for model in reversed(models):
        own = shown[shown["model"] == model].sort_values("session")
        colour, dash = looks[model]
        session, ic = own["session"].to_numpy(), own["ic"].to_numpy()
        axes.plot(session, ic, color=colour, linestyle=dash, lw=0.9 if colour == INK else 1.5)
        ends[f"{display_name(model)} {format_value(ic[-1], '+.2f')}"] = (
            session[-1],
            ic[-1],
            colour,
        )
    axes.axhline(0.0, color=INK, linewidth=0.9)
    furthest = max(0.1, 1.1 * float(shown["ic"].abs().max()))
    axes.set_ylim(-furthest, furthest)
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, "+.2f"))
    axes.grid(axis="y")
    date_axis(axes, shown["session"])
    label_ends(axes, ends, gap=0.075)
    return figure


@styled
def reliability(table: pd.DataFrame) -> Figure:
    """Mean outcome of tenths of the forecasts, from the lowest to the highest.

    Args:
        table: model, bin, forecast, actual, low, high (log returns); networks and one rival are
            drawn, a panel each.
    """
    title = "Do higher forecasts come with higher outcomes?"
    models = in_order(table["model"]) if len(table) else []
    chosen = [model for model in models if model not in GREY and model != "sentiment"]
    chosen = [*chosen[: PANELS - 1], *[model for model in RIVALS if model in models][-1:]]
    if not chosen:
        return nothing_to_draw(title, "No tested forecast that differs from the others yet.")
    figure = new_figure(
        title,
        "Tenths of the forecasts, lowest to highest. Dot: mean outcome. Bar: its 95 % interval.",
        height=2.5,
    )
    looks = line_styles(chosen)
    shown = table[table["model"].isin(chosen)]
    furthest = 1.05 * float(np.nanmax(np.abs(shown[["low", "high"]].to_numpy())))
    for model, (axes,) in panels(figure, chosen, columns=len(chosen)).items():
        own = shown[shown["model"] == model].sort_values("bin")
        colour = looks[model][0]
        axes.vlines(own["bin"], own["low"], own["high"], color=colour, alpha=0.45, linewidth=2.4)
        axes.plot(own["bin"].to_numpy(), own["actual"].to_numpy(), "o", color=colour, markersize=4)
        axes.axhline(0.0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(display_name(model), color=colour)
        axes.set_ylim(-furthest, furthest)
        axes.set_xticks([own["bin"].min(), own["bin"].max()], labels=["lowest", "highest"])
        axes.grid(axis="y")
        percent_axis(axes.yaxis, digits=1)
        if model != chosen[0]:
            axes.tick_params(labelleft=False)
    return figure


@styled
def cost_sensitivity(costs: pd.DataFrame, charged: float) -> Figure:
    """Annual return of accounts against what a trade costs.

    Args:
        costs: name, cost_bps, annual_return.
        charged: what all other figures assume, in basis points.
    """
    title = "What trading costs leave"
    if costs.empty:
        return nothing_to_draw(title, "No backtest yet.")
    figure = new_figure(
        title,
        f"Return a year at a cost per traded weight; dashed: {charged:g} bps, as charged.",
        width=HALF,
        height=2.9,
    )
    axes = figure.subplots()
    names = in_order(costs["name"])
    looks = line_styles(names)
    ends: dict[str, tuple[object, float, str]] = {}
    for name in reversed(names):
        own = costs[costs["name"] == name].sort_values("cost_bps")
        colour, dash = looks[name]
        cost, earned = own["cost_bps"].to_numpy(), own["annual_return"].to_numpy()
        axes.plot(cost, earned, color=colour, linestyle=dash)
        ends[display_name(name)] = (cost[-1], float(earned[-1]), colour)
    axes.axhline(0.0, color=INK, linewidth=0.9)
    axes.axvline(charged, color=INK, linewidth=0.8, linestyle="--", zorder=0)
    levels = sorted(costs["cost_bps"].unique())
    axes.set_xticks(levels, labels=[f"{level:g}" for level in levels])
    axes.set_xlabel("basis points")
    axes.grid(axis="y")
    percent_axis(axes.yaxis)
    label_ends(axes, ends, gap=0.075)
    return figure
