"""Live bars and headlines from Yahoo Finance, through the yfinance client.

yfinance knows Yahoo's cookies, crumbs and consent pages, but it hides errors, remembers failed
answers and mends values silently. So it is used for asking only: the bytes that Yahoo sent are
taken from the session under it, and read here as they are.
"""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pandas as pd

from rnn_pipeline.market.sources import (
    BAR_COLUMNS,
    HEADLINE_COLUMNS,
    BadPayload,
    Payload,
    RateLimited,
    SourceUnavailable,
    UnknownTicker,
    as_bars,
    as_headlines,
    validate_ticker,
)

if TYPE_CHECKING:
    from curl_cffi.requests import Response, Session

#: Attempts per ticker. The waits between them are drawn from growing windows (full jitter), which
#: begin with a thirtieth of the patience and double: 0.5, 1 and 2 seconds by default.
ATTEMPTS = 4

#: Seconds between two requests: a person clicking through pages is about as fast.
INTERVAL = 0.25

#: Most headlines asked for at once; Yahoo has no older ones to page to.
HEADLINES = 50

_CHART = "/v8/finance/chart/"
_NEWS = "/xhr/ncp"


class YahooSource:
    """Bars and headlines of Yahoo Finance; both a BarSource and a NewsSource.

    Not for several threads at once: yfinance shares one session and its cookies in a process.

    Args:
        cache_dir: folder for yfinance's cookies and time zones.
        session: a ``curl_cffi.requests.Session`` to ask through, for a proxy or a stand-in;
            without one, a session that looks like a browser.
        patience: seconds after which a ticker is given up, all attempts together.
        interval: least seconds between two requests.
    """

    name = "yahoo"

    def __init__(
        self,
        cache_dir: Path,
        session: Session | None = None,
        patience: float = 15.0,
        interval: float = INTERVAL,
    ) -> None:
        self.cache_dir = cache_dir
        self.patience = patience
        self.interval = interval
        self._given_session = session
        self._next_turn = 0.0

    def fetch_bars(self, ticker: str, first: date, last: date) -> Payload:
        """Yahoo's chart answer: daily bars, dividends and splits from ``first`` to ``last``.

        While a market is open Yahoo adds today's unfinished bar, even if ``last`` is earlier.

        Raises:
            UnknownTicker: Yahoo does not know the ticker.
            SourceUnavailable: no readable answer within ``patience`` seconds.
        """

        def history(client: Any) -> None:
            client.history(
                start=first,
                end=last + timedelta(days=1),
                interval="1d",
                auto_adjust=False,
                actions=True,
                keepna=True,
            )

        return self._fetch(ticker, _CHART, history, self.parse_bars)

    def parse_bars(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read a chart answer, currency and time zone included; what Yahoo left empty is NaN."""
        with _reading(ticker):
            chart = json.loads(payload.content)["chart"]
            if error := chart.get("error"):
                # The one error that is an answer: a known ticker that did not trade in the range.
                if error["description"].startswith("Data doesn't exist"):
                    return as_bars(pd.DataFrame(columns=list(BAR_COLUMNS)))
                raise ValueError(error["description"])
            (result,) = chart["result"]
            meta, indicators = result["meta"], result["indicators"]
            if meta["symbol"] != ticker:
                raise ValueError(f"it is about {meta['symbol']!r}")
            if not result.get("timestamp"):
                return as_bars(pd.DataFrame(columns=list(BAR_COLUMNS)))
            (quote,), (adjusted,) = indicators["quote"], indicators["adjclose"]
            columns = {name: quote[name] for name in ("open", "high", "low", "close", "volume")}
            rows = as_bars(
                pd.DataFrame(
                    {
                        "ticker": ticker,
                        "session": _sessions(result["timestamp"], meta["exchangeTimezoneName"]),
                        **columns,
                        "adj_close": adjusted["adjclose"],
                        "dividend": 0.0,
                        "split": 0.0,
                    }
                )
            )
            # Yahoo repeats the latest session with fresher numbers while it is still settling.
            if rows["session"].iloc[-2:].duplicated().any():
                rows = rows.drop(rows.index[-2]).reset_index(drop=True)
            events = result.get("events") or {}
            for event in (events.get("dividends") or {}).values():
                at = _row_of(event["date"], rows["session"], meta["exchangeTimezoneName"])
                rows.loc[at, "dividend"] += float(event["amount"])
            for event in (events.get("splits") or {}).values():
                at = _row_of(event["date"], rows["session"], meta["exchangeTimezoneName"])
                rows.loc[at, "split"] = float(event["numerator"]) / float(event["denominator"])
            return rows.assign(
                currency=meta.get("currency"), time_zone=meta["exchangeTimezoneName"]
            )

    def fetch_headlines(self, ticker: str, first: date, last: date) -> Payload:
        """Yahoo's news stream of a ticker: the latest headlines, whatever range is asked for.

        Raises:
            SourceUnavailable: no readable answer within ``patience`` seconds.
        """

        def news(client: Any) -> None:
            client.get_news(count=HEADLINES)

        return self._fetch(ticker, _NEWS, news, self.parse_headlines)

    def parse_headlines(self, payload: Payload, ticker: str) -> pd.DataFrame:
        """Read a news stream, without its advertisements; texts stay as Yahoo wrote them."""
        with _reading(ticker):
            stream = json.loads(payload.content)["data"]["tickerStream"]["stream"]
            stories = [(story, story["content"]) for story in stream if not story.get("ad")]
            return as_headlines(
                pd.DataFrame(
                    [
                        {
                            "news_id": story["id"],
                            "ticker": ticker,
                            "published_at": content.get("pubDate"),
                            "title": content.get("title"),
                            "summary": content.get("summary") or "",
                            "url": (content.get("canonicalUrl") or {}).get("url", ""),
                            "provider": (content.get("provider") or {}).get("displayName", ""),
                        }
                        for story, content in stories
                    ],
                    columns=list(HEADLINE_COLUMNS),
                )
            )

    def _fetch(
        self,
        ticker: str,
        path: str,
        ask: Callable[[Any], None],
        parse: Callable[[Payload, str], pd.DataFrame],
    ) -> Payload:
        """Ask until there is an answer that can be read, the ticker is unknown, or time is up."""
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_before_delay,
            wait_random_exponential,
        )

        validate_ticker(ticker)
        deadline = time.monotonic() + self.patience

        def attempt() -> Payload:
            payload = self._ask(ticker, path, ask, deadline)
            parse(payload, ticker)
            return payload

        try:
            return Retrying(
                retry=retry_if_exception_type((SourceUnavailable, BadPayload)),
                stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(self.patience),
                wait=wait_random_exponential(multiplier=self.patience / 30),
                reraise=True,
            )(attempt)
        except (SourceUnavailable, BadPayload) as error:
            kind = RateLimited if isinstance(error, RateLimited) else SourceUnavailable
            raise kind(
                f"cannot reach Yahoo Finance for {ticker} ({error}): check the connection, or run"
                " with SOURCE=sample"
            ) from error

    def _ask(self, ticker: str, path: str, ask: Callable[[Any], None], deadline: float) -> Payload:
        """One attempt: what Yahoo answered under ``path``, whatever yfinance makes of it."""
        from yfinance.data import YfData
        from yfinance.exceptions import YFException, YFRateLimitError, YFTickerMissingError

        # It caches answers, error pages too: without this a retry would read the old error again.
        YfData.cache_get.cache_clear()
        try:
            with self._listening(ticker, path, deadline) as answers, warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, in yfinance
                ask(self._yfinance.Ticker(ticker, session=self._session))
        except YFTickerMissingError:
            pass  # no bars: the answer itself says whether that is so and why
        except UnknownTicker:
            raise
        except YFRateLimitError as error:
            raise RateLimited(_one_line(error)) from error
        except (YFException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceUnavailable(_one_line(error)) from error
        if not answers:
            raise SourceUnavailable("it sent no answer")
        return answers[-1]

    @contextmanager
    def _listening(self, ticker: str, path: str, deadline: float) -> Iterator[list[Payload]]:
        """Collect Yahoo's answers under ``path``, and bound every request in time."""
        answers: list[Payload] = []
        session = self._session
        send = session.request

        def request(method: str, url: str, **options: Any) -> Response:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer in {self.patience:g} s")
            wanted = urlsplit(url).path.startswith(path)
            # Cookies are worth a part of the time: a blocked cookie server must not eat it all.
            options["timeout"] = left if wanted else min(left, self.patience / 3)
            self._wait_for_turn()
            response = send(method=method, url=url, **options)
            if wanted:
                _raise_if_final(response, ticker, path)
                query = {k: v for k, v in (options.get("params") or {}).items() if k != "crumb"}
                # A chart of one day is yfinance asking for the exchange's time zone.
                if "range" not in query:
                    asked = f"{url}?{urlencode(query)}" if query else url
                    answers.append(Payload(response.content, "application/json", asked))
            return response

        # get and post both go through request; shadowing it on the instance is undone below.
        session.request = request
        try:
            yield answers
        finally:
            del session.request

    def _wait_for_turn(self) -> None:
        """Keep requests at least ``interval`` seconds apart, whichever tickers they are about."""
        wait = self._next_turn - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._next_turn = time.monotonic() + self.interval

    @cached_property
    def _yfinance(self) -> Any:
        """The client module, told to raise what it would hide and to keep out of the home."""
        import yfinance

        yfinance.set_tz_cache_location(str(self.cache_dir))
        yfinance.config.debug.hide_exceptions = False
        # Every failure is raised as one line; the client would log several more of its own.
        logging.getLogger("yfinance").setLevel(logging.CRITICAL)
        return yfinance

    @cached_property
    def _session(self) -> Session:
        from curl_cffi.requests import Session

        return self._given_session or Session(impersonate="chrome")


def _raise_if_final(response: Response, ticker: str, path: str) -> None:
    """Raise where yfinance's second try, with other cookies, would be a wasted request."""
    if response.status_code == 404 and path == _CHART and _says_not_found(response.content):
        dashed = ticker.replace(".", "-")
        is_class = re.fullmatch(r"\w+\.[A-Z]", ticker)
        hint = f"; if it is a share class, write {dashed}" if is_class else ""
        raise UnknownTicker(
            f"{ticker} is unknown to Yahoo Finance or delisted: check its spelling at"
            f" finance.yahoo.com{hint}"
        )
    if response.status_code == 404 or response.status_code >= 500:
        raise SourceUnavailable(f"HTTP {response.status_code}")


def _says_not_found(content: bytes) -> bool:
    """Whether it is Yahoo that says so, and not a page of something on the way there."""
    try:
        return bool(json.loads(content)["chart"]["error"]["code"] == "Not Found")
    except (ValueError, KeyError, TypeError):
        return False


@contextmanager
def _reading(ticker: str) -> Iterator[None]:
    """Turn whatever a malformed answer raises into BadPayload."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadPayload(f"not an answer of Yahoo about {ticker}: {_one_line(error)}") from error


def _sessions(timestamps: list[int], zone: str) -> pd.DatetimeIndex:
    """Exchange days of Yahoo's POSIX timestamps, which are a session's open or its latest trade."""
    local = pd.to_datetime(timestamps, unit="s", utc=True).tz_convert(zone).tz_localize(None)
    # Around changes of daylight saving Yahoo puts midnight an hour or two too early.
    before_midnight = (local.hour >= 22) & (local.minute == 0)
    return (local + pd.to_timedelta(np.where(before_midnight, 2, 0), "h")).normalize()


def _row_of(timestamp: int, sessions: pd.Series, zone: str) -> pd.Series:
    """Mask of the first row at or after an event's day; none if Yahoo has no such bar yet."""
    day = _sessions([timestamp], zone)[0]
    position = sessions.searchsorted(day)
    return sessions.index == position


def _one_line(error: Exception) -> str:
    """The part of an error's message that helps a user, or its type where it has none."""
    text = str(error).split("\n", 1)[0].split(". See http", 1)[0]
    return text.removeprefix("Failed to perform, ")[:200] or type(error).__name__
