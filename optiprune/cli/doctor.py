"""``optiprune doctor``: versions, threads, device, memory, and what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from optiprune import __version__

from .console import output
from .errors import Debug, reporting

__all__ = ["Package", "doctor_command", "packages"]

_LITTLE_MEMORY = 2 << 30
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# core packages with code of a machine, whose import may fail although they are installed
_COMPILED = ("numpy", "scipy", "numba", "torch", "highspy", "dimod", "psutil", "safetensors")
# extras of the project itself
_OWN_WORK = ("dev", "docs", "demo", "peers", "release")


@dataclass(frozen=True, slots=True)
class Package:
    """One requirement.

    Attributes
    ----------
    name, needs : as it is declared
    found : installed version; None if there is none
    fits : whether the installed version is one that is asked for
    extra : that asks for it; empty: optiprune cannot do without
    """

    name: str
    needs: str
    found: str | None
    fits: bool
    extra: str

    @property
    def wrong(self) -> bool:
        """Missing or unfit, and needed."""
        return not self.fits and (not self.extra or self.found is not None)


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a bug report.")] = False,
    debug: Debug = False,
) -> None:
    """Show what optiprune runs with, and what is wrong or missing; exit code 1 if something is."""
    with reporting(debug):
        found = packages()
        system = _system()
        broken = dict(_broken(found))
        complaints = [*_complaints(found, system), *broken.values()]
        if as_json:
            table = {
                "optiprune": __version__,
                "system": system,
                "packages": [asdict(p) for p in found],
                "complaints": complaints,
            }
            typer.echo(json.dumps(table, indent=1))
        else:
            _show(found, system, complaints)
        if broken or any(p.wrong for p in found):
            raise typer.Exit(1)


def packages() -> list[Package]:
    """What optiprune is declared to need, here and now."""
    out = []
    for text in importlib.metadata.requires("optiprune") or []:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if extra in _OWN_WORK or requirement.name == "optiprune":
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue  # of another Python or system
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        out.append(Package(requirement.name, str(requirement.specifier), version, fits, extra))
    return out


def _broken(found: list[Package]) -> Iterator[tuple[str, str]]:
    """(package, complaint) for those that are installed and cannot be imported."""
    for p in found:
        if p.extra or p.found is None or p.name not in _COMPILED:
            continue
        try:
            importlib.import_module(p.name)
        except Exception as e:  # a library that is missing, another architecture, half a package
            said = str(e).splitlines() or [""]
            why = f"{type(e).__name__}: {said[0][:200]}"
            remedy = f"pip install --force-reinstall --no-deps '{p.name}{p.needs}'"
            yield p.name, f"{p.name} is installed and cannot be imported ({why}): {remedy}"


def _extra(requirement: Requirement) -> str:
    match = re.search(r"extra == ['\"]([^'\"]+)", str(requirement.marker or ""))
    return match[1] if match else ""


def _system() -> dict[str, Any]:
    """Machine, threads and device; nothing here raises."""
    import torch
    from threadpoolctl import threadpool_info

    from optiprune.engine.threads import usable_cores
    from optiprune.planning import available_bytes

    blas = [
        f"{p['internal_api']} {p['version'] or ''}, {p['num_threads']} threads"
        for p in threadpool_info()
        if p["user_api"] == "blas"
    ]
    devices = [
        f"{torch.cuda.get_device_name(i)}, "
        f"{torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": usable_cores(),
        "memory_available": available_bytes(),
        "torch_threads": torch.get_num_threads(),
        "torch_build": torch.__version__,
        "blas": blas,
        "devices": devices,
        "environment": {k: os.environ[k] for k in _THREADS if k in os.environ},
        "temporary_folder_writable": _writable(Path(tempfile.gettempdir())),
    }


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _complaints(found: list[Package], system: dict[str, Any]) -> Iterator[str]:
    for p in found:
        if p.wrong:
            what = "is missing" if p.found is None else f"is {p.found}"
            yield f"{p.name} {what}, needed is {p.needs}: pip install '{p.name}{p.needs}'"
    if system["memory_available"] < _LITTLE_MEMORY:
        gib = system["memory_available"] / 2**30
        yield f"{gib:.1f} GiB of memory are free: `optiprune prune --dry-run` tells what is needed"
    threads = system["environment"].get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > system["cores"]:
        yield f"OMP_NUM_THREADS = {threads} is more than the {system['cores']} cores: they wait"
    if not system["temporary_folder_writable"]:
        yield f"the temporary folder {tempfile.gettempdir()} cannot be written: set TMPDIR"


def _show(found: list[Package], system: dict[str, Any], complaints: list[str]) -> None:
    console = output()
    here = Table("", "", title=f"optiprune {__version__}", title_justify="left", show_header=False)
    here.add_row("system", escape(system["system"]))
    here.add_row("Python", system["python"])
    here.add_row("cores, torch threads", f"{system['cores']}, {system['torch_threads']}")
    here.add_row("memory available", f"{system['memory_available'] / 2**30:.1f} GiB")
    here.add_row("BLAS", escape("; ".join(system["blas"]) or "not loaded yet"))
    here.add_row("devices", escape("; ".join(system["devices"]) or "no GPU: all runs on the CPU"))
    for name, value in system["environment"].items():
        here.add_row(name, escape(value))
    console.print(here)
    table = Table(title="Packages", title_justify="left")
    for name in ("package", "needs", "installed", "for"):
        table.add_column(name)
    for p in found:
        state = p.found or "-"
        table.add_row(p.name, p.needs, f"{state} (!)" if p.wrong else state, p.extra or "all")
    console.print(table)
    missing = sorted({p.extra for p in found if p.extra and p.found is None})
    if missing:
        extras = f"pip install 'optiprune[{','.join(missing)}]'"
        console.print(f"extras that are not installed: {escape(extras)}", soft_wrap=True)
    for complaint in complaints:
        console.print(f"! {escape(complaint)}", soft_wrap=True)
    if not complaints:
        console.print("nothing is wrong")
