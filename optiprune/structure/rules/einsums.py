"""Einstein sums, which `torch.export` keeps as one operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from optiprune.structure.context import Context
from optiprune.structure.factors import Factor, Labels

from .contractions import contract
from .registry import rule

__all__: list[str] = []

_SUMMED = "it is summed over"


@rule("einsum", counted=True)
def einsum(context: Context, equation: str, operands: Sequence[Labels], *_: Any, **__: Any) -> Any:
    inputs, result = _letters(equation)
    repeated = any(len(set(letters)) < len(letters) for letters in inputs)
    if "." in equation or len(operands) > 2 or repeated:
        for x in operands:
            context.hold(x, f"an Einstein sum of another kind, {equation}")
        return Labels(context.shape())
    nodes: Any = context.node.args[1]
    summed: list[Factor] = []
    times = 1
    held = list(operands)
    if len(held) == 2:
        for d, c in enumerate(inputs[0]):
            f = held[0].at(d)
            if f is not None and c in inputs[1] and c in result:
                context.name(f.ids, "heads")
        for letter in (c for c in inputs[0] if c in inputs[1] and c not in result):
            at = [letters.index(letter) for letters in inputs]
            for k in (0, 1):
                held[k] = _without_results(context, held[k], inputs[k], at[k], result)
            length = held[0].shape[at[0]]
            x, y, factor = contract(context, held[0], at[0], held[1], at[1], nodes[1])
            held = [x, y]
            if factor is None:
                times *= length
            else:
                summed.append(factor)
    for k, letters in enumerate(inputs):
        alone = [d for d, c in enumerate(letters) if c not in result]
        held[k] = context.fix_all(held[k], alone, _SUMMED)
    out = context.meet(
        [_ordered(x, letters, result) for x, letters in zip(held, inputs, strict=True)],
        "it meets a tensor whose size is fixed there",
    )
    if len(held) == 2:
        context.count(out, summed[0] if summed else None, times, *summed[1:])
    return out


def _letters(equation: str) -> tuple[list[str], str]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not arrow:
        count = Counter("".join(inputs))
        right = "".join(sorted(c for c, n in count.items() if n == 1))
    return inputs, right


def _without_results(context: Context, x: Labels, letters: str, dim: int, result: str) -> Labels:
    """Units over a dimension that is summed over and one of the result keep that of the result."""
    f = x.at(dim)
    if f is not None and any(letters[d] in result for d in f.dims):
        context.name(f.ids, "heads")
        x = context.fix(x, dim, _SUMMED)
    return x


def _ordered(x: Labels, letters: str, result: str) -> Labels:
    """In the order of the result, with size 1 where it has no such dimension."""
    place = {c: i for i, c in enumerate(result)}
    shape = [1] * len(result)
    factors = []
    for d, c in enumerate(letters):
        if c in place:
            shape[place[c]] = x.shape[d]
    for f in x.factors:
        if all(letters[d] in place for d in f.dims):
            dims = [place[letters[d]] for d in f.dims]
            axes = sorted(range(len(dims)), key=dims.__getitem__)
            factors.append(Factor(tuple(sorted(dims)), f.ids.transpose(axes)))
    return Labels(tuple(shape), tuple(factors))
