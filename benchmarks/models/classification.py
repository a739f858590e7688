"""Classifiers on Fashion-MNIST as models of the quality benchmark."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fashion_mnist import DatasetNotFoundError, data, directory
from .networks import takes_flat_input
from .quality import ACCURACY, MissingRequirementError, QualityModel
from .train import load_trained

__all__ = ["compare_logits", "fashion_mnist_model"]


@torch.no_grad()
def compare_logits(
    model: nn.Module, dense: nn.Module, inputs: Tensor, labels: Tensor, batch: int = 1000
) -> dict[str, float]:
    """Accuracy and cross-entropy of a classifier, and its divergence from the dense one.

    Parameters
    ----------
    inputs, labels : (n, ...) and int64 (n,)
    batch : samples at once

    Returns
    -------
    accuracy, dense_accuracy : share of right answers, 0 .. 1
    loss, dense_loss : mean cross-entropy in nats
    kl : mean over the samples of KL(dense || model) in nats

    Sums are float64. An output that is not finite gives a loss and divergence of inf or nan.
    """
    n = len(labels)
    right, loss, kl = [0, 0], [0.0, 0.0], 0.0
    for x, y in zip(inputs.split(batch), labels.split(batch), strict=True):
        logits = [F.log_softmax(net(x).double(), dim=-1) for net in (model, dense)]
        for i, log_p in enumerate(logits):
            right[i] += int((log_p.argmax(-1) == y).sum())
            loss[i] += float(F.nll_loss(log_p, y, reduction="sum"))
        kl += float(F.kl_div(*logits, reduction="sum", log_target=True))
    return {
        "accuracy": right[0] / n,
        "loss": loss[0] / n,
        "kl": max(kl / n, 0.0),
        "dense_accuracy": right[1] / n,
        "dense_loss": loss[1] / n,
    }


def fashion_mnist_model(
    name: str, about: str, *, samples: int, heldout: int, minutes: float
) -> QualityModel:
    """A network of `benchmarks.models.networks`, its checkpoints trained by `load_trained`.

    Calibration is on the first ``samples`` training images with their labels; the metrics are those
    of all 10,000 test images, the error of the layers that of the first ``heldout`` of them.
    """
    flat = takes_flat_input(name)

    def calibration(n: int) -> list[Any]:
        x, y = data("train", flat=flat)
        if n > len(x):
            raise ValueError(f"there are {len(x)} training images, {n} calibration samples asked")
        return [(x[:n].clone(), y[:n].clone())]

    def evaluate(model: nn.Module, dense: nn.Module) -> dict[str, float]:
        return compare_logits(model, dense, *data("test", flat=flat))

    return QualityModel(
        name=name,
        about=about,
        metric=ACCURACY,
        minutes=minutes,
        samples=samples,
        load=partial(_load, name),
        seeds_train=True,
        calibration=calibration,
        heldout=lambda: [data("test", flat=flat)[0][:heldout]],
        evaluate=evaluate,
        require=_require_fashion_mnist,
    )


def _load(name: str, seed: int) -> nn.Module:
    return copy.deepcopy(load_trained(name, seed)).eval()


def _require_fashion_mnist() -> None:
    try:
        directory()
    except DatasetNotFoundError as e:
        raise MissingRequirementError(str(e)) from None
