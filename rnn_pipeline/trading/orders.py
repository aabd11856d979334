"""From target weights to orders: shares to buy or sell at the next open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import TradingSpec
from rnn_pipeline.trading.fusion import percent

ORDER_COLUMNS = (
    "ticker", "session", "side", "shares", "price", "notional", "held_shares", "target_shares",
    "target_weight", "reason",
)  # fmt: skip


def read_holdings(path: Path) -> pd.DataFrame:
    """Read what is held: a CSV file with the columns ticker, shares and, if wanted, price.

    Raises:
        ValueError: the file cannot be read, lacks a column, names a ticker twice, or has a number
            of shares or a price that is none; the message names the file and the row.
    """
    try:
        frame = pd.read_csv(path, dtype={"ticker": "str"}, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"holdings {path} cannot be read as CSV: {error}") from None
    if missing := {"ticker", "shares"} - set(frame.columns):
        raise ValueError(
            f"holdings {path} lack the columns {', '.join(sorted(missing))}: the first line is"
            " ticker,shares or ticker,shares,price"
        )
    frame["ticker"] = frame["ticker"].str.strip().str.upper()
    if "price" not in frame:
        frame["price"] = np.nan
    shares = pd.to_numeric(frame["shares"], errors="coerce")
    price = pd.to_numeric(frame["price"], errors="coerce")
    wrong = {
        "no ticker": frame["ticker"].isna() | (frame["ticker"] == ""),
        "a ticker that stands twice": frame["ticker"].duplicated(),
        "shares that are no number": ~np.isfinite(shares),
        "a price that is no positive number": frame["price"].notna() & ~(price > 0),
    }
    for what, rows in wrong.items():
        if rows.any():
            line = int(np.flatnonzero(rows)[0])
            raise ValueError(
                f"holdings {path}: row {line + 1} has {what}: {frame.iloc[line].to_dict()}"
            )
    return pd.DataFrame({"ticker": frame["ticker"], "shares": shares, "price": price})


def orders(
    decisions: pd.DataFrame,
    closes: pd.DataFrame,
    spec: TradingSpec,
    holdings: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """List what to buy and sell to get from what is held to what was decided.

    The target of a ticker is its weight of ``account``, in whole lots rounded towards zero. The
    order is the difference; one worth less than ``min_order`` is left out, unless it closes a
    position. A holding of which nothing was decided is left alone.

    Args:
        decisions: of one session: ticker, session, position, reason.
        closes: ticker, close: the last known price of each ticker, as it is quoted.
        spec: ``account``, ``lot`` and ``min_order``.
        holdings: ticker, shares (negative: short), price (instead of the close; may be empty) from
            :func:`read_holdings`; empty: nothing is held.

    Returns:
        Sorted by ticker: side (BUY or SELL), shares (positive), price that was reckoned with,
        notional (shares times price), held_shares, target_shares, target_weight, reason.

    Raises:
        ValueError: a column is missing, or a ticker with a decision has no price.
    """
    require(decisions, "decisions", ("ticker", "session", "position", "reason"), unique=["ticker"])
    require(closes, "closes", ("ticker", "close"), unique=["ticker"])
    held = (
        holdings
        if holdings is not None
        else pd.DataFrame({"ticker": pd.Series(dtype="str"), "shares": [], "price": []})
    )
    frame = decisions.merge(closes[["ticker", "close"]], on="ticker", how="left")
    frame = frame.merge(held, on="ticker", how="left").sort_values("ticker", ignore_index=True)
    frame["price"] = frame["price"].astype(np.float64).fillna(frame["close"])
    unpriced = frame[~(frame["price"] > 0)]
    if len(unpriced):
        raise ValueError(
            f"{unpriced['ticker'].iloc[0]} has no price: give one in the holdings, or its bars"
        )
    frame["held_shares"] = frame["shares"].astype(np.float64).fillna(0.0)
    lots = frame["position"] * spec.account / frame["price"] / spec.lot
    # A weight that was made from whole lots must give them back.
    frame["target_shares"] = (
        np.trunc(np.where(np.isclose(lots, lots.round(), rtol=1e-9, atol=0), lots.round(), lots))
        * spec.lot
        + 0.0
    )
    change = frame["target_shares"] - frame["held_shares"]
    frame["notional"] = change.abs() * frame["price"]
    closes_out = (frame["target_shares"] == 0) & (frame["held_shares"] != 0)
    frame = frame.assign(
        side=np.where(change > 0, "BUY", "SELL"),
        shares=change.abs(),
        target_weight=frame["position"],
    )
    frame = frame[(change != 0) & ((frame["notional"] >= spec.min_order) | closes_out)]
    told = [
        f"{side.capitalize()} {shares:g} at about {price:,.2f}: from {before:g} to {after:g}"
        f" shares, {percent(weight, 1)} of the account. {reason}"
        for side, shares, price, before, after, weight, reason in zip(
            *(frame[name] for name in ("side", "shares", "price", "held_shares", "target_shares")),
            frame["target_weight"],
            frame["reason"],
            strict=True,
        )
    ]
    frame = frame.assign(reason=pd.Series(told, index=frame.index, dtype="str"))
    return frame[list(ORDER_COLUMNS)].reset_index(drop=True)
