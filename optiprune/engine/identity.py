"""What tells one run from another: steps of the one are not those of the other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from optiprune import __version__
from optiprune.config import Config
from optiprune.curvature import CalibrationSet
from optiprune.curvature.data import tree_leaves, tree_signature
from optiprune.curvature.inputs import device_of
from optiprune.masks.hashing import hash_tensor
from optiprune.solvers import Solver

from .crew import works_on
from .steps import StepStore

__all__ = [
    "RunMismatchError",
    "check_identity",
    "data_hash",
    "identity_of",
    "options_of",
    "state_hash",
    "versions",
    "without_addresses",
]

_KEY = "run"
# what decides about the last bit of a sum
_LIBRARIES = ("torch", "numpy", "scipy", "numba")


class RunMismatchError(ValueError):
    """Steps of a run with another model, other data, options or versions."""


def data_hash(data: CalibrationSet) -> str:
    """SHA-256 of all inputs and targets, and of their names where they have such."""
    digest = hashlib.sha256()
    for batch in data.batches(4096):
        for tree in (batch.inputs, batch.targets):
            digest.update(without_addresses(repr(tree_signature(tree))).encode())
            for value in tree_leaves(tree):
                digest.update(hash_tensor(value).encode())
    return digest.hexdigest()


def state_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {hash_tensor(value)} ".encode())
    return digest.hexdigest()


def identity_of(
    model: nn.Module, data: Mapping[str, CalibrationSet | None], options: Mapping[str, Any]
) -> dict[str, str]:
    """All that a run's steps follow from.

    Parameters
    ----------
    data : by what it is for
    options : text by name
    """
    table = {f"option {k}": str(v) for k, v in options.items()}
    table["the model"] = hashlib.sha256(without_addresses(repr(model)).encode()).hexdigest()
    table["the model's weights"] = state_hash(model)
    table["the device"] = device_of(model).type
    for name, samples in data.items():
        table[f"the {name} data"] = "none" if samples is None else data_hash(samples)
    return table | versions()


def versions(*more: str) -> dict[str, str]:
    """Of the packages that decide about the last bit of a sum, and of others by their names."""
    return {"optiprune": __version__} | {name: version(name) for name in (*_LIBRARIES, *more)}


def options_of(config: Config, solver: Solver, device: torch.device) -> dict[str, str]:
    """Text by name: all of a run's options that decide about its masks.

    ``device``: of the model.
    """
    # who does the work, and how many, changes nothing
    table = config.model_dump(mode="json", exclude={"workers", "executor"})
    options = {k: json.dumps(v, sort_keys=True) for k, v in table.items()} | {
        "solver that runs": without_addresses(repr(solver)),
        "threads that run": str(torch.get_num_threads()),
    }
    if works_on(config, device) != device.type:
        options["device that decides"] = works_on(config, device)
    return options


def without_addresses(text: str) -> str:
    """A representation as another process would give it."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def check_identity(steps: StepStore, identity: Mapping[str, str]) -> None:
    """Keep what the run follows from, or compare it with what was kept.

    Raises
    ------
    RunMismatchError
        They differ; the message says in what.
    """
    found = steps.get(_KEY)
    if found is None:
        steps.put(_KEY, {}, identity)
        return
    then = found.record
    for name in (*identity, *then):
        if then.get(name) != identity.get(name):
            raise RunMismatchError(
                f"the steps there are of another run: {name} was {then.get(name)} and is "
                f"{identity.get(name)}; give what was given then, or another folder"
            )
