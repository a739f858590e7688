"""Loading the packages behind the adapters, with an error that says how to get a missing one."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from optiprune.solvers.errors import BackendMissingError

__all__ = ["load_backend"]


def load_backend(module: str, install: str, solver: str) -> ModuleType:
    """Import ``module`` for ``solver``.

    Parameters
    ----------
    module : dotted name of the module to import
    install : what to hand to ``pip install``

    Raises
    ------
    BackendMissingError
        If the import fails; the message holds the pip command and the importer's own words (a
        package that is there but does not load, such as highspy beside ortools, says so itself).
    """
    try:
        return import_module(module)
    except ImportError as e:
        raise BackendMissingError(
            f"solver '{solver}' needs the module '{module}', which cannot be imported ({e}); "
            f"install it with: pip install {install}"
        ) from e
