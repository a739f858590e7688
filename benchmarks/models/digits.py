"""A 64-64-64-10 network on scikit-learn's digits: trained in a second, for trying things out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .classification import compare_logits
from .networks import mlp
from .quality import ACCURACY, QualityModel, need_packages

__all__ = ["digits_model"]

NAME = "digits"
_TRAINING = 1200


@functools.cache
def _data(split: str) -> tuple[Tensor, Tensor]:
    """1,200 training or 597 test pictures of 8 x 8 pixels in 0 .. 1, as rows."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    take = order[:_TRAINING] if split == "train" else order[_TRAINING:]
    return torch.from_numpy(x[take].astype(np.float32) / 16), torch.from_numpy(y[take])


def _load(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(64, 64, 64, 10)
    x, y = _data("train")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(20):
        for index in torch.randperm(len(x), generator=order).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    for p in model.parameters():
        p.grad = None
    return model.eval()


def digits_model() -> QualityModel:
    def calibration(n: int) -> list[Any]:
        x, y = _data("train")
        if n > len(x):
            raise ValueError(f"there are {len(x)} training pictures, {n} samples were asked for")
        return [(x[:n], y[:n])]

    return QualityModel(
        name=NAME,
        about="64-64-64-10 network on scikit-learn's digits, 8,970 parameters",
        metric=ACCURACY,
        minutes=0.02,
        samples=1000,
        load=_load,
        seeds_train=True,
        calibration=calibration,
        heldout=lambda: [_data("test")[0]],
        evaluate=lambda model, dense: compare_logits(model, dense, *_data("test")),
        require=lambda: need_packages(NAME, ("sklearn",), "pip install scikit-learn"),
    )
