"""Which modules of a model run one after another, each on the output of the one before.

Where a model is such a chain (the blocks of a transformer, the stages of a residual network, the
modules of a Sequential), its activations can be kept between two of them, and one module is run
where the whole model would be run otherwise. Nothing is known of a model but what one forward
shows: a chain is what was seen to hand tensors on, and what gives the same tensors when its modules
are run alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .capture import RunEndedError
from .data import Tree
from .layers import PrunableLayer
from .runner import run_model

__all__ = [
    "Call",
    "Chain",
    "ChainBlock",
    "call_of",
    "find_chains",
    "first_tensor",
    "same_but_for_rounding",
]


@dataclass(frozen=True, slots=True)
class Call:
    """What a module was called with: the tensor handed on, and everything else."""

    x: Tensor
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, module: nn.Module, weights: Mapping[str, Tensor]) -> Any:
        """The module's output; what it does to its input in place is not seen outside.

        ``weights``: the module's own parameter names -> tensors to run it with.
        """
        args = (self.x.clone(), *self.args)
        return functional_call(module, dict(weights), args, dict(self.kwargs), tie_weights=True)

    def at(self, x: Tensor) -> Call:
        return replace(self, x=x)


@dataclass(frozen=True, slots=True, eq=False)
class ChainBlock:
    """One module of a chain; ``layers`` are those of the pruned layers that lie in it, in order."""

    name: str
    module: nn.Module
    layers: tuple[PrunableLayer, ...]

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of ``weights`` (by the model's names) that are the block's layers, by its names."""
        skip = len(self.name) + 1
        return {
            layer.parameter[skip:]: weights[layer.parameter]
            for layer in self.layers
            if layer.parameter in weights
        }


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Blocks in the order in which they run; all get the same arguments beside the tensor."""

    blocks: tuple[ChainBlock, ...]

    def first_call(self, model: nn.Module, weights: Mapping[str, Tensor], inputs: Tree) -> Call:
        """What the first block is called with when the model runs on ``inputs``."""
        caught: list[Call] = []

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(call_of(args, kwargs))
            raise RunEndedError

        handle = self.blocks[0].module.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            run_model(model, weights, inputs)
        except RunEndedError:
            pass
        finally:
            handle.remove()
        call = caught[0]
        return replace(call, x=call.x.clone())


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a module hands on: its output, or the first of a tuple."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


@dataclass(slots=True)
class _Run:
    """One call of a candidate as it was seen; tensors are held, so that identities last."""

    name: str
    module: nn.Module
    call: Call
    version: int
    before: Tensor
    after: Tensor | None = None
    after_version: int = 0
    result: Tensor | None = None


def find_chains(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    inputs: Tree,
) -> list[Chain]:
    """Chains of at least two blocks, in the order in which they run; none where there is none.

    Parameters
    ----------
    layers : in the order in which they run; a weight that is used in two blocks, or inside and
        outside a chain, takes its blocks out
    weights : parameter name -> tensor to run the model with
    inputs : of one sample

    The caller holds the model in evaluation mode (`runner.untouched`) and without gradients.
    """
    runs = _observe(model, weights, inputs)
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.name] = counts.get(run.name, 0) + 1
    shared = _shared_between(layers, [run.name for run in runs])
    usable = [counts[run.name] == 1 and run.name not in shared for run in runs]
    chains: list[list[_Run]] = [[]]
    for run, good in zip(runs, usable, strict=True):
        now = chains[-1]
        if good and (not now or _hands_on(now[-1], run)):
            now.append(run)
        else:
            chains.append([run] if good else [])
    found = []
    for members in chains:
        blocks = [_block(run, layers) for run in members]
        if sum(bool(block.layers) for block in blocks) >= 2 and _replays(members, blocks, weights):
            found.append(Chain(tuple(blocks)))
    return found


def _candidates(module: nn.Module, name: str) -> Iterable[tuple[str, nn.Module]]:
    """Members of the outermost lists of modules; a Sequential in a list is opened."""
    lists = type(module) is nn.Sequential or isinstance(module, nn.ModuleList)
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        opened = type(child) is nn.Sequential or isinstance(child, nn.ModuleList)
        if lists and not opened:
            yield path, child
        else:
            yield from _candidates(child, path)


def _observe(model: nn.Module, weights: Mapping[str, Tensor], inputs: Tree) -> list[_Run]:
    runs: list[_Run] = []
    open_runs: dict[str, _Run] = {}
    handles = []
    for name, module in _candidates(model, ""):

        def before(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name
        ) -> None:
            if not args or not isinstance(args[0], Tensor):
                return
            call, x = call_of(args, kwargs), args[0]
            run = _Run(name, module, replace(call, x=x.clone()), x._version, x)
            runs.append(run)
            open_runs[name] = run

        def after(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            run, out = open_runs.pop(name, None), first_tensor(output)
            if run is not None and out is not None:
                run.after, run.after_version, run.result = out, out._version, out.clone()

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        run_model(model, weights, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def call_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """A call without what would remember it: a cache of keys and values grows with every run."""
    rest = tuple(_forgetful(a) for a in args[1:])
    return Call(args[0], rest, {k: _forgetful(v) for k, v in kwargs.items()})


def _forgetful(value: Any) -> Any:
    plain = value is None or isinstance(value, (Tensor, bool, int, float, str))
    if plain or isinstance(value, (torch.dtype, torch.device)):
        return value
    if type(value) in (tuple, list):
        return tuple(_forgetful(v) for v in value)
    if type(value) is dict:
        return {k: _forgetful(v) for k, v in value.items()}
    return None


def _hands_on(first: _Run, second: _Run) -> bool:
    """Whether the second runs on the output of the first, with the same other arguments."""
    handed = first.after is second.before and first.after_version == second.version
    a, b = first.call, second.call
    return handed and _same(a.args, b.args) and _same(dict(a.kwargs), dict(b.kwargs))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def same_but_for_rounding(got: Tensor, want: Tensor) -> bool:
    """Whether two ways to compute an output agree; elements are held against the largest."""
    if got.shape != want.shape:
        return False
    return torch.allclose(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def _replays(
    members: Sequence[_Run], blocks: Sequence[ChainBlock], weights: Mapping[str, Tensor]
) -> bool:
    """Whether the modules give the same tensors when each is run alone, on the output before."""
    x = members[0].call.x
    for run, block in zip(members, blocks, strict=True):
        try:
            out = first_tensor(members[0].call.at(x).run(run.module, block.own(weights)))
        except Exception:
            return False  # it needs what was left out of its arguments
        if out is None or run.result is None or not same_but_for_rounding(out, run.result):
            return False
        x = out
    return True


def _home(module_name: str, blocks: Sequence[str]) -> str | None:
    return next((b for b in blocks if module_name == b or module_name.startswith(b + ".")), None)


def _shared_between(layers: Sequence[PrunableLayer], blocks: Sequence[str]) -> set[str]:
    """Blocks with a weight that is used outside them too."""
    shared: set[str] = set()
    for layer in layers:
        homes = {_home(name, blocks) for name in layer.module_names}
        if len(homes) > 1:
            shared |= {home for home in homes if home is not None}
    return shared


def _block(run: _Run, layers: Sequence[PrunableLayer]) -> ChainBlock:
    own = [layer for layer in layers if _home(layer.name, [run.name]) is not None]
    return ChainBlock(run.name, run.module, tuple(own))
