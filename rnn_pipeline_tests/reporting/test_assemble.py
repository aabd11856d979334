"""From stored frames to the report: the right rows are scored, the right accounts are run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.evidence_table import figures, markdown
from rnn_pipeline.evidence.backtest import backtest, buy_and_hold, sign_positions
from rnn_pipeline.evidence.metrics import forecast_metrics
from rnn_pipeline.reporting.assemble import assemble, forecast_page
from rnn_pipeline.reporting.html import render_report
from rnn_pipeline.reporting.report import Report
from rnn_pipeline.settings import load_settings

AXIS = pd.bdate_range("2011-01-03", periods=330)
TICKERS = ("AAA", "BBB")
SETTINGS = load_settings()
SPANS = pd.DataFrame(
    [(0, "train", AXIS[0], AXIS[19]), (0, "test", AXIS[20], AXIS[329])],
    columns=["fold", "role", "first_session", "last_session"],
)


def bars() -> pd.DataFrame:
    frames = []
    for seed, ticker in enumerate(TICKERS):
        rng = np.random.default_rng(seed)
        close = 50 * np.exp(np.cumsum(rng.normal(0.0005, 0.01, len(AXIS))))
        frames.append(
            pd.DataFrame(
                {
                    "ticker": ticker,
                    "session": AXIS,
                    "open": close * 1.001,
                    "close": close,
                    "adj_close": close,
                    "volume": 1e6,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def forecasts(models: tuple[str, ...], seeds: tuple[int, ...], sessions: slice) -> pd.DataFrame:
    rng = np.random.default_rng(len(models))
    index = pd.MultiIndex.from_product(
        [TICKERS, AXIS[sessions], models, seeds], names=["ticker", "session", "model", "seed"]
    )
    frame = index.to_frame(index=False)
    truth = np.random.default_rng(9).normal(0, 0.01, (len(TICKERS), len(AXIS)))
    place = frame["ticker"].map(TICKERS.index), AXIS.get_indexer(frame["session"])
    return frame.assign(
        fold=0,
        horizon=1,
        forecast=np.where(frame["model"] == "zero", 0.0, rng.normal(0, 0.002, len(frame))),
        actual=truth[place],
        known_at=frame["session"].dt.tz_localize("UTC"),
        model_hash="x",
    )


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    decisions = forecasts(("lstm",), (0,), slice(20, 330))[["ticker", "session"]]
    gru = forecasts(("gru",), (0, 1), slice(20, 330)).drop(columns="forecast")
    targets = bars()[["ticker", "session"]]
    return {
        "quantiles": gru.assign(level=0.9, quantile=0.01),
        "targets": targets.assign(horizon=1, target=np.resize([0.01, 0.02, -0.01], len(targets))),
        "bars": bars(),
        "forecasts": forecasts(("lstm", "gru"), (0, 1), slice(20, 330)),
        "baselines": forecasts(("zero", "ridge"), (0,), slice(20, 325)),
        "decisions": decisions.assign(
            forecast=0.0, sentiment=0.0, signal=0.0, label="HOLD", grade="none", action="",
            reason="", position=np.resize([0.2, 0.2, 0.0], len(decisions)),
        ),
        "sentiment": decisions.assign(
            sentiment=np.resize([0.0, 0.5, -0.5], len(decisions)),
            sentiment_mean_5=0.0,
            news_count=1,
        ),
    }  # fmt: skip


def report(frames: dict[str, pd.DataFrame], **changes: pd.DataFrame) -> Report:
    empty = pd.DataFrame()
    asked = {
        "bars": frames["bars"],
        "forecasts": frames["forecasts"],
        "quantiles": frames["quantiles"],
        "targets": frames["targets"],
        "baselines": frames["baselines"],
        "decisions": frames["decisions"],
        "news_sentiment": frames["sentiment"],
        "trials": empty,
        "headlines": pd.DataFrame({"ticker": [], "published_at": [], "title": [], "score": []}),
        "trading_signals": empty,
        "contributions": empty.reindex(columns=["session"]),
        "paper": empty,
        "fills": empty.reindex(columns=["missed"]),
        "statuses": empty,
        "fold_table": SPANS,
        "history": empty,
        "quarantine": empty,
        "sentiment_metrics": empty,
        "confusion": empty,
    }
    return assemble(SETTINGS, **(asked | changes), lineage={})


@pytest.fixture(scope="module")
def whole(frames: dict[str, pd.DataFrame]) -> Report:
    return report(frames)


def test_everyone_is_scored_on_the_rows_that_baselines_have_too(
    whole: Report, frames: dict[str, pd.DataFrame]
) -> None:
    n = whole.metrics.set_index("model")["n"]
    assert n.to_dict() == dict.fromkeys(["gru", "lstm", "sentiment", "zero", "ridge"], 610)
    shared = frames["forecasts"][frames["forecasts"]["session"] <= AXIS[324]]
    own = forecast_metrics(shared).set_index("model")
    ic = whole.metrics.set_index("model")["ic"]
    assert ic[["gru", "lstm"]].to_dict() == own["ic"].to_dict()
    # Without baselines, as in a warehouse that has none yet, every forecast counts.
    alone = report(frames, baselines=frames["baselines"].iloc[:0])
    assert set(alone.metrics["n"]) == {620}


def test_quantiles_are_held_against_the_same_rows_and_their_training_rows(whole: Report) -> None:
    (line,) = whole.calibration.to_dict("records")
    assert (line["model"], line["level"], line["n"]) == ("gru", 0.9, 610)
    shown = whole.metrics.set_index("model").loc["gru", "n"]
    assert shown == 610
    assert 0 < line["low"] < line["coverage"] < line["high"] < 1
    # The training rows' own 90 % quantile is twice what the network says.
    assert line["unconditional"] > line["pinball"]
    assert line["skill"] == 1 - line["pinball"] / line["unconditional"]


def test_baselines_are_not_graded_and_trials_are_those_of_the_networks(whole: Report) -> None:
    assert set(whole.evidence["model"]) == {"lstm", "gru", "sentiment"}
    assert set(whole.pooled_evidence["model"]) == {"lstm", "gru", "sentiment"}
    # Two networks of two seeds, and the sentiment level.
    assert set(whole.evidence["trials"]) == {5}


def test_accounts_are_those_of_the_decisions_and_of_every_forecast_alone(
    whole: Report, frames: dict[str, pd.DataFrame]
) -> None:
    performance = whole.performance.set_index(["name", "fill"])
    traded = backtest(frames["decisions"], frames["bars"], SETTINGS.backtest).summary()
    assert performance.loc[("strategy", "open"), list(traded)].to_dict() == traded
    held = buy_and_hold(frames["decisions"], frames["bars"], SETTINGS.backtest, "close").summary()
    optimistic = performance.loc[("buy_and_hold", "close"), list(held)].to_dict()
    assert optimistic == pytest.approx(held)
    # A position of 0.2 is bought whole: a million shares at about 50 a session, one per cent.
    assert 1e6 < performance.loc[("strategy", "open"), "capacity"] < 4e6
    assert performance["capacity"].notna().sum() == 1
    ridge = frames["baselines"][frames["baselines"]["model"] == "ridge"]
    alone = backtest(sign_positions(ridge), frames["bars"], SETTINGS.backtest).summary()
    assert whole.alone.set_index("model").loc["ridge"].to_dict() == pytest.approx(alone)
    assert list(whole.equity) == [
        *("strategy", "buy_and_hold", "equal_weight", "cash", "lstm", "gru")
    ]
    assert set(whole.costs["name"]) == set(whole.equity) - {"cash"}


def test_luck_and_calibration_are_about_the_same_rows(whole: Report) -> None:
    assert set(whole.luck["model"]) == {"lstm", "gru", "zero", "ridge"}
    assert 0 <= whole.overfitting <= 1
    assert whole.reliability.groupby("model")["n"].sum()["lstm"] == 610
    assert whole.rolling_ic["session"].max() <= AXIS[324]


def test_nothing_forecast_and_nothing_decided_is_a_report_too(
    frames: dict[str, pd.DataFrame],
) -> None:
    found = report(
        frames, **{name: frames[name].iloc[:0] for name in ("forecasts", "baselines", "decisions")}
    )
    assert found.metrics.empty
    assert found.performance.empty
    assert not found.equity
    # Frames without rows are of no type: nothing may be joined to them.
    page = render_report(found)
    assert "No forecast has been tested yet." in page


def test_the_benchmark_lays_out_what_the_report_says(whole: Report) -> None:
    found = figures(whole)
    lines = {line["model"]: line for line in found["models"]}
    assert set(lines) == {"lstm", "gru", "sentiment", "zero", "ridge"}
    assert lines["lstm"]["ic"] == pytest.approx(
        whole.metrics.set_index("model").loc["lstm", "ic"], abs=1e-5
    )
    assert sum(lines["lstm"]["tickers_graded"].values()) == len(TICKERS)
    assert "tickers_graded" not in lines["ridge"]
    # A level is no log return.
    assert lines["sentiment"]["r2_vs_zero"] is None
    assert found["test"] == [f"{AXIS[20]:%Y-%m-%d}", f"{AXIS[329]:%Y-%m-%d}"]
    accounts = [line["name"] for line in found["accounts"]]
    assert accounts == ["strategy", "buy_and_hold", "equal_weight", "cash"]
    page = markdown({"variants": {"with headlines": found}})
    assert page.startswith("## with headlines")
    assert "| lstm | 0 | none |" in page


def test_the_page_of_the_forecasts_takes_networks_without_quantiles(
    whole: Report, frames: dict[str, pd.DataFrame]
) -> None:
    both = [("network", frames["forecasts"]), ("baseline", frames["baselines"])]
    rows = pd.concat([own.assign(kind=kind) for kind, own in both], ignore_index=True)
    told = whole.evidence, frames["targets"], SPANS, 252
    page = forecast_page(rows, frames["quantiles"], *told)
    assert set(page["metrics"]["model"]) == {"lstm", "gru", "zero", "ridge"}
    assert page["calibration"]["model"].tolist() == ["gru"]
    assert page["quantile_coverage"].axes
    without = forecast_page(rows, frames["quantiles"].iloc[:0], *told)
    assert without["calibration"].empty
    assert not without["quantile_coverage"].axes
    pd.testing.assert_frame_equal(without["metrics"], page["metrics"])
