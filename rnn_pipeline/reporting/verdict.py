"""What a reader must know first, in words: the verdict, and four answers that it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.reporting.style import BENCHMARKS, display_name, in_order
from rnn_pipeline.reporting.tables import FORMATS, MISSING, format_value

GRADES = ("none", "weak", "moderate", "strong")


@dataclass(frozen=True)
class Answer:
    """A question that decides whether to believe the forecasts, its answer, and what it means."""

    question: str
    figure: str
    meaning: str


def verdict(evidence: pd.DataFrame, pooled: pd.DataFrame | None = None) -> str:
    """Say in one sentence what the evidence amounts to.

    Args:
        evidence: ticker, model, grade.
        pooled: model, grade of all tickers together, which is told where no single one has any.
    """
    if evidence.empty:
        return "No forecast has been tested yet, so there is no evidence."
    strength = evidence["grade"].map(GRADES.index)
    best = strength.groupby(evidence["ticker"]).max()
    if not best.any():
        together = pd.DataFrame(columns=["model", "grade"]) if pooled is None else pooled
        together = together[together["grade"].isin(GRADES[1:])]
        if together.empty:
            return "No evidence that any model beats the zero forecast on these tickers."
        grade = max(together["grade"], key=GRADES.index)
        models = in_order(together.loc[together["grade"] == grade, "model"])
        return (
            f"No evidence on any single ticker; {grade} evidence on all of them together"
            f" ({listed(map(display_name, models))}), which is not traded."
        )
    findings: list[str] = []
    for level in reversed(range(len(GRADES))):
        tickers = sorted(best.index[best == level])
        if not tickers:
            continue
        carriers = evidence[strength == level].groupby("ticker")["model"].agg(in_order)
        named = [
            f"{ticker} ({', '.join(map(display_name, carriers[ticker]))})" if level else ticker
            for ticker in tickers
        ]
        where = listed(named) if len(tickers) <= 4 else f"{len(tickers)} of {len(best)} tickers"
        findings.append(f"{GRADES[level]} {'' if findings else 'evidence '}on {where}")
    sentence = "; ".join(findings)
    return sentence[0].upper() + sentence[1:] + "."


def basis(report: Report) -> str:
    """What the verdict rests on."""
    tests = report.fold_table[report.fold_table["role"] == "test"]
    if tests.empty or report.evidence.empty:
        return ""
    first, last = tests["first_session"].min(), tests["last_session"].max()
    models = in_order(report.evidence["model"])
    n_tickers, n_folds = report.evidence["ticker"].nunique(), tests["fold"].nunique()
    return (
        f"{listed([display_name(model) for model in models])}, tested on {n_tickers}"
        f" ticker{'s' * (n_tickers != 1)} over {n_folds} fold{'s' * (n_folds != 1)},"
        f" {format_value(first)} to {format_value(last)}. No network saw a session that it is"
        " tested on."
    )


def holdings(decisions: pd.DataFrame) -> str:
    """What is held from the next open."""
    if decisions.empty:
        return ""
    gross, net = decisions["position"].abs().sum(), decisions["position"].sum()
    if not gross:
        return "From the next open everything is in cash."
    return (
        f"Positions from the next open: {format_value(gross, '.1%')} gross,"
        f" {format_value(net, '+.1%')} net."
    )


def answers(report: Report) -> list[Answer]:
    """Is there evidence, how much compared with what, does it survive costs, could it be luck."""
    if report.evidence.empty or report.metrics.empty:
        return []
    graded = report.evidence
    learned = report.metrics[~report.metrics["model"].isin(BASELINES)].dropna(subset="ic")
    rivals = report.metrics[report.metrics["model"].isin(BASELINES)].dropna(subset="ic")
    return [
        _how_often(graded),
        *([_how_much(learned, rivals)] if len(learned) else []),
        *([_at_what_cost(report)] if len(report.performance) else []),
        _how_lucky(report),
    ]


def _how_often(graded: pd.DataFrame) -> Answer:
    found = int((graded["grade"] != "none").sum())
    return Answer(
        "Is there evidence?",
        f"{found} of {len(graded)}",
        "models on a ticker are graded weak or better",
    )


def _how_much(models: pd.DataFrame, rivals: pd.DataFrame) -> Answer:
    best = models.loc[models["ic"].idxmax()]
    meaning = f"information coefficient of {display_name(best['model'])}, the best model"
    if best["ic_t"] == best["ic_t"]:
        meaning += f" (t {format_value(best['ic_t'], '+.1f')})"
    if len(rivals):
        rival = rivals.loc[rivals["ic"].idxmax()]
        meaning += (
            f"; {display_name(rival['model'])}, the best baseline, has"
            f" {format_value(rival['ic'], '+.3f')}"
        )
    return Answer("How much?", f"IC {format_value(best['ic'], '+.3f')}", meaning)


def _at_what_cost(report: Report) -> Answer:
    accounts = report.performance[report.performance["fill"] == "open"].set_index("name")
    held_against = accounts.index.isin(BENCHMARKS)
    strategy, others = accounts[~held_against].iloc[0], accounts[held_against]
    ratio = strategy["sharpe_ratio"]
    held = [
        f"{display_name(name)} {format_value(other, '+.2f')}"
        for name, other in others["sharpe_ratio"].dropna().items()
    ]
    alone = report.alone[~report.alone["model"].isin(BASELINES)].dropna(subset="break_even_bps")
    if len(alone):
        best = alone.loc[alone["break_even_bps"].idxmax()]
        held.append(
            f"{display_name(best['model'])}, were all its forecasts traded,"
            f" {format_value(best['sharpe_ratio'], '+.2f')}, and it bears"
            f" {format_value(best['break_even_bps'], '.0f')} bps"
        )
    figure, meaning = "not traded", "the decisions never held anything"
    if ratio == ratio:
        figure = f"Sharpe {format_value(ratio, '+.2f')}"
        meaning = f"of the decisions, after {report.cost_bps:g} bps a trade"
    if held:
        meaning += f". Sharpe ratios beside it: {'; '.join(held)}"
    return Answer("After costs?", figure, meaning)


def _how_lucky(report: Report) -> Answer:
    graded, together = report.evidence, report.pooled_evidence["p_value"]
    smallest, trials = graded["p_value"].min(), int(graded["trials"].max())
    meaning = (
        f"smallest p-value on a ticker, after {trials} trial{'s' * (trials != 1)} each and a look"
        " at every fold"
    )
    if together.notna().any():
        meaning += f"; {format_value(together.min(), FORMATS['p_value'])} on all together"
    flips = graded["sign_flip_rate"].mean()
    if flips == flips:
        meaning += f". {format_value(flips, '.0%')} of single networks contradict their mean"
    if report.overfitting == report.overfitting:
        meaning += f"; probability of overfitting {format_value(report.overfitting, '.0%')}"
    figure = MISSING
    if smallest == smallest:
        figure = f"p = {format_value(smallest, FORMATS['p_value'])}"
    return Answer("Could it be luck?", figure, meaning)


def listed(words: Iterable[str]) -> str:
    """Join words as in "AAPL, IBM and MSFT"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
