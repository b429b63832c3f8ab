"""Does the judge of the scenes world see what a person sees? Its verdicts beside labels given by eye.

    python studies/judge_labels.py                      # compares, in seconds
    python studies/judge_labels.py --draw out/scenes    # takes the pictures of a benchmark's gallery, to label anew

The pictures are in studies/results/judge_labels.png, in rows of twelve. studies/results/judge_labels.json has their
contenders and prompts, and for each of them whether it shows everything that its prompt says, as somebody decided who
looked at the picture and the prompt, but not at the judge's verdict, nor, for most of them, at the contender. null
stands for a picture of which that cannot be said. "fresh" are those that were labelled after the judge was last
changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from nulltta.benchmark.store import BenchmarkFolder
from nulltta.embedded.scenes.judge import SceneJudge
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results"
PIXELS, COLUMNS = 64, 12
WORDS = {True: "right", False: "wrong", None: "cannot tell"}


def main(
    draw: Annotated[Path | None, typer.Option(help="A folder that `nulltta bench run` wrote.")] = None,
    folder: Path = RESULTS,
) -> None:
    """Compare the judge with the labels, or take new pictures."""
    labels, sheet = folder / "judge_labels.json", folder / "judge_labels.png"
    if draw is None:
        pictures, images = json.loads(labels.read_text())["pictures"], read_sheet(sheet)
        for fresh, title in ((False, "Labelled before the judge was last changed"), (True, "Labelled after")):
            chosen = [i for i, picture in enumerate(pictures) if picture["fresh"] is fresh]
            print(f"{title}: {len(chosen)}\n\n{table({i: pictures[i] for i in chosen}, images[chosen])}\n")
        return
    run, drawn, shown = BenchmarkFolder(draw), list[dict[str, Any]](), list[Image.Image]()
    if (there := run.plan()) is None:
        raise SystemExit(f"there is no benchmark in {draw}")
    plan, _ = there
    for row in sorted(run.rows(), key=lambda row: (row.arm, row.prompt)):
        path = run.image(plan, row.arm, row.prompt, row.seed)
        if path.exists():
            contender = next(arm.name for arm in plan.arms if arm.key == row.arm)
            prompt = plan.prompts[row.prompt]
            drawn.append({"contender": contender, "prompt": prompt, "right": None, "fresh": True})
            shown.append(Image.open(path))
    save_sheet(shown, sheet)
    record.save({"pictures": drawn}, labels)


def save_sheet(images: Sequence[Image.Image], path: Path) -> None:
    """Write images in rows of COLUMNS."""
    whole = Image.new("RGB", (COLUMNS * PIXELS, -(-len(images) // COLUMNS) * PIXELS), "white")
    for k, image in enumerate(images):
        whole.paste(image, (k % COLUMNS * PIXELS, k // COLUMNS * PIXELS))
    whole.save(path)


def read_sheet(path: Path) -> Tensor:
    """Return the images (B, 3, H, W) in [0, 1] of a sheet."""
    whole = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    rows = whole.unfold(1, PIXELS, PIXELS).unfold(2, PIXELS, PIXELS)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


def table(pictures: Mapping[int, dict[str, Any]], images: Tensor) -> str:
    """Format how often judge and labels agree, by contender, and list the pictures on which they do not.

    The keys are the pictures' numbers in the sheet, from 0.
    """
    verdicts = SceneJudge().verdicts(images, [picture["prompt"] for picture in pictures.values()])
    contenders = list(dict.fromkeys(picture["contender"] for picture in pictures.values()))
    counts, apart = Counter[tuple[str, str, str]](), []
    for (number, picture), verdict in zip(pictures.items(), verdicts, strict=True):
        judged = WORDS[False if False in verdict.values() else None if None in verdict.values() else True]
        labelled = WORDS[picture["right"]]
        counts[labelled, judged, picture["contender"]] += 1
        if judged != labelled:
            apart.append(f"- {number}, {picture['contender']}, '{picture['prompt']}': {labelled} / {judged}")
    lines = [f"| by eye / by the judge | {' | '.join(contenders)} | all |", "|---" * (len(contenders) + 2) + "|"]
    for pair in sorted({(eye, judge) for eye, judge, _ in counts}):
        row = [counts[(*pair, contender)] for contender in contenders]
        lines.append(f"| {' / '.join(pair)} | {' | '.join(map(str, row))} | {sum(row)} |")
    return "\n".join([*lines, "", *apart])


if __name__ == "__main__":
    typer.run(main)
