import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.evidence.backtest import backtest, sign_positions
from rnn_pipeline.evidence.luck import sign_sharpe_ratios
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.plausibility import (
    implausible,
    implausible_account,
    implausible_forecasts,
)
from rnn_pipeline.settings import BacktestSpec

HONEST = {
    "ticker": "AAA",
    "model": "lstm",
    "n_effective": 1000.0,
    "ic": 0.05,
    "ic_t": 1.6,
    "hit_rate": 0.53,
    "hit_low": 0.50,
    "r2_vs_zero": 0.003,
}


def figures(**change: float) -> list[str]:
    return implausible(pd.DataFrame([HONEST | change]))["figure"].tolist()


@pytest.mark.parametrize(
    ("change", "flagged"),
    [
        ({}, []),
        ({"ic": 0.5, "ic_t": 12.0}, ["information coefficient"]),
        # Far above the ceiling, but by chance: a few forecasts.
        ({"ic": 0.5, "ic_t": 2.5}, []),
        ({"ic": 0.16, "ic_t": 5.0}, []),
        ({"ic": -0.9, "ic_t": -30.0}, []),
        ({"hit_rate": 0.7, "hit_low": 0.66}, ["hit rate"]),
        ({"hit_rate": 0.7, "hit_low": 0.59}, []),
        ({"r2_vs_zero": 0.3}, ["R² against zero"]),
        ({"r2_vs_zero": 0.3, "n_effective": 12.0}, []),
        ({"sharpe_ratio": 9.0, "sessions_per_year": 252}, ["Sharpe ratio"]),
        ({"sharpe_ratio": 9.0, "sessions_per_year": 252, "n_effective": 60.0}, []),
        ({"sharpe_ratio": 2.5, "sessions_per_year": 252}, []),
        (dict.fromkeys(("ic", "ic_t", "hit_rate", "hit_low", "r2_vs_zero"), np.nan), []),
        ({"n_effective": 0.0, "r2_vs_zero": 0.9}, []),
    ],
)
def test_a_ceiling_is_broken_by_more_than_chance(change: dict, flagged: list[str]) -> None:
    assert figures(**change) == flagged


def test_the_reason_is_a_sentence() -> None:
    found = implausible(pd.DataFrame([HONEST | {"hit_rate": 0.7, "hit_low": 0.66}])).iloc[0]
    assert found["reason"].startswith("lstm of AAA: hit rate 0.70 is above 0.6")
    assert (found["value"], found["ceiling"]) == (0.7, 0.6)


def test_no_rows_and_no_columns(make_forecasts) -> None:
    assert implausible(forecast_metrics(make_forecasts().iloc[:0])).empty
    with pytest.raises(ValueError, match="metrics lacks the columns"):
        implausible(pd.DataFrame({"ic": [0.5]}))


@pytest.mark.parametrize(("skill", "flagged"), [(0.0, False), (0.1, False), (0.6, True)])
def test_forecasts_that_know_the_outcome_are_flagged(make_forecasts, skill, flagged) -> None:
    metrics = forecast_metrics(make_forecasts(sessions=600, skill=skill))
    assert bool(len(implausible(metrics))) is flagged


def test_the_sharpe_ratio_of_trading_signs_has_a_ceiling_too(make_forecasts) -> None:
    honest = make_forecasts(("AAA", "BBB"), sessions=600, skill=0.05)
    assert implausible_forecasts(honest, 252).empty
    # Every sign is right, but the size says nothing: no other ceiling is broken on one ticker less.
    knowing = honest.assign(forecast=np.sign(honest["actual"]))
    found = implausible_forecasts(knowing, 252)
    sharpe = found[found["figure"] == "Sharpe ratio"]
    assert sharpe["ticker"].tolist()[:2] == ["AAA", "BBB"]
    assert sharpe["ticker"].isna().sum() == 1
    assert sharpe["reason"].iloc[-1].startswith("lstm: Sharpe ratio ")


def test_the_sharpe_ratio_of_signs_is_that_of_their_session_returns(make_forecasts) -> None:
    forecasts = make_forecasts(("AAA", "BBB"), sessions=90, seeds=(0, 1), skill=0.3)
    mean = forecasts.groupby(["ticker", "session"], as_index=False).agg(
        forecast=("forecast", "mean"), actual=("actual", "first")
    )
    daily = (np.sign(mean["forecast"]) * mean["actual"]).groupby(mean["session"]).mean()
    expected = daily.mean() / daily.std(ddof=0) * np.sqrt(252)
    found = sign_sharpe_ratios(forecasts, ("model",), 252)
    assert found["sharpe_ratio"].tolist() == pytest.approx([expected])
    third = daily.iloc[::3]
    longer = sign_sharpe_ratios(forecasts.assign(horizon=3), ("model",), 252)
    expected = third.mean() / third.std(ddof=0) * np.sqrt(252 / 3)
    assert longer["sharpe_ratio"].tolist() == pytest.approx([expected])


@pytest.mark.parametrize("knowing", [False, True])
def test_an_account_that_knows_the_next_open_is_flagged(knowing: bool) -> None:
    rng = np.random.default_rng(0)
    price = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, 502)))
    bars = pd.DataFrame(
        {
            "ticker": "AAA",
            "session": pd.bdate_range("2011-01-03", periods=502),
            **dict.fromkeys(("open", "close", "adj_close"), price),
        }
    )
    held = bars.iloc[:500].assign(
        forecast=np.log(price[2:] / price[1:-1]) if knowing else rng.normal(size=500)
    )
    account = backtest(sign_positions(held), bars, BacktestSpec())
    found = implausible_account(account, "strategy")
    assert found["figure"].tolist() == (["Sharpe ratio"] if knowing else [])
    idle = backtest(held.assign(position=0.0), bars, BacktestSpec())
    assert implausible_account(idle, "strategy").empty
