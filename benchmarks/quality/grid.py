"""The cells of the benchmark: one model, one density, one method, one seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from optiprune.config import parse_pattern

from .methods import Method

__all__ = ["DENSITIES", "Cell", "Density", "cells", "record_key"]

DENSITIES = ("0.5", "0.3", "0.2", "0.1", "0.05", "2:4", "4:8")


@dataclass(frozen=True, slots=True)
class Density:
    """How many weights stay: a share of all, or N of every M.

    Attributes
    ----------
    value : share of the weights that take part, 0 < value < 1
    pattern : (N, M) or None
    """

    value: float
    pattern: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str | float) -> Density:
        """From "0.1" or "2:4". Raises ValueError, which says what is expected."""
        if isinstance(text, str) and ":" in text:
            pattern = parse_pattern(text)
            assert pattern is not None
            return cls(pattern[0] / pattern[1], pattern)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise ValueError(f"a density is a number between 0 and 1, or N:M as 2:4; got {text!r}")
        return cls(value)

    def __str__(self) -> str:
        return f"{self.pattern[0]}:{self.pattern[1]}" if self.pattern else f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes
    ----------
    model : name of the model
    density, method, seed : what is done to it
    samples : calibration samples
    loss : of the methods that look at the model's loss, as ``prune.loss`` of the config
    """

    model: str
    density: Density
    method: Method
    seed: int
    samples: int
    loss: str = "auto"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this measurement from another; time limits and threads do not."""
        return {
            "model": self.model,
            "density": str(self.density),
            "method": self.method.name,
            "options": self.method.options,
            "seed": self.seed,
            "samples": self.samples,
            "loss": self.loss,
        }

    @property
    def key(self) -> str:
        return record_key(self.identity)

    def __str__(self) -> str:
        return f"{self.model} at {self.density} by {self.method.name}, seed {self.seed}"


def record_key(identity: dict[str, Any]) -> str:
    """A short name of an identity: the same for equal ones, in whatever order they are written."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells(
    models: Iterable[tuple[str, int]],
    densities: Sequence[Density],
    methods: Sequence[Method],
    seeds: Sequence[int],
    loss: str = "auto",
) -> Iterator[Cell]:
    """The grid, the first seed of everything first, so that a table fills evenly.

    ``models`` are pairs (name, calibration samples). What a method cannot do (a pattern, for a
    method that ranks the weights of a whole model) is left out.
    """
    for seed, (model, samples), density, method in product(seeds, models, densities, methods):
        if density.pattern is None or method.takes_patterns:
            yield Cell(model, density, method, seed, samples, loss)
