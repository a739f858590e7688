"""Which M of N blocks a model can do without: a quadratic in one gate a block, fixed cardinality.

With a gate, a block hands on ``x + z (out - x)``, z = 1 where it stays. The loss is expanded to
second order in the gates, its curvature that of labels drawn from the model's own outputs (as in
`unit_fisher`), and which N - M stay is an Ising problem of fixed magnetisation (arXiv 2602.00161),
here one of fixed cardinality. Removing a block is no small step. So what each block costs alone is
measured and takes the place of the expansion's, which is left the interactions; several selections
of low energy and that of least influence are run, and exchanged for neighbours while that lowers
the loss itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune import solvers
from optiprune.curvature import Batch, CalibrationSet
from optiprune.curvature.loss_pass import require_terms, sample_seed
from optiprune.curvature.losses import (
    LossFunction,
    logits_of,
    loss_terms,
    sampled_label_loss,
)
from optiprune.curvature.runner import run_model, untouched
from optiprune.solvers import Solver, TimeLimit
from optiprune.structure import Block, WithoutBlocks, find_blocks, remove_blocks
from optiprune.structure.blocks import given, handed_on, skipped

from .errors import ShrinkingError
from .influence import block_influence
from .low_energy import Selection, gate_problem, low_energy, neighbours
from .setting import setting_of

__all__ = ["BlockResult", "BlockSearch", "BlockSelection", "gate_quadratic", "optimize_blocks"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlockSelection:
    """Blocks that leave, the change of the loss that the quadratic predicts, and the loss."""

    removed: tuple[str, ...]
    predicted: float
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class BlockResult:
    """What `optimize_blocks` returns.

    Attributes
    ----------
    model : without the blocks; the model that was given is as it was
    removed : their names
    tried : selections of low energy that were run, the least loss first
    loss_before, loss_after : on the data that ranked the selections
    without : with the comparison of the smaller model with the one that skips the blocks
    """

    model: nn.Module
    removed: tuple[str, ...]
    tried: tuple[BlockSelection, ...]
    loss_before: float
    loss_after: float
    without: WithoutBlocks


def optimize_blocks(
    model: nn.Module,
    data: Iterable[Any],
    *,
    remove: int,
    solutions: int = 16,
    exchanges: int = 4,
    rank_samples: int | None = None,
    alone: Literal["measured", "predicted"] = "measured",
    loss: str | LossFunction = "auto",
    solver: str | Solver = "auto",
    solver_seconds: float = 5.0,
    chunk: int = 64,
    seed: int = 0,
) -> BlockResult:
    """Remove whole blocks from a model.

    Parameters
    ----------
    model : is left as it was
    data : as for `optiprune.optimize_masks`
    remove : M, how many blocks leave
    solutions : selections of low energy that are run with the model, beside that of least influence
    exchanges : rounds in which the selection of least loss gives way to the best of its
        ``solutions`` neighbours of low energy, while that lowers the loss
    rank_samples : samples on which blocks alone and selections are run; None takes all
    alone : what a block costs alone: "measured", a run of ``rank_samples`` for each block, or as
        the expansion predicts it
    loss, solver, solver_seconds, seed : as for `optimize_structure`
    chunk : samples at once

    Raises
    ------
    ShrinkingError
        Fewer blocks than that, a loss without labels to draw, or blocks whose first dimension does
        not count samples.
    GateError, CalibrationError
        As for `optimize_structure`.
    """
    search = BlockSearch(
        model, data, rank_samples=rank_samples, alone=alone, loss=loss, chunk=chunk, seed=seed
    )
    return search.without(
        remove,
        solutions=solutions,
        exchanges=exchanges,
        solver=solver,
        solver_seconds=solver_seconds,
    )


class BlockSearch:
    """A model's blocks with their quadratic, for any number of removals.

    Parameters and errors are those of `optimize_blocks`.

    Attributes
    ----------
    blocks : that can leave
    g, H : linear (blocks,) and quadratic (blocks, blocks) part of the loss in their gates
    influence : of each block, (blocks,), see `block_influence`
    loss_before : of the whole model, on the data that rank selections
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        *,
        rank_samples: int | None = None,
        alone: Literal["measured", "predicted"] = "measured",
        loss: str | LossFunction = "auto",
        chunk: int = 64,
        seed: int = 0,
    ) -> None:
        if alone not in ("measured", "predicted"):
            raise ShrinkingError(f"alone {alone!r}: there are 'measured' and 'predicted'")
        setting = setting_of(model, data, loss, draws=True)
        self.model, self._chunk = model, chunk
        self._args, self._kwargs = setting.args, setting.kwargs
        self._loss, self._own = setting.loss, setting.own
        self.blocks = find_blocks(model, self._args, self._kwargs)
        sampling, self._search, part = np.random.SeedSequence(seed).spawn(3)
        self._judge = setting.data
        if rank_samples is not None:
            self._judge = setting.data.sample(rank_samples, np.random.default_rng(part))
        self.g, self.H = gate_quadratic(
            model, self.blocks, setting.data, self._loss, sampling, own=self._own, chunk=chunk
        )
        self.loss_before = self._lost(())
        if alone == "measured":
            rise = np.array([self._lost((b.name,)) for b in self.blocks]) - self.loss_before
            # a block whose loss is no number without it leaves after all the others
            known = np.abs(rise[np.isfinite(rise)])
            rise[~np.isfinite(rise)] = len(rise) * max(1.0, known.max(initial=0.0))
            self.g = 0.5 * np.diag(self.H) - rise
        self.influence = block_influence(model, self.blocks, self._judge, chunk)

    def without(
        self,
        remove: int,
        *,
        solutions: int = 16,
        exchanges: int = 4,
        solver: str | Solver = "auto",
        solver_seconds: float = 5.0,
    ) -> BlockResult:
        """The model without M blocks; parameters and errors as for `optimize_blocks`."""
        n = len(self.blocks)
        if not 0 <= remove < n:
            raise ShrinkingError(
                f"{remove} blocks cannot leave: the model has {n} that keep the shape of their "
                "input, and one must stay"
            )
        problem = gate_problem(self.g, self.H, n - remove)
        measured: dict[bytes, BlockSelection] = {}

        def run(x: Selection) -> None:
            if x.tobytes() not in measured:
                names = tuple(
                    b.name for b, stays in zip(self.blocks, x.tolist(), strict=True) if not stays
                )
                selection = BlockSelection(names, float(problem.energy(x)), self._lost(names))
                measured[x.tobytes()] = selection

        chosen = solvers.get(solver) if isinstance(solver, str) else solver
        start = np.ones(n, dtype=np.int8)
        start[np.argsort(0.5 * np.diag(self.H) - self.g, kind="stable")[:remove]] = 0
        stop = TimeLimit(solver_seconds)
        least = np.ones(n, dtype=np.int8)
        least[np.argsort(self.influence, kind="stable")[:remove]] = 0
        run(least)
        for x in low_energy(problem, chosen, stop, start, self._search, solutions):
            run(x)
        for _ in range(exchanges):
            best = min(measured, key=lambda key: measured[key].loss)
            for x in neighbours(problem, np.frombuffer(best, dtype=np.int8), solutions):
                run(x)
            if min(measured, key=lambda key: measured[key].loss) == best:
                break
        tried = tuple(sorted(measured.values(), key=lambda t: t.loss))
        without = remove_blocks(
            self.model, tried[0].removed, self._args, self._kwargs, blocks=self.blocks
        )
        return BlockResult(
            without.model, tried[0].removed, tried, self.loss_before, tried[0].loss, without
        )

    def _lost(self, names: Sequence[str]) -> float:
        lost = loss_without(
            self.model, names, self._judge, self._loss, own=self._own, chunk=self._chunk
        )
        return math.inf if math.isnan(lost) else lost  # so that it ranks last


def gate_quadratic(
    model: nn.Module,
    blocks: Sequence[Block],
    data: CalibrationSet,
    loss: LossFunction,
    seed: np.random.SeedSequence,
    *,
    own: bool,
    chunk: int = 64,
) -> tuple[FloatArray, FloatArray]:
    """Gradient (blocks,) and curvature (blocks, blocks) of the loss in the blocks' gates.

    Parameters
    ----------
    own : the targets are the model's own outputs: the gradient is 0

    Raises as `optimize_blocks`.
    """
    n = len(blocks)
    H, g = np.zeros((n, n)), np.zeros(n)
    terms = 0
    weights = {k: p.detach() for k, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(sample_seed(seed))
    for batch in data.batches(chunk):
        with untouched(model), torch.enable_grad(), _gates(model, blocks, batch.n) as z:
            output = run_model(model, weights, batch.inputs)
            targets = logits_of(output).detach() if own else batch.targets
            count = loss_terms(loss, output, targets, batch.n)
            if not count:
                continue
            drawn = sampled_label_loss(output, targets, loss, generator)
            (u,) = torch.autograd.grad(drawn, z, retain_graph=not own)
            by_sample = u.double().cpu().numpy() * count
            H += by_sample @ by_sample.T
            if not own:
                (u,) = torch.autograd.grad(loss(output, targets), z)
                g += u.double().sum(1).cpu().numpy() * count
            terms += count
    require_terms(terms)
    return g / terms, H / terms


@contextmanager
def _gates(model: nn.Module, blocks: Sequence[Block], samples: int) -> Iterator[Tensor]:
    """(blocks, samples) ones that ask for gradients, one for each block and sample."""
    device = next(model.parameters()).device
    z = torch.ones(len(blocks), samples, device=device, requires_grad=True)
    handles = []

    def gated(i: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
            x, y = given(args, kwargs), handed_on(out)
            if x is None or y is None or y.shape[0] != samples:
                raise ShrinkingError(
                    f"block {blocks[i].name!r} hands on a tensor of shape "
                    f"{None if y is None else tuple(y.shape)}: its first dimension must count the "
                    f"{samples} samples"
                )
            gate = z[i].reshape(-1, *[1] * (y.ndim - 1)).to(y.dtype)
            y = x + gate * (y - x)
            return (y, *out[1:]) if isinstance(out, tuple) else y

        return hook

    try:
        for i, block in enumerate(blocks):
            module = model.get_submodule(block.name)
            handles.append(module.register_forward_hook(gated(i), with_kwargs=True))
        yield z
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def loss_without(
    model: nn.Module,
    names: Sequence[str],
    data: CalibrationSet,
    loss: LossFunction,
    *,
    own: bool,
    chunk: int = 64,
) -> float:
    """Mean loss of the model that skips some blocks; ``own``: against its whole outputs."""

    def output(batch: Batch, without: Sequence[str]) -> Any:
        handles = skipped(model, without)
        try:
            return run_model(model, {}, batch.inputs)
        finally:
            for handle in handles:
                handle.remove()

    total, terms = 0.0, 0
    with untouched(model):
        for batch in data.batches(chunk):
            targets = logits_of(output(batch, ())) if own else batch.targets
            result = output(batch, names)
            count = loss_terms(loss, result, targets, batch.n)
            if count:
                total += float(loss(result, targets)) * count
                terms += count
    require_terms(terms)
    return total / terms
