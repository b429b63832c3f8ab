"""The sprites: one sheet per style, cut up on first use."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent


@cache
def index() -> dict[str, Any]:
    """Return what the sheets contain: the `size` of a cell in pixels, `columns`, `styles`, `objects` in cell order."""
    found: dict[str, Any] = json.loads((HERE / "index.json").read_text())
    return found


@cache
def _sheet(style: str) -> Image.Image:
    """Load the sheet of a style."""
    with Image.open(HERE / f"{style}.png") as image:
        return image.convert("RGBA")


@cache
def sprite(name: str, style: str, size: int) -> Image.Image:
    """Return the sprite of an object as a size×size RGBA image, which callers share and must not modify."""
    sheets = index()
    cell, place = sheets["size"], sheets["objects"].index(name)
    left, top = place % sheets["columns"] * cell, place // sheets["columns"] * cell
    cut = _sheet(style).crop((left, top, left + cell, top + cell))
    return cut.resize((size, size), Image.Resampling.LANCZOS)
