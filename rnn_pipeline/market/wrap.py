"""Market-wrap headlines, written from bars: they say what a session's bar shows, nothing else.

No package ships dated headlines, so the embedded sample writes its own. A headline of session *t*
is a pure function of the ticker's bars up to *t*: which facts stand out decides whether there is
news at all (quiet sessions have none), and a hash of ticker, session and fact decides the wording.
They carry no information beyond price, and are marked ``provider = "sample"``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

#: Sessions that a bar is compared with; earlier sessions of a ticker have no headlines.
HISTORY = 20

#: Headlines of one session at most.
MOST = 3

# Strength (see _events) from which something is worth a headline.
_NEWSWORTHY = 1.0

_T = TypeVar("_T")
_Array = NDArray[np.float64]

# (third person, plural, past) by direction and size of the move.
_VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "up strong": (
        ("surges", "surge", "surged"),
        ("jumps", "jump", "jumped"),
        ("soars", "soar", "soared"),
        ("rallies", "rally", "rallied"),
        ("leaps", "leap", "leapt"),
        ("shoots up", "shoot up", "shot up"),
    ),
    "up": (
        ("rises", "rise", "rose"),
        ("gains", "gain", "gained"),
        ("advances", "advance", "advanced"),
        ("climbs", "climb", "climbed"),
        ("adds", "add", "added"),
        ("moves up", "move up", "moved up"),
    ),
    "up slight": (
        ("edges up", "edge up", "edged up"),
        ("ticks up", "tick up", "ticked up"),
        ("inches up", "inch up", "inched up"),
        ("firms", "firm", "firmed"),
    ),
    "down strong": (
        ("plunges", "plunge", "plunged"),
        ("tumbles", "tumble", "tumbled"),
        ("slumps", "slump", "slumped"),
        ("sinks", "sink", "sank"),
        ("slides", "slide", "slid"),
        ("plummets", "plummet", "plummeted"),
    ),
    "down": (
        ("falls", "fall", "fell"),
        ("drops", "drop", "dropped"),
        ("declines", "decline", "declined"),
        ("loses", "lose", "lost"),
        ("retreats", "retreat", "retreated"),
        ("weakens", "weaken", "weakened"),
    ),
    "down slight": (
        ("edges down", "edge down", "edged down"),
        ("slips", "slip", "slipped"),
        ("eases", "ease", "eased"),
        ("dips", "dip", "dipped"),
    ),
}

# Fields: {firm}; the verb forms {rises}, {rise} and {rose} (of falling, where it fell); {pct} of
# the move; what it came {after}; {close}, {high} and {low}; {ratio} to the usual volume; the {run}
# of {days} in one direction; {cash} of a dividend; {split} ratio.
_WORDING: dict[str, tuple[str, ...]] = {
    "move": (
        "{firm} {rises} {pct} to close at {close}",
        "{firm} shares {rise} {pct}",
        "{firm} stock {rises} {pct} to {close}",
        "Shares of {firm} {rose} {pct} to {close}",
        "{firm} {rises} {pct} at the close",
        "{firm} shares {rose} {pct} to finish at {close}",
        "Closing report: {firm} {rises} {pct} to {close}",
        "{firm} {rises} {pct} {after}",
        "{firm} shares {rise} {pct} to {close} {after}",
    ),
    "thin trading": (
        "{firm} {rises} {pct} in thin trading",
        "{firm} shares {rise} {pct} to {close} on light volume",
        "Quiet session: {firm} {rises} {pct} as traders stay away",
    ),
    "rally on volume": (
        "{firm} {rises} {pct} on heavy volume",
        "Buyers pile into {firm}: shares {rise} {pct} as volume hits {ratio} times the average",
        "{firm} shares {rise} {pct} on strong demand, {ratio} times normal volume",
        "Strong demand for {firm} as turnover reaches {ratio} times its average",
        "Heavy buying lifts {firm} {pct} to {close}",
    ),
    "selloff on volume": (
        "{firm} {rises} {pct} in heavy selling",
        "Investors dump {firm}: shares {rise} {pct} as volume hits {ratio} times the average",
        "{firm} shares {rise} {pct} under selling pressure, {ratio} times normal volume",
        "Heavy selling drags {firm} down {pct} to {close}",
        "{firm} hit by selling as turnover reaches {ratio} times its average",
    ),
    "new high": (
        "{firm} hits highest close in 20 sessions at {close}",
        "{firm} climbs to one-month high of {close}",
        "{firm} shares reach their best close in a month, {close}",
        "{firm} gains {pct} to a 20-session high",
        "Strong close lifts {firm} to a new one-month high of {close}",
        "{firm} shares add {pct} and close at the top of their monthly range",
    ),
    "new low": (
        "{firm} hits lowest close in 20 sessions at {close}",
        "{firm} sinks to one-month low of {close}",
        "{firm} shares fall to their worst close in a month, {close}",
        "{firm} loses {pct} to a 20-session low",
        "Weak close drags {firm} to a new one-month low of {close}",
        "{firm} shares lose {pct} and close at the bottom of their monthly range",
    ),
    "recovery": (
        "{firm} recovers from weak open to gain {pct}",
        "{firm} shares close {pct} higher despite a weak start",
        "{firm} rebounds after falling to {low}, ends up {pct}",
        "Despite early losses, {firm} finishes {pct} higher at {close}",
    ),
    "reversal": (
        "{firm} gives up early gains to lose {pct}",
        "{firm} shares close {pct} lower despite a strong start",
        "{firm} fades after rising to {high}, ends down {pct}",
        "Despite early gains, {firm} finishes {pct} lower at {close}",
    ),
    "winning run": (
        "{firm} gains for a {run} straight session, closing at {close}",
        "{firm} shares extend winning streak to {days} sessions with a gain of {pct}",
        "Rally goes on: {firm} is up {days} sessions in a row",
    ),
    "losing run": (
        "{firm} falls for a {run} straight session, closing at {close}",
        "{firm} shares extend losing streak to {days} sessions with a loss of {pct}",
        "Losses mount: {firm} is down {days} sessions in a row",
    ),
    "wide range": (
        "{firm} swings between {low} and {high} before closing at {close}",
        "Volatile session for {firm}: range from {low} to {high}",
        "{firm} shares trade from {low} to {high} in a choppy session",
    ),
    "flat": (
        "{firm} closes little changed at {close}",
        "{firm} shares end flat at {close}",
        "{firm} holds steady around {close}",
        "No clear direction for {firm}, which closes at {close}",
    ),
    "dividend": (
        "{firm} trades without its dividend of {cash} a share",
        "{firm} shares go ex-dividend, {cash} a share",
    ),
    "split": (
        "{firm} shares begin trading after {split} split",
        "{split} split of {firm} shares takes effect",
    ),
}


@dataclass(frozen=True)
class Headline:
    """One headline: the session it is about, and its publication in minutes after the close."""

    news_id: str
    session: pd.Timestamp
    minutes_after_close: int
    title: str
    summary: str


def market_wrap(
    ticker: str, firm: str, bars: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp
) -> Iterator[Headline]:
    """Write the headlines of a ticker's sessions from ``first`` to ``last``.

    Args:
        ticker: enters the hashes that choose wording, time and ``news_id``.
        firm: the name that headlines use.
        bars: sorted by session and as traded on the day (unadjusted): session, open, high, low,
            close, volume, dividend, split. Bars after a session have no part in its headlines.
        first: first session to write about.
        last: last session to write about.

    Yields:
        At most :data:`MOST` headlines per session, strongest first.
    """
    facts = _facts(bars)
    for day in facts[facts["session"].between(first, last)].to_dict("records"):
        for kind in _newsworthy(day):
            key = f"{ticker} {day['session']:%Y-%m-%d} {kind}"
            yield Headline(
                news_id=hashlib.sha256(f"sample {key}".encode()).hexdigest()[:32],
                session=day["session"],
                minutes_after_close=_choose(range(10, 121), key, "minutes"),
                title=_title(kind, firm, day, key),
                summary=_summary(firm, ticker, day),
            )


def _facts(bars: pd.DataFrame) -> pd.DataFrame:
    """What each session shows against the sessions before it, from HISTORY sessions on."""
    # In units of the first session's shares, so that a split is no price move. The product runs
    # forward in time: no later split can reach an earlier session.
    shares = bars["split"].where(bars["split"] > 0, 1.0).cumprod().to_numpy()
    price = {name: bars[name].to_numpy() * shares for name in ("open", "high", "low", "close")}
    # Without the dividend paid out overnight, as exchanges quote a session's change.
    paid = bars["dividend"].to_numpy() * shares
    previous = np.concatenate([[np.nan], price["close"][:-1]]) - paid
    change = price["close"] / previous - 1
    span = (price["high"] - price["low"]) / previous
    volume = bars["volume"].to_numpy() / shares
    facts = bars.assign(
        change=change,
        before=np.concatenate([[np.nan], change[:-1]]),
        gap=price["open"] / previous - 1,
        usual_move=np.sqrt(np.mean(_history(change) ** 2, axis=1)),
        volume_ratio=volume / _history(volume).mean(axis=1),
        span_ratio=span / _history(span).mean(axis=1),
        best=price["close"] > _history(price["close"]).max(axis=1),
        worst=price["close"] < _history(price["close"]).min(axis=1),
        run=_run_length(np.sign(change)),
    )
    return facts.iloc[HISTORY + 1 :]


def _history(values: _Array) -> _Array:
    """(n, HISTORY): the values of the sessions before each one, NaN where there are too few."""
    padded = np.concatenate([np.full(HISTORY, np.nan), values[:-1]])
    return sliding_window_view(padded, HISTORY)


def _run_length(signs: _Array) -> _Array:
    """Sessions in a row, this one included, that moved as this one did."""
    position = np.arange(len(signs))
    changed = np.concatenate([[True], signs[1:] != signs[:-1]])
    return np.add(position - np.maximum.accumulate(np.where(changed, position, 0)), 1.0)


def _newsworthy(day: dict[str, Any]) -> list[str]:
    """Kinds of headline that a session deserves, strongest first."""
    events = {kind: strength for kind, strength in _events(day) if strength >= _NEWSWORTHY}
    return sorted(events, key=lambda kind: (-events[kind], kind))[:MOST]


def _events(day: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Everything that could be said, each with its strength; 1 is barely worth a headline."""
    up = day["change"] > 0
    move = abs(day["change"]) / day["usual_move"]
    yield "move", move
    yield "flat", 1.0 if move < 0.1 and day["volume_ratio"] > 0.9 else 0.0
    yield "thin trading", 1.0 if 0.1 <= move < 1.0 and day["volume_ratio"] < 0.55 else 0.0
    busy = day["volume_ratio"] / 1.5 if move >= 0.5 else 0.0
    yield "rally on volume" if up else "selloff on volume", busy
    yield "new high", 1.1 + 0.2 * move if up and day["best"] else 0.0
    yield "new low", 1.1 + 0.2 * move if not up and day["worst"] else 0.0
    against = min(-np.sign(day["change"]) * day["gap"] / day["usual_move"], move)
    yield "recovery" if up else "reversal", 2 * against
    yield "winning run" if up else "losing run", day["run"] / 5 if move >= 0.25 else 0.0
    yield "wide range", day["span_ratio"] / 1.8
    yield "dividend", 3.0 if day["dividend"] > 0 else 0.0
    yield "split", 9.0 if day["split"] > 0 else 0.0


def _title(kind: str, firm: str, day: dict[str, Any], key: str) -> str:
    rises, rise, rose = _choose(_VERBS[_direction(day)], key, "verb")
    percent = f"{abs(day['change']):.1%}"
    before = ("gaining" if day["before"] > 0 else "losing") + f" {abs(day['before']):.1%}"
    return _choose(_WORDING[kind], key, "wording").format(
        firm=firm,
        rises=rises,
        rise=rise,
        rose=rose,
        after=f"after {before} a session earlier",
        pct=_choose((percent, percent, percent.replace("%", " pct")), key, "percent"),
        ratio=f"{day['volume_ratio']:.1f}",
        days=int(day["run"]),
        run=_ordinal(int(day["run"])),
        split=f"{day['split']:g}-for-1",
        cash=_dollars(day["dividend"]),
        **{name: _dollars(day[name]) for name in ("close", "high", "low")},
    )


def _direction(day: dict[str, Any]) -> str:
    """Which verbs fit: a strong move is unusual for the ticker and large, or very large."""
    size, unusual = abs(day["change"]), abs(day["change"]) / day["usual_move"]
    strong = size >= 0.04 or (unusual >= 1.5 and size >= 0.015)
    slight = size < 0.01 and unusual < 0.75
    return ("up" if day["change"] > 0 else "down") + strong * " strong" + slight * " slight"


def _summary(firm: str, ticker: str, day: dict[str, Any]) -> str:
    return (
        f"{firm} ({ticker}) closed at {_dollars(day['close'])}, {day['change']:+.2%} on the"
        f" session, after trading between {_dollars(day['low'])} and {_dollars(day['high'])}."
        f" Volume was {day['volume_ratio']:.1f} times its mean of {HISTORY} sessions."
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}"


def _ordinal(number: int) -> str:
    teens = 10 < number % 100 < 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _choose(options: Sequence[_T], key: str, slot: str) -> _T:
    """Choose by hash, so that the choice depends on this key alone and on no random state."""
    digest = hashlib.sha256(f"{slot} {key}".encode()).digest()
    return options[int.from_bytes(digest[:8]) % len(options)]
