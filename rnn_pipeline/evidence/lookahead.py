"""The look-ahead test: change what became known after a moment, and see whether the past moves.

The one idea: run the whole chain on what is known, and again on the same knowledge with its future
cut off, scrambled, or restated. Whatever the chain says was known at the cut must be the same, bit
for bit. The test knows nothing of the stages: it is given the chain as a function from `Knowledge`
to artefacts, frames of which every row says when it was known. So it needs no list of what might
leak, and a stage added tomorrow is tested tomorrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Artefacts = Mapping[str, pd.DataFrame]
"""Name of an asset to its rows, in the order of the flow. Every row has ``known_at``."""

Moments = Callable[[pd.Timestamp], pd.Timestamp]
"""From a session to its close."""

FUTURES = ("truncated", "scrambled", "restated")
"""What is done to what became known after a cut."""

VARIANTS = (*FUTURES, "reordered")
"""All passes that full knowledge is compared with; ``reordered`` is run once, on all rows."""

#: What names a row among the rows of its asset, where the asset has such a column.
_KEYS = (
    "session", "ticker", "fold", "role", "model", "seed", "horizon", "level", "feature", "epoch",
)  # fmt: skip

_PRICES = ["open", "high", "low", "close", "adj_close"]


@dataclass(frozen=True)
class Knowledge:
    """Rows of the raw tables, each with the moment it became known.

    Attributes:
        bars: rows of ``raw_ohlcv``, every revision.
        headlines: rows of ``raw_news``, every revision.
        corpus: labelled headlines, which have no date: they are known from the beginning.
    """

    bars: pd.DataFrame
    headlines: pd.DataFrame
    corpus: pd.DataFrame


@dataclass(frozen=True)
class Difference:
    """Where a pass first said something else about the past: the first asset, then the first row.

    ``session`` is the row's own, or the one at whose close the row was known. ``row`` holds what
    else names it (fold, model, ...), ``before`` what the pass on full knowledge has there and
    ``after`` what the other pass has.
    """

    variant: str
    cut: pd.Timestamp
    asset: str
    column: str
    ticker: str
    session: pd.Timestamp
    row: str
    before: object
    after: object

    def __str__(self) -> str:
        return (
            f"{self.asset}.{self.column} of {self.ticker} at {self.session:%Y-%m-%d}{self.row} is"
            f" {self.before}, but {self.after} in the pass where what followed"
            f" {self.cut:%Y-%m-%d} is {self.variant}"
        )


@dataclass(frozen=True)
class Findings:
    """What the look-ahead test found.

    Attributes:
        passes: asset, variant, cut, rows compared, same (whether their hashes agree); one line per
            asset and pass.
        differences: the first one of each pass that differed.
    """

    passes: pd.DataFrame
    differences: tuple[Difference, ...]

    @property
    def clean(self) -> bool:
        """Whether no pass moved the past."""
        return not self.differences


def truncated(knowledge: Knowledge, cut: pd.Timestamp) -> Knowledge:
    """Forget everything that became known after a moment."""
    return replace(
        knowledge,
        bars=knowledge.bars[knowledge.bars["known_at"] <= cut],
        headlines=knowledge.headlines[knowledge.headlines["known_at"] <= cut],
    )


def scrambled(knowledge: Knowledge, cut: pd.Timestamp, seed: int = 0) -> Knowledge:
    """Put other numbers and other words into all rows that became known after a moment."""
    rng = np.random.default_rng(seed)
    bars, headlines = knowledge.bars.copy(), knowledge.headlines.copy()
    late = (bars["known_at"] > cut).to_numpy()
    # One factor per bar keeps high above low, so that no row is rejected before it can leak.
    factor = np.exp(rng.normal(0.0, 0.2, late.sum()))
    for column in _PRICES:
        bars.loc[late, column] *= factor
    bars.loc[late, "volume"] = np.round(bars.loc[late, "volume"] * rng.uniform(0.1, 9, late.sum()))
    late = (headlines["known_at"] > cut).to_numpy()
    for column in ("title", "summary"):
        words = headlines.loc[late, column].fillna("").to_numpy(dtype=object)
        shuffled = words[rng.permutation(len(words))]
        headlines.loc[late, column] = [f"{word} scrambled" for word in shuffled]
    return replace(knowledge, bars=bars, headlines=headlines)


def restated(
    knowledge: Knowledge, cut: pd.Timestamp, sessions: pd.DatetimeIndex, seed: int = 0
) -> Knowledge:
    """Correct the past after a moment: what vendors do to a history that one has traded on.

    An hour after the cut every second ticker is split two for one, the others have a dividend
    taken off their adjusted closes; a tenth of all bars is corrected, bars that were missing
    arrive late, and every fifth headline is edited. Nothing that was known is changed: all of it is
    new revisions.

    Args:
        knowledge: what is known.
        cut: the moment.
        sessions: the calendar, which says what bars are missing.
        seed: of the corrections.
    """
    rng = np.random.default_rng(seed)
    moment = cut + pd.Timedelta(hours=1)
    known = knowledge.bars[knowledge.bars["known_at"] <= cut]
    newest = known.sort_values("revision").groupby(["ticker", "session"], as_index=False).last()
    tickers = sorted(newest["ticker"].unique())
    split = newest["ticker"].isin(tickers[::2]).to_numpy()
    revised = newest.copy()
    revised.loc[split, _PRICES] /= 2.0
    revised.loc[split, "volume"] *= 2.0
    revised.loc[~split, "adj_close"] *= 0.98
    corrected = rng.random(len(revised)) < 0.1
    factor = np.exp(rng.normal(0.0, 0.05, corrected.sum()))
    for column in _PRICES:
        revised.loc[corrected, column] *= factor
    revised["revision"] += 1

    late = []
    for ticker, own in newest.groupby("ticker"):
        span = sessions[(sessions > own["session"].min()) & (sessions < own["session"].max())]
        missing = span.difference(pd.DatetimeIndex(own["session"]))
        before = own.set_index("session").reindex(missing, method="ffill")
        late.append(before.rename_axis("session").reset_index().assign(ticker=ticker, revision=0))
    arrived = pd.concat([revised, *late], ignore_index=True).astype(knowledge.bars.dtypes.to_dict())
    arrived = arrived.assign(known_at=moment, provenance="observed", reason="restated")

    seen = knowledge.headlines[knowledge.headlines["known_at"] <= cut]
    edited = seen.iloc[::5].copy()
    edited["title"] = "Correction: " + edited["title"].iloc[::-1].to_numpy()
    edited["revision"] += 1
    edited = edited.assign(first_seen_at=moment, known_at=moment, usable_at=moment)
    later = _renumbered(knowledge.bars[knowledge.bars["known_at"] > cut], arrived)
    return replace(
        knowledge,
        bars=pd.concat([known, arrived.astype(known.dtypes.to_dict()), later], ignore_index=True),
        headlines=pd.concat(
            [
                seen,
                edited.astype(seen.dtypes.to_dict()),
                _renumbered(knowledge.headlines[knowledge.headlines["known_at"] > cut], edited),
            ],
            ignore_index=True,
        ),
    )


def _renumbered(later: pd.DataFrame, arrived: pd.DataFrame) -> pd.DataFrame:
    """Revisions that were known later anyway come after those that have just arrived."""
    keys = ["ticker", "news_id" if "news_id" in later else "session"]
    taken = arrived.groupby(keys)["revision"].max().rename("taken")
    moved = later.join(taken, on=keys)
    moved["revision"] += np.where(moved["taken"].notna(), 1, 0)
    return moved.drop(columns="taken").astype(later.dtypes.to_dict())


def changed(
    knowledge: Knowledge, future: str, cut: pd.Timestamp, sessions: pd.DatetimeIndex
) -> Knowledge:
    """What is known, with its future changed as `FUTURES` name it."""
    if future == "restated":
        return restated(knowledge, cut, sessions)
    return truncated(knowledge, cut) if future == "truncated" else scrambled(knowledge, cut)


def reordered(knowledge: Knowledge, seed: int = 0) -> Knowledge:
    """The same knowledge with its rows, and so its tickers, in another order."""
    rng = np.random.default_rng(seed)

    def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)

    return replace(
        knowledge, bars=shuffled(knowledge.bars), headlines=shuffled(knowledge.headlines)
    )


def look_ahead(
    run: Callable[[Knowledge], Artefacts],
    knowledge: Knowledge,
    cuts: Sequence[pd.Timestamp],
    sessions: pd.DatetimeIndex,
    close: Moments,
    variants: Sequence[str] = VARIANTS,
    progress: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Run the chain on full knowledge and on every variant of it, and compare the past.

    Of the full pass alone one more thing must hold: no row speaks of a ticker and session that has
    no bar (a difference of the variant "made up").

    Args:
        run: the chain. It must be deterministic.
        knowledge: what is known.
        cuts: sessions after whose close the future is changed.
        sessions: the calendar from the first to the last session.
        close: of a session.
        variants: of `VARIANTS`.
        progress: told what is being run.

    Returns:
        What was compared, and the first difference of each pass.

    Raises:
        ValueError: of some asset no row was known at a cut, so that comparing would prove nothing.
    """
    progress("full knowledge")
    full = run(knowledge)
    lines: list[pd.DataFrame] = []
    differences: list[Difference | None] = [_made_up(full, knowledge)]

    def compare(variant: str, cut: pd.Timestamp, before: Artefacts, after: Artefacts) -> None:
        lines.append(_compared(before, after).assign(variant=variant, cut=cut))
        differences.append(first_difference(before, after, variant, cut))

    for cut in cuts:
        moment = close(cut)
        before = _known(full, moment)
        if empty := [asset for asset, frame in before.items() if frame.empty]:
            raise ValueError(
                f"nothing of {', '.join(empty)} was known at {cut:%Y-%m-%d}: cut later, when the"
                " first fold has begun to test"
            )
        for variant in FUTURES:
            if variant in variants:
                progress(f"{variant} after {cut:%Y-%m-%d}")
                other = run(changed(knowledge, variant, moment, sessions))
                compare(variant, cut, before, _known(other, moment))
    if "reordered" in variants:
        progress("rows and tickers in another order")
        compare("reordered", sessions[-1], full, run(reordered(knowledge)))
    return Findings(
        pd.concat(lines, ignore_index=True),
        tuple(difference for difference in differences if difference is not None),
    )


def first_difference(
    before: Artefacts, after: Artefacts, variant: str, cut: pd.Timestamp
) -> Difference | None:
    """Compare two passes asset by asset; None where every bit agrees.

    A frame's rows and columns may come in any order. Of the first asset that differs, the row that
    is first in time is named, and of that the ticker and column that come first.
    """
    for asset in before:
        one, two = _ordered(before[asset]), _ordered(after[asset])
        if _hash(one) == _hash(two):
            continue
        if columns := sorted(set(one.columns) ^ set(two.columns)):
            present = ("a column", "no column") if columns[0] in one else ("no column", "a column")
            return Difference(variant, cut, asset, columns[0], "every ticker", cut, "", *present)
        return _first_row(one, two, variant, cut, asset)
    return None


def _first_row(
    one: pd.DataFrame, two: pd.DataFrame, variant: str, cut: pd.Timestamp, asset: str
) -> Difference:
    """The first row, in order of its keys, that is not in both frames with the same values."""
    keys = [name for name in _KEYS if name in one.columns] or ["known_at"]
    joined = one.merge(two, on=keys, how="outer", indicator=True, suffixes=("", "_after"))
    joined = joined.sort_values(keys, ignore_index=True)
    values = [name for name in one.columns if name not in keys]
    unequal = {name: _bits(joined[name]) != _bits(joined[f"{name}_after"]) for name in values}
    alone = (joined["_merge"] != "both").to_numpy()
    first = int(np.argmax(np.logical_or.reduce([alone, *unequal.values()])))
    row = joined.iloc[first]
    known_at = row.get("known_at", pd.NaT)
    known_at = row["known_at_after"] if pd.isna(known_at) else known_at
    told = ", ".join(
        f"{name} {row[name]}" for name in keys if name not in ("session", "ticker", "known_at")
    )
    if alone[first]:
        column = "row"
        found = ("a row", "no row") if row["_merge"] == "left_only" else ("no row", "a row")
    else:
        column = next(name for name in values if unequal[name][first])
        found = (row[column], row[f"{column}_after"])
    return Difference(
        variant,
        cut,
        asset,
        column,
        str(row.get("ticker", "every ticker")),
        row.get("session", known_at.tz_localize(None).normalize()),
        f" ({told})" if told else "",
        *found,
    )


def _made_up(artefacts: Artefacts, knowledge: Knowledge) -> Difference | None:
    """The first row about a ticker and session of which there is no bar."""
    traded = pd.MultiIndex.from_frame(knowledge.bars[["session", "ticker"]].drop_duplicates())
    for asset, frame in artefacts.items():
        if not {"session", "ticker"} <= set(frame.columns):
            continue
        own = pd.MultiIndex.from_frame(frame[["session", "ticker"]])
        invented = own.difference(traded)
        if len(invented):
            session, ticker = invented[0]
            return Difference(
                "made up", session, asset, "row", ticker, session, "", "a row", "no bar"
            )
    return None


def _known(artefacts: Artefacts, moment: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """What had been known by a moment of every asset."""
    return {asset: frame[frame["known_at"] <= moment] for asset, frame in artefacts.items()}


def _compared(before: Artefacts, after: Artefacts) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "asset": asset,
                "rows": len(frame),
                "same": _hash(_ordered(frame)) == _hash(_ordered(after[asset])),
            }
            for asset, frame in before.items()
        ]
    )


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in _KEYS if name in frame.columns]
    return frame[sorted(frame.columns)].sort_values(keys, ignore_index=True)


def _hash(frame: pd.DataFrame) -> str:
    """SHA-256 over names and bits of all columns; every NaN counts as the same one."""
    digest = hashlib.sha256()
    for name in frame.columns:
        digest.update(f"{name}\n".encode())
        digest.update(_bits(frame[name]).tobytes())
    return digest.hexdigest()


def _bits(column: pd.Series) -> NDArray[Any]:
    """A column as what is compared: numbers and moments by their bits, all else by its text."""
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.to_numpy("datetime64[ns]").view(np.int64)
    if column.dtype.kind in "fiub":
        # Counts are whole numbers in one frame and floats in another where a row had none.
        numbers = column.to_numpy(np.float64)
        return np.where(np.isnan(numbers), np.nan, numbers).view(np.int64)
    return column.astype(str).to_numpy(dtype=str)


def sample_cuts(sessions: Iterable[pd.Timestamp], number: int, seed: int = 0) -> list[pd.Timestamp]:
    """Draw cut dates without replacement, in order of time.

    Raises:
        ValueError: there are fewer sessions than cuts.
    """
    among = list(sessions)
    if len(among) < number:
        raise ValueError(f"{number} cuts among {len(among)} sessions: ask for fewer, or load more")
    chosen = np.random.default_rng(seed).choice(len(among), number, replace=False)
    return [among[place] for place in sorted(chosen)]
