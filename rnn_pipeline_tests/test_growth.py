"""The model of docs/growth.md, by numbers computed by hand."""

import pytest

from benchmarks.growth import Each, Fit, Stage, fitted, in_words, of_folds, times

SIZES = [(24, 2), (24, 8), (100, 2), (250, 2), (500, 2)]


def test_a_fit_finds_the_parts_that_made_the_costs() -> None:
    found = fitted([(n, y, 3 + 0.5 * n + 0.01 * n * y) for n, y in SIZES])
    assert found.fixed == pytest.approx(3)
    assert found.per_ticker == pytest.approx(0.5)
    assert found.per_ticker_year == pytest.approx(0.01)
    assert found.per_million_pairs == 0
    assert found.worst_miss == pytest.approx(0, abs=1e-9)


def test_what_grows_with_the_square_is_found_where_straight_parts_miss() -> None:
    found = fitted([(n, y, 2 + 40 * n**2 / 1e6 * 10) for n, y in SIZES])
    assert found.per_million_pairs == pytest.approx(400)
    assert found.at(1000, 5) == pytest.approx(402)


def test_noise_of_a_few_percent_is_not_taken_for_a_square() -> None:
    noise = [1.03, 0.97, 1.02, 0.98, 1.04]
    points = [(n, y, k * (3 + 0.5 * n)) for (n, y), k in zip(SIZES, noise, strict=True)]
    found = fitted(points)
    assert found.per_million_pairs == 0
    assert 0 < found.worst_miss < 0.05


@pytest.mark.parametrize(
    "points", [[(1, 1, 1.0), (2, 1, 2.0)], [(1, 1, 1.0), (2, 1, 2.0), (3, 1, 0.0)]]
)
def test_too_few_points_and_costs_of_nothing_are_refused(
    points: list[tuple[float, float, float]],
) -> None:
    with pytest.raises(ValueError, match="three or more points of positive cost"):
        fitted(points)


def test_nodes_divide_what_neither_holds_the_lock_nor_looks_at_everyone() -> None:
    stage = Stage(
        total=Fit(fixed=10, per_ticker=1, per_ticker_year=0.1),
        held=Fit(per_ticker=0.2),
        repeated=Fit(per_ticker_year=0.02),
    )
    # 100 tickers by 5 years: 10 + 100 + 50, of which 10 + 20 + 10 stay.
    assert stage.seconds(100, 5, 1) == pytest.approx(160)
    assert stage.seconds(100, 5, 10) == pytest.approx(40 + 120 / 10)
    assert Stage(stage.total, whole=True).seconds(100, 5, 10) == pytest.approx(160)


def test_networks_train_on_both_cores_of_every_node_and_tasks_cost_their_handing_out() -> None:
    # (10 x 252 - 1000 - 125) / 250 = 5.6: six folds begin.
    count = of_folds(1000, 125, 250, per_fold=6)
    assert [count(years) for years in (10, 5, 4)] == [36, 6, 0]
    stage = Each(0.1, count, cores=2, task_overhead_s=0.5)
    # 100 tickers: 3,600 networks of 0.1 s, 360 s of work, 6 tasks of a minute.
    assert stage.seconds(100, 10, 1) == pytest.approx(180)
    assert stage.seconds(100, 10, 10) == pytest.approx(360 / 20 + 6 * 0.5)


def test_times_are_laid_out_by_tickers_nodes_and_stage() -> None:
    stages = {"a": Stage(Fit(per_ticker=2.0)), "b": Stage(Fit(fixed=1.0))}
    assert times(stages, [10], 1, [1, 4]) == {
        10: {1: {"a": 20.0, "b": 1.0}, 4: {"a": 5.0, "b": 1.0}}
    }


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.6, "60 s"), (600.0, "10 min"), (9000.0, "2.5 h")]
)
def test_times_are_told_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
