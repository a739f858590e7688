"""Nothing in the package turns the contents of a file into code.

The package's syntax trees are searched for every call that could; what is allowed stands here with
the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Modules that read pickles, or formats that may hold them
_READERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
# Functions of theirs that only write, or are exceptions
_HARMLESS = {
    "dumps",
    "dump",
    "PickleBuffer",
    "UnpicklingError",
    "safe_load",
    "safe_dump",
    "HIGHEST_PROTOCOL",
}
_BUILTINS = {"eval", "exec", "compile"}

ALLOWED = {
    # pipes between a process and the child that it started itself; no file, no network
    ("optiprune/solvers/adapters/cp_sat_child.py", "pickle.load"),
    ("optiprune/solvers/adapters/cp_sat_process.py", "pickle.load"),
    # tasks from a process to the workers that it asked for: through loky's or Ray's own channels,
    # and through files of a folder that the run makes for itself, which no other user can write to
    ("optiprune/executors/worker.py", "pickle.loads"),
    ("optiprune/executors/shared_file.py", "pickle.loads"),
}


def found_in(text: str) -> Iterator[str]:
    """Names of calls and uses that could run what a file holds."""
    tree = ast.parse(text)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for a in node.names:
                modules[a.asname or a.name] = f"{node.module}.{a.name}"
                if node.module in _READERS and a.name not in _HARMLESS:
                    yield f"{node.module}.{a.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module in _READERS and node.attr not in _HARMLESS:
                yield f"{module}.{node.attr}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        first, _, rest = name.partition(".")
        whole = ".".join(filter(None, (modules.get(first, first), rest)))
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if whole == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if whole in ("torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"):
            yield whole
        if given.get("allow_pickle", "False") != "False":
            yield "allow_pickle"
        if given.get("trust_remote_code", "False") == "True":
            yield "trust_remote_code=True"
        if whole in ("numpy.load", "np.load") and given.get("allow_pickle") != "False":
            yield "numpy.load without allow_pickle=False"
        if whole in _BUILTINS:
            yield whole
        if given.get("shell", "False") != "False" or whole in ("os.system", "os.popen"):
            yield "a shell"


def all_found() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "optiprune").rglob("*.py")):
        for what in found_in(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT).as_posix(), what


def test_no_file_is_turned_into_code() -> None:
    assert set(all_found()) == ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch as t\nt.load(p, weights_only=flag)",
        "from torch import load\nload(p)",
        "import pickle\npickle.load(f)",
        "import pickle as p\nread = p.loads",
        "from pickle import Unpickler",
        "import joblib\njoblib.load(f)",
        "import yaml\nyaml.load(f)",
        "import numpy as np\nnp.load(p)",
        "import numpy\nnumpy.load(p, allow_pickle=True)",
        "numpy.lib.format.read_array(f, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import torch\ntorch.hub.load(r, m)",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert list(found_in(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(p, weights_only=True)",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "model.eval()",
        "import re\nre.compile(x)",
        "f(p, trust_remote_code=asked)",
    ],
)
def test_the_search_lets_pass(text: str) -> None:
    assert not list(found_in(text))


def test_a_pickle_in_place_of_a_file_does_nothing(tmp_path: Path) -> None:
    import pickle

    import torch

    from benchmarks.fuzz_state import KINDS, examine

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    for name, kind in KINDS.items():
        folder = tmp_path / name
        folder.mkdir()
        kind.write(folder)
        (folder / kind.file).write_bytes(pickle.dumps(Harm()))
        assert examine(kind, folder) in ("refused", "accepted"), name
        torch.save(Harm(), folder / kind.file)
        assert examine(kind, folder) in ("refused", "accepted"), name
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harm()))
    assert (tmp_path / "harm").exists()  # it would have been seen
