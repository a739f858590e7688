"""Seeds of generators: an int or a SeedSequence, never global state."""

from __future__ import annotations

import numpy as np

from optiprune.problems.errors import ProblemError
from optiprune.problems.matrix import as_number

__all__ = ["Seed", "generator", "positive", "share"]

Seed = int | np.random.SeedSequence


def generator(seed: Seed) -> np.random.Generator:
    """A fresh generator. Raises `ProblemError` unless seed is an int >= 0 or a SeedSequence."""
    if isinstance(seed, np.random.SeedSequence):
        return np.random.default_rng(seed)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ProblemError(f"seed must be an integer >= 0 or a SeedSequence, got {seed!r}")
    return np.random.default_rng(int(seed))


def positive(name: str, value: int, least: int = 1) -> int:
    """Require an integer of at least ``least``. Raises `ProblemError`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ProblemError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def share(name: str, value: float) -> float:
    """Require a number in [0, 1]. Raises `ProblemError`."""
    number = as_number(name, value)
    if not 0 <= number <= 1:
        raise ProblemError(f"{name} must lie between 0 and 1, got {value!r}")
    return number
