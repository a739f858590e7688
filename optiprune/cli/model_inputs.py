"""The model that a run file names, found early and made later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callables import CallableLoader, absolute_reference
from .errors import InputError
from .returned import as_module
from .run_config import ModelSection

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelInputs", "absolute_model"]


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What a `ModelSection` with absolute paths names."""

    section: ModelSection
    _factory: Callable[[], Any]

    @classmethod
    def find(cls, section: ModelSection, loader: CallableLoader) -> ModelInputs:
        """Raises `InputError` for a missing file or function."""
        if section.weights is not None and not Path(section.weights).is_file():
            raise InputError(f"model.weights: there is no file {section.weights}")
        return cls(section, loader.load("model.factory", section.factory, 0))

    def make(self, weights: str | None = None) -> nn.Module:
        """The trained model. Raises `InputError` if it is no module or the weights do not fit.

        ``weights``: a safetensors file to load in place of ``model.weights``
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        model = as_module("model.factory", self.section.factory, self._factory())
        path = weights or self.section.weights
        if path is not None:
            try:
                load_model(model, path)
            except (SafetensorError, RuntimeError) as e:
                raise InputError(f"model.weights = {path}: {e}") from None
        return model


def absolute_model(section: ModelSection, folder: Path) -> ModelSection:
    """Paths that start at ``folder`` made absolute."""
    weights = section.weights
    return section.model_copy(
        update={
            "factory": absolute_reference(folder, section.factory),
            "weights": None if weights is None else str((folder / weights).resolve()),
        }
    )
