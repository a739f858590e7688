"""Pictures of the masks, and what they show in numbers."""

from __future__ import annotations

from dataclasses import replace

from optiprune.masks import MaskError, MaskReader
from optiprune.report.document import Picture, Section, cells, table
from optiprune.report.mask_pictures import MaskPicture, picture_of
from optiprune.report.numbers import count, percent
from optiprune.report.run_data import RunData

__all__ = ["mask_section"]

_FEW, _LARGE, _SMALL = 60, 128, 64


def mask_section(run: RunData, key: str) -> tuple[RunData, Section | None]:
    """The section; and the run, whose ``faults`` say so if the masks cannot be read."""
    if run.masks is None:
        return run, None
    found: dict[str, MaskPicture] = {}
    try:
        with MaskReader.open(run.masks) as reader:
            side = _LARGE if len(reader.names) <= _FEW else _SMALL
            for name in reader.names:
                mask = reader.mask(name).numpy()
                if mask.size:
                    found[name] = picture_of(mask, side)
    except (MaskError, OSError) as e:
        fault = f"the masks cannot be read, so there are no pictures of them: {e}"
        return replace(run, masks=None, faults=(*run.faults, fault)), None
    shown = {x.parameter: x.name for x in run.layers}
    pictures = tuple(
        Picture(shown.get(name, name), p.png, p.width, p.height, _text(p))
        for name, p in found.items()
    )
    rows = [
        cells(
            shown.get(name, name),
            count(p.rows),
            count(p.cols),
            count(p.empty_rows),
            count(p.empty_cols),
            percent(p.low),
            percent(p.high),
        )
        for name, p in found.items()
    ]
    columns = ("layer", "outputs", "inputs", "outputs without a weight", "inputs not read")
    listed = table(
        "What the pictures show; inputs of a convolution are counted for every place of its kernel",
        (*columns, "lightest pixel", "darkest pixel"),
        rows,
        long=len(rows) > 40,
    )
    paragraphs = (
        "Rows are outputs, columns inputs, as in the weight's matrix. Where a pixel is one weight, "
        "dark is kept and light is pruned. A larger layer is drawn smaller: a pixel is a block of "
        "weights, and its shade says how many of them are kept, from the lowest to the highest "
        "share in that picture. The shades of two such pictures do not compare; the numbers below "
        "them do.",
    )
    return run, Section(key, "Masks", paragraphs, pictures=pictures, tables=(listed,))


def _text(p: MaskPicture) -> str:
    size = f"{p.rows:,} × {p.cols:,} weights"
    if (p.height, p.width) == (p.rows, p.cols):
        return f"{size}, one a pixel"
    down, across = p.block
    return (
        f"{size}; a pixel is about {down:.3g} × {across:.3g} of them, of which "
        f"{percent(p.low, 0).text} (light) to {percent(p.high, 0).text} (dark) are kept"
    )
