"""Palubeckis's p3000 .. p7000: large dense QUBO instances with integer entries in -100 .. 100.

G. Palubeckis, "Multistart tabu search strategies for the unconstrained binary quadratic
optimization problem", Annals of Operations Research 131 (2004). His C program draws from the
Lehmer generator ``s <- 16807 s mod (2**31 - 1)``: for each row i, the diagonal entry; then for each
j > i one draw that decides whether the entry is there, and if it is, one more for its value. The
deciding draw passes through a C ``float``, the values do not: rounding both, or neither, gives
other instances (with rounded values, tabu search finds 3931591 for p3000.1, above the best known).

He maximises ``x'Qx`` with symmetric Q (off-diagonal entries count twice); the problems here
minimise, so **their energy is minus his value**.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from optiprune.problems.binary import QUBO
from optiprune.problems.errors import ProblemError
from optiprune.problems.matrix import as_number, frozen

from .seeding import positive

__all__ = ["PALUBECKIS_BEST_KNOWN", "PALUBECKIS_INSTANCES", "palubeckis", "palubeckis_instance"]

_MODULUS = 2**31 - 1
_FACTOR = 16807


@dataclass(frozen=True, slots=True)
class Parameters:
    """What identifies an instance: variables, percentage of entries, seed."""

    n: int
    density: int
    seed: int


def _family(n: int, densities: tuple[int, ...], seeds: tuple[int, ...]) -> dict[str, Parameters]:
    pairs = zip(densities, seeds, strict=True)
    return {f"p{n}.{i}": Parameters(n, d, s) for i, (d, s) in enumerate(pairs, 1)}


PALUBECKIS_INSTANCES: Mapping[str, Parameters] = MappingProxyType(
    {
        **_family(3000, (50, 80, 80, 100, 100), (31000, 32000, 33000, 34000, 35000)),
        **_family(4000, (50, 80, 80, 100, 100), (41000, 42000, 43000, 44000, 45000)),
        **_family(5000, (50, 80, 80, 100, 100), (51000, 52000, 53000, 54000, 55000)),
        **_family(6000, (50, 80, 100), (61000, 62000, 64000)),
        **_family(7000, (50, 80, 100), (71000, 72000, 74000)),
    }
)
"""The published instances by name."""

PALUBECKIS_BEST_KNOWN: Mapping[str, int] = MappingProxyType(
    {
        "p3000.1": 3931583,
        "p3000.2": 5193073,
        "p3000.3": 5111533,
        "p3000.4": 5761822,
        "p3000.5": 5675625,
        "p4000.1": 6181830,
        "p4000.2": 7801355,
        "p4000.3": 7741685,
        "p4000.4": 8711822,
        "p4000.5": 8908979,
        "p5000.1": 8559680,
        "p6000.1": 11384976,
        "p7000.1": 14478676,
    }
)
"""Best values known, of the maximisation: the energies here are at best minus these."""


def palubeckis_instance(name: str) -> QUBO:
    """A published instance by name, for example "p3000.1".

    Raises `ProblemError` for an unknown name; the message lists the known ones.
    """
    if name not in PALUBECKIS_INSTANCES:
        known = ", ".join(PALUBECKIS_INSTANCES)
        raise ProblemError(f"unknown instance {name!r}; known: {known}")
    p = PALUBECKIS_INSTANCES[name]
    return palubeckis(p.n, p.density, p.seed)


def palubeckis(n: int, density: int, seed: int) -> QUBO:
    """The instance that Palubeckis's program makes of these parameters.

    Parameters
    ----------
    n : number of variables
    density : percentage of off-diagonal entries, 0 .. 100
    seed : 1 .. 2**31 - 2

    Returns
    -------
    QUBO with a float32 matrix (the entries are integers of magnitude <= 100); its energy is minus
    the value of the maximisation.
    """
    positive("n", n)
    if not 0 <= as_number("density", density) <= 100:
        raise ProblemError(f"density is a percentage between 0 and 100, got {density!r}")
    if positive("seed", seed) >= _MODULUS:
        raise ProblemError(f"seed must be below {_MODULUS}, got {seed!r}")
    # a row takes at most one draw for the diagonal and two for each entry right of it
    powers = _powers(2 * n + 1)
    q = np.zeros((n, n), dtype=np.float32)
    state = int(seed)
    for i in range(n):
        m = n - 1 - i
        draws = state * powers[: 1 + 2 * m] % _MODULUS
        q[i, i] = -_entry(draws[:1])[0]
        # the original compares after storing the draw in a C float
        kept = (100.0 * draws / 2147483648.0).astype(np.float32) <= density
        at = _deciding(kept, m)
        present = kept[at]
        q[i, i + 1 :][present] = -_entry(draws[at[present] + 1])
        if m:
            state = int(draws[at[-1] + int(present[-1])])
        else:
            state = int(draws[0])
    upper = np.triu(q, 1)
    q += upper.T
    return QUBO(frozen(q))


def _powers(count: int) -> npt.NDArray[np.int64]:
    """``16807**t mod (2**31 - 1)`` for t = 1 .. count, by doubling; products stay below 2**62."""
    out = np.array([_FACTOR], dtype=np.int64)
    while len(out) < count:
        out = np.concatenate([out, out * out[-1] % _MODULUS])
    return out[:count]


def _entry(draws: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Integers in -100 .. 100, from draws in double precision."""
    return np.asarray(np.floor(201.0 * draws / 2147483648.0) - 100.0)


def _deciding(kept: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.int64]:
    """Positions of the first ``count`` draws of a row that decide on an entry, not give its value.

    Position 0 is the diagonal. A deciding draw is followed by a value if ``kept`` there, else by
    the next deciding draw. So after a position where ``kept`` is False the next one always decides
    (it was either deciding and refused, or a value), and within a run of True they alternate.
    """
    position = np.arange(len(kept))
    reset = np.where(~kept, position, 0)
    reset[0] = 0  # after the diagonal comes a deciding draw, whatever the diagonal's draw was
    before = np.concatenate([[-1], np.maximum.accumulate(reset)[:-1]])
    decides = (position - before) % 2 == 1
    decides[0] = False
    return np.flatnonzero(decides)[:count]
