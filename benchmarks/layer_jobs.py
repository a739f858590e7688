"""Layers of a transformer with correlated inputs, as jobs that any executor can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from optiprune import solvers
from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.engine.layer_job import LayerJob

__all__ = ["CONFIG", "Prepared", "block_shapes", "prepared"]

# what is usual for a language model: a uniform density of 50 %, weights re-fitted, no tuning
CONFIG = Config.from_table(
    {
        "threads": 1,
        "prune": {"objective": "reconstruction", "sparsity": 0.5},
        "allocation": {"method": "uniform"},
        "tune": {"epochs": 0},
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A job, and the Gram matrices of its two parts and of the samples that judge."""

    job: LayerJob
    grams: tuple[LayerGram, ...]


def block_shapes(hidden: int, kv: int, wide: int) -> list[tuple[int, int]]:
    """(rows, cols) of the layers of a Llama block: q, k, v, o, gate, up, down."""
    attention = [(hidden, hidden), (kv, hidden), (kv, hidden), (hidden, hidden)]
    return [*attention, (wide, hidden), (wide, hidden), (hidden, wide)]


def prepared(shapes: list[tuple[int, int]], share: float, seed: int = 0) -> Iterator[Prepared]:
    """Layers of these shapes; ``share`` of the rows get batches of their own."""
    for number, (rows, cols) in enumerate(shapes):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        # inputs of a quarter of the rank and noise, as activations are: few directions, not all
        mixing = torch.randn(max(8, cols // 4), cols, generator=generator) / (cols / 4) ** 0.5
        grams = tuple(_gram(m * cols, mixing, generator) for m in (8, 2, 1))
        w = torch.randn(rows, cols, generator=generator) / cols**0.5
        score = w.abs() * grams[0].norms()[0].float()
        mask = score > score.flatten().median()
        name = f"{number}.{rows}x{cols}"
        layer = PrunableLayer(name, f"{name}.weight", (), (name,), (rows, cols), 1)
        seeds = np.random.SeedSequence(seed, spawn_key=(number,))
        solver = solvers.get("auto")
        yield Prepared(LayerJob(layer, w, mask, 2, CONFIG, solver, None, seeds, share), grams)


def _gram(n: int, mixing: torch.Tensor, generator: torch.Generator) -> LayerGram:
    x = torch.randn(n, len(mixing), generator=generator) @ mixing
    x = (x + 0.3 * torch.randn(x.shape, generator=generator)).double()
    H = (x.T @ x / n)[None]
    H = (H + H.transpose(1, 2)) / 2
    return LayerGram(H, H, H, n, x.mean(0)[None])
