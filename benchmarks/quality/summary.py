"""From records to medians over seeds, and optiprune's defaults against the best baselines."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .grid import DENSITIES, Density
from .methods import DEFAULTS, Kind

__all__ = [
    "Contest",
    "Entry",
    "Quantity",
    "contests",
    "entries",
    "in_order",
    "metric_of",
]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured of a cell.

    Attributes
    ----------
    name : "metric" (whatever the model is judged by), "loss", "kl", "layer_error", "wall_s",
        "cpu_s" or "memory_mib" (peak minus what was there before the method)
    label : in tables
    higher_is_better, percent : as of a `Metric`
    digits : behind the point
    """

    name: str
    label: str
    higher_is_better: bool = False
    percent: bool = False
    digits: int = 2

    def of(self, record: dict[str, Any]) -> float:
        if self.name == "metric":
            return float(record["metrics"][record["metric"]])
        if self.name in ("loss", "kl"):
            return float(record["metrics"][self.name])
        if self.name == "memory_mib":
            return float(record["peak_mib"] - record["base_mib"])
        return float(record[self.name])

    def show(self, value: float) -> str:
        if not math.isfinite(value):
            return str(value)
        value = 100 * value if self.percent else value
        if abs(value) >= 10 ** (6 - self.digits):
            return f"{value:.3g}"
        return f"{value:.{self.digits}f}"

    def better(self, a: float, b: float) -> bool:
        """Whether a is better than b; a number is better than none."""
        if math.isnan(b):
            return not math.isnan(a)
        return a > b if self.higher_is_better else a < b


LOSS = Quantity("loss", "loss (nats)", digits=4)
KL = Quantity("kl", "KL to dense (nats)", digits=4)
LAYER_ERROR = Quantity("layer_error", "layer error (%)", percent=True, digits=3)
WALL = Quantity("wall_s", "wall time (s)")
CPU = Quantity("cpu_s", "CPU time (s)")
MEMORY = Quantity("memory_mib", "memory of the method (MiB)", digits=0)


@dataclass(frozen=True, slots=True)
class Entry:
    """All seeds of one method on one model at one density.

    Attributes
    ----------
    good : records of status "ok" by seed
    bad : the others, by seed
    """

    model: str
    density: str
    method: str
    kind: Kind
    source: str
    good: dict[int, dict[str, Any]]
    bad: dict[int, dict[str, Any]]

    def values(self, quantity: Quantity, seeds: Iterable[int] | None = None) -> list[float]:
        wanted = self.good if seeds is None else [s for s in seeds if s in self.good]
        return [quantity.of(self.good[s]) for s in wanted]

    def median(self, quantity: Quantity, seeds: Iterable[int] | None = None) -> float:
        """Of the seeds that were measured; nan if there are none, or if one is nan."""
        values = self.values(quantity, seeds)
        if not values or any(math.isnan(v) for v in values):
            return math.nan
        return statistics.median(values)


def entries(records: Iterable[dict[str, Any]]) -> list[Entry]:
    """One entry for each model, density and method, in the order of `in_order`.

    Raises ValueError if records of one method differ in options, calibration samples or loss: they
    must not be put into one median.
    """
    found: dict[tuple[str, str, str], Entry] = {}
    like: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for r in records:
        at = (r["model"], r["density"], r["method"])
        same = (r["samples"], r["loss"], r.get("options", {}), r["kind"])
        if like.setdefault(at, same) != same:
            raise ValueError(
                f"{r['model']} at {r['density']} by {r['method']} was measured in two ways: "
                f"(samples, loss, options, kind) = {like[at]} and {same}; keep a results folder "
                "for each"
            )
        entry = found.setdefault(at, Entry(*at, r["kind"], r.get("source", "callable"), {}, {}))
        (entry.good if r["status"] == "ok" else entry.bad)[r["seed"]] = r
    return [found[k] for k in sorted(found, key=lambda k: (k[0], _rank(k[1]), k[2]))]


def in_order(densities: Iterable[str]) -> list[str]:
    """Falling densities, then patterns."""
    return sorted(set(densities), key=_rank)


def _rank(text: str) -> tuple[int, float, str]:
    density = Density.parse(text)
    known = DENSITIES.index(text) if text in DENSITIES else len(DENSITIES)
    if density.pattern is not None:
        return 1, known, text
    return 0, -density.value, text


def metric_of(of_model: Sequence[Entry]) -> Quantity:
    """What the model is judged by, from any record of it that is good."""
    for entry in of_model:
        for r in entry.good.values():
            label = f"{r['metric']} (%)" if r["percent"] else r["metric"]
            return Quantity("metric", label, r["higher_is_better"], r["percent"])
    return Quantity("metric", "metric")


@dataclass(frozen=True, slots=True)
class Contest:
    """optiprune's default against the best baseline of its kind on one model at one density.

    Attributes
    ----------
    quantity : what is compared: the metric, or the loss
    ours, best : medians over ``seeds``; nan if there is none
    baseline : name of the best baseline
    seeds : measured for both
    """

    model: str
    density: str
    kind: Kind
    quantity: Quantity
    ours: float
    baseline: str
    best: float
    seeds: tuple[int, ...]
    reason: str = ""

    @property
    def verdict(self) -> str:
        """ "won", "tied" or "lost"; a default that failed has lost."""
        if self.quantity.better(self.best, self.ours):
            return "lost"
        return "won" if self.quantity.better(self.ours, self.best) else "tied"


def contests(of_all: Sequence[Entry]) -> list[Contest]:
    """Every cell in which our default of a kind and a baseline of that kind were measured.

    The best baseline is the one with the best median over the seeds that it has in common with our
    default; where our default failed in all of them, over its own seeds.
    """
    out: list[Contest] = []
    for model in dict.fromkeys(e.model for e in of_all):
        mine = [e for e in of_all if e.model == model]
        for density in in_order(e.density for e in mine):
            for kind, name in DEFAULTS.items():
                here = [e for e in mine if (e.density, e.kind) == (density, kind)]
                default = next((e for e in here if e.method == name), None)
                rivals = [e for e in here if e.source in ("layer", "model") and e.good]
                if default is None or not rivals:
                    continue
                for quantity in (metric_of(mine), LOSS):
                    out.append(_contest(default, rivals, quantity))
    return out


def _contest(default: Entry, rivals: Sequence[Entry], quantity: Quantity) -> Contest:
    best: tuple[float, float, str, tuple[int, ...]] | None = None
    for rival in rivals:
        shared = tuple(sorted(set(default.good) & set(rival.good)))
        seeds = shared or tuple(sorted(rival.good))
        theirs = rival.median(quantity, seeds)
        ours = default.median(quantity, seeds)
        # seeds may differ from rival to rival: by how much each is ahead, not by its value
        lead = theirs - ours if quantity.higher_is_better else ours - theirs
        lead = math.inf if math.isnan(ours) and not math.isnan(theirs) else lead
        lead = -math.inf if math.isnan(lead) else lead
        if best is None or (lead, -ours) > (best[0], -best[1]):
            best = (lead, ours, rival.method, seeds)
    assert best is not None
    _, ours, name, seeds = best
    rival = next(r for r in rivals if r.method == name)
    why = "; ".join(sorted({str(r.get("message", r["status"])) for r in default.bad.values()}))
    return Contest(
        default.model,
        default.density,
        default.kind,
        quantity,
        ours,
        name,
        rival.median(quantity, seeds),
        seeds,
        why,
    )
