"""Which solvers can take part: a mistake is an error, a missing package is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optiprune.bench.errors import BenchError
from optiprune.solvers import SolverError, SolverOptionError
from optiprune.solvers.registry import is_path

from .spec import SolverSpec

__all__ = ["usable_solvers"]


def usable_solvers(
    solvers: Sequence[SolverSpec], note: Callable[[str], None] = print
) -> list[SolverSpec]:
    """Solvers that can be made here; those whose packages are missing are named with the reason.

    Raises
    ------
    SolverOptionError
        For an option that a solver does not have, or a value that it refuses.
    SolverError
        For an import path that does not lead to a solver.
    BenchError
        If none is left.
    """
    out = []
    for spec in solvers:
        try:
            spec.make()
        except SolverOptionError:
            raise
        except Exception as e:  # whatever the package behind it does on import
            if is_path(spec.name) and isinstance(e, SolverError):
                raise  # typed by hand
            words = str(e) if isinstance(e, SolverError) else f"{type(e).__name__}: {e}"
            note(f"{spec.label}: left out: {words}")
        else:
            out.append(spec)
    if not out:
        raise BenchError("nothing can be measured: none of the solvers can be used here")
    return out
