"""Convolutions in two forms that compute the same, side by side.

    python -m benchmarks.structure_forms [--threads 1] [--repeats 30]

Three tables: grouped convolutions and the dense kernel of the same function; uneven groups as
pruning leaves them, run one after the other and as one dense kernel; ``nn.Upsample`` and the
transposed convolution. Median milliseconds of one call in eval mode, both forms in turns (a
machine that is busy for a while slows both), and their ratio. Writes
benchmarks/results/structure_forms.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import describe
from optiprune.structure import dense_kernel, dense_of_groups, transposed_upsample
from optiprune.structure.timing import alternated

RESULT = Path(__file__).parent / "results" / "structure_forms.md"
WIDTHS = (32, 64, 128, 256)


class OneAfterTheOther(nn.Module):
    """Uneven groups as torch has them: a convolution for each, inputs cut and outputs joined."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for w in weights:
            conv = nn.Conv2d(w.shape[1], w.shape[0], 3, padding=1, bias=False)
            conv.weight = nn.Parameter(w)
            self.parts.append(conv)
        self.widths = [w.shape[1] for w in weights]

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split(self.widths, 1)
        return torch.cat([conv(p) for conv, p in zip(self.parts, pieces, strict=True)], 1)


def ranges(sizes: list[int]) -> list[list[int]]:
    ends = np.cumsum(sizes)
    return [list(range(e - n, e)) for n, e in zip(sizes, ends.tolist(), strict=True)]


def side_by_side(first: nn.Module, second: nn.Module, x: Tensor, repeats: int) -> str:
    """Three cells of a table: milliseconds of either, and how many times faster the second is."""
    with torch.inference_mode():
        want, got = first(x), second(x)
        assert float((got - want).abs().max()) <= 1e-5 * float(want.abs().max())
        a, b = alternated(lambda: first(x), lambda: second(x), repeats=repeats, at_least_s=5e-3)
    return f"{1e3 * a:.3f} | {1e3 * b:.3f} | {a / b:.2f}"


def grouped(repeats: int) -> list[str]:
    lines = [
        "Grouped 3x3 convolutions, batch 1, as many channels out as in.",
        "",
        "| size | channels a group | groups | channels | grouped, ms | dense, ms | ratio |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in (7, 28):
        for each in (1, 2, 3, 6, 8, 16, 32):
            for groups in (4, 8, 32):
                width = each * groups
                conv = nn.Conv2d(width, width, 3, padding=1, groups=groups).eval()
                x = torch.randn(1, width, size, size)
                cells = side_by_side(conv, dense_kernel(conv), x, repeats)
                lines.append(f"| {size}x{size} | {each} | {groups} | {width} | {cells} |")
                print(lines[-1], flush=True)
    return lines


def uneven(repeats: int) -> list[str]:
    lines = [
        "Uneven groups of 3x3 convolutions, batch 1: of every group a quarter to all of the "
        "channels are left, in and out.",
        "",
        "| size | channels before | groups | left, in and out | one by one, ms | dense, ms "
        "| ratio |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rng = np.random.default_rng(0)
    for size in (7, 28):
        for width in WIDTHS:
            for groups in (g for g in (4, 8, 32) if width // g >= 4):
                each = width // groups
                left = rng.integers(max(1, each // 4), each + 1, (2, groups)).tolist()
                weights = [torch.randn(o, i, 3, 3) for i, o in zip(*left, strict=True)]
                inputs, outputs = (sum(x) for x in left)
                dense = dense_of_groups(ranges(left[1]), ranges(left[0]), weights, padding=1)
                x = torch.randn(1, inputs, size, size)
                apart = OneAfterTheOther(weights).eval()
                cells = side_by_side(apart, dense.eval(), x, repeats)
                lines.append(
                    f"| {size}x{size} | {width} | {groups} | {inputs}, {outputs} | {cells} |"
                )
                print(lines[-1], flush=True)
    return lines


def upsampling(repeats: int) -> list[str]:
    lines = [
        "Upsampling, batch 1.",
        "",
        "| channels | size | mode | factor | interpolate, ms | transposed, ms | ratio |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for channels, size in ((64, 28), (16, 112)):
        for mode in ("nearest", "bilinear"):
            for factor in (2, 3, 4):
                up = nn.Upsample(scale_factor=factor, mode=mode).eval()
                x = torch.randn(1, channels, size, size)
                cells = side_by_side(up, transposed_upsample(up, channels), x, repeats)
                lines.append(f"| {channels} | {size}x{size} | {mode} | {factor} | {cells} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    text = [
        "# Convolution forms",
        "",
        "`python -m benchmarks.structure_forms "
        f"--threads {args.threads} --repeats {args.repeats}`: "
        "median ms of one call, float32, random weights; a ratio above 1 is in favour of the form "
        "on the right. Both were called in turns. The machine was busy with other work meanwhile: "
        "trust the ratios, not the milliseconds.",
        "",
        "; ".join(f"{k}: {v}" for k, v in describe().items()) + ".",
    ]
    for table in (grouped, uneven, upsampling):
        text += ["", *table(args.repeats)]
    RESULT.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
