"""The input of a layer as a matrix: for each position what meets a row of the weight there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PrunableLayer

__all__ = ["positions"]

# elements of one unfolded piece: 64 MiB in float32
_PIECE = 1 << 24
_GOLDEN = 0.6180339887498949


def positions(
    layer: PrunableLayer, module: nn.Module, x: Tensor, most: int | None = None
) -> Iterator[Tensor]:
    """The input of one call as matrices of positions, in pieces of bounded memory.

    Linear: all leading dimensions are positions. Conv2d: the unfolded patches, one position per
    output pixel, columns ordered like ``weight.reshape(rows, -1)``.

    Parameters
    ----------
    most : take no more positions than this, evenly spread over the samples and within them; the
        same for every tensor of this shape. None: all.

    Yields
    ------
    (groups, positions, cols) in the input's own dtype, at least float32
    """
    if torch.finfo(x.dtype).bits < 32:
        x = x.to(torch.float32)  # a convolution's patches are not unfolded in half precision
    if isinstance(module, nn.Conv2d):
        yield from _patches(layer, module, x, most)
        return
    flat = x.reshape(-1, x.shape[-1])
    if most is not None and most < len(flat):
        flat = flat[_spread(len(flat), most, x.device)]
    for piece in torch.split(flat, max(1, _PIECE // max(1, layer.cols))):
        yield piece[None]


def _spread(total: int, most: int, device: torch.device) -> Tensor:
    """``most`` of the numbers below ``total``, one from each of as many equal stretches.

    Multiples of the golden ratio say where in its stretch, so that no period of the positions (the
    width of an image) is in step with them.
    """
    ends = torch.arange(most + 1, device=device) * total // most
    within = torch.remainder(torch.arange(1, most + 1, device=device).double() * _GOLDEN, 1.0)
    return ends[:-1] + (within * ends.diff()).long()


def _patches(
    layer: PrunableLayer, conv: nn.Conv2d, x: Tensor, most: int | None
) -> Iterator[Tensor]:
    images = x if x.ndim == 4 else x[None]
    height, width = _pair(conv.kernel_size)
    over, across = _pair(conv.dilation)
    if conv.padding == "same":
        # torch puts the odd one at the end
        down, right = over * (height - 1), across * (width - 1)
        pads = (right // 2, right - right // 2, down // 2, down - down // 2)
    elif conv.padding == "valid":
        pads = (0, 0, 0, 0)
    else:
        ph, pw = _pair(conv.padding)
        pads = (pw, pw, ph, ph)
    sh, sw = _pair(conv.stride)
    down = (images.shape[2] + pads[2] + pads[3] - over * (height - 1) - 1) // sh + 1
    right = (images.shape[3] + pads[0] + pads[1] - across * (width - 1) - 1) // sw + 1
    total = len(images) * down * right
    if most is not None and most < total:
        chosen = _spread(total, most, x.device)
        padded = F.pad(images, pads)
        for part in torch.split(chosen, max(1, _PIECE // max(1, layer.cols * layer.groups))):
            i, pixel = part // (down * right), part % (down * right)
            y = (pixel // right * sh)[:, None] + torch.arange(height, device=x.device) * over
            z = (pixel % right * sw)[:, None] + torch.arange(width, device=x.device) * across
            # (positions, height, width, channels)
            taken = padded.permute(0, 2, 3, 1)[i[:, None, None], y[:, :, None], z[:, None, :]]
            rows = taken.permute(0, 3, 1, 2).reshape(len(part), layer.groups, -1)
            yield rows.transpose(0, 1)
        return
    at_once = max(1, _PIECE // max(1, down * right * layer.cols * layer.groups))
    for images_now in torch.split(images, at_once):
        padded = F.pad(images_now, pads)
        unfolded = F.unfold(padded, (height, width), dilation=(over, across), stride=(sh, sw))
        n = unfolded.shape[0]
        by_group = unfolded.reshape(n, layer.groups, layer.cols, -1).permute(1, 0, 3, 2)
        yield by_group.reshape(layer.groups, -1, layer.cols)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, tuple):
        return int(value[0]), int(value[1])
    assert isinstance(value, int)
    return value, value
