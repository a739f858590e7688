"""Write a sparse model to a file that others load: safetensors, packed, ONNX, torch.export.

Every function checks the model against its masks first, writes the file whole or not at all, and
those that write a program run it and compare its outputs before the file gets its name.
"""

from .agreement import Agreement
from .errors import ExportError, PackedFileError
from .onnx_file import export_onnx
from .packed import save_packed
from .packed_reader import Packed, load_packed, read_packed
from .semi_structured import load_semi_structured, save_semi_structured
from .state_dict import save_state_dict
from .torch_program import export_program

__all__ = [
    "Agreement",
    "ExportError",
    "Packed",
    "PackedFileError",
    "export_onnx",
    "export_program",
    "load_packed",
    "load_semi_structured",
    "read_packed",
    "save_packed",
    "save_semi_structured",
    "save_state_dict",
]
