"""The groups of a model: which indices of which parameters can leave it, and only together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from .measure import Measure
from .propagate import Propagated, propagate
from .sizes import Product, Value
from .trace import Trace, tensors_of, trace
from .units import Barrier, Ids

__all__ = [
    "Balance",
    "Group",
    "GroupedColumns",
    "Held",
    "Member",
    "Structure",
    "find_structure",
    "structure_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Indices of one dimension of one tensor.

    Attributes
    ----------
    tensor : name of a parameter or buffer
    dim : of it
    indices : one array for each unit of the group, ascending; empty where it has none there
    reads : whether a product sums over this dimension: columns of a weight
    """

    tensor: str
    dim: int
    indices: tuple[Ids, ...]
    reads: bool


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Units of one kind that the same tensors make.

    Attributes
    ----------
    name : the first module that makes them
    kind : "channels", "neurons", "heads" or "width"
    size : number of units
    members : all indices that leave with a unit, tensors that make units before those that read
    """

    name: str
    kind: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """Parts of a dimension of which equally many indices must stay.

    Attributes
    ----------
    parts : for every index the (group's number, unit) that it belongs to, (-1, -1) if it has to
        stay; a unit may have several
    because : of which operation
    """

    parts: tuple[tuple[tuple[int, int], ...], ...]
    because: Barrier


@dataclass(frozen=True, slots=True)
class Held:
    """Indices of a tensor that have to stay, and why.

    Attributes
    ----------
    tensor, dim : as in `Member`
    count : how many
    barrier : the first reason that was met
    """

    tensor: str
    dim: int
    count: int
    barrier: Barrier


@dataclass(frozen=True, slots=True)
class GroupedColumns:
    """The weight of a grouped convolution, of which every group drops columns of its own.

    Attributes
    ----------
    weight : its name
    units : (group's number, unit) that each column of each group belongs to; (-1, -1) for one that
        has to stay
    """

    weight: str
    units: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """What `find_structure` returns.

    Attributes
    ----------
    groups : in the order of the model's parameters
    balances : between units
    held : what may not leave, dimensions of layers' outputs first
    columns : of grouped convolutions
    parameters : elements of every parameter
    multiply_adds : of every product in one run of the traced inputs
    values : bytes of the results of its operations, in order
    samples : in the traced inputs
    """

    groups: tuple[Group, ...]
    balances: tuple[Balance, ...]
    held: tuple[Held, ...]
    columns: tuple[GroupedColumns, ...]
    parameters: tuple[Product, ...]
    multiply_adds: tuple[Product, ...]
    values: tuple[Value, ...]
    samples: int

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)


_ONE = Barrier("coupling", "all indices of it are one unit")
_TABLE = Barrier("buffer", "it is a table of numbers that no layer makes")


def find_structure(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Structure:
    """Groups of a model, from one trace of it.

    Parameters
    ----------
    model : is run in eval mode, and left as it was
    args, kwargs : what it is called with; a batch of two or more, so that no size is 1 by chance

    Raises
    ------
    TraceError
        torch.export cannot follow the model.
    """
    return structure_of(model, trace(model, args, kwargs or {}), args, kwargs or {})


def structure_of(
    model: nn.Module, traced: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Structure:
    """As `find_structure`, from a trace of the model on these inputs."""
    found = propagate(traced)
    _hold_what_modules_fix(model, traced, found)
    _resolve_boxes(found)
    return _collect(model, traced, found, _samples(args, kwargs))


def _samples(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """The first dimension of the first tensor."""
    found = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.ndim]
    return int(found[0].shape[0]) if found else 1


def _hold_what_modules_fix(model: nn.Module, traced: Trace, found: Propagated) -> None:
    """Modules that compute sizes from their width cannot lose heads of it."""
    owners = dict(model.named_modules(remove_duplicate=False))
    for placeholder, labels in found.holders.items():
        for name in traced.holders[placeholder]:
            owner = owners[name.rpartition(".")[0]]
            outer = owners.get(name.rpartition(".")[0].rpartition(".")[0])
            for m in (owner, outer):
                if isinstance(m, nn.MultiheadAttention):
                    why = Barrier(
                        "torch.nn.MultiheadAttention",
                        "it computes the width of a head from its own width",
                        name.rpartition(".")[0],
                    )
                    for f in labels.factors:
                        found.units.hold(f.ids, why)


def _resolve_boxes(found: Propagated) -> None:
    """Units over several dimensions leave in whole rows: along the longest dimension if nothing
    else says which."""
    units = found.units
    changed = True
    while changed:
        changed = False
        for ids in found.relations.joint:
            roots = units.roots(ids)
            if any(_constant_but(roots, axis) for axis in range(roots.ndim)):
                continue
            keep = int(np.argmax(roots.shape))
            merged = np.moveaxis(roots, keep, 0).reshape(roots.shape[keep], -1)
            units.merge(merged, merged[:, :1])
            changed = True


def _constant_but(roots: Ids, axis: int) -> bool:
    rows = np.moveaxis(roots, axis, 0).reshape(roots.shape[axis], -1)
    return bool((rows == rows[:, :1]).all())


def _collect(model: nn.Module, traced: Trace, found: Propagated, samples: int) -> Structure:
    units, relations = found.units, found.relations
    order = {name: i for i, name in enumerate(tensors_of(model))}
    # class -> {(tensor, dim, reads): indices}
    classes: dict[int, dict[tuple[str, int, bool], list[int]]] = {}
    kinds: dict[int, str] = {units.find(u): k for u, k in reversed(relations.kinds.items())}
    # a table of positions for each head is looked up too: they are heads all the same
    kinds |= {units.find(u): k for u, k in relations.kinds.items() if k == "heads"}
    held: dict[tuple[str, int, Barrier], int] = {}
    for placeholder, labels in found.holders.items():
        tensor = traced.holders[placeholder][0]
        for f in labels.factors:
            reads = bool(relations.read.intersection(f.ids.tolist()))
            for index, root in enumerate(units.roots(f.ids).tolist()):
                barrier = units.barrier(root)
                if barrier is None:
                    here = classes.setdefault(root, {})
                    here.setdefault((tensor, f.dims[0], reads), []).append(index)
                else:
                    key = (tensor, f.dims[0], barrier)
                    held[key] = held.get(key, 0) + 1
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    families: dict[frozenset[tuple[str, int]], list[int]] = {}
    for root, at in classes.items():
        if not any(tensor in trained for tensor, _, _ in at):
            continue
        makes = frozenset((t, d) for t, d, reads in at if not reads)
        if makes and not any(tensor in trained for tensor, _ in makes):
            for (tensor, dim, _), indices in at.items():
                table = (tensor, dim, _TABLE)
                held[table] = held.get(table, 0) + len(indices)
            continue
        families.setdefault(makes or frozenset((t, d) for t, d, _ in at), []).append(root)
    groups: list[Group] = []
    used: dict[str, int] = {}
    place: dict[int, tuple[int, int]] = {}
    for _, roots in sorted(
        families.items(), key=lambda item: min((order[t], d) for t, d in item[0])
    ):
        keys = sorted(
            {key for root in roots for key in classes[root]},
            key=lambda key: (key[2], order[key[0]], key[1]),
        )
        roots.sort(key=lambda r: classes[r].get(keys[0], [0])[0])
        members = tuple(
            Member(
                tensor,
                dim,
                tuple(np.array(classes[r].get((tensor, dim, reads), []), np.int64) for r in roots),
                reads,
            )
            for tensor, dim, reads in keys
        )
        kind = next((kinds[r] for r in roots if r in kinds), "neurons")
        if len(roots) == 1:  # it stays: it has no place in a group
            for m in members:
                alone = (m.tensor, m.dim, _ONE)
                held[alone] = held.get(alone, 0) + len(m.indices[0])
            continue
        place.update((root, (len(groups), i)) for i, root in enumerate(roots))
        name = keys[0][0].rpartition(".")[0] or keys[0][0]
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}#{used[name]}"
        groups.append(Group(name, kind, len(roots), members))
    balances = []
    for parts, barrier in relations.balanced:
        rows = units.roots(parts).tolist()
        counted = tuple(tuple(sorted(place.get(r, (-1, -1)) for r in row)) for row in rows)
        if len(set(counted)) > 1:  # else they are equal whatever leaves
            balances.append(Balance(counted, barrier))
    listed = tuple(
        Held(t, d, n, b)
        for (t, d, b), n in sorted(held.items(), key=lambda item: (item[0][1], order[item[0][0]]))
    )
    columns = tuple(
        GroupedColumns(
            traced.holders[c.weight][0],
            tuple(
                tuple(place.get(r, (-1, -1)) for r in row) for row in units.roots(c.ids).tolist()
            ),
        )
        for c in relations.columns
    )
    measure = Measure(units, place, [g.size for g in groups])
    return Structure(
        tuple(groups),
        tuple(dict.fromkeys(balances)),
        listed,
        columns,
        parameters=measure.parameters(model, traced, found),
        multiply_adds=measure.multiply_adds(relations.work),
        values=measure.values(traced, found),
        samples=samples,
    )
