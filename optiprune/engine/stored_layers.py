"""Layers of a reconstruction that are decided, and blocks that are tuned, among a run's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from optiprune.curvature.chain import ChainBlock
from optiprune.curvature.layers import PrunableLayer
from optiprune.masks.file import pack, unpack

from .reconstruction_result import LayerErrors, ReconstructionResult, RowBlockRecord
from .steps import StepStore
from .window_tuning import WindowReport

__all__ = ["StoredLayers"]

Found = tuple[Tensor, Tensor, LayerErrors, list[RowBlockRecord]]


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """One step for each layer, and one for each block of a chain that was tuned.

    Attributes
    ----------
    dtype : that values are kept in, which holds them without loss; None: their own
    """

    steps: StepStore
    dtype: torch.dtype | None = None

    def known(self, layers: Sequence[PrunableLayer]) -> list[str]:
        """Names of those that are decided."""
        return [layer.name for layer in layers if _key(layer) in self.steps]

    def put(self, layer: PrunableLayer, result: ReconstructionResult, first: int) -> None:
        """Keep the layer that was decided last; its records begin at number ``first``."""
        mask = result.masks[layer.parameter]
        arrays = {"mask": pack(mask)}
        if result.values is not None:
            arrays["values"] = self._short(result.values[layer.parameter][mask])
        record = {
            "errors": asdict(result.layers[-1]),
            "blocks": [asdict(r) for r in result.records[first:]],
        }
        self.steps.put(_key(layer), arrays, record)

    def get(self, layer: PrunableLayer, dense: Tensor) -> Found | None:
        """(mask, masked weights, errors, records) of a layer; on the device of its weights."""
        found = self.steps.get(_key(layer))
        if found is None:
            return None
        mask = unpack(found.arrays["mask"], layer.shape).to(dense.device)
        if "values" in found.arrays:
            values = torch.zeros_like(dense)
            values[mask] = found.arrays["values"].to(dense)
        else:
            values = torch.where(mask, dense, 0)
        return (
            mask,
            values,
            LayerErrors(**found.record["errors"]),
            [RowBlockRecord.from_dict(r) for r in found.record["blocks"]],
        )

    def put_window(
        self, block: ChainBlock, tuned: Mapping[str, Tensor], report: WindowReport
    ) -> None:
        kept = {k: self._short(v) for k, v in tuned.items()} if report.kept else {}
        self.steps.put(_window_key(block), kept, asdict(report))

    def window(
        self, block: ChainBlock, values: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], WindowReport] | None:
        """(parameter name -> tuned weights, what the tuning did), on the device of ``values``."""
        found = self.steps.get(_window_key(block))
        if found is None:
            return None
        tuned = {name: t.to(values[name]) for name, t in found.arrays.items()}
        return tuned, WindowReport(**found.record)

    def _short(self, values: Tensor) -> Tensor:
        return values if self.dtype is None else values.to(self.dtype)


def _key(layer: PrunableLayer) -> str:
    return f"layer/{layer.name}"


def _window_key(block: ChainBlock) -> str:
    return f"block/{block.name}"
