"""Random numbers that are a function of what they are for, not of what was drawn before.

Dropout masks, noise and the order of rows come from counters: element ``i`` of a stream is a hash
of the stream's key and ``i``, and a key is a hash of a member's seed, a purpose and a step. So any
backend, on any device and in any order, draws the same numbers for a member, and no member's
numbers depend on another's. (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3";
the generator is SplitMix of Steele, Lea and Flood 2014, in 32 bits with the finaliser of
MurmurHash3 for elements, in 64 bits for keys.)
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TypeVar

import numpy as np
from torch import Tensor

GOLDEN_32 = 0x9E3779B9
GOLDEN_64 = 0x9E3779B97F4A7C15
MASK_32 = 0xFFFFFFFF
MASK_64 = 0xFFFFFFFFFFFFFFFF

Integers = TypeVar("Integers", np.ndarray, Tensor)
Words = TypeVar("Words", int, np.ndarray)


class Purpose(IntEnum):
    """What a stream is for; part of its key."""

    ORDER = 1
    DROPOUT = 2
    NOISE_RADIUS = 3
    NOISE_ANGLE = 4


def stream_key(seed: Words, purpose: Purpose, step: Words, site: int = 0) -> Words:
    """The key of a stream, from 0 to 2**32 - 1.

    Args:
        seed: the member's; or those of many members, an array of uint64.
        purpose: what the numbers are for.
        step: the optimizer's step, or the epoch, counted from 0; where ``seed`` is an array, a
            uint64 array that broadcasts with it.
        site: where in the network: for dropout the number of recurrent layers below it.
    """
    key = _splitmix64(seed & MASK_64)
    for word in (purpose, step, site):
        key = _splitmix64(key ^ (word & MASK_64))
    return key >> 32


def _splitmix64(state: Words) -> Words:
    """One output of SplitMix64."""
    z = (state + GOLDEN_64) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    return z ^ (z >> 31)


def bits(key: int | Integers, index: Integers) -> Integers:
    """Elements of a stream, each uniform over 0 to 2**32 - 1.

    Args:
        key: from :func:`stream_key`; or those of many streams, int64, that broadcast with
            ``index``.
        index: int64 element numbers from 0 to 2**31 - 1, of any shape; NumPy or torch.

    Returns:
        int64 of the shape of ``index``, or of both broadcast.
    """
    # int64 throughout: torch has no unsigned multiplication. Below 2**32 squared only the lowest
    # 32 bits of a product are wanted, and those wrap-around leaves as they are.
    h = (index * GOLDEN_32 + key) & MASK_32
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & MASK_32
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & MASK_32
    return h ^ (h >> 16)


def dropout_threshold(p: float) -> int:
    """An element is kept where its bits are not below this."""
    return round(p * 2**32)


def normal(seed: int, step: int, index: Tensor) -> Tensor:
    """Standard normal numbers by the transform of Box and Muller (1958).

    Args:
        seed: the member's.
        step: the optimizer's step.
        index: int64 element numbers of any shape.

    Returns:
        float32 of the same shape, on the same device.
    """
    radius, angle = (
        stream_key(seed, purpose, step) for purpose in (Purpose.NOISE_RADIUS, Purpose.NOISE_ANGLE)
    )
    return normal_of(radius, angle, index)


def normal_of(radius_key: int | Tensor, angle_key: int | Tensor, index: Tensor) -> Tensor:
    """What :func:`normal` draws, from the keys of its two streams; see :func:`bits`."""
    # The half keeps the logarithm's argument away from 0.
    uniform = (bits(radius_key, index).double() + 0.5) / 2**32
    turn = bits(angle_key, index).double() * (2 * math.pi / 2**32)
    return ((-2 * uniform.log()).sqrt() * turn.cos()).float()


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which an epoch visits its ``n`` training rows: (n,) int64 permutation."""
    key = stream_key(seed, Purpose.ORDER, epoch)
    return np.argsort(bits(key, np.arange(n)), kind="stable")
