import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.evidence import baselines
from rnn_pipeline.evidence.baselines import (
    BASELINES,
    rule_forecasts,
    sentiment_forecasts,
    walk_forward_baselines,
)
from rnn_pipeline.evidence.layouts import FORECAST_COLUMNS
from rnn_pipeline.features.folds import walk_forward
from rnn_pipeline.features.price import targets as targets_of
from rnn_pipeline.features.windows import ModelMatrix, fold_datasets, window_index
from rnn_pipeline.settings import FoldSpec

SESSIONS = pd.bdate_range("2020-01-01", periods=5)
PRICES = {"AAA": [100.0, 110.0, 99.0, 99.0, 120.0], "BBB": [50.0, 40.0, 44.0, 66.0, 33.0]}


def past_returns(horizon: int = 1) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "ticker": ticker,
                "session": SESSIONS[:-horizon],
                "target": np.log(np.array(prices[horizon:]) / prices[:-horizon]),
                "target_session": SESSIONS[horizon:],
            }
        )
        for ticker, prices in PRICES.items()
    ]
    return pd.concat(frames, ignore_index=True)


def rows(ticker: str, first: int = 2) -> pd.DataFrame:
    return pd.DataFrame({"ticker": ticker, "session": SESSIONS[first:]})


def test_rules_worked_out_by_hand() -> None:
    made = rule_forecasts(past_returns(), rows("AAA"), lookback=2)
    past = [np.log(99 / 110), 0.0, np.log(120 / 99)]
    assert made["persistence"].tolist() == pytest.approx(past)
    assert (made["reversal"] == -made["persistence"]).all()
    assert (made["zero"] == 0).all()
    # The mean of the last two returns is half the return over two sessions.
    assert made["momentum"].tolist() == pytest.approx(
        [np.log(99 / 100) / 2, np.log(99 / 110) / 2, np.log(120 / 99) / 2]
    )


def test_a_horizon_of_two_looks_two_sessions_back() -> None:
    made = rule_forecasts(past_returns(2), rows("BBB"), lookback=2)
    known = [np.log(44 / 50), np.log(66 / 40), np.log(33 / 44)]
    assert made["persistence"].tolist() == pytest.approx(known)
    means = [known[0], (known[0] + known[1]) / 2, (known[1] + known[2]) / 2]
    assert made["momentum"].tolist() == pytest.approx(means)


def test_a_row_without_a_known_return_is_an_error() -> None:
    with pytest.raises(ValueError, match="target is nan for AAA on 2020-01-01"):
        rule_forecasts(past_returns(), rows("AAA", first=0), lookback=2)
    with pytest.raises(ValueError, match="targets has more than one row for ticker=AAA"):
        rule_forecasts(pd.concat([past_returns(), past_returns().head(1)]), rows("AAA"), 2)


def test_a_bar_that_arrived_late_does_not_change_the_return_that_was_known() -> None:
    known = past_returns()
    late = known.iloc[[1]].assign(session=SESSIONS[1] + pd.Timedelta(hours=1), target=9.0)
    made = rule_forecasts(pd.concat([late, known]), rows("AAA"), lookback=2)
    assert made["persistence"][0] == known["target"][1]


# A market that repeats itself a little: folds of 80 sessions to train on, 20 to stop, 20 to test.

FOLDS = FoldSpec(mode="rolling", train_size=80, val_size=20, test_size=20)
AXIS = pd.bdate_range("2010-01-04", periods=150)
COLUMNS = ("past_return", "noise")


def market(tickers: tuple[str, ...] = ("AAA", "BBB")) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features and targets of r_t = 0.5 r_(t-1) + noise."""
    features, targets = [], []
    for ticker in tickers:
        rng = np.random.default_rng(ord(ticker[0]))
        returns = np.zeros(len(AXIS))
        for day in range(1, len(AXIS)):
            returns[day] = 0.5 * returns[day - 1] + rng.normal(0, 0.01)
        noise = rng.standard_normal(len(AXIS))
        known_at = AXIS.tz_localize("UTC") + pd.Timedelta(hours=21)
        own = pd.DataFrame({"ticker": ticker, "session": AXIS, "known_at": known_at})
        features.append(own.assign(past_return=returns, noise=noise))
        bars = own.assign(era=0, in_era=True, adj_close=np.exp(np.cumsum(returns)))
        targets.append(targets_of(bars.assign(close=bars["adj_close"]), 1))
    return pd.concat(features, ignore_index=True), pd.concat(targets, ignore_index=True)


def forecast(
    features: pd.DataFrame, targets: pd.DataFrame, known: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, int]:
    matrix = ModelMatrix.build(features, COLUMNS)
    index = window_index(matrix, targets, AXIS, lookback=4)
    folds = walk_forward(int(AXIS.searchsorted(features["session"].max())) + 1, FOLDS, 1)
    return walk_forward_baselines(fold_datasets(matrix, index, folds), targets, known)


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return forecast(*market())[0]


def test_every_baseline_forecasts_every_test_session_once(whole: pd.DataFrame) -> None:
    assert set(whole["model"]) == set(BASELINES)
    tested = AXIS[100:]
    for _, own in whole.groupby(["ticker", "model"]):
        assert own["session"].tolist() == tested.tolist()
    assert not whole.isna().any(axis=None)


def test_the_fitted_ones_see_what_can_be_seen(whole: pd.DataFrame) -> None:
    _, targets = market()
    scored = whole.merge(targets, on=["ticker", "session"]).dropna()
    spearman = {
        model: own["forecast"].corr(own["target"], method="spearman")
        for model, own in scored[scored["model"] != "zero"].groupby("model")
    }
    assert min(spearman[name] for name in ("persistence", "ridge", "logistic")) > 0.1
    assert spearman["reversal"] == pytest.approx(-spearman["persistence"])


@pytest.mark.parametrize("future", ["scrambled", "truncated"])
def test_what_comes_after_a_session_changes_no_bit_of_its_forecasts(
    whole: pd.DataFrame, future: str
) -> None:
    features, targets = market()
    cut = AXIS[128]
    later = features["session"] > cut
    if future == "scrambled":
        values = np.random.default_rng(1).standard_normal((later.sum(), 2))
        features.loc[later, list(COLUMNS)] = values
        unknown = targets["target_session"] > cut
        targets["target"] = targets["target"].mask(unknown, 0.3)
    else:
        features = features[~later]
        targets = targets[targets["target_session"] <= cut]
    again, _ = forecast(features, targets)
    early = whole["session"] <= cut
    assert_frame_equal(
        again[again["session"] <= cut].reset_index(drop=True),
        whole[early].reset_index(drop=True),
        check_exact=True,
    )
    assert not again[again["session"] > cut].equals(whole[~early])


def test_order_and_company_change_no_bit(whole: pd.DataFrame) -> None:
    features, targets = market(("CCC", "BBB"))
    again, _ = forecast(
        features.sample(frac=1, random_state=0), targets.sample(frac=1, random_state=1)
    )
    assert_frame_equal(
        again[again["ticker"] == "BBB"].reset_index(drop=True),
        whole[whole["ticker"] == "BBB"].reset_index(drop=True),
        check_exact=True,
    )


def test_only_what_changed_is_fitted_again(
    whole: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, targets = market()
    short = features[features["session"] <= AXIS[144]]
    known, fitted = forecast(short, targets[targets["target_session"] <= AXIS[144]])
    assert fitted == 6
    # Five more sessions: the last fold of both tickers tests more, and its old rows stay.
    longer, fitted = forecast(features, targets, known)
    assert fitted == 2
    assert_frame_equal(longer, whole, check_exact=True)
    assert forecast(features, targets, whole)[1] == 0
    # A correction in the second fold's training span, and one that only a test window sees.
    for place, folds in ((98, 3), (122, 2), (145, 1)):
        corrected = features.copy()
        row = (features["ticker"] == "AAA") & (features["session"] == AXIS[place])
        corrected.loc[row, "noise"] = 9.0
        again, fitted = forecast(corrected, targets, whole)
        assert fitted == folds
        assert_frame_equal(again, forecast(corrected, targets)[0], check_exact=True)
    monkeypatch.setattr(baselines, "recipe", lambda data: "other code")
    assert forecast(features, targets, whole)[1] == 6


def test_a_ticker_that_ends_before_the_test_span_has_none(whole: pd.DataFrame) -> None:
    """Its last bar is in the validation span of fold 1: networks may learn from it there."""
    bars, targets = market()
    first = whole.loc[(whole["ticker"] == "BBB") & (whole["fold"] == 1), "session"].min()
    alive = (bars["ticker"] == "AAA") | (bars["session"] < first)
    frame, _ = forecast(bars[alive], targets[alive])
    folds = frame.groupby("ticker")["fold"].unique()
    assert folds["BBB"].tolist() == [0]
    assert 1 in folds["AAA"]


def test_without_datasets_there_is_nothing(whole: pd.DataFrame) -> None:
    features, targets = market()
    frame, fitted = walk_forward_baselines([], targets)
    assert fitted == 0
    assert list(frame.columns) == list(whole.columns)
    assert frame.merge(features, on=["ticker", "session"]).empty


def test_sentiment_is_laid_out_as_a_model() -> None:
    networks = pd.concat(
        rows("AAA").assign(
            fold=0, horizon=1, forecast=0.001, actual=0.02, model_hash="x", model=model, seed=seed
        )
        for model in ("gru", "lstm")
        for seed in (0, 1)
    )
    networks["known_at"] = networks["session"].dt.tz_localize("UTC")
    news = pd.DataFrame(
        {
            "ticker": "AAA",
            "session": pd.to_datetime(["2020-01-02", "2020-01-03", "2020-01-06"]).as_unit("s"),
            "sentiment": [0.9, -0.5, 0.25],
        }
    )
    table = sentiment_forecasts(news, networks)
    assert tuple(table.columns) == FORECAST_COLUMNS
    assert table["forecast"].tolist() == [-0.5, 0.25]
    assert set(table["model"]) == {"sentiment"}
