"""The font of a text has its letters, or what it lacks is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from nulltta.runs import fonts

LATIN = dict.fromkeys(range(33, 127), "box")


def _font(path: Path, letters: dict[int, str]) -> str:
    """Write a font with a square for each letter."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box"])
    builder.setupCharacterMap(letters)
    builder.setupGlyf({".notdef": pen.glyph(), "box": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "box": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the machine have three fonts: two with 日, of which one is Noto's, and one that holds no font at all."""
    (tmp_path / "NotoBroken.ttf").write_bytes(b"no font")
    names = [_font(tmp_path / name, {0x65E5: "box", **LATIN}) for name in ("Another.ttf", "NotoSans-Regular.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [*names, str(tmp_path / "NotoBroken.ttf")])
    for cached in (fonts._installed, fonts._with_most):
        cached.cache_clear()
    yield tmp_path
    for cached in (fonts._installed, fonts._with_most):
        cached.cache_clear()


def test_a_font_with_the_letters_is_chosen_notos_first(installed: Path) -> None:
    assert fonts.font_file("a cat, кот, γάτα").name == "DejaVuSans.ttf"
    assert fonts.font_file("a cat", bold=True).name == "DejaVuSans-Bold.ttf"
    assert fonts.font_file("a cat 日") == installed / "NotoSans-Regular.ttf"


def test_letters_that_no_font_has_are_named(installed: Path) -> None:
    with pytest.warns(UserWarning, match="no installed font has '本': boxes are drawn in their place"):
        assert fonts.font_file("日本") == installed / "NotoSans-Regular.ttf"
