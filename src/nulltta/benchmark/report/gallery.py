"""Pictures of the same prompts and seed across contenders, unselected."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nulltta.benchmark.analysis import Panel
from nulltta.benchmark.plan import Plan
from nulltta.benchmark.store import BenchmarkFolder

SIDE, GAP, TITLE = 128, 4, 14


def gallery(store: BenchmarkFolder, plan: Plan, panel: Panel, names: Sequence[str]) -> tuple[bytes, list[int]] | None:
    """Draw one row per prompt and one column per contender.

    Returns:
        A PNG and the numbers of its prompts; None where no pictures were kept.
    """
    seed = plan.seeds[0]
    rows = [
        (prompt, files)
        for prompt in range(min(plan.gallery, len(plan.prompts)))
        if all(files := _files(store, plan, panel, names, prompt, seed))
    ]
    if not rows:
        return None
    font = ImageFont.load_default(11)
    sheet = Image.new("RGB", (len(names) * (SIDE + GAP), TITLE + GAP + len(rows) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((column * (SIDE + GAP), 0), _fitted(name, font), "#1f2328", font)
        for row, (_, files) in enumerate(rows):
            with Image.open(files[column]) as image:
                small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (column * (SIDE + GAP), TITLE + GAP + row * (SIDE + GAP)))
    buffer = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), [prompt for prompt, _ in rows]


def _files(
    store: BenchmarkFolder, plan: Plan, panel: Panel, names: Sequence[str], prompt: int, seed: int
) -> list[Path]:
    """Return the pictures of a prompt in the order of the names; an empty list if one is missing."""
    found = [store.image(plan, panel.results[name].arm.key, prompt, seed) for name in names]
    return found if all(path.exists() for path in found) else []


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the name, cut to the width of a column."""
    while font.getlength(name) > SIDE + GAP:
        name = name[:-1]
    return name
