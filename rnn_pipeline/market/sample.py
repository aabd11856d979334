"""The embedded source: thirteen years of real bars of five tickers, and headlines about them.

The bars are those of the ``bokeh_sampledata`` package (public domain). It holds them as traded,
together with an adjusted close, so splits and dividends are read off the jumps between the two.
The headlines are synthetic, see :mod:`rnn_pipeline.market.wrap`.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.market.sources import (
    HEADLINE_COLUMNS,
    BadPayload,
    Payload,
    UnknownTicker,
    as_bars,
    as_headlines,
)
from rnn_pipeline.market.wrap import market_wrap

#: Tickers of the sample and the names its headlines use.
FIRMS = {
    "AAPL": "Apple",
    "FB": "Facebook",
    "GOOG": "Google",
    "IBM": "IBM",
    "MSFT": "Microsoft",
}
TICKERS = tuple(FIRMS)
FIRST_SESSION = date(2000, 3, 1)
LAST_SESSION = date(2013, 3, 1)

#: Where the adjusted close jumps by a quarter or more against the close, shares were split. The
#: smallest usual split is 5:4; the largest dividend here, Microsoft's of 2004, is a jump of 11 %.
SPLIT_JUMP = 1.25

_URL = "bokeh_sampledata:stocks.csv.gz"
_AS_HELD = ("date", "open", "high", "low", "close", "volume", "adj_close")
_CONTEXT = ("previous_close", "previous_adj_close", "later_splits")

_Array = NDArray[np.float64]


class SampleSource:
    """Bars and headlines that need no network; both a BarSource and a NewsSource."""

    name = "sample"

    def fetch_bars(self, ticker: str, first: date, last: date) -> Payload:
        """Rows of the package as CSV, each with the context that makes it readable on its own.

        That is the session before it, which shows a split or dividend, and the product of the
        ratios of all later splits: a range of any size reads to the same values.
        """
        history = _history(ticker)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["ticker", *_AS_HELD, *_CONTEXT])
        rows = history[history["date"].between(first.isoformat(), last.isoformat())]
        for row in rows[[*_AS_HELD, *_CONTEXT]].itertuples(index=False):
            writer.writerow([ticker, *row])
        return Payload(text.getvalue().encode(), "text/csv", _URL)

    def parse_bars(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read rows into the warehouse's convention: split-adjusted, actions on their ex-dates.

        ``adj_close`` stays as the package holds it, with the actions after 2013 in it too.
        """
        try:
            # The default reader of floats can be off in the last bit; this one never is.
            rows = pd.read_csv(
                io.BytesIO(payload.content),
                dtype=dict.fromkeys([*_AS_HELD, *_CONTEXT], "float64")
                | {"ticker": "str", "date": "str"},
                float_precision="round_trip",
            )
            sessions = pd.to_datetime(rows["date"], format="%Y-%m-%d")
            split, dividend = _actions(rows)
            later = rows["later_splits"]
        except (ValueError, KeyError) as error:
            raise BadPayload(f"{ticker}: not bars of the sample ({error}): fetch again") from None
        if not rows["ticker"].eq(ticker).all():
            raise BadPayload(f"{ticker}: these bars are {rows['ticker'].iloc[0]}'s: fetch again")
        return as_bars(
            rows.assign(
                session=sessions,
                **{name: rows[name] / later for name in ("open", "high", "low", "close")},
                volume=rows["volume"] * later,
                split=split,
                dividend=dividend / later,
            )
        )

    def fetch_headlines(self, ticker: str, first: date, last: date) -> Payload:
        """Headlines about the sessions ``first`` to ``last`` as JSON lines.

        Each is published between 10 and 120 minutes after its session's close.
        """
        history = _history(ticker)
        split, dividend = _actions(history)
        sessions = pd.to_datetime(history["date"])
        headlines = list(
            market_wrap(
                ticker,
                FIRMS[ticker],
                history.assign(session=sessions, split=split, dividend=dividend),
                pd.Timestamp(first),
                pd.Timestamp(last),
            )
        )
        closes = SessionCalendar().closes(pd.DatetimeIndex([line.session for line in headlines]))
        lines = [
            json.dumps(
                {
                    "news_id": line.news_id,
                    "ticker": ticker,
                    "published_at": (
                        close + pd.Timedelta(minutes=line.minutes_after_close)
                    ).isoformat(),
                    "title": line.title,
                    "summary": line.summary,
                    "url": "",
                    "provider": self.name,
                }
            )
            for line, close in zip(headlines, closes, strict=True)
        ]
        return Payload("".join(f"{line}\n" for line in lines).encode(), "application/jsonl", _URL)

    def parse_headlines(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read headlines from JSON lines."""
        try:
            rows = [json.loads(line) for line in payload.content.decode().splitlines()]
            frame = pd.DataFrame(rows, columns=list(HEADLINE_COLUMNS))
        except ValueError as error:
            raise BadPayload(
                f"{ticker}: not headlines of the sample ({error}): fetch again"
            ) from None
        if not frame["ticker"].eq(ticker).all():
            raise BadPayload(
                f"{ticker}: these headlines are {frame['ticker'].iloc[0]}'s: fetch again"
            )
        return as_headlines(frame)

    def labelled_headlines(self) -> pd.DataFrame:
        """The labelled corpus: headline, label, split ("train" or "test")."""
        from rnn_pipeline.market.grammar import labelled_corpus

        return labelled_corpus()[["headline", "label", "split"]]


def _history(ticker: str) -> pd.DataFrame:
    """All rows of a ticker as the package holds them, and the context of each."""
    if ticker not in FIRMS:
        raise UnknownTicker(
            f"{ticker} is not in the sample, which holds {', '.join(TICKERS)}: choose among these,"
            " or run with SOURCE=yahoo"
        )
    from bokeh_sampledata import stocks

    history = pd.DataFrame(getattr(stocks, ticker))
    history["previous_close"] = history["close"].shift()
    history["previous_adj_close"] = history["adj_close"].shift()
    split, _ = _actions(history)
    ratio = np.where(split > 0, split, 1.0)
    history["later_splits"] = np.append(np.cumprod(ratio[:0:-1])[::-1], 1.0)
    return history


def _actions(rows: pd.DataFrame) -> tuple[_Array, _Array]:
    """Split ratio and cash dividend (per share of that day) of each session; 0 where none.

    The source multiplies its adjustment factor, adj_close / close, by the split ratio on a split's
    ex-date, and by 1 + dividend / close on a dividend's: the factor's jump gives both back.
    """
    close, adj_close = rows["close"].to_numpy(), rows["adj_close"].to_numpy()
    before = (rows["previous_adj_close"] / rows["previous_close"]).to_numpy()
    jump = np.nan_to_num(adj_close / close / before, nan=1.0)
    is_split = np.maximum(jump, 1 / jump) >= SPLIT_JUMP
    # The package's 17 digits leave noise of 1e-13 in the jump; six decimals are far above it.
    split = np.where(is_split, jump, 0.0).round(6)
    dividend = np.where(is_split, 0.0, np.maximum(close * (jump - 1), 0.0)).round(6)
    return split, dividend
