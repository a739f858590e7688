"""How long a model's layers take at other widths, measured on this machine.

Each layer is built at a few widths of what it reads and of what it makes, and timed in turns with
the layer as it is; between these widths the seconds are interpolated. What layers take is put into
tables. What is left of the model's own time (norms, activations, copies) grows with the bytes of
its results; layers whose input is joined from several groups grow with their multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from optiprune.structure import Product, Structure, total
from optiprune.structure.forms.candidates import Seen, inputs_seen
from optiprune.structure.modes import evaluating
from optiprune.structure.timing import Measure, alternated

from .widths import Budget, Latency, Menu

__all__ = ["Profile", "latency_budget", "profile_layers"]

# widths of a side of a layer that are measured
_POINTS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What `profile_layers` returns.

    Attributes
    ----------
    seconds : of one run of the whole model
    tables : of layers
    products : seconds of the rest, as sums over widths
    """

    seconds: float
    tables: tuple[Latency, ...]
    products: tuple[Product, ...]

    def predicted(self, menus: Sequence[Menu], widths: Sequence[int]) -> float:
        """Seconds at widths of the menus."""
        at = [m.widths.index(w) for m, w in zip(menus, widths, strict=True)]
        tables = sum(float(t.seconds[tuple(at[g] for g in t.groups)]) for t in self.tables)
        kept = {
            g: np.arange(m.widths[-1]) < w
            for g, (m, w) in enumerate(zip(menus, widths, strict=True))
        }
        return tables + total(self.products, kept)


def profile_layers(
    model: nn.Module,
    structure: Structure,
    menus: Sequence[Menu],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    repeats: int = 5,
    measure: Measure | None = None,
) -> Profile:
    """Time the layers of a model at widths of these menus, and the model itself.

    Parameters
    ----------
    args, kwargs : what the model is called with: the batch whose time counts
    repeats : measurements of each layer at each pair of widths
    measure : times two computations instead of `optiprune.structure.timing.alternated`
    """
    kwargs = kwargs or {}
    measure = measure or partial(alternated, repeats=repeats)
    sides = _sides(model, structure)

    def run() -> None:
        with torch.no_grad():
            model(*args, **kwargs)

    tables: list[Latency] = []
    tabled: set[str] = set()
    with evaluating(model):
        seen = inputs_seen(model, list(sides), args, kwargs)
        whole, _ = measure(run, run)
        tabled_s = 0.0
        for layer, (name, rows, columns) in sides.items():
            if not seen[layer]:
                continue
            table, alone = _table(layer, rows, columns, menus, seen[layer], measure)
            tables.append(table)
            tabled_s += alone
            tabled.add(name)
    if tabled_s > whole:  # measured at a slower moment than the model
        tables = [replace(t, seconds=t.seconds * (whole / tabled_s)) for t in tables]
    products = _rest(structure, tabled, max(whole - tabled_s, 0.0), whole)
    return Profile(whole, tuple(tables), products)


def latency_budget(profile: Profile, limit: float) -> Budget:
    """``limit`` : share of what the model takes now, in (0, 1]."""
    return Budget("latency", limit * profile.seconds, profile.products, profile.tables)


_Side = tuple[int, int]
"""Group's number, and how many rows or columns each of its units has."""


def _sides(
    model: nn.Module, structure: Structure
) -> dict[nn.Module, tuple[str, _Side | None, _Side | None]]:
    """Layers of which each side is one group's units alone, or fixed; at least one is a group's."""
    found: dict[tuple[str, int], list[tuple[int, Sequence[npt.NDArray[np.int64]]]]] = {}
    for g, group in enumerate(structure.groups):
        for m in group.members:
            found.setdefault((m.tensor, m.dim), []).append((g, m.indices))
    grouped = {c.weight for c in structure.columns}
    out: dict[nn.Module, tuple[str, _Side | None, _Side | None]] = {}
    for name, module in model.named_modules():
        weight = f"{name}.weight" if name else "weight"
        if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) or weight in grouped:
            continue
        sides: list[_Side | None] = []
        for dim in (0, 1):
            here = found.get((weight, dim), [])
            sizes = {len(i) for _, indices in here for i in indices}
            if not here:
                sides.append(None)
            elif len(here) == 1 and len(sizes) == 1:
                of, (count,) = here[0][0], sizes
                if count * len(here[0][1]) == module.weight.shape[dim]:
                    sides.append((of, count))
        if len(sides) == 2 and any(s is not None for s in sides):
            out[module] = (name, sides[0], sides[1])
    return out


def _table(
    layer: nn.Module,
    rows: _Side | None,
    columns: _Side | None,
    menus: Sequence[Menu],
    seen: Sequence[Seen],
    measure: Measure,
) -> tuple[Latency, float]:
    """Seconds of one layer over the menus of its groups, and as it is."""
    groups = tuple(dict.fromkeys(s[0] for s in (rows, columns) if s is not None))
    points = [_points(menus[g].widths) for g in groups]
    grid = np.zeros([len(p) for p in points])
    full = 0.0
    for at in np.ndindex(*grid.shape):
        widths = {g: points[i][at[i]] for i, g in enumerate(groups)}
        other = _resized(layer, rows, columns, widths)
        before, after = measure(partial(_run, layer, seen), partial(_run, other, seen))
        if not full:
            full = before
        # the layer as it is went along, so that a slow moment of the machine cancels
        grid[at] = full * after / before if before > 0 else after
    table = grid
    for i, g in enumerate(groups):  # linear in each width between the measured ones
        table = np.apply_along_axis(partial(_between, points[i], menus[g].widths), i, table)
    return Latency(groups, table), full


def _between(
    points: Sequence[int], widths: Sequence[int], seconds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.asarray(np.interp(widths, points, seconds))


def _points(widths: Sequence[int]) -> list[int]:
    at = np.unique(np.round(np.linspace(0, len(widths) - 1, _POINTS)).astype(int))
    return [widths[i] for i in at]


def _resized(
    layer: nn.Module, rows: _Side | None, columns: _Side | None, widths: Mapping[int, int]
) -> nn.Module:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    n = weight.shape[0] if rows is None else widths[rows[0]] * rows[1]
    m = weight.shape[1] if columns is None else widths[columns[0]] * columns[1]
    # on the meta device no numbers are drawn: torch's global random state is not ours
    options: dict[str, Any] = {
        "bias": layer.bias is not None,
        "device": "meta",
        "dtype": weight.dtype,
    }
    return _filled(_empty(layer, n, m, options), weight.device)


def _filled(layer: nn.Module, device: torch.device) -> nn.Module:
    layer = layer.to_empty(device=device)
    for p in layer.parameters():
        nn.init.constant_(p, 0.01)
    return layer


def _empty(layer: nn.Module, n: int, m: int, options: dict[str, Any]) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(m, n, **options)
    assert isinstance(layer, _ConvNd)
    groups = layer.groups
    if groups > 1:  # depthwise: as many as there are input channels left
        groups = n * layer.groups // layer.out_channels
    return type(layer)(
        m * groups,
        n,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=groups,
        padding_mode=layer.padding_mode,
        **options,
    )


def _run(layer: nn.Module, seen: Sequence[Seen]) -> None:
    """All calls of one run of the model, with as many channels as the layer reads."""
    with torch.no_grad():
        for s in seen:
            shape = list(s.meta.shape)
            if isinstance(layer, nn.Linear):
                shape[-1] = layer.in_features
            else:
                assert isinstance(layer, _ConvNd)
                shape[1 - layer.weight.ndim] = layer.in_channels
            layer(torch.ones(shape, dtype=s.meta.dtype, device=s.device))


def _rest(
    structure: Structure, tabled: set[str], seconds: float, whole: float
) -> tuple[Product, ...]:
    """The rest's seconds: by multiply-adds of layers without a table, and by bytes of results."""
    untabled = [p for p in structure.multiply_adds if p.what not in tabled]
    macs, everything = total(untabled, {}), total(structure.multiply_adds, {})
    for_macs = min(seconds, whole * macs / everything) if everything else 0.0
    values = [v.bytes for v in structure.values]
    size = total(values, {})
    out = [replace(p, coefficient=p.coefficient * for_macs / macs) for p in untabled if macs]
    out += [replace(p, coefficient=p.coefficient * (seconds - for_macs) / size) for p in values]
    return tuple(out)
