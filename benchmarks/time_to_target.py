"""Time to the best known energy with 99 % probability: ours beside tuned external samplers.

    python -m benchmarks.time_to_target [--trial] [--work runs/time-to-target]

Twenty instances of the pruning suite for each of n = 64, 128, 200, by the protocol of
`optiprune.bench`: one process, one thread, CPU time, every energy recomputed, the same target for
all. In two stages:

1. *Tune*: on three further instances of each size every row of the grids `dwave-tuned`,
   `openjij-tuned` and `bifurcation-tuned` runs for a short budget; the best row of each sampler is
   taken for each size, by TTT99, then by hit rate, then by mean gap.
2. *Measure*: the two samplers whose rows are best, and ours as they are, untuned. External ones
   have a longer budget, longer still at n = 200, where few of them meet the target. A long run of
   `auto` and one of `exact` an instance make the target harder for everybody, or prove it; they
   count for nothing else.

The ratio of an instance is TTT99 of the external sampler over that of ours. Where the external one
never met the target its TTT99 is taken to be all the CPU time that it spent there, a lower bound;
where ours never did the ratio counts as 0. Given are medians over instances with 95 % bootstrap
intervals over runs and instances.

A run that was ended goes on with the same command. About an hour; ``--trial`` takes two.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from optiprune.bench.instances import (
    MANIFEST,
    Instance,
    Selection,
    export_suite,
    folder_suite,
    suite,
)
from optiprune.bench.instances.cutting import FAMILIES
from optiprune.bench.protocol import Protocol, parse_solvers, run_bench
from optiprune.bench.report import Report, make_report, write_report
from optiprune.bench.report.figures import draw_all
from optiprune.bench.report.tables import percent, seconds
from optiprune.bench.statistics import Run, SummaryRow, summarise, time_to_target

RESULTS = Path(__file__).parent / "results"
NAME = "time_to_target"
NATIVE = ("auto", "tabu", "annealing")
REFERENCE = "reference@auto:effort=20,reference-exact@exact"
SAMPLERS = {
    "dwave-sa": "dwave-tuned",
    "dwave-tabu": "dwave-tuned",
    "openjij-sa": "openjij-tuned",
    "bifurcation": "bifurcation-tuned",
}
HELD_OUT = 9  # the index of the instances that the grids are tuned on
RESAMPLES = 1000


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    sizes: tuple[int, ...] = (64, 128, 200)
    count: int = 20
    held_out: int = 3
    seeds: int = 10
    native: float = 0.2
    external: tuple[float, ...] = (1.0, 1.0, 4.0)
    tune: float = 0.5
    tune_seeds: int = 2
    reference: float = 1.0


TRIAL = Plan((64, 128), 6, 1, 2, 0.1, (0.3, 0.3), 0.1, 1, 0.3)


def measured(plan: Plan, n: int) -> list[Instance]:
    """By index, so that they are spread over networks and families."""
    return suite("pruning", Selection((n,), HELD_OUT), lambda _: None)[: plan.count]


def held_out(plan: Plan, n: int) -> list[Instance]:
    """One of each family, from the networks by turns."""
    found = suite("pruning", Selection((n,), HELD_OUT + 1, f"*-{HELD_OUT:02d}"), lambda _: None)
    networks = list(dict.fromkeys(i.name.partition("-")[0] for i in found))
    wanted = [f"{networks[at % len(networks)]}-{f}-" for at, f in enumerate(FAMILIES)]
    chosen = [next(i for i in found if i.name.startswith(w)) for w in wanted]
    return chosen[: plan.held_out]


def kept(make: Callable[[], list[Instance]], folder: Path) -> list[Instance]:
    """As written by the first run into the folder, to the last bit."""
    if not (folder / MANIFEST).exists():
        instances = make()
        export_suite(instances, folder, request={"names": [i.name for i in instances]})
    return folder_suite(folder)


def sampler_of(label: str) -> str:
    """The sampler that a row of a grid belongs to."""
    return next((s for s in SAMPLERS if label.startswith(s)), label)


def tune(plan: Plan, work: Path, tell: Any) -> dict[int, list[SummaryRow]]:
    """For each size the best row of every sampler that is installed, the best sampler first."""
    grid = ",".join(dict.fromkeys(SAMPLERS.values()))
    best: dict[int, list[SummaryRow]] = {}
    for n in plan.sizes:
        folder = work / f"tune-{n}"
        held = kept(lambda n=n: held_out(plan, n), folder / "instances")
        protocol = Protocol((plan.tune,), plan.tune_seeds)
        run_bench(held, parse_solvers(grid), protocol, folder, tell=tell)
        ours = Protocol((plan.reference,), 1)
        records = run_bench(held, parse_solvers(REFERENCE), ours, folder, tell=tell)
        rows = [r for r in make_report(records).rows if not r.solver.startswith("reference")]
        rows.sort(key=lambda r: (r.ttt.value, -r.hit_rate, _number(r.mean_gap)))
        first: dict[str, SummaryRow] = {}
        for row in rows:
            first.setdefault(sampler_of(row.solver), row)
        best[n] = list(first.values())
    return best


def _number(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def measure(
    plan: Plan, chosen: dict[int, list[str]], work: Path, tell: Any
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All records, and the label of each row of a grid for the tables."""
    labels: dict[str, str] = {}
    folder = work / "measure"
    records: list[dict[str, Any]] = []
    for n, external in zip(plan.sizes, plan.external, strict=True):
        found = kept(lambda n=n: measured(plan, n), folder / f"instances-{n}")
        for names, budget, seeds in (
            (NATIVE, plan.native, plan.seeds),
            (chosen[n], external, plan.seeds),
            ((REFERENCE,), plan.reference, 1),
        ):
            protocol = Protocol((budget,), seeds)
            records = run_bench(found, parse_solvers(",".join(names)), protocol, folder, tell=tell)
        labels |= {row: tuned(row) for row in chosen[n]}
    return records, labels


def told(report: Report, labels: dict[str, str]) -> Report:
    """Without the reference; a row of a grid goes by the name of its sampler."""
    runs = [
        replace(r, solver=labels.get(r.solver, r.solver))
        for r in report.runs
        if not r.solver.startswith("reference")
    ]
    return replace(report, runs=runs, rows=summarise(runs, report.best))


def for_figures(report: Report, chosen: dict[int, list[str]]) -> Report:
    """All runs under the longest budget, samplers by their rank at each size, so that every
    figure holds the same instances for every line.

    The shorter budget of ours is to our own disadvantage: it only takes away chances to hit.
    """
    most = max(r.budget for r in report.runs)
    ranks = {
        (n, tuned(row)): f"{rank} tuned sampler"
        for n, rows in chosen.items()
        for rank, row in zip(("best", "second"), rows, strict=True)
    }
    runs = [
        replace(r, budget=most, solver=ranks.get((r.n, r.solver), r.solver)) for r in report.runs
    ]
    return replace(report, runs=runs, rows=summarise(runs, report.best))


def tuned(row: str) -> str:
    """The name in the table of a row of a grid."""
    return f"{sampler_of(row)} (tuned)"


@dataclass(frozen=True)
class Ratio:
    """Median over instances of TTT99 external / ours; a lower bound if ``censored``."""

    value: float
    low: float
    high: float
    least: float
    censored: bool
    never: int
    instances: int


Times = dict[str, tuple[np.ndarray, np.ndarray]]


def _times(runs: Sequence[Run]) -> Times:
    groups: dict[str, list[Run]] = {}
    for r in runs:
        groups.setdefault(r.sha256, []).append(r)
    return {
        sha: (np.array([r.hit_s for r in g]), np.array([r.cpu_s for r in g]))
        for sha, g in groups.items()
    }


def ratio(ours: Sequence[Run], external: Sequence[Run], seed: int = 0) -> Ratio:
    """See the module. Raises ValueError without instances in common."""
    a, b = _times(ours), _times(external)
    shared = sorted(set(a) & set(b))
    if not shared:
        raise ValueError("no instance was measured with both solvers")
    values = np.array([_ratio(a[s], b[s]) for s in shared])
    never = [not np.isfinite(b[s][0]).any() for s in shared]
    rng = np.random.default_rng(seed)
    pool = np.empty((len(shared), RESAMPLES))
    for at, s in enumerate(shared):
        for j in range(RESAMPLES):
            pool[at, j] = _ratio(_resampled(a[s], rng), _resampled(b[s], rng))
    picks = rng.integers(0, len(shared), size=(RESAMPLES, len(shared)))
    medians = [float(np.median(pool[p, j])) for j, p in enumerate(picks)]
    value = float(np.median(values))
    low, high = np.quantile(medians, [0.025, 0.975])
    bounded = any(v <= value for v, n in zip(values, never, strict=True) if n)
    return Ratio(
        value,
        min(float(low), value),
        max(float(high), value),
        float(values.min()),
        bounded,
        sum(never),
        len(shared),
    )


def _resampled(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    hits, costs = pair
    picks = rng.integers(0, len(hits), size=len(hits))
    return hits[picks], costs[picks]


def _ratio(ours: tuple[np.ndarray, np.ndarray], external: tuple[np.ndarray, np.ndarray]) -> float:
    mine, theirs = time_to_target(*ours), time_to_target(*external)
    if not math.isfinite(mine):
        return 0.0
    return (float(external[1].sum()) if math.isinf(theirs) else theirs) / mine


def table(report: Report, names: Sequence[str]) -> list[str]:
    """One row a size and solver."""
    lines = [
        "| n | solver | runs | hits | solved | median TTT99 [95 %] | mean gap | "
        "ratio to `auto` [95 %] | least ratio | never hit |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(report.rows, key=lambda r: (r.n, r.ttt.value, -r.hit_rate)):
        runs = [r for r in report.runs if r.n == row.n]
        cells = ["", "", ""]
        if row.solver in names:
            ours = [r for r in runs if r.solver == "auto"]
            q = ratio(ours, [r for r in runs if r.solver == row.solver])
            mark = "≥ " if q.censored else ""
            cells = [
                f"{mark}{q.value:.3g} [{q.low:.3g}, {q.high:.3g}]",
                f"{q.least:.3g}",
                f"{q.never}/{q.instances}",
            ]
        t = row.ttt
        lines.append(
            f"| {row.n} | {row.solver} | {row.runs} | {100 * row.hit_rate:.0f} % "
            f"| {row.solved}/{row.instances} "
            f"| {seconds(t.value)} [{seconds(t.low)}, {seconds(t.high)}] "
            f"| {percent(row.mean_gap)} | {' | '.join(cells)} |"
        )
    return lines


def write(
    plan: Plan,
    report: Report,
    best: dict[int, list[SummaryRow]],
    chosen: dict[int, list[str]],
    work: Path,
    out: Path,
) -> None:
    """The page, and beside it summary, best known answers, figures and compressed results."""
    external = sorted({r.solver for r in report.rows if r.solver.endswith("(tuned)")})
    figures = work / "report"
    figures.mkdir(parents=True, exist_ok=True)
    written = write_report(report, figures, plots=False)
    written += draw_all(for_figures(report, chosen), figures)
    folder = out / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in written:
        if path.name in ("summary.csv", "best-known.json"):
            shutil.copy(path, folder / path.name)
        elif path.parent.name == "figures":
            stem = path.stem.rpartition("-")[0]  # without the budget: there are two
            shutil.copy(path, folder / f"{stem}{path.suffix}")
        elif path.name == "results.csv":
            with gzip.GzipFile(folder / "results.csv.gz", "wb", mtime=0) as f:
                f.write(path.read_bytes())
    (folder / "chosen.json").write_text(json.dumps(chosen, indent=1) + "\n")
    sessions = [r for r in report.records if r["type"] == "session"]
    about = {k: v for k, v in sessions[-1].items() if k in ("machine", "python", "versions")}
    about["revisions measured"] = ", ".join(sorted({str(s["revision"]) for s in sessions}))
    about["written by revision"] = describe()["revision"]
    budgets, sizes = (", ".join(f"{v:g}" for v in of) for of in (plan.external, plan.sizes))
    closed = sum(k.bound is not None and k.proven for k in report.best.values())
    lines = [
        "# Time to the best known energy",
        "",
        f"Made by `python -m benchmarks.time_to_target`: {plan.count} instances of the pruning "
        f"suite a size, {plan.seeds} seeds; {plan.native:g} s of CPU time a run for ours, "
        f"{budgets} s for the external samplers (n = {sizes}), one thread. TTT99: CPU time to "
        "the best known energy with 99 % probability, the median over instances; '-' where it was "
        "not met on half of them. Ratio: TTT99 of the external sampler over that of `auto` on the "
        "same instance, the median over instances; where the external sampler never met the "
        "target, all the time that it spent there stands for its TTT99 (≥ where that decides the "
        "median), and where `auto` never did the ratio is 0. The time of the external samplers "
        "holds what it takes to hand them the problem (a penalty form and its repair, some "
        "milliseconds).",
        "",
        *table(report, external),
        "",
        f"Optima proven: {closed} of {len(report.best)}.",
        "",
        "![](time_to_target/time-to-target.png)",
        "![](time_to_target/profile.png)",
        "![](time_to_target/gap-over-time.png)",
        "",
        "In the figures the samplers go by their rank in the tuning at each size. In the last one "
        f"what ours had after {plan.native:g} s is drawn on to the end.",
        "",
        f"Tuning, on {plan.held_out} instances a size that are not among those above, "
        f"{plan.tune:g} s, {plan.tune_seeds} seeds: the best row of each sampler; the first two "
        "were measured.",
        "",
        "| n | sampler | row of the grid | hits | TTT99 | mean gap |",
        "|---:|---|---|---:|---:|---:|",
        *(
            f"| {n} | {sampler_of(r.solver)} | {r.solver} | {100 * r.hit_rate:.0f} % "
            f"| {seconds(r.ttt.value)} | {percent(r.mean_gap)} |"
            for n, rows in best.items()
            for r in rows
        ),
        "",
        *(f"- {k}: {v}" for k, v in about.items()),
        *(f"- WRONG: {fault}" for fault in report.faults),
        "",
    ]
    (out / f"{NAME}.md").write_text("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trial", action="store_true", help="a few instances, two seeds")
    parser.add_argument("--work", type=Path, help="journals, kept for a run that goes on")
    parser.add_argument("--out", type=Path, help="where the page and its folder go")
    args = parser.parse_args()
    plan = TRIAL if args.trial else Plan()
    work = args.work or Path("runs") / (f"{NAME}-trial" if args.trial else NAME)
    out = args.out or (work if args.trial else RESULTS)

    def tell(p: Any) -> None:
        if p.done % 50 == 0 or p.done == p.total:
            print(f"{p.done}/{p.total} {p.task.solver.label} {p.task.instance.name}", flush=True)

    best = tune(plan, work, tell)
    chosen = {n: [r.solver for r in rows[:2]] for n, rows in best.items()}
    print("measured:", chosen, flush=True)
    records, labels = measure(plan, chosen, work, tell)
    report = told(make_report(records), labels)
    out.mkdir(parents=True, exist_ok=True)
    write(plan, report, best, chosen, work, out)
    print(f"written: {out / NAME}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
