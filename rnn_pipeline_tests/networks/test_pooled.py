from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from pydantic import ValidationError

from rnn_pipeline.features.windows import FoldData, gather
from rnn_pipeline.networks.checkpoints import load_keys, weights_hash
from rnn_pipeline.networks.fleet import Compute, train_members
from rnn_pipeline.networks.pooled import PooledFold, for_ticker, pooled, starting_from
from rnn_pipeline.networks.recurrent import TickerForecaster
from rnn_pipeline.networks.walk_forward import (
    Forecaster,
    StoredNetworks,
    walk_forward_forecasts,
)
from rnn_pipeline.settings import NetworkSpec, TrainingSpec

from .members import CPU, LOOKBACK, REFERENCE, make_member
from .test_walk_forward import TICKERS, by_recipe, datasets
from .test_walk_forward import train as train_forecasters

PLAIN = NetworkSpec(cell="lstm", hidden_sizes=(4,), pooled=True, dropout=0.1)
TOLD = PLAIN.model_copy(update={"ticker_embedding": 2})
SPECS = pytest.mark.parametrize("network", [PLAIN, TOLD], ids=["plain", "told"])
TRAINING = TrainingSpec(epochs=1, batch_size=128, patience=None, learning_rate=0.02)


def train(data, network, known=None, **changes):
    arguments = {"training": TRAINING, "seeds": (0,), "model": "pool"} | changes
    return train_forecasters(data, known, network=network, **arguments)


def hashes(fitted):
    return {
        (ticker, *place): weights_hash(member.state)
        for ticker, forecaster in fitted.items()
        for place, member in forecaster.members.items()
    }


def of_fold(fold):
    return [data for data in datasets() if data.fold == fold]


def test_windows_and_targets_of_a_pool_are_those_of_its_tickers() -> None:
    """Each ticker scaled for itself, no window across two, none of a test row."""
    data = of_fold(1)
    (fold,) = pooled(data)
    assert fold.tickers == TICKERS
    for role in ("train_ends", "val_ends"):
        ends = getattr(fold, role)
        windows = gather(fold.inputs, ends, LOOKBACK)
        owners = fold.owners[ends]
        for place, share in enumerate(data):
            own = getattr(share, role)
            assert np.array_equal(windows[owners == place], gather(share.inputs, own, LOOKBACK))
            assert np.array_equal(fold.targets[ends][owners == place], share.targets[own])
    assert len(fold.inputs) == sum(share.val_ends[-1] + 1 for share in data)


@SPECS
def test_the_order_of_tickers_does_not_matter(network) -> None:
    data = datasets()
    fitted, trained = train(data, network)
    assert trained == 3, "one network per fold"
    assert list(fitted) == list(TICKERS)
    shuffled, _ = train([data[place] for place in np.random.default_rng(0).permutation(9)], network)
    assert hashes(shuffled) == hashes(fitted)
    assert len(set(hashes(fitted).values())) == trained, "and all tickers share it"


@SPECS
def test_later_rows_of_a_ticker_change_no_earlier_network(network) -> None:
    """Scrambled, or gone altogether, from the first test session of a fold on."""
    data = datasets()
    fitted, _ = train(data, network)
    first_test = data[1].sessions[data[1].test_ends[0]]

    def scrambled(share: FoldData) -> FoldData:
        later = share.sessions >= first_test
        noise = np.random.default_rng(5).standard_normal(share.values.shape)
        return replace(
            share,
            values=np.where(later[:, None], noise, share.values).astype(np.float32),
            targets=np.where(later, 9, share.targets).astype(np.float32),
        )

    def gone(share: FoldData) -> FoldData:
        return replace(share, test_ends=share.test_ends[:0])

    msft = [share for share in data if share.ticker == "MSFT"]
    others = [share for share in data if share.ticker != "MSFT"]
    expected = {key: value for key, value in hashes(fitted).items() if key[1] < 2}
    later, _ = train([*others, *map(scrambled, msft[:2]), scrambled(msft[2])], network)
    assert {key: value for key, value in hashes(later).items() if key[1] < 2} == expected
    assert later["AAPL"].recipes[2, 0] != fitted["AAPL"].recipes[2, 0]
    untested, _ = train([*others, msft[0], gone(msft[1])], network)
    assert expected.items() >= {k: v for k, v in hashes(untested).items() if k[1] < 2}.items()
    assert ("MSFT", 1, 0) not in hashes(untested), "not forecast, but learned from"
    earlier, _ = train([share for share in others if share.fold == 1], network)
    assert hashes(earlier)["AAPL", 1, 0] != expected["AAPL", 1, 0]


def test_a_pooled_network_without_an_embedding_is_any_network_on_stacked_rows() -> None:
    """Written out: a member of the fleet on the rows of all tickers."""
    (fold,) = pooled(of_fold(0))
    member = make_member(
        network=PLAIN,
        training=TRAINING,
        inputs=np.concatenate([share.inputs[: share.val_ends[-1] + 1] for share in of_fold(0)]),
        targets=fold.targets,
        train_ends=fold.train_ends,
        val_ends=fold.val_ends,
        seed=1,
    )
    (by_hand,) = train_members([member], REFERENCE)
    fitted, _ = train(of_fold(0), PLAIN, seeds=(0, 1))
    assert set(hashes(fitted).values()) >= {weights_hash(by_hand.state)}


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_folded_embedding_forecasts_what_the_embedded_network_does(cell) -> None:
    network = TOLD.model_copy(update={"cell": cell})
    data = of_fold(0)
    fitted, _ = train(data, network)
    member = fitted["IBM"].members[0, 0]
    whole = TickerForecaster(network, 3, 1, len(TICKERS))
    whole.load_state_dict(member.state)
    whole.eval()
    made = walk_forward_forecasts(data, [fitted]).set_index("ticker")["forecast"]
    forecasts = []
    for place, share in enumerate(data):
        windows = torch.from_numpy(gather(share.inputs, share.test_ends, LOOKBACK))
        with torch.no_grad():
            outputs = whole(windows, torch.full((len(windows),), place))[:, 0].numpy()
        expected = share.target_scaler.inverse(outputs)
        assert np.allclose(made[share.ticker], expected, rtol=0, atol=1e-6)
        forecasts.append(outputs)
    alone = for_ticker(member, "IBM")
    assert set(alone.state) == {name.removeprefix("network.") for name in member.state} - {
        "embedding.weight"
    }
    assert alone.n_outputs == member.n_outputs == 1
    with pytest.raises(ValueError, match=r"not trained on FB, but on AAPL, IBM, MSFT: retrain"):
        for_ticker(member, "FB")


def test_an_embedding_lets_tickers_be_told_apart() -> None:
    """Same inputs, opposite targets: without an embedding nothing can be learned."""
    share = of_fold(0)[0]
    falling = replace(share, ticker="ZZZ", targets=-share.targets)
    rising = replace(share, targets=share.targets * 0 + 1)
    falling = replace(falling, targets=falling.targets * 0 - 1)
    training = TRAINING.model_copy(update={"epochs": 15, "batch_size": 32})
    losses = {}
    for network in (PLAIN, TOLD):
        fitted, _ = train([rising, falling], network, training=training)
        losses[network] = min(fitted["ZZZ"].members[0, 0].history.val_loss)
    assert losses[PLAIN] > 0.9
    assert losses[TOLD] < 0.1


@SPECS
def test_pooled_networks_are_kept_and_only_new_folds_train(network, tmp_path) -> None:
    fitted, _ = train(datasets(), network)
    for ticker, forecaster in fitted.items():
        forecaster.save(tmp_path / ticker, {})
    loaded = [Forecaster.load(tmp_path / ticker) for ticker in TICKERS]
    again, trained = train(datasets(), network, by_recipe(loaded))
    assert (hashes(again), trained) == (hashes(fitted), 0)
    longer, trained = train(datasets(266), network, by_recipe(loaded))
    assert (hashes(longer), trained) == (hashes(fitted), 0)
    grown, trained = train(datasets(300), network, by_recipe(loaded))
    assert trained == 1
    assert hashes(grown).items() > hashes(fitted).items()
    data = datasets()
    assert_frame_equal(
        walk_forward_forecasts(data, [{one.ticker: one for one in loaded}]),
        walk_forward_forecasts(data, [fitted]),
        check_exact=True,
    )


def test_unfinished_pooled_networks_are_kept_until_their_forecasters_are(tmp_path) -> None:
    unfinished = StoredNetworks(tmp_path)
    fitted, _ = train(datasets(), TOLD, networks=unfinished, warm_epochs=1)
    assert list(fitted) == list(TICKERS)
    waited = [load_keys(path) for path in tmp_path.iterdir()]
    assert len(waited) == 2, "two folds were there before the third"
    assert {key for (key,) in waited} < set(by_recipe(fitted.values()))
    unfinished.forget(TICKERS)
    assert len(list(tmp_path.iterdir())) == 2
    unfinished.forget(["all"])
    assert list(tmp_path.iterdir()) == []


def test_a_warm_fold_starts_from_the_vectors_of_the_fold_before() -> None:
    """A ticker that joins in starts from the mean of those that were there."""
    data = [share for share in datasets() if share.ticker != "IBM" or share.fold > 0]
    fitted, trained = train(data, TOLD, seeds=(3,), warm_epochs=1)
    assert trained == 3
    before = fitted["AAPL"].members[0, 3]
    assert before.tickers == ("AAPL", "MSFT")
    initial = starting_from(before, TICKERS)
    one, two = before.state["embedding.weight"]
    assert torch.equal(initial["embedding.weight"], torch.stack([one, (one + two) / 2, two]))
    (fold,) = pooled([share for share in data if share.fold == 1])
    member = make_member(
        network=TOLD,
        training=TRAINING,
        inputs=fold.inputs,
        targets=fold.targets,
        train_ends=fold.train_ends,
        val_ends=fold.val_ends,
        seed=3,
        initial=initial,
        tickers=TICKERS,
        owners=fold.owners,
    )
    (by_hand,) = train_members([member], REFERENCE)
    assert hashes(fitted)["MSFT", 1, 3] == weights_hash(by_hand.state)


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_an_embedding_is_left_to_the_reference(backend) -> None:
    data = of_fold(0)
    fitted, _ = train(data, TOLD, compute=Compute(CPU, backend=backend))
    assert hashes(fitted) == hashes(train(data, TOLD)[0])


def test_a_fold_knows_what_its_networks_see() -> None:
    data = of_fold(0)
    (fold,) = pooled(data)
    tested = data[0].values.copy()
    tested[data[0].test_ends] = 7.0
    assert PooledFold((replace(data[0], values=tested), *data[1:])).training_hash == (
        fold.training_hash
    )
    seen = data[0].values.copy()
    seen[data[0].val_ends[-1]] = 7.0
    assert PooledFold((replace(data[0], values=seen), *data[1:])).training_hash != (
        fold.training_hash
    )
    assert PooledFold(tuple(data[1:])).training_hash != fold.training_hash


def test_wrong_owners_and_specifications_are_refused() -> None:
    with pytest.raises(ValueError, match="every one of the 130 rows needs its owner"):
        make_member(tickers=("A", "B"), owners=np.zeros(7, dtype=np.int64))
    with pytest.raises(ValidationError, match="ticker_embedding 2 is for pooled networks"):
        NetworkSpec(ticker_embedding=2)
    assert pd.Series(pooled([])).empty
