"""How differently a pruned network behaves, without any label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet
from optiprune.training.samples import all_logits, samples_of

__all__ = ["Behaviour", "jensen_shannon"]


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """(n,), in [0, 1]: divergence of the softmax of two tensors of logits (n, ..., classes).

    In units of ln 2, the largest there is; the mean over positions between.
    """
    log_p, log_q = F.log_softmax(first, -1), F.log_softmax(second, -1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    half = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return half.sum(-1).reshape(len(first), -1).mean(1) / (2 * math.log(2))


class Behaviour:
    """The answers of a full network on some samples, to compare others with.

    Parameters
    ----------
    model : the full network
    data : samples; targets are not looked at
    """

    def __init__(self, model: nn.Module, data: Iterable[Any] | CalibrationSet) -> None:
        self._data = samples_of(model, data)
        self._answers = all_logits(model, self._data)

    def change(self, model: nn.Module) -> float:
        """Mean `jensen_shannon` divergence from the full network, in [0, 1]."""
        return float(
            jensen_shannon(self._answers.double(), all_logits(model, self._data).double()).mean()
        )

    def agreement(self, model: nn.Module) -> float:
        """1 less the change."""
        return 1.0 - self.change(model)
