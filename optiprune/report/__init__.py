"""What a run did, for people: one HTML page, Markdown or JSON, of one run or of several.

From the files that `optiprune prune` writes; no model and no data are needed.
"""

from .errors import ReportError
from .folder import read_run, read_runs, run_files
from .forms import FORMS
from .make import make_document
from .run_data import RunData

__all__ = [
    "FORMS",
    "ReportError",
    "RunData",
    "make_document",
    "read_run",
    "read_runs",
    "run_files",
]
