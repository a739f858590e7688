"""Optimizers and schedulers of torch, by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optiprune.training.errors import TrainingError

__all__ = ["make_optimizer", "make_scheduler"]

# what schedulers call the length of the training
_LENGTHS = ("T_max", "total_steps", "total_iters")


def make_optimizer(table: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer of ``torch.optim`` that the table names, with its other entries as options.

    Raises
    ------
    TrainingError
        There is none of that name, or it does not take an option.
    """
    kind = _named(table, torch.optim, Optimizer, "optimizer")
    if kind is torch.optim.LBFGS:
        raise TrainingError("optimizer LBFGS needs a closure: the loop takes one step a batch")
    options = {k: v for k, v in table.items() if k != "name"}
    _check_options("optimizer", kind, options)
    try:
        optimizer: Optimizer = kind([p for p in parameters if p.requires_grad], **options)
    except (TypeError, ValueError) as e:
        raise TrainingError(f"optimizer {dict(table)}: {e}") from e
    return optimizer


def make_scheduler(
    table: Mapping[str, Any], optimizer: Optimizer, length: int
) -> LRScheduler | ReduceLROnPlateau | None:
    """The scheduler of ``torch.optim.lr_scheduler`` that the table names; None for an empty one.

    Parameters
    ----------
    length : of the training in its steps: T_max, total_steps or total_iters where not given

    Raises as `make_optimizer` does.
    """
    if not table:
        return None
    kind = _named(table, lr_scheduler, (LRScheduler, ReduceLROnPlateau), "scheduler")
    options = {k: v for k, v in table.items() if k != "name"}
    known = inspect.signature(kind).parameters
    for name in _LENGTHS:
        if name in known and name not in options:
            options[name] = max(length, 1)
    _check_options("scheduler", kind, options)
    try:
        scheduler: LRScheduler | ReduceLROnPlateau = kind(optimizer, **options)
    except (TypeError, ValueError) as e:
        raise TrainingError(f"scheduler {dict(table)}: {e}") from e
    return scheduler


def _named(table: Mapping[str, Any], module: Any, base: Any, what: str) -> Any:
    known = sorted(
        n
        for n, v in vars(module).items()
        if inspect.isclass(v)
        and issubclass(v, base)
        and n[:1] != "_"
        and v not in (Optimizer, LRScheduler)
    )
    name = table.get("name")
    if name not in known:
        raise TrainingError(f"{what}.name = {name!r}: there are {', '.join(known)}")
    return getattr(module, str(name))


def _check_options(what: str, kind: Any, options: Mapping[str, Any]) -> None:
    known = [p for p in inspect.signature(kind).parameters if p not in ("params", "optimizer")]
    unknown = [k for k in options if k not in known]
    if unknown:
        raise TrainingError(
            f"{what} {kind.__name__} has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
