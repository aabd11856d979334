"""Every leak of the museum is caught, by the pass and at the asset that its label says."""

from __future__ import annotations

import pytest

from rnn_pipeline import chain
from rnn_pipeline.evidence.lookahead import FUTURES, Findings, Knowledge, look_ahead
from rnn_pipeline.evidence.plausibility import implausible_forecasts
from rnn_pipeline_tests.leaks import town
from rnn_pipeline_tests.leaks.museum import EXHIBITS, Exhibit, target_inside_the_features


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return town.knowledge()


def visit(exhibit: Exhibit, knowledge: Knowledge, variants: tuple[str, ...]) -> Findings:
    settings = town.settings()
    return look_ahead(
        lambda known: chain.run(known, settings, exhibit.leak(known)),
        knowledge,
        [town.CUT],
        town.SESSIONS,
        town.close,
        variants,
    )


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_the_look_ahead_test_catches(exhibit: Exhibit, knowledge: Knowledge) -> None:
    variant = exhibit.variant if exhibit.variant in FUTURES else "truncated"
    findings = visit(exhibit, knowledge, (variant,))
    caught = {(difference.variant, difference.asset) for difference in findings.differences}
    assert (exhibit.variant, exhibit.asset) in caught


@pytest.mark.parametrize("leaking", [False, True])
def test_a_leak_shows_in_the_figures_as_well(leaking: bool) -> None:
    """On random walks nothing can be forecast, and nothing is, unless the target is seen."""
    random_walks = town.knowledge(persistence=0.0)
    stages = target_inside_the_features(random_walks) if leaking else chain.STAGES
    made = chain.run(random_walks, town.settings(), stages)
    outcomes = made["targets"].rename(columns={"target": "actual"})
    keys = ["ticker", "session"]
    scored = made["forecasts"].merge(outcomes[[*keys, "actual"]], on=keys, how="left")
    flagged = implausible_forecasts(scored, sessions_per_year=252)
    assert set(flagged["ticker"].dropna()) == ({"AAA", "BBB", "CCC"} if leaking else set())
    assert ("Sharpe ratio" in set(flagged["figure"])) == leaking
    graded = made["evidence"]["grade"] != "none"
    assert graded.any() == leaking
