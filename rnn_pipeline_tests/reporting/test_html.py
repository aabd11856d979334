from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pandas as pd
import pytest

from rnn_pipeline.reporting.html import ROW_LIMIT, render_report
from rnn_pipeline.reporting.report import Report

MakeReport = Callable[..., Report]
VOID = {"meta", "link", "img", "br", "path", "rect", "circle"}


class Page(HTMLParser):
    """Tags with their attributes, text by the tag it stands in, and tables as lists of cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is out of place"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data.strip()))
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def words(self, tag: str = "") -> str:
        return " ".join(text for where, text in self.text if not tag or where == tag)

    def row(self, first: str, *, after: str = "", number: int = 0) -> list[str]:
        """The first row that begins so, below the ``number``-th heading that begins ``after``."""
        starts = [i for i, row in enumerate(self.rows) if not after or after in row[:1]]
        start = starts[number]
        return next(row for row in self.rows[start:] if row and row[0] == first)


def test_the_page_holds_everything_and_needs_nothing(make_report: MakeReport) -> None:
    html = render_report(make_report(["AAPL", "IBM"]))
    page = Page(html)
    assert page.words("h1") == (
        "No evidence that any model beats the zero forecast on these tickers."
    )
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == [
        *("evidence", "decisions", "equity", "paper", "test", "news", "data", "provenance")
    ]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 15
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(image["alt"] for image in images)
    assert "script" not in {tag for tag, _ in page.tags}
    outside = [
        v for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href")
    ]
    assert all(value.startswith(("data:", "#")) for value in outside)
    assert not re.search(r"url\(|@import|https?:", html)
    for sentence in ("The headlines are synthetic.", "The rule.", "3f9a5c"):
        assert sentence in page.words()
    assert "promises no profit" in page.words()
    assert "From the next open everything is in cash." in page.words()


@pytest.mark.usefixtures("undrawn")
def test_one_ticker_or_many_give_a_page(make_report: MakeReport) -> None:
    for tickers in (["AAPL"], [f"T{i:03d}" for i in range(24)]):
        page = Page(render_report(make_report(tickers)))
        shown = {row[0] for row in page.rows if row}
        assert shown >= {*tickers, "FB"}
        assert f"0 of {len(tickers)}" in page.words("td")


@pytest.mark.usefixtures("undrawn")
def test_figures_stand_where_they_belong(make_report: MakeReport) -> None:
    page = Page(render_report(make_report(["AAPL", "IBM"])))
    decision = page.row("AAPL", after="Ticker")
    assert decision[:4] == ["AAPL", "2012-03-23", "+0.12\u202f%", "−0.25"]
    assert decision[4].startswith("HOLD ")
    assert decision[5:] == ["○○○ none", "0.0\u202f%", "stay in cash"]
    assert page.row("FB") == ["FB", "too little history"]
    told = page.row("LSTM", after="Model")
    assert told == [
        *("LSTM", "○○○ none", "0.5", "0 of 2", "+0.012", "+0.4", "+0.031"),
        *("51.0\u202f% 48.0–54.0\u202f%", "−50.00\u202f%", "0.625", "+0.25", "37.5\u202f%", "0.2"),
    ]
    assert page.row("Zero", after="Model") == [
        *("Zero", "–", "–", "0 of 2", "–", "–", "–", "–", "−50.00\u202f%", "–", "+0.25", "–", "0.2")
    ]
    # mse 3e-4 beside the zero forecast's 2e-4.
    figures = page.row("LSTM", after="Model", number=1)
    assert figures == [
        *("LSTM", "1,234", "1.5000", "0.01000", "−50.00\u202f%", "51.0\u202f%"),
        *("48.0–54.0\u202f%", "+0.012", "−0.031", "+0.062", "+0.4", "–", "0.5", "○○○ none", "in"),
    ]
    # What was tried, and the chance of it, are a ticker's own.
    assert page.row("LSTM", after="AAPL")[-3:-1] == ["6", "0.75"]
    # A level is no log return: it has no squared error.
    assert page.row("Sentiment", after="Model", number=1)[2:5] == ["–", "–", "–"]
    assert page.row("Signals", after="Account") == [
        *("Signals", "+12.5\u202f%", "+12.5\u202f%", "12.5\u202f%", "+0.12", "+0.12"),
        *("12.5\u202f%", "12\u202f%", "12.5\u202f%", "12.50\u202f%", "0.1", "0"),
    ]
    assert ["Filled at the same close (optimistic)"] in page.rows
    assert page.row("raw_ohlcv") == ["raw_ohlcv", "AAPL", "low > high", "2"]
    assert page.row("Sentiment LSTM") == ["Sentiment LSTM", "500", "91.2\u202f%", "0.900"]


@pytest.mark.usefixtures("undrawn")
def test_models_stand_above_baselines(make_report: MakeReport) -> None:
    page = Page(render_report(make_report(["AAPL"])))
    start = next(i for i, row in enumerate(page.rows) if row[:1] == ["Model"])
    names = [row[0] for row in page.rows[start + 1 : start + 6]]
    assert names == ["LSTM", "GRU", "Sentiment", "Zero", "Persistence"]


def test_text_from_outside_is_escaped(make_report: MakeReport) -> None:
    attack = "<script>alert('x')</script><img src=x onerror=alert(1)>"
    report = make_report(["AAPL"])
    report = make_report(
        ["AAPL"],
        source=attack,
        headlines=report.headlines.assign(title=attack),
        decisions=report.decisions.assign(reason=attack, action=attack, label=attack, grade=attack),
        statuses=pd.DataFrame({"ticker": [attack], "status": [attack]}),
        quarantine=report.quarantine.assign(rule=attack, ticker=attack),
        notes=(attack,),
        provenance={attack: {attack: attack}},
        evidence_rule=attack,
        metrics=report.metrics.replace({"model": {"gru": attack}}),
        metrics_by_ticker=report.metrics_by_ticker.assign(ticker='"><script>'),
    )
    html = render_report(report)
    page = Page(html)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert attack in page.words("td")


def test_an_empty_report_says_so_everywhere() -> None:
    page = Page(render_report(Report(session=pd.Timestamp("2013-03-01"), source="yahoo")))
    assert page.words("h1") == "No forecast has been tested yet, so there is no evidence."
    assert "After the close of Friday, 1 March 2013 · source: yahoo" in page.words("span")
    for sentence in (
        *("No decisions for this session.", "No bars yet.", "No backtest yet.", "No folds yet."),
        *("No sentiment yet.", "No data yet.", "No row has been checked yet."),
    ):
        assert sentence in page.words("p")
    assert not [tag for tag, _ in page.tags if tag in ("img", "table")]


@pytest.mark.parametrize(
    "fields",
    [
        ("decisions", "metrics_by_fold", "confusion", "rolling_ic", "pooled_evidence"),
        ("statuses", "metrics", "fold_table", "costs"),
        ("metrics_by_ticker", "performance", "bars", "luck"),
        ("evidence", "history", "trading_signals", "alone"),
        ("headlines", "sentiment_metrics", "data", "mean_ic"),
        ("news_sentiment", "quarantine", "reliability", "calibration"),
        ("contributions", "paper", "missed_fills"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_any_frame_may_be_empty(make_report: MakeReport, fields: tuple[str, ...]) -> None:
    Page(render_report(make_report(["AAPL"], **dict.fromkeys(fields, pd.DataFrame()))))


@pytest.mark.usefixtures("undrawn")
def test_a_universe_too_young_for_any_forecast_has_a_report(make_report: MakeReport) -> None:
    """Frames without rows, some with the columns that a grading without rows gives them."""
    told = {
        name: getattr(make_report(["AAPL"]), name).iloc[:0]
        for name in ("metrics", "metrics_by_ticker", "evidence", "mean_ic", "luck")
    }
    without = dict.fromkeys(("alone", "pooled_evidence", "decisions"), pd.DataFrame())
    page = Page(render_report(make_report(["AAPL"], **told, **without)))
    assert page.words("h1") == "No forecast has been tested yet, so there is no evidence."


def test_a_missing_column_is_named(make_report: MakeReport) -> None:
    incomplete = pd.DataFrame({"ticker": ["AAPL"], "model": ["lstm"], "p_value": 1.0})
    incomplete = incomplete.assign(trials=1, sign_flip_rate=0.0)
    with pytest.raises(ValueError, match=r"report\.evidence lacks the columns \['grade'\]"):
        make_report(["AAPL"], evidence=incomplete)


@pytest.mark.usefixtures("undrawn")
def test_largest_positions_come_first_and_the_rest_is_folded(make_report: MakeReport) -> None:
    tickers = [f"T{i:03d}" for i in range(ROW_LIMIT + 5)]
    report = make_report(tickers)
    positions = [-0.25 if ticker == "T007" else 0.001 for ticker in tickers]
    page = Page(
        render_report(make_report(tickers, decisions=report.decisions.assign(position=positions)))
    )
    start = next(i for i, row in enumerate(page.rows) if row[:1] == ["Ticker"])
    assert page.rows[start + 1][0] == "T007"
    assert "5 more, with smaller positions" in page.words("summary")
    assert "Positions from the next open: 29.4\u202f% gross, −20.6\u202f% net." in page.words()


@pytest.mark.usefixtures("undrawn")
def test_why_a_signal_is_what_it_is_stands_source_by_source(make_report: MakeReport) -> None:
    page = Page(render_report(make_report(["AAPL"])))
    start = next(i for i, row in enumerate(page.rows) if row[:1] == ["Source"])
    heading, *rows = page.rows[start + 1 : start + 5]
    assert heading == ["AAPL: signal +0.12"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("LSTM", "+0.20\u202f% in 1 session", "+0.12"),
        ("LSTM, 5 sessions", "−1.00\u202f% in 5 sessions", "0.00"),
        ("Sentiment", "level +0.25", "0.00"),
    ]
    told = make_report(["AAPL"]).contributions.assign(abstains=True)
    page = Page(render_report(make_report(["AAPL"], contributions=told)))
    assert "AAPL: signal +0.12, prices abstain because the networks disagree" in page.words("th")


@pytest.mark.usefixtures("undrawn")
def test_the_paper_account_adds_up_from_the_backtests_promise(make_report: MakeReport) -> None:
    page = Page(render_report(make_report(["AAPL"])))
    shown = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert shown["The backtest promised"] == "+1.60\u202f%"
    assert shown["Orders that came too late, or met no bar or no volume"] == "−0.20\u202f%"
    assert shown["Fills worse than the open"] == "−0.20\u202f%"
    assert shown["The paper account earned"] == "+1.20\u202f%"
    assert any(row[1:] == ["AAPL", "+25.0\u202f%", "no volume"] for row in page.rows)


@pytest.mark.usefixtures("undrawn")
def test_the_same_report_gives_the_same_page(make_report: MakeReport) -> None:
    assert render_report(make_report(["AAPL"])) == render_report(make_report(["AAPL"]))
