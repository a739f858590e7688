"""How an operation carries units from its inputs to its results: one rule for each of its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Rule", "rule", "rule_of"]

# (context, *the operation's arguments with tensors as Labels) -> Labels, or a tuple of them
Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for aten operations, by their names without overload."""

    def add(function: Rule) -> Rule:
        for name in names:
            assert name not in _RULES, name
            _RULES[name] = function
        return function

    return add


def rule_of(name: str) -> Rule | None:
    return _RULES.get(name)
