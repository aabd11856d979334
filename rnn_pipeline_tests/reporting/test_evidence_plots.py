from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.reporting import evidence_plots, plots, style

from .frames import coverage, rolling, scored, tenths

FIVE = ["AAPL", "GOOG", "IBM", "MSFT", "ORCL"]
MANY = [f"T{i:03d}" for i in range(24)]


def texts(figure: matplotlib.figure.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def panel_titles(figure: matplotlib.figure.Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


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


def test_quantiles_lie_on_the_diagonal_where_they_hold_what_they_promise() -> None:
    figure = evidence_plots.quantile_coverage(coverage())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    # The panels come in the order of the models; in brackets what the pinball loss saves.
    assert titles == ["LSTM (\u221225.0\u202f%)", "GRU (+25.0\u202f%)"]
    narrow, kept = figure.axes
    diagonal, drawn = kept.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert drawn.get_xdata() == pytest.approx(drawn.get_ydata())
    assert narrow.lines[1].get_ydata() == pytest.approx([0.14, 0.3, 0.5, 0.7, 0.86])
    bars = [segment[:, 1].tolist() for segment in kept.collections[0].get_segments()]
    assert bars[0] == pytest.approx([0.02, 0.08])
    assert kept.get_xticklabels()[0].get_text() == "5 %"
    assert "model.networks" in texts(evidence_plots.quantile_coverage(pd.DataFrame()))


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


def test_equity_curves_with_drawdown(equity: dict[str, pd.DataFrame]) -> None:
    figure = evidence_plots.equity_curves(equity)
    growth, drawdown = figure.axes
    assert growth.get_yscale() == "linear"
    curves = {line.get_color(): line.get_ydata() for line in growth.lines}
    np.testing.assert_array_equal(curves[style.BLUE], equity["signals"]["equity"])
    assert min(drawdown.lines[0].get_ydata()) == 0.0
    falls = [min(line.get_ydata()) for line in drawdown.lines]
    assert falls == pytest.approx([0.0, -0.2, 0.0])
    for text in ("Signals 1.25", "Buy and hold 0.80", "Cash 1.00"):
        assert text in texts(figure)


def test_a_paper_account_of_one_session_says_since_when() -> None:
    paper = pd.DataFrame(
        {"session": pd.to_datetime(["2013-03-01", "2013-03-04"]), "equity": 1.0, "promise": 1.0}
    )
    assert "began on 2013-03-01" in texts(evidence_plots.paper_curves(paper[:1]))
    assert len(evidence_plots.paper_curves(paper).axes) == 2


def test_equity_over_several_doublings_is_logarithmic(equity: dict[str, pd.DataFrame]) -> None:
    equity["signals"] = equity["signals"].assign(equity=np.geomspace(1, 9, 60))
    assert evidence_plots.equity_curves(equity).axes[0].get_yscale() == "log"
    ruined = equity["signals"].assign(equity=np.linspace(1, 0, 60))
    assert evidence_plots.equity_curves({"signals": ruined}).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(("tickers", "rows"), [(["AAPL"], 1), (FIVE, 5), (MANY * 2, 24)])
def test_hit_rates_are_a_column_of_dots_per_model(tickers: list[str], rows: int) -> None:
    figure = evidence_plots.hit_rates(scored(ticker=sorted(set(tickers))))
    # The zero forecast has no sign, so it has no hit rate and no column.
    assert panel_titles(figure) == ["LSTM", "GRU", "Sentiment", "Persistence"]
    dots = figure.axes[0].lines[0]
    assert dots.get_xdata() == pytest.approx([0.51] * rows)
    interval = figure.axes[0].collections[0].get_segments()[0]
    assert interval[:, 0] == pytest.approx([0.48, 0.54])
    assert list(figure.axes[0].lines[1].get_xdata()) == [0.5, 0.5]
    assert figure.get_figheight() < 7


def test_ic_through_time_spans_the_tested_sessions(fold_table: pd.DataFrame) -> None:
    figure = evidence_plots.ic_through_time(scored(fold=[0, 1]), fold_table)
    spans = figure.axes[0].collections[0].get_segments()
    test = fold_table[fold_table["role"] == "test"]
    assert [span[0, 0] for span in spans] == matplotlib.dates.date2num(
        test["first_session"]
    ).tolist()
    assert [span[0, 1] for span in spans] == [0.012, 0.012]
    assert len(figure.axes[0].collections) == 4


def test_power_is_a_panel_per_signal_and_a_line_per_model() -> None:
    found = pd.DataFrame(
        [
            {"signal": signal, "strength": strength, "model": model, "share": strength * 5}
            for signal in ("linear", "xor")
            for strength in (0.02, 0.05, 0.1)
            for model in ("gru", "ridge")
        ]
    )
    found["interval"] = [[share / 2, share / 2 + 0.5] for share in found["share"]]
    figure = evidence_plots.power_curves(
        found[(found["signal"] == "xor") | (found["model"] == "ridge")]
    )
    assert panel_titles(figure) == ["linear", "xor"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 2]
    assert figure.get_figwidth() == style.WIDE


def test_empty_frames_give_a_sentence() -> None:
    empty = pd.DataFrame()
    for figure in (
        evidence_plots.rolling_ic(empty),
        evidence_plots.rolling_ic(rolling().query("model == 'momentum'")),
        evidence_plots.reliability(empty),
        evidence_plots.reliability(tenths().query("model == 'sentiment'")),
        evidence_plots.cost_sensitivity(empty, 5.0),
        evidence_plots.equity_curves({}),
        evidence_plots.hit_rates(empty),
        evidence_plots.ic_through_time(empty, empty),
        evidence_plots.power_curves(empty),
    ):
        assert not figure.axes
        assert texts(figure).count("yet.") == 1


def test_the_same_frames_in_any_order_give_the_same_picture() -> None:
    shuffled = tenths().sample(frac=1, random_state=1)
    assert plots.svg(evidence_plots.reliability(tenths())) == plots.svg(
        evidence_plots.reliability(shuffled)
    )
