"""The search for better settings; run by hand, and its finds are put into the settings by hand."""

from pathlib import Path

import dagster as dg
import pandas as pd
from pydantic import Field

from rnn_pipeline.defs.features import sequence_windows, session_axis
from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.metadata import show, table
from rnn_pipeline.defs.networks import folds_of, read_windows
from rnn_pipeline.defs.partitions import ONE_RUN, SETTINGS, TICKERS, tickers_of
from rnn_pipeline.defs.resources import (
    COMPUTE_POOL,
    ComputeResource,
    MarketResource,
    WarehouseResource,
)
from rnn_pipeline.reporting import plots
from rnn_pipeline.warehouse.files import write_atomically

_NETWORKS = list(SETTINGS.model.networks)

#: What a network that was found is called, whatever it began as.
_FOUND = "tuned"


def fragment_path(ticker: str) -> Path:
    """Where the best settings of a ticker are written, ready for ``rnn_pipeline.toml``."""
    return SETTINGS.tuning_dir / f"{ticker}.toml"


class TuneConfig(dg.Config):
    """How long to search, and where."""

    trials: int | None = Field(
        None, ge=1, description="in all, those of earlier runs included; empty: tuning.n_trials"
    )
    start: str = Field(_NETWORKS[0], description="the network of model.networks to begin with")
    fold: int = Field(
        0,
        ge=0,
        description=(
            "in whose training span. The first ends before any session that is tested; a later one"
            " chooses settings by sessions that earlier folds test."
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
@says_why
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
    from rnn_pipeline.networks.tuning import Candidate, inner_datasets, left_out, tune

    if config.start not in SETTINGS.model.networks:
        raise dg.Failure(f"no network is called {config.start!r}; choose among {_NETWORKS}")
    spec = SETTINGS.tuning.model_copy(
        update={"n_trials": config.trials or SETTINGS.tuning.n_trials}
    )
    model = SETTINGS.model
    horizon = model.base_horizon
    start = Candidate(model.networks[config.start], model.training, model.lookback)
    axis = session_axis(warehouse, market)
    folds = folds_of(axis, horizon)
    if config.fold >= len(folds):
        raise dg.Failure(f"there is no fold {config.fold}: the last one is {len(folds) - 1}")
    fold = folds[config.fold]
    closes = market.calendar.closes(axis)
    reasons = dict.fromkeys(tickers_of(context), "no windows: run the job retrain first")
    trials, importances, found, fragments = [], {}, [], []
    longest = spec.lookback[1]
    for matrix, index in read_windows(warehouse, axis, tickers_of(context), longest, horizon):
        own = set(index["ticker"])
        here = left_out(matrix, index, fold, spec, horizon)
        reasons |= {ticker: reason for ticker, reason in here.items() if ticker in own}
        for ticker in sorted(ticker for ticker in own if not reasons[ticker]):
            tuned = tune(
                _FOUND,
                fold.number,
                inner_datasets(matrix, index, fold, ticker, spec, horizon),
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
            first, last = axis[fold.train[0]], axis[fold.train[-1]]
            fragment = (
                "# For rnn_pipeline.toml; naming a network there replaces the default ones.\n"
                f"# Best of {len(rows)} trials on {ticker}, sessions {first:%Y-%m-%d} to"
                f" {last:%Y-%m-%d}:\n# validation error {tuned.best_value:.4f}, where forecasting 0"
                f" has 1.\n{tuned.best.to_toml(_FOUND)}"
            )
            write_atomically(fragment_path(ticker), fragment.encode())
            trials.append(rows)
            importances[ticker] = tuned.importances
            fragments.append(fragment)
            found.append(
                {
                    "ticker": ticker,
                    "fold": fold.number,
                    "trials": len(rows),
                    "value": tuned.best_value,
                }
                | tuned.best.params
            )
    reasons = {ticker: reason for ticker, reason in reasons.items() if reason}
    if not found:
        told = "; ".join(f"{ticker}: {reason}" for ticker, reason in reasons.items())
        raise dg.Failure(
            f"fold {fold.number} cannot be searched in ({told}), with windows of"
            f" {spec.lookback[1]} sessions and {spec.splits} splits: lower tuning.lookback or"
            " tuning.splits, or choose a later fold"
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
            "tickers_left_out": dg.MetadataValue.json(reasons),
        }
    )


def _progress(done: pd.DataFrame, of: int) -> str:
    last = done.iloc[-1]
    best = done.loc[done["state"] == "complete", "value"].min()
    return (
        f"{last['ticker']}: trial {len(done)} of {of} {last['state']} at {last['value']:.4f},"
        f" best {best:.4f}"
    )
