"""Units through every operation of a traced model."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from .context import Context, Relations
from .factors import Factor, Labels
from .rules import counts, rule_of
from .trace import Trace
from .units import Units

__all__ = ["Propagated", "propagate"]


@dataclass(frozen=True, slots=True, eq=False)
class Propagated:
    """What `propagate` returns.

    Attributes
    ----------
    units : with all classes and barriers
    relations : between them
    holders : placeholder of a parameter or buffer -> its labels, one factor for each dimension
    results : operation's name -> labels of its tensors that are no views, in order
    """

    units: Units
    relations: Relations
    holders: Mapping[str, Labels]
    results: Mapping[str, tuple[Labels, ...]]


def propagate(traced: Trace) -> Propagated:
    """Merge the units of all parameters and buffers by what the operations do with them.

    An operation without a rule holds all units that reach it, and says so.
    """
    units, relations = Units(), Relations()
    values: dict[str, Any] = {}
    holders: dict[str, Labels] = {}
    shared: dict[tuple[str, ...], Labels] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                values[node.name] = value
                continue
            shape = tuple(int(n) for n in value.shape)
            labels = Labels(shape)
            names = traced.holders.get(node.name)
            if names is not None and node.users:
                if names not in shared:
                    shared[names] = _fresh(units, shape)
                labels = shared[names]
                if node.name in traced.buffers:
                    relations.tables.update(u for f in labels.factors for u in f.ids.tolist())
                holders[node.name] = labels
            values[node.name] = labels
        elif node.op == "call_function":
            values[node.name] = _result(Context(units, relations, node), node, values)
        elif node.op == "output":
            context = Context(units, relations, node)
            for x in _tensors(fx.node.map_arg(node.args, lambda n: values[n.name])):
                context.hold(x, "the model returns it")
    results = {
        node.name: tuple(_tensors(values[node.name]))
        for node in traced.graph.nodes
        if node.op == "call_function" and not _is_view(node)
    }
    return Propagated(units, relations, holders, results)


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def _fresh(units: Units, shape: tuple[int, ...]) -> Labels:
    return Labels(shape, tuple(Factor((d,), units.new((n,))) for d, n in enumerate(shape) if n > 1))


def _result(context: Context, node: fx.Node, values: Mapping[str, Any]) -> Any:
    args = fx.node.map_arg(node.args, lambda n: values[n.name])
    kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n.name])
    if node.target is operator.getitem:
        source: Any = args[0]
        index: Any = args[1]
        return source[index] if isinstance(source, tuple | list) else source
    rule = rule_of(context.operation)
    if context.operation.startswith("_assert"):
        return None
    inputs = [x for x in _tensors((args, kwargs)) if x.factors]
    if inputs and rule is None:
        for x in inputs:
            context.hold(x, "this operation is not understood")
    if rule is None or not (inputs or counts(context.operation)):
        return _plain(node.meta.get("val"))
    return rule(context, *args, **kwargs)


def _plain(value: Any) -> Any:
    """Results without units."""
    if isinstance(value, Tensor):
        return Labels(tuple(int(n) for n in value.shape))
    if isinstance(value, tuple | list):
        return tuple(_plain(v) for v in value)
    return value


def _tensors(value: Any) -> list[Labels]:
    if isinstance(value, Labels):
        return [value]
    if isinstance(value, tuple | list):
        return [x for v in value for x in _tensors(v)]
    if isinstance(value, dict):
        return [x for v in value.values() for x in _tensors(v)]
    return []
