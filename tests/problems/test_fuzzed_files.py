"""Files with something wrong: the readers give a problem or a `FileFormatError`, nothing else.

Every format's valid files are mutated: bytes flipped, pieces cut out, put in and doubled, tokens
swapped. A text that is still read must be a problem that can be evaluated, written and read again.
"""

import random
import re
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    FactoredMatrix,
    FileFormatError,
    maxcut_qubo,
    read_problem,
    write_npz,
    write_problem,
)

Q = np.array([[1.0, -2.0, 0.25], [-2.0, 0.0, 1e-3], [0.25, 1e-3, -5.0]])
PROBLEMS = {
    "qubo": QUBO(Q),
    "offset": QUBO(Q.astype(np.float32), [1, 0, -3], 2.5),
    "cardinality": CardinalityQP(Q, k=[1, 1], groups=[0, 1, 1]),
    "factor": CardinalityQP(FactoredMatrix(Q[:2], [0.5, 0.0, 1.0]), [1, 2, 3], k=2),
    "budget": BudgetQP(Q, A=[[1, 2.5, 3], [1, -1, 0]], upper=[4, 1], lower=[-np.inf, -1]),
    "miqp": MIQP(Q @ Q, [1, 2, 3], k=2, M=[1, 2, np.inf]),
    "cut": maxcut_qubo([[0, 1, -2], [1, 0, 0.5], [-2, 0.5, 0]]),
}
KINDS = {
    "npz": tuple(PROBLEMS),
    "bqp": ("qubo", "cut"),
    "rudy": ("cut",),
    "lp": ("qubo", "offset", "cardinality", "factor", "budget"),
    "mps": ("qubo", "offset", "cardinality", "factor", "budget"),
}
# what a parser may trip over, besides tokens of the file itself
ODD = [
    *(rb"# \ * - + . e 0 -1 1e999 1e308 -1e308 1e-320 nan inf -inf 1_0 0x1f [ ] : <= >= =").split(),
    *b"x0 x9 end bin bounds free st min ENDATA RANGES QMATRIX OBJSENSE MARKER UP LO FX".split(),
    *b"True null { [] <f4 |O".split(),
    *(b" ", b"\n", b"\t", b"\r", b"\0", b"\xff", b"\xc3\xa9", b"/ 2", b"^ 2"),
    *(b"9" * 30, b"9" * 5000, b"(" * 2000),
]


def mutated(data, rng, tokens):
    """One to four small changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(out))
        size = rng.choice((1, 1, 2, 5, 40))
        match rng.randrange(7):
            case 0 if out:
                out[at - 1] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at - 1] = rng.randrange(256)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = rng.choice(ODD)
            case 4:
                out[at:at] = out[at : at + size]
            case 5:
                del out[at:]
            case _:
                spans = [m.span() for m in tokens.finditer(out)]
                if len(spans) > 1:
                    (a, b), (c, d) = sorted(rng.sample(spans, 2))
                    out[a:d] = out[c:d] + out[b:c] + out[a:b]
    return bytes(out)


TOKENS = re.compile(rb"[^\s:*^/\[\]<>=]+")


def spoiled_archive(data, rng):
    """A sound archive around a member whose bytes are not: CRC and sizes fit."""
    members = {}
    with zipfile.ZipFile(data) as z:
        for name in z.namelist():
            members[name] = z.read(name)
    name = rng.choice(list(members))
    if rng.random() < 0.2:
        members[rng.choice(list(members))] = members[name]
    members[name] = mutated(members[name], rng, TOKENS)
    return members


def examine(path):
    """Read a file that may be broken. Returns whether it was accepted."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            problem = read_problem(path, max_n=1000)
        except FileFormatError as e:
            message = str(e)
        else:
            message = None
    if message is not None:
        assert message.startswith(str(path))
        assert len(message) < len(str(path)) + 600
        return False
    x = np.zeros(problem.n)
    with np.errstate(over="ignore"):
        problem.energy(x)
        problem.violation(x)
    copy = path.with_suffix(".copy.npz")
    write_npz(problem, copy)
    again = read_problem(copy)
    assert type(again) is type(problem)
    assert again.energy(x) == problem.energy(x)
    return True


def fuzz(folder, name, kind, seed):
    rng = random.Random(seed)
    path = folder / f"p.{name}"
    compress = name == "npz" and rng.random() < 0.5
    if compress:
        write_npz(PROBLEMS[kind], path, compress=True)
    else:
        write_problem(PROBLEMS[kind], path)
    if name == "npz" and rng.random() < 0.6:
        members = spoiled_archive(path, rng)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            for member, data in members.items():
                z.writestr(member, data)
    else:
        path.write_bytes(mutated(path.read_bytes(), rng, TOKENS))
    return examine(path)


def relaxed(examples):
    return settings(
        deadline=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_files_are_sound_before(tmp_path, name, kind):
    path = tmp_path / f"p.{name}"
    write_problem(PROBLEMS[kind], path)
    assert examine(path)


@relaxed(400)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 2**32))
def test_a_problem_or_a_format_error(tmp_path, case, seed):
    fuzz(tmp_path, *case, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@relaxed(2500)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_problem_or_a_format_error_at_length(tmp_path, name, data, seed):
    fuzz(tmp_path, name, data.draw(st.sampled_from(KINDS[name])), seed)


@pytest.mark.parametrize("name", ["bqp", "rudy", "lp", "mps"])
def test_faults_of_text_have_a_line(tmp_path, name):
    """Nearly: what makes no problem as a whole (rows that exclude each other) has none."""
    path = tmp_path / f"p.{name}"
    rng = random.Random(1)
    refused, placed = 0, 0
    for kind in KINDS[name]:
        write_problem(PROBLEMS[kind], path)
        whole = path.read_bytes()
        for _ in range(100):
            path.write_bytes(mutated(whole, rng, TOKENS))
            try:
                read_problem(path)
            except FileFormatError as e:
                refused += 1
                placed += re.match(rf"{re.escape(str(path))}:\d+: ", str(e)) is not None
    assert refused > 50
    assert placed >= 0.97 * refused
