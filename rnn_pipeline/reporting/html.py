"""One self-contained page for a person who decides: verdict first, then why, then where it is from.

``render_report`` lays a :class:`~rnn_pipeline.reporting.report.Report` out. The page has its styles
and pictures inside, runs no script, asks for nothing outside itself, and follows the reader's
choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.reporting import evidence_plots, plots
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.reporting.style import BENCHMARKS, display_name, in_order, without_minor
from rnn_pipeline.reporting.tables import FORMATS, format_value, without_level_errors
from rnn_pipeline.reporting.verdict import answers, basis, holdings, verdict
from rnn_pipeline.trading.paper import EXPLANATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_LIMIT = 40
HEADLINE_LIMIT = 12
WHY_LIMIT = 10
"""Tickers whose signal is taken apart."""
MISSED_LIMIT = 12
POOLED = "All tickers"


@dataclass(frozen=True)
class Column:
    """A column of a table: its name in the rows, its heading, and the macro that draws it."""

    name: str
    heading: str
    kind: str = "number"
    spec: str = ""
    """The format of its values, where it is not that of its name."""

    @property
    def form(self) -> str:
        """The format of its values."""
        return self.spec or FORMATS.get(self.name, "")


@dataclass(frozen=True)
class Group:
    """Rows of a table under a heading of their own."""

    rows: list[dict[str, Any]]
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """What the table macro draws."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    remark: str = ""
    """Name of a value that is written in words below its row."""

    def __bool__(self) -> bool:
        return any(group.rows for group in self.groups)


@dataclass(frozen=True)
class Picture:
    """A figure as the page embeds it, or the sentence that stands in for an empty one."""

    uri: str
    text: str
    width: int


DECISION_COLUMNS = (
    Column("ticker", "Ticker", "name"),
    Column("session", "Session", "date"),
    Column("forecast", "Forecast"),
    Column("sentiment", "Sentiment"),
    Column("signal", "Signal", "signal"),
    Column("grade", "Evidence", "grade"),
    Column("position", "Position"),
    Column("action", "Action", "action"),
)
CONTRIBUTION_COLUMNS = (
    Column("title", "Source", "name"),
    Column("said", "It says", "text"),
    Column("standardised", "On its own scale"),
    Column("grade", "Evidence", "grade"),
    Column("weight", "Weight"),
    Column("contribution", "Adds"),
)
PAPER_COLUMNS = (
    Column("title", "", "long"),
    Column("part", "Of the account"),
)
MISSED_COLUMNS = (
    Column("session", "Open of", "date"),
    Column("ticker", "Ticker", "name"),
    Column("weight_wanted", "Decided"),
    Column("missed", "Not filled because", "text"),
)
EVIDENCE_COLUMNS = (
    Column("title", "Model", "name"),
    Column("grade", "Evidence", "grade"),
    Column("p_value", "p"),
    Column("reached", "By ticker"),
    Column("ic", "IC"),
    Column("ic_t", "t"),
    Column("mean_ic", "IC across"),
    Column("hit_rate", "Hit rate", "hits"),
    Column("r2_vs_zero", "R² vs zero"),
    Column("superior_p", "Superior, p"),
    Column("sharpe_ratio", "Sharpe"),
    Column("deflated_sharpe_ratio", "Deflated"),
    Column("break_even_bps", "Bears"),
)
METRIC_COLUMNS = (
    Column("title", "Model", "name"),
    Column("n", "n"),
    Column("mse_ratio", "MSE ÷ zero"),
    Column("mae", "MAE"),
    Column("r2_vs_zero", "R² vs zero"),
    Column("hit_rate", "Hit rate"),
    Column("interval", "95 % interval", "interval"),
    Column("ic", "IC"),
    Column("ic_t", "t"),
    Column("trials", "Trials"),
    Column("p_value", "p"),
    Column("grade", "Evidence", "grade"),
)
# What is known of all tickers together alone: resampled sessions, and comparisons of models.
POOLED_COLUMNS = (
    *METRIC_COLUMNS[:8],
    Column("ic_low", "IC, low"),
    Column("ic_high", "high"),
    *METRIC_COLUMNS[8:],
    Column("best", "Best set", "name"),
)
PERFORMANCE_COLUMNS = (
    Column("title", "Account", "name"),
    Column("total_return", "Return"),
    Column("annual_return", "Return p.a."),
    Column("annual_volatility", "Volatility"),
    Column("sharpe_ratio", "Sharpe"),
    Column("sortino_ratio", "Sortino"),
    Column("max_drawdown", "Drawdown"),
    Column("exposure", "Exposure"),
    Column("turnover", "Turnover"),
    Column("cost_paid", "Cost paid"),
    Column("break_even_bps", "Bears, bps"),
    Column("capacity", "Capacity"),
)
HEADLINE_COLUMNS = (
    Column("published_at", "Published (UTC)", "moment"),
    Column("ticker", "Ticker", "name"),
    Column("score", "Score"),
    Column("title", "Headline", "long"),
)
SENTIMENT_COLUMNS = (
    Column("title", "Model", "name"),
    Column("n", "Headlines"),
    Column("accuracy", "Accuracy"),
    Column("macro_f1", "Macro F1"),
)
DATA_COLUMNS = (
    Column("ticker", "Ticker", "name"),
    Column("bars", "Bars"),
    Column("first_session", "First", "date"),
    Column("last_session", "Last", "date"),
    Column("headlines", "Headlines"),
)
QUARANTINE_COLUMNS = (
    Column("table_name", "Table", "text"),
    Column("ticker", "Ticker", "text"),
    Column("rule", "Rule broken", "long"),
    Column("rows", "Rows"),
)


def render_report(report: Report) -> str:
    """Lay the report out as one HTML file that needs nothing else.

    Text from outside (headlines, reasons, rules) is escaped; the same report gives the same page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rnn_pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = format_value
    decisions = _decisions(report)
    evidence, pooled, by_ticker = _metrics(report)
    return environment.get_template("report.html").render(
        report=report,
        verdict=verdict(report.evidence, report.pooled_evidence),
        basis=basis(report),
        holdings=holdings(report.decisions),
        answers=answers(report),
        evidence=evidence,
        decisions=Table(DECISION_COLUMNS, (Group(decisions[:ROW_LIMIT]),), "reason"),
        more_decisions=Table(DECISION_COLUMNS, (Group(decisions[ROW_LIMIT:]),), "reason"),
        statuses=report.statuses.to_dict("records"),
        contributions=_contributions(report.contributions, [row["ticker"] for row in decisions]),
        paper=_paper(report.paper),
        missed=_table(
            MISSED_COLUMNS,
            report.missed_fills.sort_values("session", ascending=False).head(MISSED_LIMIT),
        ),
        metrics=pooled,
        metrics_by_ticker=by_ticker,
        performance=_performance(report.performance, report.alone),
        costs=_costs(report.costs),
        sentiment_metrics=_table(SENTIMENT_COLUMNS, _titled(report.sentiment_metrics, "model")),
        headlines=_table(
            HEADLINE_COLUMNS,
            report.headlines.sort_values("published_at", ascending=False).head(HEADLINE_LIMIT),
        ),
        data=_table(DATA_COLUMNS, report.data.sort_values("ticker")),
        quarantine=_table(QUARANTINE_COLUMNS, _quarantine(report.quarantine)),
        pictures=_pictures(report),
    )


def _decisions(report: Report) -> list[dict[str, Any]]:
    """Decisions with the largest positions first, then the strongest signals."""
    frame = report.decisions
    order = frame.assign(weight=frame["position"].abs(), strength=frame["signal"].abs())
    order = order.sort_values(["weight", "strength", "ticker"], ascending=[False, False, True])
    return order.to_dict("records")


def _contributions(added: pd.DataFrame, tickers: Sequence[str]) -> Table:
    """What each source says of the first tickers, and how much of it is in the signal."""
    groups = []
    for ticker in tickers[:WHY_LIMIT]:
        own = added[added["ticker"] == ticker]
        rows = _titled(own, "source").assign(
            said=[_said(*row) for row in zip(own["forecast"], own["horizon"], strict=True)],
            quiet=own["contribution"] == 0,
        )
        summed = format_value(own["contribution"].sum(), FORMATS["contribution"])
        heading = f"{ticker}: signal {summed}"
        if own["abstains"].any():
            heading += ", prices abstain because the networks disagree"
        groups.append(Group(rows.to_dict("records"), heading))
    return Table(CONTRIBUTION_COLUMNS, tuple(group for group in groups if group.rows))


def _said(forecast: float, horizon: int) -> str:
    """A source's own words: a return over its horizon, or a level of sentiment."""
    if not horizon:
        return f"level {format_value(forecast, FORMATS['sentiment'])}"
    ahead = f"{horizon} sessions" if horizon > 1 else "1 session"
    return f"{format_value(forecast, FORMATS['forecast'])} in {ahead}"


def _paper(paper: pd.DataFrame) -> Table:
    """From the backtest's promise to what the paper account has, part by part."""
    if paper.empty:
        return Table(PAPER_COLUMNS, ())
    last = paper.sort_values("session").iloc[-1]
    parts = {
        "The backtest promised": last["promise"] - 1.0,
        **{_sentence_case(told): last[name] for name, told in EXPLANATIONS.items()},
        "The paper account earned": last["equity"] - 1.0,
    }
    ends = ("The backtest promised", "The paper account earned")
    rows = [
        {"title": title, "part": part, "quiet": title not in ends} for title, part in parts.items()
    ]
    return Table(PAPER_COLUMNS, (Group(rows),))


def _metrics(report: Report) -> tuple[Table, Table, Table]:
    """The evidence table, and all figures pooled and by ticker; models first, baselines last."""
    if report.metrics.empty:
        # Nothing was forecast. A frame without rows has no dtypes worth joining on.
        return Table(EVIDENCE_COLUMNS, ()), Table(POOLED_COLUMNS, ()), Table(METRIC_COLUMNS, ())
    frame = pd.concat([report.metrics.assign(ticker=POOLED), report.metrics_by_ticker])
    # Over the outcomes of the model's own horizon, the shortest or not.
    frame["mse_ratio"] = 1.0 - frame["r2_vs_zero"]
    frame = without_level_errors(frame)
    graded = pd.concat([report.evidence, report.pooled_evidence.assign(ticker=POOLED)])
    frame = frame.merge(graded[["ticker", "model", "trials", "p_value", "grade"]], how="left")
    frame = frame.merge(report.mean_ic[["model", "mean_ic"]], on="model", how="left")
    for by_model, columns in (
        (report.alone, ["sharpe_ratio", "break_even_bps"]),
        (
            report.luck,
            ["superior_p", "deflated_sharpe_ratio", "ic_low", "ic_high", "in_confidence_set"],
        ),
    ):
        frame = frame.merge(by_model[["model", *columns]], on="model", how="left")
    # All tickers together have intervals of their own scale: a single ticker's are far wider.
    widest = (frame[["hit_low", "hit_high"]] - 0.5).abs().max(axis=1)
    frame["reach"] = widest.groupby(frame["ticker"] == POOLED).transform("max").clip(lower=0.02)
    reached = {model: _reached(report.evidence, model) for model in frame["model"].unique()}
    groups: dict[str, Group] = {}
    for ticker, rows in frame.groupby("ticker"):
        place = {model: position for position, model in enumerate(in_order(rows["model"]))}
        ordered = rows.sort_values("model", key=lambda models: models.map(place))
        records = ordered.to_dict("records")
        for record in records:
            model = record["model"]
            record["title"] = display_name(model)
            record["quiet"] = model in BASELINES
            record["best"] = {True: "in", False: "out"}.get(record["in_confidence_set"])
            ends = [record[end] for end in ("hit_low", "hit_rate", "hit_high")]
            record["interval"] = [50 + 50 * (end - 0.5) / record["reach"] for end in ends]
            record["reached"] = reached[model]
        groups[str(ticker)] = Group(records, str(ticker))
    top = (Group(groups.pop(POOLED).rows),)
    told = {name for record in top[0].rows for name, value in record.items() if value == value}
    shown = tuple(column for column in EVIDENCE_COLUMNS if column.name in told)
    return (
        Table(shown or EVIDENCE_COLUMNS, top),
        Table(POOLED_COLUMNS, top),
        Table(METRIC_COLUMNS, tuple(groups.values())),
    )


def _reached(evidence: pd.DataFrame, model: str) -> str | None:
    """On how many tickers a model has evidence."""
    grades = evidence.loc[evidence["model"] == model, "grade"]
    if grades.empty:
        return None
    return f"{(grades != 'none').sum()} of {len(grades)}"


def _performance(performance: pd.DataFrame, alone: pd.DataFrame) -> Table:
    """The accounts of the decisions and of benchmarks by fill, and each forecast traded alone."""
    from rnn_pipeline.evidence.backtest import FILL_LABELS

    frame = _titled(performance, "name")
    frame = frame.assign(quiet=frame["name"].isin(BENCHMARKS))
    # What trades once, or hardly, bears any cost: that says nothing.
    frame["break_even_bps"] = frame["break_even_bps"].mask(frame["quiet"])
    groups = [
        Group(frame[frame["fill"] == fill].to_dict("records"), _sentence_case(label))
        for fill, label in FILL_LABELS.items()
    ]
    drawn = without_minor(alone).dropna(subset="break_even_bps").set_index("model")
    drawn = drawn.loc[in_order(drawn.index)].reset_index()
    traded = _titled(drawn, "model").assign(
        quiet=drawn["model"].isin(BASELINES), capacity=float("nan")
    )
    label = f"Every forecast traded by its sign, {FILL_LABELS['open']}"
    groups.insert(1, Group(traded.to_dict("records"), label))
    return Table(PERFORMANCE_COLUMNS, tuple(group for group in groups if group.rows))


def _costs(costs: pd.DataFrame) -> Table:
    """Annual return of every account, a column per cost."""
    levels = costs.pivot(index="name", columns="cost_bps", values="annual_return")
    columns = tuple(
        Column(f"at_{level:g}", f"{level:g} bps", spec=FORMATS["annual_return"]) for level in levels
    )
    rows = levels.set_axis([column.name for column in columns], axis=1)
    rows = _titled(rows.loc[in_order(levels.index)].reset_index(), "name")
    rows = rows.assign(quiet=rows["name"].isin((*BASELINES, *BENCHMARKS)))
    return _table((Column("title", "Account", "name"), *columns), rows)


def _quarantine(quarantine: pd.DataFrame) -> pd.DataFrame:
    keys = ["table_name", "ticker", "rule"]
    counts = quarantine.groupby(keys, dropna=False).size().rename("rows").reset_index()
    return counts.sort_values(["rows", *keys], ascending=[False, True, True, True])


def _pictures(report: Report) -> dict[str, Picture]:
    labels = list(report.confusion.columns)
    figures = {
        "price": plots.price_with_signals(report.bars, report.trading_signals),
        "contributions": plots.signal_history(report.trading_signals),
        "equity": evidence_plots.equity_curves(report.equity),
        "paper": evidence_plots.paper_curves(report.paper),
        "folds": plots.fold_map(report.fold_table),
        "ic": evidence_plots.ic_through_time(report.metrics_by_fold, report.fold_table),
        "rolling": evidence_plots.rolling_ic(report.rolling_ic),
        "reliability": evidence_plots.reliability(report.reliability),
        "calibration": evidence_plots.quantile_coverage(report.calibration),
        "costs": evidence_plots.cost_sensitivity(report.costs, report.cost_bps),
        "hits": evidence_plots.hit_rates(without_minor(report.metrics_by_ticker)),
        "loss": plots.loss_curves(report.history),
        "sentiment": plots.sentiment_and_news(report.news_sentiment),
        "confusion": plots.confusion(report.confusion, labels),
        "coverage": plots.coverage(report.bars),
    }
    return {name: _picture(figure) for name, figure in figures.items()}


def _picture(figure: Figure) -> Picture:
    width = round(96 * figure.get_figwidth())
    if not figure.axes:
        return Picture("", figure.texts[-1].get_text(), width)
    text = f"{figure.get_suptitle()}. {figure.get_supxlabel()}".strip()
    return Picture(plots.data_uri(figure, "svg"), text, width)


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def _table(columns: tuple[Column, ...], frame: pd.DataFrame) -> Table:
    return Table(columns, (Group(frame.to_dict("records")),))


def _titled(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.assign(title=[display_name(str(name)) for name in frame[column]])
