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
from .packed import FORMAT, FORMAT_VERSION, parts_digest

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
                name, parts = record.names[0], []
                for kind in ("dense",) if record.shape is None else ("mask", "values"):
                    key = f"{kind}:{name}"
                    if key not in left:
                        raise PackedFileError(f"{path} lists {key!r} but does not hold it")
                    left.discard(key)
                    parts.append(f.get_tensor(key))
                if parts_digest(parts) != record.digest:
                    raise PackedFileError(f"{path}: {name!r} is damaged: its checksum differs")
                if record.shape is None:
                    state |= dict.fromkeys(record.names, parts[0])
                    continue
                t, mask = _unpacked(path, name, record.shape, *parts)
                state |= dict.fromkeys(record.names, t)
                masks |= dict.fromkeys(record.masked, mask)
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


@dataclass(frozen=True, slots=True)
class _Record:
    """One tensor of the list; ``shape`` is None for a dense one."""

    names: list[str]
    digest: str
    shape: tuple[int, ...] | None = None
    masked: tuple[str, ...] = ()


def _records(path: Path, text: Mapping[str, str]) -> list[_Record]:
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
    entries = _parse(path, text, "tensors")
    if not isinstance(entries, list):
        raise PackedFileError(f"{path}: the list of tensors is not a list")
    records = []
    seen: set[str] = set()
    for i, entry in enumerate(entries):
        record = _record(entry)
        if record is None:
            raise PackedFileError(f"{path}: entry {i} of the list of tensors is malformed")
        for name in record.names:
            if name in seen:
                raise PackedFileError(f"{path}: {name!r} is listed twice")
            seen.add(name)
        records.append(record)
    return records


def _record(entry: object) -> _Record | None:
    """None for what is no entry of the list."""
    if not isinstance(entry, list) or len(entry) not in (2, 4):
        return None
    names, digest = entry[:2]
    if not _texts(names) or not isinstance(digest, str):
        return None
    if len(entry) == 2:
        return _Record(names, digest)
    shape, masked = entry[2:]
    if not isinstance(shape, list) or not all(type(s) is int and s >= 0 for s in shape):
        return None
    if not _texts(masked) or not set(masked) <= set(names):
        return None
    return _Record(names, digest, tuple(shape), tuple(masked))


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _unpacked(
    path: Path, name: str, shape: tuple[int, ...], packed: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """A tensor with its zeros, and its mask."""
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
    if tuple(values.shape) != (kept,) or not values.is_floating_point():
        raise PackedFileError(
            f"{path}: the mask of {name!r} keeps {kept} weights, and the values are "
            f"{tuple(values.shape)} {values.dtype}"
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
