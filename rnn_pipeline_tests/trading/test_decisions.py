import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.trading.decisions import DECISION_COLUMNS, current_decisions, decide

SESSIONS = pd.bdate_range("2020-01-01", periods=6)


def signals(ticker: str = "AAA", **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"ticker": ticker, "session": SESSIONS})
    values = {
        "forecast": 0.0012,
        "sentiment": 0.35,
        "price_contribution": 0.2,
        "sentiment_contribution": 0.1,
        "signal": 0.3,
        "label": "BUY",
        "grade": "weak",
        "reason": "from the fusion",
        "known_at": SESSIONS.tz_localize("UTC"),
    }
    return frame.assign(**(values | columns))


def positions(weights: list[float], ticker: str = "AAA", limited_by="volatility_target"):
    return pd.DataFrame(
        {"ticker": ticker, "session": SESSIONS, "position": weights, "limited_by": limited_by}
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


def test_reasons_are_sentences_that_name_what_set_the_weight() -> None:
    limits = ["volatility_target", "max_weight", "max_gross", "long_only", "volatility_unknown"]
    decisions = decide(signals(), positions([0.1] * 6, limited_by=[*limits, "evidence"]))
    start = "The forecast is +0.12 % and sentiment +0.35; with weak evidence the signal is +0.30"
    assert decisions["reason"].tolist() == [
        f"{start} (BUY), and the volatility target sets the weight.",
        f"{start} (BUY), and the limit per ticker sets the weight.",
        f"{start} (BUY), and the limit on gross exposure sets the weight.",
        f"{start} (BUY), and short positions are not allowed, so nothing is held.",
        f"{start} (BUY), and nothing is risked while the volatility is unknown.",
        "The forecast is +0.12 % and sentiment +0.35, but neither has shown evidence, so nothing"
        " is risked.",
    ]


def test_holdings_come_before_the_first_position() -> None:
    holdings = pd.DataFrame({"ticker": ["AAA", "ZZZ"], "position": [0.25, 0.5]})
    decisions = decide(signals(), positions([0.0] * 6), holdings)
    assert decisions["action"].tolist() == ["close long 25.0 %"] + ["stay in cash"] * 5
    assert decisions["previous_position"].tolist() == [0.25, 0, 0, 0, 0, 0]


def test_a_tickers_previous_position_is_its_own() -> None:
    both = pd.concat([signals("BBB"), signals("AAA")])
    weights = pd.concat([positions([0.1] * 6), positions([0.2] * 6, "BBB")])
    decisions = decide(both, weights)
    assert decisions["previous_position"].tolist() == [0.0, *[0.1] * 5, 0.0, *[0.2] * 5]


def test_the_last_sessions_alone_give_the_same_rows() -> None:
    weights = positions([0.0, 0.125, 0.1254, 0.2, 0.05, -0.1])
    whole = decide(signals(), weights)
    tail = decide(signals().tail(2), weights.tail(3))
    assert_frame_equal(tail, whole.tail(2).reset_index(drop=True), check_exact=True)
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
