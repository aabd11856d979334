from collections.abc import Collection

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rnn_pipeline.settings import POLICIES, TradingSpec
from rnn_pipeline.trading.fusion import (
    CONTRIBUTION_COLUMNS,
    GRADE_WEIGHT,
    PRICE_SIGNAL_COLUMNS,
    SENTIMENT_SIGNAL_COLUMNS,
    TRADING_SIGNAL_COLUMNS,
    contributions,
    fuse,
    percent,
    price_signals,
    price_sources,
    sentiment_signals,
    sentiment_sources,
)
from rnn_pipeline.trading.policies import load_policy

SPEC = TradingSpec(min_agreement=0.0)


def no_history(tickers: Collection[str]) -> pd.DataFrame:
    raise AssertionError("this policy does not learn")


def fused(forecasts, evidence, news, spec=SPEC, history=no_history):
    """The signals and what each source adds to them."""
    price, sentiment = price_signals(forecasts, evidence, 1), sentiment_signals(news, evidence)
    sources = pd.concat([price_sources(forecasts, evidence, 1), sentiment_sources(news, evidence)])
    added = contributions(price, sources, spec, history)
    return fuse(price, sentiment, added, spec), added


def test_price_signal_worked_out_by_hand(forecasts, evidence) -> None:
    first, second = price_signals(forecasts, evidence, 1).itertuples(index=False)
    # gru: mean 0.02 of 2 * 0.04 is 0.25; lstm: mean -0.001 of 2 * 0.01 is -0.05.
    assert first.signal == pytest.approx((0.25 * 0.25 + 1.0 * -0.05) / 1.25)
    assert first.forecast == pytest.approx((0.02 - 0.001) / 2)
    assert first.dispersion == pytest.approx(np.std([0.010, 0.030, -0.002, 0.000]))
    # 0.000 takes no side.
    assert (first.agreement, first.networks) == (0.5, 4)
    assert (first.grade, first.weight) == ("strong", 1.0)
    assert first.reason == (
        "forecast +0.95 % (spread 1.27 % over 4 networks, 50 % on its side); evidence: gru weak,"
        " lstm strong"
    )
    # Twelve and fifty deviations are a full signal, not more.
    assert second.signal == pytest.approx((0.25 * 1 + 1.0 * -1) / 1.25)
    assert second.known_at == pd.Timestamp("2020-01-03 21:00", tz="UTC")


def test_without_evidence_the_plain_mean_weighs_nothing(forecasts, evidence) -> None:
    first = price_signals(forecasts, evidence.assign(grade="none"), 1).iloc[0]
    assert first["signal"] == pytest.approx((0.25 - 0.05) / 2)
    assert (first["grade"], first["weight"]) == ("none", 0)


@pytest.mark.parametrize("std", [np.nan, 0.0])
def test_a_model_whose_spread_is_unknown_or_zero_says_nothing(forecasts, evidence, std) -> None:
    signals = price_signals(forecasts, evidence.assign(forecast_std=std), 1)
    assert (signals["signal"] == 0).all()


def test_a_fold_without_evidence_rows_has_none(forecasts, evidence) -> None:
    signals = price_signals(forecasts.assign(fold=2), evidence, 1)
    assert signals[["signal", "weight"]].eq(0).all(axis=None)
    assert (signals["grade"] == "none").all()


def test_one_model_of_two_horizons_is_refused(forecasts, evidence) -> None:
    both = pd.concat([forecasts, forecasts.assign(horizon=5)])
    with pytest.raises(ValueError, match=r"'gru' have the horizons \[1, 5\]"):
        price_signals(both, evidence, 1)


@pytest.fixture
def two_horizons(forecasts) -> pd.DataFrame:
    """The forecasts of a session, and those of gru over five."""
    further = forecasts[forecasts["model"] == "gru"]
    return pd.concat([forecasts, further.assign(model="gru_h5", horizon=5)], ignore_index=True)


def test_a_forecast_over_five_sessions_is_expected_a_fifth_at_a_time(
    two_horizons, evidence, news
) -> None:
    graded = evidence[evidence["model"] == "lstm"].replace({"lstm": "gru_h5"})
    signals, added = fused(two_horizons, graded, news)
    first = added[added["session"] == added["session"].min()].set_index("source")
    # It is the only one with evidence. What it said stays as it was said ...
    assert first["horizon"].to_dict() == {"gru": 1, "gru_h5": 5, "lstm": 1, "sentiment": 0}
    assert first.loc["gru_h5", "forecast"] == pytest.approx(0.02)
    # ... and is measured by its own earlier forecasts over five sessions: two deviations of 0.01.
    assert first.loc["gru_h5", ["standardised", "weight"]].tolist() == [1.0, 1.0]
    assert first["contribution"].drop("sentiment").to_dict() == {"gru": 0, "gru_h5": 1, "lstm": 0}
    # As a return it stands beside the others over one session.
    assert signals["forecast"][0] == pytest.approx(0.02 / 5)
    assert signals["dispersion"][0] == pytest.approx(0.01 / 5)


def test_without_evidence_a_horizon_weighs_nothing(two_horizons, forecasts, evidence, news) -> None:
    signals, added = fused(two_horizons, evidence, news)
    assert (added.loc[added["source"] == "gru_h5", "contribution"] == 0).all()
    alone, _ = fused(forecasts, evidence, news)
    pd.testing.assert_frame_equal(signals, alone, check_exact=True)


def test_threshold_asks_for_the_return_over_the_shortest_horizon(
    two_horizons, evidence, news
) -> None:
    only = two_horizons[two_horizons["horizon"] == 5]
    for horizon, label in ((1, "HOLD"), (5, "BUY")):
        spec = TradingSpec(policy="threshold", min_agreement=0.0)
        price = price_signals(only, evidence, horizon)
        sources = pd.concat(
            [price_sources(only, evidence, horizon), sentiment_sources(news, evidence)]
        )
        added = contributions(price, sources, spec, no_history)
        found = fuse(price, sentiment_signals(news, evidence), added, spec)
        # 2 % over five sessions: 0.4 % of it is less than the 0.5 % that it takes.
        assert found["label"][0] == label


def test_evidence_that_stands_twice_is_an_error(forecasts, evidence) -> None:
    with pytest.raises(ValueError, match="evidence has more than one row for ticker=AAA"):
        price_signals(forecasts, pd.concat([evidence, evidence]), 1)


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


def test_only_models_with_evidence_have_a_say_where_any_has(forecasts, evidence) -> None:
    graded = evidence.assign(grade=["weak", "none", "none"])
    first = price_signals(forecasts, graded, 1).iloc[0]
    assert first["forecast"] == pytest.approx(0.02)
    assert first["dispersion"] == pytest.approx(0.01)
    assert (first["agreement"], first["networks"]) == (1.0, 2)
    assert first["signal"] == pytest.approx(0.25)


def test_contributions_worked_out_by_hand(forecasts, evidence, news) -> None:
    signals, added = fused(forecasts, evidence, news)
    assert tuple(signals.columns) == TRADING_SIGNAL_COLUMNS
    assert tuple(added.columns) == CONTRIBUTION_COLUMNS
    first, second = signals.itertuples(index=False)
    # gru says 0.25 with a fifth of a full weight, lstm -0.05 with four, sentiment 0.5 with a half.
    of_first = added[added["session"] == first.session].set_index("source")
    assert of_first["standardised"].to_dict() == pytest.approx(
        {"gru": 0.25, "lstm": -0.05, "sentiment": 0.5}
    )
    assert of_first["weight"].to_dict() == pytest.approx(
        {"gru": 0.2, "lstm": 0.8, "sentiment": 0.5}
    )
    assert of_first["contribution"].to_dict() == pytest.approx(
        {"gru": 0.05, "lstm": -0.04, "sentiment": 0.25}
    )
    assert of_first["networks"].to_dict() == {"gru": 2, "lstm": 2, "sentiment": 1}
    assert of_first["horizon"].to_dict() == {"gru": 1, "lstm": 1, "sentiment": 0}
    assert first.price_contribution == pytest.approx(0.01)
    assert first.sentiment_contribution == pytest.approx(0.25)
    assert first.signal == pytest.approx(0.26)
    assert (first.label, first.grade, first.policy) == ("BUY", "strong", "evidence")
    assert (first.forecast, first.sentiment) == (pytest.approx(0.0095), 0.25)
    assert first.reason == "price adds +0.01, sentiment adds +0.25 (strong evidence)"
    assert second.signal == pytest.approx(-0.6)
    assert second.label == "SELL"


def single(price: tuple[float, float, str], sentiment: tuple[float, float, str], spec=SPEC):
    """One session of one model and sentiment: (signal, weight of its grade, grade) of each."""
    key = pd.DataFrame({"ticker": ["AAA"], "session": pd.to_datetime(["2020-01-02"])})

    def moment(hour: int) -> pd.Timestamp:
        return pd.Timestamp(f"2020-01-02 {hour}:00", tz="UTC")

    def signal(columns, values: tuple[float, float, str], hour: int) -> pd.DataFrame:
        told = {"forecast": 0.01, "dispersion": 0.0, "agreement": 1.0, "networks": 1, "reason": ""}
        said, weight, grade = values
        told |= {"signal": said, "weight": weight, "grade": grade, "known_at": moment(hour)}
        return key.assign(**told)[list(columns)]

    sources = pd.concat(
        [
            key.assign(
                source=source, horizon=1, fold=1, networks=1, forecast=0.01, dispersion=0.0,
                expected=0.01, forecast_std=0.01, standardised=said, grade=grade,
                evidence_weight=weight, known_at=moment(20),
            )
            for source, (said, weight, grade) in (("lstm", price), ("sentiment", sentiment))
        ]
    )  # fmt: skip
    prices = signal(PRICE_SIGNAL_COLUMNS, price, 20)
    added = contributions(prices, sources, spec, no_history)
    return fuse(prices, signal(SENTIMENT_SIGNAL_COLUMNS, sentiment, 21), added, spec).iloc[0]


def test_a_full_signal_is_shared_out_so_that_contributions_add_up() -> None:
    row = single((1.0, 1.0, "strong"), (1.0, 0.5, "moderate"))
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
    row = single(price, sentiment)
    assert (row["grade"], row["label"]) == (grade, label)
    if grade == "none":
        assert row["signal"] == 0
        assert not np.signbit(row["price_contribution"])
        assert row["reason"] == "neither price nor sentiment has shown evidence here"


def test_labels_at_their_thresholds() -> None:
    # 0.2 itself is not above 0.2.
    for signal, label in ((0.2, "HOLD"), (0.21, "BUY"), (-0.2, "HOLD"), (-0.21, "SELL")):
        assert single((signal, 1.0, "strong"), (0.0, 0.0, "none"))["label"] == label


def test_a_session_without_sentiment_stands_on_price(forecasts, evidence, news) -> None:
    price = price_signals(forecasts, evidence, 1)
    for missing in (news.iloc[:0], news.assign(ticker="BBB")):
        row = fused(forecasts, evidence, missing)[0].iloc[1]
        assert (row["sentiment"], row["sentiment_contribution"]) == (0, 0)
        assert row["signal"] == row["price_contribution"] == pytest.approx(price["signal"][1])
        assert row["known_at"] == price["known_at"][1]


@pytest.mark.parametrize(
    ("changes", "abstains"),
    [
        ({"min_agreement": 0.5}, [False, True]),
        ({"min_agreement": 0.51}, [True, True]),
        ({"min_agreement": 0.0, "max_dispersion": 1.4}, [False, True]),
        ({"min_agreement": 0.0, "max_dispersion": 1.2}, [True, True]),
    ],
)
def test_prices_abstain_where_networks_disagree(
    forecasts, evidence, news, changes, abstains
) -> None:
    # Half of the networks take the mean's side in the first session, and none in the second, where
    # the mean is zero; the spread is 1.33 times the mean, and then without end.
    signals, added = fused(forecasts, evidence, news, TradingSpec(**changes))
    assert signals["abstains"].tolist() == abstains
    silent = signals[signals["abstains"]]
    assert (silent["price_contribution"] == 0).all()
    assert silent["sentiment_contribution"].tolist() == [0.25, 0.0][-len(silent) :]
    assert silent["reason"].str.contains("prices abstain: ").all()
    by_source = added[added["source"] == "sentiment"]
    assert not by_source["abstains"].any()


@pytest.fixture
def many(forecasts, evidence, news):
    """Five tickers, nine seeds each; magnitudes far apart, so that the order of sums shows."""
    rng = np.random.default_rng(5)
    tickers = [f"T{number}" for number in range(5)]
    first = forecasts[forecasts["seed"] == 0]
    said = pd.concat([first.assign(ticker=t, seed=seed) for t in tickers for seed in range(9)])
    said["forecast"] = rng.normal(0, 10 ** rng.uniform(-9, 0, len(said)))
    graded = pd.concat([evidence.assign(ticker=ticker) for ticker in tickers])
    told = pd.concat([news.assign(ticker=ticker) for ticker in tickers])
    told["sentiment"] = rng.uniform(-1, 1, len(told))
    return said, graded, told


def test_another_order_or_one_session_alone_give_the_same_bits(many) -> None:
    forecasts, evidence, news = many
    whole, added = fused(*many)
    assert whole.equals(whole.sort_values(["ticker", "session"]))
    shuffled = fused(
        forecasts.sample(frac=1, random_state=0),
        evidence.sample(frac=1, random_state=1),
        news.sample(frac=1, random_state=2).astype({"session": "datetime64[s]"}),
    )
    assert_frame_equal(shuffled[0], whole, check_exact=True)
    assert_frame_equal(shuffled[1], added, check_exact=True)
    last = whole["session"].max()
    alone = fused(forecasts[forecasts["session"] == last], evidence, news)
    for one, all_rows in zip(alone, (whole, added), strict=True):
        own = all_rows[all_rows["session"] == last].reset_index(drop=True)
        assert_frame_equal(one, own, check_exact=True)


def test_nothing_in_nothing_out(forecasts, evidence, news) -> None:
    signals, added = fused(forecasts.iloc[:0], evidence.iloc[:0], news.iloc[:0])
    full, full_added = fused(forecasts, evidence, news)
    assert signals.empty
    assert added.empty
    assert signals.dtypes.equals(full.dtypes)
    assert added.dtypes.equals(full_added.dtypes)


@pytest.mark.parametrize("policy", ["evidence", "threshold"])
def test_contributions_add_up_to_a_signal_within_bounds(policy) -> None:
    """A thousand tickers of three models and sentiment, graded at random."""
    rng = np.random.default_rng(3)
    session, models = pd.Timestamp("2020-01-02"), ["a", "b", "c"]
    moment = session.tz_localize("UTC")
    pairs = pd.MultiIndex.from_product(
        [[f"T{number:03d}" for number in range(1000)], [*models, "sentiment"]],
        names=["ticker", "model"],
    ).to_frame(index=False)
    pairs = pairs.assign(fold=1, session=session, forecast=rng.normal(0, 0.03, len(pairs)))
    evidence = pairs[["ticker", "model", "fold"]].assign(
        forecast_std=0.02, grade=rng.choice(sorted(GRADE_WEIGHT), len(pairs))
    )
    forecasts = pairs[pairs["model"] != "sentiment"].assign(
        seed=0, horizon=1, actual=np.nan, known_at=moment, model_hash="x"
    )
    news = pairs[pairs["model"] == "sentiment"].rename(columns={"forecast": "sentiment"})
    news = news.assign(sentiment_std_5=0.1, news_count=1, known_at=moment)
    signals, added = fused(forecasts, evidence, news, TradingSpec(policy=policy))
    signal = signals.set_index("ticker")["signal"]
    summed = added.groupby("ticker")["contribution"].sum()
    assert np.allclose(summed, signal, rtol=0, atol=1e-12)
    assert np.allclose(added["weight"] * added["standardised"], added["contribution"])
    assert signal.abs().max() == pytest.approx(1.0)
    assert 0 < signals["abstains"].mean() < 0.5
    silent = added["abstains"] | ((policy == "evidence") & (added["grade"] == "none"))
    assert (added.loc[silent, "contribution"] == 0).all()
    spoke = added[added["contribution"] != 0].groupby("ticker")["grade"]
    best = spoke.agg(lambda own: max(own, key=GRADE_WEIGHT.__getitem__))
    graded = signals.set_index("ticker")["grade"]
    assert (graded == best.reindex(graded.index).fillna("none")).all()


def test_sources_of_other_evidence_than_the_price_signal_are_refused(
    forecasts, evidence, news
) -> None:
    price = price_signals(forecasts, evidence.assign(grade="none"), 1)
    sources = pd.concat([price_sources(forecasts, evidence, 1), sentiment_sources(news, evidence)])
    with pytest.raises(ValueError, match=r"of AAA on 2020-01-02 weighs 0\.0, its best source 1\.0"):
        contributions(price, sources, SPEC, no_history)


def test_every_policy_of_the_settings_is_a_function() -> None:
    assert [load_policy(name).__name__ for name in POLICIES] == list(POLICIES)


def test_percent_has_no_negative_zero() -> None:
    assert percent(-0.00001) == "+0.00 %"
    assert percent(-0.125, 1) == "-12.5 %"
