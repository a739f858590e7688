"""The global objective from first mask to last refit: search, refit, and both once more."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .global_loss import GlobalSearch
from .refitting import LayerRefit, refit_state
from .subset_fit import SubsetFit

__all__ = ["GlobalRun"]

log = logging.getLogger("optiprune")


@dataclass(slots=True)
class GlobalRun:
    """Fills ``losses``, ``errors`` and ``notes`` as it goes; masks and values are in the state.

    Attributes
    ----------
    notes : what the user should know, shared with the search
    losses : held-out loss, by "dense", "initial", "masked" and "final"; empty without held-out data
    errors : layer name -> "error_masked" and "error_refit", its error before the first refit and
        after the last, as in `LayerReport`
    """

    model: nn.Module
    search: GlobalSearch
    notes: list[str]
    losses: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def run(self, start: npt.NDArray[np.bool_]) -> None:
        """Search and refit as the config says; ``start`` (P,) is the first mask.

        Raises as `GlobalSearch.run` and `refit_state`; what was reached until then stays in the
        state.
        """
        config, state = self.search.config, self.search.state
        self._note_loss("dense", np.ones(state.n, dtype=bool))
        self._note_loss("initial", start)
        fit = SubsetFit(self.search) if config.prune.refit and config.subset.rounds else None
        self.search.run(None if fit is None else fit.run)
        self._note_loss("masked", state.mask)
        if config.prune.refit:
            self._refit("refit")
            if config.batches.steps and config.refit.steps:
                self._again(config.refit.steps)
            if fit is not None:
                fit.run(self.search.stages)
        self._note_loss("final", state.mask)

    def _again(self, steps: int) -> None:
        """Search at the re-fitted values and refit again; undone unless the held-out loss fell.

        The first search chose for the dense values. At the new ones other exchanges pay, and a
        pruned weight comes back at its dense value, which the second refit moves.
        """
        state, history = self.search.state, self.search.history
        before = self._loss()
        mask, values = state.mask.copy(), state.values.copy()
        errors = {name: dict(e) for name, e in self.errors.items()}
        done = len(history)
        self.search.go_on(steps)
        if not any(r.accepted and r.changed for r in history[done:]):
            return
        self._refit("second refit")
        after = self._loss()
        if before is not None and after is not None and not after < before:
            state.mask, state.values, self.errors = mask, values, errors
            self.notes.append(
                f"the search after the refit was undone: held-out loss {after:.6g}, {before:.6g} "
                "before it"
            )

    def _refit(self, which: str) -> None:
        search = self.search
        held = None if search.holdout is None else lambda: search.holdout_loss(search.state.mask)
        key = which.replace(" ", "-")
        found = search.steps.get(key)
        if found is not None:
            search.state.values = found.arrays["values"].numpy()
            fits = [LayerRefit(**fit) for fit in found.record["layers"]]
        else:
            fits = refit_state(self.model, search.state, search.train, search.config, held)
            values = torch.from_numpy(search.state.values)
            search.steps.put(key, {"values": values}, {"layers": [asdict(f) for f in fits]})
            search.steps.check()
        for fit in fits:
            errors = self.errors.setdefault(fit.layer, {"error_masked": fit.error_before})
            errors["error_refit"] = fit.error_after if fit.accepted else fit.error_before
            if not fit.accepted:
                self.notes.append(
                    f"layer '{fit.layer}': the {which} raised the held-out loss and was undone"
                )
            if fit.accepted:
                errors["damping"] = fit.damping
            if fit.raised > fit.damping:
                self.notes.append(
                    f"layer '{fit.layer}': the {which} raised the damping to {fit.raised:g} of "
                    "the mean diagonal for some rows"
                )

    def _loss(self) -> float | None:
        search = self.search
        return None if search.holdout is None else search.holdout_loss(search.state.mask)

    def _note_loss(self, when: str, mask: npt.NDArray[np.bool_]) -> None:
        if self.search.holdout is not None:
            self.losses[when] = self.search.holdout_loss(mask)
            log.info("held-out loss, %s: %.6g", when, self.losses[when])
