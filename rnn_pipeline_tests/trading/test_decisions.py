import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.trading.decisions import (
    DECISION_COLUMNS,
    LIMIT_REASONS,
    current_decisions,
    decide,
)

SESSIONS = pd.bdate_range("2020-01-01", periods=6)


def signals(ticker: str = "AAA", **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"ticker": ticker, "session": SESSIONS})
    values = {
        "forecast": 0.0012,
        "dispersion": 0.0005,
        "agreement": 0.5,
        "abstains": False,
        "sentiment": 0.35,
        "price_contribution": 0.2,
        "sentiment_contribution": 0.1,
        "signal": 0.3,
        "label": "BUY",
        "grade": "weak",
        "policy": "evidence",
        "reason": "from the fusion",
        "known_at": SESSIONS.tz_localize("UTC"),
    }
    return frame.assign(**(values | columns))


def positions(weights: list[float], ticker: str = "AAA", limited_by="volatility"):
    return pd.DataFrame(
        {
            "ticker": ticker,
            "session": SESSIONS,
            "position": weights,
            "previous_position": [0.0, *weights[:-1]],
            "limited_by": limited_by,
        }
    )


def test_actions_follow_the_weights() -> None:
    decisions = decide(signals(), positions([0.0, 0.125, 0.1254, 0.2, 0.05, -0.1]))
    assert tuple(decisions.columns) == DECISION_COLUMNS
    assert decisions["previous_position"].tolist() == [0.0, 0.0, 0.125, 0.1254, 0.2, 0.05]
    assert decisions["action"].tolist() == [
        "stay in cash",
        "open long 12.5 %",
        "hold long 12.5 %",
        "increase long 12.5 % to 20.0 %",
        "reduce long 20.0 % to 5.0 %",
        "turn long 5.0 % into short 10.0 %",
    ]
    closed = decide(signals(), positions([-0.1, 0.0, -0.2, -0.3, -0.1, -0.1]))
    assert closed["action"].tolist() == [
        "open short 10.0 %",
        "close short 10.0 %",
        "open short 20.0 %",
        "increase short 20.0 % to 30.0 %",
        "reduce short 30.0 % to 10.0 %",
        "hold short 10.0 %",
    ]


@pytest.mark.parametrize(
    ("limited_by", "end"),
    [
        ("volatility", "the volatility target sets the weight"),
        ("kelly", "a fraction of the Kelly bet sets the weight"),
        ("max_weight", "the limit per ticker sets the weight"),
        ("max_volume_share", "the ticker's trading volume sets the weight"),
        ("max_turnover", "the limit on turnover sets the weight"),
        ("max_drawdown", "the account is in cash after its drawdown"),
        ("long_only", "short positions are not allowed, so nothing is held"),
    ],
)
def test_reasons_are_sentences_that_name_what_set_the_weight(limited_by, end) -> None:
    reason = decide(signals(), positions([0.1] * 6, limited_by=limited_by))["reason"][0]
    start = "The forecast is +0.12 % and sentiment +0.35; with weak evidence the signal is +0.30"
    assert reason == f"{start} (BUY), and {end}."
    assert limited_by in LIMIT_REASONS


def test_reasons_for_doing_nothing() -> None:
    known = "The forecast is +0.12 % and sentiment +0.35, but"
    for limited_by, why in (
        ("evidence", "neither has shown evidence, so nothing is risked."),
        ("disagreement", "only 50 % of the networks take that side, so nothing is risked."),
    ):
        decided = decide(signals(), positions([0.0] * 6, limited_by=limited_by))
        assert decided["reason"][0] == f"{known} {why}"


def test_order_and_rows_of_others_change_nothing() -> None:
    weights = positions([0.0, 0.125, 0.1254, 0.2, 0.05, -0.1])
    whole = decide(signals(), weights)
    assert_frame_equal(
        decide(signals().tail(2), pd.concat([weights, positions([0.2] * 6, "BBB")])),
        whole.tail(2).reset_index(drop=True),
        check_exact=True,
    )
    shuffled = decide(signals().sample(frac=1, random_state=0), weights.iloc[::-1])
    assert_frame_equal(shuffled, whole, check_exact=True)


def test_current_decisions_are_those_of_the_latest_session() -> None:
    both = pd.concat([signals("AAA"), signals("BBB").head(3)])
    weights = pd.concat([positions([0.1] * 6), positions([0.2] * 6, "BBB")])
    current = current_decisions(decide(both, weights))
    assert current[["ticker", "session"]].values.tolist() == [["AAA", SESSIONS[-1]]]
    assert current_decisions(decide(both.iloc[:0], weights)).empty


def test_a_signal_without_a_position_is_an_error() -> None:
    with pytest.raises(ValueError, match="position is nan for AAA on 2020-01-08"):
        decide(signals(), positions([0.1] * 6).head(5))
