"""Where the weights of a skeleton lie: in the tensors of a checkpoint, and in the plain model.

GPT-2's Conv1D is a Linear layer whose weight is stored the other way round; experts are slices of
a tensor, or tensors of their own under names that differ from family to family.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .checkpoint import Checkpoint, StoredTensor
from .errors import ModelDirectoryError

__all__ = ["Place", "find_places", "owner_of"]

_EXPERT = re.compile(r"^(.*)\.experts\.(\d+)\.(gate|up|down)_proj\.weight$")
# Mixtral's names: (gate, up, down), and of the module that holds the experts
_MIXTRAL = {"gate": "w1", "up": "w3", "down": "w2"}
# Granite's names of what stands behind the module that holds experts and router
_GRANITE = {
    ".experts.gate_up_proj": ".input_linear.weight",
    ".experts.down_proj": ".output_linear.weight",
    ".router.weight": ".router.layer.weight",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a tensor.

    Attributes
    ----------
    tensor : its name
    index : number in its first dimension; None: all of it
    rows : (first, last) of what the index leaves; None: all of them
    transposed : whether it is stored the other way round
    """

    tensor: str
    index: int | None = None
    rows: tuple[int, int] | None = None
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The part, a view."""
        view = tensor if self.index is None else tensor[self.index]
        view = view if self.rows is None else view[self.rows[0] : self.rows[1]]
        return view.t() if self.transposed else view


def owner_of(name: str, transposed: bool, hidden: int | None) -> Place:
    """Where a parameter of the skeleton lies in the model as transformers makes it.

    ``hidden``: width of an expert, for a parameter of one; else None.
    """
    found = _EXPERT.match(name)
    if hidden is None or found is None:
        return Place(name, transposed=transposed)
    before, number, kind = found.groups()
    if kind == "down":
        return Place(f"{before}.experts.down_proj", int(number))
    rows = (0, hidden) if kind == "gate" else (hidden, 2 * hidden)
    return Place(f"{before}.experts.gate_up_proj", int(number), rows)


def find_places(
    owners: Mapping[str, Place],
    shapes: Mapping[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    prefix: str,
) -> dict[str, Place]:
    """Parameter or buffer of the skeleton -> where the checkpoint has it.

    Parameters
    ----------
    owners : `owner_of` each
    shapes : of the skeleton
    prefix : of the model without its head, which some checkpoints leave out

    Raises
    ------
    ModelDirectoryError
        One is not there, or has another shape or no floating-point type.
    """
    places, missing = {}, []
    for name, owner in owners.items():
        place = next((p for p in _candidates(name, owner, prefix) if _holds(p, checkpoint)), None)
        if place is None:
            missing.append(name)
            continue
        _require_fits(name, place, checkpoint.tensors[place.tensor], shapes[name])
        places[name] = place
    if missing:
        have = ", ".join(list(checkpoint.tensors)[:6])
        raise ModelDirectoryError(
            f"the checkpoint has no weights for {len(missing)} parameters, such as "
            f"{', '.join(missing[:4])}; it has {have}, ... Weights are missing, or the "
            "family stores them under names that are not known here: use optimize_masks"
        )
    return places


def _candidates(name: str, owner: Place, prefix: str) -> Iterator[Place]:
    """Most usual first."""
    variants: list[Place] = [owner]
    found = _EXPERT.match(name)
    if owner.tensor != name and found is not None:  # an expert that transformers has fused
        before, number, kind = found.groups()
        outer = re.sub(r"\.mlp$", ".block_sparse_moe", before)
        mixtral = f"{outer}.experts.{number}.{_MIXTRAL[kind]}.weight"
        variants += [Place(name), Place(mixtral)]
    elif name == "lm_head.weight":
        variants.append(Place("embed_out.weight", transposed=owner.transposed))
    elif name.endswith(".mlp.gate.weight"):
        variants.append(Place(name.replace(".mlp.gate.", ".block_sparse_moe.gate.")))
    for ours, theirs in _GRANITE.items():
        if owner.tensor.endswith(f".block_sparse_moe{ours}"):
            variants.append(replace(owner, tensor=owner.tensor.removesuffix(ours) + theirs))
    for place in variants:
        yield place
        if prefix and place.tensor.startswith(f"{prefix}."):
            yield Place(place.tensor[len(prefix) + 1 :], place.index, place.rows, place.transposed)


def _holds(place: Place, checkpoint: Checkpoint) -> bool:
    return place.tensor in checkpoint.tensors


def _require_fits(name: str, place: Place, stored: StoredTensor, shape: Sequence[int]) -> None:
    if stored.dtype is None or not stored.dtype.is_floating_point:
        raise ModelDirectoryError(
            f"{place.tensor!r} is stored as {stored.dtype or 'a type that torch has not'}; weights "
            "must be float32, float16, bfloat16 or float64 (quantised models cannot be pruned)"
        )
    have = list(stored.shape)
    if place.index is not None:
        have = have[1:]
    if place.rows is not None:
        have[0] = place.rows[1] - place.rows[0]
    if place.transposed:
        have = have[::-1]
    if tuple(have) != tuple(shape):
        raise ModelDirectoryError(
            f"{place.tensor!r} has shape {stored.shape}, which does not hold '{name}' of shape "
            f"{tuple(shape)}; config.json and weights are of two models"
        )
