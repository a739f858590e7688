"""Problem files: round trips, faults with their line, truncation at every byte, hostile headers."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    FORMATS,
    MIQP,
    QUBO,
    CardinalityQP,
    FactoredMatrix,
    FileFormatError,
    ProblemError,
    cut_value,
    maxcut_qubo,
    read_bqp,
    read_npz,
    read_problem,
    read_rudy,
    write_bqp,
    write_npz,
    write_problem,
    write_rudy,
)
from optiprune.problems.files import limits

KINDS = ("qubo", "cardinality", "groups", "knapsack", "covering", "mixed")
relaxed = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def miqp(factored=False):
    a = np.random.default_rng(0).normal(size=(3, 4))
    H = FactoredMatrix(a, np.ones(4)) if factored else a.T @ a
    return MIQP(H, [1, 2, 3, 4], k=2, M=[1, 2, 3, np.inf], offset=0.1)


def arrays(p):
    names = {
        "QUBO": ("linear",),
        "CardinalityQP": ("linear", "k", "groups"),
        "BudgetQP": ("linear", "A", "upper", "lower"),
        "MIQP": ("b", "M"),
    }[type(p).__name__]
    m = p.H if isinstance(p, MIQP) else p.Q
    matrix = (m.factor, m.diagonal) if isinstance(m, FactoredMatrix) else (m,)
    return [*matrix, *(getattr(p, n) for n in names), np.array(p.offset)]


class TestNpz:
    @relaxed
    @given(
        seed=st.integers(0, 10_000),
        kind=st.sampled_from(KINDS),
        factored=st.booleans(),
        compress=st.booleans(),
    )
    def test_round_trip_is_bit_for_bit(self, tmp_path, brute, seed, kind, factored, compress):
        p = brute.random(kind, seed, factored=factored)
        path = tmp_path / "p.npz"
        write_npz(p, path, compress=compress)
        q = read_npz(path)
        assert type(q) is type(p)
        for a, b in zip(arrays(p), arrays(q), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("factored", [False, True])
    def test_miqp(self, tmp_path, factored):
        p = miqp(factored)
        write_npz(p, tmp_path / "p.npz")
        q = read_npz(tmp_path / "p.npz")
        for a, b in zip(arrays(p), arrays(q), strict=True):
            np.testing.assert_array_equal(a, b)
        assert q.k == 2

    def test_float32_and_no_variables(self, tmp_path):
        for p in (QUBO(np.ones((3, 3), np.float32)), QUBO(np.zeros((0, 0)), offset=2.0)):
            write_npz(p, tmp_path / "p.npz")
            q = read_npz(tmp_path / "p.npz")
            assert q.Q.dtype == p.Q.dtype
            np.testing.assert_array_equal(q.Q, p.Q)
            assert q.offset == p.offset

    def test_same_problem_same_bytes(self, tmp_path):
        for name in ("a.npz", "b.npz"):
            write_npz(miqp(), tmp_path / name)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_every_truncation_is_refused(self, tmp_path):
        write_npz(QUBO(np.eye(3)), tmp_path / "p.npz", compress=True)
        data = (tmp_path / "p.npz").read_bytes()
        for cut in range(len(data)):
            (tmp_path / "cut.npz").write_bytes(data[:cut])
            with pytest.raises(FileFormatError, match="cut"):
                read_npz(tmp_path / "cut.npz")

    def test_flipped_bytes_never_give_anything_but_a_problem_or_a_format_error(self, tmp_path):
        write_npz(CardinalityQP(np.eye(3), k=1), tmp_path / "p.npz")
        data = bytearray((tmp_path / "p.npz").read_bytes())
        rng = np.random.default_rng(0)
        refused = 0
        for at in rng.choice(len(data), 300, replace=False):
            bad = bytearray(data)
            bad[at] ^= int(rng.integers(1, 256))
            (tmp_path / "bad.npz").write_bytes(bad)
            try:
                read_npz(tmp_path / "bad.npz")
            except FileFormatError:
                refused += 1
        assert refused > 200

    def craft(self, path, meta=None, change=None, drop=None, add=None):
        """A file of a 2-variable QUBO with something wrong."""
        base = {"format": "optiprune-problem", "version": 1, "type": "QUBO", "n": 2}
        base = {**base, "storage": "dense", **(meta or {})}
        members = {
            "problem.json": np.frombuffer(json.dumps(base).encode(), np.uint8),
            "q_upper": np.zeros(3),
            "linear": np.zeros(2),
            "offset": np.array(0.0),
            **(change or {}),
        }
        members.pop(drop, None)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            for name, a in {**members, **(add or {})}.items():
                f = io.BytesIO()
                if isinstance(a, bytes):
                    f.write(a)
                else:
                    np.lib.format.write_array(f, a, version=(1, 0))
                z.writestr(f"{name}.npy", f.getvalue())

    def test_the_craft_is_sound(self, tmp_path):
        self.craft(tmp_path / "p.npz")
        assert read_npz(tmp_path / "p.npz").n == 2

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ({"meta": {"format": "x"}}, "not an optiprune problem"),
            ({"meta": {"version": 2}}, "version 2"),
            ({"meta": {"type": "Knapsack"}}, "Knapsack.*QUBO"),
            ({"meta": {"n": -1}}, "n must be"),
            ({"meta": {"n": True}}, "n must be"),
            ({"meta": {"n": 3}}, "q_upper' has shape"),
            ({"meta": {"n": 10**9}}, "above the limit"),
            ({"meta": {"storage": "sparse"}}, "storage"),
            ({"meta": {"type": []}}, "unknown problem type"),
            ({"change": {"problem.json": np.zeros(5, np.uint8)}}, "not an optiprune problem"),
            ({"change": {"problem.json": np.zeros(5000, np.uint8)}}, "too large"),
            ({"change": {"linear": np.zeros(3)}}, "linear' has shape"),
            ({"change": {"linear": np.zeros((2, 1))}}, "linear' has shape"),
            ({"change": {"linear": np.zeros(2, np.int64)}}, "linear' has dtype"),
            ({"change": {"linear": np.zeros(2, ">f8")}}, "linear' has dtype"),
            ({"change": {"linear": np.array([np.nan, 0])}}, "nan"),
            ({"change": {"linear": np.array(["a", "b"])}}, "dtype"),
            ({"change": {"linear": b"garbage"}}, "p.npz"),
            ({"change": {"linear": b""}}, "p.npz"),
            ({"drop": "linear"}, "'linear' is missing"),
            ({"drop": "problem.json"}, "missing"),
            ({"add": {"extra": np.zeros(1)}}, "unexpected member 'extra'"),
        ],
    )
    def test_faults(self, tmp_path, fault, message):
        self.craft(tmp_path / "p.npz", **fault)
        with pytest.raises(FileFormatError, match=message):
            read_npz(tmp_path / "p.npz")

    def test_pickles_are_never_loaded(self, tmp_path):
        f = io.BytesIO()
        np.lib.format.write_array(f, np.array([print, 1], dtype=object), allow_pickle=True)
        self.craft(tmp_path / "p.npz", change={"linear": f.getvalue()})
        with pytest.raises(FileFormatError, match=r"dtype \|O"):
            read_npz(tmp_path / "p.npz")

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '(",
            "(((",
            "(" * 3000,
            "-" * 3900 + "1",
            '"""',
            "{'descr': [[[[",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }" + "(" * 300,
            "{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2L,), }",
            " " * 10 + "1\n  2\n 3",
            "\0",
        ],
    )
    def test_headers_that_are_no_header(self, tmp_path, header):
        text = header.encode() + b"\n"
        data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
        self.craft(tmp_path / "p.npz", change={"linear": data})
        with pytest.raises(FileFormatError, match=r"'linear' has no \.npy header"):
            read_npz(tmp_path / "p.npz")

    def test_a_directory_that_points_outside_of_the_file(self, tmp_path):
        write_npz(QUBO(np.eye(2)), tmp_path / "p.npz")
        data = bytearray((tmp_path / "p.npz").read_bytes())
        at = data.rindex(b"PK\x01\x02")
        for high in (0x80, 0xFF):  # the offset of the member, little-endian
            data[at + 45] = high
            (tmp_path / "p.npz").write_bytes(data)
            with pytest.raises(FileFormatError):
                read_npz(tmp_path / "p.npz")

    @pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_compressions(self, tmp_path, kind):
        with zipfile.ZipFile(tmp_path / "p.npz", "w", kind) as z:
            z.writestr("problem.json.npy", b"")
        with pytest.raises(FileFormatError, match="unknown compression"):
            read_npz(tmp_path / "p.npz")

    def test_memory_is_checked_before_it_is_taken(self, tmp_path, monkeypatch):
        write_npz(QUBO(FactoredMatrix(np.zeros((200, 500)))), tmp_path / "p.npz", compress=True)
        write_npz(QUBO(np.zeros((300, 300))), tmp_path / "q.npz", compress=True)
        monkeypatch.setattr(limits, "_physical_memory", lambda: 1 << 19)
        for name, message in (("p", "'factor' needs 0.00149 GiB"), ("q", "dense problem")):
            with pytest.raises(FileFormatError, match=message):
                read_npz(tmp_path / f"{name}.npz")

    def test_a_header_may_not_promise_more_than_the_file_holds(self, tmp_path):
        f = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (3,)}
        np.lib.format.write_array_header_1_0(f, header)
        self.craft(tmp_path / "p.npz", change={"q_upper": f.getvalue()})
        with pytest.raises(FileFormatError, match="declares 24 bytes of data and holds 0"):
            read_npz(tmp_path / "p.npz")

    def test_a_compression_bomb_is_refused_by_its_header(self, tmp_path):
        # 64 MiB of zeros in 64 KiB
        self.craft(tmp_path / "p.npz", add={"bomb": np.zeros(1 << 23)})
        assert (tmp_path / "p.npz").stat().st_size < 1 << 17
        with pytest.raises(FileFormatError, match="bomb"):
            read_npz(tmp_path / "p.npz")
        self.craft(tmp_path / "p.npz", change={"linear": np.zeros(1 << 23)})
        with pytest.raises(FileFormatError, match="has shape"):
            read_npz(tmp_path / "p.npz")

    def test_size_limit(self, tmp_path):
        write_npz(QUBO(np.eye(4)), tmp_path / "p.npz")
        with pytest.raises(FileFormatError, match="max_n=4"):
            read_npz(tmp_path / "p.npz", max_n=3)


GOOD_BQP = "# two products\n3 4\n1 1 5\n1 2 -3\n\n2 3 1.5\n3 3 -1e0\n"
GOOD_RUDY = "3 2\n1 2 4\n2 3 -1\n"


class TestBqp:
    def test_by_hand(self, tmp_path):
        path = tmp_path / "p.bqp"
        path.write_text(GOOD_BQP)
        # maximised and symmetric: at (1, 1, 0) the file's value is 5 - 2 * 3
        assert read_bqp(path).energy([1, 1, 0]) == 1.0
        assert read_bqp(path, sense="min").energy([1, 1, 0]) == -1.0
        assert read_problem(path).energy([1, 1, 1]) == -(5 - 6 + 3 - 1)

    @relaxed
    @given(seed=st.integers(0, 10_000), sense=st.sampled_from(["max", "min"]))
    def test_round_trip(self, tmp_path, brute, seed, sense):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(0, 7))
        # an upper triangle with a pair's value written once: 2 Q_ij exactly
        p = QUBO(np.triu(rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.6)), rng.normal(size=n))
        write_bqp(p, tmp_path / "p.bqp", sense=sense)
        q = read_bqp(tmp_path / "p.bqp", sense=sense)
        for x in brute.all(n):
            assert q.energy(x) == pytest.approx(p.energy(x), abs=1e-12)

    def test_integers_are_written_as_integers(self, tmp_path):
        write_bqp(QUBO([[3, 1], [1, 0]]), tmp_path / "p.bqp")
        assert (tmp_path / "p.bqp").read_text() == "2 2\n1 1 -3\n1 2 -1\n"

    def test_several_instances(self, tmp_path):
        path = tmp_path / "p.bqp"
        path.write_text("2\n2 1\n1 2 3\n1 1\n1 1 7\n")
        assert read_bqp(path).n == 2
        assert read_bqp(path, instance=2).energy([1]) == -7
        with pytest.raises(ProblemError, match="holds 2 instances"):
            read_bqp(path, instance=3)

    def test_what_does_not_fit(self, tmp_path):
        with pytest.raises(ProblemError, match="offset"):
            write_bqp(QUBO(np.eye(2), offset=1.0), tmp_path / "p.bqp")
        with pytest.raises(ProblemError, match="CardinalityQP"):
            write_bqp(CardinalityQP(np.eye(2), k=1), tmp_path / "p.bqp")
        with pytest.raises(ProblemError, match="'max', 'min'"):
            write_bqp(QUBO(np.eye(2)), tmp_path / "p.bqp", sense="maximise")
        assert not os.listdir(tmp_path)

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("", 1, "header"),
            ("3\n", 2, "header"),
            ("3 1 1\n", 1, "header"),
            ("x 1\n", 1, "n must be an integer"),
            ("-1 0\n", 1, "at least 0"),
            ("2 99\n", 1, "nnz must be between"),
            ("1_0 0\n", 1, "n must be an integer"),
            ("99999999999999999999999 0\n", 1, "n must be"),
            ("60000 0\n", 1, "above the limit"),
            ("2 1\n1 2\n", 2, "2 fields"),
            ("2 1\n1 2 3 4\n", 2, "4 fields"),
            ("2 1\n0 2 3\n", 2, "first index must be between 1 and 2"),
            ("2 1\n1 3 3\n", 2, "second index"),
            ("2 1\n1 2.0 3\n", 2, "second index must be an integer"),
            ("2 1\n1 2 nan\n", 2, "finite"),
            ("2 1\n1 2 inf\n", 2, "finite"),
            ("2 1\n1 2 1e999\n", 2, "finite"),
            ("2 1\n1 2 1_0\n", 2, "finite"),
            ("2 1\n1 2 x\n", 2, "finite"),
            ("2 2\n1 2 3\n", 3, "entry 2 of 2"),
            ("2 2\n# note\n1 2 3\n2 1 4\n", 4, "pair 1 2 is given more than once"),
            ("2 1\n1 2 3\n1 1 1\n", 3, "trailing"),
            ("2 1\n1 2 3", 2, "no newline"),
            ("2 1\n1 2 \u00e9\n", 2, "finite"),
            ("2 1\n1 2 " + "3" * 5000 + "\n", 2, "longer than"),
        ],
    )
    def test_faults_name_the_line(self, tmp_path, text, line, message):
        path = tmp_path / "p.bqp"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FileFormatError, match=message) as e:
            read_bqp(path)
        assert str(e.value).startswith(f"{path}:{line}: ")

    def test_memory_is_checked_before_it_is_taken(self, tmp_path):
        path = tmp_path / "p.bqp"
        path.write_text("9000000 0\n")
        with pytest.raises(FileFormatError, match="GiB"):
            read_bqp(path, max_n=10**7)


class TestRudy:
    def test_by_hand(self, tmp_path):
        path = tmp_path / "g.rudy"
        path.write_text(GOOD_RUDY)
        p = read_rudy(path)
        assert p.energy([1, 0, 0]) == -4
        assert p.energy([0, 1, 0]) == -3
        assert cut_value(p, [0, 1, 0]) == 3

    @relaxed
    @given(seed=st.integers(0, 10_000))
    def test_round_trip(self, tmp_path, brute, seed):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(0, 7))
        w = np.triu(rng.normal(size=(n, n)), 1)
        p = maxcut_qubo(w + w.T)
        write_rudy(p, tmp_path / "g.rudy")
        q = read_problem(tmp_path / "g.rudy")
        for x in brute.all(n):
            assert q.energy(x) == pytest.approx(p.energy(x), abs=1e-12)
            cut = sum(w[i, j] for i in range(n) for j in range(n) if x[i] != x[j])
            assert cut_value(q, x) == pytest.approx(cut) == pytest.approx(-q.energy(x))

    def test_other_qubos_are_refused(self, tmp_path):
        for p in (QUBO(np.eye(2)), QUBO(maxcut_qubo([[0, 1], [1, 0]]).Q, [-1, -1], 2.0)):
            with pytest.raises(ProblemError, match="not a max-cut"):
                write_rudy(p, tmp_path / "g.rudy")

    @pytest.mark.parametrize("w", [[[1.0]], [[0, 1], [2, 0]], [[0, np.nan], [np.nan, 0]]])
    def test_bad_weights(self, w):
        with pytest.raises(ProblemError):
            maxcut_qubo(w)

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("3\n", 1, "header"),
            ("3 4\n", 1, "m must be between"),
            ("3 1\n1 1 2\n", 2, "joins vertex 1 to itself"),
            ("3 2\n1 2 3\n2 1 3\n", 3, "more than once"),
            ("3 1\n1 4 3\n", 2, "between 1 and 3"),
            ("3 1\n1 2 3\nend\n", 3, "trailing"),
        ],
    )
    def test_faults_name_the_line(self, tmp_path, text, line, message):
        path = tmp_path / "g.rudy"
        path.write_text(text)
        with pytest.raises(FileFormatError, match=message) as e:
            read_rudy(path)
        assert str(e.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(
    ("read", "name", "text"), [(read_bqp, "p.bqp", GOOD_BQP), (read_rudy, "g.rudy", GOOD_RUDY)]
)
def test_every_truncation_of_a_text_file_is_refused(tmp_path, read, name, text):
    path = tmp_path / name
    for cut in range(len(text)):
        path.write_text(text[:cut])
        with pytest.raises(FileFormatError, match=name):
            read(path)
    path.write_text(text)
    assert read(path).n == 3


class TestDispatch:
    def test_unknown_formats_list_the_known(self, tmp_path):
        with pytest.raises(ProblemError, match=r"npz \(\.npz\).*bqp.*rudy.*lp.*mps"):
            read_problem(tmp_path / "p.txt")
        with pytest.raises(ProblemError, match=r"unknown format 'qubo'.*npz"):
            write_problem(QUBO(np.eye(2)), tmp_path / "p.npz", format="qubo")
        assert set(FORMATS) == {"npz", "bqp", "rudy", "lp", "mps"}

    def test_format_overrides_the_suffix(self, tmp_path):
        p = QUBO(np.eye(2), [1, 2])
        for name in FORMATS:
            if name == "rudy":
                continue
            path = tmp_path / f"{name}.txt"
            write_problem(p, path, format=name)
            assert read_problem(path, format=name).energy([1, 1]) == 5.0

    def test_missing_file(self, tmp_path):
        for suffix in ("npz", "bqp", "rudy", "lp", "mps"):
            with pytest.raises(FileNotFoundError):
                read_problem(tmp_path / f"none.{suffix}")

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "p.bqp"
        write_problem(QUBO(np.eye(2)), path)
        before = path.read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_problem(QUBO(np.ones((3, 3))), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["p.bqp"]
