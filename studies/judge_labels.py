"""Does the judge of the scenes world see what a person sees? Its verdicts beside labels given by eye.

    python studies/judge_labels.py            # compares, in seconds
    python studies/judge_labels.py --draw     # draws the pictures anew; they must then be labelled anew

Half of the pictures are plain samples and half are aligned with `scenes-clip`, of the same prompts and noise. They are
in studies/results/judge_labels.png, in rows of twelve. studies/results/judge_labels.json has, for each of them, whether
it shows everything that its prompt says, as somebody decided who looked at the picture and the prompt, but not at the
judge's verdict. null stands for a picture of which that cannot be said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig
from nulltta.algorithm.randomness import own_seed
from nulltta.embedded.scenes.judge import SceneJudge
from nulltta.embedded.worlds import WORLDS
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results"
PIXELS, COLUMNS = 64, 12
METHODS = ("plain", "null-tta")


def main(prompts: int = 48, budget: int = 200, draw: bool = False, folder: Path = RESULTS) -> None:
    """Compare the judge with the labels, or draw the pictures."""
    labels, sheet = folder / "judge_labels.json", folder / "judge_labels.png"
    if draw:
        chosen = WORLDS["scenes"].tuning_prompts(prompts)
        save_sheet(torch.cat([sampled(method, chosen, budget) for method in METHODS]), sheet)
        asked = [{"method": method, "prompt": prompt, "right": None} for method in METHODS for prompt in chosen]
        record.save({"budget": budget, "pictures": asked}, labels)
        return
    print(table(json.loads(labels.read_text())["pictures"], read_sheet(sheet)))


def sampled(method: str, prompts: Sequence[str], budget: int) -> Tensor:
    """Sample the prompts, each from a noise of its own."""
    config = NullTTAConfig.preset("scenes", budget=budget if method == "null-tta" else 0)
    seeds = [own_seed(0, prompt) for prompt in prompts]
    model, target = nulltta.load_model("scenes"), WORLDS["scenes"].target
    return nulltta.align(model, prompts, target, config=config, method=method, seed=seeds).images


def save_sheet(images: Tensor, path: Path) -> None:
    """Write images (B, 3, H, W) in [0, 1] in rows of COLUMNS; B is a multiple of it."""
    rows = [torch.cat(list(row), 2) for row in torch.split(images, COLUMNS)]
    Image.fromarray((torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).numpy()).save(path)


def read_sheet(path: Path) -> Tensor:
    """Return the images (B, 3, H, W) in [0, 1] of a sheet."""
    whole = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    rows = whole.unfold(1, PIXELS, PIXELS).unfold(2, PIXELS, PIXELS)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


def table(pictures: Sequence[dict[str, Any]], images: Tensor) -> str:
    """Format how often judge and labels agree, by method, and list the pictures on which they do not."""
    verdicts = SceneJudge().verdicts(images, [picture["prompt"] for picture in pictures])
    found: dict[str, Counter[str]] = {method: Counter() for method in METHODS}
    apart = []
    for number, (picture, verdict) in enumerate(zip(pictures, verdicts, strict=True)):
        right = all(value is True for value in verdict.values())
        judged = "right" if right else "wrong" if False in verdict.values() else "cannot tell"
        labelled = {True: "right", False: "wrong", None: "cannot tell"}[picture["right"]]
        found[picture["method"]][f"{labelled}/{judged}"] += 1
        if judged != labelled:
            apart.append(f"- picture {number}, {picture['method']}, '{picture['prompt']}': {labelled} / {judged}")
    lines = ["| by eye / by the judge | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for pair in sorted({pair for counts in found.values() for pair in counts}):
        lines.append(f"| {pair.replace('/', ' / ')} | " + " | ".join(str(found[m][pair]) for m in METHODS) + " |")
    return "\n".join([*lines, "", *apart])


if __name__ == "__main__":
    typer.run(main)
