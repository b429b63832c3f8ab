"""Pictures of comparisons: both images with their scores, a sheet of many, and a plot of the reward over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from nulltta.display.formatting import number, sign, signed
from nulltta.evaluation.comparison import Comparison
from nulltta.images import to_pil
from nulltta.runs.fonts import font_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nulltta.contracts import Step

LANCZOS = Image.Resampling.LANCZOS
INK, GREY, UP, DOWN = "#1f2328", "#656d76", "#1a7f37", "#b42318"
SIDE, CELL_SIDE = 256, 160
"""The pixels of an image's short side in a comparison and on a contact sheet."""
SHEET_ROWS = 25
"""The greatest number of rows, beyond which a sheet would be too long to look at."""


def upscaled(image: Image.Image, side: int) -> Image.Image:
    """Return the image, enlarged by Lanczos resampling if its short side is below `side` pixels."""
    factor = side / min(image.size)
    return image if factor <= 1 else image.resize(_scaled(image, factor), LANCZOS)


def comparison_picture(comparison: Comparison) -> Image.Image:
    """Draw the plain and the aligned image side by side, below the prompt and above their scores."""
    plain, aligned = (upscaled(to_pil(image[None])[0], SIDE) for image in (comparison.plain, comparison.aligned))
    return _panels(comparison, {"plain": plain, "aligned": aligned}, text=max(11, round(plain.width / 17)))


def contact_cell(
    comparison: Comparison, title: str | None = None, names: Sequence[str] = ("plain", "aligned")
) -> Image.Image:
    """Draw a small `comparison_picture`, whose width depends on the size of the images alone.

    Args:
        comparison: the images and their scores.
        title: what stands above them; the prompt if None.
        names: which of the two images are drawn.
    """
    images = {name: to_pil(getattr(comparison, name)[None])[0] for name in names}
    small = {name: image.resize(_scaled(image, CELL_SIDE / min(image.size)), LANCZOS) for name, image in images.items()}
    return _panels(replace(comparison, prompt=title or comparison.prompt), small, text=11)


def contact_sheet(cells: Sequence[Image.Image]) -> Image.Image:
    """Draw cells in reading order, two to four per row, at most the first `SHEET_ROWS` rows."""
    columns = min(4, max(2, round(math.sqrt(len(cells) / 2))), len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)][:SHEET_ROWS]
    heights = [max(cell.height for cell in row) for row in rows]
    width = max(cell.width for cell in cells)
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    for row, top in zip(rows, accumulate([0, *heights]), strict=False):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * width, top))
    return sheet


def trace_figure(comparison: Comparison) -> Figure:
    """Plot the reward over all inner steps, with the candidates of each denoising step, above the KL divergence."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    figure = Figure(figsize=(9, 5.5), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    reward, candidates, chosen, kl = course(comparison.trace, comparison.initial_rewards.tolist())
    target, score = next(iter(comparison.scores.items()))
    upper.plot(*_columns(reward), color="#0969da", linewidth=1.2, label="reward at each inner step")
    upper.scatter(*_columns(candidates), s=12, color="#afb8c1", zorder=2, label="candidates")
    upper.scatter(*_columns(chosen), s=20, color="#cf222e", zorder=3, label="selected")
    upper.axhline(score.plain, color=GREY, linestyle="--", linewidth=1, label="plain sampling's image")
    upper.set_ylabel(_shortened(target, 48), parse_math=False)
    font = FontProperties(fname=str(font_file(comparison.prompt)), size=11)
    upper.set_title(_shortened(comparison.prompt, 100), parse_math=False, fontproperties=font)
    upper.legend(fontsize=8, loc="best")
    lower.plot(*_columns(kl), color="#8250df", marker=".", linewidth=1)
    lower.set_ylabel("KL (nats)")
    lower.set_xlabel("inner steps of all denoising steps, each of which ends at its candidates")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure


def has_course(comparison: Comparison) -> bool:
    """Return whether a run scored anything on its way, so that there is something to plot."""
    *rewards, _ = course(comparison.trace, comparison.initial_rewards.tolist())
    return any(rewards)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. A glyph that its font lacks is drawn as a box."""
    import warnings

    from nulltta.files import atomic

    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png")


Points = list[tuple[float, float]]
"""(inner step, value) of each point of a curve."""


def course(trace: Sequence[Step], initial: Sequence[float] = (), b: int = 0) -> tuple[Points, Points, Points, Points]:
    """Return the points of the reward, of all candidates, of the selected candidates and of the KL divergence.

    Candidates are placed at the inner step that follows them, whose reward is that of the selected one.

    Args:
        trace: the steps.
        initial: the rewards of the initial candidates.
        b: the index of the prompt in the batch.
    """
    reward: Points = []
    candidates: Points = [(0, value) for value in initial]
    chosen: Points = []
    kl: Points = []
    place = 0
    for step in trace:
        values = step.inner_rewards[:, b].tolist()
        reward += [(place + n, value) for n, value in enumerate(values)]
        place += max(1, len(values))
        drawn = step.candidate_rewards[b].tolist()
        candidates += [(place, value) for value in drawn]
        chosen += [(place, drawn[int(step.selected[b])])] if drawn else []  # some methods score nothing on the way
        kl.append((place, float(step.kl[b])))
    return reward + chosen[-1:], candidates, chosen, kl


def _columns(points: Points) -> tuple[list[float], list[float]]:
    """Return the inner steps and the values of points."""
    return [x for x, _ in points], [y for _, y in points]


def _panels(comparison: Comparison, images: Mapping[str, Image.Image], text: int) -> Image.Image:
    """Draw images of one size side by side with their names and scores, in letters of `text` pixels."""
    margin, line, font = text, round(1.45 * text), _font(text, text=comparison.prompt)
    wide, high = next(iter(images.values())).size
    width = len(images) * (wide + margin) + margin
    title = _wrapped(comparison.prompt, font, width - 2 * margin, lines=3)
    top = margin + line * len(title) + margin // 2
    bottom = top + high + margin // 2
    picture = Image.new("RGB", (width, bottom + line * (1 + len(comparison.scores)) + margin), "white")
    draw = ImageDraw.Draw(picture)
    for row, words in enumerate(title):
        draw.text((margin, margin + row * line), words, INK, font)
    for place, (name, image) in enumerate(images.items()):
        left = margin + place * (wide + margin)
        picture.paste(image, (left, top))
        draw.text((left, bottom), name, INK, _font(text, bold=True))
        for row, (measure, score) in enumerate(comparison.scores.items(), start=1):
            gain = score.gain if name == "aligned" else 0.0
            label = f"   {measure}" if score.role == "component" else measure
            _caption(draw, (left, bottom + row * line), image.width, text, label, getattr(score, name), gain)
    return picture


def _caption(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, text: int, measure: str, value: float, gain: float
) -> None:
    """Draw a line such as "clip 0.312  +0.021": the name is cut to fit, and a gain that rounds to 0 is left out."""
    font, gained = _font(text), f"  {signed(gain)}" if sign(gain) else ""
    room = width - font.getlength(f" {number(value)}{gained}")
    words = f"{_fitted(measure, font, room)} {number(value)}"
    draw.text(at, words, GREY, font)
    draw.text((at[0] + round(font.getlength(words)), at[1]), gained, UP if sign(gain) > 0 else DOWN, font)


def _font(size: int, bold: bool = False, text: str = "") -> ImageFont.FreeTypeFont:
    """Return a font of a size that has the letters of a text."""
    return _opened(font_file(text, bold=bold), size)


@cache
def _opened(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)


def _wrapped(words: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Break words into at most `lines` lines of `width` pixels; what does not fit becomes an ellipsis."""
    rows = [""]
    for word in " ".join(words.split()).split(" "):
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font.getlength(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    if len(rows) > lines:
        rows = [*rows[: lines - 1], f"{rows[lines - 1]} …"]
    return [_fitted(row, font, width) for row in rows]


def _fitted(row: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a line to `width` pixels."""
    while len(row) > 1 and font.getlength(row) > width:
        row = f"{row.rstrip('…')[:-1]}…"
    return row


def _shortened(words: str, length: int) -> str:
    """Return the words on one line, cut to `length` characters."""
    words = " ".join(words.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"


def _scaled(image: Image.Image, factor: float) -> tuple[int, int]:
    """Return the size of an image times a factor."""
    return round(image.width * factor), round(image.height * factor)
