from __future__ import annotations

import base64
import io
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rnn_pipeline.reporting import plots, style

from .frames import walk

FIVE = ["AAPL", "GOOG", "IBM", "MSFT", "ORCL"]
MANY = [f"T{i:03d}" for i in range(24)]


def texts(figure: matplotlib.figure.Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def decoded(figure: matplotlib.figure.Figure) -> Image.Image:
    content = plots.png(figure)
    assert 500 < len(content) < 80_000
    return Image.open(io.BytesIO(content)).convert("RGBA")


def panel_titles(figure: matplotlib.figure.Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_coverage_counts_sessions_of_each_month() -> None:
    bars = pd.concat([walk(["AAPL"], 45), walk(["IBM"], 23)])
    figure = plots.coverage(bars)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AAPL", "IBM"]
    first, second = (mesh.get_array()[0, :, 3] for mesh in axes.collections)
    # Business days: 22 in January 2012, 21 in February, 2 in March; IBM stops after 1 February.
    np.testing.assert_allclose(first, 0.15 + 0.85 * np.array([22, 21, 2]) / 22)
    np.testing.assert_allclose(second, [1.0, 0.15 + 0.85 / 22, 0.0])
    assert "45" in texts(figure)
    decoded(figure)


def test_tuning_history_shows_pruned_trials_and_the_best_so_far() -> None:
    trials = pd.DataFrame(
        {
            "ticker": "AAPL",
            "trial": range(4),
            "state": ["complete", "pruned", "complete", "complete"],
            "value": [1.1, 0.9, 1.0, 1.05],
        }
    )
    figure = plots.tuning_history(trials)
    assert panel_titles(figure) == ["AAPL, 4 trials, 1 pruned"]
    complete, pruned, best = figure.axes[0].lines
    assert complete.get_xdata().tolist() == [0, 2, 3]
    assert pruned.get_xydata().tolist() == [[1, 0.9]]
    np.testing.assert_array_equal(best.get_ydata(), [1.1, np.nan, 1.0, 1.0])
    decoded(figure)
    assert "No trial has been made yet" in texts(plots.tuning_history(trials.head(0)))


def test_parameter_importances_are_ordered_by_their_mean_over_tickers() -> None:
    shares = pd.DataFrame({"AAPL": {"dropout": 0.1, "hidden_size_0": 0.9}, "IBM": {"dropout": 0.3}})
    figure = plots.parameter_importances(shares)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hidden size 0", "dropout"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.9, 0.2])
    decoded(figure)
    assert "Too few complete trials" in texts(plots.parameter_importances(pd.DataFrame()))


def test_coverage_of_headlines_and_of_many_tickers_shows_the_thinnest() -> None:
    moments = pd.date_range("2012-01-01", periods=100, tz="UTC")
    frame = pd.DataFrame(
        [(f"T{i:03d}", moment) for i in range(60) for moment in moments[: i + 1]],
        columns=["ticker", "published_at"],
    )
    figure = plots.coverage(frame)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [f"T{i:03d}" for i in range(30)]
    assert figure.get_suptitle() == "Headlines per month"
    assert "The 30 of 60 with the fewest" in figure.get_supxlabel()
    assert figure.get_figheight() < 8


@pytest.mark.parametrize(("tickers", "shown"), [(["AAPL"], 1), (FIVE, 5), (MANY, 12)])
def test_price_with_signals_has_a_panel_and_a_strip_per_ticker(
    tickers: list[str], shown: int
) -> None:
    rows = walk(tickers)
    figure = plots.price_with_signals(rows, rows[rows["ticker"] != tickers[-1]])
    assert len(figure.axes) == 2 * shown
    line = figure.axes[0].lines[0]
    own = rows[rows["ticker"] == tickers[0]].tail(plots.RECENT_SESSIONS)
    np.testing.assert_array_equal(line.get_ydata(), own["adj_close"])
    assert ("12 not shown" in figure.get_supxlabel()) == (len(tickers) > 12)
    assert ("no signal" in texts(figure)) == (len(tickers) <= 12)
    decoded(figure)


def test_panels_share_one_span_of_time_and_one_size() -> None:
    rows = walk(FIVE)
    late = rows[(rows["ticker"] != "IBM") | (rows["session"] > "2012-11-01")]
    figure = plots.price_with_signals(late, late)
    figure.canvas.draw()
    prices = figure.axes[::2]
    assert len({axes.get_xlim() for axes in prices}) == 1
    sizes = np.array([axes.get_position().size for axes in prices])
    np.testing.assert_allclose(sizes, sizes[:1].repeat(5, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("largest", "scale"), [(0.0, 0.1), (0.08, 0.1), (0.2, 0.25), (0.4, 0.5), (0.6, 1.0), (1.0, 1.0)]
)
def test_the_scale_of_signals_grows_in_steps(largest: float, scale: float) -> None:
    rows = walk(["AAPL"]).assign(
        price_contribution=-largest, sentiment_contribution=0.0, signal=-largest
    )
    if largest:
        assert plots.signal_history(rows).axes[0].get_ylim() == (-scale, scale)
    else:
        assert "every signal is 0" in texts(plots.signal_history(rows))
    assert plots.price_with_signals(rows, rows).axes[1].get_ylim() == (-scale, scale)


def test_sentiment_and_news_has_two_axes_per_ticker() -> None:
    silent = plots.sentiment_and_news(walk(FIVE).assign(news_count=0))
    assert not silent.axes
    assert silent.texts[-1].get_text() == "No headlines in these sessions."
    figure = plots.sentiment_and_news(walk(FIVE))
    assert len(figure.axes) == 10
    assert panel_titles(figure) == FIVE
    assert figure.axes[0].get_ylim() == (-1, 1)
    assert len(figure.axes[1].collections[0].get_segments()) == plots.RECENT_SESSIONS
    decoded(figure)


def test_feature_distributions_mark_the_median_and_what_is_empty() -> None:
    frame = pd.DataFrame(
        {"a": np.arange(1001.0), "b": np.where(np.arange(1001) < 250, np.nan, 7.0), "c": np.nan}
    )
    figure = plots.feature_distributions(frame, ["a", "b", "c"])
    assert len(figure.axes) == 3
    assert figure.axes[0].lines[0].get_xdata() == [500.0, 500.0]
    # The outer 0.5 % at each end are left out: 5 and 996 to 1000.
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 991
    assert figure.axes[1].get_title(loc="right") == "25.0\u202f% empty"
    assert "no value yet" in texts(figure)
    decoded(figure)


def test_many_features_are_cut_and_counted() -> None:
    frame = pd.DataFrame({f"f{i}": np.arange(20.0) for i in range(40)})
    figure = plots.feature_distributions(frame, list(frame))
    assert len(figure.axes) == plots.FEATURE_LIMIT
    assert "16 more features are not shown" in figure.get_supxlabel()


def test_loss_curves_are_medians_and_tell_who_still_trains(history: pd.DataFrame) -> None:
    history.loc[history["seed"] == 1, "val_loss"] += 1.0
    figure = plots.loss_curves(history)
    assert len(figure.axes) == 4
    assert panel_titles(figure) == ["LSTM, 4 trained", "GRU, 4 trained"]
    train, val = figure.axes[0].lines
    np.testing.assert_allclose(train.get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4])
    # Epochs 0 to 2: two networks one above the other two; epoch 3: only the upper two are left.
    np.testing.assert_allclose(val.get_ydata(), [1.6, 1.05, 1.1 / 3 + 0.5, 1.1 / 4 + 1])
    strip = figure.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert set(strip.round(6)) == {0.0, 0.5, 1.0}
    decoded(figure)
    assert len(plots.loss_curves(history.drop(columns="model")).axes) == 2


def test_gradients_are_drawn_relative_to_the_newest_inputs() -> None:
    rows = [
        (cell, bias, seed, steps, back, start * rate**back)
        for cell, bias, rate in (("rnn", 0.0, 0.1), ("lstm", 0.0, 0.5), ("lstm", 2.0, 0.9))
        for seed, start in enumerate((1.0, 100.0))
        for steps in (5, 20)
        for back in range(steps)
    ]
    columns = ["cell", "gate_bias", "seed", "steps", "steps_back", "gradient_norm"]
    figure = plots.gradient_flow(pd.DataFrame(rows, columns=columns))
    assert panel_titles(figure) == ["5 steps", "20 steps"]
    lstm, opened, rnn = figure.axes[1].lines
    np.testing.assert_allclose(rnn.get_ydata(), -np.arange(20.0), atol=1e-9)
    np.testing.assert_allclose(lstm.get_ydata(), np.arange(20) * np.log10(0.5), atol=1e-9)
    assert (lstm.get_color(), opened.get_color()) == (style.BLUE, style.BLUE)
    assert (lstm.get_linestyle(), opened.get_linestyle()) == ("-", "--")
    decoded(figure)  # tick labels are there once drawn
    for text in ("RNN", "LSTM", "LSTM, bias 2", "10⁻¹⁵"):
        assert text in texts(figure)


def test_fold_map_draws_each_span_where_it_was(fold_table: pd.DataFrame) -> None:
    figure = plots.fold_map(fold_table)
    bars = figure.axes[0].patches
    assert len(bars) == len(fold_table)
    test = fold_table[fold_table["role"] == "test"]
    left = [matplotlib.dates.num2date(bar.get_x()).strftime("%Y-%m-%d") for bar in bars[-2:]]
    assert left == [f"{day:%Y-%m-%d}" for day in test["first_session"]]
    days = (test["last_session"] - test["first_session"]).dt.days
    assert [bar.get_width() for bar in bars[-2:]] == days.tolist()
    decoded(figure)


def test_fold_map_keeps_the_last_of_many_folds(fold_table: pd.DataFrame) -> None:
    many = pd.concat([fold_table[fold_table["fold"] == 0].assign(fold=i) for i in range(99)])
    figure = plots.fold_map(many)
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "fold 98"
    assert "The last 30 of 99 folds." in figure.get_supxlabel()
    assert figure.get_figheight() < 8


def test_contributions_are_stacked_by_sign() -> None:
    rows = walk(["AAPL"], 3).assign(
        price_contribution=[0.3, -0.2, 0.1],
        sentiment_contribution=[0.1, -0.1, -0.3],
        signal=[0.4, -0.3, -0.2],
    )
    areas = plots.signal_history(rows).axes[0].collections
    heights = [area.get_paths()[0].vertices[:, 1] for area in areas]
    assert [values.max() for values in heights] == pytest.approx([0.3, 0.0, 0.4, 0.0])
    assert [values.min() for values in heights] == pytest.approx([0.0, -0.2, 0.0, -0.3])


def test_confusion_writes_counts_and_shares() -> None:
    figure = plots.confusion(np.array([[8, 2], [0, 0]]), ["negative", "positive"])
    assert [text.get_text().split("\u2002") for text in figure.axes[0].texts] == [
        ["8", "80\u202f%"],
        ["2", "20\u202f%"],
        ["0", "0\u202f%"],
        ["0", "0\u202f%"],
    ]
    decoded(figure)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for 3 labels; pass \(3, 3\)"):
        plots.confusion(np.eye(2), ["a", "b", "c"])


def test_empty_frames_become_a_sentence() -> None:
    nothing = pd.DataFrame()
    figures = [
        plots.coverage(nothing),
        plots.price_with_signals(nothing, nothing),
        plots.sentiment_and_news(nothing),
        plots.feature_distributions(nothing, ["a"]),
        plots.loss_curves(nothing),
        plots.gradient_flow(nothing),
        plots.fold_map(nothing),
        plots.signal_history(nothing),
        plots.confusion(np.zeros((0, 0)), []),
    ]
    for figure in figures:
        assert not figure.axes
        assert texts(figure).count("yet.") == 1
        assert plots.png(figure).startswith(b"\x89PNG")


def test_pictures_are_transparent_and_do_not_depend_on_row_order() -> None:
    rows = walk(["AAPL", "IBM"], 60)
    picture = decoded(plots.price_with_signals(rows, rows))
    assert picture.getpixel((0, 0))[3] == 0
    shuffled = rows.sample(frac=1, random_state=1)
    assert plots.svg(plots.price_with_signals(rows, rows)) == plots.svg(
        plots.price_with_signals(shuffled, shuffled)
    )


def test_svg_is_well_formed_and_takes_the_ink_of_the_page(fold_table: pd.DataFrame) -> None:
    drawing = plots.svg(plots.fold_map(fold_table))
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert style.INK not in drawing
    assert "prefers-color-scheme:dark" in drawing
    assert "fold 1" in {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_outside_text_stays_text_in_a_drawing() -> None:
    rows = walk(["$x_1$<b>&"])
    drawing = plots.svg(plots.sentiment_and_news(rows))
    words = ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
    assert "$x_1$<b>&" in {element.text for element in words}


def test_data_uri_holds_the_picture(fold_table: pd.DataFrame) -> None:
    figure = plots.fold_map(fold_table)
    head, _, body = plots.data_uri(figure, "png").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body).startswith(b"\x89PNG")
    head, _, body = plots.data_uri(figure, "svg").partition(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(body).startswith(b"<svg")


def test_user_settings_neither_leak_in_nor_change(fold_table: pd.DataFrame) -> None:
    plain = plots.svg(plots.fold_map(fold_table))
    with matplotlib.rc_context({"text.color": "red", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        assert plots.svg(plots.fold_map(fold_table)) == plain
        assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    script = (
        "import sys, pandas as pd\n"
        "from rnn_pipeline.reporting import html, plots\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib at import'\n"
        "assert 'jinja2' not in sys.modules, 'jinja2 at import'\n"
        "html.render_report(html.Report(session=pd.Timestamp('2013-03-01'), source='sample'))\n"
        "frame = pd.DataFrame({'session': pd.bdate_range('2013', periods=9), 'ticker': 'A'})\n"
        "plots.data_uri(plots.coverage(frame), 'png'), plots.svg(plots.coverage(frame))\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
