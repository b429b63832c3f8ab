"""A reward that is hacked, and the same reward held back by a scorer: the picture docs/images/warmth.png.

    python studies/warmth.py [--seed 0]

"warmth" is how much redder than blue a picture is. On its own it is raised by a red picture whose objects dissolve, and
clip-b, which was not optimised, falls. Added to clip with a weight of 0.1, it rises less, and clip-b rises too. The
scores are printed; the settings are the embedded model's preset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from torch import Tensor

import nulltta
from nulltta import rewards
from nulltta.evaluation.comparison import compare
from nulltta.images import save_png
from nulltta.rewards.compose import WeightedSum
from nulltta.runs.figures import comparison_picture, contact_sheet

PROMPT = "a castle and a cat face on a red background, twemoji style"
OUT = Path(__file__).parents[1] / "docs" / "images" / "warmth.png"


def warmth(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return how much redder than blue each image is, in [-1, 1]."""
    del prompts
    return (images[:, 0] - images[:, 2]).mean(dim=(1, 2))


def main(seed: int = 0, threads: int = 2, out: Path = OUT) -> None:
    """Align one prompt to both rewards, print the scores and draw the pictures."""
    torch.set_num_threads(threads)
    model = nulltta.load_model("embedded", device="cpu")
    clip, held_out = rewards.load("clip", device="cpu"), rewards.load("clip-b", device="cpu")
    alone = rewards.load(warmth)
    pictures = []
    for reward in (alone, WeightedSum([(1.0, clip), (0.1, alone)])):
        result = nulltta.align(model, PROMPT, reward, seed=seed)
        (comparison,) = compare(result, {"clip": clip, "clip-b": held_out})
        pictures.append(comparison_picture(comparison))
        print(f"{reward.name}:")
        for name, score in comparison.scores.items():
            print(f"    {name:<20} {score.plain:.3f} -> {score.aligned:.3f}  {score.role}")
    save_png(contact_sheet(pictures), out)


if __name__ == "__main__":
    typer.run(main)
