"""Pictures of masks: every pixel is the share of weights that are kept in a block of the matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .png import SHADES, encode

__all__ = ["MaskPicture", "picture_of"]


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """What can be seen of one mask.

    Attributes
    ----------
    png : one row of pixels for some outputs, one column for some inputs
    width, height : pixels
    rows, cols : of the matrix: outputs, and inputs times the kernel
    low, high : share kept of the lightest and of the darkest pixel
    empty_rows, empty_cols : outputs without a weight, inputs that no output reads
    """

    png: bytes
    width: int
    height: int
    rows: int
    cols: int
    low: float
    high: float
    empty_rows: int
    empty_cols: int

    @property
    def block(self) -> tuple[float, float]:
        """Weights in a pixel, down and across, on average."""
        return self.rows / self.height, self.cols / self.width


def picture_of(mask: npt.NDArray[np.bool_], side: int) -> MaskPicture:
    """The picture of a weight's mask, at most ``side`` pixels high and wide.

    Parameters
    ----------
    mask : (outputs, ...), not empty; what follows the outputs is laid out in a row

    A mask that fits is shown weight by weight, white and dark. Where a pixel stands for several
    weights, the shades run from the lowest to the highest share in this picture, since all blocks
    of a large layer lie close to its density.
    """
    matrix = mask.reshape(mask.shape[0], -1) if mask.ndim else mask.reshape(1, 1)
    rows, cols = matrix.shape
    height, width = min(rows, side), min(cols, side)
    shares = _means(_means(matrix, height, 0), width, 1)
    single = (height, width) == (rows, cols)
    low, high = (0.0, 1.0) if single else (float(shares.min()), float(shares.max()))
    scaled = (shares - low) / (high - low) if high > low else np.full_like(shares, high)
    levels = np.clip(np.rint(scaled * (SHADES - 1)), 0, SHADES - 1).astype(np.uint8)
    return MaskPicture(
        encode(levels),
        width,
        height,
        rows,
        cols,
        low,
        high,
        int((~matrix.any(axis=1)).sum()),
        int((~matrix.any(axis=0)).sum()),
    )


def _means(values: npt.NDArray, parts: int, axis: int) -> npt.NDArray[np.float64]:
    """Means over ``parts`` stretches along an axis, as equal as they can be."""
    n = values.shape[axis]
    starts = np.array([math.floor(i * n / parts) for i in range(parts)])
    sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float64)
    lengths = np.diff(np.append(starts, n)).astype(np.float64)
    return sums / (lengths[:, None] if axis == 0 else lengths)
