"""Random numbers that depend on nothing but (problem's seed, replica, step).

A generator with a state would tie a problem's numbers to whatever else is in the batch. A
counter-based one is a function: every number is a hash of its own coordinates, the same in any
batch, at any position in it, on any device.

Noise of a given distribution is read from a table of its quantiles (as the native kernels do):
gathers are exact, where ``log`` may round differently in the vectorised middle of a tensor and in
its tail, or on another device.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11
(Philox2x32 with 7 rounds, the fewest that they found to pass BigCrush).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["BITS", "exponential_table", "gumbel_table", "philox2x32", "pick", "table_index"]

BITS = 15  # a table has 2**BITS quantiles
_ROUNDS = 7
_MULTIPLIER = 0xD256D193
_WEYL = 0x9E3779B9
_LOW = 0xFFFFFFFF


def philox2x32(
    c0: torch.Tensor, c1: torch.Tensor, key: torch.Tensor, rounds: int = _ROUNDS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Philox2x32: two 32-bit words from a 64-bit counter and a 32-bit key.

    All arguments and results are int64 tensors that hold numbers in [0, 2**32); they broadcast.
    The product of two of them wraps modulo 2**64, which leaves its bits what they would be in
    unsigned arithmetic.
    """
    for r in range(rounds):
        product = c0 * _MULTIPLIER
        high = (product >> 32) & _LOW
        c0 = high ^ c1 ^ ((key + r * _WEYL) & _LOW)
        c1 = product.bitwise_and_(_LOW)
    return c0, c1


def pick(word: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """An index in [0, count) from a 32-bit word, 1 <= count < 2**31 (bias below 2**-32 * count)."""
    return (word * count) >> 32


def table_index(word: torch.Tensor) -> torch.Tensor:
    """An index into a table from the top `BITS` bits of a 32-bit word."""
    return word >> (32 - BITS)


@cache
def _shuffled(kind: str) -> npt.NDArray[np.float64]:
    u = (np.arange(1 << BITS) + 0.5) / (1 << BITS)
    q = -np.log(-np.log(u)) if kind == "gumbel" else -np.log1p(-u)
    np.random.default_rng(0).shuffle(q)
    return np.asarray(q)


def gumbel_table(width: int, dtype: Any) -> npt.NDArray[np.floating[Any]]:
    """Shuffled Gumbel quantiles, shape (2**BITS + width,): ``width`` of them at every offset.

    The end repeats the beginning, so that the numbers at an offset do not depend on ``width``.
    """
    return np.resize(_shuffled("gumbel"), (1 << BITS) + width).astype(dtype)


def exponential_table(dtype: Any) -> npt.NDArray[np.floating[Any]]:
    """Shuffled quantiles of the exponential distribution, shape (2**BITS,)."""
    return _shuffled("exponential").astype(dtype)
