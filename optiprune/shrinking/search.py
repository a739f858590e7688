"""One model and its data, prepared once: widths and units for any number of budgets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune import solvers
from optiprune.curvature import CalibrationSet, LayerGram, mean_loss
from optiprune.curvature.losses import LossFunction
from optiprune.curvature.stages import LayerWalk
from optiprune.solvers import Solver, TimeLimit
from optiprune.structure import Plan, Shrunk, Structure, confirmed, find_structure, shrink

from .errors import ShrinkingError
from .masking import masked_weights
from .menus import menus_of
from .objectives import GlobalObjective, Objective, ReconstructionObjective
from .readers import Readers, find_readers
from .refit import refit_readers
from .setting import setting_of
from .ties import Ties, find_ties
from .unit_fisher import unit_fisher
from .widths import Menu

__all__ = ["ObjectiveName", "Search", "SearchOptions"]

ObjectiveName = Literal["global", "reconstruction"]
# of units of one group, at most: most groups end after a few
_EXCHANGES = 100


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of `optimize_structure` by its names, where they do not belong to a budget."""

    objective: ObjectiveName = "reconstruction"
    refit: bool = True
    curve: Literal["measured", "predicted"] = "measured"
    levels: int = 6
    curve_samples: int = 512
    loss: str | LossFunction = "auto"
    solver: str | Solver = "auto"
    solver_seconds: float = 10.0
    damping: float = 1e-3
    per_input: int | None = 64
    chunk: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in ("global", "reconstruction"):
            raise ShrinkingError(
                f"objective {self.objective!r}: there are 'reconstruction' and 'global'"
            )
        if self.curve not in ("measured", "predicted"):
            raise ShrinkingError(f"curve {self.curve!r}: there are 'measured' and 'predicted'")
        if self.levels < 2 or self.curve_samples < 1:
            raise ShrinkingError(
                f"levels = {self.levels} must be 2 or more, curve_samples = "
                f"{self.curve_samples} 1 or more"
            )


class Search:
    """What every step needs of the model and the data.

    Attributes
    ----------
    structure, readers, ties : of the model
    dense : parameter name -> tensor
    args, kwargs : the first two samples, as the model is called with them
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        options: SearchOptions,
        structure: Structure | None = None,
    ) -> None:
        self.model, self.options = model, options
        setting = setting_of(model, data, options.loss, draws=options.objective == "global")
        self.data, self._loss = setting.data, setting.loss
        self.args, self.kwargs = setting.args, setting.kwargs
        self._fisher_seed, self._solver_seed, self._curve_seed, self._refit_seed = (
            np.random.SeedSequence(options.seed).spawn(4)
        )
        if structure is None:
            structure = find_structure(model, self.args, self.kwargs)
            structure = confirmed(model, structure, self.args, self.kwargs)
        self.structure = structure
        self.readers: Readers = find_readers(model, structure)
        self.ties: Ties = find_ties(structure)
        self.dense = {k: p.detach() for k, p in model.named_parameters()}
        self._own = setting.own

    @property
    def sizes(self) -> list[int]:
        return [g.size for g in self.structure.groups]

    def loss(self, weights: Mapping[str, Tensor], data: CalibrationSet | None = None) -> float:
        """Of the model with some other weights."""
        return mean_loss(
            self.model,
            {**self.dense, **weights},
            data or self.data,
            self._loss,
            dense_targets=self.dense if self._own else None,
            chunk=self.options.chunk,
        )

    @cached_property
    def dense_loss(self) -> float:
        """Of the model as it is, on all data."""
        return self.loss({})

    @property
    def whole(self) -> frozenset[int]:
        """Groups that keep all their units."""
        return self.ties.whole.union(self.readers.unread)

    def menus(self, widths: Sequence[tuple[int, ...]]) -> list[Menu]:
        """Damages of widths; see `menus_of`."""
        measure = self._rises() if self.options.curve == "measured" else None
        return menus_of(widths, self.objective, self.options.levels, measure)

    def _rises(self) -> Callable[[Mapping[str, Tensor]], float]:
        part = self.data.sample(self.options.curve_samples, np.random.default_rng(self._curve_seed))
        before = self.loss({}, part)
        return lambda weights: self.loss(weights, part) - before

    @cached_property
    def objective(self) -> Objective:
        """What chooses units, with what it measured of the model."""
        o = self.options
        if o.objective == "reconstruction":
            return ReconstructionObjective(
                self.sizes,
                self.readers,
                self.dense,
                self._grams(),
                self.ties,
                damping=o.damping,
                exchanges=_EXCHANGES,
            )
        quadratic = unit_fisher(
            self.model,
            self.structure,
            self.readers,
            self.data,
            self._loss,
            self._fisher_seed,
            own=self._own,
            chunk=o.chunk,
        )
        solver = solvers.get(o.solver) if isinstance(o.solver, str) else o.solver
        return GlobalObjective(
            quadratic,
            self.readers,
            self.dense,
            self.ties,
            solver,
            TimeLimit(o.solver_seconds),
            self._solver_seed,
        )

    def _grams(self) -> dict[str, LayerGram]:
        o = self.options
        layers = [r.layer for r in self.readers.readers]
        walk = LayerWalk(self.model, layers, self.dense, [self.data], o.chunk, "dense", o.per_input)
        return {name: gram for stage in walk for name, gram in stage.grams[0].items()}

    def weights(self, kept: Mapping[int, npt.NDArray[np.bool_]]) -> dict[str, Tensor]:
        """Of the layers that read units, for this choice, refitted if that is asked for."""
        o = self.options
        if not o.refit or not kept:
            return masked_weights(self.readers.readers, self.dense, kept)
        return refit_readers(
            self.model,
            self.readers,
            self.dense,
            kept,
            self.data,
            damping=o.damping,
            seed=self._refit_seed,
            chunk=o.chunk,
            per_input=o.per_input,
        )

    def plan(self, kept: Mapping[int, npt.NDArray[np.bool_]]) -> Plan:
        names = [g.name for g in self.structure.groups]
        return Plan.of(
            self.structure, {names[g]: np.flatnonzero(~k).tolist() for g, k in kept.items()}
        )

    def applied(self, plan: Plan, weights: Mapping[str, Tensor]) -> Shrunk:
        """The smaller model with these weights; compared with the masked one."""
        moved = copy.deepcopy(self.model)
        own = dict(moved.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        return shrink(moved, plan, self.args, self.kwargs, structure=self.structure)
