"""What goes into a layer, seen by forward hooks on its modules."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import chain, islice
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from .data import CalibrationError, CalibrationSet, Tree
from .layers import PrunableLayer
from .runner import run_model, untouched

__all__ = [
    "CallKey",
    "Feed",
    "RunEndedError",
    "Visit",
    "forward_order",
    "require_finite_moments",
    "require_run",
    "run_with_taps",
    "tapped",
]

CallKey: TypeAlias = tuple[str, int]
"""(module name, how many times it ran before in this forward)."""
Visit: TypeAlias = Callable[[PrunableLayer, nn.Module, CallKey, Tensor], None]


class Feed(Protocol):
    """Shows a visitor the inputs of some layers: by running them, or from what was kept."""

    def __call__(self, visit: Visit, *, until_all: bool = False) -> None: ...


class RunEndedError(Exception):
    """Raised in a hook to end a forward of which nothing more is needed."""


def run_with_taps(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    inputs: Tree,
    visit: Visit,
    *,
    until_all: bool = False,
) -> None:
    """Run the model once, with these weights, under `tapped`."""
    tapped(layers, lambda: run_model(model, weights, inputs), visit, until_all=until_all)


def tapped(
    layers: Sequence[PrunableLayer],
    forward: Callable[[], object],
    visit: Visit,
    *,
    until_all: bool = False,
) -> None:
    """Call ``forward`` and show ``visit`` the input of every module of ``layers`` as it runs.

    The tensor that ``visit`` gets may be overwritten by the model afterwards (in-place operations):
    it must be used at once or copied.

    Parameters
    ----------
    until_all : end the forward as soon as every module of ``layers`` was called

    Raises
    ------
    CalibrationError
        If an input is no floating-point tensor. Values that are not finite are not looked for: what
        is summed up from them shows them for less.
    """
    counts: dict[str, int] = {}
    modules = sum(len(layer.modules) for layer in layers)

    def tap(layer: PrunableLayer, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            x = args[0] if args else kwargs.get("input")
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise CalibrationError(
                    f"layer '{name}' was called with {type(x).__name__}, not a tensor of floats"
                )
            nth = counts.get(name, 0)
            counts[name] = nth + 1
            visit(layer, module, (name, nth), x.detach())
            if until_all and len(counts) == modules:
                raise RunEndedError

        return hook

    handles = [
        module.register_forward_pre_hook(tap(layer, name), with_kwargs=True)
        for layer in layers
        for name, module in zip(layer.module_names, layer.modules, strict=True)
    ]
    try:
        forward()
    except RunEndedError:
        pass
    finally:
        for handle in handles:
            handle.remove()


def forward_order(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    chunk: int = 256,
) -> list[PrunableLayer]:
    """The layers in the order in which they first run.

    One sample is enough for most models. Where layers are missing (a model that chooses its path by
    the data), more data are run, ``chunk`` samples at once, until all were seen; a layer that comes
    late is put behind the layer that ran before it.

    Raises
    ------
    CalibrationError
        If a layer does not run at all.
    """
    order: list[PrunableLayer] = []
    ran: dict[str, PrunableLayer] = {}

    def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        ran.setdefault(layer.name, layer)

    with torch.no_grad(), untouched(model):
        for batch in chain(islice(data.batches(1), 1), data.batches(chunk)):
            ran.clear()
            run_with_taps(model, layers, weights, batch.inputs, visit)
            place = 0
            for layer in ran.values():
                if layer not in order:
                    order.insert(place, layer)
                place = order.index(layer) + 1
            if len(order) == len(layers):
                break
    require_run(layers, {layer.name for layer in order})
    return order


def require_run(layers: Sequence[PrunableLayer], ran: Container[str]) -> None:
    """Raise `CalibrationError` naming the layers that are not in ``ran``."""
    idle = [layer.name for layer in layers if layer.name not in ran]
    if idle:
        more = f" and {len(idle) - 8} more" if len(idle) > 8 else ""
        raise CalibrationError(
            f"layer '{', '.join(idle[:8])}'{more} never ran on the calibration data (the model "
            "does not call it, or uses its weight without calling it); exclude it"
        )


def require_finite_moments(name: str, squares: Tensor) -> None:
    """Raise `CalibrationError` if a layer had an input that is NaN or infinite.

    ``squares`` are sums of squared inputs in float64: finite if and only if every input was, since
    no square of a smaller float type overflows.
    """
    if not bool(torch.isfinite(squares).all()):
        raise CalibrationError(
            f"the input of layer '{name}' holds NaN or infinite values on the calibration data; "
            "check the data and the layers before it"
        )
