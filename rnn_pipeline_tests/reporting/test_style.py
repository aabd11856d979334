from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.reporting import style

LIGHT, DARK = "#ffffff", "#14161a"
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ rgb.clip(0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("background", [LIGHT, DARK])
@pytest.mark.parametrize("colour", [style.INK, *style.HUES])
def test_every_colour_shows_on_light_and_on_dark(colour: str, background: str) -> None:
    assert contrast(colour, background) >= 3.0


def test_contrast_oracle() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)


@pytest.mark.parametrize("vision", VISION)
def test_hues_stay_apart_for_colour_blind_readers(vision: str) -> None:
    seen = {hue: lab(np.array(VISION[vision]) @ linear(hue)) for hue in (*style.HUES, style.INK)}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


def test_baselines_are_grey_and_models_keep_their_hue_in_any_company() -> None:
    alone = style.line_styles(["gru"])
    together = style.line_styles(["mine", "gru", *BASELINES, "lstm", "cash"])
    assert alone["gru"] == together["gru"]
    assert {together[name][0] for name in (*BASELINES, "cash")} == {style.INK}
    assert len({together[name] for name in BASELINES}) == len(BASELINES)
    assert len({together[name][0] for name in ("mine", "gru", "lstm")}) == 3


def test_many_unknown_models_stay_apart() -> None:
    names = [f"model_{i}" for i in range(12)]
    assert len(set(style.line_styles(names).values())) == 12


def test_order_is_models_then_others_then_baselines() -> None:
    mixed = ["cash", "zero", "mine", "gru", "stacked_lstm", "lstm", "zero"]
    assert style.in_order(mixed) == ["lstm", "gru", "stacked_lstm", "mine", "zero", "cash"]


@pytest.mark.parametrize(
    ("name", "written"),
    [("stacked_lstm", "Stacked LSTM"), ("buy_and_hold", "Buy and hold"), ("lightgbm", "LightGBM")],
)
def test_names_are_written_as_readers_write_them(name: str, written: str) -> None:
    assert style.display_name(name) == written


def test_few_says_how_many_are_not_shown() -> None:
    assert style.few(["B", "A", "A"], 2) == (["A", "B"], "")
    assert style.few("DCBA", 3) == (["A", "B", "C"], "The first 3 of 4 tickers; 1 not shown.")


def test_line_labels_keep_their_distance_and_their_order() -> None:
    figure = style.new_figure("", height=3)
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ends = {"a": (1, 0.99, "k"), "b": (1, 0.98, "k"), "c": (1, 0.97, "k"), "d": (1, 0.2, "k")}
    style.label_ends(axes, ends, gap=0.1)
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights == pytest.approx({"a": 1.0, "b": 0.9, "c": 0.8, "d": 0.2})
