"""LP and MPS files, for other optimisers: through HiGHS, or Pyomo for an MIQP.

Binary problems are written by HiGHS, as a quadratic objective (HiGHS itself solves no quadratic
integer model, but its files hold one, and SCIP, Gurobi and CPLEX read them) or linearised. An MIQP
is written as LP by Pyomo. The readers are our own (`lp_parser`, `mps_parser`), since HiGHS's take
much that they misread; they give a QUBO, CardinalityQP or BudgetQP.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from optiprune.durable import replacing
from optiprune.problems.base import Problem, QuadraticProblem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.linearise import constraint_rows, linearise
from optiprune.problems.miqp import MIQP

from .limits import MAX_N, located
from .lp_parser import parse_lp
from .mps_parser import parse_mps

__all__ = ["read_lp", "read_mps", "write_lp", "write_mps"]

_MAX_BYTES = 1 << 30


def write_lp(problem: Problem, path: str | os.PathLike[str], *, linearised: bool = False) -> None:
    """Write an LP file: columns x0 .. x{n-1}, binary; with ``linearised`` helper columns y0 ...

    An MIQP is written through Pyomo (names ``x(0)``, ``w(0)``), needs a finite M and cannot be
    linearised; HiGHS's number format keeps 15 digits, so energies round-trip to about 1e-14.

    Raises `ProblemError` for what cannot be written, with the reason.
    """
    if isinstance(problem, MIQP):
        _write_by_pyomo(problem, path, linearised)
    else:
        _write_by_highs(problem, path, ".lp", linearised)


def write_mps(problem: Problem, path: str | os.PathLike[str], *, linearised: bool = False) -> None:
    """Write a free-format MPS file (QUADOBJ for products); otherwise as `write_lp`.

    Raises `ProblemError` for an MIQP (write LP) and whatever else cannot be written.
    """
    if isinstance(problem, MIQP):
        raise ProblemError("an MIQP is written as .lp or .npz; MPS of one is not supported")
    _write_by_highs(problem, path, ".mps", linearised)


def read_lp(path: str | os.PathLike[str], *, max_n: int = MAX_N) -> QUBO | CardinalityQP | BudgetQP:
    """Read an LP file with binary variables, an objective of degree <= 2 and linear rows.

    The type is the narrowest that fits. A maximised objective is negated. Variables named x0 ..
    x{n-1} go by their numbers, others in the order in which they first appear.

    Raises
    ------
    FileFormatError
        With path and line for malformed or truncated text and for variables that are not binary;
        with the path alone for rows that cannot be met and other values that make no problem.
    """
    return _read(Path(path), ".lp", max_n)


def read_mps(
    path: str | os.PathLike[str], *, max_n: int = MAX_N
) -> QUBO | CardinalityQP | BudgetQP:
    """Read a free-format MPS file; otherwise as `read_lp`."""
    return _read(Path(path), ".mps", max_n)


def _write_by_highs(
    problem: Problem, path: str | os.PathLike[str], suffix: Literal[".lp", ".mps"], linear: bool
) -> None:
    if not isinstance(problem, QUBO | CardinalityQP | BudgetQP):
        raise ProblemError(f"cannot write a {type(problem).__name__} as {suffix}")
    if problem.n == 0:
        raise ProblemError(f"a problem without variables cannot be written as {suffix}")
    model = _linearised(problem) if linear else _quadratic(problem)
    import highspy

    highs = _quiet()
    status = highs.passModel(model)
    if status != highspy.HighsStatus.kOk:
        # a warning means that HiGHS dropped or changed entries: that would be another problem
        raise ProblemError(
            f"HiGHS does not take this problem as it is ({status}): it drops row entries below "
            "1e-12 and refuses those above 1e15. Rescale the rows, or write .npz"
        )
    with replacing(path, suffix) as temporary:
        if highs.writeModel(str(temporary)) == highspy.HighsStatus.kError:
            raise ProblemError(f"HiGHS could not write {path}")


def _quiet() -> Any:
    import highspy

    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    # entries of any size are the problem's own: none is to be dropped
    highs.setOptionValue("small_matrix_value", 1e-12)
    return highs


def _empty_model(
    c: npt.NDArray[np.float64],
    offset: float,
    rows: sp.csr_matrix,
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
) -> Any:
    import highspy

    model = highspy.HighsModel()
    lp = model.lp_
    lp.num_col_, lp.num_row_ = len(c), rows.shape[0]
    lp.col_cost_, lp.offset_ = c, offset
    lp.col_lower_, lp.col_upper_ = np.zeros(len(c)), np.ones(len(c))
    lp.row_lower_, lp.row_upper_ = lower, upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = rows.indptr
    lp.a_matrix_.index_ = rows.indices
    lp.a_matrix_.value_ = rows.data
    lp.row_names_ = [f"r{r}" for r in range(rows.shape[0])]
    return model


def _quadratic(problem: QuadraticProblem) -> Any:
    import highspy

    rows, lower, upper = constraint_rows(problem)
    own = problem.diagonal() + problem.linear
    model = _empty_model(own, problem.offset, rows, lower, upper)
    n = problem.n
    model.lp_.integrality_ = [highspy.HighsVarType.kInteger] * n
    model.lp_.col_names_ = [f"x{i}" for i in range(n)]
    # HiGHS's objective is c'x + 1/2 x'Hx; the diagonal is in c, since x_i**2 = x_i
    hessian = sp.csc_matrix(2.0 * np.tril(problem.dense(np.float64), -1))
    hessian.eliminate_zeros()
    if hessian.nnz:
        model.hessian_.dim_ = n
        model.hessian_.format_ = highspy.HessianFormat.kTriangular
        model.hessian_.start_ = hessian.indptr
        model.hessian_.index_ = hessian.indices
        model.hessian_.value_ = hessian.data
    return model


def _linearised(problem: QuadraticProblem) -> Any:
    import highspy

    lm = linearise(problem)
    model = _empty_model(lm.c, lm.offset, lm.A, lm.row_lower, lm.row_upper)
    model.lp_.col_lower_, model.lp_.col_upper_ = lm.col_lower, lm.col_upper
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    model.lp_.integrality_ = [kinds[int(i)] for i in lm.integrality]
    n = lm.n_original
    model.lp_.col_names_ = [f"x{i}" if i < n else f"y{i - n}" for i in range(lm.n_cols)]
    return model


def _write_by_pyomo(problem: MIQP, path: str | os.PathLike[str], linearised: bool) -> None:
    from pyomo.opt import ProblemFormat

    from optiprune.problems.exchange.pyomo_models import to_pyomo

    model = to_pyomo(problem, linearised=linearised)
    with replacing(path, ".lp") as temporary:
        labels = {"symbolic_solver_labels": True}
        model.write(str(temporary), format=ProblemFormat.cpxlp, io_options=labels)
        # SCIP's reader stops at the blanks in "w ^ 2"
        temporary.write_text(temporary.read_text(encoding="ascii").replace(" ^ 2", "^2"))


def _read(path: Path, kind: Literal[".lp", ".mps"], max_n: int) -> QUBO | CardinalityQP | BudgetQP:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise located(path, None, f"the file is larger than {_MAX_BYTES >> 20} MiB")
    data = path.read_bytes()
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as e:
        raise located(path, data.count(b"\n", 0, e.start) + 1, "a byte is not ASCII") from None
    if "\0" in text:
        raise located(path, text.count("\n", 0, text.index("\0")) + 1, "a NUL byte")
    parse = parse_lp if kind == ".lp" else parse_mps
    return parse(path, text).problem(max_n)
