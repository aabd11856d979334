import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.plausibility import implausible

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
