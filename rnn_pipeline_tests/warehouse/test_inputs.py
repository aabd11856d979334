"""What a session's rows rest on: which change of what is known makes which of them anew."""

import pandas as pd
import pytest

from rnn_pipeline.warehouse import Warehouse, inputs

SESSIONS = pd.bdate_range("2024-01-01", periods=4)
DAYS = [session.date() for session in SESSIONS]


def bars(ticker, sessions=SESSIONS, revision=0, days_late=0, **changes):
    """Bars of a ticker, each known three hours before midnight of its session or days later."""
    rows = pd.DataFrame({"ticker": ticker, "session": sessions, "revision": revision})
    rows["known_at"] = sessions.tz_localize("UTC") + pd.Timedelta(days=days_late, hours=21)
    prices = dict.fromkeys(["open", "high", "low", "close", "adj_close", "volume"], 10.0)
    return rows.assign(is_final=True, **(prices | changes))


@pytest.fixture
def store(tmp_path):
    store = Warehouse(tmp_path / "warehouse.duckdb")
    with store.batch() as batch:
        batch.append("raw_ohlcv", pd.concat([bars("ACME"), bars("BOLT", SESSIONS[:3])]))
    return store


def digests(store, *queries, made_by="", days=DAYS):
    return inputs.digests(store, "asset", days, queries or [inputs.BARS], made_by)


def changed_by(store, rows, table="raw_ohlcv", query=inputs.BARS):
    """The first session whose digest is another once rows are there; None: all stand."""
    before = digests(store, query)
    with store.batch() as batch:
        batch.append(table, rows)
    after = digests(store, query)
    changed = [day for day in DAYS if before[day] != after[day]]
    assert changed == [day for day in DAYS if changed and day >= changed[0]]
    return DAYS.index(changed[0]) if changed else None


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        pytest.param(bars("BOLT", SESSIONS[3:]), 3, id="a new bar"),
        pytest.param(
            bars("ACME", SESSIONS[:1], 1, 2, close=11.0),
            2,
            id="a revision of the first bar that was known on the third evening",
        ),
        pytest.param(
            bars("ACME", SESSIONS[:1], 1, 9, close=11.0),
            None,
            id="a revision that no stored session could know",
        ),
        pytest.param(
            bars("COIL", SESSIONS[1:2]), 1, id="a ticker whose history is taken as known in time"
        ),
        pytest.param(bars("BOLT", SESSIONS[3:], days_late=5), 3, id="a bar that comes late"),
    ],
)
def test_rows_stand_up_to_the_session_that_could_know_the_change(store, rows, first):
    assert changed_by(store, rows) == first


def test_a_bar_that_was_overtaken_is_part_of_its_own_session_on(store):
    """Nobody saw it in time, but its own row is there from then on."""
    with store.batch() as batch:
        batch.replace("raw_ohlcv", pd.DataFrame(), ticker="ACME", session=DAYS[1])
    assert changed_by(store, bars("ACME", SESSIONS[1:2], days_late=2)) == 1


def test_headlines_belong_to_the_first_session_that_could_use_them(store):
    usable = SESSIONS[1].tz_localize("UTC") + pd.Timedelta(hours=22)
    story = pd.DataFrame(
        {"news_id": ["a"], "ticker": "ACME", "revision": 0, "title": "up", "usable_at": usable}
    ).assign(**dict.fromkeys(["published_at", "first_seen_at", "known_at"], usable))
    assert changed_by(store, story, "raw_news", inputs.HEADLINES) == 2
    edited = story.assign(revision=1, title="down")
    assert changed_by(store, edited, "raw_news", inputs.HEADLINES) is None


def test_whole_tables_and_code_concern_every_session(store):
    before = digests(store, inputs.whole("quarantine"))
    assert set(before.values()).isdisjoint(
        digests(store, inputs.whole("quarantine"), made_by="other").values()
    )
    with store.batch() as batch:
        batch.append("quarantine", pd.DataFrame({"quarantine_id": ["a"], "rule": ["b"]}))
    assert set(before.values()).isdisjoint(digests(store, inputs.whole("quarantine")).values())


def recorded(store, found, rows, whole=True):
    frame = pd.DataFrame({"ticker": "ACME", "session": SESSIONS[: len(found)], "horizon": 1})
    with store.batch() as batch:
        batch.replace("targets", frame[:rows], ticker="ACME")
        inputs.record(batch, "targets", found, "a run", whole=whole)


def test_sessions_stand_while_their_rows_are_there(store):
    found = digests(store)
    recorded(store, found, rows=4)
    assert inputs.standing(store, "targets", DAYS) == found
    with store.batch() as batch:
        batch.replace("targets", pd.DataFrame(), session=DAYS[2])
    assert set(inputs.standing(store, "targets", DAYS)) == set(DAYS) - {DAYS[2]}


def test_sessions_without_rows_stand_too(store):
    recorded(store, digests(store), rows=2)
    assert set(inputs.standing(store, "targets", DAYS)) == set(DAYS)


@pytest.mark.parametrize("asset", ["raw_news", "walk_forward_report"])
def test_an_asset_without_sessions_stands_as_a_whole(store, asset):
    found = inputs.digests(store, asset, [inputs.UNDATED], [inputs.ALL_HEADLINES], "")
    with store.batch() as batch:
        inputs.record(batch, asset, found, "a run", whole=True)
    assert inputs.standing(store, asset, [inputs.UNDATED]) == found


def test_what_was_made_for_a_few_tickers_is_made_again_for_all(store):
    recorded(store, digests(store), rows=4)
    recorded(store, {DAYS[3]: "other"}, rows=1, whole=False)
    assert store.rows("made_from")["session"].dt.date.tolist() == DAYS[:3]


def test_what_rests_on_another_asset_follows_its_records(store):
    query = inputs.made("targets")
    recorded(store, digests(store), rows=4)
    before = digests(store, query)
    with store.batch() as batch:
        inputs.record(batch, "targets", {DAYS[2]: "other"}, "a run", whole=True)
    after = digests(store, query)
    assert [day for day in DAYS if before[day] == after[day]] == DAYS[:2]


def test_a_digest_goes_on_from_the_session_before(store):
    """However a history is cut into runs, its sessions rest on the same."""
    found = digests(store)
    with store.batch() as batch:
        inputs.record(batch, "asset", {DAYS[1]: found[DAYS[1]]}, "a run", whole=True)
    assert digests(store, days=DAYS[2:]) == {day: found[day] for day in DAYS[2:]}
