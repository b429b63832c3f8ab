"""A sheet of pictures with a block per prompt, a column per seed, and plain pictures above replayed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import shorten
from typing import TYPE_CHECKING

from PIL.Image import Image

from nulltta.runs.fonts import font_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 8
INCHES = 1.3
"""The height of a picture."""
BLOCKS = 40
"""The greatest number of blocks, beyond which a sheet would be too long to look at."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The pictures of one seed by name, which are the same names in all cells of a sheet."""

    prompt: str
    label: str
    pictures: Mapping[str, Image]


def grid_figure(cells: Sequence[Cell]) -> Figure:
    """Draw the cells in blocks of up to `COLUMNS` seeds of one prompt, at most the first `BLOCKS` of them.

    Args:
        cells: the cells of at least one seed, with those of one prompt next to each other.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    blocks = [
        block[i : i + COLUMNS]
        for _, of_prompt in groupby(cells, key=lambda cell: cell.prompt)
        for block in [list(of_prompt)]
        for i in range(0, len(block), COLUMNS)
    ][:BLOCKS]
    names = list(cells[0].pictures)
    columns = max(map(len, blocks))
    picture = cells[0].pictures[names[0]]
    width, height = INCHES * max(1.0, picture.width / picture.height), INCHES
    size = (max(columns * width + 0.5, 4.5), len(blocks) * (len(names) * height + 0.75))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    for part, block in zip(figure.subfigures(len(blocks), 1, squeeze=False)[:, 0], blocks, strict=True):
        title = shorten(block[0].prompt, int(13 * size[0]), placeholder=" …")
        part.suptitle(title, fontproperties=FontProperties(fname=str(font_file(title)), size=9), parse_math=False)
        axes = part.subplots(len(names), columns, squeeze=False)
        for row, name in enumerate(names):
            for axis, cell in zip(axes[row], block, strict=False):
                axis.imshow(cell.pictures[name], interpolation="lanczos")
                if row == 0:
                    axis.set_title(cell.label, fontsize=8, pad=3)
            axes[row, 0].set_ylabel(name, fontsize=8)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure
