"""LP and MPS files: round trips, what the text means, and faults with their line."""

import os

import highspy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    FileFormatError,
    ProblemError,
    read_lp,
    read_mps,
    read_problem,
    write_lp,
    write_mps,
    write_problem,
)

KINDS = ("qubo", "cardinality", "groups", "knapsack", "covering", "mixed")


def miqp():
    a = np.random.default_rng(0).normal(size=(3, 4))
    return MIQP(a.T @ a, [1, 2, 3, 4], k=2, M=[1, 2, 3, np.inf], offset=0.1)


class TestLpAndMps:
    @pytest.mark.parametrize("suffix", ["lp", "mps"])
    @settings(
        deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS))
    def test_round_trip(self, tmp_path, brute, suffix, seed, kind):
        p = brute.random(kind, seed, factored=seed % 3 == 0)
        path = tmp_path / f"p.{suffix}"
        write_problem(p, path)
        q = read_problem(path)
        for x in brute.all(p.n):
            assert q.energy(x) == pytest.approx(p.energy(x), abs=1e-9)
            assert (q.violation(x) == 0) == (p.violation(x) == 0)

    @pytest.mark.parametrize("suffix", ["lp", "mps"])
    def test_highs_solves_the_linearised_file(self, tmp_path, brute, suffix):
        p = brute.random("groups", 4, n=6)
        path = tmp_path / f"p.{suffix}"
        (write_lp if suffix == "lp" else write_mps)(p, path, linearised=True)
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.readModel(str(path))
        highs.run()
        assert highs.getInfo().objective_function_value == pytest.approx(brute.minimum(p)[0])
        with pytest.raises(FileFormatError, match="'y0' is not binary"):
            read_problem(path)

    @pytest.mark.parametrize("suffix", ["lp", "mps"])
    @pytest.mark.parametrize("kind", ["groups", "mixed"])
    def test_every_truncation_is_refused(self, tmp_path, brute, suffix, kind):
        write_problem(brute.random(kind, 4, n=4), tmp_path / f"p.{suffix}")
        data = (tmp_path / f"p.{suffix}").read_bytes().rstrip()
        path = tmp_path / f"cut.{suffix}"
        for cut in range(len(data)):
            path.write_bytes(data[:cut])
            with pytest.raises(FileFormatError, match="cut"):
                read_problem(path)

    def test_lp_variables_go_by_their_numbers(self, tmp_path):
        # x1 has no linear term, so x2 appears before it in the file
        p = QUBO([[0, 1, 0], [1, 0, 0], [0, 0, 0]], [1, 0, 5])
        write_lp(p, tmp_path / "p.lp")
        text = (tmp_path / "p.lp").read_text()
        assert text.index("x2") < text.index("x1")
        assert read_lp(tmp_path / "p.lp").energy([0, 0, 1]) == 5.0

    def test_lp_by_hand(self, tmp_path):
        path = tmp_path / "p.lp"
        path.write_text(
            "\\ a comment\nMaximize\n obj: 2 a - b + [ 4 a * b ] / 2 + 1\n"
            "Subject To\n c: a + b <= 1\nBinary\n a b\nEnd\n"
        )
        p = read_lp(path)
        assert isinstance(p, BudgetQP)
        assert [p.energy(x) for x in ([0, 0], [1, 0], [0, 1], [1, 1])] == [-1, -3, 0, -4]
        assert p.violation([1, 1]) == 1

    @pytest.mark.parametrize(
        ("objective", "same"),
        [
            ("a + a + b", "2 a + b"),
            ("[ 2 a * b + 3 b * a ] / 2", "[ 5 a * b ] / 2"),
            ("[ 2 a * b ] / 2 - [ 4 a^2 ] / 2", "[ 2 a * b ] / 2 - 2 a"),
            ("a - - b", "a + b"),
            ("0x - 0 y + 3e0b", "3 b + 0 x + 0 y"),
            ("-1 + 2 a + 3", "2 a + 2"),
            ("\n a\n\\ comment + 7 b\n + b", "a + b"),
        ],
    )
    def test_lp_objectives_that_other_readers_have_misread(self, tmp_path, brute, objective, same):
        problems = []
        for text in (objective, same):
            (tmp_path / "p.lp").write_text(f"min\n obj: {text}\nbin\n a b x y\nend\n")
            problems.append(read_lp(tmp_path / "p.lp"))
        p, q = problems
        # columns come in the order of appearance
        at = [0, 1, 2, 3] if "x" not in objective else [2, 0, 1, 3]
        for x in brute.all(p.n):
            y = x if at == [0, 1, 2, 3] else np.array([x[2], x[0], x[1], x[3]])
            assert p.energy(x) == q.energy(y)

    @pytest.mark.parametrize(
        ("row", "low", "high"),
        [
            ("a + b <= 1", -np.inf, 1),
            ("a + b < 1", -np.inf, 1),
            ("1 <= a + b", 1, np.inf),
            ("1 >= a + b", -np.inf, 1),
            ("-1 <= a + b <= 2", -1, 2),
            ("c: 2 => a + b >= - 1", -1, 2),
            ("c: + a\n + b\n =\n 1", 1, 1),
            ("1 <= a + b\n c: a + b <= 2", 1, np.inf),
        ],
    )
    def test_lp_rows(self, tmp_path, row, low, high):
        path = tmp_path / "p.lp"
        path.write_text(f"min\n obj: a + b\nst\n {row}\n d: 2 b >= 0\nbin\n a b\nend\n")
        p = read_lp(path)
        assert (p.lower[0], p.upper[0]) == (low, high)
        assert p.A[0].tolist() == [1, 1]
        assert p.A[-1].tolist() == [0, 2]

    def test_lp_rows_without_entries(self, tmp_path):
        p = BudgetQP(np.eye(2), A=[[0, 0], [1, 1]], upper=[5, 1], lower=[-np.inf, 0])
        write_lp(p, tmp_path / "p.lp")
        q = read_lp(tmp_path / "p.lp")
        assert q.violation([1, 1]) == 1
        assert q.violation([1, 0]) == 0

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("", 1, "must start with"),
            ("hello\n", 1, "must start with"),
            ("st\n a <= 1\nend\n", 1, "must start with"),
            ("min\n obj: a\nst\n c: a <= 1\nbin\n a\n", 7, "does not end"),
            ("min\n obj: a\nbin\n a\nend\nmore\n", 6, "after 'end'"),
            ("min\n obj: 1e999 a\nbin\n a\nend\n", 2, "too large"),
            ("min\n obj: nan a\nbin\n a\nend\n", 2, "nan"),
            ("min\n obj: inf a\nbin\n a\nend\n", 2, "bounds only"),
            ("min\n obj: [ a * a / 2\nbin\n a\nend\n", 2, "']' is missing before '/'"),
            ("min\n obj: a ] / 2\nbin\n a\nend\n", 2, "']' cannot follow in an objective"),
            ("min\n obj: a + * b\nbin\n a\nend\n", 2, "cannot follow"),
            ("min\n obj: a +\nbin\n a\nend\n", 3, "section 'binary' cannot follow a sign"),
            ("min\n obj: a\nst\n c: a <=\nbin\n a\nend\n", 5, "expected a number, not the section"),
            (
                "min\n obj: a\nst\n c: a <= 1 2\nbin\n a\nend\n",
                4,
                "'2' cannot follow here; begin a new line",
            ),
            ("min\n obj: a\nmin\n b\nend\n", 3, "second objective"),
            ("min\n obj: a b\nbin\n a b\nend\n", 2, "a sign is missing before 'b'"),
            ("min\n obj: a 3\nbin\n a\nend\n", 2, "a sign is missing before '3'"),
            ("min\n obj: 2 a 5 b\nbin\n a b\nend\n", 2, "a sign is missing before '5'"),
            ("min\n obj: 3 [ a * b ] / 2\nbin\n a b\nend\n", 2, "a sign is missing before '\\['"),
            ("min\n obj: [ a * b ]\nbin\n a b\nend\n", 3, "followed by '/ 2'"),
            ("min\n obj: [ a * b ] / 3\nbin\n a b\nend\n", 2, "followed by '/ 2'"),
            ("min\n obj: [ a * b 2 ] / 2\nbin\n a b\nend\n", 2, "a sign is missing before '2'"),
            ("min\n obj: [ a ^ 3 ] / 2\nbin\n a\nend\n", 2, "only the power 2"),
            ("min\n obj: [ a ] / 2\nbin\n a\nend\n", 2, "must be a product"),
            ("min\n obj: [ a * b * a ] / 2\nbin\n a b\nend\n", 2, "missing before '\\*'"),
            ("min\n obj: [ a * b ] / 2 c\nbin\n a b c\nend\n", 2, "sign is missing before 'c'"),
            ("min\n obj: 3 * a\nbin\n a\nend\n", 2, "cannot follow in an objective"),
            ("min\n obj: a\nst\n c: [ a * a ] <= 1\nbin\n a\nend\n", 4, "in the objective only"),
            ("min\n obj: a\nst\n c: a + 1 <= 2\nbin\n a\nend\n", 4, "move it to the right"),
            ("min\n obj: a\nst\n c: 1 + 1 <= 2\nbin\n a\nend\n", 4, "move it to the right"),
            ("min\n obj: a\nst\n c: 1 <= 2\nbin\n a\nend\n", 4, "variables on one side"),
            ("min\n obj: a\nst\n c: a <= b\nbin\n a b\nend\n", 4, "expected a number, not 'b'"),
            ("min\n obj: a\nst\n c: a <= 2 + b\nbin\n a b\nend\n", 4, "'\\+' cannot follow here"),
            ("min\n obj: a\nst\n c: a >= 0 <= 1\nbin\n a\nend\n", 4, "one comparison, or two"),
            ("min\n obj: a\nst\n c: 0 <= a >= 1\nbin\n a\nend\n", 4, "both be <= or both be >="),
            ("min\n obj: a\nst\n c: 0 = a = 1\nbin\n a\nend\n", 4, "both be <= or both be >="),
            ("min\n obj: a\nst\n c: a\nbin\n a\nend\n", 5, "expected a comparison"),
            ("min\n obj: a\nst\n a = 1 -> b <= 0\nbin\n a b\nend\n", 4, "'-' cannot follow here"),
            ("min\n obj: a\nst\n c: a <= 1\n c: a >= 0\nbin\n a\nend\n", 5, "'c' is given twice"),
            ("min\n obj: a\nbounds\n a <= 1\n a <= 0\nbin\n a\nend\n", 5, "'a' is given twice"),
            ("min\n obj: a\nbounds\n 0 <= 1\nbin\n a\nend\n", 4, "must have a variable"),
            ("min\n obj: a\nsemi\n a\nend\n", 4, "semi-continuous"),
            ("min\n obj: a +\n 2 b\nbin\n a\nend\n", 3, "'b' is not binary"),
            ("min\n obj: a\nbounds\n a = 1\nbin\n a\nend\n", 2, "'a' is not binary"),
            ("min\n obj: a\nbin\n a\nbounds\n a <= 0\nend\n", 2, "'a' is not binary"),
            ("min\n obj: a\nbin\n 7\nend\n", 4, "list of variables"),
            ("min\n obj: a | b\nbin\n a\nend\n", 2, "unexpected character"),
            ("min\n obj: \u00e9\nend\n", 2, "not ASCII"),
            ("min\n obj: a\0\nend\n", 2, "NUL"),
        ],
    )
    def test_lp_faults_name_the_line(self, tmp_path, text, line, message):
        path = tmp_path / "p.lp"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FileFormatError, match=message) as e:
            read_lp(path)
        assert str(e.value).startswith(f"{path}:{line}: ")

    GOOD_MPS = (
        "NAME p\nROWS\n N obj\n L c\nCOLUMNS\n m 'MARKER' 'INTORG'\n a obj 1\n a c 1\n b c 2\n"
        " m 'MARKER' 'INTEND'\nRHS\n r c 2\nBOUNDS\n BV q a\n BV q b\n"
        "QUADOBJ\n a b 3\nENDATA\n"
    )

    def test_mps_by_hand(self, tmp_path):
        path = tmp_path / "p.mps"
        path.write_text(self.GOOD_MPS)
        p = read_mps(path)
        assert p.energy([1, 1]) == 4.0
        assert p.violation([1, 1]) == 1.0

    @pytest.mark.parametrize(
        ("old", "new", "energies"),
        [
            ("QUADOBJ\n a b 3\n", "QMATRIX\n a b 3\n b a 3\n", [0, 0, 1, 4]),
            ("QUADOBJ\n a b 3\n", "QUADOBJ\n b a 3\n a a 4\n", [0, 0, 3, 6]),
            ("NAME p\n", "NAME p\nOBJSENSE\n MAX\n", [0, 0, -1, -4]),
            ("NAME p\n", "OBJSENSE MAXIMIZE\n", [0, 0, -1, -4]),
            (" r c 2\n", " r c 2 obj -5\n", [5, 5, 6, 9]),
            (" r c 2\n", " c 2\n", [0, 0, 1, 4]),
            (" N obj\n", " N obj\n N other\n", [0, 0, 1, 4]),
            (" BV q a\n", "", [0, 0, 1, 4]),
        ],
    )
    def test_mps_objectives(self, tmp_path, brute, old, new, energies):
        path = tmp_path / "p.mps"
        path.write_text(self.GOOD_MPS.replace(old, new, 1))
        assert [read_mps(path).energy(x) for x in brute.all(2)] == energies

    @pytest.mark.parametrize(
        ("kind", "span", "limits"),
        [
            ("L", 1.5, (0.5, 2)),
            ("G", -1, (2, 3)),
            ("E", 1, (2, 3)),
            ("E", -2, (0, 2)),
            ("G", None, (2, np.inf)),
            ("E", None, (2, 2)),
        ],
    )
    def test_mps_ranges(self, tmp_path, kind, span, limits):
        text = self.GOOD_MPS.replace(" L c\n", f" {kind} c\n")
        if span is not None:
            text = text.replace("BOUNDS\n", f"RANGES\n r c {span}\nBOUNDS\n")
        path = tmp_path / "p.mps"
        path.write_text(text)
        p = read_mps(path)
        assert (p.lower[0], p.upper[0]) == limits

    @pytest.mark.parametrize(
        ("old", "new", "line", "message"),
        [
            ("ENDATA\n", "", 18, "ENDATA"),
            ("ENDATA\n", "ENDATA\nx\n", 19, "after ENDATA"),
            (" a c 1\n", " a c abc\n", 8, "not a finite number"),
            (" a c 1\n", " a c nan\n", 8, "not a finite number"),
            (" a c 1\n", " a d 1\n", 8, "unknown row 'd'"),
            (" a c 1\n", " a c 1\n a c 1\n", 9, "given twice"),
            (" a c 1\n", " a c\n", 8, "expected"),
            (" L c\n", " X c\n", 4, "expected a row"),
            (" L c\n", " L c\n L c\n", 5, "given twice"),
            (" BV q a\n", " BV q z\n", 14, "unknown column"),
            (" BV q a\n", " QQ q a\n", 14, "not a bound"),
            (" a b 3\n", " a z 3\n", 17, "unknown column"),
            (" a b 3\n", " a b 3\n b a 3\n", 18, "given twice"),
            ("RHS\n", "RHSX\n", 11, "unknown section"),
            ("RHS\n", "ROWS\n", 11, "out of order"),
            ("ROWS\n", "", 2, "unexpected line"),
            (" b c 2\n", " b c 2\n a obj 1\n", 10, "not in one piece"),
            (" m 'MARKER' 'INTEND'\n", "", 18, "without its INTEND"),
            (" m 'MARKER' 'INTORG'\n", "", 9, "INTEND does not match"),
            (" r c 2\n", " r c 2\n s c 1\n", 13, "a second set 's'"),
            (" BV q a\n", " BV q a\n UP q a 0\n", 15, "'a' is given twice"),
            (" BV q a\n", " UP q a 0\n", 7, "'a' is not binary"),
            (" BV q a\n", " LO q a 0\n", 7, "'a' is not binary"),
            ("BOUNDS\n", "RANGES\n r obj 1\nBOUNDS\n", 14, "takes no range"),
            (" N obj\n", "", 6, "unknown row 'obj'"),
            ("QUADOBJ\n", "QMATRIX\n", 17, "not symmetric at a b"),
            ("NAME p\n", "NAME p\nOBJSENSE\n UP\n", 3, "MIN or MAX"),
        ],
    )
    def test_mps_faults_name_the_line(self, tmp_path, old, new, line, message):
        path = tmp_path / "p.mps"
        text = self.GOOD_MPS.replace(old, new, 1)
        assert text != self.GOOD_MPS
        path.write_text(text)
        with pytest.raises(FileFormatError, match=message) as e:
            read_mps(path)
        assert str(e.value).startswith(f"{path}:{line}: ")

    @pytest.mark.parametrize(("max_n", "line"), [(1, 4), (0, 2), (-5, 2)])
    def test_too_many_variables(self, tmp_path, max_n, line):
        path = tmp_path / "p.lp"
        path.write_text("min\n obj: a\nbin\n b\n a\nend\n")
        with pytest.raises(FileFormatError, match=f":{line}: n = 2 is above the limit"):
            read_lp(path, max_n=max_n)
        assert read_lp(path, max_n=2).n == 2

    def test_integers_beyond_binary_are_refused(self, tmp_path):
        path = tmp_path / "p.lp"
        path.write_text("min\n obj: a\nst\n c: a >= 1\nbounds\n a <= 5\ngen\n a\nend\n")
        with pytest.raises(FileFormatError, match="'a' is not binary"):
            read_lp(path)

    def test_miqp_lp_is_solved_by_scip(self, tmp_path, brute):
        scip = pytest.importorskip("pyscipopt")
        a = np.random.default_rng(0).normal(size=(9, 4))
        p = MIQP(a.T @ a, [1.0, -2.0, 3.0, 0.5], k=2, M=0.3, offset=1.0)
        write_lp(p, tmp_path / "p.lp")
        model = scip.Model()
        model.hideOutput()
        model.readProblem(str(tmp_path / "p.lp"))
        model.optimize()
        assert model.getObjVal() == pytest.approx(brute.minimum(p)[0], abs=1e-5)

    def test_what_does_not_fit(self, tmp_path):
        with pytest.raises(ProblemError, match=r"\.lp or \.npz"):
            write_mps(miqp(), tmp_path / "p.mps")
        with pytest.raises(ProblemError, match="M must be finite"):
            write_lp(miqp(), tmp_path / "p.lp")
        with pytest.raises(ProblemError, match="without variables"):
            write_lp(QUBO(np.zeros((0, 0))), tmp_path / "p.lp")
        with pytest.raises(ProblemError, match="HiGHS does not take"):
            # a cost that HiGHS would drop must not be dropped in silence
            write_mps(BudgetQP(np.eye(2), A=[1e-13, 1.0], upper=1.0), tmp_path / "p.mps")
        assert not os.listdir(tmp_path)
