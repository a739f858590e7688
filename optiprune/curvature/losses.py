"""The loss whose change is predicted: a mean over the terms (samples, labels, ...) of a batch."""

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
    "loss_terms",
    "resolve_loss",
    "sampled_label_loss",
]

IGNORED = -100
"""Class label that does not count, as in torch."""

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> scalar, a mean over the batch. Batches are weighted by `loss_terms`; a mean
over other terms than samples in a callable of the user's depends on how the data are cut."""
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


def _class_axis(logits: Tensor, targets: Tensor | None) -> int:
    """The dimension of the classes, told from the shape of the targets (none: the last)."""
    last = logits.ndim - 1
    if targets is None:
        return last
    if targets.is_floating_point() and targets.shape == logits.shape:
        return min(1, last)
    found = {a for a in (min(1, last), last) if _without(logits, a) == targets.shape}
    if len(found) != 1:
        why = "the classes may be dimension 1 or the last" if found else "these do not fit"
        raise CalibrationError(
            f"cross-entropy of outputs of shape {tuple(logits.shape)} with targets of shape "
            f"{tuple(targets.shape)}: {why}; give a loss callable(outputs, targets)"
        )
    return found.pop()


def _without(logits: Tensor, axis: int) -> torch.Size:
    return logits.shape[:axis] + logits.shape[axis + 1 :]


def cross_entropy(output: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all labels but those of -100; NaN if there is no other.

    Logits (N, ..., C) as of a language model or (N, C, ...) as of a segmentation, with integer
    targets (N, ...); or probabilities in the shape of the logits (N, C, ...).

    Raises `CalibrationError` if the shapes fit neither form, or both.
    """
    logits = logits_of(output)
    if _class_axis(logits, targets) == 1:
        return F.cross_entropy(logits, targets, ignore_index=IGNORED)
    flat = logits.reshape(-1, logits.shape[-1])
    return F.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED)


def mean_squared(output: Any, targets: Tensor) -> Tensor:
    """Mean squared error over all elements. Raises `CalibrationError` on unequal shapes."""
    prediction = logits_of(output)
    if prediction.shape != targets.shape:
        raise CalibrationError(
            f"squared error of outputs of shape {tuple(prediction.shape)} with targets of shape "
            f"{tuple(targets.shape)}; they must be equal"
        )
    return F.mse_loss(prediction, targets)


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


def loss_terms(loss: LossFunction, output: Any, targets: Any, samples: int) -> int:
    """How many terms the mean in ``loss`` runs over: the weight of this batch among others.

    Labels that count for cross-entropy, positions for KL, elements for the squared error; for any
    other loss the ``samples`` of the batch. Weighted by it, the mean over batches is the loss of
    one call over all data, however they are cut.
    """
    if loss is cross_entropy:
        if targets is None or targets.is_floating_point():
            logits = logits_of(output)
            return logits.numel() // logits.shape[_class_axis(logits, targets)]
        return int((targets != IGNORED).sum())
    if loss is divergence:
        logits = logits_of(output)
        return logits.numel() // logits.shape[-1]
    return logits_of(output).numel() if loss is mean_squared else samples


def sampled_label_loss(
    output: Any, targets: Any, loss: LossFunction, generator: torch.Generator
) -> Tensor:
    """``loss`` on labels drawn from the model's own output, for the true Fisher.

    The gradients of its terms are independent with mean zero, and each has the curvature of the
    term as its covariance (cross-entropy and KL draw classes from the softmax, the squared error
    draws from a Gaussian of variance 1/2). So the sum of ``s s'`` over samples, with s the sum of a
    sample's term gradients, divided by the number of terms, is an unbiased estimate of the
    generalised Gauss-Newton matrix of ``loss``, its curvature as long as the model is nearly linear
    in the step (Martens 2014, arXiv 1412.1193, sections 5 and 9).

    Parameters
    ----------
    output : of the model
    targets : tell the layout and which labels do not count; None for a loss without
    loss : `cross_entropy`, `divergence` or `mean_squared`
    generator : on the CPU; the draws do not depend on the device

    Returns
    -------
    Scalar, the mean over the same terms as that of ``loss``.
    """
    logits = logits_of(output)
    if loss is mean_squared:
        noise = torch.randn(logits.shape, generator=generator).to(logits)
        return F.mse_loss(logits, logits.detach() + noise * math.sqrt(0.5))
    labelled = loss is cross_entropy
    axis = _class_axis(logits, targets) if labelled else logits.ndim - 1
    by_class = logits.movedim(axis, -1)
    flat = by_class.reshape(-1, by_class.shape[-1])
    with torch.no_grad():
        p = torch.softmax(flat.float(), -1)
        draw = torch.rand(p.shape[0], 1, generator=generator).to(p.device)
        labels = (p.cumsum(-1) < draw).sum(-1).clamp_(max=p.shape[-1] - 1)
        if labelled and targets is not None and not targets.is_floating_point():
            labels[targets.reshape(-1) == IGNORED] = IGNORED
    return F.cross_entropy(flat, labels, ignore_index=IGNORED)
