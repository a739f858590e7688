"""Values in files that are mapped into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optiprune.executors import Shared
from optiprune.executors.shared_file import read_shared, write_shared


def test_arrays_come_back_as_they_were_and_are_not_copied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    value = {
        "a": rng.normal(size=(7, 5)),
        "fortran": np.asfortranarray(rng.normal(size=(4, 9)).astype(np.float32)),
        "empty": np.zeros((0, 3)),
        "text": ["x", None, 3],
    }
    value["again"] = value["a"]
    write_shared(tmp_path / "v", value)
    found = read_shared(tmp_path / "v")
    assert found["text"] == value["text"]
    assert found["again"] is found["a"]
    for name in ("a", "fortran", "empty"):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
        assert not found[name].flags.writeable
    assert found["fortran"].flags.f_contiguous
    assert found["a"].ctypes.data % 64 == 0


def test_a_shared_value_is_handed_over_once() -> None:
    shared = Shared([1])
    assert shared.take() == [1]
    with pytest.raises(ValueError, match="handed over"):
        shared.take()
