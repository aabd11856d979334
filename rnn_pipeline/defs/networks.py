"""The sentiment model, and the forecasters: one asset that differs by its network alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.features import COLUMNS, SENTIMENT_MODEL, sequence_windows, session_axis
from rnn_pipeline.defs.metadata import show, table
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKERS, tickers_of
from rnn_pipeline.defs.resources import (
    COMPUTE_POOL,
    ComputeResource,
    MarketResource,
    WarehouseResource,
)
from rnn_pipeline.features.folds import open_sessions, walk_forward
from rnn_pipeline.features.windows import ModelMatrix, fold_datasets, window_index
from rnn_pipeline.reporting import plots
from rnn_pipeline.settings import NetworkSpec

if TYPE_CHECKING:
    from rnn_pipeline.features.windows import FoldData
    from rnn_pipeline.networks.walk_forward import Forecaster

#: Networks between two lines of progress.
_PROGRESS_EVERY = 20

_CHECKPOINT_COLUMNS = [
    "ticker",
    "model",
    "path",
    "checkpoint_hash",
    "networks",
    "tested_until",
    "code_version",
    "written_at",
    "run_id",
]
_NO_HISTORY = pd.DataFrame({"ticker": [], "model": [], "fold": [], "seed": [], "epoch": []})


def checkpoint_path(model: str, ticker: str) -> Path:
    """Where the networks of one model and ticker are kept."""
    return SETTINGS.checkpoint_dir / model / f"{ticker}.safetensors"


@dg.asset(deps=["labelled_headlines"], pool=COMPUTE_POOL, group_name="networks", kinds={"pytorch"})
def sentiment_model(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """LSTMs and n-grams that say whether a headline is negative, neutral or positive.

    Trained on the corpus' training rows, judged on its test rows, which no training has seen. It is
    trained again only when the corpus, its specification or the code has changed.
    """
    from rnn_pipeline.networks.sentiment import LABELS, scores, train_or_load_sentiment

    corpus = warehouse.store.rows("labelled_headlines", "headline, label, split")
    train, test = (corpus[corpus["split"] == part] for part in ("train", "test"))
    model, trained_now = train_or_load_sentiment(
        SENTIMENT_MODEL,
        train["headline"].tolist(),
        train["label"].tolist(),
        SETTINGS.model.sentiment,
        compute.resolve(),
        compute.precision,
    )
    confusion = model.confusion(test["headline"].tolist(), test["label"].tolist())
    figures = scores(confusion)
    context.log.info(f"sentiment model: accuracy {figures['accuracy']:.3f} on held-out templates")
    show(context, confusion=plots.confusion(confusion, list(LABELS)))
    return dg.MaterializeResult(metadata={**figures, "trained_now": trained_now})


@dg.asset(pool=COMPUTE_POOL, group_name="networks", kinds={"pytorch"})
def gradient_flow(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """How far back the cells can learn: the gradient by the inputs 10, 50 and 200 steps ago.

    A property of untrained RNN, LSTM and GRU cells, not of the market: nothing goes in. The table
    shows what is left of the newest input's gradient at the oldest input of each sequence.
    """
    from rnn_pipeline.networks import cells

    flow = cells.compare_gradient_flow()
    show(
        context,
        gradient_flow=plots.gradient_flow(flow),
        remaining=table(cells.remaining_gradient(flow)),
    )
    return dg.MaterializeResult(metadata={"gradients": len(flow)})


def forecaster(model: str, network: NetworkSpec) -> dg.AssetsDefinition:
    """The asset that trains one network architecture on every fold and seed of its tickers."""

    @dg.asset(
        name=f"{model}_forecaster",
        description=(
            f"A {network.cell.upper()} forecaster with hidden sizes"
            f" {list(network.hidden_sizes)}: one network per ticker, fold and seed, stopped early"
            " on the fold's validation rows. Networks whose training data, specification and code"
            " are unchanged are taken from their checkpoint."
        ),
        partitions_def=TICKERS,
        backfill_policy=ONE_RUN,
        deps=[sequence_windows],
        pool=COMPUTE_POOL,
        group_name="networks",
        kinds={"pytorch"},
    )
    def asset(
        context: dg.AssetExecutionContext,
        warehouse: WarehouseResource,
        market: MarketResource,
        compute: ComputeResource,
    ) -> dg.MaterializeResult:
        from rnn_pipeline.networks.walk_forward import train_walk_forward

        tickers = tickers_of(context)
        fitted, trained = train_walk_forward(
            model,
            COLUMNS,
            read_fold_datasets(warehouse, market, tickers),
            network,
            SETTINGS.model.training,
            SETTINGS.model.seeds,
            compute.resolve(),
            known=load_forecasters(model, tickers),
            deterministic=compute.deterministic,
            precision=compute.precision,
            on_trained=lambda done, of: _report_progress(context, model, done, of),
        )
        written = pd.DataFrame(
            [_save(forecaster, context.run.run_id) for forecaster in fitted.values()],
            columns=_CHECKPOINT_COLUMNS,
        )
        history = pd.concat([forecaster.history for forecaster in fitted.values()] or [_NO_HISTORY])
        with warehouse.store.batch() as batch:
            batch.replace("checkpoints", written, ticker=tickers, model=model)
            batch.replace("training_history", history, ticker=tickers, model=model)
        show(
            context,
            loss_curves=plots.loss_curves(history),
            checkpoints=table(written, ["ticker", "networks", "checkpoint_hash"]),
        )
        return dg.MaterializeResult(
            metadata={
                "networks": int(written["networks"].sum()),
                "networks_trained": trained,
                "tickers_left_out": dg.MetadataValue.json(sorted(set(tickers) - set(fitted))),
            }
        )

    return asset


def read_fold_datasets(
    warehouse: WarehouseResource, market: MarketResource, tickers: list[str]
) -> Iterator["FoldData"]:
    """Each ticker's share of each fold, from the matrices that ``sequence_windows`` wrote."""
    store = warehouse.store
    sets = store.rows("window_sets", "ticker, matrix", ticker=tickers)
    axis = session_axis(warehouse, market)
    folds = walk_forward(
        open_sessions(axis, SETTINGS.folds), SETTINGS.folds, SETTINGS.model.horizon
    )
    for name, group in sets.groupby("matrix"):
        matrix = ModelMatrix.open(SETTINGS.matrix_dir / name)
        wanted = group["ticker"].tolist()
        targets = store.rows("targets", ticker=wanted, horizon=SETTINGS.model.horizon)
        index = window_index(matrix, targets, axis, SETTINGS.model.lookback)
        yield from fold_datasets(matrix, index[index["ticker"].isin(wanted)], folds)


def load_forecasters(model: str, tickers: list[str]) -> dict[str, "Forecaster"]:
    """The trained networks of one model, of the tickers that have any."""
    from rnn_pipeline.networks.walk_forward import Forecaster

    paths = {ticker: checkpoint_path(model, ticker) for ticker in tickers}
    return {ticker: Forecaster.load(path) for ticker, path in paths.items() if path.exists()}


def _save(forecaster: "Forecaster", run_id: str) -> dict[str, object]:
    """Write one ticker's networks and return the line of ``checkpoints`` that says so."""
    from rnn_pipeline.networks.checkpoints import checkpoint_hash, code_version

    path = checkpoint_path(forecaster.model, forecaster.ticker)
    forecaster.save(path, {"run_id": run_id, "code_version": code_version()})
    return {
        "ticker": forecaster.ticker,
        "model": forecaster.model,
        "path": str(path.relative_to(SETTINGS.home)),
        "checkpoint_hash": checkpoint_hash(path),
        "networks": len(forecaster.members),
        "tested_until": forecaster.tested_until,
        "code_version": code_version(),
        "written_at": datetime.now(UTC),
        "run_id": run_id,
    }


def _report_progress(context: dg.AssetExecutionContext, model: str, done: int, of: int) -> None:
    if done % _PROGRESS_EVERY == 0 or done == of:
        context.log.info(f"{model}: {done} of {of} networks trained")


forecasters = [forecaster(model, spec) for model, spec in SETTINGS.model.networks.items()]
