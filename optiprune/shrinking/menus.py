"""The widths that a group may have, and what each of them costs the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
from torch import Tensor

from optiprune.structure import Structure

from .errors import ShrinkingError
from .objectives import Objective
from .ties import Ties
from .widths import Menu

__all__ = ["allowed_widths", "menus_of"]

_SINGLE = ("heads",)
# widths of a group that a program compares at most: wider steps beyond
_MOST = 64
# what a whole group is worth beyond what the samples show, over the largest damage of all: where
# curves are flat a budget is used up all the same
_WORTH = 1e-3


def allowed_widths(
    structure: Structure,
    ties: Ties,
    whole: Set[int],
    *,
    multiple: int,
    minimum: float,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[tuple[int, ...]]:
    """For every group the numbers of units that it may keep, ascending; all of them is the last.

    Parameters
    ----------
    whole : groups that keep all their units
    multiple : of which a number of channels or neurons is; heads are counted one by one
    minimum : share of its units that a group keeps at least
    include, exclude : patterns of groups' names; the others stay whole

    Raises
    ------
    ShrinkingError
        A pattern matches no group.
    """
    names = [g.name for g in structure.groups]
    for pattern in (*include, *exclude):
        if pattern != "*" and not any(fnmatchcase(n, pattern) for n in names):
            raise ShrinkingError(f"{pattern!r} matches no group; there are {names[:8]}")
    free = {
        n
        for n in names
        if any(fnmatchcase(n, p) for p in include) and not any(fnmatchcase(n, p) for p in exclude)
    }
    out: list[tuple[int, ...]] = []
    for g, group in enumerate(structure.groups):
        if g in whole or group.name not in free:
            out.append((group.size,))
            continue
        step = ties.step(g)
        if group.kind not in _SINGLE:
            step = math.lcm(step, multiple)
        least = max(ties.step(g), math.ceil(minimum * group.size))
        while group.size // step > _MOST:
            step *= 2
        widths = {w for w in range(step, group.size, step) if w >= least} | {group.size}
        out.append(tuple(sorted(widths)))
    for i, j in ties.equal:
        common = tuple(sorted(set(out[i]) & set(out[j])))
        out[i] = out[j] = common
    return out


def menus_of(
    widths: Sequence[tuple[int, ...]],
    objective: Objective,
    levels: int,
    measure: Callable[[Mapping[str, Tensor]], float] | None,
) -> list[Menu]:
    """Damages of the widths of every group, all other groups whole.

    Parameters
    ----------
    levels : widths of a group at which the damage is looked at; between them it is a straight line
    measure : the rise of the loss under such weights; None takes the objective's prediction
    """
    curves: list[npt.NDArray[np.float64]] = []
    for g, of in enumerate(widths):
        at = np.unique(np.round(np.linspace(0, len(of) - 1, min(levels, len(of)))).astype(int))
        looked = [of[i] for i in at[::-1] if of[i] < of[-1]]
        damage = [0.0]
        for _, predicted, weights in objective.steps(g, looked) if looked else ():
            rise = predicted if measure is None else measure(weights)
            # fewer units are no gain: what looks like one is noise of the samples
            damage.append(max(damage[-1], rise))
        curves.append(np.interp(of, [*looked[::-1], of[-1]], damage[::-1]))
    worth = _WORTH * max(float(c[0]) for c in curves)
    return [
        Menu(of, tuple((c + worth * (1.0 - np.array(of) / of[-1])).tolist()))
        for of, c in zip(widths, curves, strict=True)
    ]
