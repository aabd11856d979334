import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.evidence.baselines import baseline_forecasts, sentiment_forecasts
from rnn_pipeline.evidence.layouts import FORECAST_COLUMNS
from rnn_pipeline.evidence.metrics import forecast_metrics


@pytest.fixture
def bars() -> pd.DataFrame:
    sessions = pd.bdate_range("2020-01-01", periods=5)
    prices = {"AAA": [100.0, 110.0, 99.0, 99.0, 120.0], "BBB": [50.0, 40.0, 44.0, 66.0, 33.0]}
    return pd.concat(
        [
            pd.DataFrame({"ticker": t, "session": sessions, "adj_close": p})
            for t, p in prices.items()
        ]
    )


@pytest.fixture
def forecasts(bars: pd.DataFrame) -> pd.DataFrame:
    rows = bars[bars["session"] >= "2020-01-03"].drop(columns="adj_close")
    rows = rows.assign(fold=0, horizon=1, forecast=0.001, actual=0.02, model_hash="x")
    rows["known_at"] = rows["session"].dt.tz_localize("UTC")
    models = [rows.assign(model=model, seed=seed) for model in ("gru", "lstm") for seed in (0, 1)]
    return pd.concat(models)[list(FORECAST_COLUMNS)]


def test_forecasts_worked_out_by_hand(bars: pd.DataFrame, forecasts: pd.DataFrame) -> None:
    table = baseline_forecasts(bars, forecasts)
    assert tuple(table.columns) == FORECAST_COLUMNS
    assert len(table) == 3 * 2 * 3
    assert set(table["seed"]) == {0}
    assert set(table["model_hash"]) == {"baseline"}
    persistence = table[table["model"] == "persistence"].set_index(["ticker", "session"])
    assert persistence.loc["AAA", "forecast"].tolist() == pytest.approx(
        [np.log(99 / 110), 0.0, np.log(120 / 99)]
    )
    assert persistence.loc["BBB", "forecast"].tolist() == pytest.approx(
        [np.log(1.1), np.log(1.5), np.log(0.5)]
    )
    reversal = table[table["model"] == "reversal"].set_index(["ticker", "session"])
    assert (reversal["forecast"] == -persistence["forecast"]).all()
    assert (table.loc[table["model"] == "zero", "forecast"] == 0).all()


def test_a_horizon_of_two_looks_two_sessions_back(bars, forecasts) -> None:
    table = baseline_forecasts(bars, forecasts.assign(horizon=2))
    persistence = table[(table["model"] == "persistence") & (table["ticker"] == "AAA")]
    expected = [np.log(99 / 100), np.log(99 / 110), np.log(120 / 99)]
    assert persistence["forecast"].tolist() == pytest.approx(expected)


def test_baselines_are_scored_on_the_networks_rows(bars, forecasts) -> None:
    both = pd.concat([forecasts, baseline_forecasts(bars, forecasts)])
    assert forecast_metrics(both)["n"].tolist() == [6] * 5


def test_later_bars_and_row_order_change_no_bit(bars, forecasts) -> None:
    table = baseline_forecasts(bars, forecasts)
    cut = pd.Timestamp("2020-01-06")
    scrambled = bars.assign(adj_close=bars["adj_close"].where(bars["session"] <= cut, 7.0))
    again = baseline_forecasts(scrambled.sample(frac=1, random_state=0), forecasts.iloc[::-1])
    early = table["session"] <= cut
    assert_frame_equal(again[early], table[early], check_exact=True)
    assert not again[~early].equals(table[~early])


def test_no_forecasts_no_baselines(bars, forecasts) -> None:
    assert baseline_forecasts(bars, forecasts.iloc[:0]).empty


def test_a_forecast_without_the_bars_behind_it_is_an_error(bars, forecasts) -> None:
    with pytest.raises(ValueError, match="past_return is nan for AAA on 2020-01-03"):
        baseline_forecasts(bars[bars["session"] >= "2020-01-03"], forecasts)
    with pytest.raises(ValueError, match="bars has more than one row for ticker=AAA"):
        baseline_forecasts(pd.concat([bars, bars.head(1)]), forecasts)


def test_sentiment_is_laid_out_as_a_model(forecasts) -> None:
    news = pd.DataFrame(
        {
            "ticker": "AAA",
            "session": pd.to_datetime(["2020-01-02", "2020-01-03", "2020-01-06"]).as_unit("s"),
            "sentiment": [0.9, -0.5, 0.25],
        }
    )
    table = sentiment_forecasts(news, forecasts)
    assert tuple(table.columns) == FORECAST_COLUMNS
    assert table["forecast"].tolist() == [-0.5, 0.25]
    assert set(table["model"]) == {"sentiment"}
    assert (table["actual"] == 0.02).all()
