"""Measure a trained scenes world: how often plain sampling gets all of a prompt right, by category and by thirds.

python -m nulltta.embedded.scenes.evaluate build/scenes/weights --prompts 120 --seeds 8
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ..train.sampling import sample_images
from .grammar import CATEGORIES, parse
from .judge import SceneJudge
from .prompts import test_prompts

Verdict = Mapping[str, bool | None]


def shares(verdicts: Sequence[Verdict], prompts: Sequence[str]) -> dict[str, float]:
    """Return the shares of images that show all of their prompt, of all facts, and of what the judge cannot tell.

    Returns:
        "all": everything right; the same by category; "facts": the mean share of facts; "unclear": images of which
        nothing is wrong, but something cannot be told.
    """
    right = [all(v is True for v in verdict.values()) for verdict in verdicts]
    found = {"all": fmean(right)}
    for category in CATEGORIES:
        of = [r for r, prompt in zip(right, prompts, strict=True) if parse(prompt).category == category]
        if of:
            found[category] = fmean(of)
    found["facts"] = fmean(fmean(v is True for v in verdict.values()) for verdict in verdicts)
    found["unclear"] = fmean(None in verdict.values() and False not in verdict.values() for verdict in verdicts)
    return {key: round(value, 4) for key, value in found.items()}


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


def thirds(found: Sequence[float]) -> dict[str, float]:
    """Return the mean rate, the shares of prompts below 0.2 and above 0.8, and the mean of each third by rate."""
    ordered, n = sorted(found), len(found)
    parts = {f"third{k + 1}": fmean(ordered[k * n // 3 : (k + 1) * n // 3]) for k in range(3)}
    low, high = fmean(rate < 0.2 for rate in found), fmean(rate > 0.8 for rate in found)
    return {"mean": fmean(found), "below 0.2": low, "above 0.8": high, **parts}


def main() -> None:
    """Print the measurement as JSON, one line per guidance scale."""
    from diffusers import StableDiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path, help="what the export wrote")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    args = parser.parse_args()
    pipe: Any = StableDiffusionPipeline.from_pretrained(args.weights / "sd")
    pipe.set_progress_bar_config(disable=True)
    prompts = test_prompts(args.prompts)
    for scale in args.guidance:
        found = rates(pipe, prompts, args.seeds, scale, args.steps)
        print(json.dumps({"guidance": scale, **thirds(found), "rates": dict(zip(prompts, found, strict=True))}))


if __name__ == "__main__":
    main()
