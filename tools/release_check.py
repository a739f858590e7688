"""Build the packages, look into them, install each where nothing else is, and prune there.

    python -m tools.release_check [--out dist] [--release] [--full]

``--release`` also demands a changelog that begins with this version. The clean environments borrow
the requirements of the one that this runs in (torch alone has hundreds of megabytes), by a path
file and without its editable optiprune; ``--full`` installs them from the index, with the pins of
constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from .built import changelog_faults, sdist_faults, version_of, wheel_faults

__all__ = ["CheckError", "build", "check_installed", "main"]

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / "tests" / "docs" / "stage"


class CheckError(RuntimeError):
    """What is wrong with the release."""


def build(out: Path) -> tuple[Path, Path]:
    """(wheel, sdist), the wheel made from the sdist, of a copy of what git tracks."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        _copy_tracked(source)
        command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
        _run(command, Path(folder), dict(os.environ))
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


def _copy_tracked(target: Path) -> None:
    """What is in the repository and not what lies around in it: build/ is taken into wheels."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def check_installed(package: Path, *, full: bool) -> dict[str, float]:
    """Install a package in an environment of its own, run doctor and prune; what came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True, symlinks=os.name != "nt")
        python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if full:
            pins = ["-c", str(ROOT / "constraints.txt")]
            _run([*pip, *pins, "torch"], folder)
            _run([*pip, *pins, str(package)], folder)
        else:
            site = _run([str(python), "-c", _SITE], folder).strip()
            lent = sysconfig.get_path("purelib")
            Path(site, "borrowed.pth").write_text(f"{lent}\n", encoding="utf-8")
            _run([*pip, "--no-deps", str(package)], folder)
        work = folder / "work"
        shutil.copytree(STAGE, work)
        where = _run([str(python), "-c", _WHERE], work).split("\n")
        if not where[0].startswith(str((folder / "env").resolve())):
            raise CheckError(f"{package.name}: optiprune is imported from {where[0]}")
        if where[1] != version_of(ROOT):
            raise CheckError(f"{package.name} is version {where[1]}, not {version_of(ROOT)}")
        command = [str(python.with_name("optiprune"))]
        _run([*command, "doctor"], work)
        _run([*command, "prune", "run.toml", "--preset", "fast", "--out", "out"], work)
        summary = json.loads((work / "out" / "summary.json").read_text())
        density = summary["report"]["density"]
        if summary["failed"] is not None or abs(density - 0.3) > 0.01:
            raise CheckError(f"{package.name}: a run at density 0.3 ended at {density}")
        return {"density": density, "seconds": summary["seconds"]}


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
_WHERE = (
    "import os, optiprune; print(os.path.realpath(optiprune.__file__)); "
    "print(optiprune.__version__)"
)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; without an environment, in one that leads to no other packages."""
    if environment is None:
        hidden = ("PYTHONPATH", "PYTHONHOME")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}"[-3000:]
        raise CheckError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--release", action="store_true", help="no [Unreleased] at the top")
    parser.add_argument("--full", action="store_true", help="install the requirements, too")
    args = parser.parse_args()
    version = version_of(ROOT)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        faults = list(changelog_faults(changelog, version, release=args.release))
        if args.out.exists():
            shutil.rmtree(args.out)
        wheel, sdist = build(args.out)
        faults += [*wheel_faults(wheel, ROOT), *sdist_faults(sdist, ROOT)]
        if faults:
            raise CheckError("\n".join(faults))
        twine = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
        _run(twine, ROOT, dict(os.environ))
        for package in (wheel, sdist):
            found = check_installed(package, full=args.full)
            print(f"{package.name}: installed, pruned to {found['density']:.3f}")
    except CheckError as e:
        print(e, file=sys.stderr)
        return 1
    print(f"optiprune {version}: both packages are sound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
