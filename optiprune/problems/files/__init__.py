"""Problem files: optiprune's own .npz, and text formats that other programs read.

`read_problem` and `write_problem` choose the format by suffix; each format's own pair of functions
has its options. Files are written whole or not at all.
"""

from .bqp_format import read_bqp, write_bqp
from .dispatch import FORMATS, read_problem, write_problem
from .mps_lp import read_lp, read_mps, write_lp, write_mps
from .npz_format import read_npz, write_npz
from .rudy_format import read_rudy, write_rudy

__all__ = [
    "FORMATS",
    "read_bqp",
    "read_lp",
    "read_mps",
    "read_npz",
    "read_problem",
    "read_rudy",
    "write_bqp",
    "write_lp",
    "write_mps",
    "write_npz",
    "write_problem",
    "write_rudy",
]
