"""Budgets by name: shares of what the model costs now, as sums over its groups' widths."""

from __future__ import annotations

from collections.abc import Mapping

from optiprune.structure import Product, Structure, Value, total

from .errors import ShrinkingError
from .widths import Budget

__all__ = ["budgets_of", "costs_of"]

_NAMES = ("parameters", "macs", "memory")


def budgets_of(structure: Structure, shares: Mapping[str, float | None]) -> list[Budget]:
    """Budgets for "parameters", "macs" and "memory".

    A share of at most 1 is of the whole model's cost; a larger number is the cost itself
    (parameters, multiply-adds of one sample, bytes).

    Memory is the bytes of the parameters and of the results that are held at one time in a run of
    the traced inputs: the largest sum over all operations.

    Raises
    ------
    ShrinkingError
        An unknown name, or a number that is not positive.
    """
    out: list[Budget] = []
    for name, share in shares.items():
        if share is None:
            continue
        if name not in _NAMES:
            raise ShrinkingError(f"there is no budget {name!r}: there are {', '.join(_NAMES)}")
        if not 0 < share < float("inf"):
            raise ShrinkingError(f"{name} = {share!r}: a budget is a share in (0, 1], or a cost")
        sums = _sums(structure, name)
        limit = share * max(total(p, {}) for p in sums) if share <= 1 else share
        out += [Budget(name, limit, products) for products in sums]
    return out


def costs_of(structure: Structure, kept: Mapping[int, object]) -> dict[str, float]:
    """Parameters, multiply-adds of a sample, and bytes in a run of the traced inputs."""
    return {
        name: max(total(p, kept) for p in _sums(structure, name))  # type: ignore[arg-type]
        for name in _NAMES
    }


def _sums(structure: Structure, name: str) -> list[tuple[Product, ...]]:
    """Costs of which the largest counts."""
    if name == "parameters":
        return [structure.parameters]
    if name == "macs":
        return [
            tuple(
                Product(p.what, p.coefficient / structure.samples, p.extents)
                for p in structure.multiply_adds
            )
        ]
    held = [
        tuple(Product(p.what, 4.0 * p.coefficient, p.extents) for p in structure.parameters)
        + tuple(v.bytes for v in live)
        for live in _live(structure.values)
    ]
    return held or [structure.parameters]


def _live(values: tuple[Value, ...]) -> list[list[Value]]:
    """The sets of results that are held together, none of them part of another."""
    out: list[list[Value]] = []
    for v in values:
        here = [w for w in values if w.born <= v.born <= w.dies]
        if out and set(map(id, out[-1])) <= set(map(id, here)):
            out[-1] = here
        elif not (out and set(map(id, here)) <= set(map(id, out[-1]))):
            out.append(here)
    return out
