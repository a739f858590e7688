"""Broken files by the hundred thousand: readers give a problem or say what is wrong, no more.

    python -m benchmarks.fuzz_readers [--count 100000] [--seed 0] [--out FILE]

Sound files of every format that `optiprune.problems` reads (npz, bqp, rudy, lp, mps), and the two
JSON files that a results folder of the bench is read from, are spoiled one to four times: bytes,
tokens, numbers, lines, encodings, pieces of other files, sizes in headers, members of archives.
Reading may give a problem, which must have an energy, or raise `FileFormatError` (`BenchError` for
the JSON files). Any other exception, a warning, more than `SECONDS` or more than `MEMORY` beyond
what the process holds is a failure: its input is kept in ``--keep`` and the exit status is 1. The
same seed gives the same inputs.

Files may declare as many as `MAX_N` variables here, since a sparse file of three lines may rightly
ask for a dense matrix of the size that readers allow; sizes above are in the headers all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import re
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from optiprune.bench.errors import BenchError
from optiprune.bench.instances import MANIFEST, BestKnown, Instance, export_suite, folder_suite
from optiprune.bench.instances.instance import hex_of
from optiprune.bench.records import FILE, read_best_known, write_best_known
from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    FileFormatError,
    Problem,
    layer_problem,
    maxcut_qubo,
    read_problem,
    write_npz,
    write_problem,
)

RESULT = Path(__file__).parent / "results" / "fuzz_readers.txt"
SECONDS = 5.0
MEMORY = 1 << 30
MAX_N = 4000

Change = Callable[[bytes, random.Random], bytes]


def _problems() -> list[Problem]:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(9, 9)).round(3)
    sparse = np.where(rng.random((30, 30)) < 0.1, rng.integers(-9, 9, (30, 30)), 0).astype(float)
    factor = FactoredMatrix(rng.normal(size=(3, 6)), np.abs(rng.normal(size=6)))
    return [
        QUBO(dense),
        QUBO(sparse.astype(np.float32), rng.normal(size=30), 2.5),
        QUBO(sparse),
        layer_problem(8, 4, seed=1),
        CardinalityQP(dense, k=[1, 2, 1], groups=[0, 1, 1, 2, 0, 1, 2, 2, 2]),
        CardinalityQP(factor, k=2),
        BudgetQP(dense, A=rng.normal(size=(2, 9)), upper=[4, 1], lower=[-np.inf, -9]),
        BudgetQP(dense, A=np.ones((1, 9)), upper=4, lower=4),
        MIQP(dense @ dense.T, np.arange(9.0), k=3, M=[2.0] * 8 + [np.inf]),
        maxcut_qubo(np.triu(sparse, 1) + np.triu(sparse, 1).T),
    ]


def _instances() -> list[Instance]:
    return [
        Instance.of(f"i{i}", p, lambda p=p: p, family="f", recipe="r", seed=i)
        for i, p in enumerate(_problems()[:3])
    ]


def sound() -> dict[str, list[bytes]]:
    """Files of each format as our own writers make them, and by hand what only others write."""
    problems = _problems()
    out: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("npz", "bqp", "rudy", "lp", "mps"):
            for problem in problems:
                path = folder / f"p.{kind}"
                with contextlib.suppress(Exception):  # what a format cannot hold
                    write_problem(problem, path)
                    out.setdefault(kind, []).append(path.read_bytes())
        for problem in problems[:6]:
            write_npz(problem, folder / "c.npz", compress=True)
            out["npz"].append((folder / "c.npz").read_bytes())
        instances = _instances()
        export_suite(instances, folder / "suite", note=lambda _: None)
        out["manifest"] = [(folder / "suite" / MANIFEST).read_bytes()]
        best = BestKnown(-1.0, "auto", hex_of(np.ones(9, np.int8)), -2.0, "exact")
        write_best_known(folder / FILE, {i.sha256: best for i in instances}, {})
        out["best-known"] = [(folder / FILE).read_bytes()]
    out["lp"] += [line.encode() for line in _LP]
    out["mps"].append(_MPS.encode())
    out["rudy"].append(b"# by hand\n4 5\n1 2 1\n2 3 -1\n3 4 1\n1 4 1\n1 3 -1\n")
    out["bqp"].append(b"1\n3 4\n1 1 5\n1 2 -3\n2 2 1\n3 3 -2\n")
    return out


_LP = (
    "\\ by hand\nMaximize\n obj: 3 x0 - 2.5e1 x1 + [ 2 x0 ^2 - 4 x0 * x1 ] / 2 + 7\nSubject To\n"
    " c1: x0 + x1 <= 1\n c2: -2 <= x0 - 3 x1 <= 4\nBounds\n 0 <= x1 <= 1\nBinaries\n x0 x1\nEnd\n",
    "min\n x + 2 y\nst\n r: x + y = 1\nbin\n x\n y\nend\n",
)
_MPS = """NAME          HAND
OBJSENSE
    MAX
ROWS
 N  COST
 L  LIM1
 E  LIM2
COLUMNS
    MARKER                 'MARKER'                 'INTORG'
    X0        COST         1.0   LIM1         1.0
    X1        COST         2.0   LIM1         1.0
    X1        LIM2         1.0
    MARKER                 'MARKER'                 'INTEND'
RHS
    RHS       LIM1         1.0   LIM2         1.0
RANGES
    RNG       LIM1         0.5
BOUNDS
 BV BND       X0
 BV BND       X1
QUADOBJ
    X0        X1           -2.5
ENDATA
"""

_ODD_NUMBERS = """0 -1 1 1e999 -1e999 1e308 1e-320 nan inf -inf NaN Infinity +5 1_0 0x1f 1e 1.2.3
- 4001 1000000000 999999999999 2147483648 9223372036854775808 -9223372036854775809"""
_NUMBERS = [
    *_ODD_NUMBERS.split(),
    *("9" * 30, "9" * 5000, "0" * 5000, "1e" + "9" * 400, "0." + "0" * 400 + "1"),
]
_ODD_WORDS = """min max st end bin bounds free integer general sos ranges endata rows columns
quadobj qmatrix objsense marker 'INTORG' UP LO FX BV MI PL FR <= >= = < : / ^ ^2 * [ ] ( ) \\
infinity null true {} [] "" x0 obj:"""
_WORDS = [*_ODD_WORDS.split(), "{" * 3000, "[" * 3000]
_TOKEN = re.compile(rb"[^\s:*^/\[\]<>=,{}\"]+")
_NUMBER = re.compile(rb"-?\d[\d.eE+-]*")


def _spot(data: bytes, rng: random.Random) -> int:
    return rng.randint(0, max(0, len(data) - 1))


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[_spot(out, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _random_bytes(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    size = rng.choice((1, 4, 64, 1000))
    return data[:at] + rng.randbytes(size) + data[at + rng.choice((0, size)) :]


def _all_random(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 10, 300)))


def _cut_end(data: bytes, rng: random.Random) -> bytes:
    return data[: _spot(data, rng)]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 5, 40, 200)) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    at, size = _spot(data, rng), rng.choice((1, 5, 40, 400))
    return data[:at] + data[at : at + size] * rng.choice((2, 2, 3, 50)) + data[at + size :]


def _swap_tokens(data: bytes, rng: random.Random) -> bytes:
    spans = [m.span() for m in _TOKEN.finditer(data)]
    if len(spans) < 2:
        return data
    (a, b), (c, d) = sorted(rng.sample(spans, 2))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _other_number(data: bytes, rng: random.Random) -> bytes:
    spans = [m.span() for m in _NUMBER.finditer(data)]
    if not spans:
        return data
    # sizes stand at the beginning
    a, b = spans[rng.randrange(min(3, len(spans)))] if rng.random() < 0.3 else rng.choice(spans)
    return data[:a] + rng.choice(_NUMBERS).encode() + data[b:]


def _other_word(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    word = rng.choice(_WORDS).encode()
    spans = [m.span() for m in _TOKEN.finditer(data)]
    if spans and rng.random() < 0.6:
        a, b = rng.choice(spans)
        return data[:a] + word + data[b:]
    return data[:at] + b" " + word + b" " + data[at:]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            lines[at:at] = [lines[at]] * rng.choice((1, 1, 100))
        case 1:
            del lines[at]
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[at] = lines[at].strip() + b" " + lines[rng.randrange(len(lines))]
        case _:
            lines[at] = lines[at].replace(b" ", b"\n", 1)
    return b"".join(lines)


def _encoded(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1")
    match rng.randrange(6):
        case 0:
            return text.encode("utf-16")
        case 1:
            return b"\xef\xbb\xbf" + data
        case 2:
            return data.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\0", b"\x0b", b"\x85")))
        case 3:
            return data.replace(b"0", "\u0660".encode()).replace(b"1", "\u00b9".encode())
        case 4:
            return data.replace(b" ", rng.choice((b"\xa0", b"\t", b"\x1f", b"")))
        case _:
            return text.upper().encode("latin-1", "replace")


_CHANGES: tuple[Change, ...] = (
    _flip,
    _random_bytes,
    _cut_end,
    _cut_out,
    _double,
    _swap_tokens,
    _other_number,
    _other_number,
    _other_word,
    _lines,
    _encoded,
)


def spoiled(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes; now and then random bytes alone, or two files in one."""
    chance = rng.random()
    if chance < 0.01:
        return _all_random(data, rng)
    if chance < 0.04:
        other = rng.choice(others)
        return data[: _spot(data, rng)] + other[_spot(other, rng) :]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(_CHANGES)(data, rng)[: 1 << 20]
    return data


def spoiled_archive(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """An archive whose own structure is sound (but for the last kinds) around spoiled members."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        members = [(i.filename, z.read(i)) for i in z.infolist()]
    at = rng.randrange(len(members))
    name, raw = members[at]
    kind = rng.randrange(11)
    if kind <= 2:
        members[at] = name, spoiled(raw, rng, [m for _, m in members])
    elif kind == 3:
        del members[at]
    elif kind == 4:
        members.append((name, raw))
    elif kind == 5:
        new = rng.choice(("../../x.npy", "linear.npy", "a" * 5000, "\u00e9.npy", "/", "x.npy"))
        members[at] = new, raw
    elif kind == 6:  # claims of size, type and order
        shape = rng.choice(("(1000000000,)", "(999999999999, 9)", "()", "(-1,)", "(3, 3)", "9"))
        descr = rng.choice(("<f8", "|O", "<f4", ">f8", "<i8", "<U9", "|u1", "<c16", "<f2"))
        order = rng.choice((True, False))
        head = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
        text = head.ljust(117).encode() + b"\n"
        size = len(text).to_bytes(2, "little")
        members[at] = name, b"\x93NUMPY\x01\x00" + size + text + raw[128:]
    elif kind == 7:  # far more data than the file's size suggests
        members[at] = name, raw[:128] + bytes(rng.choice((10**6, 3 * 10**7)))
    elif kind == 8:
        values = np.frombuffer(raw[128:][: len(raw[128:]) // 8 * 8], dtype="<f8").copy()
        if len(values):
            odd = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0)
            values[rng.randrange(len(values))] = rng.choice(odd)
        members[at] = name, raw[:128] + values.tobytes()
    elif kind == 9:  # the description alone
        members[0] = members[0][0], _other_number(_swap_tokens(members[0][1], rng), rng)
    out = io.BytesIO()
    how = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names given twice
        with zipfile.ZipFile(out, "w", how) as z:
            for member, content in members:
                z.writestr(member, content)
    result = out.getvalue()
    if kind == 10:  # the directory at the end, where sizes and offsets are
        tail = bytearray(result)
        for _ in range(rng.randint(1, 4)):
            tail[-rng.randint(1, min(len(tail), 400))] = rng.randrange(256)
        result = bytes(tail)
    return result


class _TooLongError(BaseException):
    """Not an Exception: no reader may swallow it."""


def _ring(*_: Any) -> None:
    raise _TooLongError


def read(kind: str, path: Path) -> None:
    """Read a file of a kind, and use what it gives."""
    if kind == "manifest":
        folder_suite(path.parent, lambda _: None)
    elif kind == "best-known":
        read_best_known(path)
    else:
        problem = read_problem(path, format=kind, max_n=MAX_N)
        x = np.zeros(problem.n, dtype=np.int8)
        with np.errstate(over="ignore"):
            problem.energy(x)
            problem.violation(x)


def outcome(kind: str, path: Path) -> str:
    """ "accepted", "refused", or what went wrong."""
    began = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(kind, path)
        result = "accepted"
    except FileFormatError:
        result = "refused"
    except BenchError as e:
        json_file = kind in ("manifest", "best-known")
        result = "refused" if json_file else f"BenchError: {e}"
    except _TooLongError:
        return f"more than {SECONDS:g} s"
    except Exception as e:
        result = f"{type(e).__name__}: {str(e)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    took = time.perf_counter() - began
    return f"more than {SECONDS:g} s" if took > SECONDS else result


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """An alarm that ends a read, and a limit on memory where the system has one."""
    signal.signal(signal.SIGALRM, _ring)
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if status.exists():
        now = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(count: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """(how many of each format and outcome, failures)."""
    corpus = sound()
    tally: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    everything = [data for files in corpus.values() for data in files]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = {"manifest": MANIFEST, "best-known": FILE}
        export_suite(_instances(), folder, note=lambda _: None)  # what the manifest lists
        for kind, files in corpus.items():
            for data in files:
                path = folder / names.get(kind, f"p.{kind}")
                path.write_bytes(data)
                result = outcome(kind, path)
                if result != "accepted":
                    failures.append(f"a sound {kind} file: {result}")
        # the two JSON files are one tenth of the inputs, a format that is read most the rest
        kinds = [k for k in corpus if k not in names]
        with limits():
            for i in range(count):
                rng = random.Random(f"{seed}/{i}")
                kind = rng.choice(list(names) if rng.random() < 0.1 else kinds)
                data = rng.choice(corpus[kind])
                if kind == "npz" and rng.random() < 0.7:
                    data = spoiled_archive(data, rng, everything)
                else:
                    data = spoiled(data, rng, everything)
                path = folder / names.get(kind, f"p.{kind}")
                path.write_bytes(data)
                result = outcome(kind, path)
                path.unlink()
                good = result in ("accepted", "refused")
                tally[kind, result if good else "FAILED"] += 1
                if not good:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{i}.{kind}").write_bytes(data)
                    failures.append(f"{kind}, input {i}: {result}")
                    print(failures[-1], flush=True)
                if (i + 1) % 10_000 == 0:
                    print(f"{i + 1}/{count}", flush=True)
    return tally, failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="inputs that failed")
    parser.add_argument("--out", type=Path, help=f"such as {RESULT.name}")
    args = parser.parse_args()
    began = time.perf_counter()
    tally, failures = fuzz(args.count, args.seed, args.keep)
    lines = [
        f"{args.count} spoiled files, seed {args.seed}, {time.perf_counter() - began:.0f} s",
        "",
        f"{'format':<12}{'files':>8}{'accepted':>10}{'refused':>10}{'FAILED':>8}",
    ]
    for kind in dict.fromkeys(k for k, _ in sorted(tally)):
        counts = [tally[kind, o] for o in ("accepted", "refused", "FAILED")]
        lines.append(f"{kind:<12}{sum(counts):>8}{counts[0]:>10}{counts[1]:>10}{counts[2]:>8}")
    lines += ["", *(f"{k}: {v}" for k, v in describe().items()), *failures[:50], ""]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
