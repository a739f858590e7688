"""Which options of a run hold where a model is pruned block by block."""

from __future__ import annotations

from optiprune.config import Config, ConfigError, resolved

__all__ = ["offloaded"]

# tokens that are run at once, at most
_CHUNK_TOKENS = 4096


def offloaded(config: Config, weights: int, layers: int, length: int) -> tuple[Config, list[str]]:
    """(the config with every 'auto' settled, notes on what was settled otherwise than usual).

    Parameters
    ----------
    weights, layers : that take part
    length : of a sample, in tokens

    Raises
    ------
    ConfigError
        An option that needs the whole model at once.
    """
    prune, notes = config.prune, []
    if prune.objective == "global":
        raise ConfigError(
            "prune.objective = 'global' needs the whole model and its gradients in memory; a model "
            "directory is pruned by 'reconstruction'"
        )
    if prune.scope == "global":
        raise ConfigError(
            "prune.scope = 'global' compares weights of all layers at once; use 'layer' or 'row'"
        )
    if config.allocation.method in ("owl", "knapsack") or config.allocation.budget != "parameters":
        raise ConfigError(
            f"allocation.method = '{config.allocation.method}' with budget = "
            f"'{config.allocation.budget}' measures all layers of the model before the first is "
            "pruned; use 'uniform' with 'parameters', or layers.sparsity for single layers"
        )
    if config.initial.method == "gradient":
        raise ConfigError(
            "initial.method = 'gradient' needs gradients of the whole model; use 'auto', 'wanda', "
            "'magnitude', 'random' or 'nonzero'"
        )
    if config.tune.epochs not in (0, "auto"):
        raise ConfigError(
            f"tune.epochs = {config.tune.epochs} tunes the whole model at once; window.epochs "
            "tunes one block at a time"
        )
    if prune.refit and config.tune.epochs == "auto":
        notes.append("one block is in memory at a time: no tuning of the whole model")
    if config.allocation.method == "auto":
        notes.append("one block is in memory at a time: every layer has the same density")
    chunk = min(config.curvature.chunk, max(1, _CHUNK_TOKENS // length))
    changed = config.replace(
        prune={"objective": "reconstruction"},
        allocation={"method": "uniform"},
        tune={"epochs": 0},
        curvature={"chunk": chunk},
    )
    return resolved(changed, weights, layers), notes
