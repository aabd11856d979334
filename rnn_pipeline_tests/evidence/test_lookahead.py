"""The look-ahead test itself: what it changes, what it compares, and that it can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.evidence.lookahead import (
    Knowledge,
    first_difference,
    look_ahead,
    reordered,
    restated,
    sample_cuts,
    scrambled,
    truncated,
)

SESSIONS = pd.bdate_range("2020-01-06", periods=10)
CUT = SESSIONS[5]


def close(session: pd.Timestamp) -> pd.Timestamp:
    return session.tz_localize("UTC") + pd.Timedelta(hours=21)


def make() -> Knowledge:
    rows = [(ticker, day) for ticker in ("A", "B") for day in SESSIONS]
    bars = pd.DataFrame(rows, columns=["ticker", "session"])
    price = np.arange(1.0, len(bars) + 1)
    bars = bars.assign(
        revision=0,
        known_at=[close(day) for day in bars["session"]],
        **dict.fromkeys(("open", "high", "low", "close", "adj_close"), price),
        volume=100.0 + price,
        provenance="assumed",
        reason="",
    )
    bars = bars.drop(index=13).reset_index(drop=True)  # B lacks its fourth session
    news = bars[["ticker", "known_at"]].assign(
        news_id=[f"n{row}" for row in range(len(bars))],
        revision=0,
        title=[f"title {row}" for row in range(len(bars))],
        summary="",
        first_seen_at=bars["known_at"],
        usable_at=bars["known_at"],
    )
    return Knowledge(bars, news, pd.DataFrame())


@pytest.fixture
def knowledge() -> Knowledge:
    return make()


def chain(known: Knowledge) -> dict[str, pd.DataFrame]:
    """A causal chain of two assets: closes as first known, and their change."""
    bars = known.bars[known.bars["revision"] == 0].sort_values(["ticker", "session"])
    level = bars[["ticker", "session", "known_at", "close"]].reset_index(drop=True)
    # A late bar belongs to nobody's change.
    late = level["known_at"] > level.groupby("ticker")["known_at"].transform(
        lambda moments: moments[::-1].cummin()[::-1]
    )
    level = level[~late].reset_index(drop=True)
    return {"level": level, "change": level.assign(close=level.groupby("ticker")["close"].diff())}


def test_a_causal_chain_is_clean_and_everything_known_was_compared(knowledge: Knowledge) -> None:
    findings = look_ahead(chain, knowledge, [CUT, SESSIONS[7]], SESSIONS, close)
    assert findings.clean, findings.differences
    passes = findings.passes.set_index(["asset", "variant", "cut"])
    assert passes.loc[("level", "restated", CUT), "rows"] == 11
    assert passes.loc[("level", "reordered", SESSIONS[-1]), "rows"] == 19
    assert len(passes) == 2 * (2 * 3 + 1)


@pytest.mark.parametrize("variant", ["truncated", "scrambled", "restated", "reordered"])
def test_every_pass_can_fail_and_names_the_place(knowledge: Knowledge, variant: str) -> None:
    def leaky(known: Knowledge) -> dict[str, pd.DataFrame]:
        made = chain(known)
        bars = known.bars
        leak = {
            "truncated": 1.0 * len(bars[bars["revision"] == 0]["session"].unique()),
            "scrambled": bars.loc[bars["revision"] == 0, "close"].sort_values().sum(),
            "restated": float(bars["revision"].max()),
            "reordered": float(bars["close"].iloc[0]),
        }[variant]
        change = made["change"]
        there = (change["ticker"] == "B") & (change["session"] == SESSIONS[4])
        return {**made, "change": change.assign(close=change["close"].where(~there, leak))}

    findings = look_ahead(leaky, knowledge, [CUT], SESSIONS, close, variants=[variant])
    (found,) = findings.differences
    assert (found.variant, found.asset, found.column) == (variant, "change", "close")
    assert (found.ticker, found.session) == ("B", SESSIONS[4])
    assert "change.close of B at 2020-01-10 is" in str(found)
    assert findings.passes.set_index("asset")["same"].to_dict() == {"level": True, "change": False}


def test_made_up_rows_are_found(knowledge: Knowledge) -> None:
    def filled(known: Knowledge) -> dict[str, pd.DataFrame]:
        level = chain(known)["level"]
        extra = level[(level["ticker"] == "B") & (level["session"] == SESSIONS[2])]
        return {"level": pd.concat([level, extra.assign(session=SESSIONS[3])], ignore_index=True)}

    findings = look_ahead(filled, knowledge, [CUT], SESSIONS, close, variants=["truncated"])
    assert [(d.variant, d.ticker, d.session) for d in findings.differences] == [
        ("made up", "B", SESSIONS[3])
    ]


def test_comparing_nothing_is_an_error(knowledge: Knowledge) -> None:
    with pytest.raises(ValueError, match="nothing of level, change was known at 2020-01-03"):
        look_ahead(chain, knowledge, [pd.Timestamp("2020-01-03")], SESSIONS, close)


def test_missing_rows_and_columns_and_a_last_bit_are_differences() -> None:
    one = pd.DataFrame(
        {
            "ticker": ["A", "B"],
            "session": [CUT, CUT],
            "fold": [0, 0],
            "x": [1.0, np.nan],
            "known_at": [close(CUT)] * 2,
        }
    )
    assert first_difference({"a": one}, {"a": one.iloc[::-1]}, "t", CUT) is None
    found = first_difference({"a": one}, {"a": one.iloc[:1]}, "t", CUT)
    assert found is not None
    assert (found.column, found.ticker, found.row) == ("row", "B", " (fold 0)")
    found = first_difference({"a": one}, {"a": one.drop(columns="x")}, "t", CUT)
    assert found is not None
    assert (found.column, found.before, found.after) == ("x", "a column", "no column")
    nudged = one.assign(x=[np.nextafter(1.0, 2), np.nan])
    found = first_difference({"a": one}, {"a": nudged}, "t", CUT)
    assert found is not None
    assert (found.column, found.ticker) == ("x", "A")


def test_truncated_forgets_and_scrambled_changes_only_what_came_later(knowledge: Knowledge) -> None:
    moment = close(CUT)
    short = truncated(knowledge, moment)
    assert short.bars["session"].max() == CUT
    assert len(short.headlines) == 11
    other = scrambled(knowledge, moment)
    past = knowledge.bars["known_at"] <= moment
    pd.testing.assert_frame_equal(other.bars[past], knowledge.bars[past])
    assert (other.bars["close"][~past] != knowledge.bars["close"][~past]).all()
    assert (other.headlines["title"][~past] != knowledge.headlines["title"][~past]).all()
    assert (other.headlines["title"][past] == knowledge.headlines["title"][past]).all()


def test_a_market_without_headlines_is_scrambled_too(knowledge: Knowledge) -> None:
    silent = replace(knowledge, headlines=knowledge.headlines[:0].astype({"title": object}))
    other = scrambled(silent, close(CUT))
    assert other.headlines.empty
    assert not other.bars.equals(silent.bars)


def test_restated_adds_revisions_late_bars_and_edits_and_touches_nothing(
    knowledge: Knowledge,
) -> None:
    moment = close(CUT)
    other = restated(knowledge, moment, SESSIONS)
    keys = ["ticker", "session", "revision"]
    kept = other.bars.merge(knowledge.bars[keys], on=keys).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(
        kept[knowledge.bars.columns], knowledge.bars.sort_values(keys, ignore_index=True)
    )
    new = other.bars[(other.bars["revision"] == 1)]
    assert len(new) == 11
    assert (new["known_at"] == moment + pd.Timedelta(hours=1)).all()
    late = other.bars[(other.bars["ticker"] == "B") & (other.bars["session"] == SESSIONS[3])]
    assert late["known_at"].tolist() == [moment + pd.Timedelta(hours=1)]
    assert not other.bars.duplicated(keys).any()
    assert other.headlines["title"].str.startswith("Correction").sum() == 3


def test_a_later_revision_comes_after_the_restatement(knowledge: Knowledge) -> None:
    later = knowledge.bars.iloc[[0]].assign(revision=1, known_at=close(SESSIONS[8]))
    known = replace(knowledge, bars=pd.concat([knowledge.bars, later], ignore_index=True))
    bars = restated(known, close(CUT), SESSIONS).bars
    own = bars[(bars["ticker"] == "A") & (bars["session"] == SESSIONS[0])]
    assert own.sort_values("known_at")["revision"].tolist() == [0, 1, 2]


def test_reordered_moves_rows_and_keeps_them(knowledge: Knowledge) -> None:
    other = reordered(knowledge).bars
    assert not other.equals(knowledge.bars)
    pd.testing.assert_frame_equal(
        other.sort_values(["ticker", "session"], ignore_index=True), knowledge.bars
    )


def test_cuts_are_drawn_in_order_of_time_and_repeat_with_the_seed() -> None:
    cuts = sample_cuts(SESSIONS, 4, seed=3)
    assert cuts == sorted(set(cuts))
    assert cuts == sample_cuts(SESSIONS, 4, seed=3)
    with pytest.raises(ValueError, match="11 cuts among 10 sessions"):
        sample_cuts(SESSIONS, 11)
