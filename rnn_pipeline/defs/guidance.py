"""What is missing before an asset can be made by hand, said in the first line of its failure."""

from collections.abc import Sequence

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
