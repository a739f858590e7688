"""The functions and the solver that a run file names: found and checked before any work starts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from optiprune import solvers
from optiprune.config import Config

from .errors import InputError
from .importable import importable

__all__ = ["CallableLoader", "absolute_reference", "check_solver", "names_file"]


class CallableLoader:
    """Finds ``"file.py:function"`` and ``"package.module:function"``; each file is run once.

    Parameters
    ----------
    folder : where relative paths start; modules beside the file can be imported by it
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, ModuleType] = {}

    def load(self, key: str, reference: str, n_arguments: int) -> Callable[..., Any]:
        """The function behind a reference.

        Parameters
        ----------
        key : the config key that holds the reference, for the message
        reference : ``"file.py:function"`` or ``"package.module:function"``
        n_arguments : how many positional arguments it will be called with

        Raises
        ------
        InputError
            No such file, module or function; the module raises on import; the function does not
            take that many arguments.
        """
        where, _, name = reference.rpartition(":")
        try:
            module = self._module(where)
        except InputError as e:
            raise InputError(f"{key} = {reference!r}: {e}") from None
        except Exception as e:
            raise InputError(
                f"{key} = {reference!r}: importing {where!r} failed with {type(e).__name__}: {e}"
            ) from e
        function = getattr(module, name, None)
        if function is None:
            found = sorted(
                n for n, v in vars(module).items() if inspect.isfunction(v) and n[:1] != "_"
            )
            raise InputError(
                f"{key} = {reference!r}: {where!r} has no {name!r}; its functions: "
                f"{', '.join(found) or 'none'}"
            )
        if not callable(function):
            raise InputError(
                f"{key} = {reference!r} must be callable, got a {type(function).__name__}"
            )
        try:
            inspect.signature(function).bind(*range(n_arguments))
        except TypeError as e:
            called = "the model" if n_arguments == 1 else "no arguments"
            raise InputError(f"{key} = {reference!r} is called with {called}, but: {e}") from None
        except ValueError:  # a built-in without a signature: nothing to check
            pass
        return _guarded(key, reference, function)

    def _module(self, where: str) -> ModuleType:
        if not names_file(where):
            with importable(self._folder):
                return importlib.import_module(where)
        path = (self._folder / where).resolve()
        if path not in self._files:
            if not path.is_file():
                raise InputError(f"there is no file {path}")
            spec = importlib.util.spec_from_file_location(f"optiprune_run_{path.stem}", path)
            if spec is None or spec.loader is None:
                raise InputError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses and pickle look a module up by its name
            try:
                with importable(path.parent):
                    spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[spec.name]
                raise
            self._files[path] = module
        return self._files[path]


def names_file(where: str) -> bool:
    """Whether the part of a reference before the colon is a path, and not a module's name."""
    return where.endswith(".py") or "/" in where or "\\" in where


def absolute_reference(folder: Path, value: str | None) -> str | None:
    """A reference with the path of its file made absolute; a module's name stays."""
    where, _, name = (value or "").rpartition(":")
    return f"{(folder / where).resolve()}:{name}" if names_file(where) else value


def check_solver(run: Config) -> None:
    """Build the solver that the config names, to refuse a bad one early. Raises `SolverError`."""
    solvers.from_table({k: v for k, v in run.solver.items() if k != "time_limit"})


def _guarded(key: str, reference: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its own exceptions told apart from ours."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as e:
            raise InputError(f"{key} = {reference!r} raised {type(e).__name__}: {e}") from e

    return call
