from collections.abc import Collection

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.linear_model import Ridge

from rnn_pipeline.settings import TradingSpec
from rnn_pipeline.trading.policies import FULL_SIGNAL, evidence, fit_shares, stacking, threshold

SESSIONS = pd.bdate_range("2020-01-01", periods=400)


def no_history(tickers: Collection[str]) -> pd.DataFrame:
    raise AssertionError("this policy does not learn")


def sources(*said: tuple[str, float, float, str], session=SESSIONS[0], fold=1) -> pd.DataFrame:
    """Rows of one session: (source, forecast, standardised, grade)."""
    weights = {"none": 0.0, "weak": 0.25, "moderate": 0.5, "strong": 1.0}
    frame = pd.DataFrame(said, columns=["source", "forecast", "standardised", "grade"])
    return frame.assign(
        ticker="AAA",
        session=session,
        fold=fold,
        expected=frame["forecast"],
        forecast_std=0.01,
        evidence_weight=frame["grade"].map(weights),
        abstains=False,
    )


@pytest.mark.parametrize(
    ("rise", "label"),
    [
        (0.0051, "BUY"),
        (0.0049, "HOLD"),
        (0.0, "HOLD"),
        (-0.0049, "HOLD"),
        (-0.0051, "SELL"),
        (0.04, "BUY"),
    ],
)
def test_the_tutorials_rule(rise: float, label: str) -> None:
    """BUY if the price is expected to rise by more than 0.5 %, SELL if to fall by more."""
    spec = TradingSpec(policy="threshold")
    # Two models that say it together, evidence or not; sentiment is not asked.
    rows = sources(
        ("gru", np.log1p(rise) + 0.001, 1.0, "none"),
        ("lstm", np.log1p(rise) - 0.001, -1.0, "strong"),
        ("sentiment", -0.9, -1.0, "strong"),
    )
    answer = threshold(rows, spec, no_history)
    signal = (answer["standardised"] * answer["weight"]).sum()
    expected = "BUY" if signal > spec.buy_above else "SELL" if signal < spec.sell_below else "HOLD"
    assert expected == label
    assert answer["weight"].tolist() == [0.5, 0.5, 0.0]


def test_the_tutorials_thresholds_are_settings_and_may_differ() -> None:
    spec = TradingSpec(policy="threshold", buy_return=0.01, sell_return=-0.02)
    for rise, signal in (
        (0.01, 0.2),
        (-0.02, -0.2),
        (0.005, 0.2 * np.log1p(0.005) / np.log1p(0.01)),
    ):
        answer = threshold(sources(("gru", np.log1p(rise), 0.0, "none")), spec, no_history)
        assert answer["standardised"].tolist() == pytest.approx([signal])


@pytest.fixture
def history() -> pd.DataFrame:
    """Three sources, of which the first two hold a part of the outcome, the second half as much.

    Folds of 100 sessions; what is said of a session is known to be right or wrong two sessions on.
    """
    rng = np.random.default_rng(0)
    said = rng.normal(0, 0.01, (3, len(SESSIONS)))
    came = 0.4 * said[0] + 0.2 * said[1] + rng.normal(0, 0.01, len(SESSIONS))
    ends = pd.Series(SESSIONS).shift(-2)
    frames = [
        pd.DataFrame({"session": SESSIONS, "source": name, "forecast": values})
        for name, values in zip(["gru", "lstm", "sentiment"], said, strict=True)
    ]
    return pd.concat(
        [
            frame.assign(
                ticker="AAA",
                horizon=2,
                fold=np.arange(len(SESSIONS)) // 100,
                target_session=ends,
                actual=np.where(ends.isna(), np.nan, came),
            )
            for frame in frames
        ],
        ignore_index=True,
    )


def stacked(history: pd.DataFrame, rows: pd.DataFrame | None = None) -> dict[str, float]:
    if rows is None:
        rows = sources(
            ("gru", 0.01, 0.5, "weak"),
            ("lstm", 0.01, 0.5, "strong"),
            ("sentiment", 0.01, 0.5, "weak"),
            session=SESSIONS[210],
            fold=2,
        )
    answer = stacking(rows, TradingSpec(policy="stacking"), lambda _: history)
    return dict(zip(rows["source"], answer["weight"], strict=True))


def test_shares_are_those_of_a_ridge_regression_on_earlier_folds(history) -> None:
    weights = stacked(history)
    wide = history.pivot(index="session", columns="source", values="forecast")
    outcome = history.drop_duplicates("session").set_index("session")["actual"]
    # Fold 2 begins at the 201st session: the outcomes of the 199th and 200th lie in it.
    x = (wide.iloc[:198] / (FULL_SIGNAL * 0.01)).clip(-1, 1)
    y = outcome.iloc[:198] / outcome.iloc[:198].std(ddof=0)
    # A forecast of one deviation that came to nothing: x is one half, squared a quarter.
    fit = Ridge(alpha=50.0 / 4, positive=True, tol=1e-12, max_iter=100_000).fit(x, y)
    shares = fit.coef_ / fit.coef_.sum()
    assert list(weights.values()) == pytest.approx(shares, abs=1e-5)
    assert weights["gru"] > weights["lstm"] > weights["sentiment"] >= 0
    assert sum(weights.values()) == pytest.approx(1.0), "the strong grade may speak in full"


def test_nothing_said_or_known_later_changes_a_share(history) -> None:
    before = stacked(history)
    late = history["target_session"].isna() | (history["target_session"] >= SESSIONS[200])
    scrambled = history.copy()
    scrambled.loc[late, ["forecast", "actual"]] = 7.0
    assert stacked(scrambled) == before
    assert stacked(history[~late | (history["fold"] == 2)]) == before
    assert stacked(history.sample(frac=1, random_state=0)) == before


def test_a_source_without_evidence_has_no_share(history) -> None:
    rows = sources(
        ("gru", 0.01, 0.5, "none"),
        ("lstm", 0.01, 0.5, "weak"),
        ("sentiment", 0.01, 0.5, "moderate"),
        session=SESSIONS[210],
        fold=2,
    )
    weights = stacked(history, rows)
    assert weights["gru"] == 0
    assert 0 < weights["lstm"] <= sum(weights.values())
    assert sum(weights.values()) == pytest.approx(0.5 if weights["sentiment"] else 0.25)


def test_with_one_source_stacking_is_the_evidence_policy(history) -> None:
    rows = sources(("gru", 0.01, 0.5, "moderate"), session=SESSIONS[210], fold=2)
    spec = TradingSpec()
    assert_frame_equal(stacking(rows, spec, lambda _: history), evidence(rows, spec, no_history))


def test_sources_that_were_always_wrong_get_no_share(history) -> None:
    assert set(stacked(history.assign(actual=-history["actual"])).values()) == {0.0}


def test_before_anything_is_known_nothing_is_learned(history) -> None:
    rows = sources(("gru", 0.01, 0.5, "weak"), session=SESSIONS[0], fold=0)
    assert stacked(history, rows) == {"gru": 0.0}
    assert stacked(history.iloc[:0], rows) == {"gru": 0.0}


def test_an_outcome_that_never_moves_teaches_nothing() -> None:
    said = np.random.default_rng(0).normal(size=(50, 2))
    assert fit_shares(said, np.zeros(50), 1.0).tolist() == [0.0, 0.0]


def test_a_policy_that_learns_is_not_asked_where_nobody_may_speak() -> None:
    rows = sources(("gru", 0.01, 0.5, "none"))
    assert stacking(rows, TradingSpec(), no_history)["weight"].tolist() == [0.0]


def test_a_policy_that_learns_reads_the_history_of_those_alone_who_may_speak(history) -> None:
    asked = []

    def read(tickers: Collection[str]) -> pd.DataFrame:
        asked.append(list(tickers))
        return history

    graded = sources(("gru", 0.01, 0.5, "weak"), session=SESSIONS[210], fold=2)
    silent = graded.assign(ticker="BBB", abstains=True)
    ungraded = graded.assign(ticker="CCC", grade="none", evidence_weight=0.0)
    rows = pd.concat([graded, silent, ungraded], ignore_index=True)
    weights = stacking(rows, TradingSpec(policy="stacking"), read)["weight"]
    assert asked == [["AAA"]]
    assert weights.tolist() == [stacked(history, graded)["gru"], 0.0, 0.0]
