"""The layers whose weights take part, each seen as a matrix of output rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

__all__ = [
    "LayerError",
    "PrunableLayer",
    "chosen_names",
    "find_layers",
    "require_matches",
    "sparsity_by_pattern",
]

_TYPES: dict[str, type[nn.Module]] = {"Linear": nn.Linear, "Conv2d": nn.Conv2d}


class LayerError(ValueError):
    """The model has no layer to prune, or one that cannot be pruned; the message names it."""


@dataclass(frozen=True, slots=True)
class PrunableLayer:
    """A weight parameter and the modules that use it.

    Attributes
    ----------
    name : name of the first module that owns the weight
    parameter : name of the weight in ``model.named_parameters()``
    modules : every module that shares this weight (tied weights are one layer)
    module_names : their names
    shape : shape of the parameter
    groups : convolution groups; 1 for Linear
    """

    name: str
    parameter: str
    modules: tuple[nn.Module, ...]
    module_names: tuple[str, ...]
    shape: tuple[int, ...]
    groups: int

    @property
    def rows(self) -> int:
        """Output rows: output features or output channels."""
        return self.shape[0]

    @property
    def cols(self) -> int:
        """Weights in a row: input features, or in_channels / groups * kernel height * width."""
        n = 1
        for s in self.shape[1:]:
            n *= s
        return n

    @property
    def numel(self) -> int:
        return self.rows * self.cols


def find_layers(
    model: nn.Module,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    types: Sequence[str] = ("Linear", "Conv2d"),
) -> list[PrunableLayer]:
    """The Linear and Conv2d layers of a model, in the order of ``named_modules``.

    A weight shared by several such modules is one layer. A weight that another kind of module uses
    too (an embedding tied to the output head) is left out unless named in ``include`` literally,
    which is an error, since that use would not be seen.

    Raises
    ------
    LayerError
        No layer is left; an include or exclude pattern matches nothing; a weight that takes part
        is empty of meaning (NaN or infinite), reparametrised, not initialised yet, or tied to a
        module of another kind; a module that takes part computes its output in a way of its own
        (a subclass that overrides ``forward``).
    """
    kinds = tuple(_TYPES[t] for t in types)
    names: dict[int, str] = {id(p): n for n, p in model.named_parameters()}
    found: dict[int, list[tuple[str, nn.Linear | nn.Conv2d]]] = {}
    strangers: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=True):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            # a reparametrised module has no weight that it could share
            owned = module._parameters.get("weight")
            key = id(module if owned is None else owned)
            found.setdefault(key, []).append((name, module))
        else:
            for p in module.parameters(recurse=False):
                strangers[id(p)] = f"{name} ({type(module).__name__})"
    layers: list[PrunableLayer] = []
    candidates: list[str] = []
    for key, uses in found.items():
        used = [n for n, _ in uses]
        candidates += used
        if not any(isinstance(m, kinds) for _, m in uses):
            continue
        chosen = [n for n in used if any(fnmatchcase(n, p) for p in include)]
        if not chosen or any(fnmatchcase(n, p) for n in used for p in exclude):
            continue
        name, module = uses[0]
        if module._parameters.get("weight") is None:
            raise LayerError(
                f"layer '{name}' has no plain weight parameter (reparametrised, for example by "
                "torch.nn.utils.prune or weight_norm); make it permanent first, or exclude it"
            )
        if key in strangers:
            if any(p in used for p in include):
                raise LayerError(
                    f"layer '{name}' shares its weight with {strangers[key]}, whose use of it the "
                    "quadratic would not see; untie them first, or leave it out"
                )
            continue
        for use, of in uses:
            _require_own_forward(use, of)
        weight: Tensor = module.weight
        if isinstance(weight, UninitializedParameter):
            raise LayerError(
                f"layer '{name}' ({type(module).__name__}) has no weights yet; run the model once"
            )
        if weight.numel() == 0:
            continue
        if not weight.is_floating_point():
            raise LayerError(f"layer '{name}' has weights of {weight.dtype}; floats are needed")
        if not bool(torch.isfinite(weight).all()):
            bad = int((~torch.isfinite(weight)).sum())
            raise LayerError(
                f"layer '{name}' has {bad} weights that are NaN or infinite; repair or exclude it"
            )
        groups = module.groups if isinstance(module, nn.Conv2d) else 1
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            raise LayerError(
                f"layer '{name}' pads with {module.padding_mode!r}; only 'zeros' is understood; "
                "exclude it"
            )
        layers.append(
            PrunableLayer(
                name=name,
                parameter=names[key],
                modules=tuple(m for _, m in uses),
                module_names=tuple(used),
                shape=tuple(weight.shape),
                groups=groups,
            )
        )
    require_matches("include", (p for p in include if p != "*"), candidates)
    require_matches("exclude", exclude, candidates)
    if not layers:
        raise LayerError(
            f"no layer to prune: include {list(include)}, exclude {list(exclude)}, types "
            f"{list(types)}; the model has: {_some(candidates) or 'no Linear or Conv2d at all'}"
        )
    return layers


def _require_own_forward(name: str, module: nn.Linear | nn.Conv2d) -> None:
    """Raise `LayerError` unless what the module is called with is what its weight meets.

    A subclass may pad, scale or quantise inside its ``forward``: the input that hooks see is then
    not the one of the product, and nothing would tell. A forward replaced on the module itself is
    the same. Subclasses that leave it alone (a parametrised bias, torch's own variants) are fine.
    """
    plain = nn.Conv2d if isinstance(module, nn.Conv2d) else nn.Linear
    parts = ("forward", "_conv_forward") if plain is nn.Conv2d else ("forward",)
    for part in parts:
        if getattr(getattr(module, part), "__func__", None) is not getattr(plain, part):
            kind = f"{type(module).__module__}.{type(module).__qualname__}"
            ahead = ", its padding as an argument or in front" if plain is nn.Conv2d else ""
            raise LayerError(
                f"layer '{name}' ({kind}) has a {part} of its own, so that its weight may meet "
                "other inputs than it is called with; exclude it, or replace it by a plain "
                f"torch.nn.{plain.__name__} of the same weight{ahead}"
            )


def chosen_names(
    names: Sequence[str], *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[str]:
    """The names that an include pattern matches and no exclude pattern does.

    Raises `LayerError` for a pattern that matches nothing.
    """
    require_matches("include", (p for p in include if p != "*"), names)
    require_matches("exclude", exclude, names)
    return [
        n
        for n in names
        if any(fnmatchcase(n, p) for p in include) and not any(fnmatchcase(n, p) for p in exclude)
    ]


def require_matches(option: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raise `LayerError` for a pattern that matches none of the layer names: likely a typo.

    Parameters
    ----------
    option : where the patterns come from, for the message
    """
    for pattern in patterns:
        if any(fnmatchcase(n, pattern) for n in names):
            continue
        near = get_close_matches(pattern, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LayerError(
            f"{option} pattern {pattern!r} matches no layer; {hint}there are: {_some(names)}"
        )


def sparsity_by_pattern(layer: PrunableLayer, table: Mapping[str, float]) -> float | None:
    """The first value of ``table`` whose pattern matches one of the layer's names, or None."""
    for pattern, value in table.items():
        if any(fnmatchcase(n, pattern) for n in layer.module_names):
            return value
    return None


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
