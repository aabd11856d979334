"""One self-contained page for a person who decides: verdict first, then why, then where it is from.

``Report`` lists the frames that the page is made of; ``render_report`` lays them out. The page has
its styles and pictures inside, runs no script, asks for nothing outside itself, and follows the
reader's choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from rnn_pipeline.evidence.baselines import BASELINES
from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.reporting import plots
from rnn_pipeline.reporting.style import display_name, in_order
from rnn_pipeline.reporting.tables import FORMATS, format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_LIMIT = 40
HEADLINE_LIMIT = 12
POOLED = "All tickers"
GRADES = ("none", "weak", "moderate", "strong")
# A level has no squared error against a return; only its order and its sign can be judged.
LEVELS = ("sentiment",)

_FIGURES = ("n", "mse", "mae", "r2_vs_zero", "hit_rate", "hit_low", "hit_high", "ic", "ic_t")
_REQUIRED = {
    "decisions": (
        *("ticker", "session", "forecast", "sentiment", "signal", "label", "grade", "position"),
        *("action", "reason"),
    ),
    "statuses": ("ticker", "status"),
    "metrics": ("model", *_FIGURES),
    "metrics_by_ticker": ("ticker", "model", *_FIGURES),
    "metrics_by_fold": ("fold", "model", "ic"),
    "evidence": ("ticker", "model", "trials", "p_value", "grade"),
    "fold_table": ("fold", "role", "first_session", "last_session"),
    "history": ("fold", "seed", "epoch", "train_loss", "val_loss"),
    "performance": (
        *("name", "fill", "total_return", "annual_return", "annual_volatility", "sharpe_ratio"),
        *("max_drawdown", "turnover", "cost_paid"),
    ),
    "bars": ("ticker", "session", "adj_close"),
    "trading_signals": (
        *("ticker", "session", "price_contribution", "sentiment_contribution", "signal", "label"),
    ),
    "news_sentiment": ("ticker", "session", "sentiment_mean_5", "news_count"),
    "headlines": ("ticker", "published_at", "title", "score"),
    "sentiment_metrics": ("model", "n", "accuracy", "macro_f1"),
    "data": ("ticker", "bars", "first_session", "last_session", "headlines"),
    "quarantine": ("table_name", "ticker", "rule"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """Everything the page shows. A frame that is left empty becomes a sentence in its place.

    Attributes:
        session: the session whose close the decisions were taken at.
        source: where the data comes from, as in the settings.
        decisions: trading_decisions of that session: ticker, session, forecast, sentiment, signal,
            label, grade, position, action, reason.
        statuses: ticker, status: tickers without a decision, and why ("too little history: ...").
        metrics: ``forecast_metrics(..., by=("model",))`` of models and baselines together.
        metrics_by_ticker: the same by ("ticker", "model").
        metrics_by_fold: the same by ("fold", "model"); only ic is shown.
        evidence: ``overall_evidence``: ticker, model, trials, p_value, grade.
        evidence_rule: how the grades are given, in words.
        fold_table: fold, role, first_session, last_session.
        history: ticker, model, fold, seed, epoch, train_loss, val_loss.
        equity: name -> session, equity (the frames of ``Backtest``), filled at the next open.
        performance: name, fill ("open" | "close") and the figures of ``Backtest.summary``.
        bars: ticker, session, adj_close.
        trading_signals: ticker, session, price_contribution, sentiment_contribution, signal, label.
        news_sentiment: ticker, session, sentiment_mean_5, news_count.
        headlines: ticker, published_at, title, score (-1..1); the latest are listed.
        sentiment_metrics: model, n, accuracy, macro_f1 on the held-out headlines.
        confusion: counts; index: true labels, columns: predicted ones, in the same order.
        data: ticker, bars, first_session, last_session, headlines (counts).
        quarantine: table_name, ticker, rule; one row per rejected row.
        provenance: heading -> name -> value: hashes, settings, versions.
        notes: sentences the reader must know about the data.

    Raises:
        ValueError: a frame with rows lacks a column that the page needs.
    """

    session: pd.Timestamp
    source: str
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    statuses: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics_by_ticker: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics_by_fold: pd.DataFrame = field(default_factory=pd.DataFrame)
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame)
    evidence_rule: str = ""
    fold_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    equity: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    performance: pd.DataFrame = field(default_factory=pd.DataFrame)
    bars: pd.DataFrame = field(default_factory=pd.DataFrame)
    trading_signals: pd.DataFrame = field(default_factory=pd.DataFrame)
    news_sentiment: pd.DataFrame = field(default_factory=pd.DataFrame)
    headlines: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentiment_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    confusion: pd.DataFrame = field(default_factory=pd.DataFrame)
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    quarantine: pd.DataFrame = field(default_factory=pd.DataFrame)
    provenance: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, columns in _REQUIRED.items():
            frame = getattr(self, name)
            if len(frame):
                require(frame, f"report.{name}", columns)
            else:
                # An empty frame may come without columns: give it those that are asked of it.
                object.__setattr__(self, name, frame.reindex(columns=list(columns)))


@dataclass(frozen=True)
class Column:
    """A column of a table: its name in the rows, its heading, and the macro that draws it."""

    name: str
    heading: str
    kind: str = "number"

    @property
    def spec(self) -> str:
        """The format of its values."""
        return FORMATS.get(self.name, "")


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
PERFORMANCE_COLUMNS = (
    Column("title", "Account", "name"),
    Column("total_return", "Return"),
    Column("annual_return", "Return p.a."),
    Column("annual_volatility", "Volatility p.a."),
    Column("sharpe_ratio", "Sharpe"),
    Column("max_drawdown", "Max. drawdown"),
    Column("turnover", "Turnover a session"),
    Column("cost_paid", "Cost paid"),
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
    pooled, by_ticker = _metrics(report)
    return environment.get_template("report.html").render(
        report=report,
        verdict=verdict(report.evidence),
        basis=_basis(report),
        holdings=_holdings(report.decisions),
        decisions=Table(DECISION_COLUMNS, (Group(decisions[:ROW_LIMIT]),), "reason"),
        more_decisions=Table(DECISION_COLUMNS, (Group(decisions[ROW_LIMIT:]),), "reason"),
        statuses=report.statuses.to_dict("records"),
        metrics=pooled,
        metrics_by_ticker=by_ticker,
        performance=_performance(report.performance),
        sentiment_metrics=_table(SENTIMENT_COLUMNS, _titled(report.sentiment_metrics, "model")),
        headlines=_table(
            HEADLINE_COLUMNS,
            report.headlines.sort_values("published_at", ascending=False).head(HEADLINE_LIMIT),
        ),
        data=_table(DATA_COLUMNS, report.data.sort_values("ticker")),
        quarantine=_table(QUARANTINE_COLUMNS, _quarantine(report.quarantine)),
        pictures=_pictures(report),
    )


def verdict(evidence: pd.DataFrame) -> str:
    """Say in one sentence what the evidence amounts to.

    Args:
        evidence: ticker, model, grade.
    """
    if evidence.empty:
        return "No forecast has been tested yet, so there is no evidence."
    strength = evidence["grade"].map(GRADES.index)
    best = strength.groupby(evidence["ticker"]).max()
    if not best.any():
        return "No evidence that any model beats the zero forecast on these tickers."
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
        where = _list(named) if len(tickers) <= 4 else f"{len(tickers)} of {len(best)} tickers"
        findings.append(f"{GRADES[level]} {'' if findings else 'evidence '}on {where}")
    sentence = "; ".join(findings)
    return sentence[0].upper() + sentence[1:] + "."


def _basis(report: Report) -> str:
    """What the verdict rests on."""
    tests = report.fold_table[report.fold_table["role"] == "test"]
    if tests.empty or report.evidence.empty:
        return ""
    first, last = tests["first_session"].min(), tests["last_session"].max()
    models = in_order(report.evidence["model"])
    n_tickers, n_folds = report.evidence["ticker"].nunique(), tests["fold"].nunique()
    return (
        f"{_list([display_name(model) for model in models])}, tested on {n_tickers}"
        f" ticker{'s' * (n_tickers != 1)} over {n_folds} fold{'s' * (n_folds != 1)},"
        f" {format_value(first)} to {format_value(last)}. No network saw a session that it is"
        " tested on."
    )


def _holdings(decisions: pd.DataFrame) -> str:
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


def _decisions(report: Report) -> list[dict[str, Any]]:
    """Decisions with the largest positions first, then the strongest signals."""
    frame = report.decisions
    order = frame.assign(weight=frame["position"].abs(), strength=frame["signal"].abs())
    order = order.sort_values(["weight", "strength", "ticker"], ascending=[False, False, True])
    return order.to_dict("records")


def _metrics(report: Report) -> tuple[Table, Table]:
    """The evidence table, pooled and by ticker; models first, baselines marked as such."""
    pooled = report.metrics.assign(ticker=POOLED)
    # A frame without rows has no dtypes worth joining on.
    frame = pd.concat(
        [part for part in (pooled, report.metrics_by_ticker) if len(part)] or [pooled]
    )
    zero = frame.loc[frame["model"] == "zero", ["ticker", "mse"]]
    frame = frame.merge(zero, on="ticker", how="left", suffixes=("", "_zero"))
    frame["mse_ratio"] = frame["mse"] / frame["mse_zero"]
    frame.loc[frame["model"].isin(LEVELS), ["mse_ratio", "mae", "r2_vs_zero"]] = float("nan")
    graded = report.evidence.set_index(["ticker", "model"])[["trials", "p_value", "grade"]]
    evidence = graded.to_dict("index")
    unknown = dict.fromkeys(graded.columns)
    reach = max(0.02, (frame[["hit_low", "hit_high"]] - 0.5).abs().max().max())
    groups: dict[str, Group] = {}
    for ticker, rows in frame.groupby("ticker"):
        place = {model: position for position, model in enumerate(in_order(rows["model"]))}
        ordered = rows.sort_values("model", key=lambda models: models.map(place))
        records = ordered.to_dict("records")
        for record in records:
            model = record["model"]
            record["title"] = display_name(model)
            record["quiet"] = model in BASELINES
            ends = [record[end] for end in ("hit_low", "hit_rate", "hit_high")]
            record["interval"] = [50 + 50 * (end - 0.5) / reach for end in ends]
            record |= evidence.get((ticker, model), unknown)
            if ticker == POOLED and model not in BASELINES:
                record["grade"] = _reached(report.evidence, model)
        groups[str(ticker)] = Group(records, str(ticker))
    top = Group(groups.pop(POOLED).rows) if POOLED in groups else Group([])
    return Table(METRIC_COLUMNS, (top,)), Table(METRIC_COLUMNS, tuple(groups.values()))


def _reached(evidence: pd.DataFrame, model: str) -> str | None:
    """On how many tickers a model has evidence: pooled forecasts have no grade of their own."""
    grades = evidence.loc[evidence["model"] == model, "grade"]
    if grades.empty:
        return None
    return f"{(grades != 'none').sum()} of {len(grades)} tickers"


def _performance(performance: pd.DataFrame) -> Table:
    from rnn_pipeline.evidence.backtest import FILL_LABELS

    frame = _titled(performance, "name")
    frame = frame.assign(quiet=frame["name"].isin(["buy_and_hold", "cash"]))
    groups = [
        Group(frame[frame["fill"] == fill].to_dict("records"), label[0].upper() + label[1:])
        for fill, label in FILL_LABELS.items()
    ]
    return Table(PERFORMANCE_COLUMNS, tuple(group for group in groups if group.rows))


def _quarantine(quarantine: pd.DataFrame) -> pd.DataFrame:
    keys = ["table_name", "ticker", "rule"]
    counts = quarantine.groupby(keys, dropna=False).size().rename("rows").reset_index()
    return counts.sort_values(["rows", *keys], ascending=[False, True, True, True])


def _pictures(report: Report) -> dict[str, Picture]:
    labels = list(report.confusion.columns)
    figures = {
        "price": plots.price_with_signals(report.bars, report.trading_signals),
        "contributions": plots.signal_history(report.trading_signals),
        "equity": plots.equity_curves(report.equity),
        "folds": plots.fold_map(report.fold_table),
        "ic": plots.ic_through_time(report.metrics_by_fold, report.fold_table),
        "hits": plots.hit_rates(report.metrics_by_ticker),
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


def _table(columns: tuple[Column, ...], frame: pd.DataFrame) -> Table:
    return Table(columns, (Group(frame.to_dict("records")),))


def _titled(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.assign(title=[display_name(str(name)) for name in frame[column]])


def _list(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
