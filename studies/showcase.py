"""The README's first picture, docs/images/showcase.png: prompts that plain sampling gets wrong, plain and aligned.

    python studies/showcase.py [--prompts 12 --seed 0]

The first prompts of the scenes world's test list are sampled plainly and aligned for its target, in the preset. Shown
are all of which the judge finds more in the aligned picture. The script prints how many of the prompts gained and how
many lost, with the mean of every measure, so that the choice can be told.
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
SIDE, GAP, TEXT = 320, 24, 15
INK, GREY = "#1f2328", "#59636e"


def showcase(prompts: int = 12, seed: int = 0, out: Path = OUT) -> None:
    """Sample the prompts, print what changed and draw the picture."""
    world, model = WORLDS["scenes"], nulltta.load_model("scenes")
    measures, chosen = held_out_measures(model), world.test_prompts(prompts)
    found = compare(nulltta.align(model, chosen, world.target, seed=seed), measures)
    gains = [each.scores["facts"].gain for each in found]
    print(f"facts: {sum(g > 0 for g in gains)} gained, {sum(g < 0 for g in gains)} lost, of {prompts}")
    for name in found[0].scores:
        plain, aligned = ([getattr(each.scores[name], kind) for each in found] for kind in ("plain", "aligned"))
        gain = paired_gain(plain, aligned, np.random.default_rng(0))
        print(f"{name}: {gain.plain:.3f}, {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    save_png(drawn([each for each, gain in zip(found, gains, strict=True) if gain > 0]), out)


def drawn(comparisons: Sequence[Comparison]) -> Image.Image:
    """Draw one column per prompt: the plain picture, and below it the aligned one, with what the judge finds."""
    wide = GAP + len(comparisons) * (SIDE + GAP)
    line = round(1.4 * TEXT)
    row = SIDE + 2 * line + GAP
    sheet = Image.new("RGB", (wide, GAP + 2 * line + 2 * row), "white")
    draw = ImageDraw.Draw(sheet)
    bold, usual = (ImageFont.truetype(str(font_file("", bold=heavy)), TEXT) for heavy in (True, False))
    for column, each in enumerate(comparisons):
        left = GAP + column * (SIDE + GAP)
        draw.text((left, GAP), each.prompt, INK, bold)
        for place, name in enumerate(("plain", "aligned")):
            top = GAP + line + place * row
            picture = to_pil(getattr(each, name)[None])[0].resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            facts, held = (getattr(each.scores[measure], name) for measure in ("facts", HELD_OUT))
            draw.text((left, top + SIDE + 4), f"{name}: {facts:.0%} of the prompt", INK, usual)
            draw.text((left, top + SIDE + 4 + line), f"{HELD_OUT} {held:.2f}", GREY, usual)
    return sheet


if __name__ == "__main__":
    typer.run(showcase)
