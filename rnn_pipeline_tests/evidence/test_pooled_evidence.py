"""All tickers together: for reading, never for trading."""

import pandas as pd
import pytest

from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.evidence.significance import (
    evidence_grade,
    evidence_p_value,
    overall_evidence,
    pooled_evidence,
)

MANY = tuple(f"T{i}" for i in range(8))


def test_weak_effects_are_significant_together_where_none_is_alone(make_forecasts) -> None:
    forecasts = make_forecasts(MANY, sessions=600, seeds=(0,), skill=0.08)
    alone = overall_evidence(forecasts)
    together = pooled_evidence(forecasts, alone)
    assert (alone["grade"] == "none").mean() > 0.7
    assert together["model"].tolist() == ["lstm"]
    assert together["p_value"][0] < 0.001


def test_the_pooled_grade_is_the_rule_on_the_pooled_figures(make_forecasts) -> None:
    forecasts = make_forecasts(MANY, sessions=400, models=("gru", "lstm"), skill=0.1)
    figures = forecast_metrics(forecasts).set_index("model")
    together = pooled_evidence(forecasts, overall_evidence(forecasts)).set_index("model")
    for model, row in figures.iterrows():
        # Two models of two seeds.
        p_value = evidence_p_value(row["ic_t"], row["n_effective"], 4)
        assert together.loc[model, "p_value"] == p_value
        grade = evidence_grade(p_value, row["hit_low"], row["r2_vs_zero"])
        assert together.loc[model, "grade"] == grade


@pytest.mark.parametrize("rows", [0, 40])
def test_too_little_is_no_evidence(make_forecasts, rows: int) -> None:
    forecasts = make_forecasts(MANY, sessions=60, skill=0.9)
    forecasts = forecasts[
        forecasts["session"] < forecasts["session"].min() + pd.Timedelta(days=rows)
    ]
    together = pooled_evidence(forecasts, overall_evidence(forecasts))
    assert set(together["grade"]) <= {"none"}
    assert len(together) == (1 if rows else 0)
