"""Options of where the layers of a reconstruction are decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .section import Section

__all__ = ["ExecutorOptions"]


class ExecutorOptions(Section):
    """Where layers are decided; `executor = "ray"` is short for `kind = "ray"` in this section."""

    kind: Literal["local", "processes", "ray"] = Field(
        "local",
        description="'local': in this process, a layer at a time, its rows in `workers` threads; "
        "'processes': `workers` processes of this machine, a layer each; 'ray': tasks on a Ray "
        "cluster, a layer each. The masks are the same.",
    )
    address: str = Field(
        "auto",
        description="Of the Ray cluster: 'auto': the one that `ray start` began on this machine; "
        "'local': one that is begun for this run; or host:port.",
    )
    ahead: int = Field(
        2,
        ge=0,
        description="Layers handed out beyond the number of workers, so that none waits for its "
        "Gram matrices; they hold memory.",
    )
    retries: int = Field(
        3, ge=0, description="How often a layer is begun again when its worker is lost."
    )
    gpus: float = Field(
        0.0,
        ge=0,
        description="GPUs that a Ray task asks for (0.5: two tasks share one); above 0 layers are "
        "decided on the GPU.",
    )
    resources: dict[str, float] = Field(
        {},
        description="Further resources that a Ray task asks for, by the labels that nodes were "
        "started with.",
    )

    @field_validator("resources")
    @classmethod
    def _check_resources(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            if name in ("CPU", "GPU", "memory"):
                raise ValueError(f"'{name}' is no label: CPUs follow from threads, GPUs from gpus")
            if not amount > 0:
                raise ValueError(f"'{name}' must be > 0, got {amount:g}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, table: Any) -> Any:
        return {"kind": table} if isinstance(table, str) else table

    @model_validator(mode="after")
    def _check_ray(self) -> ExecutorOptions:
        own = {"address": "auto", "gpus": 0.0, "resources": {}}
        given: Mapping[str, Any] = {k: getattr(self, k) for k in own}
        if self.kind != "ray":
            for key, default in own.items():
                if given[key] != default:
                    raise ValueError(
                        f"{key} = {given[key]!r} needs kind = 'ray', not '{self.kind}'"
                    )
        return self
