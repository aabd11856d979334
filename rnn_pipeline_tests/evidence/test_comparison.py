"""Candidates against champions, on forecasts written by hand."""

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.evidence.comparison import compare, opening_the_newest_fold
from rnn_pipeline.evidence.information import mean_t
from rnn_pipeline.evidence.significance import evidence_p_value

SESSIONS = pd.bdate_range("2020-01-01", periods=700)
SEEN = SESSIONS[99]


def challenge(tickers=("AAPL",), pooled=False, trials=1):
    return pd.DataFrame({"ticker": list(tickers)}).assign(
        slot="lstm",
        pooled=pooled,
        candidate="lstm@b",
        champion="lstm",
        seen_until=SEEN,
        trials=trials,
    )


def forecasts(skill, tickers=("AAPL",), sessions=SESSIONS, seeds=2, seed=0):
    """A champion that says nothing, and a candidate that knows a share of the outcome."""
    rng = np.random.default_rng(seed)
    rows = []
    for ticker in tickers:
        actual = rng.normal(0, 0.01, len(sessions))
        for model, share in (("lstm", 0.0), ("lstm@b", skill)):
            for draw in range(seeds):
                rows.append(
                    pd.DataFrame(
                        {
                            "ticker": ticker,
                            "session": sessions,
                            "model": model,
                            "seed": draw,
                            "horizon": 1,
                            "forecast": share * actual + (draw - 0.5) * 1e-4,
                            "actual": actual,
                            "target_session": sessions + pd.offsets.BDay(),
                        }
                    )
                )
    return pd.concat(rows, ignore_index=True)


def test_the_figures_are_those_computed_by_hand():
    rows = forecasts(0.3)
    (found,) = compare(rows, challenge(trials=3)).to_dict("records")
    actual = rows[(rows["model"] == "lstm") & (rows["seed"] == 0)]["actual"].to_numpy()[100:]
    # Seeds scatter by equal amounts to both sides: their mean is the share alone.
    champion, candidate = actual**2, (0.7 * actual) ** 2
    assert found["sessions"] == 600
    assert found["champion_mse"] == pytest.approx(champion.mean())
    assert found["candidate_mse"] == pytest.approx(candidate.mean())
    assert found["t"] == pytest.approx(mean_t(champion - candidate, 1))
    assert found["p_value"] == pytest.approx(evidence_p_value(found["t"], 600, 3))
    assert found["beaten"]


def test_what_was_seen_before_does_not_count_and_a_hundred_sessions_do_not_suffice():
    early = forecasts(0.9, sessions=SESSIONS[:100])
    assert compare(early, challenge())[["sessions", "p_value", "beaten"]].values.tolist() == [
        [0, 1.0, False]
    ]
    short = compare(forecasts(0.9, sessions=SESSIONS[:250]), challenge())
    assert short[["sessions", "p_value", "beaten"]].values.tolist() == [[150, 1.0, False]]


@pytest.mark.parametrize("skill", [0.0, -0.3], ids=["tie", "worse"])
def test_a_candidate_that_is_no_better_has_not_beaten(skill):
    found = compare(forecasts(skill), challenge())
    assert found["beaten"].tolist() == [False]


def test_outcomes_after_the_look_change_nothing():
    rows = forecasts(0.3)
    until = SESSIONS[400]
    moved = rows.copy()
    later = moved["target_session"] > until
    moved.loc[later, ["forecast", "actual"]] *= -7
    pd.testing.assert_frame_equal(
        compare(rows, challenge(), until), compare(moved, challenge(), until), check_exact=True
    )
    assert compare(rows, challenge(), until)["sessions"].tolist() == [300]


def test_a_pooled_network_is_one_series_and_gets_one_answer():
    tickers = ("AAPL", "IBM")
    rows = forecasts(0.3, tickers)
    alone = compare(rows, challenge(tickers))
    together = compare(rows, challenge(tickers, pooled=True))
    assert together["sessions"].tolist() == [600, 600]
    assert together["t"].nunique() == 1
    assert alone["t"].nunique() == 2
    assert together["candidate_mse"][0] == pytest.approx(alone["candidate_mse"].mean())


def test_chance_promotes_at_most_one_candidate_in_twenty():
    """Two forecasts of equal skill on each of 60 tickers, looked at again and again."""
    tickers = [f"T{number}" for number in range(60)]
    rows = forecasts(0.0, tickers, seeds=1)
    rows["forecast"] = np.random.default_rng(1).normal(0, 0.003, len(rows))
    looks = [compare(rows, challenge(tickers), SESSIONS[n]) for n in range(300, 700, 50)]
    ever = np.logical_or.reduce([look["beaten"].to_numpy() for look in looks])
    assert looks[-1]["sessions"].min() == 550
    assert ever.sum() <= 6


def test_a_model_that_is_not_refit_is_graded_in_the_folds_that_others_begin():
    frame = pd.DataFrame(
        {
            "ticker": "AAPL",
            "session": SESSIONS[[0, 1, 0, 1, 2]],
            "model": ["old", "old", "new", "new", "new"],
            "fold": [0, 0, 0, 0, 1],
            "seed": 1,
            "forecast": 0.5,
            "actual": 0.1,
        }
    )
    opened = opening_the_newest_fold(frame)
    (added,) = opened.iloc[len(frame) :].to_dict("records")
    assert (added["model"], added["fold"], added["session"]) == ("old", 1, SESSIONS[2])
    assert np.isnan(added["actual"])
    assert opening_the_newest_fold(opened) is opened
