"""Best k-subset of CHITA's quadratic: thresholding with a line search, on an active set."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from .chita_quadratic import Kernel, Point, SubsetQuadratic

__all__ = ["SubsetSearch", "critical_step", "threshold_step"]

_GROWTH = 2.0
_PAST = 1.01  # of the critical step: where the support has just changed
_TRIALS = 12


@dataclass(frozen=True)
class SubsetSearch:
    """Lowers ``Q(w)`` over ``|w|_0 <= k``; Q never rises.

    Iterative hard thresholding ``w <- P_k(w - tau grad Q(w))`` whose step size comes from the
    pieces on which Q is a parabola in tau, coordinate descent and the back-solve on the support,
    all on an active set that grows while thresholding over all weights would leave it. Benbaki et
    al. 2023, arXiv 2302.14623.

    Attributes
    ----------
    steps : thresholding steps before the weights of the support are brought to their best
    rounds : of these steps, coordinate descent and back-solve; each needs a new support
    sweeps : of coordinate descent in a round
    active : size of the first active set in units of k; by magnitude
    growths : how often the active set may grow
    tolerance : a fall of Q by less than this share ends a loop
    """

    steps: int = 20
    rounds: int = 5
    sweeps: int = 1
    active: float = 2.0
    growths: int = 3
    tolerance: float = 1e-4

    def run(
        self,
        quadratic: SubsetQuadratic,
        k: int,
        *,
        deadline: float | None = None,
        values: list[float] | None = None,
    ) -> Point:
        """From the k largest of ``center``.

        Parameters
        ----------
        deadline : `time.perf_counter` after which no new step begins, or None
        values : Q after each step is added to it
        """
        order = torch.argsort(quadratic.center.abs(), descending=True, stable=True)
        active = order[: round(self.active * k)].sort().values
        support = order[:k].sort().values
        w = torch.zeros_like(quadratic.center)
        w[support] = quadratic.center[support]
        values = [] if values is None else values
        point = quadratic.at(w, support)
        values.append(point.value)
        for _ in range(self.growths + 1):
            if 2 * active.numel() > quadratic.p:
                return self._on_active(quadratic, point, Kernel(), deadline, values)
            inner = quadratic.on(active)
            local = inner.at(point.w[active], torch.searchsorted(active, point.support))
            local = self._on_active(inner, local, Kernel(), deadline, values)
            w = torch.zeros_like(quadratic.center)
            w[active] = local.w
            point = quadratic.at(w, active[local.support])
            if _over(deadline):
                break
            step = threshold_step(quadratic, point)
            if step is None or point.value - step.value <= self.tolerance * abs(point.value):
                break
            outside = step.support[~torch.isin(step.support, active)]
            if outside.numel() == 0:
                break
            active = torch.cat([active, outside]).sort().values
            point = step
            values.append(point.value)
        # what the last growth brought in has its best values too
        return quadratic.solved(point, Kernel())

    def _on_active(
        self,
        quadratic: SubsetQuadratic,
        point: Point,
        kernel: Kernel,
        deadline: float | None,
        values: list[float],
    ) -> Point:
        for _ in range(self.rounds):
            before = point
            for _ in range(self.steps):
                step = None if _over(deadline) else threshold_step(quadratic, point)
                if step is None:
                    break
                fall = point.value - step.value
                point = step
                values.append(point.value)
                if fall <= self.tolerance * abs(point.value):
                    break
            point = quadratic.descended(point, self.sweeps)
            values.append(point.value)
            lower = quadratic.solved(point, kernel)
            point = lower if lower.value <= point.value else point
            values.append(point.value)
            same = torch.equal(before.support, point.support)
            little = before.value - point.value <= self.tolerance * abs(point.value)
            if same or little or _over(deadline):
                break
        return point


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.perf_counter() >= deadline


def critical_step(w: Tensor, gradient: Tensor, support: Tensor) -> float:
    """The smallest step size at which ``P_k(w - tau gradient)`` has another support; inf if none.

    A kept weight i leaves where ``|w_i - tau g_i|`` meets the largest ``tau |g_j|`` of the others.
    """
    outside = gradient.abs().clone()
    outside[support] = 0.0
    most = float(outside.max()) if outside.numel() else 0.0
    if most == 0.0 or support.numel() == 0:
        return float("inf")
    own = w[support]
    closing = most + torch.sign(own) * gradient[support]
    # a weight at zero grows by its own gradient: it is passed at once if that is the smaller
    zero = own == 0
    closing = torch.where(zero, most - gradient[support].abs(), closing)
    tau = torch.where(closing > 0, own.abs() / closing, torch.inf)
    return float(tau.min())


def threshold_step(quadratic: SubsetQuadratic, point: Point) -> Point | None:
    """One step of hard thresholding that lowers Q, or None if no step size does.

    Below the critical step the support stays and the best step is that of a parabola; if it lies
    beyond, steps grow from the critical one for as long as Q falls.
    """
    gradient = quadratic.gradient(point)
    support = point.support
    k = support.numel()
    own = gradient[support]
    slope = float(own @ own)
    image = quadratic.image(support, own)
    curve = float(image @ image) / quadratic.n + quadratic.ridge * slope
    best = slope / curve if curve > 0 else float("inf")
    critical = critical_step(point.w, gradient, support)
    candidates: list[Point] = []

    def keep_support(tau: float) -> None:
        w = point.w.clone()
        w[support] -= tau * own
        residual = point.residual - tau * image
        candidates.append(Point(w, support, residual, quadratic.value(w, residual)))

    if slope > 0 and best <= critical:
        keep_support(best)
    elif critical < float("inf"):
        if slope > 0:
            keep_support(critical)
        # a weight that is zero in the support makes the critical step zero: begin at a swap's
        tau = _PAST * critical or best or 1.0
        lowest = point.value
        for _ in range(_TRIALS):
            moved = point.w - tau * gradient
            chosen = torch.topk(moved.abs(), k, sorted=False).indices.sort().values
            w = torch.zeros_like(moved)
            w[chosen] = moved[chosen]
            trial = quadratic.moved(point, w, chosen)
            if not trial.value < lowest:
                break
            lowest = trial.value
            candidates.append(trial)
            tau *= _GROWTH
    lower = [c for c in candidates if c.value < point.value]
    return min(lower, key=lambda c: c.value) if lower else None
