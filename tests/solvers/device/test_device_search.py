"""Every step of a search against a slow twin, one variable after another in plain Python."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from optiprune.problems import QUBO, CardinalityQP
from optiprune.problems.generators import layer_nm_problem, layer_problem
from optiprune.solvers import get
from optiprune.solvers.base import Watch
from optiprune.solvers.device.noise import (
    BITS,
    exponential_table,
    gumbel_table,
    philox2x32,
    table_index,
)
from optiprune.solvers.device.run import BatchRun
from optiprune.solvers.device.temperature import Temperatures
from optiprune.solvers.stop import Limits

torch = pytest.importorskip("torch")
CPU = torch.device("cpu")


class Recorded(BatchRun):
    """Notes every step that is carried out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log: list[dict[str, Any]] = []

    def _run(self, plan: Any, steps: Any) -> None:
        search = self.search
        step = search.step

        def noted(plan: Any, s: int) -> None:
            before = {k: getattr(search, k).clone() for k in search._row_state()}
            step(plan, s)
            after = {k: getattr(search, k).clone() for k in search._row_state()}
            self.log.append({"plan": plan, "s": s, "before": before, "after": after})

        search.step = noted
        super()._run(plan, steps)
        search.step = step


def recorded(problems: list[Any], sparse: bool, **options: Any) -> Recorded:
    solver = get("torch", sweeps=3, replicas=2, device="cpu", **options)
    seeds = np.random.SeedSequence(4).spawn(len(problems))
    items = [
        solver._item(i, p, None, s, Watch(Limits(), interrupt=threading.Event()))
        for i, (p, s) in enumerate(zip(problems, seeds, strict=True))
    ]
    run = Recorded(items, CPU, Temperatures(None, None, 0.6, 0.01), sparse=sparse)
    run.execute()
    return run


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["one group", "groups"])
def test_exchange_steps_are_heat_baths(kind: str, precision: str, sparse: bool) -> None:
    if kind == "groups":
        problems: list[Any] = [layer_nm_problem(n, 2, 4, seed=n) for n in (12, 16)]
    else:
        problems = [layer_problem(n, n // 3, seed=n) for n in (11, 16)]
    run = recorded(problems, sparse, precision=precision)
    search = run.search
    batch = search.batch
    dtype = batch.shape.dtype
    table = gumbel_table(search.width, dtype)
    moved = 0
    for entry in run.log[::3]:
        plan, s, old, new = (entry[k] for k in ("plan", "s", "before", "after"))
        rows = len(old["x"])
        replicas = rows // len(problems)
        for m in range(rows):
            b = m // replicas
            J, g, n = batch.J[b], batch.groups[b], problems[b].n
            x, h = old["x"][m].numpy(), old["h"][m].numpy()
            i = int(old["pruned"][m, plan.slots[s, m]])
            assert not x[i]
            # noise: position j of the window that the row was given
            at = None if plan.noise is None else int(plan.noise[s, m])
            t = dtype(0) if at is None else plan.temperatures[s, m].numpy()
            stay = h[i] + (dtype(old["margin"][m]) if at is None else t * table[at + i])
            best, out = -np.inf, i
            for j in range(n):
                if x[j] and g[j] == g[i]:
                    value = (h[j] if at is None else dtype(t * table[at + j]) + h[j]) + J[i, j]
                    if value > best:
                        best, out = value, j
            active = plan.active is None or bool(plan.active[s, m])
            if not active or not best > stay:
                out = i
            moved += out != i
            want = x.copy()
            want[i] = True
            want[out] = False
            assert new["x"][m].tolist() == want.tolist()
            delta = h[i] - h[out] - J[i, out]
            assert float(new["energy"][m]) == float(old["energy"][m]) + float(delta)
            assert new["h"][m].tolist() == (h + (J[i] - J[out])).tolist()
            # and the whole state is what the assignment says
            exact = batch.linear[b] + J.astype(np.float64) @ want
            np.testing.assert_allclose(new["h"][m].numpy(), exact, atol=2e-5)
            kept = np.isfinite(new["bias"][m].numpy())
            assert kept.tolist() == want.tolist()
            assert new["best"][m] <= new["energy"][m] + new["margin"][m]
    assert moved > 10


@pytest.mark.parametrize("sparse", [True, False])
def test_flip_steps_follow_metropolis(sparse: bool) -> None:
    rng = np.random.default_rng(1)
    problems = [QUBO(rng.normal(size=(n, n)), rng.normal(size=n)) for n in (6, 8)]
    run = recorded(problems, sparse, precision="float64")
    batch = run.search.batch
    table = exponential_table(np.float64)
    moved = 0
    for entry in run.log:
        plan, s, old, new = (entry[k] for k in ("plan", "s", "before", "after"))
        rows = len(old["x"])
        for m in range(rows):
            b = m // (rows // 2)
            i = int(plan.slots[s, m])
            assert i < problems[b].n
            x = old["x"][m].numpy().copy()
            scale = 2.0 ** batch.exponent[b]
            delta = problems[b].flip_deltas(x[: problems[b].n])[i] / scale
            if plan.noise is None:
                threshold = -float(old["margin"][m])
            else:
                threshold = table[int(plan.noise[s, m])] * float(plan.temperatures[s, m])
            active = plan.active is None or bool(plan.active[s, m])
            if active and delta < threshold:
                x[i] = not x[i]
                moved += 1
            assert new["x"][m].tolist() == x.tolist()
            energy = (problems[b].energy(x[: problems[b].n]) - problems[b].offset) / scale
            assert float(new["energy"][m]) == pytest.approx(energy, abs=1e-12)
    assert moved > 10


def test_philox_gives_the_published_numbers() -> None:
    # Random123, kat_vectors
    for rounds, c0, c1, key, want in (
        (7, 0, 0, 0, (0x257A3673, 0xCD26BE2A)),
        (7, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, (0xAB302C4D, 0x3DC9D239)),
        (7, 0x243F6A88, 0x85A308D3, 0x13198A2E, (0xBEDBBE6B, 0xE4C770B3)),
        (10, 0, 0, 0, (0xFF1DAE59, 0x6CD10DF2)),
        (10, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        (10, 0x243F6A88, 0x85A308D3, 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ):
        got = philox2x32(*(torch.tensor([v]) for v in (c0, c1, key)), rounds=rounds)
        assert tuple(int(v) for v in got) == want


def test_random_numbers_are_uniform_and_their_streams_apart() -> None:
    steps = torch.arange(4000)[:, None]
    a, b = philox2x32(steps, torch.arange(8)[None], torch.full((1, 8), 77))
    for word in (a, b):
        counts = torch.bincount(table_index(word).flatten() >> (BITS - 4), minlength=16)
        assert ((counts - 2000).abs() < 250).all()  # 6 standard deviations
    assert len(torch.unique(torch.stack([a, b]))) > 63_000
    c, _ = philox2x32(steps, torch.arange(8)[None], torch.full((1, 8), 78))
    assert not (a == c).any()


def test_tables_hold_the_distribution_at_any_width() -> None:
    wide, narrow = gumbel_table(64, np.float64), gumbel_table(8, np.float64)
    assert (wide[: len(narrow)] == narrow).all()
    assert wide[: 1 << BITS].mean() == pytest.approx(np.euler_gamma, abs=1e-3)
    assert exponential_table(np.float64).mean() == pytest.approx(1.0, abs=1e-3)


def test_fields_are_true_at_the_end() -> None:
    p = CardinalityQP(np.random.default_rng(0).normal(size=(24, 24)), k=9)
    run = recorded([p], True)
    for answer in run.collect("completed"):
        assert p.violation(answer.x) == 0
    search = run.search
    for m in range(2):
        x = search.best_x[m, :24].numpy()
        scaled = p.energy(x) / 2.0 ** search.batch.exponent[0]
        assert float(search.best[m]) == pytest.approx(scaled, abs=1e-5)
