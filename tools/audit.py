"""Known weaknesses in what optiprune needs, by pip-audit.

    python -m tools.audit

Asks a database over the network for the core requirements that are installed here. The exit status
is 1 for a weakness that is known. Without a network the audit cannot be done: that is said, in
words and by exit status 2, and is never taken for "nothing found".
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .licences import judged

__all__ = ["CLEAN", "NOT_DONE", "WEAK", "audit"]

CLEAN, WEAK, NOT_DONE = 0, 1, 2


def audit(command: tuple[str, ...] = (sys.executable, "-m", "pip_audit")) -> tuple[int, str]:
    """(exit status, what to say)."""
    pins = [f"{p.name}=={p.version}" for p in judged() if p.name != "optiprune"]
    # a local build label (+cpu) is no version that a database knows
    lines = "".join(f"{pin.partition('+')[0]}\n" for pin in pins)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text(lines)
        arguments = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
        try:
            done = subprocess.run(
                [*command, *arguments, "-r", str(path)],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            return NOT_DONE, f"AUDIT NOT DONE: {e}"
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return NOT_DONE, f"AUDIT NOT DONE, no database was reached: {why[:300]}"
    weak = [(p["name"], p["version"], v["id"]) for p in packages for v in p.get("vulns", ())]
    skipped = [p["name"] for p in packages if "skip_reason" in p]
    asked = len(packages) - len(skipped)
    said = [f"! {name} {version}: {known}" for name, version, known in weak]
    said.append(f"{asked} of {len(pins)} packages looked up, {len(weak)} weaknesses known")
    if skipped:
        said.append(f"not in the database: {', '.join(skipped)}")
    if asked == 0:
        return NOT_DONE, "\n".join(["AUDIT NOT DONE: no package was looked up", *said])
    return (WEAK if weak else CLEAN), "\n".join(said)


def main() -> int:
    code, said = audit()
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
