"""One picture per question, as matplotlib figures that need no pyplot and keep no global state.

Every function takes frames with the columns it names (others are ignored, row order does not
matter) and returns a Figure; an empty frame gives a picture that says so. Many tickers are cut to
a readable number, and the picture says how many are missing. ``png``, ``svg`` and ``data_uri``
turn a figure into what Dagster's metadata and the report take.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from rnn_pipeline.reporting.style import (
    BLUE,
    DOWN,
    HALF,
    INK,
    ORANGE,
    PURPLE,
    UP,
    WIDE,
    display_name,
    few,
    in_order,
    label_ends,
    legend_above,
    line_styles,
    new_figure,
    nothing_to_draw,
    panel_columns,
    panels,
    percent_axis,
    styled,
)
from rnn_pipeline.reporting.tables import format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 90
RECENT_SESSIONS = 250
PANEL_LIMIT = 12
ROW_LIMIT = 30
FEATURE_LIMIT = 24

GAP = "\u2002"
"""An en space: SVG runs plain spaces together."""

LOSS_HUES = {"train_loss": INK, "val_loss": BLUE}
CONTRIBUTIONS = {"price_contribution": BLUE, "sentiment_contribution": PURPLE}
ROLES = {
    "train": ("train", INK, 0.45),
    "val": ("validate", ORANGE, 1.0),
    "test": ("test", BLUE, 1.0),
}

AREA: dict[str, Any] = {"step": "mid", "linewidth": 0, "rasterized": True}
"""Areas of many sessions become pixels inside an SVG: as outlines they would weigh megabytes."""


def png(figure: Figure) -> bytes:
    """The figure as a small PNG: transparent, in at most 128 colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # A chart has few colours: an adaptive palette is a third of the size of 32-bit pixels.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    image = image.quantize(128, method=Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG whose axes and text take the ink that suits a light or a dark page.

    The same figure gives the same text. Lettering is left to the viewer's fonts.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnn_pipeline"}):
        figure.savefig(
            buffer,
            format="svg",
            dpi=200,
            transparent=True,
            metadata={"Date": None, "Creator": None},
        )
    drawing = buffer.getvalue().replace(INK, "var(--ink)")
    drawing = re.sub(r"(\d\.\d\d)\d+", r"\1", drawing)  # a hundredth of a point is enough
    opening, head, body = drawing.partition("<defs>")
    ink = (
        "<style>:root{--ink:#565a61}@media (prefers-color-scheme:dark){:root{--ink:#a9aeb6}}"
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif"
        "!important}</style>"
    )
    return opening[opening.index("<svg") :] + ink + head + body


def data_uri(figure: Figure, kind: Literal["png", "svg"] = "svg") -> str:
    """The figure as a ``data:`` address for an ``<img>``."""
    media, content = (
        ("image/svg+xml", svg(figure).encode()) if kind == "svg" else ("image/png", png(figure))
    )
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


@styled
def coverage(frame: pd.DataFrame, by: str = "ticker") -> Figure:
    """Rows per calendar month, one line per ticker: what is there, and where the gaps are.

    Args:
        frame: rows with ``by`` and a ``session`` (bars) or a ``published_at`` (headlines).
        by: the column that names a line.
    """
    moment, noun = ("session", "sessions") if "session" in frame else ("published_at", "headlines")
    title = f"{display_name(noun)} per month"
    if frame.empty:
        return nothing_to_draw(title, f"No {noun} yet.", width=WIDE)
    month = pd.PeriodIndex(pd.to_datetime(frame[moment]).dt.tz_localize(None), freq="M")
    counts = frame.groupby([by, month]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=pd.period_range(month.min(), month.max(), freq="M"))
    counts = counts.fillna(0.0)
    note = f"Full colour: {counts.to_numpy().max():.0f} in a month. Right: all {noun}."
    if len(counts) > ROW_LIMIT:
        note += f" The {ROW_LIMIT} of {len(counts)} with the fewest; the others are not shown."
        counts = counts.loc[counts.sum(axis=1).nsmallest(ROW_LIMIT).index].sort_index()

    figure = new_figure(title, note, height=0.95 + 0.2 * len(counts))
    axes = figure.subplots()
    share = counts.to_numpy() / counts.to_numpy().max()
    edges = [*counts.columns.start_time, counts.columns[-1].end_time]
    tint = _tint(BLUE, np.where(share > 0, 0.15 + 0.85 * share, 0.0))
    months = pd.DatetimeIndex(edges).to_numpy()
    for row in range(len(counts)):
        strip = [row + 0.2, row + 0.8]
        axes.pcolormesh(months, strip, tint[row : row + 1], rasterized=True)
        axes.axhline(row + 0.5, color=INK, linewidth=0.4, alpha=0.5, zorder=0)
    axes.set_ylim(len(counts), 0)
    axes.set_yticks(np.arange(len(counts)) + 0.5, labels=[str(name) for name in counts.index])
    totals = axes.secondary_yaxis("right")
    totals.set_yticks(
        np.arange(len(counts)) + 0.5, labels=[f"{total:,.0f}" for total in counts.sum(axis=1)]
    )
    for spine in [axes.spines.left, axes.spines.bottom, totals.spines.right]:
        spine.set_visible(False)
    return figure


@styled
def price_with_signals(bars: pd.DataFrame, signals: pd.DataFrame) -> Figure:
    """Adjusted close with the signal in a strip below, per ticker, over the recent sessions.

    Args:
        bars: ticker, session, adj_close.
        signals: ticker, session, signal (-1..1), and label where there is one.
    """
    title = f"Adjusted close and signal, last {RECENT_SESSIONS} sessions"
    if bars.empty:
        return nothing_to_draw(title, "No bars yet.", width=WIDE)
    bars = _recent(bars)
    if signals.empty:
        signals = bars.head(0).assign(signal=0.0)
    signals = signals[signals["session"] >= bars["session"].min()].sort_values("session")
    names, note = few(bars["ticker"], PANEL_LIMIT)
    columns = panel_columns(len(names))
    scale = _signal_scale(signals["signal"])
    figure = new_figure(
        title,
        _sentences(f"Strip: signal, ±{scale:g}; blue is long, orange short.", note),
        height=0.8 + 1.5 * -(-len(names) // columns),
    )
    cells = panels(figure, names, (3, 1), columns=columns, span=bars["session"])
    for name, (price, strip) in cells.items():
        own = bars[bars["ticker"] == name]
        mine = signals[signals["ticker"] == name]
        price.plot(own["session"].to_numpy(), own["adj_close"].to_numpy(), color=INK)
        price.grid(axis="y")
        price.locator_params(axis="y", nbins=4)
        _signed_area(strip, mine["session"], mine["signal"])
        strip.set_ylim(-scale, scale)
        strip.set_yticks([])
        strip.spines.left.set_visible(False)
        now = "no signal"
        if len(mine):
            label = f"{mine['label'].iloc[-1]} " if "label" in mine else ""
            now = label + format_value(mine["signal"].iloc[-1], "+.2f")
        price.set_title(f"{name}{GAP}{own['adj_close'].iloc[-1]:,.2f}{GAP}{now}")
    return figure


@styled
def sentiment_and_news(news_sentiment: pd.DataFrame) -> Figure:
    """Mean sentiment over five sessions with the number of headlines below, per ticker.

    Args:
        news_sentiment: ticker, session, sentiment_mean_5 (-1..1), news_count.
    """
    title = f"Sentiment and headlines, last {RECENT_SESSIONS} sessions"
    if news_sentiment.empty:
        return nothing_to_draw(title, "No sentiment yet.", width=WIDE)
    recent = _recent(news_sentiment)
    if not recent["news_count"].any():
        return nothing_to_draw(title, "No headlines in these sessions.", width=WIDE)
    names, note = few(recent["ticker"], PANEL_LIMIT)
    columns = panel_columns(len(names))
    figure = new_figure(
        title,
        _sentences("Above: mean of five sessions, −1 to +1. Below: headlines a session.", note),
        height=0.8 + 1.45 * -(-len(names) // columns),
    )
    most = max(float(recent["news_count"].max()), 1.0)
    cells = panels(figure, names, (2.5, 1), columns=columns, span=recent["session"])
    for name, (mood, news) in cells.items():
        own = recent[recent["ticker"] == name]
        _signed_area(mood, own["session"], own["sentiment_mean_5"])
        mood.set_ylim(-1, 1)
        mood.set_yticks([-1, 0, 1], labels=["−1", "0", "+1"])
        counts = own["news_count"].to_numpy()
        news.vlines(own["session"].to_numpy(), 0, counts, color=INK, lw=0.7, rasterized=True)
        news.set_ylim(0, most)
        news.set_yticks([most], labels=[f"{most:.0f}"])
    return figure


@styled
def feature_distributions(features: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Histograms over all tickers and sessions, the outer 0.5 % at each end left out.

    Args:
        features: a feature frame.
        columns: the feature columns to draw.
    """
    title = "Distribution of features"
    if features.empty or not columns:
        return nothing_to_draw(title, "No features yet.", width=WIDE)
    names, left_out = list(columns)[:FEATURE_LIMIT], len(columns) - FEATURE_LIMIT
    note = f"{len(features):,} rows of all tickers. Line: median."
    if left_out > 0:
        note += f" {left_out} more features are not shown."
    per_row = min(4, len(names))
    figure = new_figure(title, note, height=0.7 + 1.15 * -(-len(names) // per_row))
    for name, (axes,) in panels(figure, names, columns=per_row).items():
        values = features[name].to_numpy(dtype="float64")
        known = values[np.isfinite(values)]
        axes.set_yticks([])
        axes.spines.left.set_visible(False)
        if not len(known):
            axes.set_xticks([])
            axes.text(0.5, 0.5, "no value yet", ha="center", va="center", transform=axes.transAxes)
            continue
        low, high = np.quantile(known, [0.005, 0.995])
        if low == high:
            low, high = low - 0.5, high + 0.5
        axes.hist(known, bins=40, range=(low, high), color=BLUE, alpha=0.75)
        axes.axvline(np.median(known), color=ORANGE, linewidth=1.0)
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        missing = 1 - len(known) / len(values)
        if missing > 0:
            axes.set_title(f"{format_value(missing, '.1%')} empty", loc="right", fontsize=8.0)
    return figure


@styled
def loss_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss by epoch: the median network and the middle 80 %.

    Args:
        history: ticker, fold, seed, epoch, train_loss, val_loss, and model where there are
            several; one panel per model. A network that stopped early is in no later epoch, so
            the share still training is drawn beneath.
    """
    title = "Loss by epoch"
    if history.empty:
        return nothing_to_draw(title, "No network has been trained yet.", width=WIDE)
    if "model" not in history:
        history = history.assign(model="all networks")
    names = in_order(history["model"])[:PANEL_LIMIT]
    columns = panel_columns(len(names))
    figure = new_figure(
        title,
        "Line: median network. Band: the middle 80 %. Below: share of networks still training.",
        height=0.8 + 2.0 * -(-len(names) // columns),
    )
    cells = panels(figure, names, (4, 1), columns=columns)
    first = cells[names[0]][0]
    for name, (loss, alive) in cells.items():
        own = history[history["model"] == name].groupby("epoch")
        members = own.size()
        for column, colour in LOSS_HUES.items():
            median = own[column].median()
            low, high = own[column].quantile(0.1), own[column].quantile(0.9)
            loss.fill_between(median.index, low, high, color=colour, alpha=0.18, linewidth=0)
            loss.plot(median.index, median, color=colour)
        loss.grid(axis="y")
        loss.set_title(f"{display_name(name)}, {members.iloc[0]:,} trained")
        if loss is not first:
            loss.sharey(first)
        alive.fill_between(
            members.index, 0, members / members.iloc[0], color=INK, alpha=0.5, **AREA
        )
        alive.set_ylim(0, 1)
        alive.set_yticks([1], labels=["all"])
        alive.set_xlabel("epoch")
        alive.locator_params(axis="x", integer=True, nbins=6)
    last = history[history["model"] == names[-1]].groupby("epoch")
    ends = {
        text: (float(last[column].median().index[-1]), float(last[column].median().iloc[-1]), hue)
        for text, (column, hue) in zip(("training", "validation"), LOSS_HUES.items(), strict=True)
    }
    label_ends(cells[names[-1]][0], ends, gap=0.12)
    return figure


@styled
def gradient_flow(flow: pd.DataFrame) -> Figure:
    """How much the last state of a cell still depends on inputs further and further back.

    Args:
        flow: cell, gate_bias, steps, steps_back, gradient_norm, and seed where there are several;
            one panel per number of steps, one line per cell and gate bias, dashed where the gate
            was opened.
    """
    title = "Gradient by steps back, relative to the newest input's"
    if flow.empty:
        return nothing_to_draw(title, "No gradient has been computed yet.", width=WIDE)
    norm = flow.assign(gradient_norm=np.log10(flow["gradient_norm"]))
    norm = norm.groupby(["steps", "cell", "gate_bias", "steps_back"])["gradient_norm"].mean()
    figure = new_figure(
        title,
        "Untrained cells. Dashed: the gate that keeps the state is opened from the start.",
        height=2.9,
    )
    lengths = {f"{steps} steps": steps for steps in sorted(flow["steps"].unique())}
    cells = panels(figure, list(lengths), columns=len(lengths))
    styles = line_styles(in_order(flow["cell"]))
    ends: dict[str, tuple[object, float, str]] = {}
    for name, (axes,) in cells.items():
        for (cell, bias), line in norm[lengths[name]].groupby(level=["cell", "gate_bias"]):
            back, log_norm = line.index.get_level_values("steps_back"), line.to_numpy()
            colour, _ = styles[cell]
            log_norm = log_norm - log_norm[0]
            axes.plot(back, log_norm, color=colour, linestyle="--" if bias else "-")
            text = display_name(cell) + (f", bias {bias:g}" if bias else "")
            ends[text] = (back[-1], float(log_norm[-1]), colour)
        axes.yaxis.set_major_formatter(_power_of_ten)
        axes.locator_params(axis="y", integer=True, nbins=6)
        axes.set_xlabel("steps back")
        axes.set_xlim(0, lengths[name])
        axes.set_ylim(axes.get_ylim())
        axes.grid(axis="y")
    label_ends(axes, ends, gap=0.09)
    return figure


def _power_of_ten(exponent: float, _position: float) -> str:
    """10 to the given power, without the formulas that the style keeps off."""
    return "10" + f"{exponent:g}".translate(str.maketrans("-\u22120123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@styled
def fold_map(fold_table: pd.DataFrame) -> Figure:
    """What was trained, validated and tested when: one line per walk-forward fold.

    Args:
        fold_table: fold, role ("train" | "val" | "test"), first_session, last_session.
    """
    title = "What was trained, validated and tested when"
    if fold_table.empty:
        return nothing_to_draw(title, "No folds yet.")
    folds = sorted(fold_table["fold"].unique())
    note = f"The last {ROW_LIMIT} of {len(folds)} folds." if len(folds) > ROW_LIMIT else ""
    folds = folds[-ROW_LIMIT:]
    figure = new_figure(title, note, width=HALF, height=max(1.9, 0.9 + 0.2 * len(folds)))
    axes = figure.subplots()
    for role, (text, colour, alpha) in ROLES.items():
        spans = fold_table[(fold_table["role"] == role) & fold_table["fold"].isin(folds)]
        axes.barh(
            spans["fold"].map({fold: row for row, fold in enumerate(folds)}),
            (spans["last_session"] - spans["first_session"]).to_numpy(),
            left=spans["first_session"].to_numpy(),
            color=colour,
            alpha=alpha,
            height=0.62,
            label=text,
        )
    axes.set_yticks(range(len(folds)), labels=[f"fold {fold}" for fold in folds])
    axes.set_ylim(len(folds) - 0.5, -0.5)
    axes.spines.left.set_visible(False)
    legend_above(axes)
    return figure


@styled
def signal_history(trading_signals: pd.DataFrame) -> Figure:
    """What price and sentiment contributed to the signal, per ticker, over the recent sessions.

    Args:
        trading_signals: ticker, session, price_contribution, sentiment_contribution, signal.
    """
    title = f"What made the signal, last {RECENT_SESSIONS} sessions"
    if trading_signals.empty:
        return nothing_to_draw(title, "No signals yet.", width=WIDE)
    recent = _recent(trading_signals)
    names, note = few(recent["ticker"], PANEL_LIMIT)
    if not recent[[*CONTRIBUTIONS, "signal"]].fillna(0.0).to_numpy().any():
        return nothing_to_draw(title, "No source has any weight: every signal is 0.", width=WIDE)
    columns = panel_columns(len(names))
    figure = new_figure(
        title,
        _sentences("Areas: price (blue) and sentiment (purple), stacked. Line: signal.", note),
        height=0.8 + 1.35 * -(-len(names) // columns),
    )
    scale = _signal_scale(recent[[*CONTRIBUTIONS, "signal"]].to_numpy())
    cells = panels(figure, names, columns=columns, span=recent["session"])
    for name, (axes,) in cells.items():
        own = recent[recent["ticker"] == name]
        session = own["session"].to_numpy()
        above = below = np.zeros(len(own))
        for part, colour in CONTRIBUTIONS.items():
            value = own[part].fillna(0.0).to_numpy()
            higher, lower = above + np.clip(value, 0, None), below + np.clip(value, None, 0)
            axes.fill_between(session, above, higher, color=colour, alpha=0.6, **AREA)
            axes.fill_between(session, below, lower, color=colour, alpha=0.6, **AREA)
            above, below = higher, lower
        axes.plot(session, own["signal"].to_numpy(), color=INK, lw=0.8, drawstyle="steps-mid")
        axes.axhline(0.0, color=INK, linewidth=0.6)
        axes.set_ylim(-scale, scale)
        axes.set_yticks([-scale, 0, scale], labels=[f"−{scale:g}", "0", f"+{scale:g}"])
    return figure


@styled
def tuning_history(trials: pd.DataFrame) -> Figure:
    """Value of each trial of a search, and the best so far; one panel per ticker.

    Args:
        trials: ticker, trial (from 0), state ("complete", "pruned"), value (1 is forecasting 0).
    """
    title = "Trials of the search for settings"
    if trials.empty:
        return nothing_to_draw(title, "No trial has been made yet.", width=WIDE)
    names, note = few(trials["ticker"], PANEL_LIMIT)
    columns = panel_columns(len(names))
    figure = new_figure(
        title,
        _sentences(
            "Validation error as a share of that of forecasting 0. Line: best so far."
            " Hollow: pruned. Trial 0 is the settings' own where it lies in the ranges.",
            note,
        ),
        height=0.9 + 1.9 * -(-len(names) // columns),
    )
    for name, (axes,) in panels(figure, names, columns=columns).items():
        own = trials[trials["ticker"] == name].sort_values("trial")
        complete = own["state"] == "complete"
        for chosen, face in ((complete, BLUE), (~complete, "none")):
            axes.plot(
                own.loc[chosen, "trial"].to_numpy(),
                own.loc[chosen, "value"].to_numpy(),
                "o",
                color=BLUE if face == BLUE else INK,
                markerfacecolor=face,
                markersize=4.0,
            )
        best = own["value"].where(complete).cummin()
        axes.step(own["trial"].to_numpy(), best.to_numpy(), where="post", color=ORANGE)
        # A trial that was pruned for an exploding loss would leave the others no room.
        top = own.loc[complete, "value"].max()
        axes.set_ylim(top=top + 0.5 * max(top - best.min(), 1e-3))
        axes.set_title(f"{name}, {len(own)} trials, {int((~complete).sum())} pruned")
        axes.set_xlabel("trial")
        axes.grid(axis="y")
        axes.locator_params(axis="x", integer=True, nbins=6)
    return figure


@styled
def parameter_importances(importances: pd.DataFrame) -> Figure:
    """How much each parameter tells good trials from the rest: a dot per ticker, a bar for all.

    Args:
        importances: shares, one row per parameter (the index) and one column per ticker; NaN where
            a ticker's search says nothing of it.
    """
    title = "What matters among the settings"
    mean = importances.mean(axis=1).dropna().sort_values(ascending=False)
    if mean.empty:
        return nothing_to_draw(title, "Too few complete trials to say.", width=HALF)
    figure = new_figure(
        title,
        "Share by which a setting tells the best quarter of trials. Dots: tickers.",
        width=HALF,
        height=0.9 + 0.24 * len(mean),
    )
    axes = figure.add_subplot()
    rows = np.arange(len(mean))
    axes.barh(rows, mean.to_numpy(), height=0.6, color=BLUE, alpha=0.45)
    for ticker in importances.columns:
        axes.plot(importances.loc[mean.index, ticker].to_numpy(), rows, "o", color=INK, ms=3.0)
    axes.set_ylim(len(mean) - 0.5, -0.5)
    axes.set_yticks(rows, labels=[str(name).replace("_", " ") for name in mean.index])
    axes.set_xlim(0, 1)
    axes.spines.left.set_visible(False)
    axes.grid(axis="x")
    percent_axis(axes.xaxis)
    return figure


@styled
def confusion(matrix: np.ndarray | pd.DataFrame, labels: Sequence[str]) -> Figure:
    """How often each true label got each predicted one; a bar is the share of the true label.

    Args:
        matrix: counts, shape (n_labels, n_labels); rows are true, columns predicted.
        labels: names in the order of rows and columns.

    Raises:
        ValueError: the matrix is not square in the labels.
    """
    counts = np.asarray(matrix, dtype="float64")
    size = len(labels)
    if counts.shape != (size, size):
        raise ValueError(
            f"confusion matrix has shape {counts.shape} for {size} labels; pass ({size}, {size})"
        )
    title = "Sentiment model: true label and prediction"
    if not counts.sum():
        return nothing_to_draw(title, "No headline has been tested yet.")
    note = "Rows: true label. Bar: share of the row, blue where right."
    figure = new_figure(title, note, width=HALF, height=1.2 + 0.5 * size)
    axes = figure.subplots()
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    for row, column in np.ndindex(size, size):
        cell = f"{counts[row, column]:,.0f}{GAP}{format_value(share[row, column], '.0%')}"
        axes.text(column, row + 0.1, cell, va="bottom")
        axes.barh(
            row + 0.22,
            0.85 * share[row, column],
            left=column,
            height=0.13,
            color=BLUE if row == column else ORANGE,
        )
    axes.set_xlim(-0.1, size)
    axes.set_ylim(size - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(size), labels=[f"predicted {label}" for label in labels], ha="left")
    axes.set_yticks(range(size), labels=labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _recent(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last sessions of the whole frame, in order of ticker and session."""
    last = np.sort(frame["session"].unique())[-RECENT_SESSIONS:]
    return frame[frame["session"] >= last[0]].sort_values(["ticker", "session"])


def _signed_area(axes: Axes, session: pd.Series, value: pd.Series) -> None:
    x, y = session.to_numpy(), value.to_numpy(dtype="float64")
    for side, colour in ((np.clip(y, 0, None), UP), (np.clip(y, None, 0), DOWN)):
        axes.fill_between(x, 0, side, color=colour, alpha=0.8, **AREA)
    axes.axhline(0.0, color=INK, linewidth=0.6)


def _tint(colour: str, alpha: np.ndarray) -> np.ndarray:
    """One colour at many opacities, shape (*alpha.shape, 4): it reads on any background."""
    from matplotlib.colors import to_rgb

    return np.concatenate(
        [np.broadcast_to(to_rgb(colour), (*alpha.shape, 3)), alpha[..., None]], -1
    )


def _signal_scale(signal: np.ndarray | pd.Series) -> float:
    """The end of the signal's axis: ±1 would hide signals that never leave ±0.1."""
    size = np.abs(np.asarray(signal, dtype="float64"))
    furthest = size[np.isfinite(size)].max(initial=0.0)
    return next((end for end in (0.1, 0.25, 0.5) if furthest <= end), 1.0)


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)
