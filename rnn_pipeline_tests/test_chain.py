"""The whole chain does not look ahead, on a market where a leak would have something to move."""

import pandas as pd
import pytest

from rnn_pipeline import chain
from rnn_pipeline.evidence.lookahead import Knowledge, look_ahead
from rnn_pipeline_tests.leaks import town


@pytest.mark.parametrize(
    "changes",
    [{}, {"pooled": True, "ticker_embedding": 2}],
    ids=["a_network_per_ticker", "one_network_over_all"],
)
def test_the_whole_chain_does_not_look_ahead(changes: dict[str, int]) -> None:
    knowledge, settings = town.knowledge(), town.settings(**changes)
    made = []

    def run(known: Knowledge) -> dict[str, pd.DataFrame]:
        made.append(chain.run(known, settings))
        return made[-1]

    findings = look_ahead(run, knowledge, [town.CUT], town.SESSIONS, town.close)
    assert findings.clean, findings.differences
    held = made[0]["trading_decisions"]
    assert (held.loc[held["session"] <= town.CUT, "position"] != 0).sum() > 10
    assert {"strong", "none"} <= set(made[0]["evidence"]["grade"])
