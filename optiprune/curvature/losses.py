"""The loss whose change is predicted: a mean over the samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import CalibrationError

__all__ = [
    "LossFunction",
    "LossName",
    "has_true_fisher",
    "logits_of",
    "resolve_loss",
    "sampled_label_loss",
]

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> scalar, the mean over the samples of the batch."""
LossName: TypeAlias = str


def logits_of(output: Any) -> Tensor:
    """The tensor of a model's output: itself, its ``logits``, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    for key in ("logits", "last_hidden_state"):
        value = output.get(key) if isinstance(output, dict) else getattr(output, key, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise CalibrationError(
        f"no tensor found in the model's output ({type(output).__name__}); "
        "give a loss callable that knows this output"
    )


def cross_entropy(output: Any, targets: Tensor) -> Tensor:
    """Cross-entropy over the last dimension; targets of any leading shape, -100 ignored."""
    logits = logits_of(output)
    if logits.shape[:-1] != targets.shape:
        # segmentation layout (N, C, ...) of torch
        return F.cross_entropy(logits, targets)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def mean_squared(output: Any, targets: Tensor) -> Tensor:
    return F.mse_loss(logits_of(output), targets)


def divergence(output: Any, targets: Tensor) -> Tensor:
    """KL(dense || pruned) over the last dimension; ``targets`` are the dense model's logits."""
    logits = logits_of(output)
    log_p = F.log_softmax(logits.reshape(-1, logits.shape[-1]), -1)
    log_q = F.log_softmax(targets.reshape(-1, logits.shape[-1]), -1)
    return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def own_loss(output: Any, targets: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise CalibrationError(
            "labels are missing: the global loss needs batches (inputs, targets), or outputs with "
            "a .loss, or loss = 'kl' (the dense model's own outputs as targets)"
        )
    return loss


_NAMED: dict[str, LossFunction] = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared,
    "kl": divergence,
    "output": own_loss,
}


def resolve_loss(loss: LossName | LossFunction, targets: Any) -> LossFunction:
    """The loss function for a name ('auto' looks at the targets), or the callable given.

    Raises
    ------
    CalibrationError
        If the named loss needs targets and there are none.
    """
    if callable(loss):
        return loss
    if loss == "auto":
        if targets is None:
            return own_loss
        if not isinstance(targets, Tensor):
            raise CalibrationError(
                f"loss = 'auto' does not know targets of type {type(targets).__name__}; "
                "give a loss callable(outputs, targets)"
            )
        return mean_squared if targets.is_floating_point() else cross_entropy
    if targets is None and loss in ("cross_entropy", "mse"):
        raise CalibrationError(
            f"labels are missing: loss = {loss!r} needs batches (inputs, targets); "
            "loss = 'kl' works without"
        )
    return _NAMED[loss]


def has_true_fisher(loss: LossFunction) -> bool:
    """Whether labels can be sampled for this loss: a named likelihood, not a user's callable."""
    return loss in (cross_entropy, divergence, mean_squared)


def sampled_label_loss(
    output: Any, loss: LossFunction, samples: int, generator: torch.Generator
) -> Tensor:
    """A loss on labels drawn from the model's own output, for the true Fisher.

    The mean of ``g_n g_n'`` over its per-sample gradients is an unbiased estimate of the
    generalised Gauss-Newton matrix of ``loss``, its curvature as long as the model is nearly
    linear in the step (Martens 2014, arXiv 1412.1193, sections 5 and 9). Cross-entropy and KL draw
    classes from the softmax; mean squared error draws from a Gaussian. A sample with T positions
    (tokens) averages T independent draws, which would lose a factor T: the loss carries its root.

    Parameters
    ----------
    output : of the model, for a batch of ``samples`` samples
    loss : `cross_entropy`, `divergence` or `mean_squared`
    generator : on the CPU; the draws do not depend on the device
    """
    logits = logits_of(output)
    if loss is mean_squared:
        # mean over d outputs a sample: gradient 2 (o - t) / d, GGN 2 J'J / d, so variance d / 2
        d = logits.numel() // samples
        noise = torch.randn(logits.shape, generator=generator).to(logits)
        return F.mse_loss(logits, logits.detach() + noise * math.sqrt(d / 2))
    flat = logits.reshape(-1, logits.shape[-1])
    with torch.no_grad():
        p = torch.softmax(flat.float(), -1)
        draw = torch.rand(p.shape[0], 1, generator=generator).to(p.device)
        labels = (p.cumsum(-1) < draw).sum(-1).clamp_(max=p.shape[-1] - 1)
    return math.sqrt(flat.shape[0] / samples) * F.cross_entropy(flat, labels)
