"""The whole chain as one function: from what is known to decisions, without Dagster.

`Stages` holds, in the order of the flow, the very functions that the assets of ``defs`` call, and
`run` passes frames from one to the next on a warehouse of its own that is gone afterwards. That is
what the look-ahead test runs dozens of times, with any one stage replaced where it is to be shown
that a leak would be caught.

It stands above the wings it joins and below ``defs``: no wing knows of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch

from rnn_pipeline.evidence.baselines import walk_forward_baselines
from rnn_pipeline.evidence.lookahead import Knowledge
from rnn_pipeline.evidence.significance import walk_forward_evidence, with_sentiment
from rnn_pipeline.evidence.trials import recipes, trials_of
from rnn_pipeline.features import catalogue, price
from rnn_pipeline.features.folds import Fold, open_sessions, walk_forward
from rnn_pipeline.features.model import model_columns, model_features
from rnn_pipeline.features.sentiment import NEWS_REACH, SPAN, news_sentiment
from rnn_pipeline.features.windows import (
    FoldData,
    ModelMatrix,
    fold_datasets,
    fold_windows,
    window_index,
)
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.networks.checkpoints import weights_hash
from rnn_pipeline.networks.fleet import Compute
from rnn_pipeline.networks.sentiment import SentimentClassifier, train_sentiment
from rnn_pipeline.networks.walk_forward import (
    Forecaster,
    quantile_rows,
    stamped,
    train_walk_forward,
    walk_forward_forecasts,
)
from rnn_pipeline.settings import SentimentSpec, Settings
from rnn_pipeline.trading import fusion
from rnn_pipeline.trading.account import Account
from rnn_pipeline.trading.decisions import decide
from rnn_pipeline.trading.lineage import fused_lineage, price_lineage, sentiment_lineage
from rnn_pipeline.trading.positions import VOLUME_SESSIONS, market_conditions, size_positions
from rnn_pipeline.warehouse import Warehouse

Frame: TypeAlias = pd.DataFrame


def sentiment_of(corpus: Frame, spec: SentimentSpec) -> SentimentClassifier:
    """Train the sentiment network on the training rows of a corpus, on the CPU."""
    train = corpus[corpus["split"] == "train"]
    return train_sentiment(
        train["headline"].tolist(), train["label"].tolist(), spec, torch.device("cpu")
    )


@dataclass(frozen=True)
class Stages:
    """What the chain is made of; replace one with `dataclasses.replace` to see what becomes of it.

    Attributes:
        universe: the tickers, from all rows of raw bars.
        bars: point-in-time bars for computing rows of a range (``Warehouse.bars_by_era``).
        price_features: features of bars, beside the bars of tickers that are not computed.
        targets: what forecasts are measured against.
        sentiment_model: the trained sentiment network.
        news_sentiment: headlines to rows of sentiment.
        model_features: what networks are shown of a session.
        folds: training, validation and test spans.
        fold_datasets: each ticker's share of each fold, scaled.
        forecasters: the trained networks of one model.
        baselines: their forecasts of every fold's test sessions.
        forecasts: of every fold's test sessions.
        evidence: what each fold's forecasts may be believed.
        price_signals: forecasts as signals.
        sentiment_signals: sentiment as signals.
        contributions: what each source adds, by the policy.
        trading_signals: all of it as one.
        market: what sizing must know of each session.
        positions: weights, and the account that holds them.
        trading_decisions: what to do.
    """

    universe: Callable[[Frame], list[str]] = lambda bars: sorted(bars["ticker"].unique())
    bars: Callable[[Warehouse, Sequence[str], date, date, int], Frame] = Warehouse.bars_by_era
    price_features: Callable[[Frame, Frame], Frame] = catalogue.feature_table
    targets: Callable[[Frame, int], Frame] = price.targets
    sentiment_model: Callable[[Frame, SentimentSpec], SentimentClassifier] = sentiment_of
    news_sentiment: Callable[..., Frame] = news_sentiment
    model_features: Callable[[Frame, Frame, Sequence[str]], Frame] = model_features
    folds: Callable[..., tuple[Fold, ...]] = walk_forward
    fold_datasets: Callable[..., Iterable[FoldData]] = fold_datasets
    forecasters: Callable[..., int] = train_walk_forward
    baselines: Callable[..., tuple[Frame, int]] = walk_forward_baselines
    forecasts: Callable[..., Frame] = walk_forward_forecasts
    evidence: Callable[[Frame, Frame, Frame], Frame] = walk_forward_evidence
    price_signals: Callable[[Frame, Frame], Frame] = fusion.price_signals
    sentiment_signals: Callable[[Frame, Frame], Frame] = fusion.sentiment_signals
    contributions: Callable[..., Frame] = fusion.contributions
    trading_signals: Callable[..., Frame] = fusion.fuse
    market: Callable[[Frame, Frame], Frame] = market_conditions
    positions: Callable[..., tuple[Frame, Frame]] = size_positions
    trading_decisions: Callable[[Frame, Frame], Frame] = decide


STAGES = Stages()
_KEYS = ["ticker", "session"]


def run(knowledge: Knowledge, settings: Settings, stages: Stages = STAGES) -> dict[str, Frame]:
    """Run every stage on all tickers and sessions, and return what each made.

    Networks train on the CPU. The date axis begins with the first bar that was ever known.

    Args:
        knowledge: the raw tables.
        settings: folds, model, trading; nothing is read from or written to its ``data_dir``.
        stages: what to run.

    Returns:
        Asset to frame, in the order of the flow; each row with ``known_at``. What belongs to a fold
        as a whole (scales, its windows) is dated to the fold's first test session, networks to the
        first forecast that they are asked for: a ticker without one has none. Quantiles are there
        where a network forecasts any.

    Raises:
        ValueError: as the stages do; too few sessions for one fold among them.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse(Path(folder) / "warehouse.duckdb")
        with store.batch() as batch:
            batch.append("raw_ohlcv", knowledge.bars)
            batch.append("raw_news", knowledge.headlines)
            batch.append("labelled_headlines", knowledge.corpus)
        return _run(store, settings, stages)


def _run(store: Warehouse, settings: Settings, stages: Stages) -> dict[str, Frame]:
    calendar, model = SessionCalendar(settings.exchange), settings.model
    traded = store.rows("raw_ohlcv", "ticker, session, known_at")
    tickers = stages.universe(traded)
    first, last = traded["session"].min().date(), traded["session"].max().date()
    axis = calendar.sessions(first, last)
    closes = pd.Series(calendar.closes(axis), index=axis)

    bars = stages.bars(store, tickers, first, last, catalogue.WARM_UP)
    prices = stages.price_features(bars, bars.iloc[:0]).assign(
        feature_set_hash=catalogue.feature_table_hash()
    )
    outcomes = stages.targets(bars, model.horizon).dropna(subset="target")

    sentiment_network = stages.sentiment_model(store.rows("labelled_headlines"), model.sentiment)
    sessions = stages.bars(store, tickers, first, last, SPAN - 1)
    headlines = store.headlines(
        tickers, axis[0].tz_localize("UTC") - NEWS_REACH, sessions["known_at"].max()
    )
    sentiment = stages.news_sentiment(headlines, sessions, calendar, sentiment_network.score)

    columns = model_columns(model.features)
    shown = stages.model_features(prices, sentiment, columns)
    matrix = ModelMatrix.build(shown, columns)
    folds = stages.folds(open_sessions(axis, settings.folds), settings.folds, model.horizon)
    index = window_index(matrix, outcomes, axis, model.lookback)
    datasets = list(stages.fold_datasets(matrix, index, folds))

    # A GPU has rounding of its own.
    backend = "auto" if settings.compute.backend == "gpu" else settings.compute.backend
    compute = Compute(torch.device("cpu"), backend, memory_gb=settings.compute.memory_gb)
    fitted: dict[str, dict[str, Forecaster]] = {}
    for name, network in model.networks.items():
        made: list[Forecaster] = []
        stages.forecasters(
            name,
            columns,
            datasets,
            network,
            model.training,
            model.seeds,
            compute,
            networks={},
            on_complete=made.extend,
            warm_epochs=model.warm_epochs,
        )
        fitted[name] = {one.ticker: one for one in sorted(made, key=lambda one: one.ticker)}
    baselines = stamped(stages.baselines(datasets, outcomes)[0], shown, model.horizon)
    forecasts = stamped(stages.forecasts(datasets, list(fitted.values())), shown, model.horizon)
    with store.batch() as batch:
        batch.append("targets", outcomes)
        batch.append("forecasts", forecasts)
    known = store.rows("walk_forward_forecasts")
    # Nothing else was ever tried here, so when it was does not matter.
    tried = trials_of(
        with_sentiment(known, sentiment),
        **recipes(model, settings.folds),
        tried_at=closes.iloc[0],
    )
    evidence = stages.evidence(known, sentiment, tried)
    told = fusion.with_folds(sentiment, known)
    from_price = stages.price_signals(known, evidence)
    from_news = stages.sentiment_signals(told, evidence)
    added = stages.contributions(
        from_price,
        pd.concat(
            [fusion.price_sources(known, evidence), fusion.sentiment_sources(told, evidence)]
        ),
        settings.trading,
        lambda: fusion.source_history(known, sentiment),
    )
    signals = stages.trading_signals(from_price, from_news, added, settings.trading)
    market = stages.market(
        stages.bars(store, tickers, first, last, VOLUME_SESSIONS - 1),
        prices[["ticker", "session", "volatility_20"]],
    )
    positions, account = stages.positions(
        signals, market, settings.trading, settings.backtest, model.horizon
    )
    price_made = price_lineage(known, matrix, model.lookback)
    # The hash of the sentiment network is that of its file, and here there is none.
    news_made = sentiment_lineage(told.assign(model_hash="")).drop(columns="model_hash")
    both_made = fused_lineage(price_made, news_made.assign(model_hash="")).drop(
        columns="model_hash"
    )
    quantiles = quantile_rows(forecasts)
    # A fold begins with the first session that anyone traded: before it the fold does not exist.
    open_days = pd.DatetimeIndex(traded["session"].unique()).sort_values()
    begins = {
        fold.number: closes[open_days[open_days.searchsorted(axis[fold.test.start])]]
        for fold in folds
    }
    asked = forecasts.groupby(["ticker", "fold"])["known_at"].min()
    return {
        "price_features": prices,
        "targets": _dated(outcomes, prices),
        "sentiment_model": _sentiment_weights(sentiment_network, closes.iloc[0]),
        "news_sentiment": sentiment,
        "model_features": shown,
        "fold_windows": _fold_windows(index, folds, begins, closes),
        "scalers": _scalers(datasets, columns, begins),
        "training_history": _histories(fitted, asked),
        "checkpoints": _weights(fitted, asked),
        "baseline_forecasts": baselines,
        "forecasts": forecasts,
        **({"forecast_quantiles": quantiles} if len(quantiles) else {}),
        "evidence": evidence,
        "price_signals": from_price.merge(price_made, on=_KEYS),
        "sentiment_signals": from_news.merge(news_made, on=_KEYS),
        "signal_contributions": added,
        "trading_signals": signals.merge(both_made, on=_KEYS),
        "trading_decisions": stages.trading_decisions(signals, positions).merge(
            both_made, on=_KEYS
        ),
        "trading_account": account,
    }


def sized(
    store: Warehouse, settings: Settings, first: date, last: date, instead: Frame | None = None
) -> tuple[Frame, Frame]:
    """Size the stored signals of some sessions, going on from the account before them.

    What was decided of earlier sessions is taken from the stored rows, so that any cut of a history
    into runs gives the same weights. All tickers of a session share its limits.

    Args:
        store: the warehouse; it is only read.
        settings: limits, costs and the horizon.
        first: first session to size; those since the last stored account are sized on the way.
        last: last session.
        instead: rows of trading_signals that take the place of stored ones.

    Returns:
        Positions of all tickers, and rows of trading_account, of the sessions from ``first`` on.
    """
    known = store.read(
        "SELECT * FROM trading_account WHERE session < ? ORDER BY session DESC LIMIT 2", [first]
    )
    account, begin = None, date.min
    if len(known):
        of_them = known["session"].dt.date.tolist()
        held = store.rows("trading_decisions", "ticker, session, position", session=of_them)
        account, begin = Account.resume(known, held), max(of_them) + timedelta(days=1)
    days = {"session": (begin, last)}
    signals = store.rows("trading_signals", **days)
    if instead is not None:
        signals = pd.concat([instead, signals]).drop_duplicates(_KEYS)
    market = market_conditions(
        store.bars_by_era(store.tickers(), begin, last, VOLUME_SESSIONS - 1),
        store.rows("price_features", "ticker, session, volatility_20", **days),
    )
    frames = size_positions(
        signals, market, settings.trading, settings.backtest, settings.model.horizon, account
    )
    positions, accounts = (frame[frame["session"] >= pd.Timestamp(first)] for frame in frames)
    return positions, accounts


def _dated(outcomes: Frame, prices: Frame) -> Frame:
    """Targets with the moment at which their last bar was known."""
    known = prices[["ticker", "session", "known_at"]]
    return outcomes.merge(known.rename(columns={"session": "target_session"}), how="left")


def _sentiment_weights(classifier: SentimentClassifier, known_at: pd.Timestamp) -> Frame:
    """The sentiment network as one row: its corpus has no dates."""
    words = " ".join(classifier.word2idx)
    weights = weights_hash(classifier.state)
    return pd.DataFrame({"weights": [weights], "vocabulary": [words], "known_at": [known_at]})


def _fold_windows(
    index: Frame, folds: Sequence[Fold], begins: Mapping[int, Any], closes: pd.Series
) -> Frame:
    """Which windows each fold trains on, stops on and tests."""
    rows = pd.concat([fold_windows(index, fold) for fold in folds], ignore_index=True)
    own, fold = rows["session"].map(closes), rows["fold"].map(begins)
    # The target of a test window is not yet known: it is compared among the targets.
    rows = rows.drop(columns=["end_row", "target"])
    return rows.assign(known_at=own.where(rows["role"] == "test", fold))


def _scalers(
    datasets: Iterable[FoldData], columns: Sequence[str], begins: Mapping[int, Any]
) -> Frame:
    """Means and deviations that inputs and targets are scaled by."""
    frames = [
        pd.DataFrame(
            {
                "ticker": data.ticker,
                "fold": data.fold,
                "feature": [*columns, "target"],
                "mean": [*data.input_scaler.mean, float(data.target_scaler.mean)],
                "std": [*data.input_scaler.std, float(data.target_scaler.std)],
                "known_at": begins[data.fold],
            }
        )
        for data in datasets
    ]
    return pd.concat(frames, ignore_index=True)


def _histories(fitted: Mapping[str, Mapping[str, Forecaster]], asked: pd.Series) -> Frame:
    """Loss curves."""
    curves = [
        forecaster.history for by_ticker in fitted.values() for forecaster in by_ticker.values()
    ]
    rows = pd.concat(curves, ignore_index=True)
    return rows.join(asked, on=["ticker", "fold"])


def _weights(fitted: Mapping[str, Mapping[str, Forecaster]], asked: pd.Series) -> Frame:
    """Hashes of all trained networks."""
    rows = pd.DataFrame(
        [
            {
                "ticker": ticker,
                "model": name,
                "fold": fold,
                "seed": seed,
                "weights": weights_hash(member.state),
            }
            for name, by_ticker in fitted.items()
            for ticker, forecaster in by_ticker.items()
            for (fold, seed), member in forecaster.members.items()
        ]
    )
    return rows.join(asked, on=["ticker", "fold"])
