"""A user's loss as text."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.engine.described import described
from optiprune.engine.identity import data_hash


def closure(weight, power=2):
    def loss(outputs, targets):
        return weight * (outputs - targets).abs().pow(power).mean()

    return loss


class Weighted:
    def __init__(self, weight):
        self.weight = weight
        self.kinds = {"a", "b"}
        self.me = self

    def __call__(self, outputs, targets):
        return F.cross_entropy(outputs, targets, weight=self.weight)

    def loss(self, outputs, targets):
        return self(outputs, targets)


def doubled(outputs, targets):
    return 2 * F.mse_loss(outputs, targets)


def tripled(outputs, targets):
    return 3 * F.mse_loss(outputs, targets)


def known(outputs, targets, names=frozenset({"x", "y"})):
    return outputs.sum() if "x" in {"x", "y", "z"} else targets.sum()


CPU = torch.device("cpu")
ONES, TWOS = torch.ones(3), 2 * torch.ones(3)
PAIRS = [
    (closure(1.0), closure(2.0)),
    (closure(ONES), closure(TWOS)),
    (closure(np.ones(3)), closure(np.ones(3, dtype=np.float32))),
    (closure(1.0, 2), closure(1.0, 1)),
    (closure({"a": 1}), closure({"b": 1})),
    (closure(closure(1)), closure(closure(2))),
    (doubled, tripled),
    (partial(doubled, targets=ONES), partial(doubled, targets=TWOS)),
    (partial(doubled), partial(tripled)),
    (Weighted(ONES), Weighted(TWOS)),
    (Weighted(ONES).loss, Weighted(TWOS).loss),
    (Weighted(ONES).loss, Weighted(ONES)),
    (nn.CrossEntropyLoss(ONES), nn.CrossEntropyLoss(TWOS)),
    (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    (F.cross_entropy, F.mse_loss),
    (torch.dist, torch.cdist),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_functions_that_differ_have_other_texts(one, other) -> None:
    assert described(one) == described(one)
    assert described(one) != described(other)


def test_functions_made_anew_have_the_same() -> None:
    for make in (
        lambda: closure(ONES.clone()),
        lambda: Weighted(ONES.clone()),
        lambda: nn.CrossEntropyLoss(ONES.clone()),
        lambda: partial(doubled, targets=ONES.clone()),
        lambda: Weighted(object()),
    ):
        assert described(make()) == described(make())


def test_processes_agree() -> None:
    ask = (
        "from tests.engine.test_described import *; "
        "print([described(f) for f in (known, Weighted({'p', 'q'}), *sum(PAIRS, ()))])"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", ask],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


def test_empty_cells_and_depths_end() -> None:
    def later():
        return unset

    nested = [1]
    for _ in range(50):
        nested = [nested]
    assert described(closure(nested))
    assert described(later)
    if False:
        unset = 1


def test_names_of_inputs_count() -> None:
    x, y = torch.ones(4, 2), torch.zeros(4, 2)
    sets = [CalibrationSet.collect([({"a": a, "b": b}, None)], CPU) for a, b in ((x, y), (y, x))]
    renamed = CalibrationSet.collect([({"b": x, "a": y}, None)], CPU)
    assert len({data_hash(s) for s in (*sets, renamed)}) == 3
