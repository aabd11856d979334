"""How much: a weight per ticker and session from the signal, its risk and the limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from rnn_pipeline.evidence.layouts import require
from rnn_pipeline.settings import BacktestSpec, TradingSpec
from rnn_pipeline.trading.account import ACCOUNT_COLUMNS, Account, as_row, within_limits

POSITION_COLUMNS = ("ticker", "session", "position", "previous_position", "limited_by")
MARKET_COLUMNS = (
    "ticker", "session", "volatility_20", "open_return", "dollar_volume", "known_at",
)  # fmt: skip
VOLUME_SESSIONS = 20

_KEYS = ["ticker", "session"]


def market_conditions(bars: pd.DataFrame, volatility: pd.DataFrame) -> pd.DataFrame:
    """What sizing must know of each session, as it was known at its close.

    Args:
        bars: from ``Warehouse.bars_by_era``, with ``VOLUME_SESSIONS - 1`` bars before the first
            wanted one.
        volatility: ticker, session, volatility_20 (standard deviation of daily log returns).

    Returns:
        One row per ticker and session, sorted by them: volatility_20 (empty where unknown),
        open_return (simple return from the open of the ticker's bar before, dividends included;
        empty for its first), dollar_volume (median of close times volume over up to 20 bars),
        known_at. A bar that arrived after its successor has no row: nobody saw it in time.

    Raises:
        ValueError: a column is missing, or a ticker and session stand twice in ``volatility``.
    """
    prices = ("open", "close", "adj_close", "volume")
    require(bars, "bars", (*_KEYS, *prices, "era", "in_era", "known_at"))
    require(volatility, "volatility", (*_KEYS, "volatility_20"), unique=_KEYS)
    rows = bars.sort_values(["ticker", "era", "session"], ignore_index=True)
    rows["open_return"] = rows["open"] * (rows["adj_close"] / rows["close"])
    rows["dollar_volume"] = rows["close"] * rows["volume"]
    by_era = rows.groupby(["ticker", "era"])
    rows["open_return"] = rows["open_return"] / by_era["open_return"].shift(1) - 1.0
    usual = by_era["dollar_volume"].rolling(VOLUME_SESSIONS, min_periods=1).median()
    rows["dollar_volume"] = usual.to_numpy()
    rows = rows[rows["in_era"]].sort_values(_KEYS, ignore_index=True)
    earliest = rows.iloc[::-1].groupby("ticker")["known_at"].cummin().sort_index()
    rows = rows[~(rows["known_at"] > earliest.groupby(rows["ticker"]).shift(-1))]
    wanted = volatility[[*_KEYS, "volatility_20"]]
    return rows.merge(wanted, on=_KEYS, how="left")[list(MARKET_COLUMNS)]


def size_positions(
    signals: pd.DataFrame,
    market: pd.DataFrame,
    spec: TradingSpec,
    costs: BacktestSpec,
    horizon: int,
    account: Account | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Size positions under limits, session by session, and keep the account that holds them.

    A position is 0 without evidence, while the networks disagree and sentiment has none, for a
    signal that is labelled HOLD, and while the volatility is unknown or zero. Otherwise the weight
    asked for is, by ``sizing``,

    - volatility: signal * target_volatility / annual volatility (Moskowitz, Ooi and Pedersen 2012)
    - kelly: kelly_fraction * forecast / variance over the horizon (Kelly 1956, Thorp 2006), and
      nothing where the forecast is on the other side than the signal

    Then come the limits of the ticker, ``long_only``, ``max_weight`` and ``max_volume_share``, and
    those of the session (:func:`~rnn_pipeline.trading.account.within_limits`).

    Args:
        signals: ticker, session, forecast, signal (-1..1), label, grade, abstains.
        market: from :func:`market_conditions`; its sessions are those of the account.
        spec: sizing and limits.
        costs: what a traded weight costs the account, and how many sessions make a year.
        horizon: sessions that ``forecast`` of the signals is about, the shortest horizon.
        account: as the session before the first of ``market`` left it; empty: it begins with the
            first signal.

    Returns:
        Positions, one row per row of ``signals``, sorted by ticker and session: position (fraction
        of the account, held from the next open), previous_position (decided a session earlier),
        limited_by (what set it: "evidence", "disagreement", "weak_signal", "volatility_unknown",
        "forecast_opposes", "long_only", "max_weight", "max_volume_share", "max_gross",
        "max_drawdown", "max_turnover", "max_net", or the name of the sizing); and the rows of
        trading_account, one per session.

    Raises:
        ValueError: a column is missing, a signal is not finite, or a row stands twice.
    """
    wanted = (*_KEYS, "forecast", "signal", "label", "grade", "abstains")
    require(signals, "signals", wanted, unique=_KEYS, finite=("signal", "forecast"))
    require(market, "market", MARKET_COLUMNS, unique=_KEYS)
    rows = _asked(signals, market, spec, costs.sessions_per_year, horizon)
    sessions = market.groupby("session").agg(known_at=("known_at", "max"))
    if account is None:
        account = Account()
        sessions = sessions[sessions.index >= rows["session"].min()]
    moved = market[market["open_return"].notna()]
    returns = {
        session: dict(zip(own["ticker"], own["open_return"].tolist(), strict=True))
        for session, own in moved.groupby("session")
    }
    asked = {
        session: dict(zip(own["ticker"], own["position"].tolist(), strict=True))
        for session, own in rows[rows["position"] != 0].groupby("session")
    }
    positions: dict[tuple[str, pd.Timestamp], float] = {}
    previous: dict[tuple[str, pd.Timestamp], float] = {}
    limited: dict[tuple[str, pd.Timestamp], str] = {}
    accounts = []
    for session, known_at in sessions["known_at"].items():
        account = account.opened(returns.get(session, {}), costs.cost_bps).stopped(spec)
        before = account.decided
        weights, limits = within_limits(
            asked.get(session, {}), before, spec, in_cash=account.cash_sessions > 0
        )
        account = replace(account, decided=weights)
        previous |= {(ticker, session): weight for ticker, weight in before.items()}
        positions |= {(ticker, session): weight for ticker, weight in weights.items()}
        limited |= {(ticker, session): limit for ticker, limit in limits.items()}
        accounts.append({"session": session, **as_row(account, before, known_at)})
    keys = list(zip(rows["ticker"], rows["session"], strict=True))
    named = [limited.get(key, own) for key, own in zip(keys, rows["limited_by"], strict=True)]
    rows = rows.assign(
        position=np.array([positions.get(key, 0.0) for key in keys]),
        previous_position=np.array([previous.get(key, 0.0) for key in keys]),
        limited_by=pd.Series(named, dtype="str"),
    )
    return rows[list(POSITION_COLUMNS)], pd.DataFrame(accounts, columns=list(ACCOUNT_COLUMNS))


def _asked(
    signals: pd.DataFrame,
    market: pd.DataFrame,
    spec: TradingSpec,
    sessions_per_year: int,
    horizon: int,
) -> pd.DataFrame:
    """What each signal asks for within the limits of its own ticker, and what set that."""
    rows = signals.sort_values(_KEYS, ignore_index=True).merge(
        market[[*_KEYS, "volatility_20", "dollar_volume"]], on=_KEYS, how="left"
    )
    graded, acts = rows["grade"] != "none", rows["label"] != "HOLD"
    daily = rows["volatility_20"].where(rows["volatility_20"] > 0)
    opposed = pd.Series(False, index=rows.index)
    if spec.sizing == "kelly":
        opposed = rows["forecast"] * rows["signal"] <= 0
        wish = spec.kelly_fraction * rows["forecast"] / (daily**2 * horizon)
    else:
        wish = rows["signal"] * spec.target_volatility / (daily * np.sqrt(sessions_per_year))
    asked = wish.where(graded & acts & ~opposed).fillna(0.0)
    allowed = asked.clip(lower=0.0) if spec.long_only else asked
    capped = allowed.clip(-spec.max_weight, spec.max_weight)
    liquid = capped
    if spec.max_volume_share is not None:
        most = (rows["dollar_volume"] * spec.max_volume_share / spec.account).fillna(0.0)
        liquid = capped.clip(-most, most)
    limited_by = np.select(
        [
            ~graded & rows["abstains"].astype(bool),
            ~graded,
            ~acts,
            daily.isna(),
            opposed,
            allowed != asked,
            liquid != capped,
            capped != allowed,
        ],
        [
            "disagreement",
            "evidence",
            "weak_signal",
            "volatility_unknown",
            "forecast_opposes",
            "long_only",
            "max_volume_share",
            "max_weight",
        ],
        spec.sizing,
    )
    return rows.assign(position=liquid, limited_by=pd.Series(limited_by, dtype="str"))
