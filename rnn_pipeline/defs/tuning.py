"""The search for better settings; run by hand, and its finds are put into the settings by hand."""

from pathlib import Path

import dagster as dg
import pandas as pd
from pydantic import Field

from rnn_pipeline.defs.features import sequence_windows, session_axis
from rnn_pipeline.defs.metadata import show, table
from rnn_pipeline.defs.networks import folds_of, read_windows
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKERS, tickers_of
from rnn_pipeline.defs.resources import (
    COMPUTE_POOL,
    ComputeResource,
    MarketResource,
    WarehouseResource,
)
from rnn_pipeline.features.windows import fold_status
from rnn_pipeline.reporting import plots
from rnn_pipeline.warehouse.files import write_atomically

_MODELS = list(SETTINGS.model.networks)


def fragment_path(ticker: str) -> Path:
    """Where the best settings of a ticker are written, ready for ``rnn_pipeline.toml``."""
    return SETTINGS.tuning_dir / f"{ticker}.toml"


class TuneConfig(dg.Config):
    """How long to search, and where."""

    trials: int | None = Field(
        None, ge=1, description="in all, those of earlier runs included; empty: tuning.n_trials"
    )
    model: str = Field(_MODELS[0], description="the network of model.networks to begin with")
    fold: int | None = Field(
        None,
        ge=0,
        description=(
            "in whose training span; empty: the ticker's first, before every session that is"
            " tested. A later fold chooses settings by sessions that earlier folds test."
        ),
    )


@dg.asset(
    partitions_def=TICKERS,
    backfill_policy=ONE_RUN,
    deps=[sequence_windows],
    pool=COMPUTE_POOL,
    group_name="networks",
    kinds={"pytorch", "optuna"},
)
def tuning_trials(
    context: dg.AssetExecutionContext,
    config: TuneConfig,
    warehouse: WarehouseResource,
    market: MarketResource,
    compute: ComputeResource,
) -> dg.MaterializeResult:
    """Networks tried to find better settings, inside the training span of one fold.

    Cell, layers, widths, dropout, learning rate and lookback are searched; every trial is kept,
    pruned ones included, because evidence is worth less the more was tried. The best settings are
    written as a fragment of the settings file; nothing uses them until they are put there. A search
    that was cut off goes on where it was.
    """
    from rnn_pipeline.networks.checkpoints import code_version
    from rnn_pipeline.networks.tuning import Candidate, inner_datasets, tune

    if config.model not in SETTINGS.model.networks:
        raise dg.Failure(f"no network is called {config.model!r}; choose among {_MODELS}")
    spec = SETTINGS.tuning.model_copy(
        update={"n_trials": config.trials or SETTINGS.tuning.n_trials}
    )
    model = SETTINGS.model
    start = Candidate(model.networks[config.model], model.training, model.lookback)
    axis = session_axis(warehouse, market)
    folds = folds_of(axis)
    closes = market.calendar.closes(axis)
    trials, importances, found, fragments = [], {}, [], []
    for matrix, index in read_windows(warehouse, axis, tickers_of(context), spec.lookback[1]):
        status = fold_status(matrix, index, folds)
        usable = status[(status["reason"] == "") & status["ticker"].isin(set(index["ticker"]))]
        if config.fold is not None:
            usable = usable[usable["fold"] == config.fold]
        for ticker, number in usable.groupby("ticker")["fold"].min().items():
            fold = folds[number]
            tuned = tune(
                config.model,
                number,
                inner_datasets(matrix, index, fold, ticker, spec, model.horizon),
                start,
                spec,
                SETTINGS.tuning_dir / "studies.sqlite",
                compute.fleet(),
                on_trial=lambda done: context.log.info(_progress(done, spec.n_trials)),
            )
            rows = tuned.trials.assign(
                known_at=closes[fold.val.start - 1],
                run_id=context.run.run_id,
                code_version=code_version(),
            )
            with warehouse.store.batch() as batch:
                batch.upsert("tuning_trials", rows)
            fragment = (
                f"# Best of {len(rows)} trials on {ticker}, sessions {axis[fold.train[0]]:%Y-%m-%d}"
                f" to {axis[fold.train[-1]]:%Y-%m-%d};\n# its error there is"
                f" {tuned.best_value:.4f} of that of forecasting 0. Naming a network replaces the"
                f" default ones.\n{tuned.best.to_toml(config.model)}"
            )
            write_atomically(fragment_path(ticker), fragment.encode())
            trials.append(rows)
            importances[ticker] = tuned.importances
            fragments.append(fragment)
            found.append(
                {"ticker": ticker, "fold": number, "trials": len(rows), "value": tuned.best_value}
                | tuned.best.params
            )
    if not found:
        raise dg.Failure(
            f"none of {tickers_of(context)} takes part in a fold"
            f"{'' if config.fold is None else f' {config.fold}'} with windows of"
            f" {spec.lookback[1]} sessions: run the job retrain first, or lower tuning.lookback"
        )
    every = pd.concat(trials, ignore_index=True)
    show(
        context,
        best=table(pd.DataFrame(found)),
        settings=dg.MetadataValue.md("\n".join(f"```toml\n{text}```" for text in fragments)),
        history=plots.tuning_history(every),
        importances=plots.parameter_importances(pd.DataFrame(importances)),
    )
    return dg.MaterializeResult(
        metadata={
            "trials": len(every),
            "pruned": int((every["state"] == "pruned").sum()),
            "tickers": len(found),
        }
    )


def _progress(done: pd.DataFrame, of: int) -> str:
    last = done.iloc[-1]
    best = done.loc[done["state"] == "complete", "value"].min()
    return (
        f"{last['ticker']}: trial {len(done)} of {of} {last['state']} at {last['value']:.4f},"
        f" best {best:.4f}"
    )
