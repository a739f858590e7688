"""Sizes as functions of what stays, against those of the smaller model itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from structure_networks import NETWORKS, FewKeys, build
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from optiprune.structure import Plan, confirmed, find_structure, shrink
from optiprune.structure.removal import balanced_removal
from optiprune.structure.sizes import kept_of, total


def counted(model: nn.Module, args: tuple[Any, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*args)
    heads = model.q.out_features // 4 if isinstance(model, FewKeys) else 0
    # torch does not count attention with fewer keys than queries: 2 samples, 5 x 5 pairs of
    # places, 4 products each for scores and for values
    return counter.get_total_flops() // 2 + heads * 2 * 25 * 4 * 2


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_sizes_are_those_of_the_smaller_model(name: str) -> None:
    model, args = build(name)
    structure = confirmed(model, find_structure(model, args), args, {})
    assert total(structure.parameters, {}) == sum(p.numel() for p in model.parameters())
    assert total(structure.multiply_adds, {}) == counted(model, args)
    removed = balanced_removal(structure, range(len(structure.groups)))
    small = shrink(model, Plan.of(structure, removed), args, structure=structure).model
    number = {g.name: i for i, g in enumerate(structure.groups)}
    kept = kept_of([g.size for g in structure.groups], {number[k]: v for k, v in removed.items()})
    assert total(structure.parameters, kept) == sum(p.numel() for p in small.parameters())
    assert total(structure.multiply_adds, kept) == counted(small, args)


def test_values_are_held_until_their_last_use() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    structure = find_structure(model, (torch.randn(5, 4),))
    sizes = [(v.bytes.value({}), v.dies - v.born) for v in structure.values]
    assert sizes == [(5 * 6 * 4, 1), (5 * 6 * 4, 1), (5 * 3 * 4, 1)]
    kept = {0: np.array([True] * 2 + [False] * 4)}
    assert [v.bytes.value(kept) for v in structure.values] == [40, 40, 60]
