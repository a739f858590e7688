"""Memory that a run block by block needs, by counting what it holds at its worst moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optiprune.config import Config
from optiprune.engine.window_tuning import tunes_windows, tuning_bytes

from .skeleton import Skeleton

__all__ = ["held_bytes"]

_FLOAT32, _FLOAT64 = 4, 8
# matrices of the size of a Gram matrix that the search of a layer with refit holds beside those of
# the calibration sets
_SEARCH = 12
# of the weights of a block: as read, pruned, first masks, and what is written
_COPIES = 4


def held_bytes(
    skeleton: Skeleton,
    layers: Mapping[str, tuple[int, int]],
    config: Config,
    tokens: int,
    length: int,
    sets: int,
    on_disk: bool,
) -> dict[str, int]:
    """Bytes by what they are for, all held at the same time.

    Parameters
    ----------
    layers : name -> (rows, columns) of those that are pruned
    tokens : of all calibration sets together
    length : of a sample
    sets : number of calibration sets
    on_disk : whether what runs between the blocks is
    """
    blocks = [_numel(skeleton, skeleton.inside(block)) for block in skeleton.blocks]
    both = config.curvature.inputs == "pruned"
    width = max((s[1] for s in layers.values()), default=0)
    hidden = _hidden(skeleton)
    chunk = min(tokens, config.curvature.chunk * length)
    held = {
        "one block": _FLOAT32 * _COPIES * max(blocks),
        "one chunk": 8 * _FLOAT32 * chunk * max(width, hidden),
    }
    if not on_disk:
        forms = 2 if both else 1
        held["between two blocks"] = (forms + 1) * _FLOAT32 * tokens * hidden
        if both:
            most = max(_inputs(skeleton, layers, block) for block in skeleton.blocks)
            held["inputs of a block's layers"] = _FLOAT32 * tokens * most
    square = max((s[1] ** 2 for s in layers.values()), default=0) * _FLOAT64
    moments = (3 if both else 1) * sets
    if not both:  # of all layers of a block, as far as they fit together
        moments += sets
    layer = (moments + _SEARCH) * square
    tuning = 0
    if tunes_windows(config):
        most = max(_outputs(layers, block) for block in skeleton.blocks)
        samples = max(config.window.batch, config.curvature.chunk)
        positions = min(tokens, samples * length)
        tuning = tuning_bytes(_FLOAT32 * max(blocks), _FLOAT32 * positions * most)
    held["the largest layer" if layer >= tuning else "tuning of a block"] = max(layer, tuning)
    # the weights outside of the blocks are gone by the time the first block is decided
    before = _FLOAT32 * _numel(skeleton, skeleton.outside()) - sum(held.values())
    if before > 0:
        held["weights outside of the blocks"] = before
    return held


def _outputs(layers: Mapping[str, tuple[int, int]], block: str) -> int:
    """Elements that a block's layers make of one token."""
    return sum(rows for name, (rows, _) in layers.items() if name.startswith(f"{block}."))


def _inputs(skeleton: Skeleton, layers: Mapping[str, tuple[int, int]], block: str) -> int:
    """Elements of one token that the distinct inputs of a block's layers have, at most."""
    experts = tuple(f"{at}." for at in skeleton.fused)
    own = (n for n in layers if n.startswith(f"{block}.") and not n.startswith(experts))
    return sum(layers[n][1] for n in own)


def _numel(skeleton: Skeleton, names: Iterable[str]) -> int:
    return sum(skeleton.tensor(name).numel() for name in names)


def _hidden(skeleton: Skeleton) -> int:
    config = skeleton.model.config
    return int(getattr(config, "hidden_size", getattr(config, "n_embd", 0)))
