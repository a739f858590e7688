"""What 'auto' stands for, once the model is known."""

from __future__ import annotations

from typing import Any

from .options import Config

__all__ = ["resolved"]

# Up to so many weights the global objective gives better masks alone than layer by layer; beyond,
# its batches of a few thousand weights hardly touch the model. Measured: docs/presets.md.
_GLOBAL_WEIGHTS = 5_000_000
# layers whose curves are measured by running the model for each of their levels
_LOSS_CURVES = 8


def resolved(config: Config, weights: int, layers: int, own_loss: bool = False) -> Config:
    """The config with every choice made that depends on the model.

    Parameters
    ----------
    weights : that take part
    layers : that share the common budget
    own_loss : whether the loss is a callable of the user's, or the model's own
    """
    prune, allocation = config.prune, config.allocation
    objective = prune.objective
    if objective == "auto":
        alone = not prune.refit and not prune.pattern.startswith("block")
        small = weights <= _GLOBAL_WEIGHTS
        objective = "global" if alone and small else "reconstruction"
    method = allocation.method
    if method == "auto":
        free = (
            objective == "reconstruction"
            and prune.pattern == "unstructured"
            and prune.scope == "auto"
            and config.initial.method != "nonzero"
            and layers > 1
        )
        method = "knapsack" if free else "uniform"
    curve = allocation.curve
    if curve == "auto":
        curve = "layer-error" if own_loss else "fisher"
        if layers <= _LOSS_CURVES:
            curve = "loss"
    changes: dict[str, dict[str, Any]] = {
        "prune": {"objective": objective},
        "allocation": {"method": method, "curve": curve},
    }
    return config.replace(**changes)
