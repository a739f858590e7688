"""How an operation carries units from its inputs to its results: one rule for each of its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Rule", "counts", "rule", "rule_of"]

# (context, *the operation's arguments with tensors as Labels) -> Labels, or a tuple of them
Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}
_COUNTED: set[str] = set()


def rule(*names: str, counted: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for aten operations, by their names without overload.

    One that is ``counted`` tells multiply-adds, so it is asked about tensors without units too.
    """

    def add(function: Rule) -> Rule:
        for name in names:
            assert name not in _RULES, name
            _RULES[name] = function
            if counted:
                _COUNTED.add(name)
        return function

    return add


def counts(name: str) -> bool:
    """Whether the rule of that name tells multiply-adds."""
    return name in _COUNTED


def rule_of(name: str) -> Rule | None:
    return _RULES.get(name)
