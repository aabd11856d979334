"""The whole chain does not look ahead, on a market where a leak would have something to move."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from rnn_pipeline import chain
from rnn_pipeline.evidence.lookahead import Knowledge, look_ahead
from rnn_pipeline_tests.leaks import town


@pytest.mark.parametrize(
    "changes",
    [{"quantiles": (0.1, 0.9)}, {"pooled": True, "ticker_embedding": 2}],
    ids=["a_network_per_ticker", "one_network_over_all"],
)
def test_the_whole_chain_does_not_look_ahead(changes: dict[str, Any]) -> None:
    knowledge, settings = town.knowledge(), town.settings(**changes)
    made = []

    def run(known: Knowledge) -> dict[str, pd.DataFrame]:
        made.append(chain.run(known, settings))
        return made[-1]

    findings = look_ahead(run, knowledge, [town.CUT], town.SESSIONS, town.close)
    assert findings.clean, findings.differences
    assert ("forecast_quantiles" in set(findings.passes["asset"])) == ("quantiles" in changes)
    held = made[0]["trading_decisions"]
    assert (held.loc[held["session"] <= town.CUT, "position"] != 0).sum() > 10
    assert {"strong", "none"} <= set(made[0]["evidence"]["grade"])


def test_learned_shares_and_limits_with_a_memory_do_not_look_ahead() -> None:
    """Stacking learns from earlier folds; turnover and drawdown look back at the account."""
    settings = town.settings()
    limits = {"max_turnover": 0.2, "max_drawdown": 0.005, "stop_sessions": 10, "max_net": 0.2}
    spec = settings.trading.model_copy(update={"policy": "stacking", "sizing": "kelly", **limits})
    settings = settings.model_copy(update={"trading": spec})
    made = []

    def run(known: Knowledge) -> dict[str, pd.DataFrame]:
        made.append(chain.run(known, settings))
        return made[-1]

    futures = ("scrambled", "restated")
    findings = look_ahead(run, town.knowledge(), [town.CUT], town.SESSIONS, town.close, futures)
    assert findings.clean, findings.differences
    before = [rows[rows["session"] <= town.CUT] for rows in made[0].values() if "session" in rows]
    limited = {name for rows in before if "limited_by" in rows for name in rows["limited_by"]}
    assert {"max_turnover", "max_drawdown"} <= limited
    shares = made[0]["signal_contributions"]["weight"]
    assert ((shares > 0) & (shares < 0.2)).any(), "nothing was learned"


def test_two_horizons_are_purged_and_graded_each_on_its_own_and_do_not_look_ahead() -> None:
    settings = town.settings()
    networks = {"lstm": settings.model.networks["lstm"]}
    model = settings.model.model_copy(update={"horizon": (1, 5), "networks": networks})
    settings = settings.model_copy(update={"model": model})
    made = []

    def run(known: Knowledge) -> dict[str, pd.DataFrame]:
        made.append(chain.run(known, settings))
        return made[-1]

    findings = look_ahead(
        run, town.knowledge(), [town.CUT], town.SESSIONS, town.close, ("scrambled",)
    )
    assert findings.clean, findings.differences
    first = made[0]
    ahead = first["forecasts"].groupby("model")["horizon"].unique().to_dict()
    assert ahead == {"lstm": [1], "lstm_h5": [5]}
    assert first["signal_contributions"].groupby("source")["horizon"].unique().to_dict() == {
        **ahead,
        "sentiment": [0],
    }
    # The outcome of the last session that is trained on lies before the first that is validated on.
    windows = first["fold_windows"].query("ticker == 'AAA' and fold == 1")
    axis = pd.Series(range(len(town.SESSIONS)), index=town.SESSIONS)
    ends = windows.assign(at=windows["session"].map(axis)).groupby(["horizon", "role"])["at"]
    for horizon in (1, 5):
        assert ends.min()[horizon, "val"] - ends.max()[horizon, "train"] == horizon + 1
        assert ends.min()[horizon, "test"] - ends.max()[horizon, "val"] == horizon + 1
    assert ends.min()[1, "test"] == ends.min()[5, "test"]
    # Forecasts over five sessions overlap: of the same sessions a fifth as many count.
    evidence = first["evidence"].query("ticker == 'AAA' and fold == 3").set_index("model")
    assert evidence.loc["lstm", "n"] - evidence.loc["lstm_h5", "n"] == 4
    assert (evidence["n"] / evidence["n_effective"]).to_dict() == {
        "lstm": 1,
        "lstm_h5": 5,
        "sentiment": 1,
    }


@pytest.mark.parametrize("everyone", [False, True], ids=["of_one_ticker", "of_all_tickers"])
def test_a_gap_where_a_fold_begins_to_test_is_no_alarm(everyone: bool) -> None:
    """Until a session is traded again there are no networks to forecast it: no leak, a late start.

    The third fold's first test session has no bar, and the future is cut off at that session.
    """
    knowledge, settings = town.knowledge(), town.settings()
    first = town.SESSIONS[220]
    missing = knowledge.bars["session"] == first
    if not everyone:
        missing &= knowledge.bars["ticker"] == "BBB"
    holed = replace(knowledge, bars=knowledge.bars[~missing].reset_index(drop=True))
    findings = look_ahead(
        lambda known: chain.run(known, settings),
        holed,
        [first],
        town.SESSIONS,
        town.close,
        variants=("truncated",),
    )
    assert findings.clean, findings.differences
