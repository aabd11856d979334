import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.settings import TradingSpec
from rnn_pipeline.trading.fusion import fuse, percent, price_signals, sentiment_signals

SPEC = TradingSpec()


def test_price_signal_worked_out_by_hand(forecasts, evidence) -> None:
    first, second = price_signals(forecasts, evidence).itertuples(index=False)
    # gru: mean 0.02 of 2 * 0.04 is 0.25; lstm: mean -0.001 of 2 * 0.01 is -0.05.
    assert first.signal == pytest.approx((0.25 * 0.25 + 1.0 * -0.05) / 1.25)
    assert first.forecast == pytest.approx((0.02 - 0.001) / 2)
    assert first.dispersion == pytest.approx(np.std([0.010, 0.030, -0.002, 0.000]))
    assert (first.grade, first.weight) == ("strong", 1.0)
    assert first.reason == (
        "forecast +0.95 % (spread 1.27 % over 4 networks); evidence: gru weak, lstm strong"
    )
    # Twelve and fifty deviations are a full signal, not more.
    assert second.signal == pytest.approx((0.25 * 1 + 1.0 * -1) / 1.25)
    assert second.known_at == pd.Timestamp("2020-01-03 21:00", tz="UTC")


def test_without_evidence_the_plain_mean_weighs_nothing(forecasts, evidence) -> None:
    first = price_signals(forecasts, evidence.assign(grade="none")).iloc[0]
    assert first["signal"] == pytest.approx((0.25 - 0.05) / 2)
    assert (first["grade"], first["weight"]) == ("none", 0)


@pytest.mark.parametrize("std", [np.nan, 0.0])
def test_a_model_whose_spread_is_unknown_or_zero_says_nothing(forecasts, evidence, std) -> None:
    signals = price_signals(forecasts, evidence.assign(forecast_std=std))
    assert (signals["signal"] == 0).all()


def test_a_fold_without_evidence_rows_has_none(forecasts, evidence) -> None:
    signals = price_signals(forecasts.assign(fold=2), evidence)
    assert signals[["signal", "weight"]].eq(0).all(axis=None)
    assert (signals["grade"] == "none").all()


def test_two_horizons_cannot_be_averaged(forecasts, evidence) -> None:
    both = pd.concat([forecasts, forecasts.assign(horizon=5)])
    with pytest.raises(ValueError, match=r"horizons \[1, 5\]"):
        price_signals(both, evidence)


def test_evidence_that_stands_twice_is_an_error(forecasts, evidence) -> None:
    with pytest.raises(ValueError, match="evidence has more than one row for ticker=AAA"):
        price_signals(forecasts, pd.concat([evidence, evidence]))


def test_sentiment_signal_worked_out_by_hand(news, evidence) -> None:
    first, second = sentiment_signals(news, evidence).itertuples(index=False)
    assert (first.forecast, first.dispersion) == (0.25, 0.1)
    assert (first.signal, first.grade, first.weight) == (0.5, "moderate", 0.5)
    assert first.reason == "3 headlines, sentiment +0.25; evidence: moderate"
    assert (second.signal, second.reason) == (0.0, "no headlines; evidence: moderate")
    one = sentiment_signals(news.assign(news_count=1), evidence)["reason"][0]
    assert one == "1 headline, sentiment +0.25; evidence: moderate"


def test_sentiment_before_the_first_fold_has_no_signal(news, evidence) -> None:
    signals = sentiment_signals(news.assign(fold=[np.nan, 1.0]), evidence)
    assert signals["session"].tolist() == [pd.Timestamp("2020-01-03")]


def test_contributions_worked_out_by_hand(forecasts, evidence, news) -> None:
    price, sentiment = price_signals(forecasts, evidence), sentiment_signals(news, evidence)
    first, second = fuse(price, sentiment, SPEC).itertuples(index=False)
    assert first.price_contribution == pytest.approx(0.01)
    assert first.sentiment_contribution == pytest.approx(0.25)
    assert first.signal == pytest.approx(0.26)
    assert (first.label, first.grade) == ("BUY", "strong")
    assert (first.forecast, first.sentiment) == (price["forecast"][0], 0.25)
    assert first.reason == "price adds +0.01, sentiment adds +0.25 (strong evidence)"
    assert second.signal == pytest.approx(-0.6)
    assert second.label == "SELL"


def sources(price: tuple[float, float, str], sentiment: tuple[float, float, str]):
    def frame(signal: float, weight: float, grade: str, hour: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "ticker": ["AAA"],
                "session": pd.to_datetime(["2020-01-02"]),
                "forecast": [0.01],
                "dispersion": [0.0],
                "signal": [signal],
                "grade": [grade],
                "weight": [weight],
                "reason": [""],
                "known_at": [pd.Timestamp(f"2020-01-02 {hour}:00", tz="UTC")],
            }
        )

    return frame(*price, 20), frame(*sentiment, 21)


def test_a_full_signal_is_shared_out_so_that_contributions_add_up() -> None:
    row = fuse(*sources((1.0, 1.0, "strong"), (1.0, 0.5, "moderate")), SPEC).iloc[0]
    assert row["signal"] == pytest.approx(1.0)
    assert row["price_contribution"] == pytest.approx(2 / 3)
    assert row["sentiment_contribution"] == pytest.approx(1 / 3)
    assert row["known_at"] == pd.Timestamp("2020-01-02 21:00", tz="UTC")


@pytest.mark.parametrize(
    ("price", "sentiment", "grade", "label"),
    [
        ((-0.9, 0.0, "none"), (0.9, 0.25, "weak"), "weak", "BUY"),
        ((-0.9, 0.0, "none"), (0.9, 0.0, "none"), "none", "HOLD"),
        ((0.0, 1.0, "strong"), (-0.8, 0.25, "weak"), "weak", "HOLD"),
        ((0.0, 1.0, "strong"), (-0.9, 0.25, "weak"), "weak", "SELL"),
        ((0.5, 0.5, "moderate"), (0.5, 0.25, "weak"), "moderate", "BUY"),
    ],
)
def test_grade_of_the_better_source_that_contributes(price, sentiment, grade, label) -> None:
    row = fuse(*sources(price, sentiment), SPEC).iloc[0]
    assert (row["grade"], row["label"]) == (grade, label)
    if grade == "none":
        assert row["signal"] == 0
        assert not np.signbit(row["price_contribution"])
        assert row["reason"] == "neither price nor sentiment has shown evidence here"


def test_labels_at_their_thresholds() -> None:
    # 0.2 itself is not above 0.2.
    for signal, label in ((0.2, "HOLD"), (0.21, "BUY"), (-0.2, "HOLD"), (-0.21, "SELL")):
        row = fuse(*sources((signal, 1.0, "strong"), (0.0, 0.0, "none")), SPEC).iloc[0]
        assert row["label"] == label


def test_a_session_without_sentiment_stands_on_price(forecasts, evidence, news) -> None:
    price = price_signals(forecasts, evidence)
    for missing in (news.iloc[:0], news.assign(ticker="BBB")):
        row = fuse(price, sentiment_signals(missing, evidence), SPEC).iloc[1]
        assert (row["sentiment"], row["sentiment_contribution"]) == (0, 0)
        assert row["signal"] == row["price_contribution"] == price["signal"][1]
        assert row["known_at"] == price["known_at"][1]


def test_order_unit_and_other_rows_change_no_bit(forecasts, evidence, news) -> None:
    rng = np.random.default_rng(5)
    tickers = [f"T{number}" for number in range(5)]
    first = forecasts[forecasts["seed"] == 0]
    forecasts = pd.concat([first.assign(ticker=t, seed=seed) for t in tickers for seed in range(9)])
    # Magnitudes far apart, so that sums taken in another order would round otherwise.
    forecasts["forecast"] = rng.normal(0, 10 ** rng.uniform(-9, 0, len(forecasts)))
    evidence = pd.concat([evidence.assign(ticker=ticker) for ticker in tickers])
    news = pd.concat([news.assign(ticker=ticker) for ticker in tickers])
    news["sentiment"] = rng.uniform(-1, 1, len(news))

    def run(forecasts, evidence, news) -> pd.DataFrame:
        return fuse(price_signals(forecasts, evidence), sentiment_signals(news, evidence), SPEC)

    whole = run(forecasts, evidence, news)
    assert whole.equals(whole.sort_values(["ticker", "session"]))
    shuffled = run(
        forecasts.sample(frac=1, random_state=0),
        evidence.sample(frac=1, random_state=1),
        news.sample(frac=1, random_state=2).astype({"session": "datetime64[s]"}),
    )
    assert_frame_equal(shuffled, whole, check_exact=True)
    assert_frame_equal(
        price_signals(forecasts.sample(frac=1, random_state=0), evidence),
        price_signals(forecasts, evidence),
        check_exact=True,
    )
    last = whole["session"] == whole["session"].max()
    alone = run(forecasts[forecasts["session"] == whole["session"].max()], evidence, news)
    assert_frame_equal(alone, whole[last].reset_index(drop=True), check_exact=True)


def test_nothing_in_nothing_out(forecasts, evidence, news) -> None:
    price = price_signals(forecasts.iloc[:0], evidence.iloc[:0])
    signals = fuse(price, sentiment_signals(news.iloc[:0], evidence.iloc[:0]), SPEC)
    assert signals.empty
    full = fuse(price_signals(forecasts, evidence), sentiment_signals(news, evidence), SPEC)
    assert signals.dtypes.equals(full.dtypes)


def test_percent_has_no_negative_zero() -> None:
    assert percent(-0.00001) == "+0.00 %"
    assert percent(-0.125, 1) == "-12.5 %"
