"""Whether masks keep to a pattern; the first place where one does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from optiprune.patterns import Block, PatternError, parse

from .errors import MaskError

__all__ = ["check_pattern"]


def check_pattern(masks: Mapping[str, Tensor], pattern: str, *, exactly: bool = False) -> None:
    """Check that every mask keeps to a pattern.

    A mask is seen as a matrix of output rows: all dimensions after the first are one row, as in
    `optimize_masks`.

    Parameters
    ----------
    masks : parameter name -> bool tensor of two or more dimensions, True = keep
    pattern : 'N:M': at most N kept in every M consecutive weights of a row; 'block:RxC': every tile
        kept or pruned as a whole
    exactly : N:M alone: N and no fewer

    Raises
    ------
    MaskError
        The text is no pattern (or 'unstructured', which nothing can break); a mask has fewer than
        two dimensions or does not divide into groups; or it breaks the pattern: parameter, row and
        group (or tile) of the first place are named.
    """
    try:
        wanted = parse(pattern)
    except PatternError as e:
        raise MaskError(str(e)) from None
    if wanted is None:
        raise MaskError("'unstructured' is no pattern to check; give 'N:M' or 'block:RxC'")
    for name, mask in masks.items():
        if mask.ndim < 2:
            raise MaskError(
                f"'{name}' has {mask.ndim} dimensions; a pattern needs rows and columns"
            )
        matrix = mask.reshape(mask.shape[0], -1).cpu()
        if isinstance(wanted, Block):
            _check_blocks(name, matrix, wanted)
        else:
            _check_groups(name, matrix, *wanted, exactly)


def _check_groups(name: str, mask: Tensor, n: int, m: int, exactly: bool) -> None:
    rows, cols = mask.shape
    if cols % m:
        raise MaskError(
            f"'{name}' has {cols} weights a row, which is no multiple of {m}: {n}:{m} does not fit"
        )
    counts = mask.reshape(rows, cols // m, m).sum(2)
    wrong = torch.nonzero(counts != n if exactly else counts > n)
    if len(wrong):
        row, group = wrong[0].tolist()
        raise MaskError(
            f"'{name}' is not {n}:{m}: row {row}, group {group} (columns {group * m} to "
            f"{group * m + m - 1}) keeps {int(counts[row, group])} of {m}; {len(wrong)} of "
            f"{counts.numel()} groups are wrong"
        )


def _check_blocks(name: str, mask: Tensor, block: Block) -> None:
    rows, cols = mask.shape
    if rows % block.rows or cols % block.cols:
        raise MaskError(
            f"'{name}' is {rows} x {cols}, which tiles of {block.rows} x {block.cols} do not fill"
        )
    tiles = mask.reshape(rows // block.rows, block.rows, cols // block.cols, block.cols)
    counts = tiles.sum((1, 3))
    wrong = torch.nonzero((counts != 0) & (counts != block.numel))
    if len(wrong):
        band, at = wrong[0].tolist()
        raise MaskError(
            f"'{name}' is not {block}: the tile at row {band * block.rows}, column "
            f"{at * block.cols} keeps {int(counts[band, at])} of {block.numel}; {len(wrong)} of "
            f"{counts.numel()} tiles are wrong"
        )
