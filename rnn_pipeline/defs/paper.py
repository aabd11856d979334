"""The paper account beside the backtest's promise."""

from datetime import date

import dagster as dg
import pandas as pd

from rnn_pipeline.defs.guidance import says_why
from rnn_pipeline.defs.market import raw_ohlcv
from rnn_pipeline.defs.metadata import ranges, show, table
from rnn_pipeline.defs.partitions import SETTINGS
from rnn_pipeline.defs.pending import nothing_new, pending_whole
from rnn_pipeline.defs.resources import WAREHOUSE_POOL, MarketResource, WarehouseResource
from rnn_pipeline.defs.trading import trading_decisions
from rnn_pipeline.market import asking
from rnn_pipeline.reporting import evidence_plots
from rnn_pipeline.trading import paper
from rnn_pipeline.warehouse import inputs


@dg.asset(
    deps=[trading_decisions, raw_ohlcv],
    pool=WAREHOUSE_POOL,
    group_name="trading",
    kinds={"duckdb"},
)
@says_why
def paper_account(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, market: MarketResource
) -> dg.MaterializeResult:
    """Decisions, recorded as they were made, traded on paper as bars arrive.

    Beside the account stands what the backtest says of the same sessions, and what explains the
    difference: revised decisions, missed orders, drift since the last close, slippage, cost.
    """
    store = warehouse.store
    rest_on = inputs.made("trading_decisions"), inputs.BARS
    work = pending_whole(context, store, *map(inputs.undated, rest_on))
    if work is None:
        return nothing_new()
    decisions = store.rows("trading_decisions")
    recorded = store.rows("paper_orders")
    new = paper.new_orders(recorded, decisions, SETTINGS.paper, asking.utc_now())
    with store.batch() as batch:
        batch.append("paper_orders", new.assign(run_id=context.run.run_id))
    orders = store.rows("paper_orders")
    first = orders["session"].min().date() if len(orders) else None
    bars = store.bars(sorted({*orders["ticker"], *decisions["ticker"]}), first)
    sessions = bars["session"].drop_duplicates()
    found = paper.paper_account(
        orders,
        decisions,
        bars,
        pd.Series(market.calendar.opens(sessions), index=pd.DatetimeIndex(sessions)),
        SETTINGS.backtest,
        SETTINGS.paper,
    )
    every = (date.min, date.max)
    with store.batch() as batch:
        for name, rows in (("paper_fills", found.fills), ("paper_account", found.account)):
            batch.replace(name, rows.assign(run_id=context.run.run_id), session=every)
        work.done(batch)
    account, fills = found.account, found.fills
    show(
        context,
        equity=lambda: evidence_plots.paper_curves(account),
        account=table(account.tail(10)),
        missed=table(fills[fills["missed"] != ""].tail(10)),
    )
    return dg.MaterializeResult(
        metadata={
            **ranges(orders),
            "new_orders": len(new),
            "missed": int((fills["missed"] != "").sum()),
            "equity": float(account["equity"].iloc[-1]) if len(account) else 1.0,
            "promise": float(account["promise"].iloc[-1]) if len(account) else 1.0,
        }
    )
