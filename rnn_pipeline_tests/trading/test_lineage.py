import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.features.windows import ModelMatrix
from rnn_pipeline.trading.lineage import LINEAGE, fused_lineage, price_lineage, sentiment_lineage

SESSIONS = pd.bdate_range("2020-01-01", periods=6)


@pytest.fixture
def features() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame({"ticker": name, "session": SESSIONS}) for name in ("AAA", "BBB")]
    return pd.concat(frames, ignore_index=True).assign(x=rng.normal(size=12), y=1.0)


@pytest.fixture
def forecasts() -> pd.DataFrame:
    """Both tickers' last two sessions; on the very last one a second network joins."""
    rows = [
        (ticker, session, model_hash)
        for ticker in ("BBB", "AAA")
        for session, hashes in ((SESSIONS[4], "b"), (SESSIONS[5], "ba"))
        for model_hash in hashes
    ]
    frame = pd.DataFrame(rows, columns=["ticker", "session", "model_hash"])
    return frame.assign(feature_set_hash="f", code_version="c")


def price(forecasts, features, lookback=3) -> pd.DataFrame:
    matrix = ModelMatrix.build(features, ["x", "y"])
    return price_lineage(forecasts, matrix, lookback)


def test_a_signal_names_all_its_networks_and_its_window(forecasts, features) -> None:
    made = price(forecasts, features)
    assert list(made.columns) == ["ticker", "session", *LINEAGE]
    assert made["ticker"].tolist() == ["AAA", "AAA", "BBB", "BBB"]
    assert made["model_hash"].tolist() == ["b", "a,b"] * 2
    assert made["feature_set_hash"].tolist() == ["f"] * 4
    assert made["code_version"].nunique() == 1
    assert made["data_hash"].nunique() == 4


@pytest.mark.parametrize(
    ("row", "moved"),
    [(1, [False] * 4), (2, [True, False, False, False]), (4, [True, True, False, False])],
)
def test_only_what_lies_in_the_window_moves_its_hash(forecasts, features, row, moved) -> None:
    before = price(forecasts, features)
    features.loc[row, "x"] += 1.0
    assert (price(forecasts, features)["data_hash"] != before["data_hash"]).tolist() == moved


def test_a_hash_is_the_same_alone_and_in_another_order(forecasts, features) -> None:
    whole = price(forecasts, features)
    alone = price(
        forecasts[forecasts["ticker"] == "BBB"],
        features[features["ticker"] == "BBB"].sample(frac=1, random_state=0),
    )
    pd.testing.assert_frame_equal(alone, whole.tail(2).reset_index(drop=True))


def test_both_sources_are_in_the_hashes_of_the_fused_signal(forecasts, features) -> None:
    prices = price(forecasts, features)
    news = prices[["ticker", "session"]].assign(
        sentiment=0.1, news_count=2, sentiment_mean_5=0.0, sentiment_std_5=0.0, model_hash="s"
    )
    fused = fused_lineage(prices, sentiment_lineage(news))
    assert fused["model_hash"].tolist() == ["b,s", "a,b,s"] * 2
    louder = fused_lineage(prices, sentiment_lineage(news.assign(sentiment=0.2)))
    assert (louder["data_hash"] != fused["data_hash"]).all()
    silent = fused_lineage(prices, sentiment_lineage(news.iloc[1:]))
    assert silent["model_hash"].tolist() == ["b", "a,b,s", "b,s", "a,b,s"]
    assert (silent["data_hash"] != fused["data_hash"]).tolist() == [True, False, False, False]
