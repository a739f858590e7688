"""optiprune's own file format: a zip of .npy arrays, for every problem type, bit for bit.

Member ``problem.json`` (a uint8 array) holds ``{"format": "optiprune-problem", "version": 1,
"type": ..., "n": ..., "storage": "dense" | "factor"}``. The matrix is ``q_upper``, the n(n+1)/2
entries of the upper triangle row by row, or ``factor`` (r, n) and ``diagonal`` (n,); float32 stays
float32. The others: ``linear``, ``offset``, and ``k``, ``groups`` (CardinalityQP), ``A``,
``upper``, ``lower`` (BudgetQP), ``b``, ``k``, ``M`` (MIQP; its matrix is H).

No pickles. Every member's header is checked against the shape that it must have before its data
are read, so that a small hostile file cannot ask for a large allocation.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.durable import replacing
from optiprune.problems.base import Problem, QuadraticProblem
from optiprune.problems.binary import QUBO, BudgetQP, CardinalityQP
from optiprune.problems.errors import FileFormatError, ProblemError
from optiprune.problems.matrix import FactoredMatrix, Matrix, frozen
from optiprune.problems.miqp import MIQP

from .limits import MAX_N, check_memory, check_size, located

__all__ = ["read_npz", "write_npz"]

_FORMAT = "optiprune-problem"
_VERSION = 1
_META = "problem.json"
_MAX_META = 4096
_TYPES: dict[str, tuple[str, ...]] = {
    "QUBO": ("linear", "offset"),
    "CardinalityQP": ("linear", "offset", "k", "groups"),
    "BudgetQP": ("linear", "offset", "A", "upper", "lower"),
    "MIQP": ("offset", "b", "k", "M"),
}
_INTEGER = frozenset({"k", "groups"})
# what the header of an array may say; anything else (objects, strings) is refused
_FLOATS = frozenset({"<f4", "<f8"})
# as numpy writes it, and nothing else: its own reader evaluates Python literals
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<descr>[^']{1,16})', "
    rb"'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n",
    re.DOTALL,
)
_MAX_RATIO = 1100  # deflate cannot do better than about 1032 : 1


def write_npz(problem: Problem, path: str | os.PathLike[str], *, compress: bool = False) -> None:
    """Write any problem; reading it gives equal arrays of equal dtype.

    Raises `ProblemError` for a type that is not one of QUBO, CardinalityQP, BudgetQP, MIQP.
    """
    name = type(problem).__name__
    matrix: Matrix
    if isinstance(problem, MIQP):
        matrix = problem.H
    elif isinstance(problem, QuadraticProblem) and name in _TYPES:
        matrix = problem.Q
    else:
        raise ProblemError(f"cannot write a {name}; known: {', '.join(_TYPES)}")
    factored = isinstance(matrix, FactoredMatrix)
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "type": name,
        "n": problem.n,
        "storage": "factor" if factored else "dense",
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        _META: np.frombuffer(json.dumps(meta).encode("ascii"), dtype=np.uint8)
    }
    if isinstance(matrix, FactoredMatrix):
        arrays["factor"], arrays["diagonal"] = matrix.factor, matrix.diagonal
    else:
        arrays["q_upper"] = _upper(matrix)
    for field in _TYPES[name]:
        arrays[field] = np.asarray(getattr(problem, field))
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", method) as archive:
        for field, a in arrays.items():
            little = np.ascontiguousarray(a).reshape(a.shape)
            little = little.astype(little.dtype.newbyteorder("<"), copy=False)
            # a fixed date: the same problem gives the same bytes
            entry = zipfile.ZipInfo(f"{field}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, little, version=(1, 0), allow_pickle=False)


def read_npz(path: str | os.PathLike[str], *, max_n: int = MAX_N) -> Problem:
    """Read a problem written by `write_npz`.

    Raises
    ------
    FileFormatError
        For anything that is not such a file: truncated, another format or version, missing or
        unknown members, arrays of a wrong shape or dtype, more than this machine's memory, values
        that make no problem.
    OSError
        The file cannot be opened.
    """
    source = Path(path)
    with open(source, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(source, _Members(source, archive), max_n)
        except FileFormatError:
            raise
        except ProblemError as e:
            raise located(source, None, str(e)) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
            # NotImplementedError, RuntimeError: unknown compression, encryption
            raise located(source, None, f"not a readable problem file: {e}") from None
        except (ValueError, OverflowError, OSError) as e:
            # OSError: a directory that points outside of the file
            raise located(source, None, f"damaged problem file: {e}") from None


class _Members:
    """The arrays of an archive, each read at most once, and only in the shape asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.left: dict[str, zipfile.ZipInfo] = {}
        self.bytes = 0  # of all arrays so far
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in self.left or not info.filename.endswith(".npy"):
                raise self.error(f"unexpected member {info.filename[:60]!r}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.error(f"member {name[:60]!r} has an unknown compression")
            if info.file_size > _MAX_RATIO * (info.compress_size + 1024):
                raise self.error(f"member {name[:60]!r} claims an impossible compression")
            self.left[name] = info

    def error(self, message: str) -> FileFormatError:
        return located(self.path, None, message)

    def take(
        self, name: str, shape: tuple[int | None, ...], dtypes: frozenset[str], max_bytes: int
    ) -> npt.NDArray[Any]:
        """The array ``name``; None in ``shape`` means any length."""
        info = self.left.pop(name, None)
        if info is None:
            raise self.error(f"the array {name!r} is missing")
        with self.archive.open(info) as member:
            # shape and dtype come from the header alone; read no more than a header can be
            head = member.read(min(info.file_size, _MAX_META))
            match = _HEADER.match(head)
            if match is None or match.end() != 10 + int.from_bytes(head[8:10], "little"):
                raise self.error(f"the array {name!r} has no .npy header of version 1.0")
            kind = match["descr"].decode("ascii", "backslashreplace")
            if kind not in dtypes:
                raise self.error(f"the array {name!r} has dtype {kind}, not {sorted(dtypes)}")
            found = tuple(int(have) for have in match["shape"].split(b",") if have.strip())
            fits = len(found) == len(shape) and all(
                want is None or have == want for have, want in zip(found, shape, strict=True)
            )
            if not fits or match["order"] != b"False":
                raise self.error(f"the array {name!r} has shape {found}, not {shape}")
            dtype = np.dtype(kind)
            size = dtype.itemsize * math.prod(found)
            start = match.end()
            if start + size != info.file_size:
                raise self.error(
                    f"the array {name!r} declares {size} bytes of data and holds "
                    f"{info.file_size - start}"
                )
            if size > max_bytes:
                raise self.error(f"the array {name!r} is too large ({size} bytes)")
            self.bytes += size
            # the data, and once more while they are put together
            check_memory(self.path, None, 2 * self.bytes, f"the file's data up to {name!r}")
            data = head[start:] + member.read()
        return np.frombuffer(data, dtype=dtype).reshape(found)


def _meta(members: _Members) -> dict[str, Any]:
    raw = members.take(_META, (None,), frozenset({"|u1"}), _MAX_META)
    try:
        meta = json.loads(raw.tobytes())
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise members.error("this is not an optiprune problem file")
    if meta.get("version") != _VERSION:
        raise members.error(
            f"version {meta.get('version')!r} of the format is unknown; this optiprune reads "
            f"version {_VERSION}"
        )
    if not isinstance(meta.get("type"), str) or meta["type"] not in _TYPES:
        known = ", ".join(_TYPES)
        raise members.error(f"unknown problem type {meta.get('type')!r}; known: {known}")
    n = meta.get("n")
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise members.error(f"n must be an integer >= 0, got {n!r}")
    if meta.get("storage") not in ("dense", "factor"):
        raise members.error(f"unknown storage {meta.get('storage')!r}; known: dense, factor")
    return meta


def _read(path: Path, members: _Members, max_n: int) -> Problem:
    meta = _meta(members)
    n, kind = meta["n"], meta["type"]
    limit = 16 * max(n, 64) * max(max_n, 64)  # rows of a factor or of budgets: up to 2 max_n
    matrix: Matrix
    if meta["storage"] == "dense":
        check_size(path, None, n, max_n)
        triangle = members.take("q_upper", (n * (n + 1) // 2,), _FLOATS, limit)
        dense = np.zeros((n, n), dtype=triangle.dtype)
        at = 0
        for i in range(n):
            dense[i, i:] = dense[i:, i] = triangle[at : at + n - i]
            at += n - i
        matrix = frozen(dense)
    else:
        if n > max_n:
            check_size(path, None, n, max_n)
        factor = members.take("factor", (None, n), _FLOATS, limit)
        matrix = FactoredMatrix(factor, members.take("diagonal", (n,), _FLOATS, limit))
    shapes: dict[str, tuple[int | None, ...]] = {
        "linear": (n,),
        "offset": (),
        "k": () if kind == "MIQP" else (None,),
        "groups": (n,),
        "A": (None, n),
        "upper": (None,),
        "lower": (None,),
        "b": (n,),
        "M": (n,),
    }
    part: dict[str, npt.NDArray[Any]] = {}
    for field in _TYPES[kind]:
        dtypes = frozenset({"<i8"}) if field in _INTEGER else frozenset({"<f8"})
        part[field] = members.take(field, shapes[field], dtypes, limit)
    if members.left:
        raise members.error(f"unexpected member {next(iter(members.left))[:60]!r}")
    offset = float(part["offset"])
    if kind == "MIQP":
        return MIQP(matrix, part["b"], k=int(part["k"]), M=part["M"], offset=offset)
    linear = part["linear"]
    if kind == "CardinalityQP":
        return CardinalityQP(matrix, linear, offset, k=part["k"], groups=part["groups"])
    if kind == "BudgetQP":
        return BudgetQP(
            matrix, linear, offset, A=part["A"], upper=part["upper"], lower=part["lower"]
        )
    return QUBO(matrix, linear, offset)


def _upper(q: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The upper triangle row by row, without index arrays as large as the matrix."""
    rows = [q[i, i:] for i in range(len(q))]
    return np.concatenate(rows) if rows else np.zeros(0, dtype=q.dtype)
