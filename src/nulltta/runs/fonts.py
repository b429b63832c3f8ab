"""The font of a text: DejaVu Sans, or where it lacks a script an installed font that has it, Noto's first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_COLOURED = "ColorEmoji"  # part of the names of fonts that hold pictures of one size, not outlines


def font_file(text: str, *, bold: bool = False) -> Path:
    """Return the file of a font that has the letters of a text; warn of letters that no installed font has."""
    letters = frozenset(map(ord, "".join(text.split())))
    missing = letters - _letters(_dejavu(bold))
    if not missing:
        return _dejavu(bold)
    found = _with_most(letters)
    if lacks := letters - _letters(found):
        shown = "".join(map(chr, sorted(lacks)[:8]))
        warnings.warn(
            f"no installed font has '{shown}': boxes are drawn in their place (the Noto fonts have every script)",
            stacklevel=2,
        )
    return found


@cache
def _with_most(letters: frozenset[int]) -> Path:
    """Return the font that lacks the fewest of the letters, the first of several."""
    return min((_dejavu(False), *_installed()), key=lambda file: len(letters - _letters(file)))


def _dejavu(bold: bool) -> Path:
    """Return DejaVu Sans, which is installed with matplotlib and covers Latin, Greek, Cyrillic and more."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@cache
def _installed() -> Sequence[Path]:
    """Return the fonts of this machine, Noto's regular ones first."""
    from matplotlib.font_manager import findSystemFonts

    files = [Path(name) for name in findSystemFonts() if _COLOURED not in name]
    return sorted(files, key=lambda file: (not file.name.startswith("Noto"), "Regular" not in file.name, file.name))


@cache
def _letters(file: Path) -> frozenset[int]:
    """Return the code points that a font has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
