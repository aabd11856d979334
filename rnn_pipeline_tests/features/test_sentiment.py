import statistics

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.features.sentiment import daily_sentiment

COLUMNS = [
    "ticker",
    "session",
    "sentiment",
    "news_count",
    "sentiment_mean_5",
    "sentiment_std_5",
    "sentiment_momentum_5",
    "sentiment_dispersion",
    "known_at",
]


def sessions_of(*tickers: str, n: int) -> pd.DataFrame:
    days = pd.date_range("2012-01-02", periods=n, freq="B", unit="s")
    rows = pd.DataFrame(
        [(ticker, day) for ticker in tickers for day in days], columns=["ticker", "session"]
    )
    return rows.assign(known_at=rows["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21))


def random_scores(sessions: pd.DataFrame, per_session: float, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = sessions.iloc[rng.integers(0, len(sessions), int(per_session * len(sessions)))]
    return pd.DataFrame(
        {
            "ticker": rows["ticker"].to_numpy(),
            "usable_session": rows["session"].to_numpy(),
            "score": rng.uniform(-1, 1, len(rows)),
        }
    )


def test_every_session_has_a_row_and_quiet_ones_are_zero() -> None:
    sessions = sessions_of("A", "B", n=6)
    scored = pd.DataFrame(
        {
            "ticker": ["A", "A", "B", "A"],
            # Another resolution than the sessions have; the last one is a session not asked for.
            "usable_session": pd.DatetimeIndex(
                ["2012-01-03", "2012-01-03", "2012-01-09", "2013-01-03"]
            ).as_unit("ns"),
            "score": [0.5, -0.2, 1.0, 0.9],
        }
    )
    daily = daily_sentiment(scored, sessions)
    assert list(daily.columns) == COLUMNS
    pd.testing.assert_frame_equal(
        daily[["ticker", "session", "known_at"]], sessions[["ticker", "session", "known_at"]]
    )
    assert daily["news_count"].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(daily["sentiment"], [0, 0.15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0])
    values = [0, 0.15, 0, 0, 0]
    np.testing.assert_allclose(
        daily["sentiment_mean_5"], [np.nan] * 4 + [0.03, 0.03] + [np.nan] * 4 + [0, 0.2]
    )
    np.testing.assert_allclose(
        daily["sentiment_std_5"].iloc[[4, 5, 10, 11]],
        [statistics.pstdev(values), statistics.pstdev(values), 0, 0.4],
    )
    assert daily["news_count"].dtype == np.int64


def test_no_headlines_and_no_sessions() -> None:
    sessions = sessions_of("A", n=5)
    nothing = pd.DataFrame(columns=["ticker", "usable_session", "score"])
    quiet = daily_sentiment(nothing, sessions)
    assert quiet["sentiment"].tolist() == [0.0] * 5
    assert quiet["sentiment_mean_5"].iloc[-1] == quiet["sentiment_std_5"].iloc[-1] == 0.0
    assert list(daily_sentiment(nothing, sessions.iloc[:0]).columns) == COLUMNS


def test_order_of_input_changes_no_bit() -> None:
    sessions = sessions_of("A", "B", "C", n=40)
    scored = random_scores(sessions, per_session=4)
    pd.testing.assert_frame_equal(
        daily_sentiment(scored.sample(frac=1, random_state=1), sessions.sample(frac=1)),
        daily_sentiment(scored, sessions),
        check_exact=True,
    )


def test_scrambling_the_future_changes_no_bit_of_the_past() -> None:
    sessions = sessions_of("A", "B", n=60)
    scored = random_scores(sessions, per_session=3)
    cut = sessions["session"].iloc[39]
    scrambled = scored.copy()
    later = scrambled["usable_session"] > cut
    scrambled.loc[later, "score"] = -scrambled.loc[later, "score"] / 3
    before, after = (daily_sentiment(rows, sessions) for rows in (scored, scrambled))
    past = before["session"] <= cut
    pd.testing.assert_frame_equal(before[past], after[past], check_exact=True)
    assert not before.equals(after)


@pytest.mark.parametrize("rows", [1, 7, 23])
def test_the_last_rows_alone_are_the_same_bits(rows: int) -> None:
    sessions = sessions_of("A", "B", n=60)
    scored = random_scores(sessions, per_session=3)
    everything = daily_sentiment(scored, sessions).groupby("ticker").tail(rows)
    recent = sessions.groupby("ticker").tail(rows + 4)
    pd.testing.assert_frame_equal(
        daily_sentiment(scored, recent).groupby("ticker").tail(rows).reset_index(drop=True),
        everything.reset_index(drop=True),
        check_exact=True,
    )


@pytest.mark.parametrize("score", [1.5, -2.0, float("nan"), float("inf")])
def test_scores_outside_the_range_are_refused(score: float) -> None:
    sessions = sessions_of("A", n=5)
    scored = random_scores(sessions, per_session=2)
    scored.loc[3, "score"] = score
    with pytest.raises(ValueError, match=r"1 scores are not within -1\.\.1"):
        daily_sentiment(scored, sessions)


def test_repeated_sessions_are_refused() -> None:
    sessions = sessions_of("A", n=5)
    with pytest.raises(ValueError, match="A 2012-01-03 stands twice"):
        daily_sentiment(random_scores(sessions, 1), pd.concat([sessions, sessions.iloc[[1]]]))
