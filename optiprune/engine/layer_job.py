"""A layer's decision as a task that any process can do, to the same bits.

What is sent has the strides that it has here, sums are taken in the same number of threads, and a
worker that would add up otherwise (other versions, another processor) is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optiprune import __version__
from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.executors import ExecutorError
from optiprune.solvers import Solver, Stop, UnsupportedProblemError

from .errors import StepFailedError
from .layer_decision import LayerDecision
from .reconstruction_result import LayerErrors, RowBlockRecord
from .row_blocks import Judged, row_blocks
from .threads import fixed_threads

__all__ = [
    "LayerJob",
    "LayerOutcome",
    "PackedGram",
    "WorkerMismatchError",
    "decide_layer",
    "require_alike",
    "traits",
]

Floats = npt.NDArray[np.float64]
# what decides about the last bit of a sum, and about what is summed
_LIBRARIES = ("torch", "numpy", "scipy", "numba")


class WorkerMismatchError(ExecutorError):
    """A worker that would decide otherwise than this process; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedGram:
    """A `LayerGram` in arrays of NumPy; C and D are None where H stands for them."""

    H: Floats
    C: Floats | None
    D: Floats | None
    n: int
    mean: Floats | None

    @classmethod
    def of(cls, gram: LayerGram) -> PackedGram:
        def array(x: Tensor | None) -> Floats | None:
            return None if x is None else x.detach().cpu().contiguous().numpy()

        H = array(gram.H)
        assert H is not None
        C, D = (None, None) if gram.same_inputs else (array(gram.C), array(gram.D))
        return cls(H, C, D, gram.n, array(gram.mean))

    def unpacked(self, device: torch.device) -> LayerGram:
        def tensor(x: Floats) -> Tensor:
            # in memory of torch's own: how it is aligned can decide about the order of a sum
            return torch.tensor(x, device=device)

        H = tensor(self.H)
        C = H if self.C is None else tensor(self.C)
        D = H if self.D is None else tensor(self.D)
        return LayerGram(H, C, D, self.n, None if self.mean is None else tensor(self.mean))


@dataclass(frozen=True, slots=True, eq=False)
class LayerJob:
    """All that the decision of a layer follows from, but for its Gram matrices.

    Attributes
    ----------
    layer : its modules are not looked at
    w : (rows, cols) dense weights, in the dtype of the model
    mask : (rows, cols) bool, the first one
    parts : how many of the Gram matrices are those of `damping.fold`; one that follows judges
    solver, stop, seed, share : as in `LayerDecision`
    """

    layer: PrunableLayer
    w: Tensor
    mask: Tensor
    parts: int
    config: Config
    solver: Solver
    stop: Stop | None
    seed: np.random.SeedSequence
    share: float

    def sent(self) -> LayerJob:
        """As it goes to another process: without modules, on the CPU, its rows in one thread."""
        return replace(
            self,
            layer=replace(self.layer, modules=()),
            w=self.w.detach().cpu().contiguous(),
            mask=self.mask.detach().cpu().contiguous(),
            config=self.config.model_copy(update={"workers": 1}),
        )


@dataclass(frozen=True, slots=True, eq=False)
class LayerOutcome:
    """What `decide_layer` returns.

    Attributes
    ----------
    mask : (rows, cols) bool, also where the decision failed
    values : (rows, cols) in the dtype of the weights, 0 where pruned; None where it failed
    errors : None where it failed
    records : of the rounds that were judged
    failure : what the solver is to blame for
    """

    mask: Tensor
    values: Tensor | None
    errors: LayerErrors | None
    records: tuple[RowBlockRecord, ...]
    failure: StepFailedError | UnsupportedProblemError | None


def decide_layer(
    job: LayerJob, expected: Mapping[str, str], threads: int, on: str, *grams: PackedGram
) -> LayerOutcome:
    """Do a job.

    Parameters
    ----------
    expected : `traits` of the process that sent it
    threads : of torch and BLAS
    on : 'cpu' or 'cuda'
    grams : of the parts of the samples, then of the held-out samples if there are any

    Raises
    ------
    WorkerMismatchError
    """
    require_alike(expected, threads, on)
    device = torch.device(on)
    records: list[RowBlockRecord] = []

    def record(judged: Judged, sweep: int, turn: int, wall_s: float) -> None:
        records.extend(row_blocks(judged, job.layer.name, sweep, turn, job.solver.name, wall_s))

    with fixed_threads(threads):
        found = [gram.unpacked(device) for gram in grams]
        decision = LayerDecision(
            layer=job.layer,
            grams=found[: job.parts],
            held=found[job.parts] if len(found) > job.parts else None,
            w=job.w.to(device, torch.float64),
            mask=job.mask.to(device),
            config=job.config,
            solver=job.solver,
            stop=job.stop,
            seed=job.seed,
            share=job.share,
            record=record,
        )
        try:
            decided = decision.run()
        except (StepFailedError, UnsupportedProblemError) as e:
            return LayerOutcome(decision.mask.cpu(), None, None, tuple(records), e)
    values = decided.values.to(job.w.dtype).cpu()
    return LayerOutcome(decided.mask.cpu(), values, decided.errors, tuple(records), None)


def traits(threads: int, on: str) -> dict[str, str]:
    """What the bits of a decision depend on, besides its job.

    On a GPU the versions alone: sums there may differ in their last bits from run to run.
    """
    table = {"optiprune": __version__} | {name: version(name) for name in _LIBRARIES}
    return table if on != "cpu" else table | {"how sums are rounded": _sums(threads)}


def require_alike(expected: Mapping[str, str], threads: int, on: str) -> None:
    """Raise `WorkerMismatchError` where this process differs, or has no GPU to work ``on``."""
    if on == "cuda" and not torch.cuda.is_available():
        raise WorkerMismatchError(
            "a task asked for a GPU (executor.gpus), but torch sees none in its worker; install a "
            "CUDA build of torch there, or label nodes so that tasks go elsewhere"
        )
    own = traits(threads, on)
    for name, value in expected.items():
        if own.get(name) != value:
            raise WorkerMismatchError(
                f"a worker would decide otherwise: {name} is {own.get(name)} there and {value} "
                "here; use the same versions and the same kind of processor, or choose nodes by "
                "executor.resources"
            )


@lru_cache
def _sums(threads: int) -> str:
    """Digest of some sums: libraries choose their order by the processor that they find."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 257, dtype=torch.float64, generator=generator)
    digest = hashlib.sha256()
    with fixed_threads(threads):
        H = x.T @ x / 300 + 0.1 * torch.eye(257, dtype=torch.float64)
        factor = torch.linalg.cholesky(H)
        values = torch.linalg.eigh(H)[0]
        single = x.float().T @ x.float()
        inverse = np.linalg.inv(H.numpy())
        for part in (H, factor, values, single, torch.from_numpy(inverse), H.sum(0)):
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
