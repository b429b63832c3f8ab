"""The README's first picture: prompts that plain sampling gets wrong and alignment gets right.

    python studies/showcase.py [--prompts 24 --seed 0]

The first prompts of the scenes world's test list are sampled plainly and aligned for its target, in the preset. Shown
are the first three of those of which the judge finds more after aligning and then everything. The script prints how
many of all prompts gained, lost and stayed, with the mean of every measure, so that the choice can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

import nulltta
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.evaluation.measures import held_out_measures
from nulltta.images import save_png, to_pil
from nulltta.runs.fonts import font_file

OUT = Path(__file__).parents[1] / "docs" / "images" / "showcase.png"
HELD_OUT = "scenes-conv"
SHOWN, BATCH = 3, 8
SIDE, GAP, TEXT = 320, 24, 18
INK, GREY = "#1f2328", "#59636e"


def showcase(prompts: int = 24, seed: int = 0, out: Path = OUT) -> None:
    """Sample the prompts, print what changed and draw the picture."""
    world, model = WORLDS["scenes"], nulltta.load_model("scenes")
    measures, chosen = held_out_measures(model), world.test_prompts(prompts)
    found: list[Comparison] = []
    for start in range(0, prompts, BATCH):
        part = chosen[start : start + BATCH]
        found += compare(nulltta.align(model, part, world.target, seed=seed, progress=False), measures)
        print(f"{len(found)} of {prompts}", flush=True)
    gains = [each.scores["facts"].gain for each in found]
    print(f"facts: {sum(g > 0 for g in gains)} gained, {sum(g < 0 for g in gains)} lost, of {prompts}")
    for name in found[0].scores:
        pairs = [(each.scores[name].plain, each.scores[name].aligned) for each in found]
        gain = paired_gain(*map(list, zip(*pairs, strict=True)), np.random.default_rng(0))
        print(f"{name}: {gain.plain:.3f}, {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    right = [each for each, gain in zip(found, gains, strict=True) if gain > 0 and each.scores["facts"].aligned == 1]
    save_png(drawn(right[:SHOWN]), out)


def drawn(comparisons: Sequence[Comparison]) -> Image.Image:
    """Draw one column per prompt: the plain picture, and below it the aligned one, with what the judge finds."""
    wide = GAP + len(comparisons) * (SIDE + GAP)
    row = SIDE + 2 * TEXT + GAP
    sheet = Image.new("RGB", (wide, GAP + 2 * TEXT + 2 * row), "white")
    draw = ImageDraw.Draw(sheet)
    bold, usual = (ImageFont.truetype(str(font_file("", bold=heavy)), TEXT) for heavy in (True, False))
    for column, each in enumerate(comparisons):
        left = GAP + column * (SIDE + GAP)
        draw.text((left, GAP), f"“{each.prompt}”", INK, bold)
        for place, name in enumerate(("plain", "aligned")):
            top = GAP + 2 * TEXT + place * row
            picture = to_pil(getattr(each, name)[None])[0].resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            facts, held = (getattr(each.scores[measure], name) for measure in ("facts", HELD_OUT))
            draw.text((left, top + SIDE + 4), name, INK, bold)
            said = f"{facts:.0%} of the prompt, {HELD_OUT} {held:.2f}"
            draw.text((left + SIDE - usual.getlength(said), top + SIDE + 4), said, GREY, usual)
    return sheet


if __name__ == "__main__":
    typer.run(showcase)
