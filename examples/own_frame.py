"""Research on your own frame: features, folds, a network and its score, without the pipeline.

    python examples/own_frame.py [bars.csv]

The file has the columns ticker, session, open, high, low, close, adj_close, volume; rows of one
ticker. Without a file, a market with a weak memory is made up.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from rnn_pipeline import (
    FoldSpec,
    MultivariateLSTM,
    SessionCalendar,
    forecast_metrics,
    price_features,
    targets,
    walk_forward,
)

FOLDS = FoldSpec(train_size=400, val_size=100, test_size=200)
INPUTS = ["log_return_1", "volatility_20", "rsi_14"]


def made_up_bars(sessions: int = 900, memory: float = 0.2) -> pd.DataFrame:
    """One ticker whose return remembers a fifth of the one before: far more than a real one."""
    rng = np.random.default_rng(7)
    move = rng.normal(0.0, 0.01, sessions)
    for t in range(1, sessions):
        move[t] += memory * move[t - 1]
    close = 100.0 * np.exp(np.cumsum(move))
    open_ = close * np.exp(rng.normal(0.0, 0.003, sessions))
    calendar = SessionCalendar("XNYS")
    days = pd.bdate_range("2019-01-01", periods=2 * sessions)
    return pd.DataFrame(
        {
            "ticker": "ACME",
            "session": calendar.sessions(days[0], days[-1])[:sessions],
            "open": open_,
            "high": np.maximum(open_, close) * 1.002,
            "low": np.minimum(open_, close) * 0.998,
            "close": close,
            "adj_close": close,
            "volume": rng.integers(100_000, 200_000, sessions).astype(float),
        }
    )


def forecasts(bars: pd.DataFrame) -> pd.DataFrame:
    """Walk forward: a network per fold, asked for the sessions behind its validation rows."""
    rows = price_features(bars).merge(targets(bars, horizon=1), on=["ticker", "session"])
    inputs = rows[INPUTS].assign(move=rows["log_return_1"])
    first = int(inputs.notna().all(axis=1).to_numpy().argmax())  # behind the warm-up
    told = []
    for fold in walk_forward(len(rows) - first, FOLDS, horizon=1):
        seen = inputs[first:][fold.train.start : fold.val.stop]
        model = MultivariateLSTM(seed=fold.number, device="cpu", backend="reference")
        share = len(fold.val) / len(seen)
        model.fit(
            seen,
            "move",
            lookback=10,
            epochs=12,
            lr=0.005,
            validation_split=share,
            hidden_dims=[8],
        )
        ahead = model.predict_all(inputs[first:][: fold.test.stop])[fold.test.start :]
        told.append(
            rows.loc[ahead.index, ["ticker", "session"]].assign(
                fold=fold.number, forecast=ahead, actual=rows.loc[ahead.index, "target"]
            )
        )
    frame = pd.concat(told, ignore_index=True)
    frame["known_at"] = SessionCalendar("XNYS").closes(frame["session"])
    return frame.assign(model="lstm", seed=0, horizon=1)


def main() -> None:
    """Score the forecasts beside forecasting zero."""
    path = sys.argv[1] if len(sys.argv) > 1 else None
    bars = made_up_bars() if path is None else pd.read_csv(path, parse_dates=["session"])
    made = forecasts(bars)
    both = pd.concat([made, made.assign(model="zero", forecast=0.0)])
    columns = ["model", "n", "ic", "ic_t", "hit_rate", "r2_vs_zero"]
    print(forecast_metrics(both)[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
