"""Fashion-MNIST as tensors; the files are those of `optiprune.bench.instances.fashion_mnist`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from optiprune.bench.instances.fashion_mnist import (
    DatasetNotFoundError,
    directory,
    read_idx,
    read_split,
)

__all__ = ["MEAN", "STD", "DatasetNotFoundError", "data", "directory", "read_idx"]

# Mean and standard deviation of the pixels of the training images, scaled to [0, 1].
MEAN, STD = 0.2860, 0.3530


def data(split: str, *, flat: bool = True) -> tuple[Tensor, Tensor]:
    """Images and labels of one split.

    Parameters
    ----------
    split : "train" (60,000 images) or "test" (10,000)
    flat : rows of 784 pixels; otherwise images of shape (1, 28, 28)

    Returns
    -------
    X : float32, shape (n, 784) or (n, 1, 28, 28); ``(pixel / 255 - MEAN) / STD``
    y : int64, shape (n,), classes 0 .. 9

    Raises
    ------
    DatasetNotFoundError
        The files are missing; the message says how to get them.
    ValueError
        An unknown split, or files that are damaged.
    """
    images, labels = read_split(split)
    x = torch.from_numpy(images.astype(np.float32)).div_(255.0).sub_(MEAN).div_(STD)
    y = torch.from_numpy(labels.astype(np.int64))
    return (x.reshape(len(x), 784) if flat else x.reshape(len(x), 1, 28, 28)), y
