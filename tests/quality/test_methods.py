"""Methods by name, and options of one's own."""

from __future__ import annotations

import pytest

from benchmarks.quality.methods import (
    DEFAULTS,
    Method,
    MethodError,
    all_methods,
    choose,
    own_method,
)
from optiprune.config import ConfigError


def test_refit_decides_the_kind_of_optiprune() -> None:
    assert own_method("a", {"refit": False}).kind == "mask"
    assert own_method("a", {"prune": {"refit": False}}).kind == "mask"
    section = own_method("a", {"refit": {"damping": 0.5}})  # not the argument
    assert section.kind == "weights"
    assert section.options == {"refit": {"damping": 0.5}, "prune": {}} or section.options == {
        "refit": {"damping": 0.5}
    }
    assert own_method("a", {}).kind == "weights"  # optimize_masks re-fits by default


def test_arguments_and_sections_become_one_config() -> None:
    method = own_method(
        "a", {"objective": "global", "refit": False, "solver": "tabu", "batches": {"size": 64}}
    )
    assert method.options == {
        "prune": {"objective": "global", "refit": False},
        "solver": {"name": "tabu"},
        "batches": {"size": 64},
    }
    assert Method(**method.to_json()) == method


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batches": {"sise": 3}}, "size"),
        ({"refit": "perhaps"}, "refit"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own_method("a", options)


@pytest.mark.parametrize(
    "options",
    [{"seed": 1}, {"threads": 2}, {"prune": {"sparsity": 0.5}}, {"prune": {"pattern": "2:4"}}],
)
def test_what_the_benchmark_sets_is_refused(options: dict) -> None:
    with pytest.raises(MethodError, match="set by the benchmark"):
        own_method("a", options)


def test_a_function_of_ones_own_says_its_kind() -> None:
    method = own_method("a", {"callable": "m:f", "moves_weights": True, "power": 2})
    assert (method.source, method.kind, method.base) == ("callable", "weights", "m:f")
    assert method.options == {"power": 2}
    with pytest.raises(MethodError, match="moves_weights"):
        own_method("a", {"callable": "m:f"})
    with pytest.raises(MethodError, match="module:function"):
        own_method("a", {"callable": "f", "moves_weights": True})


def test_groups_patterns_and_names() -> None:
    every = all_methods()
    assert [m.name for m in choose(["ours"])] == [n for n, m in every.items() if m.ours]
    assert {m.name for m in choose(["mask", "weights"])} == set(every)
    assert next(m.name for m in choose(["optiprune", "opti*"])) == "optiprune"
    assert {m.kind for m in choose(["mask"])} == {"mask"}
    mine = choose(["all"], {"mine": {"refit": False}})
    assert mine[-1].name == "mine"
    with pytest.raises(MethodError, match="nonsense"):
        choose(["nonsense"])
    with pytest.raises(MethodError, match="there already"):
        choose(["all"], {"optiprune": {}})


def test_the_defaults_exist_and_are_of_their_kind() -> None:
    every = all_methods()
    for kind, name in DEFAULTS.items():
        assert every[name].kind == kind
        assert every[name].ours


def test_a_refit_makes_any_baseline_one_that_moves_weights() -> None:
    for method in all_methods().values():
        if method.refit:
            assert method.kind == "weights"
            assert method.name == f"{method.base}+refit"
