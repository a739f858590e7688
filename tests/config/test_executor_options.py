"""Where layers are decided: the short form, and what belongs to Ray alone."""

from __future__ import annotations

from typing import Any

import pytest

from optiprune.config import Config, ConfigError, ignored_options


def test_a_name_is_short_for_a_section() -> None:
    short = Config.from_table({"executor": "processes", "workers": 3})
    assert short == Config.from_table({"executor": {"kind": "processes"}, "workers": 3})
    assert short.executor.kind == "processes"
    assert Config().executor.kind == "local"
    assert Config.from_table(short.model_dump(mode="json")) == short
    assert short.replace(executor="ray").executor.kind == "ray"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("threads", "executor.kind"),
        ({"kind": "processes", "gpus": 1}, "gpus = 1.0 needs kind = 'ray', not 'processes'"),
        ({"address": "head:6379"}, "address = 'head:6379' needs kind = 'ray', not 'local'"),
        ({"kind": "ray", "resources": {"GPU": 1}}, "GPUs from gpus"),
        ({"kind": "ray", "resources": {"epyc": 0}}, "'epyc' must be > 0, got 0"),
        ({"kind": "ray", "retry": 1}, "retries"),
    ],
)
def test_bad_options_are_refused(table: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_table({"executor": table})
    assert said in str(caught.value)


def test_the_global_objective_says_that_it_is_ignored() -> None:
    config = Config.from_table({"prune": {"objective": "global"}, "executor": "processes"})
    assert ignored_options(config) == ["executor.kind"]
