"""Which days an exchange trades, and the moment each of them closes.

Everything that is dated to a session goes through here, so that weekends, holidays, half-days,
daylight saving and other exchanges' time zones are decided once, by ``exchange_calendars``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd

#: Calendars start here, or later where an exchange's holidays are not known that far back.
EARLIEST = pd.Timestamp("1990-01-01")


@dataclass(frozen=True)
class _Schedule:
    """Days from ``first_day`` on are covered; sessions, opens and closes (UTC) are sorted."""

    first_day: pd.Timestamp
    sessions: pd.DatetimeIndex
    opens: pd.DatetimeIndex
    closes: pd.DatetimeIndex


@lru_cache
def _nature(exchange: str) -> tuple[str, pd.Timestamp]:
    """Time zone and first covered day, from a calendar so short that it costs next to nothing."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    try:
        short = exchange_calendars.get_calendar(exchange, start="2020-01-01", end="2020-01-31")
    except InvalidCalendarName:
        raise ValueError(
            f"exchange {exchange!r} has no calendar: use an ISO market code such as XNYS, XLON or"
            " XTKS"
        ) from None
    bound = short.bound_min()
    return str(short.tz), EARLIEST if bound is None else max(EARLIEST, bound)


@lru_cache
def _schedule(exchange: str) -> _Schedule:
    import exchange_calendars

    _, first_day = _nature(exchange)
    calendar = exchange_calendars.get_calendar(exchange, start=first_day)
    opens, closes = calendar.opens, calendar.closes
    return _Schedule(
        first_day,
        pd.DatetimeIndex(closes.index, freq=None, name="session"),
        pd.DatetimeIndex(opens, name="open"),
        pd.DatetimeIndex(closes, name="close"),
    )


@dataclass(frozen=True)
class SessionCalendar:
    """Sessions of one exchange, from 1990 (or its earliest known year) to a year from now.

    Instances are cheap and equal by name; the schedule behind them is built once per process.
    Sessions are midnights without a zone, closes are in UTC. Days and moments outside the
    calendar raise a ValueError that names them.
    """

    exchange: str = "XNYS"

    @property
    def timezone(self) -> str:
        """The exchange's time zone by its IANA name."""
        return _nature(self.exchange)[0]

    @property
    def first_session(self) -> pd.Timestamp:
        """The first session the calendar knows."""
        return _schedule(self.exchange).sessions[0]

    @property
    def last_session(self) -> pd.Timestamp:
        """The last session the calendar knows, about a year from now."""
        return _schedule(self.exchange).sessions[-1]

    def sessions(self, first: date, last: date) -> pd.DatetimeIndex:
        """Sessions from ``first`` to ``last``, both included; none if ``first`` is later."""
        known = _schedule(self.exchange).sessions
        start, stop = self._day(first), self._day(last)
        return known[known.searchsorted(start) : known.searchsorted(stop, "right")]

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on this day."""
        return self._day(day) in _schedule(self.exchange).sessions

    def next_session(self, day: date) -> pd.Timestamp:
        """The first session after this day, which need not be a session itself."""
        known = _schedule(self.exchange).sessions
        position = known.searchsorted(self._day(day), "right")
        if position == len(known):
            raise ValueError(f"the calendar of {self.exchange} ends with {day}")
        return known[position]

    def closes(self, sessions: pd.DatetimeIndex | pd.Series) -> pd.DatetimeIndex:
        """Closing moment of each session, in the order given.

        Raises:
            ValueError: one of them is not a session of this exchange.
        """
        return _schedule(self.exchange).closes[self._places(sessions)]

    def opens(self, sessions: pd.DatetimeIndex | pd.Series) -> pd.DatetimeIndex:
        """Opening moment of each session; otherwise as :meth:`closes`."""
        return _schedule(self.exchange).opens[self._places(sessions)]

    def _places(self, sessions: pd.DatetimeIndex | pd.Series) -> np.ndarray:
        wanted = pd.DatetimeIndex(sessions)
        position = _schedule(self.exchange).sessions.get_indexer(wanted)
        strangers = wanted[position < 0]
        if len(strangers):
            raise ValueError(
                f"{strangers[0]} is not a session of {self.exchange} ({len(strangers)} of"
                f" {len(wanted)} are not): take sessions from sessions()"
            )
        return position

    def session_of(self, moments: pd.Series | pd.DatetimeIndex) -> pd.Series | pd.DatetimeIndex:
        """Session at whose close each moment is first known: the first one closing at or after it.

        Args:
            moments: zone-aware moments in any order; what is known exactly at a close belongs to
                that session, what comes later to the next.

        Returns:
            Sessions in the order of the moments; a Series keeps its index.
        """
        schedule = _schedule(self.exchange)
        position = schedule.closes.searchsorted(self._covered(pd.DatetimeIndex(moments)))
        sessions = schedule.sessions[position]
        if isinstance(moments, pd.Series):
            return pd.Series(sessions, index=moments.index, name=sessions.name)
        return sessions

    def last_closed(self, moment: pd.Timestamp) -> pd.Timestamp:
        """The latest session that has closed by a zone-aware moment."""
        schedule = _schedule(self.exchange)
        closed = schedule.closes.searchsorted(self._covered(pd.DatetimeIndex([moment])), "right")[0]
        if closed == 0:
            raise ValueError(f"no session of {self.exchange} had closed by {moment} yet")
        return schedule.sessions[closed - 1]

    def _day(self, day: date) -> pd.Timestamp:
        """Midnight of a day that the calendar covers, without a zone."""
        midnight = pd.Timestamp(day).tz_localize(None).normalize()
        if not _schedule(self.exchange).first_day <= midnight <= self.last_session:
            raise self._outside(f"{midnight:%Y-%m-%d}")
        return midnight

    def _covered(self, moments: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """The moments, once they are known to have a zone and to lie within the calendar."""
        if moments.tz is None:
            raise ValueError(
                f"moments need a time zone, {moments[0] if len(moments) else 'these'} has none:"
                " localise them, for example with tz_localize('UTC')"
            )
        schedule = _schedule(self.exchange)
        # NaT compares false with everything, so it counts as outside.
        within = (moments >= schedule.first_day.tz_localize("UTC")) & (
            moments <= schedule.closes[-1]
        )
        if not within.all():
            raise self._outside(str(moments[~within][0]))
        return moments

    def _outside(self, value: str) -> ValueError:
        return ValueError(
            f"{value} lies outside the calendar of {self.exchange}, which covers"
            f" {_schedule(self.exchange).first_day:%Y-%m-%d} to {self.last_session:%Y-%m-%d}"
        )
