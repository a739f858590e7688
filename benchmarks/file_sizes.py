"""How large the file of a sparse model is, by how it is written, and how long it takes to load.

    pip install zstandard
    python -m benchmarks.file_sizes [--models lenet-300-100 cnn-32-64-fc128 resnet20 smollm2-135m]

Really pruned models at densities of 50, 20, 10 and 5 % of the weights of their layers: the small
ones by `optimize_masks` (preset "fast", 2000 calibration images, seed 0), SmolLM2 by magnitude in
each layer (where the zeros are is as irregular, and it takes seconds), in bfloat16 alone. Every
column is the whole model, with all that is not pruned. Writes benchmarks/results/file_sizes.jsonl,
where it replaces the rows of these models, and file_sizes.md.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import zstandard
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.registry import quality_model
from optiprune import MaskSet, optimize_masks
from optiprune.export import read_packed, save_packed, save_state_dict
from optiprune.export.checks import distinct_bytes

RESULT = Path(__file__).parent / "results" / "file_sizes.md"
ROWS = RESULT.with_suffix(".jsonl")
MODELS = ("lenet-300-100", "cnn-32-64-fc128", "resnet20", "smollm2-135m")
DENSITIES = (0.5, 0.2, 0.1, 0.05)
ZSTD_LEVEL = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes by column, and seconds to load."""

    model: str
    dtype: str
    density: float
    dense: int
    sizes: dict[str, int]
    seconds: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    torch.set_num_threads(1)
    for name in parser.parse_args().models:
        measured = list(measure(name))
        before = ROWS.read_text().splitlines() if ROWS.exists() else []
        rows = [r for line in before if (r := Row(**json.loads(line))).model != name] + measured
        rows.sort(key=lambda r: MODELS.index(r.model))
        ROWS.write_text("".join(json.dumps(asdict(r)) + "\n" for r in rows))
        RESULT.write_text(report(rows))
    print(RESULT.read_text())


def measure(name: str) -> Iterator[Row]:
    for density in DENSITIES:
        model, masks = pruned(name, density)
        if name == "smollm2-135m":
            yield one(name, model.bfloat16(), masks)
            continue
        yield one(name, model, masks)
        yield one(name, model.half(), masks)


def pruned(name: str, density: float) -> tuple[nn.Module, MaskSet]:
    if name == "smollm2-135m":
        chosen = quality_model(name)
        model = chosen.load(0)
        masks = {}
        for layer in chosen.layers(model):
            size = model.get_parameter(layer.parameter).detach().abs()
            keep = size.flatten().topk(round(density * size.numel())).indices
            mask = torch.zeros(size.numel(), dtype=torch.bool)
            mask[keep] = True
            masks[layer.parameter] = mask.reshape(size.shape)
        found = MaskSet(masks)
        found.apply(model).make_permanent()
        return model, found
    model = copy.deepcopy(load_trained(name, 0)).eval()
    inputs = [data("train", flat=takes_flat_input(name))[0][:2000]]
    result = optimize_masks(model, inputs, sparsity=1 - density, config={"preset": "fast"})
    return model, result.masks.with_fitted({})


def one(name: str, model: nn.Module, masks: MaskSet) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "dense.safetensors", Path(folder) / "packed.safetensors"
        save_state_dict(model, masks, plain)
        save_packed(model, masks, packed)
        check(model, packed)
        sizes, files = {}, {"dense": plain, "packed": packed}
        for label, source in (("zeros", plain), ("packed", packed)):
            content = source.read_bytes()
            for kind, squeeze in (("gzip", gzip_of), ("zstd", zstd_of)):
                files[f"{label}, {kind}"] = target = Path(folder) / f"{label}.{kind}"
                target.write_bytes(squeeze(content))
        sizes = {label: path.stat().st_size for label, path in files.items()}
        dense = sizes.pop("dense")
        sizes |= sparse_sizes(model, masks)
        readers: dict[str, Callable[[], object]] = {
            "dense": lambda: load_file(plain),
            "packed": lambda: read_packed(packed),
            "zeros, gzip": lambda: unzipped(files["zeros, gzip"], gzip.decompress),
            "zeros, zstd": lambda: unzipped(files["zeros, zstd"], unzstd),
        }
        seconds = {label: timed(read) for label, read in readers.items()}
    dtype = str(model.get_parameter(next(iter(masks))).dtype).removeprefix("torch.")
    return Row(name, dtype, masks.density(), dense, sizes, seconds)


def check(model: nn.Module, packed: Path) -> None:
    """What was packed is the model: else its size means nothing."""
    stored = read_packed(packed).state
    for key, t in model.state_dict().items():
        if not torch.equal(stored[key], t):
            raise SystemExit(f"{key} was not packed as it is")


def sparse_sizes(model: nn.Module, masks: MaskSet) -> dict[str, int]:
    """Bytes of torch's sparse tensors, the others dense; and the bound."""
    total = {"COO int64": 0, "CSR int64": 0, "CSR int32": 0, "bound": 0}
    rest = distinct_bytes(model)
    for name, mask in masks.items():
        weight = model.get_parameter(name).detach()
        rest -= weight.numel() * weight.element_size()
        matrix = weight.reshape(weight.shape[0], -1).float()
        values = int(mask.sum()) * weight.element_size()
        # kept weights that are zero are not in torch's tensors; there is hardly one
        coo = matrix.to_sparse_coo()
        csr = matrix.to_sparse_csr()
        total["COO int64"] += bytes_of(coo.indices()) + values
        index = bytes_of(csr.crow_indices()) + bytes_of(csr.col_indices())
        total["CSR int64"] += index + values
        total["CSR int32"] += index // 2 + values
        total["bound"] += math.ceil(mask.numel() * entropy(mask) / 8) + values
    return {k: v + rest for k, v in total.items()}


def bytes_of(t: Tensor) -> int:
    return t.numel() * t.element_size()


def entropy(mask: Tensor) -> float:
    """Bits a weight of a mask of which the density of each tensor is all that is known."""
    d = float(mask.float().mean())
    return 0.0 if d in (0.0, 1.0) else -d * math.log2(d) - (1 - d) * math.log2(1 - d)


def gzip_of(content: bytes) -> bytes:
    return gzip.compress(content, 6)


def zstd_of(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)


def unzstd(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(content)


def unzipped(path: Path, unpack: Callable[[bytes], bytes]) -> object:
    from safetensors.torch import load

    return load(unpack(path.read_bytes()))


def timed(read: Callable[[], object]) -> float:
    taken: list[float] = []
    while len(taken) < (5 if sum(taken) < 5 else 3):
        start = time.process_time()
        read()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


COLUMNS = (
    "zeros, gzip",
    "zeros, zstd",
    "packed",
    "packed, zstd",
    "COO int64",
    "CSR int64",
    "CSR int32",
    "bound",
)


def report(rows: list[Row]) -> str:
    lines = ["# File sizes of sparse models", "", machine_line()]
    lines += [
        "Made by `python -m benchmarks.file_sizes`. Share of the dense safetensors file (zeros "
        f"stored), in %. gzip level 6, zstd level {ZSTD_LEVEL}. COO and CSR are the bytes of "
        "torch's sparse tensors (a convolution as the matrix of its output channels), without a "
        "header. bound: the masks at their entropy by the density of each tensor, kept values as "
        "they are. density: of the weights that masks are on.",
        "",
        "| model | dtype | density | dense, kB | " + " | ".join(COLUMNS) + " |",
        "|---|---|---:|---:|" + "---:|" * len(COLUMNS),
    ]
    for r in rows:
        shares = " | ".join(f"{100 * r.sizes[c] / r.dense:.1f}" for c in COLUMNS)
        lines.append(
            f"| {r.model} | {r.dtype} | {r.density:.3f} | {r.dense / 1000:.0f} | {shares} |"
        )
    loads = ("dense", "packed", "zeros, gzip", "zeros, zstd")
    lines += [
        "",
        "Milliseconds of the processor to load: all tensors made, checksums of the packed file "
        "compared, from a warm disk cache, one thread, median of 5 (of 3 where they take seconds):",
        "",
        "| model | dtype | density | " + " | ".join(loads) + " |",
        "|---|---|---:|" + "---:|" * len(loads),
    ]
    for r in rows:
        cells = " | ".join(f"{1000 * r.seconds[c]:.1f}" for c in loads)
        lines.append(f"| {r.model} | {r.dtype} | {r.density:.3f} | {cells} |")
    lines += ["", "Density below which a form is smaller than another, by counting bits alone:", ""]
    lines += ["| bits a weight | packed < dense | CSR int32 < dense | COO int64 < dense |"]
    lines[-1] += " CSR int32 < packed | CSR int64 < packed |"
    lines += ["|---:|" + "---:|" * 5]
    for b in (32, 16):
        below = (1 - 1 / b, b / (b + 32), b / (b + 128), 1 / 32, 1 / 64)
        lines.append(f"| {b} | " + " | ".join(f"{100 * d:.1f} %" for d in below) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
