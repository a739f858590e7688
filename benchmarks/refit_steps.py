"""Steps and seconds of a refit: conjugate gradients with the diagonal, and with leading directions.

    python -m benchmarks.refit_steps [--rows 512]

Layers of SmolLM2-135M (see `benchmarks.models.language` for its packages) on 32 windows of an
encyclopedia, and one of 2048 inputs whose spectrum falls as 1 / i; half of the weights of each row
stay, those that ADMM chooses. Once to the tolerance of the preset `fast` and once to the default.
Writes benchmarks/results/refit_steps.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.machine import machine_line
from benchmarks.models.language import CALIBRATION_ARTICLES, load_smollm2, token_windows
from optiprune import conjugate_gradients
from optiprune.admm import admm_support
from optiprune.curvature import CalibrationSet, collect_grams, find_layers
from optiprune.preconditioner import Preconditioner, leading
from optiprune.refit import refit_rows

RESULT = Path(__file__).parent / "results" / "refit_steps.md"
LAYERS = (
    "model.layers.10.self_attn.q_proj",
    "model.layers.3.mlp.up_proj",
    "model.layers.20.mlp.down_proj",
)
# damping and tolerance: of the preset fast, and of the default with little damping
SETTINGS = ((0.03, 1e-4), (1e-3, 2e-6))
WIDE = 2048


def diagonal_alone(H: Tensor, rank: int) -> Tensor:
    return torch.zeros(len(H), 0, device=H.device)


METHODS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "diagonal": diagonal_alone,
    "and leading directions": leading,
}


def layers() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, Gram matrix (cols, cols), dense weights (rows, cols), both float64."""
    model = load_smollm2()
    found = [layer for layer in find_layers(model) if layer.name in LAYERS]
    windows = token_windows(None, CALIBRATION_ARTICLES, 32)
    data = CalibrationSet.collect([windows], torch.device("cpu"))
    for name, gram in collect_grams(model, found, {}, None, data, chunk=4).items():
        yield name, gram.H[0], model.get_submodule(name).weight.detach().double()
    draw = torch.Generator().manual_seed(0)
    scale = 1.0 / torch.arange(1, WIDE + 1).double()
    mixing = torch.linalg.qr(torch.randn(WIDE, WIDE, generator=draw, dtype=torch.float64))[0]
    x = torch.randn(16384, WIDE, generator=draw, dtype=torch.float64) * scale.sqrt() @ mixing
    w = torch.randn(WIDE, WIDE, generator=draw, dtype=torch.float64)
    yield f"drawn, {WIDE} inputs", x.T @ x / len(x), w


def largest(scores: Tensor) -> Tensor:
    """The larger half of every row."""
    best = scores.topk(scores.shape[1] // 2, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


def measure(H: Tensor, w: Tensor, mask: Tensor, near: Tensor) -> Iterator[str]:
    """Cells of a table's row for every setting and method."""
    b = w @ H
    c = (b * w).sum(1)
    for damping, tolerance in SETTINGS:
        for name, few in METHODS.items():
            steps = 0
            apply = Preconditioner.__call__

            def counted(
                self: Preconditioner, r: Tensor, apply: Callable[..., Tensor] = apply
            ) -> Tensor:
                nonlocal steps
                steps += 1
                return apply(self, r)

            with (
                patch.object(conjugate_gradients, "leading", few),
                patch.object(Preconditioner, "__call__", counted),
            ):
                began = time.process_time()
                fit = refit_rows(
                    H[None], b, c, mask, torch.where(mask, w, 0.0), damping, near, tolerance
                )
                took = time.process_time() - began
            error = float(fit.error_after.sum() / c.sum())
            yield f"{damping:g}, {tolerance:g} | {name} | {steps} | {took:.2f} | {error:.6e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Steps of a refit",
        "",
        f"`python -m benchmarks.refit_steps`: {args.rows} rows of a layer, half of the weights; "
        "one thread. Error as a share of the dense output's mean square.",
        "",
        "| layer | damping, tolerance | preconditioner | steps | CPU seconds | error |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name, H, dense in layers():
        w = dense[: args.rows]
        mask, near = admm_support(H[None], w @ H, w, largest)
        for cells in measure(H, w, mask, near):
            lines.append(f"| {name} | {cells} |")
            print(lines[-1], flush=True)
    RESULT.write_text("\n".join([*lines, "", machine_line()]), encoding="utf-8")


if __name__ == "__main__":
    main()
