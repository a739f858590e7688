"""What was chosen, on disk: a run that was killed in fine-tuning does not choose again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from optiprune.curvature.inputs import device_of
from optiprune.masks import MaskSet
from optiprune.structure import Plan, shrink

from .choice import Chosen
from .loops.checkpoint import check_run, load_checkpoint, save_checkpoint

__all__ = ["load_chosen", "save_chosen"]


def save_chosen(path: Path, run: Mapping[str, Any], chosen: Chosen) -> None:
    """Parameters as for `save_checkpoint`."""
    save_checkpoint(
        path,
        run,
        {
            "plans": [p.to_json() for p in chosen.plans],
            "masks": None if chosen.masks is None else dict(chosen.masks),
            "left": chosen.left,
            "macs": None if chosen.macs is None else list(chosen.macs),
            "decided_by": chosen.decided_by,
            "model": chosen.model.state_dict(),
        },
    )


def load_chosen(
    path: Path,
    run: Mapping[str, Any],
    model: nn.Module,
    example: tuple[tuple[Any, ...], Mapping[str, Any]],
) -> Chosen:
    """What `save_chosen` wrote, made again from the model that it was chosen from.

    Raises
    ------
    TrainingError
        The file is no checkpoint, or of another run.
    """
    found, state = load_checkpoint(path, device_of(model))
    check_run(path, found, run)
    work = copy.deepcopy(model)
    plans = tuple(Plan.from_json(text) for text in state["plans"])
    for plan in plans:
        work = shrink(work, plan, example[0], example[1], latency_repeats=0).model
    work.load_state_dict(state["model"])
    macs = state["macs"]
    return Chosen(
        work,
        plans,
        None if state["masks"] is None else MaskSet(state["masks"]),
        state["left"],
        None if macs is None else (macs[0], macs[1]),
        state["decided_by"],
    )
