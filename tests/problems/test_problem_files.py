"""Text files and dispatch: round trips, faults with their line, truncation at every byte."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    FORMATS,
    QUBO,
    CardinalityQP,
    FileFormatError,
    ProblemError,
    cut_value,
    maxcut_qubo,
    read_bqp,
    read_problem,
    read_rudy,
    write_bqp,
    write_problem,
    write_rudy,
)

relaxed = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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
        assert read_bqp(path, instance=1).n == 2
        assert read_bqp(path, instance=2).energy([1]) == -7
        assert read_problem(path, instance=2).n == 1
        with pytest.raises(FileFormatError, match=r":1: the file holds 2 instances; say which"):
            read_problem(path)
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
            ("1\n", 2, "header"),
            ("3\n", 1, "3 instances; say which"),
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

    def test_instances_are_of_bqp_files(self, tmp_path):
        write_problem(QUBO(np.eye(2)), tmp_path / "p.npz")
        with pytest.raises(ProblemError, match="npz file holds one problem"):
            read_problem(tmp_path / "p.npz", instance=1)

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
