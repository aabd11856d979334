import pandas as pd
import pytest

SESSIONS = pd.to_datetime(["2020-01-02", "2020-01-03"])


@pytest.fixture
def forecasts() -> pd.DataFrame:
    """Two sessions of one ticker: gru (seeds agree) and lstm (seeds differ)."""
    rows = [
        ("2020-01-02", "gru", 0, 0.010),
        ("2020-01-02", "gru", 1, 0.030),
        ("2020-01-02", "lstm", 0, -0.002),
        ("2020-01-02", "lstm", 1, 0.000),
        ("2020-01-03", "gru", 0, 0.500),
        ("2020-01-03", "gru", 1, 0.500),
        ("2020-01-03", "lstm", 0, -0.500),
        ("2020-01-03", "lstm", 1, -0.500),
    ]
    frame = pd.DataFrame(rows, columns=["session", "model", "seed", "forecast"])
    frame["session"] = pd.to_datetime(frame["session"])
    frame["known_at"] = frame["session"].dt.tz_localize("UTC") + pd.Timedelta(hours=21)
    return frame.assign(ticker="AAA", fold=1, horizon=1, actual=float("nan"), model_hash="x")


@pytest.fixture
def evidence() -> pd.DataFrame:
    rows = [("gru", 0.04, "weak"), ("lstm", 0.01, "strong"), ("sentiment", 0.25, "moderate")]
    frame = pd.DataFrame(rows, columns=["model", "forecast_std", "grade"])
    return frame.assign(ticker="AAA", fold=1)


@pytest.fixture
def news() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ticker": "AAA",
            "session": SESSIONS,
            "fold": [1, 1],
            "sentiment": [0.25, 0.0],
            "sentiment_std_5": [0.1, 0.2],
            "news_count": [3, 0],
            "known_at": SESSIONS.tz_localize("UTC") + pd.Timedelta(hours=21),
        }
    )
