"""Which run does the web page open with? This makes it, and the thumbnails of the page's examples.

    python studies/first_view.py

The script writes src/nulltta/ui/assets/first.json with the scores and the curve, first.webp with plain sampling's
picture and every clean estimate side by side, and example-*.webp. It takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from PIL import Image

import nulltta
from nulltta.alignment import Result
from nulltta.contracts import Step
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.measures import held_out_measures
from nulltta.images import to_pil
from nulltta.ui.first import ASSETS, EXAMPLES
from nulltta.ui.wording import headline

REWARD, SEED, THUMBNAIL = "clip", 0, 64


def main() -> None:
    """Align the examples, of which the first is shown in full."""
    model = nulltta.load_model("embedded")
    for number, prompt in enumerate(EXAMPLES):
        steps: list[Step] = []
        result = nulltta.align(model, prompt, REWARD, seed=SEED, on_step=steps.append)
        result.pil()[0].resize((THUMBNAIL, THUMBNAIL)).save(ASSETS / f"example-{number}.webp", quality=88)
        if number == 0:
            _write(result, [to_pil(result.baseline)[0], *map(_frame, steps), result.pil()[0]])


def _frame(step: Step) -> Image.Image:
    assert step.preview is not None
    return to_pil(step.preview)[0]


def _write(result: Result, frames: list[Image.Image]) -> None:
    """Write the run that the page opens with."""
    sheet = Image.new("RGB", (len(frames) * frames[0].width, frames[0].height))
    for place, frame in enumerate(frames):
        sheet.paste(frame, (place * frame.width, 0))
    sheet.save(ASSETS / "first.webp", quality=92)
    (comparison,) = compare(result, held_out_measures(result.problem.model))
    record: dict[str, Any] = {
        "prompt": comparison.prompt, "reward": REWARD, "seed": SEED, "frames": len(frames),
        "headline": headline(comparison), "plain": comparison.scores[REWARD].plain,
        "initial": _rounded(comparison.initial_rewards.tolist()),
        "trace": [
            {
                "inner": _rounded(step.inner_rewards[:, 0].tolist()),
                "candidates": _rounded(step.candidate_rewards[0].tolist()), "selected": int(step.selected[0]),
            }
            for step in comparison.trace
        ],
    }  # fmt: skip
    Path(ASSETS / "first.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


if __name__ == "__main__":
    typer.run(main)
