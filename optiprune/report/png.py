"""A PNG file of sixteen shades: signature, header, palette, one compressed stream (RFC 2083)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["SHADES", "encode", "scale_of_shades"]

# from nothing to everything: light to dark in one hue, so that print and the colour-blind see it
_LIGHT, _DARK = (247, 251, 255), (8, 48, 107)
SHADES = 16


def encode(levels: npt.NDArray[np.uint8]) -> bytes:
    """The file's bytes.

    Parameters
    ----------
    levels : (height, width), each 0 (lightest) to `SHADES` - 1
    """
    height, width = levels.shape
    padded = np.zeros((height, width + width % 2), dtype=np.uint8)
    padded[:, :width] = levels
    packed = padded[:, ::2] << 4 | padded[:, 1::2]
    rows = np.zeros((height, 1 + packed.shape[1]), dtype=np.uint8)  # filter 0 before each row
    rows[:, 1:] = packed
    palette = bytes(
        round(a + (b - a) * i / (SHADES - 1))
        for i in range(SHADES)
        for a, b in zip(_LIGHT, _DARK, strict=True)
    )
    header = struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 9)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def scale_of_shades() -> bytes:
    """A picture of all shades in a row, for the legend."""
    return encode(np.arange(SHADES, dtype=np.uint8)[None, :])


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
