"""How results are shown: tables in the terminal, files, and figures."""

from .summaries import Report, make_report, write_report
from .tables import summary_tables

__all__ = ["Report", "make_report", "summary_tables", "write_report"]
