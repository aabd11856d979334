"""The leak museum: ways of seeing the future that fooled published work, each able to run.

An exhibit replaces one stage of the chain. Everything else is the pipeline as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from rnn_pipeline.chain import STAGES, Stages, sentiment_of
from rnn_pipeline.evidence.lookahead import Knowledge
from rnn_pipeline.features.catalogue import feature_table
from rnn_pipeline.features.sentiment import news_sentiment
from rnn_pipeline.features.text import Vocabulary
from rnn_pipeline.features.windows import FoldData, Scaler, fold_datasets
from rnn_pipeline.networks.sentiment import SentimentClassifier
from rnn_pipeline.settings import SentimentSpec
from rnn_pipeline.warehouse import Warehouse

Frame = pd.DataFrame


@dataclass(frozen=True)
class Exhibit:
    """One leak.

    Attributes:
        name: what is done wrong.
        seen_in: where it was.
        leak: what is known -> the stages with one of them leaking.
        variant: the pass of the look-ahead test that is to catch it.
        asset: the first asset that is to differ.
    """

    name: str
    seen_in: str
    leak: Callable[[Knowledge], Stages]
    variant: str
    asset: str


def scaler_on_all_rows(_: Knowledge) -> Stages:
    def leaky(matrix: Any, index: Frame, folds: Sequence[Any]) -> Iterator[FoldData]:
        for data in fold_datasets(matrix, index, folds):
            rows = matrix.values[matrix.rows_of(data.ticker)]
            scaler = Scaler.fit(rows[~np.isnan(rows).any(axis=1)])
            yield replace(data, input_scaler=scaler)

    return replace(STAGES, fold_datasets=leaky)


def wavelet_over_the_whole_series(_: Knowledge) -> Stages:
    def denoised(prices: pd.Series) -> np.ndarray:
        """Three levels of the Haar transform, small details set to zero (Donoho 1995)."""
        approximation, details = np.log(prices.to_numpy()), []
        for _ in range(3):
            padded = np.append(approximation, approximation[-1:][: len(approximation) % 2])
            details.append((padded[::2] - padded[1::2], len(approximation)))
            approximation = (padded[::2] + padded[1::2]) / 2
        noise = np.median(np.abs(details[0][0])) / 0.6745 * np.sqrt(2 * np.log(len(prices)))
        for detail, length in reversed(details):
            kept = np.where(np.abs(detail) > noise, detail, 0.0)
            pairs = np.column_stack([approximation + kept / 2, approximation - kept / 2])
            approximation = pairs.ravel()[:length]
        return np.exp(approximation)

    def leaky(bars: Frame, others: Frame) -> Frame:
        bars = bars.sort_values(["ticker", "era", "session"], ignore_index=True)
        factor = bars["close"] / bars["adj_close"]
        smooth = bars.groupby(["ticker", "era"])["adj_close"].transform(denoised)
        return feature_table(bars.assign(adj_close=smooth, close=smooth * factor), others)

    return replace(STAGES, price_features=leaky)


def target_inside_the_features(_: Knowledge) -> Stages:
    def leaky(prices: Frame, sentiment: Frame, columns: Sequence[str]) -> Frame:
        tomorrow = prices.groupby("ticker")["return_1"].shift(-1)
        return STAGES.model_features(prices.assign(return_1=tomorrow), sentiment, columns)

    return replace(STAGES, model_features=leaky)


def centred_rolling_window(_: Knowledge) -> Stages:
    def leaky(bars: Frame, others: Frame) -> Frame:
        rows = feature_table(bars, others)
        kept = bars[bars["in_era"]].sort_values(["ticker", "session"])
        smooth = kept.groupby("ticker")["adj_close"].transform(
            lambda close: close.rolling(5, center=True).mean()
        )
        return rows.assign(close_to_sma_5=(kept["adj_close"] / smooth - 1).to_numpy())

    return replace(STAGES, price_features=leaky)


def headline_on_the_day_it_was_published(_: Knowledge) -> Stages:
    def leaky(headlines: Frame, *rest: Any) -> Frame:
        return news_sentiment(
            headlines.assign(usable_at=headlines["published_at"].dt.normalize()), *rest
        )

    return replace(STAGES, news_sentiment=leaky)


def early_stopping_on_the_test_set(_: Knowledge) -> Stages:
    def leaky(*arguments: Any) -> Iterator[FoldData]:
        for data in fold_datasets(*arguments):
            known = data.test_ends[np.isfinite(data.targets[data.test_ends])]
            if len(known):
                yield replace(data, val_ends=known)

    return replace(STAGES, fold_datasets=leaky)


def todays_history_as_of_the_past(_: Knowledge) -> Stages:
    def leaky(store: Warehouse, tickers: Sequence[str], *_range: Any) -> Frame:
        first_known = store.read(
            "SELECT ticker, session, min(known_at) AS known_at FROM raw_ohlcv GROUP BY ALL"
        )
        newest = store.bars(tickers).drop(columns="known_at")
        return newest.merge(first_known, on=["ticker", "session"]).assign(era=0, in_era=True)

    return replace(STAGES, bars=leaky)


def universe_of_survivors(_: Knowledge) -> Stages:
    def leaky(bars: Frame) -> list[str]:
        return sorted(bars.loc[bars["session"] == bars["session"].max(), "ticker"].unique())

    return replace(STAGES, universe=leaky)


def vocabulary_of_all_headlines(knowledge: Knowledge) -> Stages:
    build, titles = Vocabulary.build, knowledge.headlines["title"].tolist()

    def leaky(corpus: Frame, spec: SentimentSpec) -> SentimentClassifier:
        def of_all(texts: Sequence[str], *limits: int) -> Vocabulary:
            return build([*texts, *titles], *limits)

        with mock.patch.object(Vocabulary, "build", of_all):
            return sentiment_of(corpus, spec)

    return replace(STAGES, sentiment_model=leaky)


def forward_filled_delisting(knowledge: Knowledge) -> Stages:
    axis = pd.DatetimeIndex(sorted(knowledge.bars["session"].unique()))
    closes = knowledge.bars.groupby("session")["known_at"].min()

    def leaky(store: Warehouse, *arguments: Any) -> Frame:
        bars = store.bars_by_era(*arguments)
        filled = [
            own.set_index("session")
            .reindex(axis[axis >= own["session"].min()], method="ffill")
            .rename_axis("session")
            .reset_index()
            for _, own in bars[bars["in_era"]].groupby("ticker")
        ]
        bars = pd.concat(filled, ignore_index=True)
        return bars.assign(known_at=bars["session"].map(closes), era=0)

    return replace(STAGES, bars=leaky)


EXHIBITS = (
    Exhibit(
        "scaler fitted on all rows",
        "puffin and many tutorials",
        scaler_on_all_rows,
        "truncated",
        "scalers",
    ),
    Exhibit(
        "wavelet denoising over the whole series",
        "xLSTM-TS: 72.8 % accuracy became 49.5 % without it",
        wavelet_over_the_whole_series,
        "truncated",
        "price_features",
    ),
    Exhibit(
        "target inside the features",
        "tutorials that shift the wrong way",
        target_inside_the_features,
        "truncated",
        "model_features",
    ),
    Exhibit(
        "centred rolling window",
        "smoothed inputs",
        centred_rolling_window,
        "truncated",
        "price_features",
    ),
    Exhibit(
        "headline dated to the day it was published",
        "news joined to prices by calendar day",
        headline_on_the_day_it_was_published,
        "truncated",
        "news_sentiment",
    ),
    Exhibit(
        "early stopping on the test set",
        "Machine Learning for Trading, 2nd edition",
        early_stopping_on_the_test_set,
        "truncated",
        "training_history",
    ),
    Exhibit(
        "back-adjusted prices used as of the past",
        "any history downloaded today",
        todays_history_as_of_the_past,
        "restated",
        "price_features",
    ),
    Exhibit(
        "universe chosen by survival",
        "index members of today",
        universe_of_survivors,
        "truncated",
        "price_features",
    ),
    Exhibit(
        "vocabulary built from all headlines",
        "vectorisers fitted before the split",
        vocabulary_of_all_headlines,
        "truncated",
        "sentiment_model",
    ),
    Exhibit(
        "forward-filled delisting",
        "pivot and ffill",
        forward_filled_delisting,
        "made up",
        "price_features",
    ),
)
