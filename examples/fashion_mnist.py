"""Prune a 784-512-512-10 network on Fashion-MNIST to one weight in ten.

Get the data first, 31 MB under the MIT licence::

    apt-get update && apt-get install dataset-fashion-mnist

(or put the four gz files anywhere and set OPTIPRUNE_FASHION_MNIST to their directory). Then, from
the root of the repository::

    OMP_WAIT_POLICY=PASSIVE python -m examples.fashion_mnist --sparsity 0.9

trains the network (20 seconds, kept in benchmarks/cache), decides which weights to keep three
ways, prints what each costs, and writes the last masks to a file that is then put on a fresh copy
of the dense network.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.models import DatasetNotFoundError, accuracy, data, load_trained
from benchmarks.models.train import magnitude_prune
from optiprune import MaskSet, optimize_masks

NETWORK = "mlp-784-512-512-10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--samples", type=int, default=12_000, help="calibration images")
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    try:
        x, y = data("train")
        x_test, y_test = data("test")
        dense = load_trained(NETWORK, args.seed)
    except DatasetNotFoundError as e:
        sys.exit(str(e))
    print(f"{NETWORK}: {sum(p.numel() for p in dense.parameters()):,} parameters")
    show("dense", dense, 1.0, 0.0, x_test, y_test)

    model = copy.deepcopy(dense)
    magnitude_prune(model, 1 - args.sparsity)
    show("magnitude, global", model, MaskSet.from_model(model).density(), 0.0, x_test, y_test)

    # Calibrate on a random part of the training set; the test set is looked at in `show` only.
    draw = torch.Generator().manual_seed(args.seed)
    chosen = torch.randperm(len(x), generator=draw)[: args.samples]
    calibration = list(zip(x[chosen].split(500), y[chosen].split(500), strict=True))
    for title, objective, refit in (
        ("global loss, mask only", "global", False),
        ("global loss, refit", "global", True),
        ("reconstruction, refit", "reconstruction", True),
    ):
        model = copy.deepcopy(dense)
        start = time.perf_counter()
        result = optimize_masks(
            model,
            calibration,
            sparsity=args.sparsity,
            objective=objective,
            refit=refit,
            solver=args.solver,
            seed=args.seed,
        )
        seconds = time.perf_counter() - start
        show(title, model, result.density, seconds, x_test, y_test)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.safetensors"
        result.masks.save(path, config=result.config)
        fresh = load_trained(NETWORK, args.seed)
        MaskSet.load(path, fresh).apply(fresh)  # refuses any network but the dense one
        same = accuracy(fresh, x_test, y_test) == accuracy(model, x_test, y_test)
        print(f"mask file: {path.stat().st_size:,} bytes; on the dense network: same = {same}")


def show(
    title: str, model: nn.Module, density: float, seconds: float, x: Tensor, y: Tensor
) -> None:
    percent = 100 * accuracy(model, x, y)
    print(
        f"{title:<24} density {density:6.1%}  test {percent:5.2f} %  {seconds:6.1f} s", flush=True
    )


if __name__ == "__main__":
    main()
