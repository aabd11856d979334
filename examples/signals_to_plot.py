"""From signals to a plot: one ticker's price, signal and position out of the warehouse.

    python examples/signals_to_plot.py AAPL signals.png

Reads the data folder that the settings name, after a demo or a daily run.
"""

from __future__ import annotations

import sys

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from rnn_pipeline import Warehouse, load_settings


def main(ticker: str, path: str) -> None:
    """Draw the three, one above the other, over the sessions that have a signal."""
    store = Warehouse(load_settings().warehouse_path)
    signals = store.rows("trading_signals", ticker=ticker).sort_values("session")
    if signals.empty:
        raise SystemExit(f"{ticker} has no signals here; it is one of {', '.join(store.tickers())}")
    decisions = store.rows("trading_decisions", ticker=ticker).sort_values("session")
    bars = store.bars([ticker], signals["session"].min(), signals["session"].max())

    figure = Figure(figsize=(9, 6), layout="constrained")
    price, signal, position = figure.subplots(3, sharex=True, height_ratios=[2, 2, 1])
    price.semilogy(bars["session"], bars["adj_close"], color="black", linewidth=0.8)
    price.minorticks_off()
    price.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    price.set(ylabel="adjusted close, log scale", title=f"{ticker}, {len(signals):,} signals")
    said = store.rows("price_signals", ticker=ticker).sort_values("session")
    signal.plot(said["session"], said["signal"], "0.6", linewidth=0.5, label="the networks' own")
    signal.plot(signals["session"], signals["signal"], "C3", label="what evidence lets count")
    signal.set(ylabel="signal", ylim=(-1.05, 1.05))
    signal.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    held = decisions["position"]
    position.fill_between(decisions["session"], held, step="post", alpha=0.6)
    position.axhline(0.0, color="black", linewidth=0.8)
    most = max(0.05, held.abs().max())
    position.set(ylabel="weight held", ylim=(-1.1 * most, 1.1 * most))
    if not held.any():
        position.set_title("cash throughout", fontsize="medium", loc="left")
    figure.savefig(path, dpi=100)
    shares = signals["grade"].value_counts(normalize=True)
    evidence = ", ".join(f"{grade} {share:.0%}" for grade, share in shares.items())
    print(f"{ticker}: {len(signals)} signals, evidence: {evidence}")


if __name__ == "__main__":
    main(*sys.argv[1:])
