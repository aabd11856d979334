"""Failures whose first line says the cause, and what is missing to make an asset by hand."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import dagster as dg

from rnn_pipeline.warehouse import Warehouse

#: Assets in the order in which they are made, the table each fills, and the job that makes it.
_ORDER = (
    ("raw_ohlcv", "raw_ohlcv", "refresh"),
    ("price_features", "price_features", "refresh"),
    ("news_sentiment", "news_sentiment", "refresh"),
    ("model_features", "model_features", "refresh"),
    ("sequence_windows", "window_sets", "retrain"),
)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def says_why(body: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a failed run of an asset or a check begin with its cause.

    Dagster begins with "Error occurred while executing op" otherwise. The exception stays the
    failure's cause, with its trace.
    """

    @functools.wraps(body)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return body(*args, **kwargs)
        except dg.Failure:
            raise
        except Exception as error:
            raise dg.Failure(f"{type(error).__name__}: {error}") from error

    return told


def with_source(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset with a link to its body.

    ``dagster.with_source_code_references`` would link to what :func:`says_why` wraps around it.
    """
    compute: Any = asset.op.compute_fn
    body = inspect.unwrap(compute.decorated_fn)
    place = dg.LocalFileCodeReference(
        file_path=inspect.getfile(body), line_number=inspect.getsourcelines(body)[1]
    )
    link = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=link))


def require(store: Warehouse, asset: str, tickers: Sequence[str], until: str) -> None:
    """Refuse to make an asset whose tickers have nothing of what it is made from.

    A ticker may rightly have no row in some partitions, or too little history for a network; what
    is refused is that none of them was ever taken so far.

    Args:
        store: the warehouse.
        asset: what is being made.
        tickers: of the run.
        until: the last asset that must be there.

    Raises:
        dagster.Failure: the first line names the first asset that is missing.
    """
    names = [name for name, *_ in _ORDER]
    for name, table, job in _ORDER[: names.index(until) + 1]:
        if int(store.rows(table, "count(*) AS n", ticker=list(tickers))["n"].iloc[0]):
            continue
        told = ", ".join(tickers[:5]) or "any ticker"
        more = f" and {len(tickers) - 5} more" if tickers[5:] else ""
        raise dg.Failure(
            f"{asset} needs {name}, which has nothing on {told}{more}: run the job {job} for these"
            " partitions first, or demo, which makes everything in order"
        )
