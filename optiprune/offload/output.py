"""A model directory written block by block, in the layout that ``from_pretrained`` reads.

Shards wait in a folder beside their place until all are there; the index comes last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from optiprune.config.run_files import CONFIG, HISTORY, MASKS, SUMMARY
from optiprune.curvature.layers import PrunableLayer
from optiprune.durable import file_sha256, replacing, sync_folder
from optiprune.engine.steps import StepStore
from optiprune.masks.file import pack, unpack

from .checkpoint import INDEX, SINGLE
from .errors import ModelDirectoryError
from .skeleton import Skeleton

__all__ = ["PackedMasks", "ShardWriter", "require_apart"]

# bytes of tensors outside of the blocks that go into one shard
_SHARD = 2 << 30
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
_MARK = "shard"
# files that are no weights, while they wait
_OTHERS = "others"
# of a run that made the source
_RECORDS = (CONFIG, HISTORY, SUMMARY)


@dataclass(slots=True)
class ShardWriter:
    """Writes the tensors of a checkpoint again, those of pruned layers with their new values.

    Attributes
    ----------
    waiting : folder of all files until `move`
    steps : remembers which are written
    """

    skeleton: Skeleton
    source: Path
    waiting: Path
    steps: StepStore
    parts: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.waiting.mkdir(parents=True, exist_ok=True)
        self.parts = _parts(self.skeleton)

    def block(self, number: int, weights: Mapping[str, Tensor]) -> None:
        """The shard of a block; ``weights``: parameter of the skeleton -> pruned."""
        self._write(number, self.parts[number], weights)

    def complete(self) -> None:
        """Write what is left: shards of what lies outside of the blocks, files that are no weights,
        and the index. What was in the model's place is untouched."""
        for number in range(len(self.skeleton.blocks), len(self.parts)):
            self._write(number, self.parts[number], {})
        names: dict[str, str] = {}
        for number, part in enumerate(self.parts):
            names |= dict.fromkeys(part, self._final(number))
        tensors = self.skeleton.checkpoint.tensors
        total = sum(tensors[name].bytes for name in names)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
        others = self.waiting / _OTHERS
        others.mkdir(exist_ok=True)
        for path in sorted(self.source.iterdir()):
            weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
            if path.is_file() and not weights and path.name not in _RECORDS:
                with replacing(others / path.name) as file:
                    shutil.copyfile(path, file)
        with replacing(self.waiting / INDEX) as file:
            file.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def move(self, out: Path) -> None:
        """Put all that is complete into its place; the index, without which there is no model,
        last. A model that was there is taken away first."""
        (out / INDEX).unlink(missing_ok=True)
        for path in [out / SINGLE, *out.glob("model-*-of-*.safetensors")]:
            path.unlink(missing_ok=True)
        for number in range(len(self.parts)):
            (self.waiting / self._name(number)).replace(out / self._final(number))
        for path in sorted((self.waiting / _OTHERS).iterdir()):
            path.replace(out / path.name)
        (self.waiting / MASKS).replace(out / MASKS)
        sync_folder(out)
        (self.waiting / INDEX).replace(out / INDEX)
        sync_folder(out)
        shutil.rmtree(self.waiting, ignore_errors=True)

    def _final(self, number: int) -> str:
        return f"model-{number + 1:05}-of-{len(self.parts):05}.safetensors"

    def _write(self, number: int, part: list[str], weights: Mapping[str, Tensor]) -> None:
        path, key = self.waiting / self._name(number), f"{_MARK}/{number}"
        found = self.steps.get(key)
        if found is not None and path.is_file() and file_sha256(path) == found.record["sha256"]:
            return
        tensors = {name: self.skeleton.checkpoint.read(name) for name in part}
        for name, value in weights.items():
            place = self.skeleton.places[name]
            place.of(tensors[place.tensor]).copy_(value)
        with replacing(path) as file:
            save_file(tensors, file, {"format": "pt"})
        self.steps.put(key, {}, {"sha256": file_sha256(path)})

    @staticmethod
    def _name(number: int) -> str:
        return f"part-{number:05}.safetensors"


def require_apart(skeleton: Skeleton) -> None:
    """Raise `ModelDirectoryError` for blocks that share a weight, and cannot be written apart."""
    _parts(skeleton)


def _parts(skeleton: Skeleton) -> list[list[str]]:
    """Names of tensors by shard: each block's, then the others."""
    taken: dict[str, str] = {}
    parts = []
    for block in skeleton.blocks:
        own = dict.fromkeys(skeleton.places[n].tensor for n in skeleton.inside(block))
        for name in own:
            if name in taken:
                raise ModelDirectoryError(
                    f"'{block}' and '{taken[name]}' share the tensor {name!r}: blocks with common "
                    "weights cannot be pruned one by one; use optimize_masks"
                )
            taken[name] = block
        parts.append(list(own))
    rest: list[str] = []
    size = 0
    for name, stored in skeleton.checkpoint.tensors.items():
        if name in taken:
            continue
        if rest and size + stored.bytes > _SHARD:
            parts.append(rest)
            rest, size = [], 0
        rest.append(name)
        size += stored.bytes
    return [*parts, rest] if rest else parts


class PackedMasks(Mapping[str, Tensor]):
    """Masks by the parameters' names in the model as transformers makes it, eight weights a byte.

    A parameter of which only a part was pruned (one expert) keeps the rest.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._packed: dict[str, dict[str, Tensor]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, layer: PrunableLayer, mask: Tensor) -> None:
        owner = self._skeleton.owners[layer.parameter]
        self._packed.setdefault(owner.tensor, {})[layer.parameter] = pack(mask)
        self._shapes[layer.parameter] = layer.shape

    def __getitem__(self, name: str) -> Tensor:
        mask = torch.ones(self._skeleton.shapes[name], dtype=torch.bool)
        for parameter, packed in self._packed[name].items():
            part = unpack(packed, self._shapes[parameter])
            self._skeleton.owners[parameter].of(mask).copy_(part)
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)
