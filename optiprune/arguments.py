"""What the entry points are called with, made into config, solver, samples and steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optiprune import solvers
from optiprune.config import Config
from optiprune.curvature import CalibrationSet
from optiprune.curvature.losses import LossFunction
from optiprune.durable import Journal, locked
from optiprune.engine.steps import JournalSteps, NoSteps, StepStore
from optiprune.solvers import Solver, Stop, TimeLimit

__all__ = ["kept_steps", "make_solver", "settings_of", "split_samples"]


def settings_of(
    config: Config | Mapping[str, Any] | None,
    sparsity: float | None,
    objective: str | None,
    refit: bool | None,
    pattern: str | None,
    solver: str | Mapping[str, Any] | Solver | None,
    loss: str | LossFunction | None,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    preset: str | None,
    seed: int | None,
) -> Config:
    """The config with the arguments written over it."""
    chosen = {} if preset is None else {"preset": preset}
    if isinstance(config, Config):
        base = config.replace(**chosen)
    else:
        base = Config.from_table({**(config or {}), **chosen})
    given = {
        "sparsity": sparsity,
        "objective": objective,
        "refit": refit,
        "pattern": pattern,
        "loss": loss if isinstance(loss, str) else None,
    }
    changes: dict[str, Any] = {"prune": {k: v for k, v in given.items() if v is not None}}
    layers = {"include": _names(include), "exclude": _names(exclude)}
    changes["layers"] = {k: v for k, v in layers.items() if v is not None}
    if seed is not None:
        changes["seed"] = seed
    if isinstance(solver, str):
        changes["solver"] = {"name": solver}
    elif isinstance(solver, Mapping):
        changes["solver"] = dict(solver)
    elif solver is not None:
        changes["solver"] = {"name": solver.name}
    return base.replace(**changes)


def _names(patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    if patterns is None:
        return None
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def make_solver(
    solver: str | Mapping[str, Any] | Solver | None, config: Config
) -> tuple[Solver, Stop | None]:
    table = dict(config.solver)
    limit = table.pop("time_limit", None)
    stop = None if limit is None else TimeLimit(float(limit))
    if solver is not None and not isinstance(solver, (str, Mapping)):
        return solver, stop
    return solvers.from_table(table), stop


def split_samples(
    device: torch.device, data: Iterable[Any], holdout: Iterable[Any] | None, config: Config
) -> tuple[CalibrationSet, CalibrationSet | None]:
    """Those to fit, and those to judge by."""
    whole = CalibrationSet.collect(data, device)
    split, draw = np.random.SeedSequence(config.seed, spawn_key=(1,)).spawn(2)
    train, held = whole, None
    if holdout is not None:
        held = CalibrationSet.collect(holdout, device)
    elif config.accept.holdout > 0:
        train, held = whole.split(config.accept.holdout, np.random.default_rng(split))
    if held is not None:
        held = held.sample(config.accept.samples, np.random.default_rng(draw))
    return train, held


@contextmanager
def kept_steps(steps: str | Path | StepStore | None) -> Iterator[StepStore]:
    if steps is None:
        yield NoSteps()
    elif isinstance(steps, str | Path):
        with locked(Path(steps)):
            yield JournalSteps(Journal(Path(steps)))
    else:
        yield steps
