"""What is taken as batches, and what is refused as a pair without its list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from optiprune.curvature import CalibrationError, CalibrationSet

CPU = torch.device("cpu")
X, Y = torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64)


@pytest.mark.parametrize("data", [(X, Y), [X, Y], (X.numpy(), Y.numpy()), (X, torch.zeros(6))])
def test_a_pair_without_a_list_is_refused(data: Any) -> None:
    with pytest.raises(CalibrationError, match=r"put it in a list: \[\(inputs, targets\)\]"):
        CalibrationSet.collect(data, CPU)


@pytest.mark.parametrize(
    "data",
    [
        [X, X],
        [torch.zeros(6, 4), torch.zeros(6, 5)],  # token sequences of two lengths
        [X, X.double()],
        [torch.zeros(6, 4), torch.zeros(2, 3, 4)],  # not as many: no targets of one another
    ],
)
def test_two_batches_of_inputs_stay_two(data: Any) -> None:
    held = CalibrationSet.collect(data, CPU)
    assert held.n == sum(len(t) for t in data)
    assert not held.has_targets


def test_one_pair_in_a_list_is_a_pair() -> None:
    held = CalibrationSet.collect([(np.zeros((6, 4)), Y)], CPU)
    assert held.n == 6
    assert held.has_targets
