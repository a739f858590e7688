"""The baselines that prune a whole model by its loss, with the settings that tables use."""

from __future__ import annotations

from .chita import Chita
from .global_magnitude import GlobalMagnitude
from .icbs import ICBS
from .model_method import ModelMethod
from .woodfisher import WoodFisher

__all__ = ["MODEL_METHODS", "model_methods"]


def model_methods(*methods: ModelMethod) -> dict[str, ModelMethod]:
    """Methods by name. Raises ValueError if two have one name."""
    named: dict[str, ModelMethod] = {}
    for method in methods:
        if method.name in named:
            raise ValueError(f"two methods are called {method.name!r}")
        named[method.name] = method
    return named


MODEL_METHODS: dict[str, ModelMethod] = model_methods(
    GlobalMagnitude(),
    Chita(name="chita", stages=1),
    Chita(),
    WoodFisher(),
    ICBS(),
)
"""Name -> method. `refitted.Refitted` puts a least-squares refit behind any of them."""
