"""Samples on which accuracy is measured while a model is pruned: equally many of every class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.data import tree_map
from optiprune.curvature.inputs import arguments_of, device_of
from optiprune.curvature.losses import IGNORED, logits_of
from optiprune.structure.modes import evaluating
from optiprune.training.errors import TrainingError
from optiprune.training.samples import all_logits, samples_of

__all__ = ["PruningSet", "pruning_set"]


@dataclass(frozen=True, slots=True, eq=False)
class PruningSet:
    """What `pruning_set` returns.

    Attributes
    ----------
    data : inputs, and class numbers (n,) as targets
    classes : of which it holds samples
    labels : "given", or "own": the answers of the model
    """

    data: CalibrationSet
    classes: tuple[int, ...]
    labels: str

    def accuracy(self, model: nn.Module) -> float:
        """Share of the samples whose largest logit is their class, in evaluation mode."""
        (batch,) = self.data.batches(self.data.n)
        right = torch.eq(_answers(model, self.data), batch.targets)  # type: ignore[arg-type]
        return int(right.sum()) / self.data.n


def pruning_set(
    model: nn.Module,
    data: Iterable[Any] | CalibrationSet,
    *,
    per_class: int = 100,
    valid_rate: float | None = None,
    seed: int = 0,
) -> PruningSet:
    """Draw the same number of samples from every class.

    US 12,045,723 B2, claim 2: a predetermined number of data, randomly extracted from each class.
    Labels may be any names of classes, not the model's own numbers: with ``valid_rate`` a class
    counts only if the model gives its most frequent answer to that share of its samples, and that
    answer is its label (claim language of the same application). Without labels the model's
    answers are the classes, and accuracy is agreement with it.

    Parameters
    ----------
    model : a classifier, logits over its outputs' last dimension
    data : as for `optiprune.optimize_masks`; targets, if any, are class numbers (n,)
    per_class : samples of a class; all of one that has fewer
    valid_rate : in (0, 1], or None: labels are the model's own numbers

    Raises
    ------
    TrainingError
        Targets that are no class numbers, or not the model's; an option out of range; no valid
        class.
    """
    if per_class < 1 or (valid_rate is not None and not 0 < valid_rate <= 1):
        raise TrainingError(
            f"per_class = {per_class} must be >= 1, valid_rate = {valid_rate} in (0, 1] or None"
        )
    device, samples = device_of(model), samples_of(model, data)
    if not samples.joined:
        raise TrainingError(
            "samples of unequal shapes cannot be drawn one by one: a pruning set "
            "needs batches of one shape"
        )
    (batch,) = samples.batches(samples.n)
    given = batch.targets
    if given is None:
        labels = _answers(model, samples)
    elif isinstance(given, Tensor) and given.ndim == 1 and not given.is_floating_point():
        labels = given
        if valid_rate is None:
            _check_labels(model, batch.inputs, labels[labels != IGNORED])
    else:
        raise TrainingError(
            "a pruning set needs class numbers, one for each sample; got "
            f"{tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__}"
        )
    rng = np.random.default_rng(seed)
    index: list[np.ndarray] = []
    targets: list[Tensor] = []
    classes: list[int] = []
    for label in labels[labels != IGNORED].unique().tolist():
        at = torch.nonzero(labels == label).flatten().cpu().numpy()
        drawn = np.sort(rng.permutation(at)[:per_class])
        answer = int(label)
        if valid_rate is not None and given is not None:
            answers = _answers(model, samples.subset(drawn))
            counts = answers.bincount()
            answer = int(counts.argmax())
            if int(counts[answer]) < valid_rate * len(drawn):
                continue
        index.append(drawn)
        targets.append(torch.full((len(drawn),), answer, device=device))
        classes.append(int(label))
    if not index and valid_rate is None:
        raise TrainingError("no sample has a label that counts")
    if not index:
        raise TrainingError(
            f"no class is valid: to none does the model give one answer for {valid_rate:.0%} of "
            "its samples; lower valid_rate"
        )
    chosen = batch.take(torch.from_numpy(np.concatenate(index)).to(device))
    pairs = CalibrationSet.collect([(chosen.inputs, torch.cat(targets))], device)
    return PruningSet(pairs, tuple(classes), "own" if given is None else "given")


def _check_labels(model: nn.Module, inputs: Any, labels: Tensor) -> None:
    """Raise `TrainingError` for class numbers that the model does not give."""
    with evaluating(model), torch.no_grad():
        args, kwargs = arguments_of(tree_map(lambda t: t[:2] if t.ndim else t, inputs))
        logits = logits_of(model(*args, **kwargs))
    wrong = labels[(labels < 0) | (labels >= logits.shape[-1])]
    if logits.ndim == 2 and len(wrong):
        raise TrainingError(
            f"label {int(wrong[0])} is none of the model's {logits.shape[-1]} classes; valid_rate "
            "finds which of them it means"
        )


def _answers(model: nn.Module, data: CalibrationSet) -> Tensor:
    logits = all_logits(model, data)
    if logits.ndim != 2:
        raise TrainingError(
            f"accuracy needs one answer a sample: outputs of shape (n, classes), not "
            f"{tuple(logits.shape)}; give evaluate="
        )
    return logits.argmax(1)
