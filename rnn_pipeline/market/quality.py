"""Good rows and bad ones: what must hold of bars, headlines and features.

The rules are Great Expectations suites. Every row that breaks a rule is set aside with the names
of all rules it broke, and the rest is good: one bad row never costs a batch. What a rule compares
with may lie outside the table (the close of a session, the present moment); such facts are laid
beside the data as columns, and the suite judges those.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from rnn_pipeline.market.sources import is_ticker

#: Prices of a bar may contradict each other by this share: sources round each by itself.
PRICE_TOLERANCE = 1e-6

#: A longer title is a page or an attack, not a headline.
MAX_TITLE_LENGTH = 2_000

#: A feature with more equal values in a row than this (a year of sessions) is reported as stuck.
MAX_CONSTANT_ROWS = 250

#: A feature drifts when more than this share of new rows lies outside the middle `DRIFT_RANGE` of
#: the training rows.
DRIFT_SHARE = 0.05
DRIFT_RANGE = 0.99

#: Smallest and largest value allowed; infinity leaves a side open.
Bounds = tuple[float, float]

_PRICES = ("open", "high", "low", "close", "adj_close")
_QUANTITIES = ("volume", "dividend", "split")
_LARGEST = sys.float_info.max
_SAMPLE_ROWS = 5
_SAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Verdict:
    """What became of a batch: every input row is either in ``good`` or in ``bad``.

    Attributes:
        good: rows that hold every rule, in the input's order, with its columns and index.
        bad: the others, likewise, with ``rule`` added: the names of what they broke, joined by
            ``"; "``.
        summary: for metadata, as JSON: ``rows``, ``good``, ``bad``, ``passed`` (no rule was
            broken), ``failing`` (rule to number of rows, of all rules) and ``sample`` (the first
            bad rows as text).
    """

    good: pd.DataFrame
    bad: pd.DataFrame
    summary: dict[str, Any]


@dataclass(frozen=True)
class _Rule:
    """A name, and the expectation of ``great_expectations.expectations`` that tests it."""

    name: str
    expectation: str
    arguments: dict[str, Any]


# Great Expectations finds no fault with the columns of a table that has no rows.
_NOT_EMPTY = _Rule("not_empty", "ExpectTableRowCountToBeBetween", {"min_value": 1})


def check_bars(
    bars: pd.DataFrame, sessions: pd.DatetimeIndex, closes: pd.DatetimeIndex, now: datetime
) -> Verdict:
    """Judge daily bars.

    Prices are present, finite and positive, and ``high`` and ``low`` enclose the bar within
    :data:`PRICE_TOLERANCE`; volume, dividend and split are present, finite and not negative. The
    session is on the calendar and closed by ``now`` (``bar_final``). A ticker has one bar per
    session: the first one that is otherwise sound is good, repeats of it are bad. A batch without
    a row does not pass (``not_empty``).

    Args:
        bars: ticker, session, open, high, low, close, adj_close, volume, dividend, split.
        sessions: all sessions that a bar may belong to, midnights without a zone.
        closes: their closes (UTC), in the same order.
        now: the zone-aware moment of judgement.

    Raises:
        ValueError: a column is missing, prices are no numbers, or a zone is where none belongs.
    """
    _require(bars, ["ticker", "session", *_PRICES, *_QUANTITIES])
    close = pd.Series(closes, index=sessions).reindex(_sessions(bars)).array
    shown = _numbers(bars, [*_PRICES, *_QUANTITIES]).assign(
        ticker=bars["ticker"].array,
        session=bars["session"].array,
        session_close=close,
        unfinished=close > _moment(now),
        misspelt=_misspelt(bars["ticker"]),
    )
    shown["least_high"] = shown[["open", "low", "close"]].max(axis=1) * (1 - PRICE_TOLERANCE)
    shown["greatest_low"] = shown[["open", "high", "close"]].min(axis=1) * (1 + PRICE_TOLERANCE)
    rules = [_NOT_EMPTY, _present("ticker"), _never("ticker_spelling", "misspelt")]
    for price in _PRICES:
        rules += _finite(price)
        rules.append(_between(f"{price}_positive", price, 0, None, strict_min=True))
    for quantity in _QUANTITIES:
        rules += _finite(quantity)
        rules.append(_between(f"{quantity}_not_negative", quantity, 0, None))
    rules += [
        _at_least("high_is_highest", "high", "least_high"),
        _at_least("low_is_lowest", "greatest_low", "low"),
        _Rule("session_on_calendar", "ExpectColumnValuesToNotBeNull", {"column": "session_close"}),
        _never("bar_final", "unfinished"),
    ]
    return _judge(bars, shown, rules, unique=("unique_session", ["ticker", "session"]))


def check_headlines(headlines: pd.DataFrame, now: datetime) -> Verdict:
    """Judge headlines.

    The title is more than white space and at most :data:`MAX_TITLE_LENGTH` characters; ticker,
    ``news_id`` and ``published_at`` are present, the latter not after ``now``. A ticker
    has a ``news_id`` once: the first that is otherwise sound is good. No headlines at all is fine:
    most days have none.

    Args:
        headlines: news_id, ticker, published_at (zone-aware), title.
        now: the zone-aware moment of judgement.

    Raises:
        ValueError: a column is missing, or ``published_at`` has no zone.
    """
    _require(headlines, ["ticker", "news_id", "published_at", "title"])
    published_at = pd.DatetimeIndex(headlines["published_at"])
    if published_at.tz is None and published_at.notna().any():
        raise ValueError(
            f"published_at needs a time zone, {published_at.dropna()[0]} has none: localise it, for"
            " example with dt.tz_localize('UTC')"
        )
    titles = headlines["title"].fillna("").astype(str)
    shown = pd.DataFrame(
        {
            "ticker": headlines["ticker"].array,
            "news_id": headlines["news_id"].array,
            "title_length": titles.str.strip().str.len().to_numpy(dtype="int64"),
            "published_at": published_at.array,
            "misspelt": _misspelt(headlines["ticker"]),
            "in_future": pd.to_datetime(published_at, utc=True) > _moment(now),
        }
    )
    rules = [
        _present("ticker"),
        _never("ticker_spelling", "misspelt"),
        _present("news_id"),
        _between("title_present", "title_length", 1, None),
        _between("title_length", "title_length", None, MAX_TITLE_LENGTH),
        _present("published_at"),
        _never("published_in_future", "in_future"),
    ]
    return _judge(headlines, shown, rules, unique=("unique_news_id", ["ticker", "news_id"]))


def check_features(
    features: pd.DataFrame,
    columns: Mapping[str, Bounds | None],
    warm_up: pd.DataFrame | None = None,
) -> Verdict:
    """Judge feature rows.

    Every feature is present, finite and within its bounds, and a ticker has one row per session,
    as for bars; inside its ``warm_up`` a feature may be missing. A batch without a row does not
    pass. The summary's ``constant`` names features that keep one value for more than
    :data:`MAX_CONSTANT_ROWS` rows of a ticker, with the number of rows: suspicious, but no rule is
    broken.

    Args:
        features: ticker, session and the columns below.
        columns: feature names and their bounds (both included), None where there are none.
        warm_up: ticker, session and per feature whether the row lies inside its warm-up; empty: no
            row does.

    Raises:
        ValueError: a column is missing or holds no numbers, or session has a zone.
    """
    _require(features, ["ticker", "session", *columns])
    shown = _numbers(features, columns).assign(
        ticker=features["ticker"].array, session=_sessions(features).array
    )
    rules = [_NOT_EMPTY, _present("ticker"), _present("session")]
    if warm_up is not None:
        keys = ["ticker", "session"]
        warm_up = features[keys].merge(warm_up, on=keys, how="left")
    by_feature = []
    doubtful = np.zeros(len(shown), dtype=bool)
    for name, bounds in columns.items():
        present, finite = _finite(name)
        lost = shown[name].isna().to_numpy()
        if warm_up is not None:
            lost = lost & ~warm_up[name].fillna(False).to_numpy(dtype=bool)
            shown[f"{name} lost"] = lost
            present = _never(f"{name}_present_after_warm_up", f"{name} lost")
        by_feature += [present, finite]
        least, most = (-_LARGEST, _LARGEST)
        if bounds is not None:
            by_feature.append(_between(f"{name}_within_bounds", name, *bounds))
            least, most = max(least, bounds[0]), min(most, bounds[1])
        doubtful |= lost | (shown[name].lt(least) | shown[name].gt(most)).to_numpy()
    # A rule costs as much as a hundred thousand rows, there are three per feature, and most batches
    # break none: they are told apart only where one flag over all of them says that it is needed.
    told_apart = bool(doubtful.any())
    rules += by_feature if told_apart else [_never("features_sound", "doubtful")]
    verdict = _judge(
        features,
        shown if told_apart else shown.assign(doubtful=doubtful),
        rules,
        unique=("unique_session", ["ticker", "session"]),
    )
    verdict.summary["failing"] = {rule.name: 0 for rule in by_feature} | verdict.summary["failing"]
    verdict.summary["constant"] = _constant(shown, columns)
    return verdict


def check_drift(features: pd.DataFrame, reference: pd.DataFrame, columns: Sequence[str]) -> Verdict:
    """Compare features with those of the span that networks were trained on.

    A feature has drifted when more than :data:`DRIFT_SHARE` of its rows lie outside what
    :data:`DRIFT_RANGE` of the reference's rows lie within. The rows that do are shown whether or
    not it has: ``bad`` holds every row outside for some feature, ``passed`` says whether a feature
    has drifted, and the summary's ``share_outside`` gives each feature's share.

    Args:
        features: ticker, session and the columns below; missing values are left out.
        reference: the columns below, of the training span.
        columns: feature names.

    Raises:
        ValueError: a column is missing or holds no numbers, or the reference has no value of one.
    """
    _require(features, ["ticker", "session", *columns])
    _require(reference, columns)
    shown, known = _numbers(features, columns), _numbers(reference, columns)
    if empty := [name for name in columns if known[name].notna().sum() == 0]:
        raise ValueError(f"reference has no value of {empty}: pass rows of the training span")
    tail = (1 - DRIFT_RANGE) / 2
    low, high = known.quantile(tail), known.quantile(1 - tail)
    rules = [
        _between(
            f"{name}_as_in_training", name, float(low[name]), float(high[name]),
            mostly=1 - DRIFT_SHARE,
        )
        for name in columns
    ]  # fmt: skip
    outcomes = _run(shown, [_NOT_EMPTY, *rules])
    verdict = _parted(features, outcomes)
    present = shown.notna().sum()
    verdict.summary["share_outside"] = {
        name: len(outcomes[f"{name}_as_in_training"][1]) / max(int(present[name]), 1)
        for name in columns
    }
    return verdict


def _require(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"columns {missing} are missing; there are {list(frame.columns)}")


def _numbers(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The columns as float64, numbered from 0 whatever the frame's index."""
    numbers = {}
    for name in columns:
        try:
            numbers[name] = frame[name].to_numpy(dtype="float64", na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ValueError(f"column {name} must hold numbers: {error}") from None
    return pd.DataFrame(numbers)


def _sessions(frame: pd.DataFrame) -> pd.DatetimeIndex:
    sessions = pd.DatetimeIndex(frame["session"])
    if sessions.tz is not None:
        raise ValueError(f"session must be midnights without a zone, it has zone {sessions.tz}")
    return sessions


def _misspelt(tickers: pd.Series) -> pd.Series:
    """Texts that cannot be tickers: they would become paths, addresses and partition keys."""
    spelt = {ticker: is_ticker(ticker) for ticker in tickers.dropna().unique()}
    return ~tickers.map(spelt).fillna(True).astype(bool).reset_index(drop=True)


def _moment(now: datetime) -> pd.Timestamp:
    moment = pd.Timestamp(now)
    if moment.tz is None:
        raise ValueError(f"now needs a time zone, {moment} has none")
    return moment


def _present(column: str) -> _Rule:
    return _Rule(f"{column}_present", "ExpectColumnValuesToNotBeNull", {"column": column})


def _between(
    name: str, column: str, low: float | None, high: float | None, **options: bool | float
) -> _Rule:
    """Holds of missing values: those break ``_present``."""
    limits = {"column": column, "min_value": low, "max_value": high, **options}
    return _Rule(name, "ExpectColumnValuesToBeBetween", limits)


def _finite(column: str) -> list[_Rule]:
    return [_present(column), _between(f"{column}_finite", column, -_LARGEST, _LARGEST)]


def _at_least(name: str, larger: str, smaller: str) -> _Rule:
    pair = {"column_A": larger, "column_B": smaller, "or_equal": True}
    options = {"ignore_row_if": "either_value_is_missing"}
    return _Rule(name, "ExpectColumnPairValuesAToBeGreaterThanB", pair | options)


def _never(name: str, column: str) -> _Rule:
    """A column of flags, each True where the rule is broken."""
    return _Rule(name, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [False]})


def _judge(
    frame: pd.DataFrame, shown: pd.DataFrame, rules: list[_Rule], unique: tuple[str, list[str]]
) -> Verdict:
    """Part a frame by the rules, which look at ``shown``, its rows numbered from 0.

    Uniqueness comes last and among sound rows only, so that a broken row, met first, does not
    displace a sound one with the same key.
    """
    name, key = unique
    outcomes = _run(shown, rules)
    sound = shown.drop(index=list({row for _, rows in outcomes.values() for row in rows}))
    repeated = sound.duplicated(key)
    outcomes[name] = (True, [])
    if repeated.any():  # a suite costs half a second, and most batches repeat nothing
        outcomes |= _run(sound.assign(repeated=repeated), [_never(name, "repeated")])
    return _parted(frame, outcomes)


def _parted(frame: pd.DataFrame, outcomes: Mapping[str, tuple[bool, list[int]]]) -> Verdict:
    """Part a frame into the rows that no rule names and the others."""
    broken: dict[int, list[str]] = {}
    for rule, (_, rows) in outcomes.items():
        for row in rows:
            broken.setdefault(row, []).append(rule)
    is_bad = np.zeros(len(frame), dtype=bool)
    is_bad[list(broken)] = True
    bad = frame[is_bad].assign(rule=["; ".join(broken[row]) for row in sorted(broken)])
    summary = {
        "rows": len(frame),
        "good": len(frame) - len(bad),
        "bad": len(bad),
        "passed": all(holds for holds, _ in outcomes.values()),
        # A rule about the batch as a whole is broken once.
        "failing": {rule: len(rows) or int(not holds) for rule, (holds, rows) in outcomes.items()},
        "sample": [
            {column: str(value)[:_SAMPLE_CHARACTERS] for column, value in row.items()}
            for row in bad.head(_SAMPLE_ROWS).to_dict("records")
        ],
    }
    return Verdict(frame[~is_bad], bad, summary)


def _run(shown: pd.DataFrame, rules: list[_Rule]) -> dict[str, tuple[bool, list[int]]]:
    """Run the rules as one suite: whether each holds, and the index labels of rows that break it.

    Raises:
        RuntimeError: a rule could not be evaluated, which must never count as held.
    """
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": shown})
    expectations = [
        getattr(gx.expectations, rule.expectation)(**rule.arguments, meta={"rule": rule.name})
        for rule in rules
    ]
    # COMPLETE lists all failing rows, by index label as long as no index columns are named: with
    # them Great Expectations builds a dictionary per row, some forty times slower.
    validation = batch.validate(
        gx.ExpectationSuite(name="rows", expectations=expectations), result_format="COMPLETE"
    )
    results = {result.expectation_config.meta["rule"]: result for result in validation.results}
    outcomes = {}
    for rule in rules:
        result = results[rule.name]
        if not result.result:
            raise RuntimeError(f"rule {rule.name} was not evaluated: {result.exception_info}")
        outcomes[rule.name] = result.success, result.result.get("unexpected_index_list") or []
    return outcomes


def _constant(shown: pd.DataFrame, columns: Iterable[str]) -> dict[str, int]:
    """Longest run of one value within a ticker, for columns where it is suspiciously long."""
    ordered = shown.sort_values(["ticker", "session"])
    tickers = ordered["ticker"].to_numpy()
    longest = {}
    for name in columns:
        values = ordered[name].to_numpy()
        changes = (values[1:] != values[:-1]) | (tickers[1:] != tickers[:-1])
        starts = np.flatnonzero(np.concatenate([[True], changes, [True]]))
        longest[name] = int(np.diff(starts).max(initial=0))
    return {name: run for name, run in longest.items() if run > MAX_CONSTANT_ROWS}
