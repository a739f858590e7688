"""Options that need others, and options that the chosen objective does not look at."""

from __future__ import annotations

import pytest

from optiprune.config import Config, ConfigError, explain, ignored_options


@pytest.mark.parametrize("kind", ["cubic", "geometric"])
def test_a_schedule_of_one_stage_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"schedule: kind = '{kind}' needs stages >= 2"):
        Config.from_table({"schedule": {"kind": kind}})
    assert Config.from_table({"schedule": {"kind": kind, "stages": 2}}).schedule.stages == 2


def test_stages_without_a_schedule_are_refused() -> None:
    with pytest.raises(ConfigError, match="stages = 3 needs kind"):
        Config.from_table({"schedule": {"stages": 3}})


def test_what_the_objective_ignores_is_known() -> None:
    table = {
        "workers": 2,
        "schedule": {"kind": "cubic", "stages": 3},
        "batches": {"tabu": 0.1, "sweeps": 2, "size": 64},
        "curvature": {"ridge": 0.1, "chunk": 8},
    }
    of = {
        objective: ignored_options(Config.from_table({**table, "prune": {"objective": objective}}))
        for objective in ("global", "reconstruction")
    }
    assert of["global"] == ["workers", "batches.sweeps"]
    assert of["reconstruction"] == [
        "schedule.kind",
        "schedule.stages",
        "batches.tabu",
        "curvature.ridge",
    ]
    assert ignored_options(Config()) == []


def test_the_table_says_which_objective_an_option_is_for() -> None:
    meanings = {key: meaning for key, _, _, meaning in explain()}
    for key in ("schedule.kind", "batches.steps", "batches.partners", "curvature.fisher"):
        assert meanings[key].endswith("Only for objective 'global'."), key
    assert meanings["batches.sweeps"].endswith("Only for objective 'reconstruction'.")
    assert "Only for" not in meanings["batches.size"]
