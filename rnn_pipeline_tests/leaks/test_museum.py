"""Every leak of the museum is caught, by the pass and at the asset that its label says."""

from __future__ import annotations

import pytest

from rnn_pipeline import chain
from rnn_pipeline.evidence.lookahead import FUTURES, Findings, Knowledge, look_ahead
from rnn_pipeline_tests.leaks import town
from rnn_pipeline_tests.leaks.museum import EXHIBITS, Exhibit


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
