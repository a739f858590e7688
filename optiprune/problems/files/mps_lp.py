"""LP and MPS files, for other optimisers: through HiGHS, or Pyomo for an MIQP.

Binary problems are written by HiGHS, as a quadratic objective (HiGHS itself solves no quadratic
integer model, but its files hold one, and SCIP, Gurobi and CPLEX read them) or linearised. An MIQP
is written as LP by Pyomo. Reading goes through HiGHS after a strict check of the text, and gives a
QUBO, CardinalityQP or BudgetQP.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from optiprune.problems.base import Problem, QuadraticProblem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.exchange.classify import from_rows
from optiprune.problems.linearise import constraint_rows, linearise
from optiprune.problems.miqp import MIQP

from .atomic import replacing
from .limits import MAX_N, check_size, located
from .lp_check import check_lp, check_mps

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
        With path and line for malformed or truncated text; with the path alone for what HiGHS
        refuses, for variables that are not binary, and for what makes no problem.
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
    (check_lp if kind == ".lp" else check_mps)(path, text)
    model = _parse(path, kind, data)
    n = int(model.lp_.num_col_)
    if n == 0:
        raise located(path, None, "the model has no variables")
    check_size(path, None, n, max_n)
    try:
        return _problem(path, model)
    except ProblemError as e:
        if str(e).startswith(str(path)):
            raise
        raise located(path, None, str(e)) from None


def _parse(path: Path, kind: str, data: bytes) -> Any:
    """HiGHS's model of the text; it tells formats apart by the suffix, so the copy gets that."""
    import tempfile

    import highspy

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"model{kind}"
        copy.write_bytes(data)
        highs = _quiet()
        if highs.readModel(str(copy)) != highspy.HighsStatus.kOk:
            raise located(path, None, "HiGHS cannot parse the file, or not without warnings")
        return highs.getModel()


def _problem(path: Path, model: Any) -> QUBO | CardinalityQP | BudgetQP:
    import highspy

    lp = model.lp_
    n, m = int(lp.num_col_), int(lp.num_row_)
    names = list(lp.col_names_) or [f"c{i}" for i in range(n)]
    kinds = list(lp.integrality_) or [highspy.HighsVarType.kContinuous] * n
    low, high = np.array(lp.col_lower_), np.array(lp.col_upper_)
    for i in range(n):
        if kinds[i] != highspy.HighsVarType.kInteger or low[i] != 0 or high[i] != 1:
            raise located(
                path,
                None,
                f"variable {names[i]!r} is not binary; linearised and mixed models cannot be read "
                "back, write .npz to keep a problem",
            )
    A = np.zeros((m, n))
    if m:
        start = np.array(lp.a_matrix_.start_)
        major = np.repeat(np.arange(len(start) - 1), np.diff(start))
        minor = np.array(lp.a_matrix_.index_, dtype=np.int64)
        by_column = lp.a_matrix_.format_ == highspy.MatrixFormat.kColwise
        A[(minor, major) if by_column else (major, minor)] = np.array(lp.a_matrix_.value_)
    sign = 1.0 if lp.sense_ == highspy.ObjSense.kMinimize else -1.0
    q = np.zeros((n, n))
    hessian = model.hessian_
    if hessian.dim_:
        value, index = np.array(hessian.value_), np.array(hessian.index_, dtype=np.int64)
        start = np.array(hessian.start_)
        column = np.repeat(np.arange(int(hessian.dim_)), np.diff(start))
        np.add.at(q, (index, column), 0.5 * value)
        if hessian.format_ == highspy.HessianFormat.kTriangular:
            np.add.at(q, (column, index), np.where(index == column, 0.0, 0.5 * value))
    order = _variable_order(names)
    return from_rows(
        sign * q[np.ix_(order, order)],
        sign * np.array(lp.col_cost_)[order],
        sign * float(lp.offset_),
        A[:, order],
        np.array(lp.row_lower_),
        np.array(lp.row_upper_),
    )


def _variable_order(names: list[str]) -> npt.NDArray[np.int64]:
    """Columns in the order of the problem's variables.

    An LP file lists terms that are not zero, so its columns come in the order of appearance; our
    own names say which variable is which.
    """
    n = len(names)
    numbers = [int(s[1:]) if re.fullmatch(r"x\d{1,9}", s) else -1 for s in names]
    if sorted(numbers) != list(range(n)):
        return np.arange(n)
    return np.argsort(np.array(numbers))
