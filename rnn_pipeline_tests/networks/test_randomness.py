import numpy as np
import pytest
import torch
from scipy import stats

from rnn_pipeline.networks.randomness import (
    Purpose,
    bits,
    dropout_threshold,
    epoch_order,
    normal,
    stream_key,
)


def test_keys_are_splitmix64_chained_over_the_words() -> None:
    """Reference outputs of SplitMix64 from state 0, as published with its C source."""
    from rnn_pipeline.networks.randomness import _splitmix64

    assert _splitmix64(0) == 0xE220A8397B1DCDAF
    assert _splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    key = 0
    for word in (5, Purpose.DROPOUT, 7, 2):
        key = _splitmix64(key ^ word)
    assert stream_key(5, Purpose.DROPOUT, 7, 2) == key >> 32


def test_elements_are_murmurs_finaliser_in_unsigned_arithmetic() -> None:
    def element(key: int, i: int) -> int:
        h = (key + i * 0x9E3779B9) % 2**32
        h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
        h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
        return h ^ (h >> 16)

    index = np.array([0, 1, 2, 1000, 2**31 - 1])
    for key in (0, 1, 2**32 - 1, stream_key(1, Purpose.ORDER, 0)):
        expected = [element(key, int(i)) for i in index]
        assert bits(key, index).tolist() == expected
        assert bits(key, torch.from_numpy(index)).tolist() == expected


def test_streams_are_uniform_and_unlike_each_other() -> None:
    keys = [
        stream_key(seed, Purpose.DROPOUT, step, site)
        for seed in (0, 1)
        for step in (0, 1)
        for site in (1, 2)
    ]
    assert len(set(keys)) == len(keys)
    draws = np.array([bits(key, np.arange(50_000)) for key in keys]) / 2**32
    for stream in draws:
        assert stats.kstest(stream, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(draws) - np.eye(len(keys))).max() < 0.025
    lagged = [np.corrcoef(stream[:-1], stream[1:])[0, 1] for stream in draws]
    assert np.abs(lagged).max() < 0.025


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_the_threshold_drops_its_share(p: float) -> None:
    dropped = bits(99, np.arange(100_000)) < dropout_threshold(p)
    assert dropped.mean() == pytest.approx(p, abs=0.005)


def test_noise_is_standard_normal() -> None:
    draws = normal(3, 5, torch.arange(50_000))
    assert draws.dtype == torch.float32
    assert stats.kstest(draws.numpy(), "norm").pvalue > 1e-4
    assert not torch.equal(draws, normal(3, 6, torch.arange(50_000)))


def test_orders_are_permutations_that_change_with_seed_and_epoch() -> None:
    orders = [epoch_order(seed, epoch, 500) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(500))
    assert len({order.tobytes() for order in orders}) == 4
    assert epoch_order(0, 0, 500).tobytes() == orders[0].tobytes()


def test_keys_of_many_members_and_steps_at_once_are_those_of_each() -> None:
    seeds, steps = np.array([0, 7, 2**64 - 1], np.uint64), np.arange(4, dtype=np.uint64)
    keys = stream_key(seeds[:, None], Purpose.DROPOUT, steps, 2)
    assert keys.tolist() == [
        [stream_key(seed, Purpose.DROPOUT, step, 2) for step in range(4)] for seed in (0, 7, -1)
    ]
    key = torch.tensor([[3], [2**32 - 1]])
    index = torch.arange(5)
    assert torch.equal(bits(key, index), torch.stack([bits(k, index) for k in (3, 2**32 - 1)]))
