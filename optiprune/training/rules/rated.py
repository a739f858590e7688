"""What a share is pruned of: the weights of a layer, or the units of groups that lose together.

Both turn a rate for every layer into a pruned copy of a model, by a threshold from the
distribution of what they prune; so the rules that look for rates need not know which it is.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature.layers import find_layers
from optiprune.shrinking.budgets import costs_of
from optiprune.structure import Plan, Structure, mask_units
from optiprune.structure.trace import tensors_of
from optiprune.training.terms.torque import average_weight_scores
from optiprune.training.units.ranking import Chain, Move, plan_of, removal_chains

from .normal_threshold import lower_threshold, magnitude_threshold

__all__ = ["Rated", "RatedUnits", "RatedWeights"]

Rates = Mapping[str, float]


class Rated(Protocol):
    """What a rule of rates sees."""

    @property
    def names(self) -> Sequence[str]:
        """Layers, or groups that lose equally many units, by the first of them."""
        ...

    def pruned(self, rates: Rates) -> nn.Module:
        """The model with these rates, one object for all calls; names that are missing: whole."""
        ...

    def left(self, rates: Rates) -> float:
        """Share of the parameters that is left."""
        ...


class RatedWeights:
    """Weights of Linear and Conv2d layers.

    A weight leaves where its magnitude is below `magnitude_threshold` of its layer at the rate.
    """

    def __init__(
        self, model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
    ) -> None:
        named = dict(model.named_parameters())
        self.layers = {
            x.name: x.parameter for x in find_layers(model, include=include, exclude=exclude)
        }
        self._dense = {p: named[p].detach().clone() for p in self.layers.values()}
        self._work = copy.deepcopy(model).eval()
        self._at: dict[str, float] = {}
        self._counts: dict[tuple[str, float], int] = {}
        self._total = sum(w.numel() for w in self._dense.values())

    @property
    def names(self) -> list[str]:
        return list(self.layers)

    def masks(self, rates: Rates) -> dict[str, Tensor]:
        """Parameter -> bool mask, True = keep."""
        return {p: self._mask(name, rates.get(name, 0.0)) for name, p in self.layers.items()}

    def _mask(self, name: str, rate: float) -> Tensor:
        weight = self._dense[self.layers[name]]
        keep = weight.abs() >= magnitude_threshold(weight.double().cpu().numpy(), rate)
        if not keep.any():  # a bounded distribution: one weight stays in any case
            keep.view(-1)[weight.abs().argmax()] = True
        return keep

    def pruned(self, rates: Rates) -> nn.Module:
        own = dict(self._work.named_parameters())
        with torch.no_grad():
            for name, parameter in self.layers.items():
                rate = rates.get(name, 0.0)
                if self._at.get(name, 0.0) != rate:
                    own[parameter].copy_(self._dense[parameter] * self._mask(name, rate))
                    self._at[name] = rate
        return self._work

    def left(self, rates: Rates) -> float:
        kept = 0
        for name in self.layers:
            rate = rates.get(name, 0.0)
            if (name, rate) not in self._counts:
                self._counts[name, rate] = int(self._mask(name, rate).sum())
            kept += self._counts[name, rate]
        return kept / self._total


class RatedUnits:
    """Channels, neurons and heads of groups.

    A unit leaves where its average weight, in shares of the group's largest, is below
    `lower_threshold` of these averages at the rate; units that leave together, where their mean
    is. Each group keeps ``minimum`` of its units at least, those of the numbers ``whole`` all.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        minimum: float = 0.1,
        whole: Collection[int] = (),
    ) -> None:
        self.structure = structure
        free = [g.name for i, g in enumerate(structure.groups) if i not in whole]
        self._scores = average_weight_scores(model, structure, free)
        chains = removal_chains(structure, self._scores, minimum=minimum)
        self._chains = {structure.groups[c.groups[0]].name: c for c in chains}
        self._work = copy.deepcopy(model).eval()
        self._dense = {k: v.detach().clone() for k, v in tensors_of(self._work).items()}
        self._whole = costs_of(structure, {})["parameters"]

    @property
    def names(self) -> list[str]:
        return list(self._chains)

    def plan(self, rates: Rates) -> Plan:
        moves: list[Move] = []
        for name, chain in self._chains.items():
            moves += chain.moves[: self._count(chain, rates.get(name, 0.0))]
        return plan_of(self.structure, moves)

    def _count(self, chain: Chain, rate: float) -> int:
        names = [self.structure.groups[g].name for g in chain.groups]
        values = np.concatenate([self._scores[n] for n in names])
        return int(np.searchsorted(np.array(chain.costs), lower_threshold(values, rate)))

    def pruned(self, rates: Rates) -> nn.Module:
        with torch.no_grad():
            for name, tensor in tensors_of(self._work).items():
                tensor.copy_(self._dense[name])
        mask_units(self._work, self.structure, self.plan(rates))
        return self._work

    def left(self, rates: Rates) -> float:
        kept = self.plan(rates).kept(self.structure)
        return costs_of(self.structure, kept)["parameters"] / self._whole
