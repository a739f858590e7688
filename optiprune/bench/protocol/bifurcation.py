"""The simulated-bifurcation package (Goto et al., Science Advances 5, eaav2372) as a dimod sampler.

Needs ``pip install simulated-bifurcation``, which brings torch.
"""

from __future__ import annotations

import warnings
from typing import Any

import dimod
import numpy as np

__all__ = ["BifurcationSampler"]


class BifurcationSampler(dimod.Sampler):
    """``minimize`` of the package over binary variables; ``num_reads`` agents, the best is given.

    Raises ImportError, when it is made, without the package.
    """

    def __init__(self) -> None:
        import simulated_bifurcation

        self._minimize = simulated_bifurcation.minimize

    @property
    def parameters(self) -> dict[str, list[str]]:
        return {"num_reads": [], "seed": [], "mode": [], "heated": [], "max_steps": []}

    @property
    def properties(self) -> dict[str, Any]:
        return {}

    def sample(
        self,
        bqm: Any,
        *,
        num_reads: int = 10,
        seed: int | None = None,
        mode: str = "ballistic",
        heated: bool = False,
        max_steps: int = 10_000,
    ) -> Any:
        """Sample a BQM over the variables 0 .. n-1. Leaves torch's global generator as it was."""
        import torch

        linear, (row, col, value), _ = bqm.binary.to_numpy_vectors(range(bqm.num_variables))
        q = np.zeros((bqm.num_variables, bqm.num_variables))
        q[row, col] = value
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # what it gives then is an answer as good as others
            warnings.filterwarnings("ignore", message="No agent has converged")
            if seed is not None:
                torch.manual_seed(seed)
            x, _ = self._minimize(
                torch.from_numpy((q + q.T) / 2).float(),
                torch.from_numpy(np.asarray(linear)).float(),
                domain="binary",
                agents=num_reads,
                mode=mode,
                heated=heated,
                max_steps=max_steps,
                verbose=False,
                best_only=True,
            )
        found = np.rint(x.numpy()).astype(np.int8)[None, :]
        return dimod.SampleSet.from_samples_bqm((found, range(bqm.num_variables)), bqm.binary)
