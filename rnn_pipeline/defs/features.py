"""What the networks see: price features, daily sentiment, their join, and the windows over it."""

import shutil
from datetime import timedelta

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.guidance import require, says_why
from rnn_pipeline.defs.metadata import holds, ranges, show, table
from rnn_pipeline.defs.partitions import (
    BY_TICKER,
    ONE_RUN,
    SETTINGS,
    TICKER_BY_DATE,
    TICKERS,
    first_session,
    span_of,
    tickers_of,
)
from rnn_pipeline.defs.pending import nothing_new, pending
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.features import catalogue, model, price, sentiment
from rnn_pipeline.features.folds import fold_table, open_sessions, walk_forward
from rnn_pipeline.features.windows import ModelMatrix, fold_status, window_index
from rnn_pipeline.market.quality import DRIFT_SHARE, check_drift, check_features
from rnn_pipeline.reporting import plots
from rnn_pipeline.warehouse import inputs
from rnn_pipeline.warehouse.files import sha256_of

#: The columns of a window, in their order.
COLUMNS = model.model_columns(SETTINGS.model.features)

#: The days whose features are compared with the training span.
_RECENT = timedelta(days=90)

SENTIMENT_MODEL = SETTINGS.checkpoint_dir / "sentiment.safetensors"

_FEATURES_HOLD = dg.AssetCheckSpec(
    "price_features_hold",
    asset="price_features",
    blocking=True,
    description="Every row behind the warm-up is complete, finite and within its bounds.",
)


@dg.asset(
    partitions_def=TICKER_BY_DATE,
    backfill_policy=ONE_RUN,
    deps=["raw_ohlcv"],
    pool=WAREHOUSE_POOL,
    group_name="features",
    kinds={"duckdb", "numpy"},
    check_specs=[_FEATURES_HOLD],
)
@says_why
def price_features(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """Causal, scale-free features of every session, each from the bars known at its close.

    Features that compare tickers look at every ticker of the warehouse, whichever are materialized.
    Beside them the targets whose outcome these sessions brought: the log return over the horizon
    that ended here.
    """
    store = warehouse.store
    require(store, "price_features", span_of(context).tickers, until="raw_ohlcv")
    work = pending(context, store, inputs.BARS)
    if work is None:
        return nothing_new("price_features_hold")
    span = work.span
    bars = store.bars_by_era(span.tickers, span.first, span.last, catalogue.WARM_UP)
    rest = sorted(set(store.tickers()) - set(span.tickers))
    others = store.bars_by_era(rest, span.first, span.last, catalogue.UNIVERSE_WARM_UP)
    rows = catalogue.feature_table(bars, others)
    made_by = catalogue.feature_table_hash()
    horizons = SETTINGS.model.horizons
    outcomes = pd.concat([price.targets(bars, horizon) for horizon in horizons])
    outcomes = outcomes.dropna(subset="target")
    outcomes = outcomes[outcomes["target_session"] >= pd.Timestamp(span.first)]
    verdict = check_features(rows, catalogue.BOUNDS, catalogue.in_warm_up(bars))
    check = holds("price_features_hold", verdict)
    days = (span.first, span.last)
    with store.batch() as batch:
        batch.replace(
            "price_features",
            rows.assign(feature_set_hash=made_by, run_id=context.run.run_id),
            ticker=span.tickers,
            session=days,
        )
        batch.replace(
            "targets",
            outcomes.assign(run_id=context.run.run_id),
            ticker=span.tickers,
            target_session=days,
            horizon=list(horizons),
        )
        work.done(batch, sound=check.passed)
    names = [feature.name for feature in price.PRICE_FEATURES]
    warm = rows.dropna(subset=names)
    show(
        context,
        distributions=lambda: plots.feature_distributions(warm, names),
        newest=table(rows.groupby("ticker").tail(1), ["ticker", "session", *names[:8]]),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(rows),
            "rows_in_warm_up": len(rows) - len(warm),
            "targets": len(outcomes),
            "features": len(catalogue.NAMES),
            "feature_set_hash": made_by,
        },
        check_results=[check],
    )


@dg.asset(
    partitions_def=TICKER_BY_DATE,
    backfill_policy=ONE_RUN,
    deps=["raw_ohlcv", "raw_news", "sentiment_model"],
    pool=WAREHOUSE_POOL,
    group_name="features",
    kinds={"duckdb", "pytorch"},
)
@says_why
def news_sentiment(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """The sentiment network's score of the headlines usable at each session's close.

    A headline published after the close belongs to the next session; a session without headlines is
    a row with sentiment 0.
    """
    store = warehouse.store
    require(store, "news_sentiment", span_of(context).tickers, until="raw_ohlcv")
    if not SENTIMENT_MODEL.exists():
        raise dg.Failure("news_sentiment needs sentiment_model: run the job refresh first")
    network = sha256_of(SENTIMENT_MODEL)
    work = pending(context, store, inputs.BARS, inputs.HEADLINES, by=network)
    if work is None:
        return nothing_new()

    from rnn_pipeline.networks.sentiment import load_sentiment

    span = work.span
    sessions = store.bars_by_era(span.tickers, span.first, span.last, sentiment.SPAN - 1)
    headlines = store.headlines(
        span.tickers,
        sessions["session"].min().tz_localize("UTC") - sentiment.NEWS_REACH,
        sessions["known_at"].max(),
    )
    score = load_sentiment(SENTIMENT_MODEL).score
    rows = sentiment.news_sentiment(headlines, sessions, market.calendar, score)
    with store.batch() as batch:
        batch.replace(
            "news_sentiment",
            rows.assign(model_hash=network[:16], run_id=context.run.run_id),
            ticker=span.tickers,
            session=(span.first, span.last),
        )
        work.done(batch)
    show(context, sentiment=lambda: plots.sentiment_and_news(rows))
    return dg.MaterializeResult(
        metadata={
            **ranges(rows),
            "headlines": int(rows["news_count"].sum()),
            "sessions_without_news": int((rows["news_count"] == 0).sum()),
        }
    )


@dg.asset(
    partitions_def=TICKER_BY_DATE,
    backfill_policy=ONE_RUN,
    deps=[price_features, news_sentiment],
    pool=WAREHOUSE_POOL,
    group_name="features",
    kinds={"duckdb"},
)
@says_why
def model_features(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource
) -> dg.MaterializeResult:
    """What a network is shown of a session: price features and sentiment side by side."""
    store = warehouse.store
    require(store, "model_features", span_of(context).tickers, until="news_sentiment")
    work = pending(context, store, inputs.made("price_features", "news_sentiment"))
    if work is None:
        return nothing_new()
    span = work.span
    days = {"ticker": span.tickers, "session": (span.first, span.last)}
    prices = store.rows("price_features", **days)
    rows = model.model_features(prices, store.rows("news_sentiment", **days), COLUMNS)
    with store.batch() as batch:
        batch.replace("model_features", rows.assign(run_id=context.run.run_id), **days)
        work.done(batch)
    show(context, newest=table(rows.groupby("ticker").tail(1), ["ticker", "session", *COLUMNS[:8]]))
    return dg.MaterializeResult(
        metadata={
            **ranges(rows),
            "complete_rows": int(rows[list(COLUMNS)].notna().all(axis=1).sum()),
            "columns": dg.MetadataValue.json(list(COLUMNS)),
        }
    )


@dg.asset_check(
    asset=model_features,
    name="model_features_as_in_training",
    description="The newest sessions lie within what the newest fold's networks were trained on.",
    pool=WAREHOUSE_POOL,
)
@says_why
def model_features_as_in_training(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Drift of the networks' inputs against the training span of the newest fold."""
    store = warehouse.store
    spans = store.rows("folds", role="train")
    if spans.empty:
        return dg.AssetCheckResult(passed=True, description="no fold has been cut yet")
    span = spans.iloc[-1]
    trained = store.rows(
        "model_features",
        session=(span["first_session"].date(), span["last_session"].date()),
    ).dropna(subset=list(COLUMNS))
    since = store.last_session() or span["last_session"].date()
    newest = store.rows("model_features", session=(since - _RECENT, since))
    if trained.empty:
        return dg.AssetCheckResult(
            passed=True, description="no row of the training span is complete"
        )
    verdict = check_drift(newest, trained, COLUMNS)
    drifted = {
        rule: share
        for rule, share in verdict.summary["share_outside"].items()
        if share > DRIFT_SHARE
    }
    return dg.AssetCheckResult(
        passed=verdict.summary["passed"],
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            "; ".join(
                f"{name}: {share:.0%} of new rows are outside" for name, share in drifted.items()
            )
            or f"{len(newest)} rows of the newest sessions lie within the training span"
        ),
        metadata={
            "rows_outside": table(verdict.bad.head(20), ["ticker", "session", "rule"]),
            "suite": dg.MetadataValue.json(verdict.summary),
        },
    )


@dg.asset(
    partitions_def=TICKERS,
    backfill_policy=ONE_RUN,
    deps=[dg.AssetDep(model_features, partition_mapping=BY_TICKER)],
    pool=WAREHOUSE_POOL,
    group_name="features",
    kinds={"numpy"},
)
@says_why
def sequence_windows(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """One memory-mapped matrix of features, and the rows at which complete windows end.

    Windows are never copied: a network gathers its batch from the matrix. The metadata shows which
    windows each fold may train on, stop on and test, and which tickers have too little history. All
    horizons test the same sessions; the spans shown are purged by the shortest.
    """
    tickers = list(tickers_of(context))
    store = warehouse.store
    require(store, "sequence_windows", tickers, until="model_features")
    features = store.rows("model_features", ticker=tickers)
    matrix = ModelMatrix.build(features, COLUMNS, features["feature_set_hash"].max())
    folder = SETTINGS.matrix_dir / matrix.content_hash[:16]
    matrix.write(folder)
    axis = session_axis(warehouse, market)
    folds = walk_forward(
        open_sessions(axis, SETTINGS.folds), SETTINGS.folds, SETTINGS.model.base_horizon
    )
    targets = store.rows("targets", ticker=tickers, horizon=SETTINGS.model.base_horizon)
    index = window_index(matrix, targets, axis, SETTINGS.model.lookback)
    status = fold_status(matrix, index, folds)
    spans = fold_table(folds, axis)
    usable = status[status["reason"] == ""].groupby("ticker").size()
    market_status = store.rows("ticker_status", ticker=tickers).set_index("ticker")
    sets = pd.DataFrame({"ticker": tickers}).assign(
        matrix=folder.name,
        windows=lambda frame: frame["ticker"].map(index.groupby("ticker").size()).fillna(0),
        folds=lambda frame: frame["ticker"].map(usable).fillna(0),
        status=lambda frame: (
            frame["ticker"].map(_reasons(status, usable, market_status)).fillna("ok")
        ),
        run_id=context.run.run_id,
    )
    with store.batch() as batch:
        batch.replace("window_sets", sets, ticker=tickers)
    _drop_unused(store.rows("window_sets")["matrix"])
    show(
        context,
        fold_map=plots.fold_map(spans),
        tickers_left_out=table(sets[sets["folds"] == 0], ["ticker", "windows", "status"]),
        windows_per_fold=table(status),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(features),
            "windows": len(index),
            "folds": len(folds),
            "matrix_bytes": matrix.values.nbytes,
        }
    )


def session_axis(warehouse: WarehouseResource, market: MarketResource) -> pd.DatetimeIndex:
    """Every session from the settings' first to the newest stored one; folds count on it.

    Raises:
        dagster.Failure: no bar is stored yet.
    """
    last = warehouse.store.last_session()
    if last is None:
        raise dg.Failure("the warehouse holds no bars: materialize raw_ohlcv first (job refresh)")
    return market.calendar.sessions(first_session(SETTINGS), last)


def _reasons(folds: pd.DataFrame, usable: pd.Series, market_status: pd.DataFrame) -> dict[str, str]:
    """Why a ticker takes part in no fold: it has no bars, or too few for the closest one."""
    without_bars = market_status[market_status["sessions"].isna()]
    reasons = (without_bars["reason"].where(without_bars["reason"] != "", "no bars")).to_dict()
    left_out = folds[~folds["ticker"].isin(usable.index)].sort_values("train")
    for row in left_out.itertuples():
        bars = market_status["sessions"].get(row.ticker, 0)
        reasons[row.ticker] = f"{row.reason} ({bars:.0f} bars)"
    return reasons


def _drop_unused(used: pd.Series) -> None:
    for folder in SETTINGS.matrix_dir.iterdir():
        if folder.name not in set(used):
            shutil.rmtree(folder)
