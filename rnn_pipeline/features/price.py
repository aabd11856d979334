"""Causal, scale-free price features and the targets that forecasts are measured against.

The one idea: the value of row *t* is a fixed sequence of floating-point operations on its last
``W`` bars and on nothing else. Whether 20 or 20,000 rows precede it, whatever follows it, and
whichever tickers stand beside it, its bits are the same; so a day computed alone equals the same
day computed with all history, and a look-ahead test may compare hashes. Hence windows are built by
doubling (a sum over 2m rows is two sums over m rows), elementwise over all tickers at once, and
never by a cumulative sum or a recursion, whose rounding depends on where the series begins.

Features are ratios, so a later split or dividend, which multiplies the whole adjusted history by a
constant, moves no earlier feature.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Block = TypeVar("Block")

PRICE_COLUMNS = ("open", "high", "low", "close", "adj_close")

EMA_SPANS = 4.5
"""Spans that an exponential average reaches back, at least: all but about 1e-4 of its weight."""

FLAT = 1e-12
"""A spread below this share of the price is rounding, not movement: the price stood still."""

# A block of segments of about this many rows keeps a feature's temporaries in the processor's
# cache. Segments do not see each other, so the size of a block changes no value.
_BLOCK_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class Panel:
    """Bars of many independent segments, one after another, as contiguous arrays of one length.

    A segment is one ticker (or one ticker as known in one era), in order of its sessions. Prices
    are on the adjusted scale. Every method returns an array of the same length whose row *t*
    depends on the last rows of its own segment alone, and is NaN where they do not suffice.

    Attributes:
        open: Opening price times ``adj_close / close``.
        high: Highest price, likewise.
        low: Lowest price, likewise.
        close: Closing price, likewise.
        volume: Shares traded.
        dollar_volume: Unadjusted turnover, ``close * volume``: a split moves both and cancels, a
            dividend moves neither.
        day: The session as days since 1970-01-01.
        position: Row number within the segment, from 0.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    dollar_volume: Array
    day: NDArray[np.int64]
    position: NDArray[np.int64]

    def lag(self, x: Array, k: int) -> Array:
        """``x`` of ``k`` rows earlier."""
        return self._after(k, _shift(x, k))

    def rolling_mean(self, x: Array, n: int) -> Array:
        """Mean of the last ``n`` rows."""
        return self._after(n - 1, _over_window(x, n, np.add) / n)

    def rolling_max(self, x: Array, n: int) -> Array:
        """Largest of the last ``n`` rows."""
        return self._after(n - 1, _over_window(x, n, np.maximum))

    def rolling_min(self, x: Array, n: int) -> Array:
        """Smallest of the last ``n`` rows."""
        return self._after(n - 1, _over_window(x, n, np.minimum))

    def rolling_std(self, x: Array, n: int, ddof: int) -> Array:
        """Standard deviation of the last ``n`` rows: exactly 0 where they are equal.

        Means and squared deviations of neighbouring blocks are merged pairwise (Chan, Golub and
        LeVeque 1983), which is as accurate as two passes and cancels nothing.
        """

        def merge(newer: tuple[Array, Array, int], older: tuple[Array, Array, int]) -> tuple:
            (mean_a, spread_a, n_a), (mean_b, spread_b, n_b) = newer, older
            delta, rows = mean_b - mean_a, n_a + n_b
            mean = mean_a + delta * (n_b / rows)
            return mean, spread_a + spread_b + delta * delta * (n_a * n_b / rows), rows

        def earlier(block: tuple[Array, Array, int], k: int) -> tuple[Array, Array, int]:
            return _shift(block[0], k), _shift(block[1], k), block[2]

        _, spread, _ = _by_doubling((x, np.zeros_like(x), 1), n, merge, earlier)
        return self._after(n - 1, np.sqrt(spread / (n - ddof)))

    def ema(self, x: Array, span: int) -> Array:
        """Exponential average over the last ``ema_rows(span)`` rows, ``alpha = 2 / (span + 1)``.

        The weights ``(1 - alpha)**k`` are normalised over that window. The usual recursion gives
        nearly the same number (its weight beyond the window is about 1e-4), but one that depends on
        where the series begins.
        """
        rows = ema_rows(span)
        alpha = 2.0 / (span + 1.0)
        total, width, decay = x, 1, 1.0 - alpha
        while width < rows:
            total = total + decay * _shift(total, width)
            width, decay = 2 * width, decay * decay
        return self._after(rows - 1, total * (alpha / (1.0 - decay)))

    def wilder(self, x: Array, n: int) -> Array:
        """Wilder's smoothing over ``n`` rows: the exponential average with ``alpha = 1 / n``."""
        return self.ema(x, 2 * n - 1)

    def _after(self, warm_up: int, x: Array) -> Array:
        """Blank the rows whose window would reach into the segment before."""
        return np.where(self.position < warm_up, np.nan, x)


def _panel(
    raw: dict[str, Array], day: NDArray[np.int64], position: NDArray[np.int64], rows: slice
) -> Panel:
    """Put some rows of bars on the adjusted scale.

    The close is multiplied too, rather than replaced by ``adj_close``: one rounding for all four
    prices keeps the high at or above the close.
    """
    scale = raw["adj_close"][rows] / raw["close"][rows]
    return Panel(
        open=raw["open"][rows] * scale,
        high=raw["high"][rows] * scale,
        low=raw["low"][rows] * scale,
        close=raw["close"][rows] * scale,
        volume=raw["volume"][rows],
        dollar_volume=raw["close"][rows] * raw["volume"][rows],
        day=day[rows],
        position=position[rows],
    )


def ema_rows(span: int) -> int:
    """Rows an exponential average of this span looks at: a power of two >= ``EMA_SPANS * span``."""
    rows = 1
    while rows < EMA_SPANS * span:
        rows *= 2
    return rows


def _shift(x: Array, k: int) -> Array:
    """``x`` of ``k`` rows earlier, regardless of segments."""
    shifted = np.empty_like(x)
    shifted[:k] = np.nan
    shifted[k:] = x[: max(len(x) - k, 0)]
    return shifted


def _by_doubling(
    block: Block,
    n: int,
    merge: Callable[[Block, Block], Block],
    earlier: Callable[[Block, int], Block],
) -> Block:
    """Combine the last ``n`` rows in about ``2 log2(n)`` merges at most.

    ``block`` describes one row; merged with the same half a window earlier it describes twice as
    many. ``merge`` takes the newer block first.
    """
    if n == 1:
        return block
    half = _by_doubling(block, n // 2, merge, earlier)
    window = merge(half, earlier(half, n // 2))
    return merge(block, earlier(window, 1)) if n % 2 else window


def _over_window(x: Array, n: int, combine: Callable[[Array, Array], Array]) -> Array:
    return _by_doubling(x, n, combine, _shift)


@dataclass(frozen=True)
class Feature:
    """One declared column.

    Attributes:
        name: The column's name.
        formula: What it is, in plain text. ``c_t`` is the adjusted close.
        warm_up: Rows of its segment that a row needs before it: the position of the first value.
        compute: From a panel to one value per row.
        bounds: Smallest and largest value the formula can give.
        source: Columns of the bars that its value depends on.
        nulls: ``warm_up``: NaN in the first ``warm_up`` rows of a segment and nowhere else.
            ``neutral``: likewise, and a neutral number, which the formula names, where it would
            divide by zero.
    """

    name: str
    formula: str
    warm_up: int
    compute: Callable[[Panel], Array]
    bounds: tuple[float, float] | None = None
    source: tuple[str, ...] = ("adj_close",)
    nulls: Literal["warm_up", "neutral"] = "warm_up"


def _return(panel: Panel) -> Array:
    return panel.close / panel.lag(panel.close, 1) - 1.0


def _log_return(panel: Panel) -> Array:
    return np.log(panel.close / panel.lag(panel.close, 1))


def _volatility(panel: Panel, n: int) -> Array:
    return panel.rolling_std(_log_return(panel), n, ddof=1)


def _sma(panel: Panel, n: int) -> Array:
    return panel.rolling_mean(panel.close, n)


def _close_to_sma(panel: Panel, n: int) -> Array:
    return panel.close / _sma(panel, n) - 1.0


def _sma_to_sma(panel: Panel, fast: int, slow: int) -> Array:
    return _sma(panel, fast) / _sma(panel, slow) - 1.0


def _volume_sma(panel: Panel, n: int) -> Array:
    return panel.rolling_mean(panel.volume, n)


def _volume_to_sma(panel: Panel, fast: int, slow: int) -> Array:
    recent, usual = _volume_sma(panel, fast), _volume_sma(panel, slow)
    return np.where(usual == 0.0, 1.0, recent / usual)


def _rsi(panel: Panel, n: int) -> Array:
    change = panel.close - panel.lag(panel.close, 1)
    gain = panel.wilder(np.maximum(change, 0.0), n)
    loss = panel.wilder(np.maximum(-change, 0.0), n)
    return np.where(gain + loss <= FLAT * panel.close, 50.0, 100.0 * gain / (gain + loss))


def _macd_line(panel: Panel, fast: int, slow: int) -> Array:
    return panel.ema(panel.close, fast) - panel.ema(panel.close, slow)


def _macd(panel: Panel, fast: int, slow: int) -> Array:
    return _macd_line(panel, fast, slow) / panel.close


def _macd_signal(panel: Panel, fast: int, slow: int, signal: int) -> Array:
    return panel.ema(_macd_line(panel, fast, slow), signal) / panel.close


def _macd_histogram(panel: Panel, fast: int, slow: int, signal: int) -> Array:
    line = _macd_line(panel, fast, slow)
    return (line - panel.ema(line, signal)) / panel.close


def _bollinger_position(panel: Panel, n: int, width: float) -> Array:
    mean = panel.rolling_mean(panel.close, n)
    band = width * panel.rolling_std(panel.close, n, ddof=0)
    return np.where(band <= FLAT * mean, 0.5, 0.5 + (panel.close - mean) / (2.0 * band))


def _atr(panel: Panel, n: int) -> Array:
    previous = panel.lag(panel.close, 1)
    true_range = np.maximum(panel.high, previous) - np.minimum(panel.low, previous)
    return panel.wilder(true_range, n) / panel.close


_ANY = float("inf")

PRICE_FEATURES: tuple[Feature, ...] = (
    Feature("return_1", "c_t / c_(t-1) - 1", 1, _return, (-1.0, _ANY)),
    Feature("log_return_1", "ln(c_t / c_(t-1))", 1, _log_return, (-_ANY, _ANY)),
    Feature(
        "volatility_20",
        "sample standard deviation of log_return_1 over 20 sessions, per session",
        20,
        partial(_volatility, n=20),
        (0.0, _ANY),
    ),
    *(
        Feature(
            f"close_to_sma_{n}",
            f"c_t / SMA{n}(c) - 1",
            n - 1,
            partial(_close_to_sma, n=n),
            (-1.0, n - 1.0),
        )
        for n in (5, 10, 20, 50)
    ),
    *(
        Feature(
            f"sma_{fast}_to_sma_{slow}",
            f"SMA{fast}(c) / SMA{slow}(c) - 1",
            slow - 1,
            partial(_sma_to_sma, fast=fast, slow=slow),
            (-1.0, slow / fast - 1.0),
        )
        for fast, slow in ((5, 20), (20, 50))
    ),
    Feature(
        "volume_to_sma_20",
        "volume_t / SMA20(volume); 1 where nothing was traded for 20 sessions",
        19,
        partial(_volume_to_sma, fast=1, slow=20),
        (0.0, 20.0),
        ("volume",),
        "neutral",
    ),
    Feature(
        "volume_sma_5_to_sma_20",
        "SMA5(volume) / SMA20(volume); 1 where nothing was traded for 20 sessions",
        19,
        partial(_volume_to_sma, fast=5, slow=20),
        (0.0, 4.0),
        ("volume",),
        "neutral",
    ),
    Feature(
        "rsi_14",
        "100 G / (G + L), Wilder averages (14) of gains and losses; 50 where the price stood still",
        ema_rows(27),
        partial(_rsi, n=14),
        (0.0, 100.0),
        nulls="neutral",
    ),
    Feature(
        "macd",
        "(EMA12(c) - EMA26(c)) / c_t",
        ema_rows(26) - 1,
        partial(_macd, fast=12, slow=26),
        (-_ANY, _ANY),
    ),
    Feature(
        "macd_signal",
        "EMA9(EMA12(c) - EMA26(c)) / c_t",
        ema_rows(26) + ema_rows(9) - 2,
        partial(_macd_signal, fast=12, slow=26, signal=9),
        (-_ANY, _ANY),
    ),
    Feature(
        "macd_histogram",
        "macd - macd_signal",
        ema_rows(26) + ema_rows(9) - 2,
        partial(_macd_histogram, fast=12, slow=26, signal=9),
        (-_ANY, _ANY),
    ),
    Feature(
        "bollinger_position_20",
        "(c_t - lower) / (upper - lower), bands at SMA20 +- 2 population standard deviations;"
        " 0.5 where the price stood still",
        19,
        partial(_bollinger_position, n=20, width=2.0),
        (-0.6, 1.6),
        nulls="neutral",
    ),
    Feature(
        "atr_14",
        "Wilder average (14) of the true range, / c_t",
        ema_rows(27),
        partial(_atr, n=14),
        (0.0, _ANY),
        ("high", "low", "close", "adj_close"),
    ),
)
"""The features of the first set. Levels such as the moving averages themselves are not among them:
they depend on the price's scale, which later splits and dividends change; `moving_averages` gives
them for charts."""

MOVING_AVERAGES: tuple[Feature, ...] = (
    *(
        Feature(f"sma_{n}", f"SMA{n}(c)", n - 1, partial(_sma, n=n), (0.0, _ANY))
        for n in (5, 10, 20, 50)
    ),
    Feature(
        "volume_sma_20", "SMA20(volume)", 19, partial(_volume_sma, n=20), (0.0, _ANY), ("volume",)
    ),
)
"""Levels for charts, on the adjusted scale of the bars they were computed from."""


def warm_up(features: Sequence[Feature]) -> int:
    """Rows that must precede a row for all of its features to have a value."""
    return max((feature.warm_up for feature in features), default=0)


def feature_set_hash(features: Sequence[Feature]) -> str:
    """Name exactly what made a row: 16 hex digits over declarations and source code.

    Covers names, formulas, warm-ups, parameters, and the source of every compute function with the
    functions and constants it uses, the panel's arithmetic included.

    Raises:
        ValueError: the source of a compute function cannot be read (defined interactively).
    """
    sources: set[str] = set()
    _collect_sources(_panel, sources)
    for name, method in vars(Panel).items():
        if inspect.isfunction(method) and not name.startswith("__"):
            _collect_sources(method, sources)
    declarations = []
    for feature in features:
        compute = feature.compute
        call: partial[Array] = compute if isinstance(compute, partial) else partial(compute)
        try:
            _collect_sources(call.func, sources)
            source = inspect.getsource(call.func)
        except (OSError, TypeError, AttributeError):
            raise ValueError(
                f"feature {feature.name!r}: the source of its compute function cannot be read, so"
                " no hash can name it; define it in a module"
            ) from None
        arguments = (call.args, sorted(call.keywords.items()))
        declared = (feature.name, feature.formula, feature.warm_up, feature.source, feature.nulls)
        declarations.append((*declared, source, arguments))
    named = repr((declarations, sorted(sources)))
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _collect_sources(function: Callable[..., object], sources: set[str]) -> None:
    """Gather the source of a function and of what it uses from its own package."""
    source = inspect.getsource(function)
    if source in sources:
        return
    sources.add(source)
    package = function.__module__.partition(".")[0]
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if inspect.isfunction(value) and value.__module__.partition(".")[0] == package:
            _collect_sources(value, sources)
        elif isinstance(value, int | float | str):
            sources.add(f"{name} = {value!r}")


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@dataclass(frozen=True, eq=False)
class _Segments:
    """Bars in order of ticker, era and session, and where each (ticker, era) ends."""

    bars: pd.DataFrame
    order: NDArray[np.int64]
    ticker: NDArray[np.int64]
    era: NDArray[np.int64]
    position: NDArray[np.int64]
    ends: NDArray[np.int64]

    def column(self, name: str) -> NDArray:
        """One column of the bars, in the order of the segments."""
        return self.bars[name].to_numpy()[self.order]

    def blocks(self) -> Iterator[slice]:
        """Runs of whole segments of about ``_BLOCK_ROWS`` rows."""
        first = 0
        while first < len(self.order):
            reached = int(np.searchsorted(self.ends, first + _BLOCK_ROWS))
            stop = int(self.ends[min(reached, len(self.ends) - 1)])
            yield slice(first, stop)
            first = stop


def _segments(bars: pd.DataFrame, columns: Sequence[str]) -> _Segments:
    """Put bars in order, whatever their order was.

    Raises:
        ValueError: a column is missing, a session is not tz-naive or stands twice, or a number
            cannot be (a price at or below zero, a negative volume, NaN).
    """
    missing = [name for name in ("ticker", "session", *columns) if name not in bars.columns]
    if missing:
        raise ValueError(f"bars lack the columns {missing}; they have {list(bars.columns)}")
    session = bars["session"].to_numpy()
    if session.dtype.kind != "M" or np.isnat(session).any():
        raise ValueError(
            f"bars: session must be a tz-naive date in every row, got {bars['session'].dtype}"
            f" with {int(bars['session'].isna().sum())} missing"
        )
    if bars["ticker"].isna().any():
        raise ValueError(f"bars: {int(bars['ticker'].isna().sum())} rows have no ticker")
    ticker, _ = pd.factorize(bars["ticker"], sort=True)
    era = bars["era"].to_numpy(np.int64) if "era" in bars else np.zeros(len(bars), dtype=np.int64)
    order = np.lexsort((session, era, ticker))
    ticker, era, session = ticker[order], era[order], session[order]
    fresh = np.ones(len(bars), dtype=bool)
    fresh[1:] = (ticker[1:] != ticker[:-1]) | (era[1:] != era[:-1])
    twice = np.flatnonzero(~fresh[1:] & (session[1:] == session[:-1]))
    if len(twice):
        raise ValueError(
            f"bars: {len(twice)} sessions stand twice in their ticker and era, first"
            f" {_row_name(bars, order[twice[0]])}; keep one revision of each"
        )
    for name in columns:
        values = bars[name].to_numpy(np.float64)
        possible = values >= 0.0 if name == "volume" else values > 0.0
        wrong = np.flatnonzero(~(possible & np.isfinite(values)))
        if len(wrong):
            raise ValueError(
                f"bars: {name} = {values[wrong[0]]} for {_row_name(bars, wrong[0])} cannot be"
                f" ({len(wrong)} such rows); quarantine them before computing features"
            )
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], len(bars))[: len(starts)]
    position = np.arange(len(bars)) - np.repeat(starts, ends - starts)
    return _Segments(bars, order, ticker, era, position, ends)


def _row_name(bars: pd.DataFrame, row: int) -> str:
    ticker, session = bars["ticker"].iloc[row], bars["session"].iloc[row]
    return f"{ticker} on {session.date()}"


def price_features(
    bars: pd.DataFrame, features: Sequence[Feature] = PRICE_FEATURES
) -> pd.DataFrame:
    """Compute features for all tickers and sessions of the bars at once.

    Args:
        bars: ticker, session, open, high, low, close, adj_close, volume in any row order. With a
            column ``era`` every (ticker, era) is a history of its own; with ``in_era`` only the
            rows where it holds are returned, the others serve as warm-up.
        features: The columns to compute.

    Returns:
        ticker, session, ``known_at`` where the bars have it, and one float64 column per feature,
        sorted by ticker and session; NaN inside a feature's warm-up. A row's ``known_at`` is that
        of its own bar: an era holds only bars known before the moment at which the era began or
        at their own session's close, so no bar of the window was known later than that.

    Raises:
        ValueError: see the message: missing columns, repeated sessions, impossible numbers.
    """
    segments = _segments(bars, (*PRICE_COLUMNS, "volume"))
    values = np.empty((len(features), len(bars)))
    raw = {
        name: segments.column(name).astype(np.float64, copy=False)
        for name in (*PRICE_COLUMNS, "volume")
    }
    day = segments.column("session").astype("datetime64[D]").astype(np.int64)
    for rows in segments.blocks():
        panel = _panel(raw, day, segments.position, rows)
        # Windows that reach into the segment before are computed and then blanked.
        with np.errstate(all="ignore"):
            for column, feature in enumerate(features):
                values[column, rows] = feature.compute(panel)
    order = segments.order
    if {"era", "in_era"} & set(bars.columns):
        kept = np.arange(len(bars))
        if "in_era" in bars:
            kept = kept[segments.column("in_era").astype(bool)]
        session = segments.column("session")[kept]
        kept = kept[np.lexsort((segments.era[kept], session, segments.ticker[kept]))]
        # As a rule every row is kept where it stands, and the values need not be copied.
        if len(kept) < len(bars) or (np.diff(kept) != 1).any():
            values, order = values[:, kept], order[kept]
    frame = pd.DataFrame(values.T, columns=[feature.name for feature in features], copy=False)
    carried = [name for name in ("ticker", "session", "known_at") if name in bars]
    for place, name in enumerate(carried):
        frame.insert(place, name, bars[name].array.take(order))
    return frame


def moving_averages(bars: pd.DataFrame) -> pd.DataFrame:
    """Plain moving averages of price and volume, for charts: see `MOVING_AVERAGES`.

    They are on the adjusted scale, so every later dividend or split restates them: not for models.
    """
    return price_features(bars, MOVING_AVERAGES)


def targets(bars: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """What forecasts are measured against: the log return of adjusted close over ``horizon`` rows.

    Args:
        bars: ticker, session, adj_close; with ``era`` a session's target comes from the earliest
            era in which its outcome was known, both prices from that same era.
        horizon: Sessions ahead, counted in the ticker's own bars.

    Returns:
        ticker, session, horizon, target (NaN where not yet known), target_session (NaT likewise);
        one row per ticker and session, sorted by them.

    Raises:
        ValueError: the horizon is below 1, or the bars are wrong as in `price_features`.
    """
    if horizon < 1:
        raise ValueError(f"horizon = {horizon}: must be at least 1 session ahead")
    segments = _segments(bars, ("adj_close",))
    price = segments.column("adj_close").astype(np.float64, copy=False)
    session = segments.column("session")
    rows = np.arange(len(bars))
    ahead = np.minimum(rows + horizon, len(bars) - 1)
    known = segments.position[ahead] == segments.position + horizon
    if "in_era" in bars:
        # The outcome is read where its own session's row is: as it was known when it came.
        known &= segments.column("in_era").astype(bool)[ahead]
    target = np.where(known, np.log(price[ahead] / price), np.nan)
    target_session = np.where(known, session[ahead], np.datetime64("NaT"))
    if "era" in bars:
        # A bar that arrives late gives the session before it a second, nearer outcome: the one that
        # was known first stays.
        best = np.lexsort((-segments.era, known, session, segments.ticker))
        last = np.ones(len(bars), dtype=bool)
        last[:-1] = (np.diff(segments.ticker[best]) != 0) | (
            session[best][1:] != session[best][:-1]
        )
        rows = best[last]
    return pd.DataFrame(
        {
            "ticker": bars["ticker"].array.take(segments.order[rows]),
            "session": session[rows],
            "horizon": horizon,
            "target": target[rows],
            "target_session": target_session[rows],
        }
    )
