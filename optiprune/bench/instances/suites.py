"""The suites by name, and the choice among their instances."""

from __future__ import annotations

import fnmatch
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from optiprune.bench.errors import BenchError
from optiprune.problems import (
    PALUBECKIS_BEST_KNOWN,
    PALUBECKIS_INSTANCES,
    QUBO,
    CardinalityQP,
    Planted,
    Problem,
    fisher_problem,
    layer_nm_problem,
    layer_problem,
    maxcut_qubo,
    palubeckis_instance,
    planted_cardinality,
    planted_qubo,
)

from .cutting import FAMILIES, RECIPE, SIZES, cut, instance_seed
from .folder import folder_suite
from .instance import BestKnown, Instance, hex_of
from .networks import available

__all__ = ["SUITES", "Selection", "suite"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances of a suite.

    Attributes
    ----------
    sizes : numbers of variables, or None for the suite's own
    count : instances a family and size; None for the suite's own
    match : a shell pattern that names must match
    """

    sizes: tuple[int, ...] | None = None
    count: int | None = None
    match: str = "*"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise BenchError(f"the number of instances must be >= 1, got {self.count}")
        if self.sizes is not None and not self.sizes:
            raise BenchError("sizes are named, or None for the suite's own; got none")
        if self.sizes is not None and min(self.sizes) < 2:
            raise BenchError(f"sizes must be >= 2, got {min(self.sizes)}")

    def takes(self, name: str, n: int) -> bool:
        return fnmatch.fnmatchcase(name, self.match) and (self.sizes is None or n in self.sizes)


# names in a message
_SHOWN = 20

Candidate = tuple[str, int, Callable[[], Instance]]
Note = Callable[[str], None]


def suite(name: str, selection: Selection | None = None, note: Note = print) -> list[Instance]:
    """The instances of a named suite, or of a folder of files.

    Parameters
    ----------
    name : one of `SUITES`, or a folder
    note : called with what a user should know, such as data that are not installed

    Raises
    ------
    BenchError
        An unknown name, a folder without problems, a selection that leaves nothing.
    """
    chosen = Selection() if selection is None else selection
    if name in SUITES:
        candidates = list(SUITES[name](chosen, note))
        found = [make() for label, n, make in candidates if chosen.takes(label, n)]
        there = [(label, n) for label, n, _ in candidates]
    elif Path(name).is_dir():
        # names first: what is not asked for need not be read
        named = folder_suite(Path(name), note, chosen.match)
        found = [i for i in named if chosen.takes(i.name, i.n)]
        there = [(i.name, i.n) for i in named]
        if chosen.count is not None:
            found = _first(found, chosen.count)
    else:
        raise BenchError(f"no suite or folder {name!r}; suites: {', '.join(SUITES)}")
    if not found:
        raise BenchError(_nothing_left(name, chosen, there))
    return found


def _nothing_left(name: str, chosen: Selection, there: list[tuple[str, int]]) -> str:
    """What was asked for, and what there would have been."""
    sizes = {n for label, n in there if fnmatch.fnmatchcase(label, chosen.match)}
    if sizes:
        asked, known = (", ".join(map(str, sorted(s))) for s in (chosen.sizes or (), sizes))
        return f"suite {name!r} has no instance of size {asked}; its sizes: {known}"
    names = ", ".join(label for label, _ in there[:_SHOWN]) + ", ..." * (len(there) > _SHOWN)
    return (
        f"suite {name!r} has no instance that matches {chosen.match!r}; "
        f"its names: {names or 'none here'}"
    )


def _first(instances: list[Instance], count: int) -> list[Instance]:
    seen: dict[tuple[str, int], int] = {}
    out = []
    for i in instances:
        seen[i.family, i.n] = seen.get((i.family, i.n), 0) + 1
        if seen[i.family, i.n] <= count:
            out.append(i)
    return out


def _pruning(chosen: Selection, note: Note) -> Iterator[Candidate]:
    networks, notes = available()
    for line in notes:
        note(line)
    for n in chosen.sizes or SIZES:
        for index in range(chosen.count or (4 if n <= 256 else 2)):
            for network in networks:
                for family in FAMILIES:
                    name = f"{network}-{family}-n{n}-{index:02d}"
                    source = partial(cut, network, family, n, index)
                    seed = instance_seed(network, family, n, index)
                    yield name, n, partial(_described, name, source, f"{network}-{family}", seed)


def _described(
    name: str, source: Callable[[], Problem], family: str, seed: int, recipe: str = RECIPE
) -> Instance:
    return Instance.of(name, source(), source, family=family, recipe=recipe, seed=seed)


_GENERATED = "generators-v1"


def _generators(chosen: Selection, note: Note) -> Iterator[Candidate]:
    for n in chosen.sizes or (64, 128, 256):
        for index in range(chosen.count or 4):
            for family in ("layer", "fisher", "2:4", "planted-qubo", "planted-cardinality"):
                name = f"{family.replace(':', 'of')}-n{n}-{index:02d}"
                yield name, n, partial(_generated, name, family, n, index)


def _generated(name: str, family: str, n: int, index: int) -> Instance:
    seed = zlib.crc32(f"{_GENERATED}/{family}/{n}/{index}".encode())
    source = partial(_make, family, n, seed)
    best = None
    if family.startswith("planted"):
        planted = _planted(family, n, seed)
        by = "planted"
        best = BestKnown(planted.energy, by, hex_of(planted.x), planted.energy, by)
    return Instance.of(
        name, source(), source, family=family, recipe=_GENERATED, seed=seed, best=best
    )


def _planted(family: str, n: int, seed: int) -> Planted:
    if family == "planted-qubo":
        return planted_qubo(n, seed=seed)
    return planted_cardinality(n, n // 2, seed=seed)


def _make(family: str, n: int, seed: int) -> QUBO | CardinalityQP:
    if family == "layer":
        return layer_problem(n, n // 2, seed=seed)
    if family == "fisher":
        return fisher_problem(n, n // 2, seed=seed)[0]
    if family == "2:4":
        return layer_nm_problem(n, 2, 4, seed=seed)
    return _planted(family, n, seed).problem


def _palubeckis(chosen: Selection, note: Note) -> Iterator[Candidate]:
    for name, parameters in PALUBECKIS_INSTANCES.items():
        if chosen.count is None or int(name.partition(".")[2]) <= chosen.count:
            yield name, parameters.n, partial(_published, name, parameters.seed)


def _published(name: str, seed: int) -> Instance:
    source = partial(palubeckis_instance, name)
    known = PALUBECKIS_BEST_KNOWN.get(name)
    best = None if known is None else BestKnown(-float(known), "literature")
    return Instance.of(
        name, source(), source, family="palubeckis", recipe="palubeckis", seed=seed, best=best
    )


_MAXCUT = "maxcut-v1"


def _maxcut(chosen: Selection, note: Note) -> Iterator[Candidate]:
    for n in chosen.sizes or (128, 256, 800):
        for index in range(chosen.count or 4):
            for family in ("unit", "signed", "torus"):
                name = f"{family}-n{n}-{index:02d}"
                seed = zlib.crc32(f"{_MAXCUT}/{family}/{n}/{index}".encode())
                source = partial(_graph, family, n, seed)
                yield name, n, partial(_described, name, source, f"maxcut-{family}", seed, _MAXCUT)


def _graph(family: str, n: int, seed: int) -> QUBO:
    """Kinds of the G-set: random graphs of 6 % with weights 1 or +-1, and +-1 on a torus grid."""
    rng = np.random.default_rng(seed)
    upper = np.zeros((n, n))
    if family == "torus":
        width = next(d for d in range(int(n**0.5), 0, -1) if n % d == 0)
        v = np.arange(n)
        right = v - v % width + (v + 1) % width
        for other in (right, (v + width) % n):
            pairs = v != other  # a grid one wide has no neighbour beside
            upper[np.minimum(v, other)[pairs], np.maximum(v, other)[pairs]] = 1.0
    else:
        upper[np.triu_indices(n, 1)] = rng.random(n * (n - 1) // 2) < 0.06
    if family != "unit":
        upper *= rng.choice([-1.0, 1.0], size=(n, n))
    return maxcut_qubo(upper + upper.T)


SUITES: dict[str, Callable[[Selection, Note], Iterator[Candidate]]] = {
    "pruning": _pruning,
    "generators": _generators,
    "palubeckis": _palubeckis,
    "maxcut": _maxcut,
}
"""Named suites; what lies in a folder is a suite as well."""
