"""What the quality benchmark needs of a model: weights, calibration data, and how to judge it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optiprune.curvature import CalibrationSet, PrunableLayer, find_layers

__all__ = ["Metric", "MissingRequirementError", "QualityModel", "need_packages"]


class MissingRequirementError(ValueError):
    """A package or data set is not installed; the message names the line that installs it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The number that a model is judged by first.

    Attributes
    ----------
    name : a key of what `QualityModel.evaluate` returns
    higher_is_better : accuracy rather than perplexity
    percent : a share that is shown as per cent
    """

    name: str
    higher_is_better: bool
    percent: bool = False

    def show(self, value: float) -> str:
        return f"{100 * value:.2f}" if self.percent else f"{value:.2f}"

    @property
    def label(self) -> str:
        return f"{self.name} (%)" if self.percent else self.name


ACCURACY = Metric("accuracy", higher_is_better=True, percent=True)
PERPLEXITY = Metric("perplexity", higher_is_better=False)


@dataclass(frozen=True, slots=True)
class QualityModel:
    """A trained model to prune, with the data to prune and to judge it by.

    Attributes
    ----------
    name : as on the command line
    about : one line: what it is, how many parameters
    metric : what tables show
    minutes : CPU minutes that a method of medium cost takes on it, on one core; tells small models
        from large ones
    samples : calibration samples by default
    load : seed -> model in eval mode; a model that is not trained here is the same for every seed
    seeds_train : whether another seed is another checkpoint
    calibration : number of samples -> batches, as `optiprune.optimize_masks` takes them
    heldout : () -> batches of inputs that no method sees, for the error of the layers
    evaluate : (model, dense model) -> metrics on test data: ``metric.name``, "loss" (cross-entropy
        in nats), both of the dense model too with "dense_" in front, and "kl" (mean divergence, in
        nats, of the outputs from the dense model's)
    require : raises `MissingRequirementError` where a package or a file is missing
    include, exclude : patterns of the layers that are pruned
    chunk : samples that go through the model at once while it is pruned; bounds memory
    """

    name: str
    about: str
    metric: Metric
    minutes: float
    samples: int
    load: Callable[[int], nn.Module]
    seeds_train: bool
    calibration: Callable[[int], list[Any]]
    heldout: Callable[[], list[Any]]
    evaluate: Callable[[nn.Module, nn.Module], dict[str, float]]
    require: Callable[[], None]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    chunk: int = 256

    def layers(self, model: nn.Module, group: int | None = None) -> list[PrunableLayer]:
        """The layers that a cell prunes.

        ``group``, M of a pattern N:M, leaves out the layers whose rows no groups of M make up (a
        first convolution with 9 weights a row, for 2:4): they stay dense for every method.
        """
        found = find_layers(model, include=self.include, exclude=self.exclude)
        return [layer for layer in found if group is None or layer.cols % group == 0]

    def calibration_set(self, samples: int) -> CalibrationSet:
        return CalibrationSet.collect(self.calibration(samples), torch.device("cpu"))

    def heldout_set(self) -> CalibrationSet:
        return CalibrationSet.collect(self.heldout(), torch.device("cpu"))


def need_packages(model: str, modules: Sequence[str], install: str) -> None:
    """Raise `MissingRequirementError` with the line ``install`` if a module is not there."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise MissingRequirementError(
            f"model '{model}' needs {', '.join(missing)}, not installed here; install with: "
            f"{install}"
        )
