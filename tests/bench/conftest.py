"""Small instances and hand-made records."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from optiprune.bench.instances import Instance
from optiprune.problems import CardinalityQP, layer_problem


def small(seed: int = 0, n: int = 12) -> CardinalityQP:
    return layer_problem(n, n // 2, seed=seed)


def instance(seed: int = 0, n: int = 12) -> Instance:
    source = partial(small, seed, n)
    return Instance.of(f"small-{seed}", source(), source, family="small", recipe="test", seed=seed)


@pytest.fixture
def instances() -> list[Instance]:
    return [instance(0), instance(1)]


def record(**fields: Any) -> dict[str, Any]:
    """A solve record; energy -10, found after 0.5 of 1 s."""
    out: dict[str, Any] = {
        "type": "solve",
        "instance": "a",
        "family": "f",
        "kind": "QUBO",
        "n": 4,
        "k": None,
        "sha256": "aa",
        "solver": "s",
        "seed": 0,
        "budget": 1.0,
        "mode": "fill",
        "target": None,
        "session": 1,
        "at": "2026-01-01T00:00:00Z",
        "status": "feasible",
        "energy": -10.0,
        "bound": None,
        "x": "f0",
        "cpu_s": 1.0,
        "wall_s": 1.0,
        "starts": 1,
        "moves": 10,
        "stop_reason": "time",
        "message": "",
        "trajectory": [[0.1, -5.0], [0.5, -10.0]],
        **fields,
    }
    out.setdefault("solver_key", out["solver"])
    return out


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
