"""One layer of a reconstruction: which of its weights are kept, and with which values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.patterns import Block
from optiprune.problems import MIQP
from optiprune.refit import RefitResult
from optiprune.solvers import Solver, Stop, UnsupportedProblemError

from .block_search import BlockSearch, within_blocks
from .budgets import block_of, pattern_of
from .damping import choose_damping
from .errors import StepFailedError
from .joint_search import JointSearch, within_budgets
from .mask_search import MaskSearch
from .reconstruction_result import LayerErrors
from .row_blocks import ROUNDING, Judged

__all__ = ["Decided", "LayerDecision", "decides_layers"]

# (judged rows, sweep, round, seconds)
Record = Callable[[Judged, int, int, float], None]


def decides_layers(config: Config) -> bool:
    """Whether a run decides or re-fits its layers one by one."""
    return config.prune.refit or config.prune.objective == "reconstruction"


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """What `LayerDecision.run` returns.

    Attributes
    ----------
    mask : (rows, cols) bool
    values : (rows, cols) float64, 0 where pruned
    errors : of the layer; the time of its moments is not known here, and 0
    """

    mask: Tensor
    values: Tensor
    errors: LayerErrors


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Values (rows, cols), rows whose refit was undone, and errors (rows,) of masked and of these
    values, on the samples and on held-out ones."""

    values: Tensor
    rejected: int
    masked: Tensor
    refitted: Tensor
    held_masked: Tensor | None
    held_refitted: Tensor | None


def _total(errors: Tensor | None) -> float | None:
    return None if errors is None else float(errors.sum())


@dataclass(slots=True)
class LayerDecision:
    """Search and refit of one layer, its moments given.

    Attributes
    ----------
    grams : of the parts of the calibration samples, see `damping.fold`
    held : of held-out samples, which judge; None without
    w : (rows, cols) float64, dense weights
    mask : (rows, cols) bool, the first one; then what is reached, also where `run` ends early
    seed : of the layer; children are derived by sweep, round and row
    share : of the layer's rows that get batches of their own, see `JointSearch.improve`
    record : called with every round that was judged
    """

    layer: PrunableLayer
    grams: Sequence[LayerGram]
    held: LayerGram | None
    w: Tensor
    mask: Tensor
    config: Config
    solver: Solver
    stop: Stop | None
    seed: np.random.SeedSequence
    share: float
    record: Record

    def run(self) -> Decided:
        """Choose the mask, fit the values.

        Raises
        ------
        StepFailedError
            The solver raised, or returned something that is not a solution.
        UnsupportedProblemError
            The solver does not take the problem.
        """
        start = time.perf_counter()
        first, w, held, refit = self.mask, self.w, self.held, self.config.prune.refit
        fit: RefitResult | None = None
        refit_s = 0.0
        gram, damping = choose_damping(self.grams, w, first, self.config)
        block = block_of(self.layer, self.config)
        if block is not None:
            blocks = self._blocks(gram, block, damping)
            self.mask, energy, refit_s = blocks.mask, blocks.energy, blocks.refit_s
            fit = blocks.fit if refit else None
        elif refit:
            joint = self._joint(gram, damping)
            self.mask, energy, fit, refit_s = joint.mask, joint.energy, joint.fit, joint.refit_s
        else:
            self._search(gram)
            energy = gram.target_energy(w)
        search_s = time.perf_counter() - start - refit_s
        fitted = self._fitted(gram, fit, energy)
        before = torch.where(first, w, 0.0)
        errors = LayerErrors(
            layer=self.layer.name,
            parameter=self.layer.parameter,
            rows=self.layer.rows,
            cols=self.layer.cols,
            density=float(self.mask.double().mean()),
            changed=int((self.mask != first).sum()),
            target=float(energy.sum()),
            initial=float(gram.error(before, w).sum()),
            masked=float(fitted.masked.sum()),
            refitted=float(fitted.refitted.sum()) if refit else None,
            holdout_initial=None if held is None else float(held.error(before, w).sum()),
            holdout_masked=_total(fitted.held_masked),
            holdout_refitted=_total(fitted.held_refitted) if refit else None,
            damping=damping if refit else None,
            refit_failed=0 if fit is None else int(fit.failed.sum()),
            refit_damped=0 if fit is None else int(fit.raised.sum()),
            refit_rejected=fitted.rejected,
            gram_s=0.0,
            search_s=search_s,
            refit_s=refit_s,
        )
        return Decided(self.mask, fitted.values, errors)

    def _fitted(self, gram: LayerGram, fit: RefitResult | None, energy: Tensor) -> _Fitted:
        """Rows that their refit made worse on held-out samples stay as they were; ``energy``: of
        the rows' dense outputs."""
        w, held = self.w, self.held
        masked = torch.where(self.mask, w, 0.0)
        if fit is None:
            error = gram.error(masked, w)
            on_held = None if held is None else held.error(masked, w)
            return _Fitted(masked, 0, error, error, on_held, on_held)
        if bool(self.mask.all()):
            before, after = gram.error(masked, w), gram.error(fit.values, w)
        else:
            # measured by the refit, up to rounding: where all stays, they have to be 0
            before, after = fit.error_before, fit.error_after
        if held is None:
            return _Fitted(fit.values, 0, before, after, None, None)
        held_before, held_after = held.error(masked, w), held.error(fit.values, w)
        floor = self.config.accept.tolerance + ROUNDING * energy
        undo = held_after - held_before > floor
        return _Fitted(
            values=torch.where(undo[:, None], masked, fit.values),
            rejected=int(undo.sum()),
            masked=before,
            refitted=torch.where(undo, before, after),
            held_masked=held_before,
            held_refitted=torch.where(undo, held_before, held_after),
        )

    def _joint(self, gram: LayerGram, damping: float) -> JointSearch:
        """The mask and its refit, chosen together where the solver and the pattern allow."""
        options = self.config.joint
        pattern = pattern_of(self.layer, self.config)
        # a pattern's groups are enumerated, without the solver
        subsets = pattern is not None or MIQP in self.solver.capabilities.problems
        subsets = subsets and options.enabled
        if not subsets:
            self._search(gram)
        first = self.mask
        search = JointSearch(gram, self.held, self.w, first, self.config, damping)
        if options.enabled and options.start == "admm":
            by_row = self.config.prune.scope == "row"
            search.start(lambda score: within_budgets(score, first, by_row, pattern))
        if subsets and (options.rounds if pattern is None else options.sweeps):
            began = time.perf_counter()
            with self._failing(lambda: f"layer '{self.layer.name}'"):
                seeds = self._seeds(0, 0)
                judged = search.improve(self.solver, self.stop, seeds, pattern, self.share)
            self.record(judged, 0, 0, time.perf_counter() - began)
        return search

    def _blocks(self, gram: LayerGram, block: Block, damping: float) -> BlockSearch:
        """The mask in whole tiles, and its refit if there is one."""
        first = self.mask
        search = BlockSearch(gram, self.held, self.w, first, self.config, damping)
        options = self.config.joint
        if self.config.prune.refit and options.enabled and options.start == "admm":
            by_band = self.config.prune.scope == "row"
            search.start(lambda score: within_blocks(score, first, by_band, block))
        with self._failing(lambda: f"layer '{self.layer.name}'"):
            rounds = search.search(self.solver, self.stop, lambda turn: self._seeds(turn, 0), block)
        for turn, (judged, seconds) in enumerate(rounds):
            self.record(judged, turn, 0, seconds)
        return search

    def _search(self, gram: LayerGram) -> None:
        """The mask alone, round by round."""
        search = MaskSearch(
            self.layer, gram, self.held, self.w, self.mask, self.config, self.solver, self.stop
        )

        def where() -> str:
            return f"layer '{self.layer.name}', row {search.row}, sweep {search.sweep}"

        rounds = search.rounds(lambda sweep, turn: self._seeds(sweep, turn))
        while True:
            with self._failing(where):
                done = next(rounds, None)
            if done is None:
                return
            self.mask = torch.from_numpy(search.mask.copy()).to(self.mask.device)
            self.record(done.judged, done.sweep, done.turn, done.seconds)

    def _seeds(self, sweep: int, turn: int) -> Callable[[int], np.random.SeedSequence]:
        """Row -> its seed in this round."""
        parent = (*self.seed.spawn_key, sweep, turn)
        return lambda row: np.random.SeedSequence(
            entropy=self.seed.entropy, spawn_key=(*parent, row)
        )

    @contextmanager
    def _failing(self, where: Callable[[], str]) -> Iterator[None]:
        """What the solver raises inside is a step that failed."""
        try:
            yield
        except UnsupportedProblemError:
            raise  # a wrong choice of solver, and nothing was done yet
        except Exception as e:
            raise StepFailedError(
                f"{where()}: solver '{self.solver.name}' failed: {type(e).__name__}: {e}"
            ) from e
