"""A bill of materials of optiprune and what its core needs, in CycloneDX.

    python -m tools.sbom --out dist/sbom.json

cyclonedx-py describes the environment that this runs in, with versions, licences and package URLs;
what only development or extras need is taken out of it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .licences import judged

__all__ = ["bill", "of_these"]

ROOT = Path(__file__).resolve().parent.parent


def of_these(whole: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A bill with the components of these names, and the dependencies among them.

    Raises
    ------
    ValueError
        A name without a component.
    """
    kept = [c for c in whole["components"] if _key(c["name"]) in names]
    missing = set(names) - {_key(c["name"]) for c in kept}
    if missing:
        raise ValueError(f"the bill lacks {', '.join(sorted(missing))}")
    refs = {c["bom-ref"] for c in kept}
    root = whole.get("metadata", {}).get("component", {}).get("bom-ref")
    links = [
        {"ref": d["ref"], "dependsOn": [r for r in d.get("dependsOn", ()) if r in refs]}
        for d in whole.get("dependencies", ())
        if d["ref"] in refs or d["ref"] == root
    ]
    return {**whole, "components": kept, "dependencies": links}


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bill() -> dict[str, Any]:
    """Raises subprocess.CalledProcessError if cyclonedx-py fails or is missing."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON"]
    done = subprocess.run(
        [*command, sys.executable], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names = {p.name for p in judged()} - {"optiprune"}
    return of_these(json.loads(done.stdout), names)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        found = bill()
    except subprocess.CalledProcessError as e:
        print(e.stderr or e, file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(found['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
