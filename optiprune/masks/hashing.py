"""Hashes of weights: how a mask file knows the dense model that it was made for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .binding import all_parameters
from .errors import MaskError

__all__ = ["hash_tensor", "weight_hashes"]


def hash_tensor(t: Tensor) -> str:
    """SHA-256 (hex) of a tensor's dtype, shape and bytes in row-major order.

    Device and memory layout play no part; the dtype does, so a model cast to another precision is
    another model. Bit-exact: 0.0 and -0.0 differ. Raises `MaskError` for a meta tensor.
    """
    if t.is_meta:
        raise MaskError("a tensor on the meta device holds no data to hash")
    digest = hashlib.sha256(f"{t.dtype} {tuple(t.shape)} ".encode())
    flat = t.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weight_hashes(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """`hash_tensor` of the named parameters.

    Take it while the model is dense. Of a parameter under torch.nn.utils.prune the dense
    ``<name>_orig`` is hashed. Raises `MaskError` for a parameter that the model does not have.
    """
    parameters = all_parameters(model)
    out = {}
    for name in names:
        parameter = parameters.get(name, parameters.get(f"{name}_orig"))
        if parameter is None:
            raise MaskError(f"{type(model).__name__} has no parameter {name!r}")
        out[name] = hash_tensor(parameter)
    return out
