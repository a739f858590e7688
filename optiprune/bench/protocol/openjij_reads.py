"""OpenJij's annealer with reads that differ.

With ``seed=`` OpenJij (0.12.2) starts every read from the same state and the same random numbers,
so that ``num_reads`` gives one sample many times. Without it the reads differ, and cannot be
repeated. A comparison owes a sampler its best, so this one is never given a seed.

Needs ``pip install openjij``.
"""

from __future__ import annotations

from typing import Any

import dimod

__all__ = ["OpenJijReads"]


class OpenJijReads(dimod.Sampler):
    """``SASampler`` of OpenJij, unseeded. Raises ImportError, when it is made, without openjij."""

    def __init__(self) -> None:
        import openjij

        self._sampler = openjij.SASampler()

    @property
    def parameters(self) -> dict[str, list[str]]:
        return {"num_reads": [], "num_sweeps": [], "beta_min": [], "beta_max": [], "sparse": []}

    @property
    def properties(self) -> dict[str, Any]:
        return {}

    def sample(
        self,
        bqm: Any,
        *,
        num_reads: int = 10,
        num_sweeps: int = 1000,
        beta_min: float | None = None,
        beta_max: float | None = None,
        sparse: bool | None = None,
    ) -> Any:
        """As `openjij.SASampler.sample`, each read from a state and random numbers of its own."""
        return self._sampler.sample(
            bqm,
            num_reads=num_reads,
            num_sweeps=num_sweeps,
            beta_min=beta_min,
            beta_max=beta_max,
            sparse=sparse,
        )
