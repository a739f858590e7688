"""Which keyword arguments a dimod sampler takes, and what they mean."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from optiprune.solvers.errors import BackendMissingError, SolverOptionError

from .backend import load_backend

__all__ = ["check_parameters", "has_parameter", "load_sampler", "time_parameter"]

# the distribution that a module comes from, where the names differ
_DISTRIBUTIONS = {
    "dwave.samplers": "dwave-samplers",
    "dwave.system": "dwave-system",
    "dwave": "dwave-ocean-sdk",
    "neal": "dwave-samplers",
}
# parameters that the adapter sets, and what to use instead
_TAKEN = {
    "seed": "solve(..., seed=...)",
    "num_reads": "the option 'reads'",
    "initial_states": "solve(..., x0=...)",
    "interrupt_function": "stop=TimeLimit(...) or Ctrl-C",
    "energy_threshold": "stop=Target(...)",
}


def load_sampler(sampler: Any) -> Any:
    """The sampler given, or a fresh one from an import path ``"module:Class"``.

    Raises
    ------
    SolverOptionError
        If the path is malformed, names nothing, or the object has neither ``sample`` nor
        ``sample_cqm``.
    BackendMissingError
        If the module is not installed.
    """
    load_backend("dimod", "dimod", "dimod")
    if isinstance(sampler, str):
        sampler = _from_path(sampler)
    if not callable(getattr(sampler, "sample", None)) and not callable(
        getattr(sampler, "sample_cqm", None)
    ):
        raise SolverOptionError(
            f"{type(sampler).__name__} is no dimod sampler: it lacks 'sample' and 'sample_cqm'"
        )
    return sampler


def _from_path(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise SolverOptionError(
            f"sampler must be a dimod sampler or an import path 'module:Class' such as "
            f"'dwave.samplers:SimulatedAnnealingSampler', got {path!r}"
        )
    try:
        loaded = import_module(module)
    except ImportError as e:
        top = module.split(".")[0]
        wanted = _DISTRIBUTIONS.get(module, _DISTRIBUTIONS.get(top, top.replace("_", "-")))
        raise BackendMissingError(
            f"solver 'dimod' needs the module '{module}', which cannot be imported ({e}); "
            f"install it with: pip install {wanted}"
        ) from e
    found = getattr(loaded, name, None)
    if found is None:
        names = [n for n in dir(loaded) if n.endswith(("Sampler", "Solver"))]
        close = difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise SolverOptionError(
            f"module '{module}' has no {name!r}{hint}; samplers in it: {', '.join(names) or 'none'}"
        )
    try:
        return found() if isinstance(found, type) else found
    except TypeError as e:
        raise SolverOptionError(
            f"{path} cannot be made without arguments ({e}); make it yourself and pass the instance"
        ) from e


def has_parameter(sampler: Any, name: str) -> bool:
    """Whether the sampler takes a keyword: it lists it, or its method names it."""
    return name in _listed(sampler) or name in _signature(sampler)


def check_parameters(sampler: Any, parameters: Mapping[str, Any]) -> None:
    """Refuse what the sampler does not take: dimod samplers themselves would only warn.

    Raises `SolverOptionError`, which lists the valid parameters.
    """
    valid = sorted((set(_listed(sampler)) | set(_signature(sampler))) - set(_TAKEN))
    for key in parameters:
        if key in _TAKEN:
            raise SolverOptionError(f"parameter {key!r} is set by the adapter; use {_TAKEN[key]}")
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise SolverOptionError(
                f"sampler {type(sampler).__name__} has no parameter {key!r}{hint}; "
                f"it has: {', '.join(valid) or 'none'}"
            )


def time_parameter(sampler: Any) -> tuple[str, float, bool] | None:
    """``(name, its units in a second, whether it is per read)`` of the time limit, or None.

    ``time_limit`` is in seconds by dimod's conventions; ``timeout`` has no convention, and is used
    only where its meaning is known.
    """
    if has_parameter(sampler, "time_limit"):
        return "time_limit", 1.0, False
    if type(sampler).__name__ == "TabuSampler" and has_parameter(sampler, "timeout"):
        return "timeout", 1000.0, True
    return None


def _listed(sampler: Any) -> list[str]:
    return list(getattr(sampler, "parameters", None) or {})


def _signature(sampler: Any) -> list[str]:
    """Named keyword arguments of the sampling method, without the model and ``**kwargs``."""
    method = getattr(sampler, "sample", None) or sampler.sample_cqm
    try:
        parameters = list(inspect.signature(method).parameters.values())[1:]
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in named]
