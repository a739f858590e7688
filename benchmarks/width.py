"""What a weight costs in narrow layers and in wide ones: the preset `fast`, and SparseGPT.

    python -m benchmarks.width

The layers of a block of SmolLM2-135M (576 wide) and of a Llama of 1.1 billion parameters (2048
wide), with random weights and correlated inputs, half of the weights kept. The Gram matrices are
given: what is timed is the decision of a layer, processor seconds of one thread. Every shape is
timed once and counted as often as a block has it. SparseGPT is this project's own code in float64
(see `benchmarks.quality.baselines`). Writes benchmarks/results/width.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.layer_jobs import block_shapes
from benchmarks.machine import machine_line
from benchmarks.quality.baselines import SparseGPT
from benchmarks.quality.baselines.method import LayerBudget
from benchmarks.quality.baselines.moments import LayerMoments
from optiprune import solvers
from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.engine.layer_decision import LayerDecision
from optiprune.engine.threads import fixed_threads

RESULT = Path(__file__).parent / "results" / "width.md"
BLOCKS = {
    "SmolLM2-135M": block_shapes(576, 192, 1536),
    "Llama, 1.1 billion": block_shapes(2048, 256, 5632),
}
FAST = Config.from_table(
    {"preset": "fast", "prune": {"objective": "reconstruction", "sparsity": 0.5}}
)
_NOISE = 0.3
_POSITIONS = 16384


def gram(cols: int, seed: int) -> LayerGram:
    """Of inputs that are a mixture of a quarter as many, and noise."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(max(8, cols // 4), cols, generator=draw, dtype=torch.float64)
    H = mixing.T @ mixing / len(mixing)
    H.diagonal().add_(_NOISE**2)
    H = ((H + H.T) / 2)[None]
    mean = torch.zeros((1, cols), dtype=torch.float64)
    return LayerGram(H, H, H, _POSITIONS, mean)


def by_fast(of: LayerGram, held: LayerGram, w: Tensor) -> None:
    rows, cols = w.shape
    layer = PrunableLayer("layer", "layer.weight", (), ("layer",), (rows, cols), 1)
    mask = w.abs() > w.abs().flatten().median()
    seed = np.random.SeedSequence(0)
    solver = solvers.get("auto")
    LayerDecision(layer, [of], held, w, mask, FAST, solver, None, seed, 1.0, lambda *_: None).run()


def by_sparsegpt(of: LayerGram, _: LayerGram, w: Tensor) -> None:
    SparseGPT().prune(LayerMoments.of(of), w, LayerBudget(0.5, scope="layer"))


Method = Callable[[LayerGram, LayerGram, Tensor], None]
METHODS: dict[str, Method] = {
    "`fast`": by_fast,
    "SparseGPT": by_sparsegpt,
}


def seconds(method: Method, rows: int, cols: int) -> float:
    draw = torch.Generator().manual_seed(rows)
    w = torch.randn(rows, cols, generator=draw, dtype=torch.float64) / cols**0.5
    run = partial(method, gram(cols, 0), gram(cols, 1), w)
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    each: dict[tuple[str, int, int], float] = {}
    with fixed_threads(1):
        for name, method in METHODS.items():
            seconds(method, 64, 64)  # what is compiled and loaded at first
            for rows, cols in sorted({shape for shapes in BLOCKS.values() for shape in shapes}):
                each[name, rows, cols] = seconds(method, rows, cols)
                print(f"{name} {rows} x {cols}: {each[name, rows, cols]:.1f} s", flush=True)
    RESULT.write_text(report(each))
    print(RESULT.read_text())


def report(each: dict[tuple[str, int, int], float]) -> str:
    lines = [
        "# A weight in narrow and in wide layers",
        "",
        "`python -m benchmarks.width`: processor time of the decision of a layer, half of the "
        "weights kept, Gram matrices given; microseconds a weight.",
        "",
        f"| rows x columns | {' | '.join(METHODS)} |",
        f"|---|{'---:|' * len(METHODS)}",
    ]
    for shapes in BLOCKS.values():
        for rows, cols in sorted(set(shapes)):
            found = (1e6 * each[name, rows, cols] / (rows * cols) for name in METHODS)
            lines.append(f"| {rows} x {cols} | {' | '.join(f'{x:.2f}' for x in found)} |")
    totals: dict[str, list[float]] = {name: [] for name in METHODS}
    for block, shapes in BLOCKS.items():
        weights = sum(rows * cols for rows, cols in shapes)
        for name in METHODS:
            totals[name].append(
                1e6 * sum(each[name, rows, cols] for rows, cols in shapes) / weights
            )
        found = (f"{totals[name][-1]:.2f}" for name in METHODS)
        lines.append(f"| a block of {block} | {' | '.join(found)} |")
    ratios = (f"{large / small:.2f}" for small, large in totals.values())
    lines += [
        f"| the second over the first | {' | '.join(ratios)} |",
        "",
        "A block has each shape as often as a Llama has it: queries and outputs, keys and values, "
        "gate and up, down.",
        "",
        machine_line(),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
