"""The methods that are compared, by name: optiprune's own, baselines, and anyone's.

Two kinds are never put into one table: "mask" methods choose which weights stay and leave their
values alone; "weights" methods also move the values of kept weights, by themselves or by a refit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from optiprune.config import Config

from .baselines import LAYER_METHODS
from .baselines.whole_model import MODEL_METHODS

__all__ = ["DEFAULTS", "Kind", "Method", "MethodError", "all_methods", "choose", "own_method"]

Kind = Literal["mask", "weights"]
Source = Literal["optiprune", "layer", "model", "callable"]

# arguments of optimize_masks that a table of options may hold beside sections of the config
_ARGUMENTS = ("objective", "refit", "loss", "solver")

# optiprune's defaults, one for each kind: what is held against the best baseline of its kind
DEFAULTS: dict[Kind, str] = {"mask": "optiprune-mask", "weights": "optiprune"}

_OURS: dict[str, dict[str, Any]] = {
    "optiprune": {"refit": True},
    "optiprune-mask": {"refit": False},
    "optiprune-fast": {"preset": "fast", "refit": True},
    "optiprune-best": {"preset": "best", "refit": True},
    "optiprune-global": {"objective": "global", "refit": True},
    "optiprune-global-mask": {"objective": "global", "refit": False},
}


class MethodError(ValueError):
    """A method that does not exist, or options that it does not have."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to prune.

    Attributes
    ----------
    name : as in tables
    source : "optiprune"; "layer" and "model" for baselines layer by layer and of the whole model;
        "callable" for a function of one's own
    kind : "mask" or "weights"
    base : name in the registry of its source, or ``module:function``
    refit : least squares on the kept weights, in forward order, after the baseline
    takes_patterns : whether it can prune N:M
    reference : where it is from
    options : what the method is called with; part of what identifies a measurement
    """

    name: str
    source: Source
    kind: Kind
    base: str
    refit: bool = False
    takes_patterns: bool = True
    reference: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.source == "optiprune"

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def own_method(name: str, options: Mapping[str, Any]) -> Method:
    """`optiprune.optimize_masks` with options of one's own: a table ``[quality.method.NAME]``.

    Parameters
    ----------
    options : ``objective``, ``refit``, ``loss``, ``solver`` as of `optimize_masks`, and sections of
        the config; or, for a method that is not optiprune's, ``callable = "module:function"``,
        ``moves_weights`` (bool), ``takes_patterns`` (bool, default true) and ``reference``, the
        other keys being passed to it

    Raises
    ------
    MethodError, optiprune.config.ConfigError
        Options that do not exist, or have bad values.
    """
    table = dict(options)
    if "callable" in table:
        return _callable_method(name, table)
    # refit = true is the argument, refit = {damping = ...} the section
    arguments = {
        k: table.pop(k)
        for k in _ARGUMENTS
        if k in table and (k == "solver" or not isinstance(table[k], Mapping))
    }
    for key in ("seed", "threads"):
        if key in table:
            raise MethodError(f"method '{name}': {key} is set by the benchmark (--{key})")
    prune = dict(table.pop("prune", {}))
    for key in ("sparsity", "pattern"):
        if key in prune:
            raise MethodError(f"method '{name}': {key} is set by the benchmark (--densities)")
    solver = arguments.pop("solver", None)
    config = {**table, "prune": {**prune, **arguments}}
    if solver is not None:
        config["solver"] = {"name": solver} if isinstance(solver, str) else dict(solver)
    checked = Config.from_table(config)
    kind: Kind = "weights" if checked.prune.refit else "mask"
    given = {k: v for k, v in config.items() if v != {}}
    return Method(name, "optiprune", kind, "optimize_masks", options=given)


def _callable_method(name: str, table: dict[str, Any]) -> Method:
    target = table.pop("callable")
    if not isinstance(target, str) or target.count(":") != 1:
        raise MethodError(f"method '{name}': callable must be 'module:function', got {target!r}")
    moves = table.pop("moves_weights", None)
    if not isinstance(moves, bool):
        raise MethodError(
            f"method '{name}': moves_weights must say whether the function changes the values of "
            f"kept weights (true or false), got {moves!r}"
        )
    return Method(
        name,
        "callable",
        "weights" if moves else "mask",
        target,
        takes_patterns=bool(table.pop("takes_patterns", True)),
        reference=str(table.pop("reference", "")),
        options=table,
    )


def all_methods() -> dict[str, Method]:
    """optiprune's own and every baseline, each baseline with and without refit."""
    found = {name: own_method(name, options) for name, options in _OURS.items()}
    sources: list[tuple[Source, Mapping[str, Any]]] = [
        ("layer", LAYER_METHODS),
        ("model", MODEL_METHODS),
    ]
    for source, registry in sources:
        for base, baseline in registry.items():
            for refit in (False, True):
                name = f"{base}+refit" if refit else base
                if name in found:
                    raise MethodError(f"two baselines are called '{name}'")
                found[name] = Method(
                    name,
                    source,
                    "weights" if refit or baseline.moves_weights else "mask",
                    base,
                    refit=refit,
                    takes_patterns=source == "layer",
                    reference=baseline.reference,
                )
    return found


def choose(
    wanted: Sequence[str], tables: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Method]:
    """The methods asked for, without repetition, in the order asked for.

    Parameters
    ----------
    wanted : names, shell patterns (``wanda*``), and the groups "all", "ours", "baselines", "mask",
        "weights"
    tables : name -> options of one's own methods; they belong to "all", and to "ours" if they are
        optiprune's

    Raises
    ------
    MethodError
        A name that nothing matches, or a table that takes the name of another method.
    """
    known = all_methods()
    for name, options in (tables or {}).items():
        if name in known:
            raise MethodError(f"[quality.method.{name}]: '{name}' is there already; choose another")
        known[name] = own_method(name, options)
    groups: dict[str, list[Method]] = {
        "all": list(known.values()),
        "ours": [m for m in known.values() if m.ours],
        "baselines": [m for m in known.values() if m.source in ("layer", "model")],
        "mask": [m for m in known.values() if m.kind == "mask"],
        "weights": [m for m in known.values() if m.kind == "weights"],
    }
    chosen: dict[str, Method] = {}
    for name in wanted:
        found = groups.get(name) or [m for n, m in known.items() if fnmatchcase(n, name)]
        if not found:
            raise MethodError(
                f"no method {name!r}; there are: {', '.join(known)}; groups: {', '.join(groups)}"
            )
        chosen.update((m.name, m) for m in found)
    return list(chosen.values())
