"""Checkpoints that are whole or not there, and that know which run they are of."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from optiprune.durable import replacing
from optiprune.training.errors import TrainingError

__all__ = ["check_run", "load_checkpoint", "save_checkpoint"]

_FORMAT = "optiprune training checkpoint"
_VERSION = 1
# what torch raises for a file that is none of its own, or is damaged
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def save_checkpoint(path: Path, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write it beside its place and then move it there: a process that is killed meanwhile leaves
    the checkpoint of before.

    Parameters
    ----------
    run : what tells this run from others; see `check_run`
    state : tensors, numbers, strings, and lists and dicts of them
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": _FORMAT, "version": _VERSION, "run": dict(run), "state": dict(state)}
    with replacing(path) as part:
        torch.save(content, part)


def load_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
    """(run, state) of a checkpoint, its tensors on ``device``.

    Raises
    ------
    TrainingError
        The file is no checkpoint, or of another version. Nothing in it is executed.
    OSError
        There is no such file.
    """
    with open(path, "rb") as file:
        return _read(path, file, device)


def _read(
    path: Path, file: BinaryIO, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with warnings.catch_warnings():  # of files that are none of ours
            warnings.simplefilter("ignore", UserWarning)
            table = torch.load(file, map_location=device, weights_only=True)
        if table["format"] != _FORMAT or table["version"] != _VERSION:
            raise TrainingError(
                f"{path} is of format {table['format']!r}, version {table['version']!r}; only "
                f"{_FORMAT!r}, version {_VERSION}, can be read"
            )
        return dict(table["run"]), dict(table["state"])
    except _DAMAGED as e:
        raise TrainingError(
            f"{path} is no training checkpoint ({type(e).__name__}): remove it, or name another"
        ) from e


def check_run(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise `TrainingError` if the checkpoint is of a run with other settings, data or weights."""
    other = [k for k in expected if found.get(k) != expected[k]]
    if other:
        k = other[0]
        raise TrainingError(
            f"{path} is of another run: {k} was {found.get(k)!r} there and is {expected[k]!r} "
            "here; remove it, or name another file"
        )
