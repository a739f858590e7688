"""The npz format: bit for bit there and back, and nothing hostile is believed."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    MIQP,
    QUBO,
    CardinalityQP,
    FactoredMatrix,
    FileFormatError,
    read_npz,
    write_npz,
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
