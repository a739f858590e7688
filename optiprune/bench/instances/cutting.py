"""Pruning problems cut out of trained layers: recipe ``pruning``, version 1.

For a linear layer with weights W and input Gram matrix H = X'X / N, a *batch* is n weights around
the cut of Wanda's score ``|w_j| sqrt(H_jj)`` (arXiv 2306.11695) at a density: n/2 of them kept at
present and n/2 pruned. With D = diag(w) on the batch, dense values w and present values v:

``layer``  the change of the layer's error ``1/2 (u - w)'H(u - w)`` for exchanging weights of the
batch while all else stays as it is: ``E(x) = 1/2 x'DH_BB D x + (D(g - H_BB v))'x + const`` with g
the gradient of the error at the present mask; 0 at the present mask.

``pure``   the same batch cut out of a dense layer: ``min z'(1/2 DHD)z, sum z = n/2`` over the
removed weights z = 1 - x.

``logits`` a batch cut out of the whole dense layer, whatever the row, with the curvature of the
network's outputs: H = G'G / N, where G are the gradients of a random combination of the logits (a
sketch of the Gauss-Newton matrix), so that ``min z'(1/2 DHD)z, sum z = n/2`` is half the mean
square by which the outputs move, to first order. No row structure, of rank `SAMPLES`.

Energies are in units of the batch's mean ``1/2 w_j^2 H_jj``: the loss of removing a weight alone.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from optiprune.bench.errors import BenchError
from optiprune.problems import CardinalityQP

from .networks import NETWORKS, Float, TrainedNetwork, trained_network

__all__ = ["FAMILIES", "RECIPE", "SIZES", "cut", "instance_seed"]

RECIPE = "pruning-v1"
FAMILIES = ("layer", "pure", "logits")
SIZES = (64, 128, 200, 256, 1024)

_DENSITY = (0.2, 0.6)


def instance_seed(network: str, family: str, n: int, index: int) -> int:
    """The seed of an instance: a hash of what it is, so that none depends on how many there are."""
    return zlib.crc32(f"{RECIPE}/{network}/{family}/{n}/{index}".encode())


def cut(network: str, family: str, n: int, index: int) -> CardinalityQP:
    """Instance ``index`` of a family: n weights (even, >= 2), of which n/2 are kept.

    Raises
    ------
    BenchError
        For an unknown network or family, an odd n, or one that the layers are too small for.
    """
    if network not in NETWORKS or family not in FAMILIES:
        raise BenchError(
            f"no pruning instances '{network}-{family}'; networks: {', '.join(NETWORKS)}; "
            f"families: {', '.join(FAMILIES)}"
        )
    if n < 2 or n % 2:
        raise BenchError(f"a pruning instance has an even number of weights, got n = {n}")
    rng = np.random.default_rng(instance_seed(network, family, n, index))
    layers = NETWORKS[network].layers
    layer = layers[int(rng.integers(len(layers)))]
    density = float(rng.uniform(*_DENSITY))
    net = trained_network(network)
    if family == "logits":
        return _logits(net, layer, n, density)
    return _rows(net, layer, n, density, rng, pure=family == "pure")


def _rows(
    net: TrainedNetwork,
    layer: str,
    n: int,
    density: float,
    rng: np.random.Generator,
    *,
    pure: bool,
) -> CardinalityQP:
    X, W = net.inputs(layer), net.weights(layer)
    H = X.T @ X / len(X)
    alive = np.flatnonzero(np.diag(H) > 0)  # an input that is never active makes its weights free
    # as few rows as hold enough weights; rows share no inputs' errors, so that H is one block a row
    count = -(-5 * n // (4 * len(alive)))
    if count > len(W):
        raise BenchError(f"layer {layer} is too small for batches of n = {n}")
    rows = np.sort(rng.choice(len(W), count, replace=False))
    at_row = np.repeat(np.arange(count), len(alive))
    at_col = np.tile(alive, count)
    w = W[rows][at_row, at_col]
    score = np.abs(w) * np.sqrt(np.diag(H))[at_col]
    kept, batch = _around_cut(score, n, density)
    r, c, values = at_row[batch], at_col[batch], w[batch]
    A = 0.5 * np.outer(values, values) * H[np.ix_(c, c)] * (r[:, None] == r[None, :])
    unit = float(np.diag(A).mean())
    A /= unit
    if pure:
        return _removal(A)
    error = np.zeros((count, W.shape[1]))  # present minus dense values
    error[at_row[~kept], at_col[~kept]] = -w[~kept]
    gradient = (error @ H)[r, c]
    return _quadratic(A, values * gradient / unit, kept[batch])


def _logits(net: TrainedNetwork, layer: str, n: int, density: float) -> CardinalityQP:
    W = net.weights(layer)
    X, gradients = net.capture(layer)
    score = (np.abs(W) * np.sqrt((X * X).mean(axis=0))).reshape(-1)
    alive = np.flatnonzero(score > 0)
    if len(alive) < 2 * n:
        raise BenchError(f"layer {layer} is too small for batches of n = {n}")
    _, batch = _around_cut(score[alive], n, density)
    r, c = np.divmod(alive[batch], W.shape[1])
    F = gradients[:, r] * X[:, c] * W[r, c] / np.sqrt(2.0 * len(X))
    A = F.T @ F
    return _removal(A / float(np.diag(A).mean()))


def _around_cut(
    score: Float, n: int, density: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """``(kept, batch)``: the mask by score, and the n weights nearest to its cut, by position."""
    half, total = n // 2, len(score)
    count = int(np.clip(round(density * total), half, total - half))
    order = np.argsort(-score, kind="stable")
    kept = np.zeros(total, dtype=bool)
    kept[order[:count]] = True
    return kept, np.sort(order[count - half : count + half])


def _removal(A: Float) -> CardinalityQP:
    """``E(x) = (1 - x)'A(1 - x)``, half of the weights kept."""
    return CardinalityQP(A, -2.0 * A.sum(axis=1), float(A.sum()), k=len(A) // 2)


def _quadratic(A: Float, slope: Float, kept: npt.NDArray[np.bool_]) -> CardinalityQP:
    """``E(x) = (x - m)'A(x - m) + slope'(x - m)`` for the present mask m."""
    m = kept.astype(np.float64)
    Am = A @ m
    return CardinalityQP(A, slope - 2.0 * Am, float(m @ Am) - float(slope @ m), k=int(kept.sum()))
