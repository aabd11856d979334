"""The sentiment model, and the forecasters: one asset that differs by its network alone."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.features import COLUMNS, SENTIMENT_MODEL, sequence_windows, session_axis
from rnn_pipeline.defs.guidance import require, says_why
from rnn_pipeline.defs.metadata import show, table
from rnn_pipeline.defs.models import asked_recipes
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKERS, every_ticker, tickers_of
from rnn_pipeline.defs.resources import (
    COMPUTE_POOL,
    ComputeResource,
    MarketResource,
    WarehouseResource,
)
from rnn_pipeline.features.folds import Fold, open_sessions, walk_forward
from rnn_pipeline.features.windows import ModelMatrix, fold_datasets, window_index
from rnn_pipeline.reporting import plots
from rnn_pipeline.settings import ModelSettings

if TYPE_CHECKING:
    from rnn_pipeline.features.windows import FoldData
    from rnn_pipeline.networks.walk_forward import Forecaster, StoredForecasters

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
_NO_CHECKPOINT = pd.DataFrame(columns=_CHECKPOINT_COLUMNS)
_NO_HISTORY = pd.DataFrame({"ticker": [], "model": [], "fold": [], "seed": [], "epoch": []})


def checkpoint_path(model: str, ticker: str) -> Path:
    """Where the networks of all folds of one model (see the registry) and ticker are kept."""
    return SETTINGS.checkpoint_dir / model / f"{ticker}.safetensors"


@dg.asset(deps=["labelled_headlines"], pool=COMPUTE_POOL, group_name="networks", kinds={"pytorch"})
@says_why
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
        compute.log_dir,
        lambda epoch, epochs, _train_loss, _val_loss: context.log.info(
            f"sentiment model: epoch {epoch} of {epochs}"
        ),
    )
    confusion = model.confusion(test["headline"].tolist(), test["label"].tolist())
    figures = scores(confusion)
    context.log.info(f"sentiment model: accuracy {figures['accuracy']:.3f} on held-out templates")
    losses = pd.DataFrame({name: model.history[name] for name in plots.LOSS_HUES})
    show(
        context,
        confusion=plots.confusion(confusion, list(LABELS)),
        loss_curves=plots.loss_curves(losses.rename_axis("epoch").reset_index()),
    )
    return dg.MaterializeResult(metadata={**figures, "trained_now": trained_now})


@dg.asset(pool=COMPUTE_POOL, group_name="networks", kinds={"pytorch"})
@says_why
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


def forecaster(slot: str, part: ModelSettings) -> dg.AssetsDefinition:
    """The asset that trains one network architecture on every fold and seed of its tickers.

    A pooled one has no partitions, since it learns from all tickers, whichever a run is about.

    Args:
        slot: the network's name in ``part.networks``.
        part: the model's settings of one horizon.
    """
    network, horizon = part.networks[slot], part.base_horizon

    @dg.asset(
        name=f"{slot}_forecaster",
        description=(
            f"A {network.cell.upper()} forecaster with hidden sizes"
            f" {list(network.hidden_sizes)}, {horizon} session{'s' * (horizon > 1)} ahead: one"
            " network per"
            f" {'' if network.pooled else 'ticker, '}fold and seed, stopped early on the fold's"
            " validation rows. Networks whose training data, specification and code are unchanged"
            " are taken from their checkpoint."
        ),
        partitions_def=None if network.pooled else TICKERS,
        backfill_policy=None if network.pooled else ONE_RUN,
        deps=[sequence_windows],
        pool=COMPUTE_POOL,
        group_name="networks",
        kinds={"pytorch"},
    )
    @says_why
    def asset(
        context: dg.AssetExecutionContext,
        warehouse: WarehouseResource,
        market: MarketResource,
        compute: ComputeResource,
    ) -> dg.MaterializeResult:
        from rnn_pipeline.networks.pooled import EVERYONE
        from rnn_pipeline.networks.walk_forward import StoredNetworks, train_walk_forward

        tickers = every_ticker(context) if network.pooled else tickers_of(context)
        require(warehouse.store, f"{slot}_forecaster", tickers, until="sequence_windows")
        model = asked_recipes(warehouse.store)[slot].model
        networks = StoredNetworks(
            SETTINGS.checkpoint_dir / model / "unfinished",
            filter(Path.exists, (checkpoint_path(model, ticker) for ticker in tickers)),
        )
        written = [_NO_CHECKPOINT]
        histories = [_NO_HISTORY]

        def keep(complete: Sequence["Forecaster"]) -> None:
            rows = [_save(forecaster, context.run.run_id) for forecaster in complete]
            written.append(pd.DataFrame(rows, columns=_CHECKPOINT_COLUMNS))
            histories.append(pd.concat([forecaster.history for forecaster in complete]))
            own = [forecaster.ticker for forecaster in complete]
            with warehouse.store.batch() as batch:
                batch.replace("checkpoints", written[-1], ticker=own, model=model)
                batch.replace("training_history", histories[-1], ticker=own, model=model)

        trained = train_walk_forward(
            model,
            COLUMNS,
            read_fold_datasets(warehouse, market, tickers, horizon),
            network,
            part.training,
            part.seeds,
            compute.fleet(),
            networks,
            keep,
            warm_epochs=part.warm_epochs,
            log_dir=compute.log_dir,
            tell=lambda line: context.log.info(f"{model}: {line}"),
        )
        networks.forget([EVERYONE] if network.pooled else tickers)
        checkpoints = pd.concat(written, ignore_index=True)
        left_out = sorted(set(tickers) - set(checkpoints["ticker"]))
        with warehouse.store.batch() as batch:
            batch.replace("checkpoints", _NO_CHECKPOINT, ticker=left_out, model=model)
            batch.replace("training_history", _NO_HISTORY, ticker=left_out, model=model)
        show(
            context,
            loss_curves=plots.loss_curves(pd.concat(histories, ignore_index=True)),
            checkpoints=table(checkpoints, ["ticker", "networks", "checkpoint_hash"]),
        )
        return dg.MaterializeResult(
            metadata={
                "networks": int(checkpoints["networks"].sum()),
                "networks_trained": trained,
                "tickers_left_out": dg.MetadataValue.json(left_out),
            }
        )

    return asset


def read_fold_datasets(
    warehouse: WarehouseResource, market: MarketResource, tickers: list[str], horizon: int
) -> Iterator["FoldData"]:
    """Each ticker's share of each fold, from the matrices that ``sequence_windows`` wrote."""
    axis = session_axis(warehouse, market)
    for matrix, index in read_windows(warehouse, axis, tickers, SETTINGS.model.lookback, horizon):
        yield from fold_datasets(matrix, index, folds_of(axis, horizon))


def folds_of(axis: pd.DatetimeIndex, horizon: int) -> tuple[Fold, ...]:
    """The settings' folds on an axis of sessions: all horizons test the same sessions."""
    return walk_forward(open_sessions(axis, SETTINGS.folds), SETTINGS.folds, horizon)


def read_windows(
    warehouse: WarehouseResource,
    axis: pd.DatetimeIndex,
    tickers: list[str],
    lookback: int,
    horizon: int,
) -> Iterator[tuple[ModelMatrix, pd.DataFrame]]:
    """The matrices that ``sequence_windows`` wrote, each with the windows of its tickers.

    Their targets are those of the horizon.
    """
    store = warehouse.store
    sets = store.rows("window_sets", "ticker, matrix", ticker=tickers)
    for name, group in sets.groupby("matrix"):
        matrix = ModelMatrix.open(SETTINGS.matrix_dir / name)
        wanted = group["ticker"].tolist()
        targets = store.rows("targets", ticker=wanted, horizon=horizon)
        index = window_index(matrix, targets, axis, lookback)
        yield matrix, index[index["ticker"].isin(wanted)]


def stored_forecasters(model: str, tickers: list[str]) -> "StoredForecasters":
    """The trained networks of one model, of the tickers that have any."""
    from rnn_pipeline.networks.walk_forward import StoredForecasters

    paths = {ticker: checkpoint_path(model, ticker) for ticker in tickers}
    return StoredForecasters({ticker: path for ticker, path in paths.items() if path.exists()})


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


forecasters = [
    forecaster(slot, part) for part in SETTINGS.model.by_horizon() for slot in part.networks
]
