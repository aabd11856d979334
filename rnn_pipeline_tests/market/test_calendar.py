from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.market.calendar import SessionCalendar


def utc(*moments: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(moments), tz="UTC")


def days(*sessions: str) -> list[pd.Timestamp]:
    return [pd.Timestamp(session) for session in sessions]


@pytest.fixture(scope="module")
def nyse() -> SessionCalendar:
    return SessionCalendar("XNYS")


def test_sessions_skip_weekends_holidays_and_the_days_after_september_11(nyse):
    assert list(nyse.sessions(date(2001, 9, 7), date(2001, 9, 18))) == days(
        "2001-09-07", "2001-09-10", "2001-09-17", "2001-09-18"
    )
    # New Year's Day, Martin Luther King Day, Good Friday and Hurricane Sandy.
    for holiday in (
        date(2013, 1, 1),
        date(2013, 1, 21),
        date(2013, 3, 29),
        date(2012, 10, 29),
        date(2012, 10, 30),
    ):
        assert not nyse.is_session(holiday)
    assert nyse.is_session(date(2012, 10, 31))


def test_a_range_without_sessions_is_empty(nyse):
    assert len(nyse.sessions(date(2024, 7, 6), date(2024, 7, 7))) == 0
    assert len(nyse.sessions(date(2024, 7, 9), date(2024, 7, 8))) == 0


@pytest.mark.parametrize(
    ("exchange", "session", "close", "zone"),
    [
        ("XNYS", "1990-01-02", "16:00", "America/New_York"),
        ("XNYS", "2024-03-08", "16:00", "America/New_York"),  # the last one in winter time
        ("XNYS", "2024-03-11", "16:00", "America/New_York"),
        ("XNYS", "2024-07-03", "13:00", "America/New_York"),  # half-days
        ("XNYS", "2024-11-29", "13:00", "America/New_York"),
        ("XNYS", "2012-12-24", "13:00", "America/New_York"),
        ("XLON", "2024-10-28", "16:30", "Europe/London"),
        ("XLON", "2024-12-24", "12:30", "Europe/London"),
        ("XTKS", "2024-11-01", "15:00", "Asia/Tokyo"),
        ("XTKS", "2024-11-05", "15:30", "Asia/Tokyo"),  # Tokyo trades longer from this day on
    ],
)
def test_closes_follow_the_exchange(exchange, session, close, zone):
    expected = datetime.fromisoformat(f"{session} {close}").replace(tzinfo=ZoneInfo(zone))
    (found,) = SessionCalendar(exchange).closes(pd.DatetimeIndex([session]))
    assert found == pd.Timestamp(expected)
    assert str(found.tz) == "UTC"


def test_closes_keep_order_and_repetition_and_take_any_resolution(nyse):
    sessions = np.array(["2024-07-05", "2024-07-03", "2024-07-05"], dtype="datetime64[s]")
    expected = ["2024-07-05 20:00", "2024-07-03 17:00", "2024-07-05 20:00"]
    assert list(nyse.closes(pd.Series(sessions))) == list(utc(*expected))


def test_opens_follow_daylight_saving(nyse):
    sessions = pd.DatetimeIndex(["2024-03-11", "2024-03-08"])
    assert list(nyse.opens(sessions)) == list(utc("2024-03-11 13:30", "2024-03-08 14:30"))


def test_closes_refuse_what_is_no_session(nyse):
    with pytest.raises(ValueError, match=r"2024-07-04.*not a session of XNYS.*1 of 2"):
        nyse.closes(pd.DatetimeIndex(["2024-07-03", "2024-07-04"]))


def test_a_moment_belongs_to_the_first_close_at_or_after_it(nyse):
    moments = {
        "2024-07-03 17:00:00": "2024-07-03",  # exactly at a half-day's close
        "2024-07-03 17:00:01": "2024-07-05",  # a second later, over the holiday
        "2024-07-03 20:00:00": "2024-07-05",  # would be in time on a full day
        "2024-07-05 19:59:59": "2024-07-05",
        "2024-07-06 12:00:00": "2024-07-08",  # over the weekend
        "2024-03-08 20:30:00": "2024-03-08",  # winter: closes at 21:00 UTC
        "2024-03-11 20:30:00": "2024-03-12",  # summer: closed at 20:00 UTC
        "2001-09-11 13:00:00": "2001-09-17",
    }
    found = nyse.session_of(pd.DatetimeIndex(pd.to_datetime(list(moments)), tz="UTC"))
    assert list(found) == days(*moments.values())


def test_session_of_understands_zones_keeps_a_series_index_and_any_order(nyse):
    moments = pd.Series(
        pd.DatetimeIndex(["2024-07-05 16:00", "2024-07-03 09:30"], tz="America/New_York"),
        index=["late", "early"],
    )
    found = nyse.session_of(moments)
    assert found.to_dict() == {
        "late": pd.Timestamp("2024-07-05"),
        "early": pd.Timestamp("2024-07-03"),
    }


def test_session_of_inverts_closes_for_every_session(nyse):
    sessions = nyse.sessions(date(1990, 1, 1), date(2025, 12, 31))
    closes = nyse.closes(sessions)
    assert closes.is_monotonic_increasing
    assert nyse.session_of(closes).equals(sessions)
    after = nyse.session_of(closes[:-1] + pd.Timedelta(1, "ns"))
    assert after.equals(sessions[1:])


def test_last_closed_and_next_session(nyse):
    assert nyse.last_closed(pd.Timestamp("2024-07-03 17:00", tz="UTC")) == pd.Timestamp(
        "2024-07-03"
    )
    assert nyse.last_closed(pd.Timestamp("2024-07-03 16:59", tz="UTC")) == pd.Timestamp(
        "2024-07-02"
    )
    assert nyse.next_session(date(2024, 7, 3)) == pd.Timestamp("2024-07-05")
    assert nyse.next_session(date(2024, 7, 6)) == pd.Timestamp("2024-07-08")


def test_what_lies_outside_is_named(nyse):
    outside = r"lies outside the calendar of XNYS, which covers 1990-01-01 to"
    with pytest.raises(ValueError, match=f"1989-12-29 {outside}"):
        nyse.sessions(date(1989, 12, 29), date(1990, 1, 5))
    with pytest.raises(ValueError, match=f"9999-01-01 {outside}"):
        nyse.is_session(date(9999, 1, 1))
    # A second resolution reaches years that nanoseconds cannot hold: no silent wrap-around.
    distant = pd.DatetimeIndex(np.array(["2609-01-21"], dtype="datetime64[s]"), tz="UTC")
    for moments in (distant, utc("1980-01-01"), pd.DatetimeIndex([pd.NaT], tz="UTC")):
        with pytest.raises(ValueError, match=outside):
            nyse.session_of(moments)
    with pytest.raises(ValueError, match=r"had closed by 1990-01-01"):
        nyse.last_closed(pd.Timestamp("1990-01-01 12:00", tz="UTC"))
    with pytest.raises(ValueError, match=r"XNYS ends with"):
        nyse.next_session(nyse.last_session)


def test_a_moment_without_a_zone_is_refused(nyse):
    with pytest.raises(ValueError, match=r"2024-07-03 17:00:00 has none.*tz_localize"):
        nyse.session_of(pd.DatetimeIndex(["2024-07-03 17:00"]))


def test_an_unknown_exchange_is_named():
    with pytest.raises(ValueError, match=r"'NOWHERE' has no calendar: use an ISO market code"):
        SessionCalendar("NOWHERE").sessions(date(2024, 1, 1), date(2024, 1, 2))


def test_exchanges_with_a_shorter_history_start_later():
    assert SessionCalendar("XTKS").first_session == pd.Timestamp("1997-01-06")
    assert SessionCalendar("XNYS").first_session == pd.Timestamp("1990-01-02")
