"""The registry's rules on hand-made versions, and the files that versions serve from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnn_pipeline.networks import registry
from rnn_pipeline.networks.checkpoints import weights_hash
from rnn_pipeline.networks.registry import NO_EVENTS, Recipe, ServingFiles
from rnn_pipeline.settings import FoldSpec, ModelSettings, NetworkSpec

from .test_walk_forward import datasets, train

NOW = pd.Timestamp("2024-03-01 22:00", tz="UTC")
DAY = pd.Timestamp("2024-03-01")
NEXT = pd.Timestamp("2024-03-02")
OWN = Recipe("own", "grid", False, "lstm", 1)
OTHER = Recipe("other", "grid", False, "lstm@other", 1)


def version(name, recipe=OWN, ticker="AAPL", fold=3, day=DAY):
    return pd.DataFrame(
        [
            {
                "ticker": ticker,
                "slot": "lstm",
                "model": recipe.model,
                "version": name,
                "recipe": recipe.recipe,
                "grid": recipe.grid,
                "horizon": recipe.horizon,
                "pooled": recipe.pooled,
                "fold": fold,
                "trained_until": pd.Timestamp("2024-01-31"),
                "tested_until": day,
                "seen_until": day,
                "checkpoint": f"file of {name}",
                "code_version": "code",
                "created_at": NOW,
            }
        ]
    )


def entered(events, *versions, asked=OWN, day=DAY):
    """The events after these versions came out of a training."""
    for one in versions:
        whole = {f"file of {name}" for name in events["version"]}
        new = registry.unregistered(events, one.drop(columns="checkpoint"), whole)
        new = new.assign(checkpoint="file of " + new["version"])
        tickers = set(one["ticker"])
        added = registry.register(events, new, {"lstm": asked}, tickers, NOW, day)
        events = pd.concat([events, added], ignore_index=True) if len(events) else added
    return events


def states(events):
    newest = events.sort_values("event").groupby("version").tail(1)
    return dict(zip(newest["version"], newest["state"], strict=True))


def more(events, added):
    return pd.concat([events, added], ignore_index=True)


ONE = pd.DataFrame({"ticker": ["AAPL"], "slot": ["lstm"]})


def test_the_first_version_is_champion_of_its_whole_walk_forward():
    (row,) = entered(NO_EVENTS, version("v1")).to_dict("records")
    assert (row["state"], row["was"], row["from_session"]) == ("champion", "", registry.BEGINNING)


def test_a_refit_of_the_champions_recipe_takes_over_with_the_next_session():
    events = entered(NO_EVENTS, version("v1"), version("v2", fold=4))
    assert states(events) == {"v1": "retired", "v2": "champion"}
    speaking = registry.serving(events).set_index("version")
    assert speaking.loc["v1", "end"] == speaking.loc["v2", "begin"] == NEXT
    assert pd.isna(speaking.loc["v2", "end"])


def test_another_recipe_is_a_candidate_and_a_refit_keeps_what_it_had_seen():
    later = pd.Timestamp("2024-06-28")
    events = entered(NO_EVENTS, version("v1"))
    events = entered(events, version("c1", OTHER), asked=OTHER)
    events = entered(events, version("c2", OTHER, fold=4, day=later), asked=OTHER, day=later)
    assert states(events) == {"v1": "champion", "c1": "retired", "c2": "candidate"}
    (challenge,) = registry.challenges(events).to_dict("records")
    assert (challenge["candidate"], challenge["champion"]) == ("lstm@other", "lstm")
    assert (challenge["seen_until"], challenge["trials"]) == (DAY, 1)


def test_training_again_to_the_same_networks_registers_nothing():
    events = entered(NO_EVENTS, version("v1"))
    assert len(entered(events, version("v1"))) == 1


def test_other_folds_take_over_since_nothing_compares_them():
    moved = Recipe("moved", "another grid", False, "lstm@moved", 5)
    events = entered(entered(NO_EVENTS, version("v1")), version("m1", moved), asked=moved)
    assert states(events) == {"v1": "retired", "m1": "champion"}
    assert events.iloc[-1]["from_session"] == NEXT


def test_a_candidate_that_the_settings_dropped_is_retired():
    events = entered(NO_EVENTS, version("v1"))
    events = entered(events, version("c1", OTHER), asked=OTHER)
    events = entered(events, version("v1"), asked=OWN)
    assert states(events) == {"v1": "champion", "c1": "retired"}
    # And back again: a candidate with all that was seen meanwhile behind it.
    later = pd.Timestamp("2024-06-28")
    events = entered(events, version("c1", OTHER, day=later), asked=OTHER, day=later)
    assert registry.challenges(events)["seen_until"].tolist() == [later]


def test_a_slot_that_left_the_settings_falls_silent():
    events = entered(NO_EVENTS, version("v1"))
    gone = registry.register(events, version("v1").iloc[:0], {}, ["AAPL"], NOW, DAY)
    assert states(more(events, gone)) == {"v1": "retired"}
    assert gone["from_session"].tolist() == [NEXT]


def test_promotion_and_two_rollbacks():
    events = entered(NO_EVENTS, version("v1"), version("v2", fold=4))
    events = entered(events, version("c1", OTHER), asked=OTHER)
    kept = {"file of v1", "file of v2", "file of c1"}
    events = more(events, registry.promote(events, ONE, NEXT, NOW, "promoted", "it was better"))
    assert states(events) == {"v1": "retired", "v2": "retired", "c1": "champion"}
    with pytest.raises(ValueError, match=r"lstm of AAPL has no candidate"):
        registry.promote(events, ONE, NEXT, NOW, "forced", "")
    for champion in ("v2", "v1"):
        events = more(events, registry.rollback(events, ONE, NEXT, NOW, kept))
        assert [v for v, state in states(events).items() if state == "champion"] == [champion]
    with pytest.raises(ValueError, match=r"no earlier champion"):
        registry.rollback(events, ONE, NEXT, NOW, kept)


def test_what_was_rolled_back_does_not_come_back_by_itself():
    events = entered(NO_EVENTS, version("v1"), version("v2", fold=4))
    events = more(events, registry.rollback(events, ONE, NEXT, NOW, {"file of v1"}))
    assert states(entered(events, version("v2", fold=4))) == {"v1": "champion", "v2": "retired"}
    newer = entered(events, version("v3", fold=5))
    assert states(newer)["v3"] == "champion"


def test_a_rollback_to_networks_that_are_gone_is_refused():
    events = entered(NO_EVENTS, version("v1"), version("v2", fold=4))
    with pytest.raises(ValueError, match=r"version v1\) are no longer kept"):
        registry.rollback(events, ONE, NEXT, NOW, {"file of v2"})


def test_a_promotion_never_comes_into_force_before_the_champion_it_ends():
    """A run that catches up may find that a candidate won before the newest refit."""
    events = entered(NO_EVENTS, version("v1"))
    events = entered(events, version("c1", OTHER), asked=OTHER)
    refit = registry.register(
        events, version("v2", fold=4), {"lstm": OTHER}, ["AAPL"], NOW, pd.Timestamp("2024-03-08")
    )
    events = more(events, refit)
    events = more(events, registry.promote(events, ONE, NEXT, NOW, "promoted", ""))
    speaking = registry.serving(events)
    champions = speaking[speaking["state"] == "champion"]
    assert champions["version"].tolist() == ["v1", "c1"]
    assert champions["begin"].tolist()[1] == pd.Timestamp("2024-03-09")


def test_only_former_champions_are_kept_and_only_so_many():
    events = entered(NO_EVENTS, *(version(f"v{n}", fold=n) for n in range(1, 6)))
    events = entered(events, version("c1", OTHER), asked=OTHER)
    events = entered(events, version("v5"), asked=OWN)
    needed = registry.still_needed(events, 2)
    assert needed == {"file of v3", "file of v4", "file of v5"}


def test_recipes_are_named_by_what_is_registered():
    model = ModelSettings(networks={"lstm": NetworkSpec()})
    other = ModelSettings(networks={"lstm": NetworkSpec(hidden_sizes=(8,))})
    seeds = model.model_copy(update={"seeds": (5,)})
    asked = registry.recipes(model, FoldSpec(), ["a", "b"], NO_EVENTS)["lstm"]
    assert asked.model == "lstm"
    events = entered(NO_EVENTS, version("v1", asked))
    second = registry.recipes(other, FoldSpec(), ["a", "b"], events)["lstm"]
    assert second.model == f"lstm@{second.recipe[:8]}"
    assert second.grid == asked.grid
    assert registry.recipes(seeds, FoldSpec(), ["a", "b"], events)["lstm"] == asked
    for changed in (
        registry.recipes(model, FoldSpec(test_size=99), ["a", "b"], events)["lstm"],
        registry.recipes(model, FoldSpec(), ["b", "a"], events)["lstm"],
    ):
        assert changed.recipe != asked.recipe
    hidden = FoldSpec(holdout_from="2024-01-01")
    assert registry.recipes(model, hidden, ["a", "b"], events)["lstm"] == asked


def test_forecasts_of_networks_that_are_too_old_lose_their_name():
    sessions = pd.bdate_range("2024-01-01", periods=20)
    forecasts = pd.DataFrame(
        {
            "session": [sessions[12], sessions[13], sessions[13]],
            "model": "gru",
            "trained_until": [sessions[2], sessions[2], pd.NaT],
        }
    )
    marked = registry.marked_expired(forecasts, sessions, 10)
    assert marked["model"].tolist() == ["gru", "gru (expired)", "gru"]


@pytest.fixture(scope="module")
def forecasters():
    return list(train(datasets(tickers=["AAPL", "IBM"]))[0].values())


def test_serving_files_give_back_the_newest_fold_bit_for_bit(tmp_path: Path, forecasters):
    files = ServingFiles(tmp_path / "serving")
    name = files.save(forecasters)
    assert files.save(forecasters) == name
    assert files.whole() == files.kept() == {name}
    (back,) = files.load(name, ["IBM"]).values()
    was = next(one for one in forecasters if one.ticker == "IBM")
    assert {fold for fold, _ in back.members} == {was.last_fold}
    for place, member in back.members.items():
        assert weights_hash(member.state) == weights_hash(was.members[place].state)
        assert back.recipes[place] == was.recipes[place]
    rows = np.random.default_rng(0).normal(size=(30, len(was.columns))).astype(np.float32)
    ends, days = np.array([20, 29]), np.arange(30).astype("datetime64[D]")
    asked = [one.forecast(was.last_fold, rows, ends, days) for one in (was, back)]
    pd.testing.assert_frame_equal(*asked, check_exact=True)
    assert registry.version_of(back) == registry.version_of(was)
    assert len({registry.version_of(one) for one in forecasters}) == 2


def test_a_damaged_or_lost_serving_file_is_refused(tmp_path: Path, forecasters):
    files = ServingFiles(tmp_path)
    name = files.save(forecasters)
    path = tmp_path / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert files.whole() == set()
    with pytest.raises(ValueError, match=r"is damaged .* run the job retrain"):
        files.load(name)
    assert files.prune({name}) == 0
    assert files.prune(set()) == 1
    with pytest.raises(ValueError, match="does not exist"):
        files.load(name)


def test_a_lost_file_is_written_again_and_nothing_else_changes():
    events = entered(NO_EVENTS, version("v1"))
    again = version("v1").assign(checkpoint="a new file")
    (lost,) = registry.unregistered(events, again.drop(columns="checkpoint"), kept=set())["version"]
    assert lost == "v1"
    added = registry.register(events, again, {"lstm": OWN}, ["AAPL"], NOW, DAY)
    (row,) = added.to_dict("records")
    assert (row["state"], row["change"], row["checkpoint"]) == (
        ("champion", "restored", "a new file")
    )
    speaking = registry.serving(more(events, added))
    assert speaking["checkpoint"].tolist() == ["a new file"]
