"""Running HiGHS: arrays in, a quiet solver object, a run that Ctrl-C can stop."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems.linearise import LinearModel
from optiprune.solvers.base import Watch
from optiprune.solvers.errors import SolverError

from .backend import load_backend
from .interruptible import run_interruptible
from .scaling import TINY

__all__ = ["fill_milp", "highspy_module", "new_highs", "require_ok", "run_highs", "set_option"]

_Vector = npt.NDArray[np.float64]


def highspy_module(solver: str = "highs") -> ModuleType:
    """The module highspy. Raises `BackendMissingError`."""
    return load_backend("highspy", "highspy", solver)


def new_highs(solver: str = "highs") -> Any:
    """A fresh, silent `highspy.Highs`: time limits are counted per object, cumulatively."""
    h = highspy_module(solver).Highs()
    set_option(h, "output_flag", False)
    set_option(h, "small_matrix_value", TINY)  # 1e-9 by default, of which a thousand add up
    return h


def set_option(h: Any, name: str, value: bool | int | float | str) -> None:
    """Set a HiGHS option. Raises `SolverError` if HiGHS refuses it (it would only warn)."""
    status = h.setOptionValue(name, value)
    if status.name == "kError":
        raise SolverError(f"HiGHS refuses the option {name} = {value!r}")


def fill_milp(h: Any, model: LinearModel) -> None:
    """Hand a linearised problem to HiGHS; its offset is left out."""
    highspy = highspy_module()
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = model.n_cols, model.n_rows
    lp.col_cost_ = model.c
    lp.col_lower_, lp.col_upper_ = model.col_lower, model.col_upper
    lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
    matrix = lp.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.num_col_, matrix.num_row_ = model.n_cols, model.n_rows
    rows = model.A.copy()
    rows.data[np.abs(rows.data) <= TINY] = 0.0  # of products; those of budgets are gone already
    rows.eliminate_zeros()
    matrix.start_ = rows.indptr
    matrix.index_ = rows.indices
    matrix.value_ = rows.data
    kinds = highspy.HighsVarType
    lp.integrality_ = [kinds.kInteger if b else kinds.kContinuous for b in model.integrality]
    require_ok(h.passModel(lp), "the linearised rows")


def require_ok(status: Any, what: str) -> None:
    """Raise `SolverError` unless HiGHS took the data as they are: it warns of what it changes."""
    if status.name != "kOk":
        raise SolverError(f"HiGHS does not take {what} as they are ({status.name})")


def run_highs(h: Any, cancel: Callable[[], None], watch: Watch | None = None) -> bool:
    """``h.run()``; whether the user interrupted it, in which case ``cancel()`` must stop it.

    It runs in a thread of its own, for Ctrl-C and for another reason: HiGHS keeps one task executor
    a thread, whose size is fixed by the first solve there. In the caller's thread, a second solve
    with another number of threads would fail.
    """
    return run_interruptible(h.run, cancel, watch)[1]
