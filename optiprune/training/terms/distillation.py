"""A student that learns from a teacher: outputs, features behind adapters, auxiliary classifiers.

US20260099770A1, claims 1 and 2: a first loss of the teacher's output and features, the student's,
and the ground truth, for training; the student's blocks have a classifier each besides the main
one. The claims give no forms of the terms. Here: the task's loss, which is the training loop's;
the Kullback-Leibler divergence of softened outputs times the temperature squared (Hinton et al.
2015, arXiv 1503.02531); relative distances of features behind learned adapters (Romero et al.
2015, arXiv 1412.6550); and for each feature a linear classifier on its mean over positions
(auxiliary heads: Lee et al. 2015, arXiv 1409.5185).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature.inputs import arguments_of
from optiprune.curvature.losses import cross_entropy, divergence, logits_of
from optiprune.engine.identity import state_hash
from optiprune.structure.modes import evaluating
from optiprune.training.errors import TrainingError
from optiprune.training.loops.callback import Callback, Step

from .features import FeaturePairs, captured, channels_last

__all__ = ["Distillation"]


class Distillation(Callback):
    """Terms of the first loss beside the task's.

    Its adapters and classifiers are its own: nothing is ever added to the student. The optimizer
    must hold ``[*student.parameters(), *distillation.parameters()]``. In a loop of one's own the
    forward of the student and ``distillation.loss(step)`` go inside ``with
    distillation.attached():``.

    Parameters
    ----------
    teacher : is run in evaluation mode, without gradients
    student : the model that is trained
    example : positional and keyword arguments of two samples
    features : pairs of module names, as for `FeaturePairs`; none: outputs alone
    temperature : > 0, of the softened outputs; above 1 the small probabilities count more
    output_weight, feature_weight, auxiliary_weight : of the terms; 0 leaves a term out. Weights of
        3 won back more than those of 1 in seven of eight fine-tunings of sparse networks
        (``benchmarks/results/training_distillation_*.md``)
    grid, seed : as for `FeaturePairs`

    Raises
    ------
    TrainingError
        A number out of range, or features that do not fit.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        example: tuple[tuple[Any, ...], Mapping[str, Any]],
        *,
        features: Mapping[str, str] | Sequence[str] = (),
        temperature: float = 1.0,
        output_weight: float = 3.0,
        feature_weight: float = 3.0,
        auxiliary_weight: float = 0.3,
        grid: int = 4,
        seed: int = 0,
    ) -> None:
        weights = (output_weight, feature_weight, auxiliary_weight)
        if not temperature > 0 or not all(w >= 0 for w in weights):
            raise TrainingError(
                f"temperature = {temperature} must be above 0, the weights {weights} at least 0"
            )
        self.teacher, self.student, self.temperature = teacher, student, temperature
        self.output_weight, self.feature_weight = output_weight, feature_weight
        self.auxiliary_weight = auxiliary_weight
        self.pairs: FeaturePairs | None = None
        self.classifiers = nn.ModuleList()
        self._mine: Mapping[str, Tensor] = {}
        if features:
            self.pairs = FeaturePairs(teacher, student, features, example, grid=grid, seed=seed)
            if auxiliary_weight:
                self._add_classifiers(example, seed)

    def _add_classifiers(
        self, example: tuple[tuple[Any, ...], Mapping[str, Any]], seed: int
    ) -> None:
        assert self.pairs is not None
        args, kwargs = example
        with captured(self.student, list(self.pairs.pairs)) as found, torch.no_grad():
            with evaluating(self.student):
                classes = logits_of(self.student(*args, **kwargs)).shape[-1]
            generator = torch.Generator().manual_seed(seed + 1)
            for name in self.pairs.pairs:
                feature = channels_last(found[name], 1)
                with torch.device("meta"):
                    layer = nn.Linear(feature.shape[2], classes)
                layer = layer.to_empty(device=feature.device).to(feature.dtype)
                bound = feature.shape[2] ** -0.5
                weight = (2 * torch.rand(layer.weight.shape, generator=generator) - 1) * bound
                layer.weight.copy_(weight)
                layer.bias.zero_()
                self.classifiers.append(layer)

    def settings(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "weights": [self.output_weight, self.feature_weight, self.auxiliary_weight],
            "features": {} if self.pairs is None else self.pairs.pairs,
            "teacher": state_hash(self.teacher),
        }

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, forwards of the student leave their features here."""
        names = [] if self.pairs is None else list(self.pairs.pairs)
        with captured(self.student, names) as found:
            self._mine = found
            try:
                yield
            finally:
                self._mine = {}

    def parameters(self) -> Iterable[nn.Parameter]:
        yield from self.classifiers.parameters()
        if self.pairs is not None and self.feature_weight:
            yield from (p for p in self.pairs.parameters() if p.requires_grad)

    def loss(self, step: Step) -> Tensor | None:
        args, kwargs = arguments_of(step.batch.inputs)
        names = [] if self.pairs is None else list(self.pairs.pairs.values())
        # copied: a teacher that is the student, or shares modules with it, has hooks of both
        mine = dict(self._mine)
        with captured(self.teacher, names) as theirs, evaluating(self.teacher), torch.no_grad():
            answer = logits_of(self.teacher(*args, **kwargs)).detach()
        terms: list[Tensor] = []
        if self.output_weight:
            terms.append(self.output_weight * self._divergence(logits_of(step.outputs), answer))
        if self.pairs is not None:
            if set(mine) != set(self.pairs.pairs):
                raise TrainingError(
                    "the student's features were not seen: its forward belongs inside "
                    "`with distillation.attached():`"
                )
            if self.feature_weight:
                terms.append(self.feature_weight * self.pairs.distance(mine, theirs))
            for name, classifier in zip(self.pairs.pairs, self.classifiers, strict=False):
                logits = classifier(channels_last(mine[name], 1).mean(1))
                term = self._auxiliary(logits, answer, step.batch.targets)
                terms.append(self.auxiliary_weight / len(self.classifiers) * term)
        return torch.stack(terms).sum() if terms else None

    def _divergence(self, logits: Tensor, answer: Tensor) -> Tensor:
        t = self.temperature
        return divergence(logits / t, answer / t) * t * t

    def _auxiliary(self, logits: Tensor, answer: Tensor, targets: Any) -> Tensor:
        """To the labels, where there are any, else to the teacher's answers."""
        if isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point():
            return cross_entropy(logits, targets)
        if answer.ndim != 2:
            answer = answer.flatten(1, -2).mean(1)
        return self._divergence(logits, answer)

    def state_dict(self) -> dict[str, Any]:
        pairs = {} if self.pairs is None else self.pairs.state_dict()
        return {"adapters": pairs, "classifiers": self.classifiers.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.pairs is not None:
            self.pairs.load_state_dict(state["adapters"])
        self.classifiers.load_state_dict(state["classifiers"])
