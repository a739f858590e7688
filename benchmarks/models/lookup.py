"""A model of the benchmark by name, or one of the user's own by ``module:function``."""

from __future__ import annotations

import importlib

from .quality import QualityModel
from .registry import QUALITY_MODELS, quality_model

__all__ = ["find_model"]


def find_model(name: str) -> QualityModel:
    """The model of that name; ``module:function`` calls a function that returns a `QualityModel`.

    Raises ValueError for a name that is not there, or a function that returns something else.
    """
    if ":" not in name:
        return quality_model(name)
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as e:
        raise ValueError(
            f"model {name!r}: {e}; a model is one of {', '.join(QUALITY_MODELS)}, or "
            "module:function of your own"
        ) from None
    if not isinstance(made, QualityModel):
        raise ValueError(
            f"model {name!r} must be a function that returns a "
            f"benchmarks.models.quality.QualityModel, got {type(made).__name__}"
        )
    return made
