"""What all sections of the configuration have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["GLOBAL", "RECONSTRUCTION", "Section"]

# of fields that one objective alone looks at; `explain` says so, and a run notes those that are set
GLOBAL: dict[str, Any] = {"objective": "global"}
RECONSTRUCTION: dict[str, Any] = {"objective": "reconstruction"}


class Section(BaseModel):
    """Frozen; an unknown key, NaN or infinity is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
