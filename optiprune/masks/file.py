"""The mask file: safetensors with bit-packed masks, apart from the weights.

Layout, format version 1. Tensors: ``mask:<name>``, uint8 of ceil(n / 8) bytes, the mask in
row-major order, eight weights a byte, the first in the highest bit (numpy.packbits), unused bits
0; and, where weights were re-fitted, ``values:<name>``, the kept values in that order. Metadata
(text): ``format``, ``format_version``, ``optiprune_version``, ``parameters`` (JSON list of name,
shape, kept, hash of the dense weights or null, SHA-256 of the tensors stored), ``config`` and
``metadata`` (JSON objects), ``sha256`` (`header_digest` of the others).

The file holds data only: reading it runs no code, whoever made it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from optiprune import __version__
from optiprune.durable import replacing

from .errors import MaskError, MaskFileError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Contents",
    "header",
    "header_digest",
    "read_file",
    "read_mask",
    "write_file",
]

FORMAT = "optiprune-masks"
FORMAT_VERSION = 1

# what a file may claim: sizes that torch can count, names that a message can hold
_LARGEST = 2**63
_LONGEST_NAME = 1000
_MOST_DIMENSIONS = 64


@runtime_checkable
class _PydanticModel(Protocol):
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Contents:
    """What a mask file holds.

    Attributes
    ----------
    masks : parameter name -> bool mask of the parameter's shape
    values : parameter name -> re-fitted weights of the parameter's shape, 0 where pruned
    hashes : parameter name -> hash of the dense weights
    config, metadata : as given on saving; empty when none was
    version : the optiprune version that wrote the file
    """

    masks: dict[str, Tensor]
    values: dict[str, Tensor]
    hashes: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    version: str = __version__


def write_file(
    path: str | os.PathLike[str],
    masks: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    hashes: Mapping[str, str],
    config: object = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a mask file; the old file of that name, if any, stays whole until the new one is.

    Raises `MaskError` for a config or metadata that JSON cannot hold, OSError if the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    parameters = []
    for name, mask in masks.items():
        packed = pack(mask)
        tensors[f"mask:{name}"] = packed
        record: dict[str, Any] = {
            "name": name,
            "shape": list(mask.shape),
            "kept": int(mask.sum()),
            "hash": hashes.get(name),
            "mask_sha256": _digest(packed),
        }
        if name in values:
            kept = values[name].detach().cpu()[mask.cpu()].contiguous()
            tensors[f"values:{name}"] = kept
            record["values_sha256"] = _digest(kept)
        parameters.append(record)
    text = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "optiprune_version": __version__,
        "parameters": json.dumps(parameters),
        "config": _json("config", config),
        "metadata": _json("metadata", metadata),
    }
    text["sha256"] = header_digest(text)
    with replacing(path) as part:
        part.write_bytes(save(tensors, metadata=text))


def read_file(path: str | os.PathLike[str]) -> Contents:
    """Read a mask file, every part of it checked.

    Raises
    ------
    FileNotFoundError
        No such file.
    MaskFileError
        Not a mask file, of a newer format, truncated or damaged; the message says where.
    """
    path = Path(path)
    if not path.is_file():
        if path.exists():
            raise MaskFileError(f"{path} is not a file")
        raise FileNotFoundError(f"no mask file {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            text = f.metadata() or {}
            records = header(path, text)
            stored = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    except SafetensorError as e:
        raise MaskFileError(f"{path} is damaged or is not a safetensors file: {e}") from e
    masks, values, hashes = {}, {}, {}
    for record in records:
        name = record["name"]
        masks[name] = read_mask(path, record, stored.pop(f"mask:{name}", None))
        if record["hash"] is not None:
            hashes[name] = record["hash"]
        if "values_sha256" in record:
            values[name] = _read_values(
                path, record, masks[name], stored.pop(f"values:{name}", None)
            )
    if stored:
        raise MaskFileError(f"{path} holds tensors that it does not list: {', '.join(stored)}")
    return Contents(
        masks,
        values,
        hashes,
        _object(path, text, "config"),
        _object(path, text, "metadata"),
        text.get("optiprune_version", "unknown"),
    )


def header_digest(text: Mapping[str, str]) -> str:
    """SHA-256 (hex) of the metadata but for the entry ``sha256``: JSON with sorted keys, ASCII."""
    rest = {k: v for k, v in text.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def pack(mask: Tensor) -> Tensor:
    """A bool tensor as bits, shape (ceil(n / 8),), uint8, in row-major order."""
    flat = mask.detach().cpu().contiguous().reshape(-1).numpy()
    return torch.from_numpy(np.packbits(flat))


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `pack`."""
    n = math.prod(shape)
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=n).astype(np.bool_)).reshape(shape)


def header(path: Path, text: Mapping[str, str]) -> list[dict[str, Any]]:
    """The list of parameters out of the metadata. Raises `MaskFileError`."""
    if text.get("format") != FORMAT:
        raise MaskFileError(
            f"{path} is a safetensors file, but not a mask file of optiprune "
            f"(its format is {text.get('format')!r}, not {FORMAT!r})"
        )
    version = text.get("format_version")
    if version != str(FORMAT_VERSION):
        raise MaskFileError(
            f"{path} has mask format {version!r:.80}, written by optiprune "
            f"{text.get('optiprune_version', 'unknown')!s:.80}; this version ({__version__}) reads "
            f"format {FORMAT_VERSION}: install one that matches"
        )
    if text.get("sha256") != header_digest(text):
        raise MaskFileError(f"{path} is damaged: the checksum of its header differs")
    records = _parse(path, text, "parameters")
    if not isinstance(records, list) or not records:
        raise MaskFileError(f"{path}: the list of parameters is empty or not a list")
    seen = set()
    for i, r in enumerate(records):
        if not (
            isinstance(r, dict)
            and isinstance(r.get("name"), str)
            and len(r["name"]) <= _LONGEST_NAME
            and isinstance(r.get("shape"), list)
            and all(type(s) is int and 0 <= s < _LARGEST for s in r["shape"])
            and len(r["shape"]) <= _MOST_DIMENSIONS
            and type(r.get("kept")) is int
            and 0 <= r["kept"] < _LARGEST
            and isinstance(r.get("hash", 0), (str, type(None)))
            and isinstance(r.get("mask_sha256"), str)
            and isinstance(r.get("values_sha256", ""), str)
        ):
            raise MaskFileError(f"{path}: entry {i} of the list of parameters is malformed")
        if r["name"] in seen:
            raise MaskFileError(f"{path}: parameter {r['name']!r} is listed twice")
        seen.add(r["name"])
    return records


def read_mask(path: Path, record: Mapping[str, Any], packed: Tensor | None) -> Tensor:
    """One mask out of its bits and its entry in the list. Raises `MaskFileError`."""
    name, shape = record["name"], tuple(record["shape"])
    if packed is None:
        raise MaskFileError(f"{path} lists parameter {name!r} but holds no mask for it")
    size = -(-math.prod(shape) // 8)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (size,):
        raise MaskFileError(
            f"{path}: the mask of {name!r}, of shape {shape}, must be {size} bytes, "
            f"is {tuple(packed.shape)} {packed.dtype}"
        )
    if _digest(packed) != record["mask_sha256"]:
        raise MaskFileError(f"{path}: the mask of {name!r} is damaged (its checksum differs)")
    mask = unpack(packed, shape)
    if int(mask.sum()) != record["kept"]:
        raise MaskFileError(
            f"{path}: the mask of {name!r} keeps {int(mask.sum())} weights, "
            f"the file says {record['kept']}"
        )
    return mask


def _read_values(
    path: Path, record: Mapping[str, Any], mask: Tensor, kept: Tensor | None
) -> Tensor:
    name = record["name"]
    if kept is None:
        raise MaskFileError(f"{path} lists values for {name!r} but holds none")
    if not kept.is_floating_point() or tuple(kept.shape) != (record["kept"],):
        raise MaskFileError(
            f"{path}: the values of {name!r} must be {record['kept']} floating-point numbers, "
            f"are {tuple(kept.shape)} {kept.dtype}"
        )
    if _digest(kept) != record["values_sha256"]:
        raise MaskFileError(f"{path}: the values of {name!r} are damaged (their checksum differs)")
    if not bool(torch.isfinite(kept).all()):
        raise MaskFileError(f"{path}: the values of {name!r} are not all finite")
    out = torch.zeros(mask.shape, dtype=kept.dtype)
    out[mask] = kept
    return out


def _digest(t: Tensor) -> str:
    return hashlib.sha256(t.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _json(what: str, value: object) -> str:
    if isinstance(value, _PydanticModel):
        value = value.model_dump(mode="json")
    elif isinstance(value, Mapping):
        value = dict(value)
    elif value is None:
        value = {}
    else:
        raise MaskError(f"{what} must be a mapping or a Config, got {type(value).__name__}")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise MaskError(f"{what} cannot be written as JSON: {e}") from e


def _parse(path: Path, text: Mapping[str, str], key: str) -> object:
    try:
        return json.loads(text[key])
    except KeyError:
        raise MaskFileError(f"{path} lacks the entry {key!r}") from None
    except (ValueError, RecursionError) as e:
        raise MaskFileError(f"{path}: the entry {key!r} is not JSON: {e}") from e


def _object(path: Path, text: Mapping[str, str], key: str) -> dict[str, Any]:
    value = _parse(path, text, key)
    if not isinstance(value, dict):
        raise MaskFileError(f"{path}: the entry {key!r} is not a JSON object")
    return value
