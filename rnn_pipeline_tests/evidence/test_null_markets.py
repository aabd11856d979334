"""The rule on markets that cannot be forecast, and on one that can.

``benchmarks/null_markets.py`` does the same with networks, through the whole pipeline.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from rnn_pipeline.evidence.metrics import group_statistics
from rnn_pipeline.evidence.significance import LEVELS, evidence_by_fold

TICKERS, SESSIONS, TEST_SIZE, PAST = 60, 1300, 200, 60
LEVEL = LEVELS["weak"]

Returns = Callable[[np.random.Generator, int], np.ndarray]


def random_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(0.0005, 0.01, n)


def garch(rng: np.random.Generator, n: int) -> np.ndarray:
    """GARCH(1, 1) without drift, driven by Student's t of four degrees of freedom."""
    shocks = rng.standard_t(4, n) / np.sqrt(2)
    returns, variance = np.zeros(n), 1e-4
    for day in range(n):
        returns[day] = np.sqrt(variance) * shocks[day]
        variance = 2e-6 + 0.10 * returns[day] ** 2 + 0.88 * variance
    return returns


def reversal(rng: np.random.Generator, past: np.ndarray) -> np.ndarray:
    """Of the last 60 sessions: a forecast that changes slowly and leans on past outcomes."""
    return -past.sum(axis=1) / 60


def fitted(rng: np.random.Generator, past: np.ndarray) -> np.ndarray:
    """Any function of the last sessions whose size grows with volatility, as a network's does."""
    return np.tanh(past[:, -5:] @ rng.normal(0, 40, 5)) * past[:, -20:].std(axis=1)


def headlines(rng: np.random.Generator, past: np.ndarray) -> np.ndarray:
    """A sentiment level: mostly 0, else a mood that lasts and knows only the past."""
    told = rng.random(len(past)) < 0.3
    return np.where(told, np.sign(past[:, -3:].sum(axis=1)) * 0.8, 0.0)


def market(
    returns: Returns, forecast: Callable, horizon: int, sessions: int, seed: int, skill: float = 0.0
) -> pd.DataFrame:
    """Forecasts of many tickers, two seeds each; ``skill`` is their correlation with outcomes."""
    rng = np.random.default_rng(seed)
    axis = pd.bdate_range("2000-01-03", periods=sessions)
    frames = []
    for ticker in range(TICKERS):
        own = returns(rng, PAST + sessions + horizon - 1)
        past = np.lib.stride_tricks.sliding_window_view(own, PAST)[:sessions]
        ahead = np.lib.stride_tricks.sliding_window_view(own[PAST:], horizon).sum(axis=1)
        made = forecast(rng, past)
        made = 0.05 * (made * ahead.std() / max(made.std(), 1e-12))
        made = skill * (skill * ahead + np.sqrt(1 - skill**2) * made / 0.05) if skill else made
        for network in (0, 1):
            noise = rng.normal(0, 0.3 * made.std(), sessions) * (made != 0)
            frames.append(
                pd.DataFrame(
                    {
                        "ticker": f"T{ticker:03d}",
                        "session": axis,
                        "fold": np.arange(sessions) // TEST_SIZE,
                        "model": "network",
                        "seed": network,
                        "horizon": horizon,
                        "forecast": made + noise,
                        "actual": ahead,
                        "known_at": axis.tz_localize("UTC"),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


NULLS = {
    "random walk, fitted": (random_walk, fitted, 1, SESSIONS),
    "random walk, reversal": (random_walk, reversal, 1, SESSIONS),
    "GARCH and fat tails, fitted": (garch, fitted, 1, SESSIONS),
    "GARCH and fat tails, reversal": (garch, reversal, 1, SESSIONS),
    "GARCH and fat tails, sentiment": (garch, headlines, 1, SESSIONS),
    "five sessions ahead": (garch, reversal, 5, 2 * SESSIONS),
    "short sample": (garch, fitted, 1, 300),
}


@pytest.fixture(scope="module")
def false_positives() -> dict[str, int]:
    """Tickers of each null market that were ever graded, at any of their folds, by trials = 1."""
    counts = {}
    for seed, (name, arguments) in enumerate(NULLS.items()):
        forecasts = market(*arguments, seed=seed)
        ledger = forecasts.iloc[:0].assign(
            network_hash="", feature_set_hash="", training_hash="", tuning_trials=1, tried_at=pd.NaT
        )
        # An empty ledger counts one trial, so that nothing but the rule itself holds the level.
        evidence = evidence_by_fold(forecasts, ledger)
        assert set(evidence["trials"]) == {1}
        assert evidence["fold"].nunique() == -(-arguments[-1] // TEST_SIZE)
        counts[name] = (evidence["grade"] != "none").groupby(evidence["ticker"]).any().sum()
    return counts


@pytest.mark.parametrize("name", NULLS)
def test_a_null_market_is_hardly_ever_graded_at_any_fold(name: str, false_positives) -> None:
    assert false_positives[name] <= binom.isf(0.001, TICKERS, LEVEL)


def test_nor_are_all_null_markets_together(false_positives) -> None:
    assert sum(false_positives.values()) <= binom.isf(0.01, TICKERS * len(NULLS), LEVEL)


def test_a_rule_that_looks_once_but_is_looked_at_often_would_be_fooled() -> None:
    """The same markets under t > 1.645 at any fold: what the bound protects from."""
    forecasts = market(*NULLS["random walk, reversal"], seed=1)
    forecasts = forecasts[forecasts["seed"] == 0]
    ever = pd.Series(False, index=sorted(forecasts["ticker"].unique()))
    for fold in range(2, forecasts["fold"].max() + 1):
        known = forecasts[forecasts["fold"] < fold]
        ever |= group_statistics(known, ["ticker"])["ic_t"] > 1.645
    assert ever.mean() > 2 * LEVEL


def test_a_correlation_of_a_tenth_is_found() -> None:
    forecasts = market(garch, fitted, 1, 2400, seed=9, skill=0.1)
    last = evidence_by_fold(forecasts).groupby("ticker").tail(1)
    assert (last["grade"] != "none").mean() > 0.6
