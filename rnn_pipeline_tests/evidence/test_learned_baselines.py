"""Each fitted baseline against its definition, or another implementation of it."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.dummy import DummyClassifier

from rnn_pipeline.evidence import learned_baselines
from rnn_pipeline.evidence.learned_baselines import (
    LEARNED,
    LOGISTIC_STRENGTHS,
    RIDGE_PENALTIES,
    Samples,
    expected_return,
    lightgbm,
    logistic,
    majority,
    ridge,
)


def samples(n: int, seed: int, slope: float = 0.004) -> Samples:
    """A return that follows the first of three inputs, with noise and a small drift."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    return Samples(x, slope * x[:, 0] + rng.normal(0.001, 0.01, n))


TRAIN, VAL, TEST = samples(300, 0), samples(80, 1), samples(50, 2)


def test_ridge_solves_the_normal_equations_of_the_best_penalty() -> None:
    scale = TRAIN.y.std()
    mean_x, mean_y = TRAIN.x.mean(axis=0), (TRAIN.y / scale).mean()
    centred = TRAIN.x - mean_x
    solutions = []
    for penalty in RIDGE_PENALTIES:
        gram = centred.T @ centred + penalty * np.eye(3)
        slopes = np.linalg.solve(gram, centred.T @ (TRAIN.y / scale - mean_y))
        solutions.append(lambda x, slopes=slopes: scale * (mean_y + (x - mean_x) @ slopes))
    errors = [np.mean((solution(VAL.x) - VAL.y) ** 2) for solution in solutions]
    best = solutions[int(np.argmin(errors))]
    assert ridge(TRAIN, VAL, TEST.x) == pytest.approx(best(TEST.x), rel=1e-9)


def test_logistic_minimises_the_penalised_log_loss_of_the_best_strength() -> None:
    side = np.where(TRAIN.y > 0, 1.0, -1.0)

    def fit(strength: float) -> np.ndarray:
        def loss(theta: np.ndarray) -> float:
            logit = TRAIN.x @ theta[1:] + theta[0]
            return theta[1:] @ theta[1:] / 2 + strength * np.logaddexp(0, -side * logit).sum()

        return minimize(loss, np.zeros(4), tol=1e-10).x

    def log_loss(theta: np.ndarray) -> float:
        logit = VAL.x @ theta[1:] + theta[0]
        return np.logaddexp(0, -np.where(VAL.y > 0, 1, -1) * logit).mean()

    best = min(map(fit, LOGISTIC_STRENGTHS), key=log_loss)
    share = 1 / (1 + np.exp(-(TEST.x @ best[1:] + best[0])))
    expected = (2 * share - 1) * np.abs(TRAIN.y).mean()
    assert logistic(TRAIN, VAL, TEST.x) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("drift", [-0.02, -0.001, 0.001, 0.02])
def test_the_majority_is_that_of_scikit_learns_dummy(drift: float) -> None:
    train = Samples(TRAIN.x, TRAIN.y - TRAIN.y.mean() + drift)
    dummy = DummyClassifier(strategy="most_frequent").fit(train.x, train.rose)
    forecast = majority(train, VAL, TEST.x)
    assert ((forecast > 0) == dummy.predict(TEST.x)).all()
    share = (train.y > 0).mean()
    assert forecast == pytest.approx((2 * share - 1) * np.abs(train.y).mean())


def test_an_expected_return_is_the_mean_of_moves_of_one_size() -> None:
    moves = Samples(TRAIN.x[:4], np.array([2.0, -2.0, 2.0, 2.0]))
    assert expected_return(np.array([0.75, 0.5, 0.0]), moves).tolist() == [1.0, 0.0, -2.0]


def test_trees_see_what_lines_do_not() -> None:
    def either_or(n: int, seed: int) -> Samples:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, 3))
        return Samples(x, 0.01 * np.sign(x[:, 0] * x[:, 1]) + rng.normal(0, 0.005, n))

    train, val, test = either_or(600, 0), either_or(200, 1), either_or(200, 2)
    correlation = {
        name: np.corrcoef(LEARNED[name](train, val, test.x), test.y)[0, 1]
        for name in ("ridge", "lightgbm")
    }
    assert correlation["lightgbm"] > 0.7
    assert abs(correlation["ridge"]) < 0.2


def test_validation_stops_the_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    unrelated = Samples(VAL.x, np.random.default_rng(5).permutation(VAL.y))
    stopped = lightgbm(TRAIN, unrelated, TEST.x)
    monkeypatch.setattr(learned_baselines, "PATIENCE", learned_baselines.TREES)
    assert np.std(lightgbm(TRAIN, TRAIN, TEST.x)) > 2 * np.std(stopped)


@pytest.mark.parametrize("name", LEARNED)
def test_a_row_is_forecast_alone_as_among_others(name: str) -> None:
    together = LEARNED[name](TRAIN, VAL, TEST.x)
    assert (together == LEARNED[name](TRAIN, VAL, TEST.x)).all()
    alone = [LEARNED[name](TRAIN, VAL, TEST.x[[row]])[0] for row in (0, 7, 49)]
    assert alone == together[[0, 7, 49]].tolist()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("always", [0.01, -0.01, 0.0])
def test_a_ticker_that_only_rose_fell_or_stood_still_has_a_forecast(
    name: str, always: float
) -> None:
    flat = Samples(TRAIN.x, np.full(len(TRAIN.y), always))
    assert LEARNED[name](flat, VAL, TEST.x) == pytest.approx(always, abs=1e-9)
