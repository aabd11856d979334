"""The wrappers on real bars beside naive forecasts, and beside the loop a tutorial writes.

    python -m benchmarks.wrappers [--parts cells fit_time sentiment_fit_time forecasts]
                                  [--rounds 5] [--epochs 10] [--tickers 6]

Prints one table as JSON, with four parts, or those that are asked for.

``forecasts``: each wrapper is fitted on the first 80 % of a ticker's history, as returns and as
prices, and forecasts every later session one step ahead. ``mse_ratio`` is its squared error over
that of the zero forecast (of a return) or of persistence (of a price, the same bet); below 1 is
better than knowing nothing. ``hit_rate`` is the share of sessions whose direction it had right.

``fit_time``: a fit of each wrapper, as it comes and by torch (``backend="reference"``), beside the
straightforward loop that does the same work: windows one at a time into a Python list, batches by
slicing, one Adam. Same network, windows and batch size, one thread each; the three alternate, and
process times per epoch are compared. Compiling the kernel, once per machine, is not in them.

``sentiment_fit_time``: the same for ``SentimentClassifier`` with one network, which also spells its
words and fits its n-grams twice; the loop encodes one text at a time, padded to ``max_len`` words,
and trains the same LSTM over words alone, as many epochs.

``cells``: the largest difference between the written-out cells and torch's, values and gradients.

Bars are those of the embedded sample, and of ``../shared/data/stocknet`` where that folder is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rnn_pipeline import MultivariateLSTM, SentimentClassifier, TradingGRU, TradingLSTM
from rnn_pipeline.market.grammar import labelled_corpus
from rnn_pipeline.market.sample import FIRST_SESSION, LAST_SESSION, SampleSource
from rnn_pipeline.networks.cells import CELLS
from rnn_pipeline.networks.estimators import WrapperBackend
from rnn_pipeline.settings import SentimentSpec, TrainingSpec

STOCKNET = Path(__file__).parents[2] / "shared" / "data" / "stocknet" / "ohlcv.parquet"
LOOKBACK, TRAIN_SHARE = 20, 0.8
EARLY = TrainingSpec(patience=4)


def sample_bars() -> dict[str, pd.DataFrame]:
    """The sample's tickers with a long history."""
    source = SampleSource()
    bars = {
        ticker: source.parse_bars(source.fetch_bars(ticker, FIRST_SESSION, LAST_SESSION), ticker)
        for ticker in ("AAPL", "GOOG", "IBM", "MSFT")
    }
    return {ticker: rows.set_index("session").sort_index() for ticker, rows in bars.items()}


def stocknet_bars(tickers: int) -> dict[str, pd.DataFrame]:
    """The first tickers, by name, of the folder beside the checkout; none where it is absent."""
    if not STOCKNET.exists():
        return {}
    rows = pd.read_parquet(STOCKNET).assign(session=lambda rows: pd.to_datetime(rows["date"]))
    wanted = sorted(rows["ticker"].unique())[:tickers]
    return {
        ticker: rows[rows["ticker"] == ticker].set_index("session").sort_index()
        for ticker in wanted
    }


def features(bars: pd.DataFrame) -> pd.DataFrame:
    """Returns, range and volume of each session; ``target`` is the session's own return."""
    close = bars["adj_close"]
    returns = np.log(close).diff()
    frame = pd.DataFrame(
        {
            "return_1": returns,
            "return_5": np.log(close).diff(5),
            "range": np.log(bars["high"] / bars["low"]),
            "volatility": returns.rolling(20).std(),
            "volume": np.log(bars["volume"].clip(lower=1)).diff(),
            "target": returns,
        }
    )
    return frame.dropna()


def scores(forecast: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Of return forecasts, against the zero forecast."""
    moved = actual != 0
    return {
        "mse_ratio": float(((forecast - actual) ** 2).mean() / (actual**2).mean()),
        "hit_rate": float((np.sign(forecast) == np.sign(actual))[moved].mean()),
    }


def one_ticker(bars: pd.DataFrame, epochs: int) -> dict[str, Any]:
    """Every wrapper on one ticker's held-out sessions."""
    frame = features(bars)
    returns = frame["target"]
    prices = bars["adj_close"].loc[returns.index]
    cut = int(TRAIN_SHARE * len(returns))
    # The first window that forecasts a held-out session ends at the last training session.
    asked_from = slice(cut - LOOKBACK, None)
    actual = returns.to_numpy()[cut:]
    found: dict[str, Any] = {
        "held_out": len(actual),
        "up_share": float((actual > 0).mean()),
        "persistence": scores(returns.to_numpy()[cut - 1 : -1], actual),
        "training_mean": scores(np.full(len(actual), returns.iloc[:cut].mean()), actual),
    }
    asked = {"lookback": LOOKBACK, "epochs": epochs}
    for kind in (TradingLSTM, TradingGRU):
        on_returns, on_prices = (kind(training=EARLY, device="cpu") for _ in range(2))
        on_returns.fit(returns.iloc[:cut], **asked)
        made = on_returns.predict_all(returns.iloc[asked_from])[LOOKBACK - 1 : -1]
        found[f"{kind.__name__} on returns"] = scores(made, actual)

        on_prices.fit(prices.iloc[:cut], **asked)
        level, before = prices.to_numpy()[cut:], prices.to_numpy()[cut - 1 : -1]
        made = on_prices.predict_all(prices.iloc[asked_from])[LOOKBACK - 1 : -1]
        # A price may be forecast below 0 where the history never was; its sign is still a bet.
        found[f"{kind.__name__} on prices"] = {
            "mse_ratio": float(((made - level) ** 2).mean() / ((before - level) ** 2).mean()),
            "hit_rate": scores(made - before, level - before)["hit_rate"],
        }
    multivariate = MultivariateLSTM(training=EARLY, device="cpu")
    multivariate.fit(frame.iloc[:cut], "target", **asked)
    made = multivariate.predict_all(frame.iloc[asked_from]).to_numpy()[LOOKBACK - 1 : -1]
    found["MultivariateLSTM"] = scores(made, actual)
    return found


def forecasts(bars: dict[str, pd.DataFrame], epochs: int) -> dict[str, Any]:
    """Medians over tickers, and each ticker."""
    each = {ticker: one_ticker(rows, epochs) for ticker, rows in bars.items()}
    summary = {}
    for name in next(iter(each.values())):
        values = [found[name] for found in each.values()]
        if isinstance(values[0], dict):
            ratios = [value["mse_ratio"] for value in values]
            summary[name] = {
                "mse_ratio_median": statistics.median(ratios),
                "better_than_naive": f"{sum(ratio < 1 for ratio in ratios)} of {len(ratios)}",
                "hit_rate_mean": statistics.fmean(value["hit_rate"] for value in values),
            }
    held_out = sum(found["held_out"] for found in each.values())
    up = sum(found["up_share"] * found["held_out"] for found in each.values()) / held_out
    return {
        "epochs_at_most": epochs,
        "sessions": held_out,
        "always_up_hit_rate": up,
        "median": summary,
        "tickers": each,
    }


class Reference(nn.Module):
    """One multilayer torch layer (or one per width) and a head on the last step."""

    def __init__(self, layer: type[nn.RNNBase], n_features: int, widths: list[int]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        if len(set(widths)) == 1:
            deep = layer(n_features, widths[0], len(widths), batch_first=True, dropout=0.2)
            self.layers = nn.ModuleList([deep])
        else:
            sizes = zip([n_features, *widths], widths, strict=False)
            self.layers = nn.ModuleList(layer(a, b, batch_first=True) for a, b in sizes)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.dropout(layer(x)[0])
        return self.head(x[:, -1])


def straightforward(
    layer: type[nn.RNNBase], widths: list[int], inputs: np.ndarray, targets: np.ndarray, epochs: int
) -> None:
    """What a tutorial writes; ``inputs`` (rows, n_features), ``targets`` (rows,)."""
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    targets = (targets - targets.mean()) / targets.std()
    windows, following = [], []
    for row in range(len(inputs) - LOOKBACK):
        windows.append(inputs[row : row + LOOKBACK])
        following.append(targets[row + LOOKBACK])
    X = torch.tensor(np.array(windows), dtype=torch.float32)
    y = torch.tensor(np.array(following), dtype=torch.float32)[:, None]
    cut = int(0.8 * len(X))
    network = Reference(layer, inputs.shape[1], widths)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    criterion = nn.MSELoss()
    for _ in range(epochs):
        network.train()
        order = torch.randperm(cut)
        for start in range(0, cut, 32):
            rows = order[start : start + 32]
            optimizer.zero_grad()
            criterion(network(X[rows]), y[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            criterion(network(X[cut:]), y[cut:]).item()


DEFAULT_EPOCHS, TORCH_EPOCHS = 50, 10
"""Of the timed fits. What a wrapper does of itself depends on the work, so it gets its default."""


def fit_time(bars: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """Alternating fits of the same work; process time per epoch, one thread."""
    frame = features(bars)
    returns = frame["target"]
    inputs = frame.drop(columns="target").to_numpy()
    alone = returns.to_numpy()[:, None]
    tutorials: dict[Any, Callable[[int], None]] = {
        TradingLSTM: partial(straightforward, nn.LSTM, [64, 64], alone, alone[:, 0]),
        TradingGRU: partial(straightforward, nn.GRU, [64, 64], alone, alone[:, 0]),
        MultivariateLSTM: partial(straightforward, nn.LSTM, [64, 32], inputs, returns.to_numpy()),
    }

    def fit(kind: Any, backend: WrapperBackend, epochs: int) -> None:
        given = (frame, "target") if kind is MultivariateLSTM else (returns,)
        kind(device="cpu", backend=backend).fit(*given, lookback=LOOKBACK, epochs=epochs)

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for kind, tutorial_loop in tutorials.items():
        # Compiles, measures what the default is, and wakes torch up; none of it counts.
        fit(kind, "auto", DEFAULT_EPOCHS)
        tutorial_loop(1)
        variants: dict[str, tuple[Callable[[int], object], int]] = {
            "wrapper": (partial(fit, kind, "auto"), DEFAULT_EPOCHS),
            "wrapper_by_torch": (partial(fit, kind, "reference"), TORCH_EPOCHS),
            "tutorial": (tutorial_loop, TORCH_EPOCHS),
        }
        took: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(rounds):
            for variant, (work, epochs) in variants.items():
                started = time.process_time()
                work(epochs)
                took[variant].append((time.process_time() - started) / epochs)
        tutorial = took.pop("tutorial")
        found[kind.__name__] = {"tutorial_s_per_epoch": statistics.median(tutorial)} | {
            variant: {
                "s_per_epoch": statistics.median(times),
                "times_faster_median": statistics.median(tutorial) / statistics.median(times),
                "times_faster_minimum": min(tutorial) / min(times),
            }
            for variant, times in took.items()
        }
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": round(os.getloadavg()[0], 1),
        "rows": len(returns),
        "epochs": {"wrapper": DEFAULT_EPOCHS, "others": TORCH_EPOCHS},
        "rounds": rounds,
        **found,
    }


class WordReader(nn.Module):
    """Embedding, bidirectional LSTM, and a head on the states after the last step."""

    def __init__(self, words: int, spec: SentimentSpec, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, spec.embed_dim, padding_idx=0)
        self.lstm = nn.LSTM(spec.embed_dim, spec.hidden_size, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(2 * spec.hidden_size, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.lstm(self.embedding(ids))
        return self.head(self.dropout(torch.cat([last[0], last[1]], dim=1)))


def read_straightforwardly(texts: list[str], labels: list[str], spec: SentimentSpec) -> None:
    """What a tutorial writes: a dictionary of words, padded lists, batches by slicing, one Adam."""
    counts = Counter(word for text in texts for word in text.lower().split())
    index = {"<PAD>": 0, "<UNK>": 1}
    for word, count in counts.most_common(spec.max_vocab - 2):
        if count >= spec.min_freq:
            index[word] = len(index)
    encoded = []
    for text in texts:
        ids = [index.get(word, 1) for word in text.lower().split()][: spec.max_len]
        encoded.append(ids + [0] * (spec.max_len - len(ids)))
    classes = sorted(set(labels))
    X, y = torch.tensor(encoded), torch.tensor([classes.index(label) for label in labels])
    cut = int((1.0 - spec.val_share) * len(X))
    network = WordReader(len(index), spec, len(classes))
    optimizer = torch.optim.Adam(network.parameters(), lr=spec.training.learning_rate)
    criterion = nn.CrossEntropyLoss()
    for _ in range(spec.training.epochs):
        network.train()
        order = torch.randperm(cut)
        for start in range(0, cut, spec.training.batch_size):
            rows = order[start : start + spec.training.batch_size]
            optimizer.zero_grad()
            criterion(network(X[rows]), y[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            criterion(network(X[cut:]), y[cut:]).item()


def sentiment_fit_time(rounds: int) -> dict[str, Any]:
    """Alternating fits on the embedded corpus; process time of a whole fit, one thread."""
    corpus = labelled_corpus()
    train = corpus[corpus["split"] == "train"]
    texts, labels = train["headline"].tolist(), train["label"].tolist()
    spec = SentimentSpec(members=1, least_steps=0)

    def wrapper() -> None:
        SentimentClassifier(spec=spec, device="cpu").fit(texts, labels)

    torch.set_num_threads(1)
    variants = {
        "wrapper": wrapper,
        "tutorial": partial(read_straightforwardly, texts, labels, spec),
    }
    took: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant, work in variants.items():
            started = time.process_time()
            work()
            took[variant].append(time.process_time() - started)
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": round(os.getloadavg()[0], 1),
        "texts": len(texts),
        "epochs": spec.training.epochs,
        "rounds": rounds,
        "tutorial_s": statistics.median(took["tutorial"]),
        "wrapper_s": statistics.median(took["wrapper"]),
        "times_faster_median": statistics.median(took["tutorial"])
        / statistics.median(took["wrapper"]),
        "times_faster_minimum": min(took["tutorial"]) / min(took["wrapper"]),
    }


def cell_errors() -> dict[str, float]:
    """Largest absolute differences over 50 random cells of each kind, float64, 50 steps."""
    layers = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    found = {}
    for name, layer in layers.items():
        values = gradients = 0.0
        for seed in range(50):
            generator = torch.Generator().manual_seed(seed)
            cell = CELLS[name](5, 16, generator).double()
            reference = layer(5, 16, batch_first=True).double()
            reference.load_state_dict({f"{key}_l0": v for key, v in cell.state_dict().items()})
            x = torch.randn(4, 50, 5, generator=generator, dtype=torch.float64).requires_grad_()
            ours, theirs = cell.unroll(x)[0], reference(x)[0]
            values = max(values, (ours - theirs).abs().max().item())
            weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
            pairs = zip(
                torch.autograd.grad((ours * weight).sum(), [x, *cell.parameters()]),
                torch.autograd.grad((theirs * weight).sum(), [x, *reference.parameters()]),
                strict=True,
            )
            gradients = max(gradients, *((own - other).abs().max().item() for own, other in pairs))
        found[name] = {"values": values, "gradients": gradients}
    return found


def main() -> None:
    parts = ("cells", "fit_time", "sentiment_fit_time", "forecasts")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--rounds", type=int, default=5, help="of the fit times")
    parser.add_argument("--epochs", type=int, default=10, help="of the forecasts, at most")
    parser.add_argument("--tickers", type=int, default=6, help="of stocknet")
    asked = parser.parse_args()
    sample = sample_bars()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load"
        f" {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, torch"
        f" {torch.__version__}",
    }
    if "cells" in asked.parts:
        report["cells"] = cell_errors()
    if "fit_time" in asked.parts:
        report["fit_time"] = fit_time(sample["AAPL"], asked.rounds)
    if "sentiment_fit_time" in asked.parts:
        report["sentiment_fit_time"] = sentiment_fit_time(asked.rounds)
    if "forecasts" in asked.parts:
        stocknet = stocknet_bars(asked.tickers)
        report["forecasts"] = {
            name: forecasts(bars, asked.epochs)
            for name, bars in (("sample", sample), ("stocknet", stocknet))
            if bars
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
