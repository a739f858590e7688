"""What is written down: the journal of a run, the best known answers, tables for other programs."""

from .best_known import FILE, read_best_known, update_best, with_best_known, write_best_known
from .journal import JOURNAL, Journal, read_journal
from .results import write_results, write_table

__all__ = [
    "FILE",
    "JOURNAL",
    "Journal",
    "read_best_known",
    "read_journal",
    "update_best",
    "with_best_known",
    "write_best_known",
    "write_results",
    "write_table",
]
