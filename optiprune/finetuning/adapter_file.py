"""The file of low-rank adapters: safetensors, data only.

Tensors ``a:<name>`` and ``b:<name>``; metadata ``format``, ``rank``, ``alpha`` and ``masks`` (JSON,
parameter name -> `hash_tensor` of its mask).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from optiprune.durable import replacing
from optiprune.masks.hashing import hash_tensor

from .errors import FineTuningError
from .low_rank import MaskedLowRank

__all__ = ["read_adapters", "write_adapters"]

_FORMAT = "optiprune-lora-1"


def write_adapters(
    path: str | Path, adapters: Mapping[str, MaskedLowRank], rank: int, alpha: float
) -> None:
    """Write a file, whole or not at all."""
    tensors = {}
    for name, adapter in adapters.items():
        tensors[f"a:{name}"] = adapter.a.detach().cpu().contiguous()
        tensors[f"b:{name}"] = adapter.b.detach().cpu().contiguous()
    text = {
        "format": _FORMAT,
        "rank": str(rank),
        "alpha": repr(alpha),
        "masks": json.dumps({n: hash_tensor(a.mask) for n, a in adapters.items()}),
    }
    with replacing(path) as part:
        part.write_bytes(save(tensors, metadata=text))


def read_adapters(
    path: str | Path, adapters: Mapping[str, MaskedLowRank], rank: int, alpha: float
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each of the given adapters; raises `FineTuningError` where the file is not theirs.

    Raises FileNotFoundError if there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no adapter file {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            text = f.metadata() or {}
            stored = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    except SafetensorError as e:
        raise FineTuningError(f"{path} is damaged or is not a safetensors file: {e}") from e
    if text.get("format") != _FORMAT:
        raise FineTuningError(
            f"{path} is no file of adapters of optiprune (its format is {text.get('format')!r}, "
            f"not {_FORMAT!r})"
        )
    found = {k: _number(text.get(k, "")) for k in ("rank", "alpha")}
    if found != {"rank": float(rank), "alpha": alpha}:
        raise FineTuningError(
            f"{path} holds adapters of rank {text.get('rank')} and alpha {text.get('alpha')}, "
            f"these are of rank {rank} and alpha {alpha}"
        )
    hashes = _hashes(path, text)
    odd = sorted(hashes.keys() ^ adapters.keys())
    if odd:
        where = "file" if odd[0] in hashes else "model"
        raise FineTuningError(f"{path} is for other parameters: only the {where} adapts {odd[0]!r}")
    out = {}
    for name, adapter in adapters.items():
        if hashes[name] != hash_tensor(adapter.mask):
            raise FineTuningError(f"{path} was saved with another mask of {name!r}")
        out[name] = (
            _read(path, stored, f"a:{name}", adapter.a),
            _read(path, stored, f"b:{name}", adapter.b),
        )
    return out


def _read(path: Path, stored: Mapping[str, Tensor], key: str, like: Tensor) -> Tensor:
    t = stored.get(key)
    if t is None or t.shape != like.shape or not t.is_floating_point():
        found = "missing" if t is None else f"{tuple(t.shape)} {t.dtype}"
        raise FineTuningError(f"{path}: {key!r} must have shape {tuple(like.shape)}, is {found}")
    if not bool(torch.isfinite(t).all()):
        raise FineTuningError(f"{path}: {key!r} holds NaN or infinity")
    return t


def _hashes(path: Path, text: Mapping[str, str]) -> dict[str, str]:
    try:
        value = json.loads(text.get("masks", ""))
    except (ValueError, RecursionError) as e:
        raise FineTuningError(f"{path}: the entry 'masks' is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise FineTuningError(f"{path}: the entry 'masks' is not a JSON object")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
