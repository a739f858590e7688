"""What is solved: named suites, folders of files, and the public set that `export_suite` writes."""

from .digest import digest
from .export import FORMATS, check_formats, export_suite
from .folder import MANIFEST, folder_suite
from .instance import BestKnown, Instance
from .suites import SUITES, Selection, suite

__all__ = [
    "FORMATS",
    "MANIFEST",
    "SUITES",
    "BestKnown",
    "Instance",
    "Selection",
    "check_formats",
    "digest",
    "export_suite",
    "folder_suite",
    "suite",
]
