"""Pictures of the same prompts and seed across contenders, unselected."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from nulltta.benchmark.analysis import Panel
from nulltta.benchmark.plan import Plan
from nulltta.benchmark.store import BenchmarkFolder

SIDE, GAP, TITLE = 128, 4, 14


def gallery(store: BenchmarkFolder, plan: Plan, panel: Panel, names: Sequence[str]) -> tuple[bytes, list[int]] | None:
    """Draw one row per prompt and one column per contender of which there is a picture; the other pictures of an
    unfinished run are left blank.

    Returns:
        A PNG and the numbers of its prompts; None where no pictures were kept.
    """
    seed = plan.seeds[0]
    places = {
        (prompt, name): store.image(plan, panel.results[name].arm.key, prompt, seed)
        for prompt in range(min(plan.gallery, len(plan.prompts))) for name in names
    }  # fmt: skip
    kept = {place: path for place, path in places.items() if path.exists()}
    if not kept:
        return None
    rows, columns = (list(dict.fromkeys(each)) for each in zip(*kept, strict=True))
    columns.sort(key=list(names).index)
    font = ImageFont.load_default(11)
    sheet = Image.new("RGB", (len(columns) * (SIDE + GAP), TITLE + GAP + len(rows) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        draw.text((column * (SIDE + GAP), 0), _fitted(name, font), "#1f2328", font)
    for (prompt, name), path in kept.items():
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        corner = columns.index(name) * (SIDE + GAP), TITLE + GAP + rows.index(prompt) * (SIDE + GAP)
        sheet.paste(small, corner)
    buffer = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), rows


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the name, cut to the width of a column."""
    while font.getlength(name) > SIDE + GAP:
        name = name[:-1]
    return name
