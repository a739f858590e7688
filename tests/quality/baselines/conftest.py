"""Random layers with correlated inputs, their moments, and the same for a given Gram matrix."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.quality.baselines import LayerMoments
from optiprune.curvature.gram import LayerGram


def moments_of_inputs(X):
    """X : (groups, n, cols)."""
    H = X.transpose(1, 2) @ X / X.shape[1]
    H = (H + H.transpose(1, 2)) / 2
    return LayerMoments(LayerGram(H, H, H, X.shape[1]), X.mean(1))


def random_layer(seed=0, rows=6, cols=16, groups=1, n=200, dead=()):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(groups, n, cols)) @ (rng.normal(size=(groups, cols, cols)) / cols**0.5)
    X = X + rng.normal(size=(groups, 1, cols))
    X[..., list(dead)] = 0.0
    X = torch.from_numpy(X)
    weight = torch.from_numpy(rng.normal(size=(rows, cols)))
    return SimpleNamespace(X=X, moments=moments_of_inputs(X), weight=weight)


def of_gram(H, means=None):
    """Moments with that (cols, cols) or (groups, cols, cols) matrix."""
    H = torch.as_tensor(H, dtype=torch.float64)
    H = H if H.ndim == 3 else H[None]
    means = torch.zeros(H.shape[:2]) if means is None else torch.as_tensor(means)
    return LayerMoments(LayerGram(H, H, H, 1), means.to(torch.float64).reshape(H.shape[:2]))


@pytest.fixture(scope="session")
def layer():
    return random_layer


@pytest.fixture(scope="session")
def gram():
    return of_gram
