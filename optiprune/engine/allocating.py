"""How many weights each layer keeps: the common budget shared out as `allocation` says."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.allocation import (
    AllocationError,
    CheapPruning,
    DamageCurve,
    LayerCost,
    density_levels,
    layer_costs,
    layer_error_damages,
    loss_damages,
    multiply_adds_per_weight,
    outlier_share,
    owl_densities,
    solve_knapsack,
    spend_rest,
    spending_limit,
    whole_counts,
    with_dense_targets,
)
from optiprune.config import Config, ConfigError
from optiprune.curvature import CalibrationSet, PrunableLayer, mean_loss
from optiprune.curvature.gram import input_norms, wanda_scores
from optiprune.curvature.layers import sparsity_by_pattern
from optiprune.curvature.losses import (
    LossFunction,
    has_true_fisher,
    logits_of,
    mean_squared,
    resolve_loss,
)
from optiprune.curvature.runner import run_model, untouched
from optiprune.curvature.sensitivity import output_curvature

from .allocation_report import AllocatedLayer, AllocationReport
from .budgets import scope_of
from .damping import fixed_damping
from .errors import BudgetError
from .state import WeightState

__all__ = ["Allocation", "allocates", "first_by_counts", "require_allocatable"]

# choices offered for a layer between its first level and all of its weights
_CHOICES = 64

Counts = npt.NDArray[np.int64]


def allocates(config: Config) -> bool:
    """Whether densities differ from layer to layer, or are not a share of the parameters."""
    options = config.allocation
    return options.method in ("owl", "knapsack") or options.budget != "parameters"


def require_allocatable(config: Config) -> None:
    """Raise `ConfigError` for options that leave nothing to allocate, or would undo it."""
    options = config.allocation
    asked = f"allocation.method = '{options.method}' with budget = '{options.budget}'"
    if config.prune.pattern != "unstructured":
        raise ConfigError(
            f"{asked} needs pattern = 'unstructured', since N:M fixes the density of every layer "
            f"and blocks come in whole tiles; got '{config.prune.pattern}'"
        )
    if config.initial.method == "nonzero":
        raise ConfigError(
            f"initial.method = 'nonzero' keeps what is non-zero layer by layer, where {asked} sets "
            "other numbers; take it out, or start from 'magnitude'"
        )
    if options.budget != "parameters" and scope_of(config) == "global":
        raise ConfigError(
            f"with scope 'global' the search moves weights between layers, and not all cost the "
            f"same in {options.budget}: the budget would not hold; set prune.scope = 'layer'"
        )


@dataclass(slots=True)
class Allocation:
    """The layers that share the common budget, and what they may cost together.

    Attributes
    ----------
    loss : as given to the run, name or callable
    notes : what the user should know, shared with the run
    layers : those without a sparsity of their own
    """

    model: nn.Module
    state: WeightState
    train: CalibrationSet
    holdout: CalibrationSet | None
    config: Config
    loss: str | LossFunction
    notes: list[str]
    layers: list[PrunableLayer] = field(init=False)
    _costs: list[LayerCost] = field(init=False)
    _steps: list[int] = field(init=False)
    _least: list[int] = field(init=False)
    _limit: float = field(init=False)
    _levels: list[list[int]] = field(init=False, default_factory=list)
    _judge: tuple[CalibrationSet, LossFunction] | None = field(init=False, default=None)
    _train: CalibrationSet = field(init=False)
    _began: float = field(init=False, default=0.0)

    def prepare(self) -> None:
        """Refuse what cannot work, before anything is measured.

        Raises
        ------
        BudgetError
            The fewest weights that the layers may keep, or the sparsest levels, exceed the budget.
        CalibrationError
            The loss of the curves does not work on the held-out data.
        """
        began = time.perf_counter()
        config, options = self.config, self.config.allocation
        own = config.layers.sparsity
        self.layers = [x for x in self.state.layers if sparsity_by_pattern(x, own) is None]
        by_row = scope_of(config) == "row"
        self._steps = [x.rows if by_row else 1 for x in self.layers]
        floor = max(0, config.layers.min_kept)
        self._least = [-(-floor // s) * s for s in self._steps]
        dense, positions = self.state.dense_weights(), None
        if options.budget == "flops" and self.layers:
            positions = multiply_adds_per_weight(self.model, self.layers, dense, self.train)
        itemsize = {x.name: dense[x.parameter].element_size() for x in self.layers}
        self._costs = layer_costs(
            options.budget, self.layers, positions=positions, itemsize=itemsize
        )
        self._limit = spending_limit(options.budget, self._costs, 1.0 - config.prune.sparsity)
        try:
            self._uniform()
        except AllocationError as e:
            raise BudgetError(f"budget '{options.budget}': {e}") from e
        if options.method == "knapsack" and self.layers:
            self._prepare_curves()
        self._began = time.perf_counter() - began

    def _prepare_curves(self) -> None:
        config, options = self.config, self.config.allocation
        # streams of their own: the rest of the run draws as it does without an allocation
        draws = np.random.SeedSequence(config.seed, spawn_key=(2,)).spawn(2)
        fit, judge = (np.random.default_rng(s) for s in draws)
        self._train = self.train.sample(options.samples, fit)
        held = self.holdout
        if held is None:
            self.notes.append(
                "allocation: there are no held-out data, so that damages were measured on the "
                "samples of the fits"
            )
        sparsest = 0.0
        densities = options.densities or density_levels(
            self._common_density(), options.levels, options.span
        )
        for cost, step, least in zip(self._costs, self._steps, self._least, strict=True):
            counts = {max(least, step, _whole(d * cost.size, step)) for d in densities}
            # the whole layer does no damage and needs no measurement
            self._levels.append(sorted(c for c in counts if c < cost.size) or [cost.size])
            sparsest += cost.of(self._levels[-1][0])
        if sparsest > self._limit:
            raise BudgetError(
                f"the sparsest levels of the layers cost {sparsest:.12g} together, more than the "
                f"{self._limit:.12g} that are allowed ({options.budget}); give smaller "
                "allocation.densities, or a larger allocation.span"
            )
        if options.curve == "layer-error":
            return
        if options.curve == "fisher":
            few = self._train.sample(options.judging, judge)
            self._judge = few, self._sampled_loss(few)
            return
        few = (self._train if held is None else held).sample(options.judging, judge)
        dense = self.state.dense_weights()
        name = self._loss_name(few)
        if name == "kl":
            few = with_dense_targets(self.model, dense, few, config.curvature.chunk)
        targets = next(iter(few.batches(1))).targets
        self._judge = few, resolve_loss(name, targets)
        mean_loss(self.model, dense, *self._judge, chunk=config.curvature.chunk)

    def _loss_name(self, few: CalibrationSet) -> str | LossFunction:
        """The loss of the curves: in reconstruction it needs no labels."""
        if self.loss != "auto" or self.config.prune.objective != "reconstruction":
            return self.loss
        targets = next(iter(few.batches(1))).targets
        return "mse" if isinstance(targets, Tensor) and targets.is_floating_point() else "kl"

    def _sampled_loss(self, few: CalibrationSet) -> LossFunction:
        """A loss whose labels the model itself can draw, tried on one sample.

        Raises `ConfigError` for any other.
        """
        first = next(iter(few.batches(1)))
        name = self._loss_name(few)
        with torch.no_grad(), untouched(self.model):
            out = logits_of(run_model(self.model, self.state.dense_weights(), first.inputs))
        if self.loss == "auto" and name == "kl" and out.shape[-1] < 2:
            return mean_squared  # one number is no class: its softmax is 1 whatever it is
        loss = resolve_loss(name, first.targets)
        if not has_true_fisher(loss):
            raise ConfigError(
                "allocation.curve = 'fisher' needs loss = cross_entropy, kl or mse, since labels "
                "must be sampled; use curve = 'layer-error' or 'loss' with this loss"
            )
        return loss

    def _common_density(self) -> float:
        """The density at which all layers together cost the limit."""
        fixed = math.fsum(c.fixed for c in self._costs)
        return (self._limit - fixed) / math.fsum(c.unit * c.size for c in self._costs)

    def _uniform(self) -> Counts:
        if not self.layers:
            return np.zeros(0, np.int64)
        return self._whole_counts([self._common_density()] * len(self.layers))

    def _whole_counts(self, densities: Sequence[float] | npt.NDArray[np.float64]) -> Counts:
        wanted = [max(0.0, d) * c.size for d, c in zip(densities, self._costs, strict=True)]
        return whole_counts(wanted, self._costs, self._steps, self._least, self._limit)

    def run(self, score: npt.NDArray[np.floating]) -> AllocationReport:
        """What each layer keeps, and how that came about; ``score`` (P,) of the first mask.

        Raises `CalibrationError` from the measurements.
        """
        began = time.perf_counter() - self._began
        method = self.config.allocation.method
        shares: list[float] = []
        curves: list[DamageCurve] = []
        kept = self._uniform()
        predicted: tuple[float, float] | None = None
        if method == "owl" and self.layers:
            shares = self._outliers()
            sizes = [c.unit * c.size for c in self._costs]
            reach = self.config.allocation.owl_range
            kept = self._whole_counts(
                owl_densities(shares, sizes, min(1.0, self._common_density()), reach)
            )
        elif method == "knapsack" and self.layers:
            curves = self._curves(score)
            uniform, kept = kept, self._knapsack(curves, kept)
            predicted = _total(curves, kept), _total(curves, uniform)
        seconds = time.perf_counter() - began
        rows = [
            AllocatedLayer(
                name=layer.name,
                kept=int(kept[i]),
                total=layer.numel,
                outliers=shares[i] if shares else None,
                levels=_points(curves[i], layer.numel) if curves else (),
            )
            for i, layer in enumerate(self.layers)
        ]
        report = AllocationReport(
            method="uniform" if method == "auto" else method,
            budget=self.config.allocation.budget,
            limit=self._limit,
            spent=math.fsum(c.of(int(k)) for c, k in zip(self._costs, kept, strict=True)),
            curve=self.config.allocation.curve if curves else None,
            predicted=None if predicted is None else predicted[0],
            predicted_uniform=None if predicted is None else predicted[1],
            seconds=seconds,
            layers=tuple(rows),
        )
        self.note(report)
        return report

    def _outliers(self) -> list[float]:
        curvature = self.config.curvature
        norms = input_norms(
            self.model,
            self.layers,
            self.train,
            chunk=curvature.chunk,
            per_input=curvature.positions,
        )
        dense, threshold = self.state.dense_weights(), self.config.allocation.owl_threshold
        return [
            outlier_share(
                wanda_scores(x, dense[x.parameter], norms[x.name]).cpu().numpy(), threshold
            )
            for x in self.layers
        ]

    def _curves(self, score: npt.NDArray[np.floating]) -> list[DamageCurve]:
        config, state = self.config, self.state
        span = {layer.name: state.span(i) for i, layer in enumerate(state.layers)}
        counts = {x.name: c for x, c in zip(self.layers, self._levels, strict=True)}
        pruning = CheapPruning(
            model=self.model,
            layers=self.layers,
            scores={x.name: score[span[x.name]] for x in self.layers},
            dense=state.dense_weights(),
            counts=counts,
            train=self._train,
            refit=config.prune.refit,
            by_row=scope_of(config) == "row",
            damping=fixed_damping(config),
            chunk=config.curvature.chunk,
            positions=config.curvature.positions,
        )
        if self._judge is not None and config.allocation.curve == "loss":
            damages = loss_damages(pruning, *self._judge)
        else:
            damages = self._error_damages(pruning)
        return [DamageCurve.of(counts[x.name], damages[x.name], x.numel) for x in self.layers]

    def _error_damages(self, pruning: CheapPruning) -> dict[str, npt.NDArray[np.float64]]:
        """Errors of the layers' outputs, weighted by the loss's curvature there if asked."""
        config, options, held = self.config, self.config.allocation, self.holdout
        seeds = np.random.SeedSequence(config.seed, spawn_key=(2, 2)).spawn(3)
        if held is not None:
            held = held.sample(options.judging, np.random.default_rng(seeds[0]))
        curvature = None
        if self._judge is not None:
            data, loss = self._judge
            curvature = output_curvature(
                self.model,
                self.layers,
                pruning.dense,
                data,
                loss,
                seeds[2],
                config.curvature.chunk,
            )
        return layer_error_damages(pruning, held, options.rows, seeds[1], curvature)

    def _knapsack(self, curves: list[DamageCurve], uniform: Counts) -> Counts:
        """The densities of least predicted damage, the budget used up to the last step."""
        offers: list[Counts] = []
        for i, (cost, step) in enumerate(zip(self._costs, self._steps, strict=True)):
            low = self._levels[i][0]
            grid = np.geomspace(low, cost.size, _CHOICES)
            whole = np.floor(grid / step).astype(np.int64) * step
            both = np.concatenate([whole, self._levels[i], [uniform[i], cost.size // step * step]])
            offers.append(np.unique(np.clip(both, low, cost.size)))
        damages = [curve.at(offer) for curve, offer in zip(curves, offers, strict=True)]
        prices = [
            np.array([cost.of(int(k)) for k in offer])
            for cost, offer in zip(self._costs, offers, strict=True)
        ]
        solution = solve_knapsack(damages, prices, self._limit)
        kept = np.array([o[j] for o, j in zip(offers, solution.choice, strict=True)])
        # less is left than any next choice that would help costs: it goes where it helps most
        slope = np.zeros(len(offers))
        for i, j in enumerate(solution.choice):
            more = min(int(j) + 1, len(offers[i]) - 1)
            if more > j:
                fall = damages[i][j] - damages[i][more]
                slope[i] = fall / (prices[i][more] - prices[i][j])
        order = np.lexsort((np.arange(len(offers)), -slope))
        for i in order:
            if slope[i] > 0:
                kept = spend_rest(kept, self._costs, self._steps, self._limit, [i])
        return spend_rest(kept, self._costs, self._steps, self._limit, order)

    def note(self, report: AllocationReport) -> None:
        """Add what the user should know of it to the notes."""
        if report.predicted is not None and report.predicted_uniform is not None:
            what = "relative layer errors" if report.curve == "layer-error" else "rises of the loss"
            self.notes.append(
                f"allocation 'knapsack': sum of {what} {report.predicted:.4g}, against "
                f"{report.predicted_uniform:.4g} with equal densities, by curves measured one "
                f"layer at a time in {report.seconds:.1f} s"
            )
        if scope_of(self.config) == "global" and self.config.prune.objective == "global":
            self.notes.append(
                "allocation: it is the first mask's, since the search exchanges weights between "
                "layers; prune.scope = 'layer' holds it"
            )


def first_by_counts(
    state: WeightState, score: npt.NDArray[np.floating], counts: dict[str, int]
) -> npt.NDArray[np.float64]:
    """Scores (P,) whose best, over all layers together, are the best of each layer in its number.

    A weight's rank in its layer over the layer's count: below 1 for exactly the weights to keep,
    and where more are kept (a schedule's first stages) all layers grow by the same factor. Layers
    without a count keep their own budgets: their order stays.
    """
    out = np.empty(state.n)
    for i, layer in enumerate(state.layers):
        span = state.span(i)
        order = np.argsort(-score[span], kind="stable")
        rank = np.empty(order.size)
        rank[order] = np.arange(order.size)
        # a layer of which nothing is kept comes last
        kept = counts.get(layer.name, layer.numel)
        out[span] = -(rank + 0.5) / kept if kept else -rank - 2.0 * state.n
    return out


def _whole(wanted: float, step: int) -> int:
    return math.floor(wanted / step + 1e-9) * step


def _total(curves: list[DamageCurve], kept: Counts) -> float:
    return math.fsum(float(curve.at(int(k))) for curve, k in zip(curves, kept, strict=True))


def _points(curve: DamageCurve, size: int) -> tuple[tuple[float, float], ...]:
    return tuple((int(k) / size, float(d)) for k, d in zip(curve.kept, curve.measured, strict=True))
