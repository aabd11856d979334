"""The ACL18 protocol (see ``acl18``) on a folder of bars and headlines.

    python -m benchmarks.published [--data ../shared/data/stocknet] [--seeds 10] [--write]

Pooled networks over all tickers (``rnn_pipeline.networks.pooled``), trained by the fleet to tell -1
from 1 by squared error, the Brier score of a direction; early stopping on the validation span; the
sign of the forecast decides. Features of prices are the pipeline's default ones. Those of texts are
its daily sentiment (by its own sentiment model, trained on labelled headlines that carry no dates)
and a vector: TF-IDF of words, reduced to 16 dimensions on texts of the training span, averaged over
the session's texts. Nothing was tuned: sizes, windows and features were set before the first run,
and the test span decides nothing.

Beside them stand the majority of the training span, coin flips, the last move's sign and its
opposite, logistic regression on the same windows, and TF-IDF with logistic regression on the
window's words.

Not run where the data is absent: it is no part of the project. A folder of all 88 tickers in the
same layout (``ohlcv.parquet``, ``headlines.csv.gz``) is read as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.published import acl18
from benchmarks.published.acl18 import CALENDAR, LOOKBACK, Clock, Data
from rnn_pipeline.chain import sentiment_of
from rnn_pipeline.features.catalogue import feature_table
from rnn_pipeline.features.price import PRICE_FEATURES
from rnn_pipeline.features.sentiment import DECLARED_SENTIMENT, daily_sentiment
from rnn_pipeline.features.text import tokenise
from rnn_pipeline.features.windows import FoldData, gather
from rnn_pipeline.market.labels import read_labels
from rnn_pipeline.market.sample import SampleSource
from rnn_pipeline.networks.fleet import Compute, Member, train_members
from rnn_pipeline.networks.inference import predict_members
from rnn_pipeline.networks.pooled import for_ticker, pooled
from rnn_pipeline.settings import NetworkSpec, SentimentSpec, TrainingSpec

RESULTS = Path(__file__).parents[1] / "results" / "published.json"
SHARED = Path(__file__).parents[3] / "shared" / "data"

PRICES = tuple(feature.name for feature in PRICE_FEATURES)
DIMENSIONS = 16
VECTOR = tuple(f"text_{number}" for number in range(DIMENSIONS))
TEXTS = (*DECLARED_SENTIMENT, *VECTOR)

TRAINING = TrainingSpec(epochs=30, batch_size=64, learning_rate=1e-3, patience=6)
NETWORKS = {
    "GRU": NetworkSpec(cell="gru", hidden_sizes=(32,), dropout=0.2, pooled=True),
    "LSTM": NetworkSpec(cell="lstm", hidden_sizes=(32,), dropout=0.2, pooled=True),
    "GRU, embedded tickers": NetworkSpec(
        cell="gru", hidden_sizes=(32,), dropout=0.2, pooled=True, ticker_embedding=4
    ),
}

PUBLISHED = {
    "StockNet (Xu and Cohen, 2018)": {"accuracy": 0.582, "mcc": 0.081},
    "CausalStock (2024)": {"accuracy": 0.634, "mcc": 0.217},
}
CAVEAT = (
    "Published figures are of 88 tickers and of samples with a text for every session of the"
    " window, replications fall short of them, and some read texts from after the move began."
    " Figures of fewer tickers are not comparable with them."
)


@dataclass(frozen=True)
class View:
    """Samples with some of the features.

    Attributes:
        shares: by ticker.
        words: (ticker, session) to the words of that session's texts; empty without texts.
    """

    shares: list[FoldData]
    words: Mapping[tuple[str, np.datetime64], list[str]]

    def ends(self, role: str) -> list[NDArray[np.int64]]:
        """Rows of each share at which the windows of a role end."""
        return [getattr(share, f"{role}_ends") for share in self.shares]

    def labels(self, role: str) -> NDArray[np.float32]:
        """Of all tickers' samples of a role, one ticker behind the other."""
        ends = zip(self.shares, self.ends(role), strict=True)
        return np.concatenate([share.targets[own] for share, own in ends])

    def sessions(self, role: str) -> NDArray[np.datetime64]:
        """The sessions *t-1*, in the order of ``labels``."""
        ends = zip(self.shares, self.ends(role), strict=True)
        return np.concatenate([share.sessions[own] for share, own in ends])

    def windows(self, role: str) -> NDArray[np.float32]:
        """(n, LOOKBACK * n_features), scaled, in the order of ``labels``."""
        ends = zip(self.shares, self.ends(role), strict=True)
        parts = [gather(share.inputs, own, LOOKBACK) for share, own in ends]
        return np.concatenate(parts).reshape(sum(map(len, parts)), -1)

    def documents(self, role: str) -> list[list[str]]:
        """The words of each sample's window, in the order of ``labels``."""
        return [
            [
                word
                for row in range(end - LOOKBACK + 1, end + 1)
                for word in self.words.get((share.ticker, share.sessions[row]), ())
            ]
            for share, own in zip(self.shares, self.ends(role), strict=True)
            for end in own
        ]


def price_rows(bars: pd.DataFrame) -> pd.DataFrame:
    """The pipeline's price features of every row of bars."""
    return feature_table(bars, bars.iloc[:0])[["ticker", "session", "known_at", *PRICES]]


def text_rows(data: Data, clock: Clock, scores: NDArray[np.float64]) -> pd.DataFrame:
    """Sentiment and vectors of every row of bars.

    Args:
        data: bars and texts.
        clock: see ``acl18``.
        scores: (texts,) from -1 to 1.
    """
    texts = data.texts.assign(usable_session=acl18.dated(data.texts, clock), score=scores)
    daily = daily_sentiment(texts, data.bars[["ticker", "session", "known_at"]])
    daily["news_count"] = np.log1p(daily["news_count"])
    vectors = pd.DataFrame(text_vectors(texts), columns=list(VECTOR))
    keys = [texts["ticker"].array, texts["usable_session"].astype("datetime64[s]").array]
    means = vectors.groupby(keys).mean().rename_axis(["ticker", "session"]).reset_index()
    rows = daily.drop(columns="known_at").merge(means, on=["ticker", "session"], how="left")
    return rows.fillna(dict.fromkeys(VECTOR, 0.0))


def text_vectors(texts: pd.DataFrame) -> NDArray[np.float64]:
    """(texts, DIMENSIONS), by a projection learned on texts of the training span alone."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    reduce = make_pipeline(
        TfidfVectorizer(analyzer=tokenise, min_df=5, sublinear_tf=True),
        TruncatedSVD(DIMENSIONS, random_state=0),
    )
    # A text of the session before the validation span is one of its first sample's already.
    first = CALENDAR.sessions(acl18.VAL_FROM.date() - pd.Timedelta(days=15), acl18.VAL_FROM.date())
    training = texts["usable_session"] < first[first < acl18.VAL_FROM][-1]
    reduce.fit(texts.loc[training, "title"])
    return reduce.transform(texts["title"])


def words_by_session(
    texts: pd.DataFrame, clock: Clock
) -> dict[tuple[str, np.datetime64], list[str]]:
    """The words of each ticker's session."""
    words: dict[tuple[str, np.datetime64], list[str]] = {}
    sessions = acl18.dated(texts, clock).to_numpy().astype("datetime64[D]")
    for ticker, session, title in zip(texts["ticker"], sessions, texts["title"], strict=True):
        words.setdefault((ticker, session), []).extend(tokenise(title))
    return words


def views(data: Data, corpus: pd.DataFrame) -> dict[str, View]:
    """Prices alone, and prices with texts by either clock."""
    prices = price_rows(data.bars)
    scores = sentiment_of(corpus, SentimentSpec()).score(data.texts["title"].tolist())
    made = {"prices": View(acl18.samples(prices, PRICES, data.bars), {})}
    for clock in get_args(Clock):
        rows = prices.merge(text_rows(data, clock, scores), on=["ticker", "session"])
        shares = acl18.samples(rows, (*PRICES, *TEXTS), data.bars)
        made[f"prices and texts ({clock})"] = View(shares, words_by_session(data.texts, clock))
    return made


def figures(
    actual: NDArray, made: Sequence[NDArray], sessions: NDArray, with_text: NDArray[np.bool_]
) -> dict[str, Any]:
    """Mean and deviation over seeds, of all samples and of those with a text for *t*.

    The deviation says what the seed decides, the interval what the choice of sessions does.
    """
    found: dict[str, Any] = {"seeds": len(made)}
    for name, chosen in (("", np.ones(len(actual), bool)), ("with_text_", with_text)):
        for figure, of in (("accuracy", acl18.accuracy), ("mcc", acl18.matthews)):
            values = [of(actual[chosen], predicted[chosen]) for predicted in made]
            found[f"{name}{figure}"] = statistics.fmean(values)
            if len(values) > 1:
                found[f"{name}{figure}_sd"] = statistics.stdev(values)
            if not name:
                found[f"{figure}_interval"] = acl18.interval(of, actual, made, sessions)
    return found


def network_labels(view: View, network: NetworkSpec, seeds: Iterable[int]) -> list[NDArray]:
    """Train one pooled network per seed and let it label the test samples."""
    (fold,) = pooled(view.shares)
    told = network.ticker_embedding > 0
    inputs, targets, owners = fold.inputs, fold.targets, fold.owners
    members = [
        Member(
            key=f"acl18/{seed}",
            network=network,
            training=TRAINING,
            inputs=inputs,
            targets=targets,
            train_ends=fold.train_ends,
            val_ends=fold.val_ends,
            lookback=LOOKBACK,
            seed=seed,
            tickers=fold.tickers if told else (),
            owners=owners if told else None,
        )
        for seed in seeds
    ]
    made = []
    # Backends agree to rounding only, and "auto" may choose another one another time.
    for trained in train_members(members, Compute(torch.device("cpu"), backend="reference")):
        outputs = predict_members(
            [for_ticker(trained, share.ticker) for share in view.shares],
            [share.inputs for share in view.shares],
            view.ends("test"),
        )
        made.append(np.where(np.concatenate(outputs)[:, 0] > 0, 1.0, -1.0))
    return made


def logistic(train: Any, labels: NDArray, val: Any, val_labels: NDArray, test: Any) -> NDArray:
    """Logistic regression whose penalty the validation span chooses."""
    from sklearn.linear_model import LogisticRegression

    fits = [
        LogisticRegression(C=c, max_iter=2000).fit(train, labels)
        for c in (1e-4, 1e-3, 0.01, 0.1, 1.0)
    ]
    best = max(fits, key=lambda fit: acl18.accuracy(val_labels, fit.predict(val)))
    return best.predict(test)


def word_labels(view: View) -> NDArray:
    """TF-IDF of the window's words and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(analyzer=list, min_df=5, sublinear_tf=True)
    train = tfidf.fit_transform(view.documents("train"))
    val, test = (tfidf.transform(view.documents(role)) for role in ("val", "test"))
    return logistic(train, view.labels("train"), val, view.labels("val"), test)


def last_moves(data: Data, view: View) -> NDArray[np.float64]:
    """Sign of each test sample's newest known move, 1 for none."""
    close = data.bars.set_index(["ticker", "session"])["adj_close"]
    signs = []
    for share, ends in zip(view.shares, view.ends("test"), strict=True):
        own = close[share.ticker].pct_change()
        signs.append(np.where(own.loc[share.sessions[ends]] < 0, -1.0, 1.0))
    return np.concatenate(signs)


def compare(data: Data, corpus: pd.DataFrame, seeds: range) -> dict[str, Any]:
    """All figures of one folder."""
    seen = views(data, corpus)
    prices = seen["prices"]
    actual, sessions, counts = prices.labels("test"), prices.sessions("test"), {}
    for role in ("train", "val", "test"):
        own = prices.labels(role)
        counts[role] = {"samples": len(own), "up_share": float((own > 0).mean())}
    last = seen["prices and texts (midnight)"]
    with_text = np.concatenate(
        [
            [(share.ticker, share.sessions[end]) in last.words for end in ends]
            for share, ends in zip(last.shares, last.ends("test"), strict=True)
        ]
    )
    rng = np.random.default_rng(0)
    majority = 1.0 if counts["train"]["up_share"] >= 0.5 else -1.0
    moved = last_moves(data, prices)
    made: dict[str, Callable[[], list[NDArray]]] = {
        "coin flips": lambda: [rng.choice([-1.0, 1.0], len(actual)) for _ in seeds],
        "majority of the training span": lambda: [np.full(len(actual), majority)],
        "the last move goes on": lambda: [moved],
        "the last move turns": lambda: [-moved],
    }
    for name, view in seen.items():
        made[f"logistic regression, {name}"] = lambda view=view: [
            logistic(
                view.windows("train"),
                view.labels("train"),
                view.windows("val"),
                view.labels("val"),
                view.windows("test"),
            )
        ]
        if view.words:
            made[f"TF-IDF and logistic regression, {name.partition(' and ')[2]}"] = (
                lambda view=view: [word_labels(view)]
            )
        for kind, network in NETWORKS.items():
            made[f"{kind}, {name}"] = lambda view=view, network=network: network_labels(
                view, network, seeds
            )
    found = {}
    for name, predict in made.items():
        begun = time.process_time()
        found[name] = figures(actual, predict(), sessions, with_text)
        found[name]["cpu_seconds"] = time.process_time() - begun
        shown = found[name]
        print(
            f"{name:<55} accuracy {shown['accuracy']:.4f} ± {shown.get('accuracy_sd', 0):.4f}"
            f"  MCC {shown['mcc']:+.4f} ± {shown.get('mcc_sd', 0):.4f}",
            file=sys.stderr,
        )
    return {
        "tickers": len(prices.shares),
        **counts,
        "test_with_text": int(with_text.sum()),
        "figures": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published")
    parser.add_argument("--data", type=Path, default=SHARED / "stocknet")
    parser.add_argument(
        "--labels",
        type=Path,
        default=SHARED / "sentfin" / "headlines.csv.gz",
        help="labelled headlines for the sentiment model; where absent, the embedded ones",
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS.name}")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        sys.exit(f"{asked.data} is not there: nothing is measured")
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    real = asked.labels.exists()
    corpus = read_labels(asked.labels) if real else SampleSource().labelled_headlines()
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}, torch {torch.__version__}",
        "labelled_headlines": "of the folder" if real else "embedded",
        "acl18": compare(acl18.read(asked.data), corpus, range(asked.seeds)),
        "published": PUBLISHED,
        "caveat": CAVEAT,
    }
    print(json.dumps(found, indent=1))
    if asked.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
