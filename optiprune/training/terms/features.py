"""Features of a student beside those of its teacher, through adapters that are learned."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.inputs import arguments_of
from optiprune.structure.modes import evaluating
from optiprune.training.errors import TrainingError

__all__ = ["ADAPTERS", "FeaturePairs", "captured", "channels_last"]

ADAPTERS = "feature_adapters"


@contextmanager
def captured(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of these modules, by name, as of the last forward inside.

    Raises `TrainingError` for a module that does not exist.
    """
    modules = dict(model.named_modules())
    missing = [n for n in names if n not in modules]
    if missing:
        known = ", ".join(list(modules)[1:12])
        raise TrainingError(f"there is no module {missing[0]!r} in the model; there are {known}")
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if not isinstance(first, Tensor) or first.ndim < 2:
                raise TrainingError(
                    f"module {name!r} gives no features: no tensor (n, channels, ...)"
                )
            found[name] = first

        return hook

    handles = [modules[n].register_forward_hook(keep(n)) for n in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def channels_last(feature: Tensor, grid: int) -> Tensor:
    """(n, positions, channels) of (n, channels), (n, tokens, channels) or (n, channels, h, w, ...).

    Pictures are averaged to ``grid`` x ``grid`` positions where they are larger.
    """
    if feature.ndim == 2:
        return feature[:, None, :]
    if feature.ndim == 3:
        return feature
    if feature.ndim == 4 and max(feature.shape[2:]) > grid:
        size = (min(grid, feature.shape[2]), min(grid, feature.shape[3]))
        feature = F.adaptive_avg_pool2d(feature, size)
    return feature.flatten(2).transpose(1, 2)


class FeaturePairs(nn.Module):
    """Which module of the student should give what which module of the teacher gives.

    The distance of a pair is ``|A s - t|^2 / |t|^2`` over all samples of a batch, s and t as
    `channels_last` gives them and A the pair's adapter: a linear map of channels, which begins as
    the identity where both have equally many and is left out of what is exported. Where all of t
    is zero the distance is the mean of ``(A s)^2``.

    Parameters
    ----------
    teacher, student : models that read the same inputs
    pairs : the student's module names -> the teacher's; or names that both have
    example : positional and keyword arguments, two samples
    grid : pictures are compared at no more than this many positions a side
    adapters : whether maps of equally many channels are learned too; else they are fixed
    seed : of the adapters that begin at random

    Raises
    ------
    TrainingError
        No pair, an unknown module, or features whose positions do not fit.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        pairs: Mapping[str, str] | Sequence[str],
        example: tuple[tuple[Any, ...], Mapping[str, Any]],
        *,
        grid: int = 4,
        adapters: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.pairs = dict(pairs) if isinstance(pairs, Mapping) else {n: n for n in pairs}
        if not self.pairs or grid < 1:
            raise TrainingError(f"features {self.pairs}, grid = {grid}: one of each at least")
        self.grid = grid
        args, kwargs = example
        mine = self._features(student, list(self.pairs), args, kwargs)
        theirs = self._features(teacher, list(self.pairs.values()), args, kwargs)
        generator = torch.Generator().manual_seed(seed)
        self.adapters = nn.ModuleList()
        for a, b in self.pairs.items():
            s, t = mine[a], theirs[b]
            if s.shape[:2] != t.shape[:2]:
                raise TrainingError(
                    f"features of {a!r} have {s.shape[1]} positions, those of the teacher's {b!r} "
                    f"{t.shape[1]}: they cannot be compared"
                )
            self.adapters.append(_adapter(s, t, adapters, generator))

    def _features(
        self,
        model: nn.Module,
        names: Sequence[str],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        with captured(model, names) as found, evaluating(model), torch.no_grad():
            model(*args, **kwargs)
        return {n: channels_last(f, self.grid) for n, f in found.items()}

    def adapted(
        self, mine: Mapping[str, Tensor], adapters: Iterable[nn.Module] | None = None
    ) -> list[Tensor]:
        """The student's features behind the adapters, or behind other ones."""
        return [
            adapter(channels_last(mine[a], self.grid))
            for a, adapter in zip(self.pairs, adapters or self.adapters, strict=True)
        ]

    def wanted(self, theirs: Mapping[str, Tensor]) -> list[Tensor]:
        return [channels_last(theirs[b], self.grid) for b in self.pairs.values()]

    def distance(self, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        """The mean over the pairs: the second loss of US20260099770A1, which no label enters."""
        parts = [
            (s - t).square().sum() / _energy(t)
            for s, t in zip(self.adapted(mine), self.wanted(theirs), strict=True)
        ]
        return torch.stack(parts).mean()

    def as_regression(
        self, teacher: nn.Module, student: nn.Module, data: CalibrationSet, chunk: int = 256
    ) -> tuple[nn.Module, CalibrationSet]:
        """The distance as a mean squared error: (a model that gives features, inputs with targets).

        The model has the student's modules and parameters, under the same names, and the adapters
        as ``ADAPTERS``; its outputs are the adapted features in one vector a sample, scaled such
        that the mean squared error to the targets over all of ``data`` is the distance.
        """
        targets: list[list[Tensor]] = []
        with captured(teacher, list(self.pairs.values())) as found, evaluating(teacher):
            for batch in data.batches(chunk):
                args, kwargs = arguments_of(batch.inputs)
                with torch.no_grad():
                    teacher(*args, **kwargs)
                targets.append([t.flatten(1) for t in self.wanted(found)])
        wanted = [torch.cat(parts) for parts in zip(*targets, strict=True)]
        width = sum(t.shape[1] for t in wanted)
        scales = [
            math.sqrt(width * len(t) / (len(wanted) * float(_energy(t.double())))) for t in wanted
        ]
        flat = torch.cat([t * c for t, c in zip(wanted, scales, strict=True)], 1)
        pairs: list[Any] = []
        at = 0
        for batch in data.batches(chunk):
            pairs.append((batch.inputs, flat[at : at + batch.n]))
            at += batch.n
        return _view(student, self, scales), CalibrationSet.collect(pairs, flat.device)


def _energy(t: Tensor) -> Tensor:
    """Of a teacher's feature; a dead one has that of ones, for a distance that is finite."""
    energy = t.square().sum()
    return torch.where(energy > 0, energy, torch.full_like(energy, t.numel()))


def _adapter(s: Tensor, t: Tensor, learned: bool, generator: torch.Generator) -> nn.Module:
    same = s.shape[2] == t.shape[2]
    with torch.device("meta"):
        layer = nn.Linear(s.shape[2], t.shape[2], bias=False)
    layer = layer.to_empty(device=s.device).to(s.dtype)
    with torch.no_grad():
        if same:
            nn.init.eye_(layer.weight)
        else:
            weight = torch.randn(layer.weight.shape, generator=generator) * s.shape[2] ** -0.5
            layer.weight.copy_(weight)
    return layer.requires_grad_(learned or not same)


def _view(student: nn.Module, pairs: FeaturePairs, scales: Sequence[float]) -> nn.Module:
    """The student with another output: its modules and parameters are the same objects."""
    view = copy.copy(student)
    # a container's forward goes over its modules: it must not meet the adapters
    view.__dict__["_inner"] = copy.copy(student)
    view._modules = {**student._modules, ADAPTERS: pairs.adapters}
    own = type(student).forward
    names = list(pairs.pairs)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        with captured(self, names) as found:
            inner = self.__dict__["_inner"]
            inner.training = self.training
            own(inner, *args, **kwargs)
        features = pairs.adapted(found, getattr(self, ADAPTERS))
        return torch.cat([f.flatten(1) * c for f, c in zip(features, scales, strict=True)], 1)

    view.forward = types.MethodType(forward, view)
    return view
