"""Measure trained weights of the scenes world: plain sampling by prompts and thirds, and the scorers on renders.

python -m nulltta.embedded.scenes.evaluate build/scenes/weights --prompts 120 --seeds 8
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..train.sampling import sample_images
from .judge import SceneJudge
from .prompts import test_prompts
from .scorers import NAMES, load_scorer
from .train.scorers import accuracy
from .verdicts import thirds


def rates(pipe: Any, prompts: Sequence[str], seeds: int, guidance: float = 3.0, steps: int = 25) -> list[float]:
    """Return for each prompt the share of `seeds` images by plain sampling that show all of it; seeds are its own."""
    judge, count = SceneJudge(), len(prompts)
    right = torch.zeros(count)
    for k in range(seeds):
        for start in range(0, count, 50):
            chunk = list(prompts[start : start + 50])
            images = sample_images(pipe, chunk, guidance, steps, seed=k * count + start)
            right[start : start + 50] += judge.all_right(images, chunk)
    return (right / seeds).tolist()


def main() -> None:
    """Print the measurement as lines of JSON: one per scorer, then one per guidance scale."""
    from diffusers import StableDiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path, help="what the export wrote")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    pipe: Any = StableDiffusionPipeline.from_pretrained(args.weights / "sd").to(args.device)
    pipe.set_progress_bar_config(disable=True)
    for name in NAMES:
        right = accuracy(load_scorer(name, args.weights))
        print(json.dumps({"scorer": name, "picks the right caption of five": right}), flush=True)
    prompts = test_prompts(args.prompts)
    for scale in args.guidance:
        found = rates(pipe, prompts, args.seeds, scale, args.steps)
        print(
            json.dumps({"guidance": scale, **thirds(found), "rates": dict(zip(prompts, found, strict=True))}),
            flush=True,
        )


if __name__ == "__main__":
    main()
