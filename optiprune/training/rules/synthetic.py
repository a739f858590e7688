"""Samples made from a trained network alone, to show what pruning changes.

US20220108180A1 (Samsung): where no training data are at hand, data are generated from the weights
of the trained network that show the change of its behaviour when it is pruned; from that change a
pruning threshold follows, and with it the network is compressed. The abstract and claim language
that were at hand give no formulas. Here inputs x begin as noise and descend, by Adam, on

    CE(f(x), y) + statistics * R_bn(x) - behaviour * JS(f(x), f'(x)) + smoothness * R_tv(x)

with y drawn evenly over the classes, R_bn the mean squared distance of the means and variances of
the inputs of batch norms from those that they remember, in units of the remembered ones (as in
DeepInversion: Yin et al. 2020, arXiv 1912.08795), f' the network pruned by magnitude at
``prune_rate``, JS the Jensen-Shannon divergence in units of its largest value, and R_tv the mean
square of differences of neighbouring pixels. The threshold follows in `prune_sensitive_weights`
and `prune_sensitive_units` with `Behaviour.agreement` in the place of an accuracy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optiprune.curvature.inputs import device_of
from optiprune.curvature.losses import logits_of
from optiprune.structure.modes import evaluating
from optiprune.training.errors import TrainingError, check_ranges

from .behaviour import jensen_shannon
from .rated import RatedWeights

__all__ = ["SyntheticData", "SyntheticOptions", "synthesize"]


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """How samples are made.

    Attributes
    ----------
    samples, batch : how many, and how many at once
    steps, rate : of Adam
    statistics, behaviour, smoothness : weights of the terms; 0 leaves one out
    prune_rate : of the network whose behaviour is to differ, in (0, 1)
    low, high : range of the inputs' values; None: not bounded
    mean, deviation : of the noise at the start
    seed : of all that is drawn

    Raises
    ------
    TrainingError
        A number out of its range.
    """

    samples: int = 256
    batch: int = 64
    steps: int = 200
    rate: float = 0.05
    statistics: float = 1.0
    behaviour: float = 1.0
    smoothness: float = 0.01
    prune_rate: float = 0.5
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    deviation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        right = {
            "samples": self.samples >= 1,
            "batch": self.batch >= 2,
            "steps": self.steps >= 0,
            "rate": self.rate > 0,
            "statistics": self.statistics >= 0,
            "behaviour": self.behaviour >= 0,
            "smoothness": self.smoothness >= 0,
            "prune_rate": 0 < self.prune_rate < 1,
            "low": low < high,
            "deviation": self.deviation >= 0,
        }
        check_ranges(self, right)


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticData:
    """What `synthesize` returns.

    Attributes
    ----------
    inputs : (samples, ...), on the model's device
    classes : (samples,), that they were made for
    losses : mean over the batches, first and last step
    """

    inputs: Tensor
    classes: Tensor
    losses: tuple[float, float]


def synthesize(
    model: nn.Module, shape: Sequence[int], options: SyntheticOptions | None = None
) -> SyntheticData:
    """Make samples from a classifier alone: no data, no labels.

    Parameters
    ----------
    model : trained; reads one tensor of floats and gives logits (n, classes); is left as it was
    shape : of one sample, without the batch

    Raises
    ------
    TrainingError
        A model that does not read such a tensor, or gives no logits (n, classes); a loss that is
        not finite.
    LayerError
        No Linear or Conv2d layer to prune.
    """
    o = options or SyntheticOptions()
    device = device_of(model)
    generator = torch.Generator().manual_seed(o.seed)
    full = copy.deepcopy(model).eval().requires_grad_(False)
    rated = RatedWeights(full)
    pruned = rated.pruned(dict.fromkeys(rated.names, o.prune_rate)).requires_grad_(False)
    classes = _classes(full, shape, device)
    targets = torch.arange(o.samples) % classes
    targets = targets[torch.randperm(o.samples, generator=generator)].to(device)
    inputs: list[Tensor] = []
    first = last = 0.0
    sizes = _sizes(o.samples, o.batch)
    start = 0
    for size in sizes:
        noise = torch.randn((size, *shape), generator=generator) * o.deviation + o.mean
        x, before, after = _descend(
            full, pruned, noise.to(device), targets[start : start + size], o
        )
        inputs.append(x)
        first, last = first + before / len(sizes), last + after / len(sizes)
        start += size
    return SyntheticData(torch.cat(inputs), targets, (first, last))


def _sizes(samples: int, batch: int) -> list[int]:
    """Batches of almost equal size: statistics of a small last one would be poor."""
    count = -(-samples // batch)
    return [samples // count + (i < samples % count) for i in range(count)]


def _classes(model: nn.Module, shape: Sequence[int], device: torch.device) -> int:
    try:
        with evaluating(model), torch.no_grad():
            logits = logits_of(model(torch.zeros((2, *shape), device=device)))
    except (RuntimeError, TypeError, IndexError, ValueError) as e:
        raise TrainingError(
            f"the model does not take a tensor of floats of shape (n, {', '.join(map(str, shape))})"
            f": {type(e).__name__}: {e}"
        ) from e
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise TrainingError(
            f"samples are made for classes: outputs of shape (n, classes), not "
            f"{tuple(logits.shape)}"
        )
    return int(logits.shape[1])


def _descend(
    full: nn.Module, pruned: nn.Module, x: Tensor, y: Tensor, o: SyntheticOptions
) -> tuple[Tensor, float, float]:
    """Inputs, and the loss before the first and the last step."""
    x = _bounded(x, o).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=o.rate)
    losses = [0.0]
    with _statistics(full) as found, torch.enable_grad():
        for step in range(o.steps):
            found.clear()
            logits = logits_of(full(x))
            loss = F.cross_entropy(logits, y)
            if found and o.statistics:
                loss = loss + o.statistics * torch.stack(found).mean()
            if o.behaviour:
                other = logits_of(pruned(x))
                loss = loss - o.behaviour * jensen_shannon(logits, other).mean()
            if o.smoothness and x.ndim == 4:
                loss = loss + o.smoothness * _roughness(x)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(f"the loss of step {step} is {value}; lower the rate")
            losses.append(value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                x.copy_(_bounded(x, o))
    return x.detach(), losses[min(1, len(losses) - 1)], losses[-1]


def _bounded(x: Tensor, o: SyntheticOptions) -> Tensor:
    return x if o.low is None and o.high is None else x.clamp(o.low, o.high)


def _roughness(x: Tensor) -> Tensor:
    down, right = x.diff(dim=2).square(), x.diff(dim=3).square()
    return sum((d.mean() for d in (down, right) if d.numel()), x.new_zeros(()))


@contextmanager
def _statistics(model: nn.Module) -> Iterator[list[Tensor]]:
    """Of every batch norm in a forward, how far its input is from what it remembers."""
    found: list[Tensor] = []

    def hook(module: _BatchNorm, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        dims = [d for d in range(x.ndim) if d != 1]
        assert module.running_mean is not None
        assert module.running_var is not None
        variance = module.running_var + module.eps
        mean = (x.mean(dims) - module.running_mean).square() / variance
        found.append((mean + (x.var(dims, unbiased=False) / variance - 1).square()).mean())

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    handles = [m.register_forward_pre_hook(hook) for m in norms]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
