"""Masks: which weights are kept, put on a model, taken off, stored, and kept in fine-tuning.

`MaskSet` is the only thing in optiprune that writes to a model.
"""

from .applied import AppliedMasks
from .counts import MaskCount
from .errors import MaskError, MaskFileError
from .file import Contents as MaskFileContents
from .file import read_file as read_mask_file
from .hashing import weight_hashes
from .keep import KeepMasked, keep_masked
from .maskset import MaskSet
from .pattern import check_pattern
from .reader import MaskReader

__all__ = [
    "AppliedMasks",
    "KeepMasked",
    "MaskCount",
    "MaskError",
    "MaskFileContents",
    "MaskFileError",
    "MaskReader",
    "MaskSet",
    "check_pattern",
    "keep_masked",
    "read_mask_file",
    "weight_hashes",
]
