"""The words that a report opens with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.reporting.report import Report
from rnn_pipeline.reporting.verdict import answers, verdict

MakeReport = Callable[..., Report]


def graded(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["ticker", "model", "grade"])


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (
            graded(("IBM", "lstm", "weak"), ("IBM", "gru", "none")),
            "Weak evidence on IBM (LSTM).",
        ),
        (
            graded(("IBM", "gru", "weak"), ("IBM", "lstm", "weak"), ("AAPL", "lstm", "strong")),
            "Strong evidence on AAPL (LSTM); weak on IBM (LSTM, GRU).",
        ),
        (
            graded(("IBM", "lstm", "moderate"), ("IBM", "gru", "weak"), ("AAPL", "gru", "none")),
            "Moderate evidence on IBM (LSTM); none on AAPL.",
        ),
        (
            graded(*((f"T{i}", "lstm", "weak") for i in range(6)), ("X", "lstm", "none")),
            "Weak evidence on 6 of 7 tickers; none on X.",
        ),
    ],
)
def test_the_verdict_names_the_best_grade_of_each_ticker(
    evidence: pd.DataFrame, sentence: str
) -> None:
    assert verdict(evidence) == sentence


def test_evidence_on_all_tickers_together_is_told_where_no_single_one_has_any() -> None:
    none = graded(("IBM", "lstm", "none"), ("IBM", "gru", "none"))
    together = pd.DataFrame({"model": ["gru", "lstm"], "grade": ["weak", "none"]})
    assert verdict(none, together) == (
        "No evidence on any single ticker; weak evidence on all of them together (GRU), which is"
        " not traded."
    )
    assert verdict(none, together.assign(grade="none")).startswith("No evidence that any model")
    alone = graded(("IBM", "lstm", "weak"))
    assert verdict(alone, together) == "Weak evidence on IBM (LSTM)."


def told(report: Report) -> dict[str, tuple[str, str]]:
    return {answer.question: (answer.figure, answer.meaning) for answer in answers(report)}


def test_four_questions_are_answered_with_their_figures(make_report: MakeReport) -> None:
    report = make_report(["AAPL", "IBM"])
    grades = report.evidence["grade"].where(report.evidence.index != 0, "weak")
    p_values = report.evidence["p_value"].where(report.evidence.index != 0, 0.031)
    found = told(
        make_report(
            ["AAPL", "IBM"], evidence=report.evidence.assign(grade=grades, p_value=p_values)
        )
    )
    assert list(found) == [
        *("Is there evidence?", "How much?", "After costs?", "Could it be luck?")
    ]
    assert found["Is there evidence?"][0] == f"1 of {len(report.evidence)}"
    figure, meaning = found["How much?"]
    assert figure == "IC +0.012"
    assert "LSTM, the best model (t +0.4)" in meaning
    assert "Persistence, the best baseline, has +0.012" in meaning
    figure, meaning = found["After costs?"]
    assert figure == "Sharpe +0.12"
    assert meaning.startswith("of the decisions, after 5 bps a trade. Sharpe ratios beside it: ")
    assert "Buy and hold +0.12" in meaning
    assert "LSTM, were all its forecasts traded, +0.25, and it bears 0 bps" in meaning
    figure, meaning = found["Could it be luck?"]
    assert figure == "p = 0.031"
    for part in ("after 6 trials each", "0.25 on all together", "25\u202f% of single networks"):
        assert part in meaning
    assert meaning.endswith("probability of overfitting 44\u202f%")


def test_an_account_that_held_nothing_was_not_traded(make_report: MakeReport) -> None:
    report = make_report(["AAPL"])
    idle = report.performance["sharpe_ratio"].where(report.performance["name"] != "signals")
    found = told(make_report(["AAPL"], performance=report.performance.assign(sharpe_ratio=idle)))
    figure, meaning = found["After costs?"]
    assert figure == "not traded"
    assert meaning.startswith("the decisions never held anything. Sharpe ratios beside it: ")


def test_what_is_not_known_is_left_out(make_report: MakeReport) -> None:
    report = make_report(["AAPL"])
    unknown = report.evidence.assign(p_value=np.nan, sign_flip_rate=np.nan)
    empty = pd.DataFrame()
    found = told(
        make_report(
            ["AAPL"],
            evidence=unknown,
            overfitting=np.nan,
            pooled_evidence=empty,
            performance=empty,
            alone=empty,
        )
    )
    assert found["Could it be luck?"] == (
        "–",
        "smallest p-value on a ticker, after 6 trials each and a look at every fold",
    )
    assert "After costs?" not in found
    assert answers(make_report(["AAPL"], evidence=empty)) == []
