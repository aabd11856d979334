"""A past signal, made again from what was known then.

Every row carries the hashes of what made it, and nothing that was known is ever overwritten. So a
stored signal can be rebuilt stage by stage, and where the result is another one, the hashes and
revisions say why: other code, another network, or another bar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.chain import sized
from rnn_pipeline.evidence.comparison import opening_the_newest_fold
from rnn_pipeline.evidence.significance import walk_forward_evidence
from rnn_pipeline.features import catalogue
from rnn_pipeline.features.model import model_columns, model_features
from rnn_pipeline.features.sentiment import DECLARED_SENTIMENT, NEWS_REACH, SPAN, news_sentiment
from rnn_pipeline.features.windows import ModelMatrix
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.networks.checkpoints import checkpoint_hash, code_version, weights_hash
from rnn_pipeline.networks.registry import ServingFiles, marked_expired
from rnn_pipeline.networks.sentiment import load_sentiment
from rnn_pipeline.networks.walk_forward import Forecaster, stamped
from rnn_pipeline.settings import Settings
from rnn_pipeline.trading import fusion
from rnn_pipeline.trading.lineage import fused_lineage, price_lineage, sentiment_lineage
from rnn_pipeline.warehouse import Warehouse

_KEYS = ["ticker", "session"]
_SIGNAL = ("forecast", "signal", "grade", "weight")
_FUSED = (
    "forecast",
    "sentiment",
    "price_contribution",
    "sentiment_contribution",
    "signal",
    "label",
    "abstains",
)
_ADDED = ("forecast", "standardised", "grade", "weight", "contribution")


@dataclass(frozen=True)
class Replay:
    """What became of a signal that was made again.

    Attributes:
        compared: stage -> values compared.
        differences: stage, row, column, stored, rebuilt; one line per value that is another one.
        causes: which code, network or missing row explains it, one sentence each.
        revisions: of the bars behind the signal that became known after it: session, revision,
            known_at, reason. They do not enter a rebuilt signal; they are why one that is made
            today would differ.
    """

    compared: dict[str, int]
    differences: pd.DataFrame
    causes: tuple[str, ...]
    revisions: pd.DataFrame

    @property
    def same(self) -> bool:
        """Whether every value is the stored one, bit for bit."""
        return self.differences.empty


class _Comparison:
    """Collects what differs, stage by stage."""

    def __init__(self) -> None:
        self.compared: dict[str, int] = {}
        self.lines: list[dict[str, object]] = []

    def add(
        self,
        stage: str,
        stored: pd.DataFrame,
        rebuilt: pd.DataFrame,
        columns: Sequence[str],
        keys: Sequence[str] = tuple(_KEYS),
    ) -> bool:
        """Compare the columns of rows with the same keys; whether all are the same."""
        both = stored[[*keys, *columns]].merge(
            rebuilt[[*keys, *columns]], on=list(keys), how="left", suffixes=("", "_rebuilt")
        )
        before = len(self.lines)
        for name in columns:
            one, two = both[name], both[f"{name}_rebuilt"]
            unequal = ~((one == two) | (one.isna() & two.isna())).to_numpy(dtype=bool)
            for row in np.flatnonzero(unequal):
                self.lines.append(
                    {
                        "stage": stage,
                        "row": ", ".join(_shown(both[key].iloc[row]) for key in keys),
                        "column": name,
                        "stored": one.iloc[row],
                        "rebuilt": two.iloc[row],
                    }
                )
        self.compared[stage] = both.shape[0] * len(columns)
        return len(self.lines) == before


def replay(
    store: Warehouse,
    settings: Settings,
    ticker: str,
    session: date,
    checkpoint: Callable[[str], Path],
    sentiment_checkpoint: Path,
    serving: ServingFiles,
) -> Replay:
    """Make the signal of one ticker and session again and compare it with the stored one.

    Args:
        store: the warehouse; it is only read.
        settings: the model and trading rules.
        ticker: whose signal.
        session: of which session.
        checkpoint: model -> file of the ticker's networks of all folds.
        sentiment_checkpoint: file of the sentiment network.
        serving: the networks that forecast sessions as they came.

    Raises:
        ValueError: no signal of the ticker and session is stored.
    """
    if store.rows("trading_signals", ticker=ticker, session=session).empty:
        raise ValueError(
            f"no signal of {ticker} on {session} is stored: it is no session, lies before the first"
            " test session, or was never materialized"
        )
    calendar = SessionCalendar(settings.exchange)
    axis = calendar.sessions(calendar.first_session.date(), session)[-settings.model.lookback :]
    days = (axis[0].date(), session)
    seen = _Comparison()
    causes: list[str] = []

    bars = store.bars_by_era([ticker], *days, catalogue.WARM_UP)
    rest = [other for other in store.tickers() if other != ticker]
    others = store.bars_by_era(rest, *days, catalogue.UNIVERSE_WARM_UP)
    now = catalogue.feature_table_hash()
    prices = catalogue.feature_table(bars, others).assign(feature_set_hash=now)
    stored_prices = store.rows("price_features", ticker=ticker, session=days)
    if not seen.add("price_features", stored_prices, prices, catalogue.NAMES):
        made_by = sorted(set(stored_prices["feature_set_hash"]))
        causes.append(
            f"code: price features were made by {', '.join(made_by)}, now it is {now}"
            if made_by != [now]
            else "data: the bars known then are no longer what they were, or other tickers are"
            " compared"
        )

    stored_news = store.rows("news_sentiment", ticker=ticker, session=days)
    news_bars = store.bars_by_era([ticker], *days, SPAN - 1)
    headlines = store.headlines(
        [ticker],
        news_bars["session"].min().tz_localize("UTC") - NEWS_REACH,
        news_bars["known_at"].max(),
    )
    score = load_sentiment(sentiment_checkpoint).score
    sentiment = news_sentiment(headlines, news_bars, calendar, score)
    if not seen.add("news_sentiment", stored_news, sentiment, DECLARED_SENTIMENT):
        scored_by = sorted(set(stored_news["model_hash"]))
        now = checkpoint_hash(sentiment_checkpoint)[:16]
        causes.append(
            f"model: sentiment was scored by {', '.join(scored_by)}, now there is {now}"
            if scored_by != [now]
            else "data: the headlines known then are no longer what they were"
        )

    columns = model_columns(settings.model.features)
    shown = model_features(prices, sentiment, columns)
    matrix = ModelMatrix.build(shown, columns)
    stored = store.rows("walk_forward_forecasts", ticker=ticker, session=session)
    networks = _networks(stored, store.rows("models", ticker=ticker), checkpoint, serving)
    forecasts, replaced = _forecasts(networks, prices, sentiment)
    causes += replaced
    keys = [*_KEYS, "model", "seed"]
    seen.add("forecasts", stored, forecasts, ["forecast", "model_hash"], keys)

    rebuilt = stored.drop(columns=["forecast", "model_hash"]).merge(forecasts, on=keys)
    graded = store.rows("evidence", ticker=ticker)
    history = store.rows("recipe_forecasts", ticker=ticker)
    all_news = store.rows("news_sentiment", ticker=ticker)
    evidence = walk_forward_evidence(
        opening_the_newest_fold(history), all_news, store.rows("trials", ticker=ticker)
    )
    own_fold = graded[graded["fold"].isin(stored["fold"])]
    if not seen.add(
        "evidence", own_fold, evidence, ["ic", "grade", "forecast_std"], ["ticker", "model", "fold"]
    ):
        causes.append("data: forecasts or outcomes of earlier folds have changed since the grading")

    sessions = calendar.sessions(calendar.first_session.date(), session)
    rebuilt = marked_expired(rebuilt, sessions, settings.model_expiry)
    base_horizon = settings.model.base_horizon
    price = fusion.price_signals(rebuilt, graded, base_horizon)
    told = fusion.with_folds(sentiment, rebuilt)
    news = fusion.sentiment_signals(told, graded)
    sources = [
        fusion.price_sources(rebuilt, graded, base_horizon),
        fusion.sentiment_sources(told, graded),
    ]
    added = fusion.contributions(
        price,
        pd.concat(sources),
        settings.trading,
        lambda _: fusion.source_history(history, all_news),
    )
    fused = fusion.fuse(price, news, added, settings.trading)
    made_by = fused_lineage(
        price_lineage(stamped(forecasts, shown, base_horizon), matrix, settings.model.lookback),
        sentiment_lineage(told.assign(model_hash=checkpoint_hash(sentiment_checkpoint)[:16])),
    )
    position, _ = sized(store, settings, session, session, instead=fused)
    day: dict[str, Any] = {"ticker": ticker, "session": session}
    signal = store.rows("trading_signals", **day)
    for stage, made, names in (
        ("price_signals", price, _SIGNAL),
        ("sentiment_signals", news, _SIGNAL),
        ("trading_signals", fused, _FUSED),
        ("trading_decisions", position, ("position",)),
    ):
        seen.add(stage, store.rows(stage, **day), made, names)
    stored_added = store.rows("signal_contributions", **day)
    seen.add("signal_contributions", stored_added, added, _ADDED, [*_KEYS, "source"])
    # Other code may well make the same signal: it is told, but is no difference.
    seen.add("lineage", signal, made_by, ["data_hash", "model_hash"])
    causes += _lineage_causes(signal.iloc[0], made_by)
    return Replay(
        seen.compared,
        pd.DataFrame(seen.lines, columns=["stage", "row", "column", "stored", "rebuilt"]),
        tuple(causes) or (() if not seen.lines else ("settings: the rules of trading differ",)),
        _revisions_since(store, ticker, bars, stored_prices["known_at"].max()),
    )


def _lineage_causes(stored: pd.Series, rebuilt: pd.DataFrame) -> list[str]:
    """What the hashes of a signal say of why it would be another one now."""
    told = {
        "data_hash": "data: the features and the sentiment behind the signal",
        "feature_set_hash": "code: what computes the features",
        "code_version": "code: what trains, and makes signals of forecasts,",
        "model_hash": "model: the networks behind the signal",
    }
    return [
        f"{what} had the hash {stored[name]}, now {now}"
        for name, what in told.items()
        for now in rebuilt[name]
        if stored[name] != now
    ]


def _networks(
    stored: pd.DataFrame,
    versions: pd.DataFrame,
    checkpoint: Callable[[str], Path],
    serving: ServingFiles,
) -> list[tuple[pd.DataFrame, Forecaster]]:
    """Stored forecasts, each beside what made them: a fold of the walk-forward, or a version."""
    found = []
    ticker = str(stored["ticker"].iloc[0])
    for (model, fold, version), own in stored.groupby(["model", "fold", "version"], dropna=False):
        files = versions.loc[versions["version"] == version, "checkpoint"]
        kept = [name for name in files if name in serving.kept()]
        if kept:
            found.append((own, serving.load(kept[-1], [ticker])[ticker]))
        else:
            found.append((own, Forecaster.load(checkpoint(model), [fold])))
    return found


def _forecasts(
    networks: Sequence[tuple[pd.DataFrame, Forecaster]],
    prices: pd.DataFrame,
    sentiment: pd.DataFrame,
) -> tuple[pd.DataFrame, list[str]]:
    """Forecast the last session of the features again, and say which networks are others now."""
    made, causes = [networks[0][0].iloc[:0]], []
    for stored, forecaster in networks:
        model, fold = stored["model"].iloc[0], stored["fold"].iloc[0]
        newest = max(forecaster.scales, default=fold)
        for row in stored.itertuples():
            member = forecaster.members.get((newest, row.seed))
            held = weights_hash(member.state)[:16] if member is not None else "none"
            if held != row.model_hash:
                causes.append(
                    f"model: {model}, fold {fold}, seed {row.seed} was {row.model_hash} (code"
                    f" {row.code_version}), the checkpoint holds {held} (code {code_version()})"
                )
        if forecaster.members and set(forecaster.columns) <= {
            *catalogue.NAMES,
            *DECLARED_SENTIMENT,
        }:
            columns = forecaster.columns
            matrix = ModelMatrix.build(model_features(prices, sentiment, columns), columns)
            inputs = forecaster.scales[newest].inputs.transform(matrix.values)
            ends = np.array([len(inputs) - 1])
            made.append(forecaster.forecast(newest, inputs, ends, matrix.sessions))
        elif forecaster.members:
            causes.append(f"model: {model}, fold {fold} sees features that no longer exist")
    frame = pd.concat(made[1:] or made, ignore_index=True)
    return frame[[*_KEYS, "model", "seed", "forecast", "model_hash"]], causes


def _revisions_since(
    store: Warehouse, ticker: str, bars: pd.DataFrame, moment: pd.Timestamp
) -> pd.DataFrame:
    """Revisions of the bars behind a signal that became known after it."""
    span = (bars["session"].min().date(), bars["session"].max().date())
    raw = store.rows(
        "raw_ohlcv", "session, revision, known_at, reason", ticker=ticker, session=span
    )
    return raw[raw["known_at"] > moment].reset_index(drop=True)


def _shown(value: object) -> str:
    return f"{value:%Y-%m-%d}" if isinstance(value, pd.Timestamp) else str(value)
