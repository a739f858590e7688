"""Read a packed file, every part of it checked, and load it into a model all or none."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from optiprune import __version__
from optiprune.masks import MaskSet
from optiprune.masks.file import header_digest, unpack
from optiprune.masks.hashing import hash_tensor

from .checks import identity
from .errors import PackedFileError
from .packed import FORMAT, FORMAT_VERSION

__all__ = ["Packed", "load_packed", "read_packed"]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """What a packed file holds.

    Attributes
    ----------
    state : name -> tensor on the CPU, zeros put back: a state dict. Names of tied weights have one
        tensor.
    masks : under the names that they were saved with
    metadata : as given on saving
    """

    state: dict[str, Tensor]
    masks: MaskSet
    metadata: dict[str, Any]


def load_packed(path: str | Path, model: nn.Module) -> MaskSet:
    """Load a packed file into a model, all or none; the masks, which are on the model then.

    Raises
    ------
    FileNotFoundError
        No such file.
    PackedFileError
        As `read_packed`; or the file is for another model: names, a shape or a dtype differ, or
        weights that the model ties differ in the file. Nothing is written then.
    """
    packed = read_packed(path)
    own = model.state_dict()
    for name in own.keys() ^ packed.state.keys():
        here, there = ("model", packed.state) if name in own else ("file", own)
        close = difflib.get_close_matches(name, there, 1)
        hint = f"; the other one has {close[0]!r}" if close else ""
        raise PackedFileError(
            f"{path} is for another model than this {type(model).__name__}: only the {here} has "
            f"{name!r}{hint}"
        )
    tied: dict[object, str] = {}
    for name, t in own.items():
        new = packed.state[name]
        if t.is_meta:
            raise PackedFileError(
                f"{name!r} of the model is on the meta device; model.to_empty(device='cpu') first"
            )
        if t.shape != new.shape or t.dtype != new.dtype:
            raise PackedFileError(
                f"{name!r} is {tuple(new.shape)} {new.dtype} in {path}, and {tuple(t.shape)} "
                f"{t.dtype} in the model; a model of the file's dtype is needed (model.to(dtype))"
            )
        first = tied.setdefault(identity(t), name)
        if not _same_bits(packed.state[first], new):
            raise PackedFileError(
                f"{first!r} and {name!r} are one tied tensor in the model, and differ in {path}"
            )
    with torch.no_grad():
        for name, t in own.items():
            t.copy_(packed.state[name])
    return packed.masks


def read_packed(path: str | Path) -> Packed:
    """Read a packed file; nothing of it is used before its checksums were compared.

    Raises
    ------
    FileNotFoundError
        No such file.
    PackedFileError
        Not a packed file, of a newer format, truncated or damaged; the message says where.
    """
    path = Path(path)
    if not path.is_file():
        if path.exists():
            raise PackedFileError(f"{path} is not a file")
        raise FileNotFoundError(f"no packed file {path}")
    state: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            text = f.metadata() or {}
            records = _records(path, text)
            left = set(f.keys())
            for record in records:
                parts = {}
                for kind in ("dense",) if record["kept"] is None else ("mask", "values"):
                    key = f"{kind}:{record['names'][0]}"
                    if key not in left:
                        raise PackedFileError(f"{path} lists {key!r} but does not hold it")
                    left.discard(key)
                    parts[kind] = f.get_tensor(key)
                    if hash_tensor(parts[kind]) != record[f"{kind}_sha256"]:
                        raise PackedFileError(f"{path}: {key!r} is damaged: its checksum differs")
                t, mask = _tensor(path, record, parts)
                state |= dict.fromkeys(record["names"], t)
                if mask is not None:
                    masks |= dict.fromkeys(record["masked"], mask)
    except SafetensorError as e:
        raise PackedFileError(f"{path} is damaged or is not a safetensors file: {e}") from e
    if left:
        raise PackedFileError(f"{path} holds tensors that it does not list: {', '.join(left)}")
    if not masks:
        raise PackedFileError(f"{path} holds no mask")
    metadata = _parse(path, text, "metadata")
    if not isinstance(metadata, dict):
        raise PackedFileError(f"{path}: the entry 'metadata' is not a JSON object")
    return Packed(state, MaskSet(masks), metadata)


def _records(path: Path, text: Mapping[str, str]) -> list[dict[str, Any]]:
    if text.get("format") != FORMAT:
        raise PackedFileError(
            f"{path} is a safetensors file, but not a packed file of optiprune "
            f"(its format is {text.get('format')!r}, not {FORMAT!r})"
        )
    if text.get("format_version") != str(FORMAT_VERSION):
        raise PackedFileError(
            f"{path} has packed format {text.get('format_version')!r}, written by optiprune "
            f"{text.get('optiprune_version', 'unknown')}; this version ({__version__}) reads "
            f"format {FORMAT_VERSION}: install one that matches"
        )
    if text.get("sha256") != header_digest(text):
        raise PackedFileError(f"{path} is damaged: the checksum of its header differs")
    records = _parse(path, text, "tensors")
    if not isinstance(records, list):
        raise PackedFileError(f"{path}: the list of tensors is not a list")
    seen: set[str] = set()
    for i, r in enumerate(records):
        if not _well_formed(r):
            raise PackedFileError(f"{path}: entry {i} of the list of tensors is malformed")
        for name in r["names"]:
            if name in seen:
                raise PackedFileError(f"{path}: {name!r} is listed twice")
            seen.add(name)
    return records


def _well_formed(r: object) -> bool:
    if not isinstance(r, dict) or not _texts(r.get("names")):
        return False
    shape = r.get("shape")
    if not isinstance(shape, list) or not all(type(s) is int and s >= 0 for s in shape):
        return False
    if r.get("kept", "") is None:
        return isinstance(r.get("dense_sha256"), str)
    return (
        type(r.get("kept")) is int
        and _texts(r.get("masked"))
        and set(r["masked"]) <= set(r["names"])
        and isinstance(r.get("mask_sha256"), str)
        and isinstance(r.get("values_sha256"), str)
    )


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _tensor(
    path: Path, record: Mapping[str, Any], parts: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """A tensor and its mask, if it has one."""
    name, shape = record["names"][0], tuple(record["shape"])
    if "dense" in parts:
        if tuple(parts["dense"].shape) != shape:
            raise PackedFileError(
                f"{path}: {name!r} has shape {tuple(parts['dense'].shape)}, the list says {shape}"
            )
        return parts["dense"], None
    packed, values = parts["mask"], parts["values"]
    # compared before anything of that size is made
    size = -(-math.prod(shape) // 8)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (size,):
        raise PackedFileError(
            f"{path}: the mask of {name!r}, of shape {shape}, must be {size} bytes, is "
            f"{tuple(packed.shape)} {packed.dtype}"
        )
    try:
        mask = unpack(packed, shape)
    except (RuntimeError, TypeError, OverflowError):  # (0, 2**80), say: no bytes, and no shape
        raise PackedFileError(f"{path}: {name!r} cannot have shape {shape}") from None
    kept = int(mask.sum())
    if kept != record["kept"] or tuple(values.shape) != (kept,) or not values.is_floating_point():
        raise PackedFileError(
            f"{path}: the mask of {name!r} keeps {kept} weights, the list says {record['kept']}, "
            f"and the values are {tuple(values.shape)} {values.dtype}"
        )
    if not bool(torch.isfinite(values).all()):
        raise PackedFileError(f"{path}: the values of {name!r} are not all finite")
    out = torch.zeros(shape, dtype=values.dtype)
    out[mask] = values
    return out, mask


def _parse(path: Path, text: Mapping[str, str], key: str) -> object:
    try:
        return json.loads(text[key])
    except KeyError:
        raise PackedFileError(f"{path} lacks the entry {key!r}") from None
    except (ValueError, RecursionError) as e:
        raise PackedFileError(f"{path}: the entry {key!r} is not JSON: {e}") from e


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a is b or hash_tensor(a) == hash_tensor(b)
