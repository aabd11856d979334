"""Pictures of what forecasts were worth: by ticker, through time, by size, and after costs.

As in :mod:`~rnn_pipeline.reporting.plots`, every function takes frames and returns a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    few,
    in_order,
    label_ends,
    legend_above,
    line_styles,
    new_figure,
    nothing_to_draw,
    panels,
    percent_axis,
    round_steps,
    styled,
    without_minor,
)
from rnn_pipeline.reporting.tables import format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 4
ROW_LIMIT = 30
MODEL_LIMIT = 6


@styled
def hit_rates(metrics: pd.DataFrame) -> Figure:
    """Share of forecasts with the right sign, with its interval, beside the toss of a coin.

    Args:
        metrics: ticker, model, hit_rate, hit_low, hit_high (fractions).
    """
    title = "Hit rate by ticker"
    metrics = metrics.dropna(subset=["hit_rate"]) if len(metrics) else metrics
    if metrics.empty:
        return nothing_to_draw(title, "No tested forecasts yet.", width=WIDE)
    names, note = few(metrics["ticker"], ROW_LIMIT)
    models = in_order(metrics["model"])[:MODEL_LIMIT]
    looks = line_styles(models)
    figure = new_figure(
        title,
        f"Bar: 95 % interval. Dashed: a coin. {note}".strip(),
        height=0.95 + 0.2 * max(len(names), 3),
    )
    shown = metrics[metrics["ticker"].isin(names) & metrics["model"].isin(models)]
    row_of = {name: row for row, name in enumerate(names)}
    cells = panels(figure, models, columns=len(models))
    for model, (axes,) in cells.items():
        own = shown[shown["model"] == model]
        row = own["ticker"].map(row_of).to_numpy()
        colour = looks[model][0]
        axes.hlines(row, own["hit_low"], own["hit_high"], color=colour, alpha=0.5, linewidth=2.0)
        axes.plot(own["hit_rate"].to_numpy(), row, "o", color=colour, markersize=4.0)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle="--", zorder=0)
        axes.set_title(display_name(model), color=colour)
        axes.set_xlim(shown["hit_low"].min() - 0.005, shown["hit_high"].max() + 0.005)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), labels=names if model == models[0] else [])
        axes.spines.left.set_visible(False)
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=4)
        percent_axis(axes.xaxis)
    return figure


@styled
def ic_through_time(metrics: pd.DataFrame, fold_table: pd.DataFrame) -> Figure:
    """Information coefficient of each fold, over the sessions that the fold tested.

    Args:
        metrics: fold, model, ic (Spearman).
        fold_table: fold, role, first_session, last_session.
    """
    title = "Information coefficient by fold"
    metrics = metrics.dropna(subset=["ic"]) if len(metrics) else metrics
    if metrics.empty or fold_table.empty:
        return nothing_to_draw(title, "No tested fold yet.")
    tested = metrics.merge(fold_table[fold_table["role"] == "test"], on="fold")
    models = in_order(tested["model"])
    looks = line_styles(models)
    figure = new_figure(title, "Rank correlation of forecast and outcome.", width=HALF, height=2.9)
    axes = figure.subplots()
    for model in models:
        colour, dash = looks[model]
        own = tested[tested["model"] == model]
        axes.hlines(
            own["ic"],
            own["first_session"].to_numpy(),
            own["last_session"].to_numpy(),
            color=colour,
            linestyle=dash,
            linewidth=1.0 if colour == INK else 2.4,
            label=display_name(model),
        )
    axes.axhline(0.0, color=INK, linewidth=0.9)
    furthest = max(0.1, 1.15 * float(tested["ic"].abs().max()))
    axes.set_ylim(-furthest, furthest)
    round_steps(axes)
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, "+.2f"))
    axes.grid(axis="y")
    date_axis(axes, pd.concat([tested["first_session"], tested["last_session"]]))
    legend_above(axes)
    return figure


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
    round_steps(axes)
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
        round_steps(axes)
        axes.set_xticks([own["bin"].min(), own["bin"].max()], labels=["lowest", "highest"])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.grid(axis="y")
        percent_axis(axes.yaxis, digits=1)
        if model != chosen[0]:
            axes.tick_params(labelleft=False)
    return figure


@styled
def quantile_coverage(table: pd.DataFrame) -> Figure:
    """How often outcomes fell at or below each forecast quantile, beside how often they should.

    Args:
        table: model, level, coverage, low, high (fractions), pinball, unconditional, as of
            :func:`~rnn_pipeline.evidence.calibration.quantile_calibration`; a panel per model.
    """
    title = "Do quantiles hold what they promise?"
    models = in_order(table["model"])[:PANELS] if len(table) else []
    if not models:
        return nothing_to_draw(
            title, "No network forecasts quantiles: give one model.networks.NAME.quantiles."
        )
    figure = new_figure(
        title,
        "Outcomes at or below a quantile, by its level; bar: 95 % interval; dashed: as promised.\n"
        "In brackets: pinball loss saved against the training rows' own quantiles.",
        width=WIDE if len(models) > 1 else HALF + 1.6,
        height=3.3,
    )
    looks = line_styles(models)
    for model, (axes,) in panels(figure, models, columns=len(models)).items():
        own = table[table["model"] == model].sort_values("level")
        colour, level = looks[model][0], own["level"].to_numpy()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        axes.vlines(level, own["low"], own["high"], color=colour, alpha=0.45, linewidth=2.4)
        axes.plot(level, own["coverage"].to_numpy(), "o-", color=colour, markersize=4, linewidth=1)
        saved = format_value(1 - own["pinball"].sum() / own["unconditional"].sum(), "+.1%")
        axes.set_title(f"{display_name(model)} ({saved})", color=colour)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(level, labels=[f"{100 * part:g} %" for part in level])
        axes.set_yticks(level)
        axes.grid()
        percent_axis(axes.yaxis)
        if model != models[0]:
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


@styled
def paper_curves(paper: pd.DataFrame) -> Figure:
    """The paper account beside the backtest's promise.

    Args:
        paper: session, equity, promise.
    """
    title = "Equity, from a start of 1"
    if paper.empty:
        return nothing_to_draw(title, "Nothing has been traded on paper yet.", width=WIDE)
    if len(paper) == 1:
        begun = f"The account began on {paper['session'].iloc[0]:%Y-%m-%d}; nothing to compare yet."
        return nothing_to_draw(title, begun, width=WIDE)
    promise = paper[["session", "promise"]].rename(columns={"promise": "equity"})
    return equity_curves({"paper": paper[["session", "equity"]], "backtest": promise})


def equity_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """What one unit became, with the fall from the highest point so far below.

    Args:
        curves: name -> frame of session, equity; models in colour, benchmarks in grey.
    """
    title = "Equity, from a start of 1"
    drawn = {
        name: curves[name].sort_values("session").dropna(subset=["equity"])
        for name in in_order(curves)
        if curves[name]["equity"].notna().any()
    }
    if not drawn:
        return nothing_to_draw(title, "No backtest yet.", width=WIDE)
    figure = new_figure(title, height=4.0)
    growth, drawdown = panels(figure, [""], (2.2, 1), columns=1)[""]
    looks = line_styles(drawn)
    ends: dict[str, tuple[object, float, str]] = {}
    # Benchmarks are drawn first, so that a strategy lies on top of them.
    for name, frame in reversed(drawn.items()):
        colour, dash = looks[name]
        session, equity = frame["session"].to_numpy(), frame["equity"]
        growth.plot(session, equity.to_numpy(), color=colour, linestyle=dash)
        fall = (equity / equity.cummax() - 1).to_numpy()
        drawdown.plot(session, fall, color=colour, linestyle=dash, linewidth=0.9)
        final = float(equity.iloc[-1])
        ends[f"{display_name(name)} {format_value(final, ',.2f')}"] = (session[-1], final, colour)
    every = pd.concat([frame[["session", "equity"]] for frame in drawn.values()])
    if every["equity"].min() > 0 and every["equity"].max() > 4 * every["equity"].min():
        growth.set_yscale("log", base=2)
        growth.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        growth.set_title("Log scale")
    growth.axhline(1.0, color=INK, linewidth=0.6, alpha=0.6)
    drawdown.set_title("Drawdown")
    drawdown.set_ylim(top=0)
    percent_axis(drawdown.yaxis)
    date_axis(drawdown, every["session"])
    for axes in (growth, drawdown):
        axes.grid(axis="y")
    label_ends(growth, ends, gap=0.085)
    return figure


@styled
def power_curves(found: pd.DataFrame) -> Figure:
    """How often a planted signal is found, against its strength, beside a baseline.

    Args:
        found: signal, strength (correlation with the outcome), model, share, and the ends of its
            interval as a pair ``interval``; one panel per signal.
    """
    title = "Planted signals found"
    if found.empty:
        return nothing_to_draw(title, "No signal has been planted yet.", width=WIDE)
    models = in_order(found["model"])[:MODEL_LIMIT]
    looks = line_styles(models)
    figure = new_figure(
        title,
        "Share of tickers graded weak or better, with its 95 % interval, by the correlation of the"
        " signal with the outcome.",
        height=3.1,
    )
    names = list(dict.fromkeys(found["signal"]))
    for name, (axes,) in panels(figure, names, columns=len(names)).items():
        ends = {}
        for model in models:
            own = found[(found["signal"] == name) & (found["model"] == model)]
            own = own.sort_values("strength")
            if own.empty:
                continue
            colour, dash = looks[model]
            strength, share = own["strength"].to_numpy(), own["share"].to_numpy()
            low, high = np.array(own["interval"].tolist()).T
            # Beside each other, so that one interval does not hide the other.
            strength = strength + (models.index(model) - (len(models) - 1) / 2) * 0.002
            axes.vlines(strength, low, high, color=colour, alpha=0.5, linewidth=2.0)
            axes.plot(strength, share, dash, color=colour, marker="o", markersize=3.5)
            ends[display_name(model)] = (strength[-1], float(share[-1]), colour)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.set_xlabel("strength of the signal")
        percent_axis(axes.yaxis)
        label_ends(axes, ends, gap=0.08)
    return figure
