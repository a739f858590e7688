"""One budget after another, with damages of widths that are measured once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from optiprune.structure import Plan, Structure

from .budgets import budgets_of
from .errors import ShrinkingError
from .latency import Profile, latency_budget, profile_layers
from .menus import allowed_widths
from .result import StructureResult, result_of
from .search import Search, SearchOptions
from .widths import Menu, Widths, choose_widths

__all__ = ["StructureSweep", "check_latency", "sweep_structure"]


def sweep_structure(
    model: nn.Module,
    data: Iterable[Any],
    *,
    budget: Literal["macs", "parameters", "memory", "latency"] = "macs",
    values: Sequence[float] = (0.8, 0.65, 0.5, 0.35),
    multiple: int = 8,
    minimum: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    solutions: int = 1,
    width_solver: str = "highs",
    width_seconds: float = 60.0,
    options: SearchOptions | None = None,
    structure: Structure | None = None,
) -> list[StructureResult]:
    """`optimize_structure` at several values of one budget; damages of widths are measured once.

    Parameters
    ----------
    budget, values : which one, and its shares or costs
    options : what else `optimize_structure` takes

    The others, and errors, are those of `optimize_structure`. `plot_sweep` draws the results.
    """
    if budget == "latency":
        for value in values:
            check_latency(value)
    sweep = StructureSweep(
        model,
        data,
        multiple=multiple,
        minimum=minimum,
        include=include,
        exclude=exclude,
        solutions=solutions,
        width_solver=width_solver,
        width_seconds=width_seconds,
        options=options,
        structure=structure,
    )
    return [sweep.at({budget: v}) for v in values]


class StructureSweep:
    """`optimize_structure` at one budget after another; damages of widths are measured once.

    Parameters as for `sweep_structure`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        *,
        multiple: int = 8,
        minimum: float = 0.1,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        solutions: int = 1,
        width_solver: str = "highs",
        width_seconds: float = 60.0,
        options: SearchOptions | None = None,
        structure: Structure | None = None,
    ) -> None:
        self._search = Search(model, data, options or SearchOptions(), structure)
        self._menus = _menus(self._search, multiple, minimum, include, exclude)
        self._profile: Profile | None = None
        self._solutions, self._solver, self._seconds = solutions, width_solver, width_seconds

    def at(self, budgets: Mapping[str, float | None]) -> StructureResult:
        """The result at these budgets ("macs", "parameters", "memory", "latency").

        Raises as `optimize_structure` does.
        """
        profile = self._profiled(budgets)
        chosen = self._widths(budgets, profile)
        if profile is None:
            return result_of(self._search, chosen, self._solutions)
        return result_of(
            self._search,
            chosen,
            self._solutions,
            {"latency": profile.seconds},
            {"latency": profile.predicted(self._menus, chosen.widths)},
        )

    def plan_at(self, budgets: Mapping[str, float | None]) -> Plan:
        """The units that would leave, by the objective alone; nothing is fitted or made smaller."""
        chosen = self._widths(budgets, self._profiled(budgets))
        return self._search.plan(self._search.objective.choose(chosen.widths, 1)[0])

    def _profiled(self, budgets: Mapping[str, float | None]) -> Profile | None:
        check_latency(budgets.get("latency"))
        if budgets.get("latency") is None:
            return None
        if self._profile is None:
            search = self._search
            self._profile = profile_layers(
                search.model, search.structure, self._menus, search.args, search.kwargs
            )
        return self._profile

    def _widths(self, budgets: Mapping[str, float | None], profile: Profile | None) -> Widths:
        if all(v is None for v in budgets.values()):
            raise ShrinkingError("give a budget (macs, parameters, memory or latency)")
        limits = dict(budgets)
        latency = limits.pop("latency", None)
        within = budgets_of(self._search.structure, limits)
        if profile is not None and latency is not None:
            within.append(latency_budget(profile, latency))
        return choose_widths(
            self._menus,
            self._search.sizes,
            within,
            equal=self._search.ties.equal,
            solver=self._solver,
            seconds=self._seconds,
        )


def _menus(
    search: Search,
    multiple: int,
    minimum: float,
    include: Sequence[str],
    exclude: Sequence[str],
) -> list[Menu]:
    if multiple < 1 or not 0 <= minimum <= 1:
        raise ShrinkingError(
            f"multiple = {multiple} must be at least 1, minimum = {minimum} in [0, 1]"
        )
    return search.menus(
        allowed_widths(
            search.structure,
            search.ties,
            search.whole,
            multiple=multiple,
            minimum=minimum,
            include=include,
            exclude=exclude,
        )
    )


def check_latency(latency: float | None) -> None:
    """Raise `ShrinkingError` for what is no share."""
    if latency is not None and not 0 < latency <= 1:
        raise ShrinkingError(f"latency = {latency!r}: it is a share in (0, 1] of that of now")
