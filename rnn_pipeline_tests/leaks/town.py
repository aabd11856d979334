"""A small market that can be forecast, so that evidence is earned and positions are held: a leak
anywhere in the chain then has something to move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.lookahead import Knowledge
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import NetworkSpec, Settings, load_settings

CALENDAR = SessionCalendar()
SESSIONS = CALENDAR.sessions(pd.Timestamp("2010-01-04"), pd.Timestamp("2011-09-02"))
CUT = SESSIONS[382]
"""Inside the last fold's test span; CCC is delisted a month later."""

_MOODS = {
    "positive": ("gains", "rises", "beats forecasts", "soars", "wins a contract"),
    "negative": ("falls", "slumps", "misses forecasts", "plunges", "loses a lawsuit"),
    "neutral": ("holds a meeting", "names a director", "moves its office", "plans a call"),
}


def close(session: pd.Timestamp) -> pd.Timestamp:
    """The moment at which what is known of a session ends."""
    return CALENDAR.closes(pd.DatetimeIndex([session]))[0]


def settings(**changes: Any) -> Settings:
    """Few features, two small networks, short folds: a pass takes about a second.

    Args:
        changes: of both networks.
    """
    settings = load_settings(
        source="sample",
        folds={"train_size": 100, "val_size": 20, "test_size": 50},
        model={
            "features": ["return_1", "volatility_20", "close_to_sma_5", "sentiment"],
            "lookback": 4,
            "seeds": [0],
            "training": {"epochs": 3, "batch_size": 32, "learning_rate": 0.02},
            "sentiment": {
                "members": 1,
                "least_steps": 0,
                "embed_dim": 6,
                "hidden_size": 6,
                "training": {"epochs": 2, "batch_size": 16},
            },
        },
    )
    # Given to load_settings, they would stand beside the networks of the settings file.
    networks = {
        "lstm": NetworkSpec(cell="lstm", hidden_sizes=(4,), **changes),
        "gru": NetworkSpec(cell="gru", hidden_sizes=(6,), **changes),
    }
    model = settings.model.model_copy(update={"networks": networks})
    return settings.model_copy(update={"model": model})


def knowledge(persistence: float = 0.7) -> Knowledge:
    """Three tickers: AAA is whole, BBB lacks a session, CCC is delisted.

    Args:
        persistence: share of a return that the next one repeats; 0 leaves nothing to forecast.
    """
    lives = {"AAA": len(SESSIONS), "BBB": len(SESSIONS), "CCC": 400}
    bars = pd.concat(
        [
            _bars(ticker, days, seed, persistence)
            for seed, (ticker, days) in enumerate(lives.items())
        ],
        ignore_index=True,
    )
    hole = (bars["ticker"] == "BBB") & (bars["session"] == SESSIONS[300])
    bars = bars[~hole].reset_index(drop=True)
    return Knowledge(bars, _headlines(bars), _corpus())


def _bars(ticker: str, days: int, seed: int, persistence: float) -> pd.DataFrame:
    """Prices whose returns continue: r_t = persistence * r_(t-1) + noise."""
    rng = np.random.default_rng(seed)
    returns = np.zeros(days)
    for day in range(1, days):
        returns[day] = persistence * returns[day - 1] + rng.normal(0, 0.01)
    close = 50 * np.exp(np.cumsum(returns))
    opening = close * np.exp(rng.normal(0, 0.003, days))
    sessions = SESSIONS[:days]
    return pd.DataFrame(
        {
            "ticker": pd.Series([ticker] * days, dtype="str"),
            "session": sessions,
            "revision": 0,
            "known_at": CALENDAR.closes(sessions),
            "open": opening,
            "high": np.maximum(opening, close) * 1.002,
            "low": np.minimum(opening, close) * 0.998,
            "close": close,
            "adj_close": close * 0.9,
            "volume": rng.integers(1_000, 100_000, days).astype(float),
            "dividend": 0.0,
            "split": 0.0,
            "is_final": True,
            "provenance": "assumed",
            "reason": "first load",
            "fetch_id": "",
        }
    )


def _headlines(bars: pd.DataFrame) -> pd.DataFrame:
    """One headline after the close of every second session of a ticker, in the mood of its bar."""
    told = bars.iloc[::2]
    rng = np.random.default_rng(9)
    up = told["close"] > told["open"]
    titles = [
        f"{ticker} {rng.choice(_MOODS['positive' if rises else 'negative'])} number{row}"
        for row, (ticker, rises) in enumerate(zip(told["ticker"], up, strict=True))
    ]
    published = (told["known_at"] + pd.Timedelta(minutes=45)).array
    return pd.DataFrame(
        {
            "news_id": [f"n{row}" for row in range(len(told))],
            "ticker": told["ticker"].array,
            "revision": 0,
            "published_at": published,
            "first_seen_at": published,
            "known_at": published,
            "usable_at": published,
            "title": pd.Series(titles, dtype="str"),
            "summary": pd.Series([""] * len(told), dtype="str"),
            "url": pd.Series([""] * len(told), dtype="str"),
            "provider": pd.Series(["town"] * len(told), dtype="str"),
            "provenance": "assumed",
            "fetch_id": "",
        }
    )


def _corpus() -> pd.DataFrame:
    rows = [
        (f"{firm} {phrase}", label)
        for label, phrases in _MOODS.items()
        for phrase in phrases
        for firm in ("Acme", "Bolt", "Crux", "Dune", "Echo", "Flux")
    ]
    frame = pd.DataFrame(rows, columns=["headline", "label"])
    return frame.assign(split="train", source="town")
