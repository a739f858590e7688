"""Models that do not fit in memory: directories of Hugging Face Transformers, block by block."""

from .api import OffloadPlan, OffloadResult, plan_pretrained, prune_pretrained
from .errors import ModelDirectoryError
from .text import context_length, documents, load_tokenizer, token_windows

__all__ = [
    "ModelDirectoryError",
    "OffloadPlan",
    "OffloadResult",
    "context_length",
    "documents",
    "load_tokenizer",
    "plan_pretrained",
    "prune_pretrained",
    "token_windows",
]
