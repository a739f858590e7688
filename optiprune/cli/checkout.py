"""The benchmarks that lie beside the package in its repository, and are not installed with it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import optiprune

from .errors import InputError

__all__ = ["from_checkout"]

REPOSITORY = Path(optiprune.__file__).resolve().parents[1]


def from_checkout(module: str, *, root: Path = REPOSITORY) -> ModuleType:
    """A module of ``benchmarks``, out of the repository that this optiprune runs from.

    Raises
    ------
    InputError
        optiprune was installed without its repository; the message says how to get it.
    """
    if not (root / "benchmarks" / "quality" / "__init__.py").is_file():
        raise InputError(
            "the quality benchmark, with its baselines and models, is not part of the installed "
            "package. Get the repository (`git clone`, or the source archive of this version), run "
            "`pip install -e '.[dev]'` in it, and then `optiprune bench quality` again"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    found = importlib.import_module(module)
    where = Path(found.__file__ or "").resolve()
    if root.resolve() not in where.parents:
        raise InputError(
            f"another package called 'benchmarks' hides that of optiprune: {where}; run the "
            "command in another folder"
        )
    return found
