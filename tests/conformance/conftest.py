"""Puts the benchmarks and this folder's cases on the path, whatever started pytest."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE.parents[1], HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
