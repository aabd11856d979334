from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnn_pipeline.features.lexicon import OWN_CUES
from rnn_pipeline.features.text import PAD, UNK, Vocabulary
from rnn_pipeline.networks.reading import Headlines, SentimentLSTM
from rnn_pipeline.networks.recurrent import draw_dropout, initialise

from .members import CPU

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bidirectional": {"bidirectional": True},
    "attention": {"bidirectional": True, "attention": True},
    "maximum": {"max_pool": True},
    "both pooled": {"bidirectional": True, "attention": True, "max_pool": True},
}


def made(**options: Any) -> SentimentLSTM:
    network = SentimentLSTM(30, 5, 6, 3, num_layers=2, **options)
    initialise(network, torch.Generator().manual_seed(1))
    return network.eval()


def padded(width: int) -> tuple[Tensor, Tensor]:
    """Three texts of 2, 5 and 1 words."""
    ids = torch.zeros(3, width, dtype=torch.int64)
    ids[0, :2] = torch.tensor([4, 9])
    ids[1, :5] = torch.tensor([3, 3, 8, 29, 2])
    ids[2, :1] = 7
    return ids, torch.tensor([2, 5, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    network = made(**KINDS[kind])
    ids, lengths = padded(9)
    logits = network(ids, lengths)
    assert logits.shape == (3, 3)
    torch.testing.assert_close(network(*padded(5)), logits, rtol=0, atol=1e-6)
    # Without lengths, what is not padding counts.
    assert torch.equal(network(ids), logits)
    garbage = ids.clone()
    garbage[0, 2:] = garbage[2, 1:] = 11
    torch.testing.assert_close(network(garbage, lengths), logits, rtol=0, atol=0)
    for place in range(2):
        changed = ids.clone()
        changed[0, place] = 10
        assert not torch.equal(network(changed, lengths)[0], logits[0]), f"word {place} is ignored"


@pytest.mark.parametrize("kind", ["plain", "bidirectional"])
def test_states_are_those_of_torchs_own_network(kind: str) -> None:
    network = made(**KINDS[kind])
    twin = nn.LSTM(5, 6, num_layers=2, batch_first=True, **KINDS[kind])
    directions = {"": network.layers, "_reverse": network.backward_layers}
    twin.load_state_dict(
        {
            f"{name[:-1]}{depth}{suffix}": value
            for suffix, layers in directions.items()
            for depth, layer in enumerate(layers)
            for name, value in layer.state_dict().items()
        }
    )
    ids, lengths = padded(5)
    packed = pack_padded_sequence(
        network.embedding(ids), lengths, batch_first=True, enforce_sorted=False
    )
    states, (ends, _) = twin(packed)
    expected, _ = pad_packed_sequence(states, batch_first=True)
    found, real = network.states(ids, lengths)
    torch.testing.assert_close(found * real[..., None], expected)
    last = torch.cat(list(ends[-len(ends) // 2 :]), dim=1)
    torch.testing.assert_close(network(ids, lengths), network.head(last))


def test_reading_backwards_is_reading_the_reversed_text() -> None:
    network = made(bidirectional=True)
    network.backward_layers.load_state_dict(network.layers.state_dict())
    with torch.no_grad():
        for layers in (network.layers, network.backward_layers):
            layers[1].weight_ih_l0[:, 6:] = layers[1].weight_ih_l0[:, :6]
    ids = torch.tensor([[3, 8, 29, 2]])
    length = torch.tensor([4])
    there, _ = network.states(ids, length)
    back, _ = network.states(ids.flip(1), length)
    torch.testing.assert_close(there[..., 6:], back[..., :6].flip(1))


def test_attention_is_a_softmax_over_the_words_alone() -> None:
    network = made(attention=True)
    states, real = network.states(*padded(7))
    weight = network.attention(states, real)
    for row, length in enumerate([2, 5, 1]):
        scores = (
            np.tanh(states[row, :length].detach().numpy())
            @ network.query.weight[0].detach().numpy()
        )
        by_hand = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(weight[row, :length].detach(), by_hand, rtol=1e-5)
    assert (weight[~real] == 0).all()
    pooled = torch.stack([(weight[row, :, None] * states[row]).sum(0) for row in range(3)])
    torch.testing.assert_close(network(*padded(7)), network.head(pooled))


def test_the_gradient_reaches_every_weight_and_no_padding() -> None:
    network = made(bidirectional=True, attention=True, max_pool=True, spellings=40, with_cues=True)
    vocabulary = Vocabulary((PAD, UNK, "shares", "rise"))
    read = Headlines(["shares rise sharply", "a fall"], vocabulary, 8, 40, CPU)
    network(*read.batch(torch.arange(2))).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
    assert (network.embedding.weight.grad[0] == 0).all()
    assert (network.spelling.weight.grad[0] == 0).all()


def test_unknown_words_differ_by_their_spelling_and_the_lexicon() -> None:
    vocabulary = Vocabulary((PAD, UNK, "shares"))
    read = Headlines(["shares zoom", "shares sink", "shares qqq"], vocabulary, 8, 50, CPU)
    rows = torch.arange(3)
    assert torch.equal(read.ids[0], read.ids[1])
    *_, known = read.batch(rows)
    assert known[:, 1, :OWN_CUES].tolist() == [[1, 0, 0], [-1, 0, 0], [0, 0, 0]]
    for options in ({"spellings": 50}, {"with_cues": True}):
        network = made(**options)
        one, other, _ = network(*read.batch(rows))
        assert not torch.equal(one, other)


def test_a_batch_is_as_long_as_its_longest_text() -> None:
    vocabulary = Vocabulary((PAD, UNK, "up", "down"))
    read = Headlines(["up", "up down up", "", "down " * 50], vocabulary, 8, 20, CPU)
    ids, lengths, *_ = read.batch(torch.tensor([1, 0, 2]))
    assert ids.tolist() == [[2, 3, 2], [2, 0, 0], [1, 0, 0]]
    assert lengths.tolist() == [3, 1, 1]
    assert read.batch(torch.tensor([3]))[0].shape == (1, 8)


def test_dropped_words_are_read_as_unknown_and_masks_follow_the_seed() -> None:
    network = made(word_dropout=0.9, dropout=0.0)
    network.train()
    ids, lengths = padded(5)
    draw_dropout(network, seed=3, step=0)
    first = network(ids, lengths)
    draw_dropout(network, seed=3, step=1)
    assert not torch.equal(network(ids, lengths), first)
    draw_dropout(network, seed=3, step=0)
    assert torch.equal(network(ids, lengths), first)
    with torch.no_grad():
        network.embedding.weight[2:] = network.embedding.weight[1]
    torch.testing.assert_close(network(ids, lengths), network.eval()(ids, lengths))


def test_pretrained_vectors_are_where_it_starts() -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    network = SentimentLSTM(30, 5, 6, 3, pretrained_embeddings=vectors)
    assert torch.equal(network.embedding.weight[1:], torch.from_numpy(vectors)[1:])
    assert (network.embedding.weight[0] == 0).all()
    with pytest.raises(ValueError, match=r"pretrained_embeddings \(29, 5\) must be finite and of"):
        SentimentLSTM(30, 5, 6, 3, pretrained_embeddings=vectors[1:])
    vectors[3, 3] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        SentimentLSTM(30, 5, 6, 3, pretrained_embeddings=vectors)


@pytest.mark.parametrize("wrong", [{"hidden_dim": 0}, {"dropout": 1.0}, {"word_dropout": -0.1}])
def test_impossible_sizes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SentimentLSTM(30, **wrong)
