"""The look-ahead test on what a warehouse really holds.

The chain is the whole one, the data are the stored ones with all their revisions, and the features
are those that the settings choose; only folds and networks are small, so that a pass takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from rnn_pipeline import chain
from rnn_pipeline.evidence.lookahead import Findings, Knowledge, look_ahead, sample_cuts
from rnn_pipeline.features import catalogue
from rnn_pipeline.features.windows import MIN_TRAIN_WINDOWS
from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.settings import FoldSpec, Settings, TrainingSpec
from rnn_pipeline.warehouse import Warehouse

_VAL, _TEST, _FOLDS = 20, 30, 3
_CORPUS_ROWS = 300


def rehearsal(settings: Settings) -> Settings:
    """The same pipeline with folds of weeks and networks of a few units."""
    model = settings.model
    longest = model.horizons[-1]
    train = catalogue.WARM_UP + model.lookback + MIN_TRAIN_WINDOWS + longest
    small = TrainingSpec(epochs=2, batch_size=32)
    return settings.model_copy(
        update={
            "folds": FoldSpec(train_size=train, val_size=_VAL + longest, test_size=_TEST),
            "model": model.model_copy(
                update={
                    "seeds": model.seeds[:1],
                    "training": small,
                    "networks": {
                        name: network.model_copy(
                            update={"hidden_sizes": (4,) * len(network.hidden_sizes)}
                        )
                        for name, network in model.networks.items()
                    },
                    "sentiment": model.sentiment.model_copy(
                        update={
                            "members": 1,
                            "embed_dim": 6,
                            "hidden_size": 6,
                            "least_steps": 0,
                            "training": small,
                        }
                    ),
                }
            ),
        }
    )


def sessions_needed(settings: Settings) -> int:
    """Sessions that three folds of a rehearsal span."""
    folds = rehearsal(settings).folds
    return folds.train_size + folds.val_size + _FOLDS * folds.test_size


def longest(store: Warehouse, number: int = 3) -> list[str]:
    """The tickers with most bars."""
    counts = store.read(
        "SELECT ticker, count(DISTINCT session) AS bars FROM raw_ohlcv WHERE is_final"
        " GROUP BY ticker ORDER BY bars DESC, ticker"
    )
    return counts["ticker"].head(number).tolist()


def stored_knowledge(store: Warehouse, tickers: Sequence[str], settings: Settings) -> Knowledge:
    """The newest sessions of some tickers with all their revisions and headlines.

    Raises:
        ValueError: there are no bars of them.
    """
    last = store.last_session(tickers)
    if last is None:
        raise ValueError(
            f"the warehouse has no bars of {', '.join(tickers)}: materialize raw_ohlcv for them"
            " first (`rnn-pipeline demo` does it)"
        )
    calendar = SessionCalendar(settings.exchange)
    all_sessions = calendar.sessions(calendar.first_session.date(), last)
    days = (all_sessions[-sessions_needed(settings)].date(), last)
    bars = store.rows("raw_ohlcv", ticker=list(tickers), session=days)
    headlines = store.rows("raw_news", ticker=list(tickers))
    corpus = store.rows("labelled_headlines", split="train")
    return Knowledge(
        bars[bars["is_final"]].reset_index(drop=True),
        headlines[headlines["usable_at"] >= pd.Timestamp(days[0], tz="UTC")],
        corpus.iloc[:: max(len(corpus) // _CORPUS_ROWS, 1)],
    )


def audit(
    store: Warehouse,
    tickers: Sequence[str],
    settings: Settings,
    cuts: int = 2,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Run the look-ahead test on the newest sessions of some tickers.

    Args:
        store: the warehouse; it is only read.
        tickers: of which.
        settings: features, cells, horizon and trading rules are taken from them.
        cuts: dates drawn from the test sessions.
        seed: of the dates.
        progress: told what is being run.

    Raises:
        ValueError: no bars, or too few for a fold.
    """
    small = rehearsal(settings)
    knowledge = stored_knowledge(store, tickers, settings)
    calendar = SessionCalendar(settings.exchange)
    sessions = calendar.sessions(
        knowledge.bars["session"].min().date(), knowledge.bars["session"].max().date()
    )
    # The second fold has evidence from the first, so that nothing compared is empty.
    first_test = small.folds.train_size + small.folds.val_size + small.folds.test_size
    return look_ahead(
        lambda known: chain.run(known, small),
        knowledge,
        sample_cuts(sessions[first_test:-2], cuts, seed),
        sessions,
        lambda session: calendar.closes(pd.DatetimeIndex([session]))[0],
        progress=progress,
    )


def summary(findings: Findings) -> pd.DataFrame:
    """One line per asset: rows compared over all passes, and the passes in which it differed."""
    lines = findings.passes.assign(differed=~findings.passes["same"])
    return lines.groupby("asset", sort=False, as_index=False).agg(
        passes=("same", "size"), rows=("rows", "sum"), differed=("differed", "sum")
    )
