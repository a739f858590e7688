"""Prune a small convolutional network with batch norm, then fine-tune it without losing a zero.

    OMP_WAIT_POLICY=PASSIVE python -m examples.convnet --sparsity 0.9

from the root of the repository. On Fashion-MNIST where it is installed (``apt-get install
dataset-fashion-mnist``; training takes about a minute, once), else on scikit-learn's 8x8 digits.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.models import DatasetNotFoundError, accuracy, data, load_trained
from benchmarks.models.train import magnitude_prune
from optiprune import MaskSet, optimize_masks
from optiprune.masks import keep_masked

Split = tuple[Tensor, Tensor]


def fashion() -> tuple[nn.Module, Split, Split]:
    """The CNN of the benchmarks, (1, 28, 28) images. Raises `DatasetNotFoundError`."""
    train, test = data("train", flat=False), data("test", flat=False)
    return load_trained("cnn-32-64-fc128", seed=0), train, test


def digits() -> tuple[nn.Module, Split, Split]:
    """Two convolutions (one strided) on (1, 8, 8) images, trained here in a few seconds."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    fit, held = order[:1300], order[1300:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 16, 3, padding=1),
                bn1=nn.BatchNorm2d(16),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(16, 32, 3, stride=2, padding=1),
                bn2=nn.BatchNorm2d(32),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc=nn.Linear(32 * 4 * 4, 10),
            )
        )
        model.train()
        fit_to(model, torch.optim.Adam(model.parameters(), lr=2e-3), x[fit], y[fit], epochs=8)
    return model.eval(), (x[fit], y[fit]), (x[held], y[held])


def fit_to(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, epochs: int
) -> None:
    shuffle = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=shuffle).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--samples", type=int, default=2000, help="calibration images")
    parser.add_argument("--solver", default="auto")
    args = parser.parse_args()

    try:
        dense, (x, y), test = fashion()
    except DatasetNotFoundError as e:
        print(f"{e}\nUsing scikit-learn's digits instead.\n")
        dense, (x, y), test = digits()
    print(f"dense: test {100 * accuracy(dense, *test):.2f} %")

    model = copy.deepcopy(dense)
    magnitude_prune(model, 1 - args.sparsity)
    print(
        f"global magnitude pruning to the same density: test {100 * accuracy(model, *test):.2f} %"
    )

    x, y = x[: args.samples], y[: args.samples]
    model = copy.deepcopy(dense)
    start = time.perf_counter()
    result = optimize_masks(
        model,
        list(zip(x.split(250), y.split(250), strict=True)),
        sparsity=args.sparsity,
        objective="global",
        refit=True,
        solver=args.solver,
    )
    print(
        f"pruned to density {result.density:.1%} in {time.perf_counter() - start:.1f} s: "
        f"test {100 * accuracy(model, *test):.2f} %"
    )
    for layer in result.report.layers:
        print(f"  {layer.parameter:<14} {layer.shape!s:<18} density {layer.density:6.1%}")

    # In eval mode: the masks were chosen for batch norm's own statistics, and a few batches would
    # replace them. AdamW's weight decay and momentum would revive pruned weights; the hooks of
    # keep_masked do not let them.
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    with keep_masked(model, result.masks, optimizer):
        fit_to(model, optimizer, x, y, epochs=2)
    after = MaskSet.from_model(model, list(result.masks))
    print(
        f"fine-tuned on the same {len(x)} images: test {100 * accuracy(model, *test):.2f} %, "
        f"{after.difference(result.masks).count()} pruned weights revived"
    )


if __name__ == "__main__":
    main()
