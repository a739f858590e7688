"""Options of HiGHS by name, refused when HiGHS does not have them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from optiprune.solvers.errors import SolverOptionError

from .highs_run import new_highs

__all__ = ["check_options"]


def check_options(options: Mapping[str, Any], *, taken: Mapping[str, str] | None = None) -> None:
    """Raise `SolverOptionError` for an unknown name, a refused value or one in ``taken``.

    ``taken`` maps options that the caller sets itself to what should be used instead.
    """
    h = new_highs()
    known = _names(h)
    for key, value in options.items():
        if taken and key in taken:
            raise SolverOptionError(f"HiGHS option {key!r} is set by the adapter; use {taken[key]}")
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 3)
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            raise SolverOptionError(
                f"HiGHS has no option {key!r}{hint}; it has: {', '.join(sorted(known))}"
            )
        if h.setOptionValue(key, value).name == "kError":
            raise SolverOptionError(f"HiGHS refuses the option {key} = {value!r}")


def _names(h: Any) -> list[str]:
    options = h.getOptions()
    return [name for name in dir(options) if not name.startswith("_")]
