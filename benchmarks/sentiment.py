"""Sentiment of headlines beside TF-IDF with logistic regression and a plain recurrent network.

    python -m benchmarks.sentiment [--sentfin FILE] [--seeds 0 1 2] [--vectors glove-6b-50d]
                                   [--train sentfin embedded small] [--models ...] [--out FILE]

Prints a line for each model and test, and one table as JSON. ``--out`` keeps the table in a file
that grows with every model, so that a run which is cut short loses one model at most; rows of
another run stay there unless they are measured again.

SEntFiN is a CSV of headline, label and split; without it the embedded corpus stands alone. Every
model sees training rows only; nothing was tuned on a test row. ``small`` is a tenth of SEntFiN's
training rows. Each trained model is judged on both corpora, and on test rows of SEntFiN in lower
case and with typing errors. Seconds are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rnn_pipeline.features.text import Vocabulary
from rnn_pipeline.features.vectors import read_vectors
from rnn_pipeline.market.grammar import labelled_corpus
from rnn_pipeline.market.labels import read_labels
from rnn_pipeline.networks.devices import numerics
from rnn_pipeline.networks.reading import Headlines, SentimentLSTM
from rnn_pipeline.networks.recurrent import initialise
from rnn_pipeline.networks.sentiment import LABELS, SentimentClassifier
from rnn_pipeline.networks.training import fit
from rnn_pipeline.settings import SentimentSpec, TrainingSpec

Probabilities = Callable[[list[str]], np.ndarray]
SENTFIN = Path(__file__).parents[2] / "shared" / "data" / "sentfin" / "headlines.csv.gz"


def majority(texts: list[str], targets: np.ndarray, seed: int, vectors: str) -> Probabilities:
    share = np.bincount(targets, minlength=len(LABELS)) / len(targets)
    return lambda texts: np.tile(share, (len(texts), 1))


def tfidf(texts: list[str], targets: np.ndarray, seed: int, vectors: str) -> Probabilities:
    """As scikit-learn comes."""
    return _tfidf(texts, targets, C=1.0, sublinear=False)


def tfidf_tuned(texts: list[str], targets: np.ndarray, seed: int, vectors: str) -> Probabilities:
    """The better of what is usually tried; found by cross-validation on training rows."""
    return _tfidf(texts, targets, C=10.0, sublinear=True)


def _tfidf(texts: list[str], targets: np.ndarray, C: float, sublinear: bool) -> Probabilities:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear)
    return (
        make_pipeline(rows, LogisticRegression(C=C, max_iter=1000))
        .fit(texts, targets)
        .predict_proba
    )


def plain_network(texts: list[str], targets: np.ndarray, seed: int, vectors: str) -> Probabilities:
    """A bidirectional LSTM with attention over pretrained vectors, as tutorials build it."""
    cpu, max_len = torch.device("cpu"), 40
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    held_out, rows = order.split([len(texts) // 10, len(texts) - len(texts) // 10])
    vocabulary = Vocabulary.build([texts[row] for row in rows.tolist()], 10_000, 2)
    found = read_vectors(vectors, vocabulary.words)
    start = torch.randn(len(vocabulary), found.dim, generator=torch.Generator().manual_seed(seed))
    for word, vector in found.vectors.items():
        start[vocabulary.index[word]] = torch.from_numpy(vector)
    network = SentimentLSTM(
        len(vocabulary), found.dim, 64, len(LABELS), bidirectional=True, attention=True
    )
    initialise(network, torch.Generator().manual_seed(seed))
    network.start_from(start * 0.3)
    read, target = Headlines(texts, vocabulary, max_len, 0, cpu), torch.from_numpy(targets)
    spec = TrainingSpec(epochs=10, batch_size=64, learning_rate=1e-3, patience=3)
    with numerics(cpu):
        fit(
            network,
            torch.nn.functional.cross_entropy,
            lambda rows: (*read.batch(rows)[:2], target[rows]),
            rows,
            held_out,
            spec,
            seed,
        )

    def probabilities(texts: list[str]) -> np.ndarray:
        read = Headlines(texts, vocabulary, max_len, 0, cpu)
        with numerics(cpu), torch.inference_mode():
            parts = torch.arange(len(texts)).split(256)
            logits = torch.cat([network(*read.batch(rows)[:2]) for rows in parts])
        return logits.softmax(1).numpy()

    return probabilities


def ours(texts: list[str], targets: np.ndarray, seed: int, vectors: str) -> Probabilities:
    return _ours(texts, targets, seed, None)


def ours_with_vectors(
    texts: list[str], targets: np.ndarray, seed: int, vectors: str
) -> Probabilities:
    return _ours(texts, targets, seed, vectors)


def _ours(texts: list[str], targets: np.ndarray, seed: int, vectors: str | None) -> Probabilities:
    classifier = SentimentClassifier(spec=SentimentSpec(seed=seed), device="cpu")
    classifier.fit(texts, np.array(LABELS)[targets], pretrained_embeddings=vectors)
    return classifier.predict_proba


MODELS = {
    "majority": (majority, False),
    "tfidf_logistic_regression": (tfidf, False),
    "tfidf_sublinear_C10": (tfidf_tuned, False),
    "plain_bilstm_vectors": (plain_network, True),
    "ours": (ours, True),
    "ours_vectors": (ours_with_vectors, True),
}


def mistyped(text: str, rng: random.Random) -> str:
    """About one word in five with two neighbouring letters swapped or one left out."""
    words = text.split()
    for place, word in enumerate(words):
        if len(word) > 3 and rng.random() < 0.2:
            at = rng.randrange(1, len(word) - 2)
            tail = word[at + 1] + word[at] if rng.random() < 0.5 else word[at + 1]
            words[place] = word[:at] + tail + word[at + 2 :]
    return " ".join(words)


def figures(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predicted = probabilities.argmax(axis=1)
    f1 = [
        2 * ((predicted == k) & (targets == k)).sum() / ((predicted == k).sum() + n)
        for k, n in enumerate(np.bincount(targets, minlength=len(LABELS)))
    ]
    return {
        "accuracy": round(float((predicted == targets).mean()), 4),
        "macro_f1": round(float(np.mean(f1)), 4),
    }


def test_sets(corpora: dict[str, pd.DataFrame]) -> dict[str, tuple[list[str], np.ndarray]]:
    found = {}
    for name, corpus in corpora.items():
        test = corpus[corpus["split"] == "test"]
        texts, targets = test["headline"].tolist(), numbers(test)
        found[name] = texts, targets
        if name == "sentfin":
            rng = random.Random(0)
            found["sentfin lower case"] = [text.lower() for text in texts], targets
            found["sentfin mistyped"] = [mistyped(text, rng) for text in texts], targets
    return found


def numbers(rows: pd.DataFrame) -> np.ndarray:
    return np.array([LABELS.index(label) for label in rows["label"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentfin", type=Path, default=SENTFIN)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--vectors", default="glove-6b-50d")
    parser.add_argument("--train", nargs="+", default=["sentfin", "embedded", "small"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    corpora = {"embedded": labelled_corpus()}
    if asked.sentfin.exists():
        corpora["sentfin"] = read_labels(asked.sentfin)
    tests = test_sets(corpora)
    rows: list[dict[str, object]] = []
    if asked.out and asked.out.exists():
        rows = json.loads(asked.out.read_text())["table"]
    for trained_on in asked.train:
        corpus = corpora.get("sentfin" if trained_on == "small" else trained_on)
        if corpus is None:
            continue
        train = corpus[corpus["split"] == "train"]
        train = train.iloc[::10] if trained_on == "small" else train
        for name in asked.models:
            measured = measure(name, train, tests, asked.seeds, asked.vectors)
            rows = [row for row in rows if (row["train"], row["model"]) != (trained_on, name)]
            for row in measured:
                rows.append({"train": trained_on, **row})
                print(json.dumps(rows[-1]), flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(report(rows, asked.vectors), indent=1) + "\n")
    print(json.dumps(report(rows, asked.vectors), indent=1))


def measure(
    name: str,
    train: pd.DataFrame,
    tests: dict[str, tuple[list[str], np.ndarray]],
    seeds: list[int],
    vectors: str,
) -> list[dict[str, object]]:
    """One model, trained with every seed and judged on every test."""
    make, seeded = MODELS[name]
    texts, targets = train["headline"].tolist(), numbers(train)
    seconds = []
    found: dict[str, list[np.ndarray]] = {test: [] for test in tests}
    for seed in seeds if seeded else seeds[:1]:
        started = time.process_time()
        model = make(texts, targets, seed, vectors)
        seconds.append(round(time.process_time() - started, 1))
        for test, (unseen, _) in tests.items():
            found[test].append(model(unseen))
    return [
        {
            "rows": len(train),
            "test": test,
            "model": name,
            "seeds": [figures(tests[test][1], one) for one in probabilities],
            "together": figures(tests[test][1], np.mean(probabilities, axis=0)),
            "fit_s": seconds,
        }
        for test, probabilities in found.items()
    ]


def report(rows: list[dict[str, object]], vectors: str) -> dict[str, object]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f},"
        f" Python {platform.python_version()}, torch {torch.__version__}, one thread",
        "vectors": vectors,
        "table": rows,
    }


if __name__ == "__main__":
    main()
