"""Other forms of a convolution that compute the same: one dense kernel, a resize by transposing."""

from .candidates import FormError
from .convert import Converted, FormRecord
from .grouped import dense_kernel, dense_of_groups
from .passes import compacted, densified, without_resize
from .upsampling import transposed_upsample

__all__ = [
    "Converted",
    "FormError",
    "FormRecord",
    "compacted",
    "dense_kernel",
    "dense_of_groups",
    "densified",
    "transposed_upsample",
    "without_resize",
]
