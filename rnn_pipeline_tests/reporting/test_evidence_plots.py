from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.reporting import evidence_plots, plots, style

from .frames import rolling, tenths


def texts(figure: matplotlib.figure.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def costs(names: tuple[str, ...] = ("gru", "lstm", "buy_and_hold")) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"name": name, "cost_bps": bps, "annual_return": 0.08 - 0.01 * place * bps}
            for place, name in enumerate(names)
            for bps in (20.0, 0.0, 5.0)
        ]
    )


def test_the_coefficient_is_a_line_per_model_labelled_with_its_newest_value() -> None:
    figure = evidence_plots.rolling_ic(rolling().sample(frac=1, random_state=0))
    axes = figure.axes[0]
    drawn = {line.get_color(): line.get_ydata() for line in axes.lines[:3]}
    np.testing.assert_allclose(drawn[style.ORANGE], np.linspace(-0.02, 0.05, 20))
    assert set(drawn) == {style.ORANGE, style.BLUE, style.INK}
    for label in ("LSTM +0.03", "GRU +0.05", "Ridge +0.01"):
        assert label in texts(figure)
    # Momentum is a rule: it stands in the table, not among the lines.
    assert "Momentum" not in texts(figure)
    low, high = axes.get_ylim()
    assert high == pytest.approx(-low)
    assert high == 0.1


def test_tenths_of_the_forecasts_have_a_dot_and_a_bar_each() -> None:
    figure = evidence_plots.reliability(tenths())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["LSTM", "GRU", "LightGBM"]
    first = figure.axes[0]
    assert first.lines[0].get_ydata() == pytest.approx(np.linspace(-0.002, 0.001, 10))
    bars = [segment[:, 1].tolist() for segment in first.collections[0].get_segments()]
    assert bars[0] == pytest.approx([-0.003, -0.001])
    assert len(bars) == 10


def test_many_networks_are_cut_to_the_panels_that_fit() -> None:
    one = tenths().query("model == 'gru'")
    many = pd.concat([one.assign(model=f"net_{i}") for i in range(9)])
    figure = evidence_plots.reliability(pd.concat([many, tenths()]))
    assert len(figure.axes) == evidence_plots.PANELS


def test_returns_fall_with_the_cost_and_the_charged_one_is_marked() -> None:
    figure = evidence_plots.cost_sensitivity(costs(), 5.0)
    axes = figure.axes[0]
    drawn = {line.get_color(): line.get_ydata() for line in axes.lines[:3]}
    assert drawn[style.BLUE] == pytest.approx([0.08, 0.03, -0.12])
    assert drawn[style.ORANGE] == pytest.approx([0.08, 0.08, 0.08])
    assert list(axes.lines[-1].get_xdata()) == [5.0, 5.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5", "20"]
    assert "5 bps, as charged" in figure.get_supxlabel()


def test_empty_frames_give_a_sentence() -> None:
    empty = pd.DataFrame()
    for figure in (
        evidence_plots.rolling_ic(empty),
        evidence_plots.rolling_ic(rolling().query("model == 'momentum'")),
        evidence_plots.reliability(empty),
        evidence_plots.reliability(tenths().query("model == 'sentiment'")),
        evidence_plots.cost_sensitivity(empty, 5.0),
    ):
        assert not figure.axes
        assert texts(figure).count("yet.") == 1


def test_the_same_frames_in_any_order_give_the_same_picture() -> None:
    shuffled = tenths().sample(frac=1, random_state=1)
    assert plots.svg(evidence_plots.reliability(tenths())) == plots.svg(
        evidence_plots.reliability(shuffled)
    )
