"""A weight with a low-rank update that its mask lets through: what one adapter computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MaskedLowRank"]


class MaskedLowRank(nn.Module):
    """``weight + mask * (scale * b @ a)``, as a parametrization of torch.nn.utils.parametrize.

    A weight of more than two dimensions is seen as a matrix of its first dimension against the
    others. The product is taken in the adapter's own precision, autocast or not, and rounded to
    the weight's dtype before it is added: so the forward pass and the merged weight are the same
    numbers, bit for bit.

    Parameters
    ----------
    mask : bool, shape of the weight
    rank : of the update
    scale : factor of the update, alpha / rank
    dtype : of a and b
    generator : for a, which is drawn as `nn.Linear` draws its weight (Kaiming uniform); b is zero,
        so that training begins at the model as it is
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        rank: int,
        scale: float,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        rows, columns = mask.shape[0], mask[0].numel()
        bound = 1 / math.sqrt(columns)
        # drawn on the CPU: the same numbers on every device
        a = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(device=mask.device, dtype=dtype))
        self.b = nn.Parameter(torch.zeros(rows, rank, device=mask.device, dtype=dtype))
        self.scale = scale
        # the masks have a file of their own
        self.register_buffer("mask", mask.clone(), persistent=False)

    def update(self) -> Tensor:
        """What is added to the weight: its shape, the adapter's dtype, 0 where pruned."""
        with torch.autocast(self.a.device.type, enabled=False):
            product = (self.b @ self.a).mul(self.scale).reshape(self.mask.shape)
        return product.masked_fill(~self.mask, 0.0)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.update().to(weight.dtype)
