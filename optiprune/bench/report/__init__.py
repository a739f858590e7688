"""How results are shown: tables in the terminal, files, and figures."""

from .contents import Report, known_of, make_report
from .summaries import write_report
from .tables import summary_tables

__all__ = ["Report", "known_of", "make_report", "summary_tables", "write_report"]
