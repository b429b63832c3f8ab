"""What are four steps worth? An embedded model and its distilled one, plain and aligned, on the same prompts.

    python studies/few_steps.py [--model embedded --prompts 32 --draw 0]
    python studies/few_steps.py --model scenes --prompts 48

Every arm samples the same test prompts, each from a noise of its own. The script prints a Markdown table of means and
of differences from the first arm in the measures, paired by prompt, with 95% bootstrap intervals, evaluations and CPU
seconds per image, and writes studies/results/few_steps_MODEL.json and docs/images/few-steps-MODEL.png.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm.randomness import own_seed
from nulltta.benchmark.counting import counted
from nulltta.benchmark.measures import all_right
from nulltta.embedded.train.sampling import grid
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.runs import record

ROOT = Path(__file__).parent
BATCH, SHOWN = 8, 8


def arms_of(model: str) -> dict[str, tuple[str, str, NullTTAConfig]]:
    """Return the model, the method and the settings of each arm, for an embedded model with a distilled one."""
    turbo = f"{model}-turbo"
    many, few = partial(NullTTAConfig.preset, model), partial(NullTTAConfig.preset, turbo)
    return {
        "25 steps": (model, "plain", many()),
        "4 steps, not distilled": (model, "plain", many(num_inference_steps=4)),
        **{f"distilled, {n}": (turbo, "plain", few(num_inference_steps=n).without_null_text()) for n in (1, 2, 4, 8)},
        "distilled, 4, nag": (turbo, "plain", few(nag_null="empty")),
        "distilled, 4, aligned": (turbo, "null-tta", few()),
        "distilled, 4, aligned from the empty text": (turbo, "null-tta", few(nag_null="empty")),
        "25 steps, aligned": (model, "null-tta", many()),
    }


ROWS = ("25 steps", "4 steps, not distilled", "distilled, 4", "distilled, 4, aligned")
"""The arms of the picture, from top to bottom."""


def few_steps(model: str = "embedded", prompts: int = 32, draw: int = 0) -> None:
    """Sample every arm and print the table."""
    arms, world = arms_of(model), WORLDS[model]
    chosen = world.test_prompts(prompts)
    measures = {world.target: rewards.load(world.target), **held_out_measures(nulltta.load_model(model))}
    found: dict[str, Any] = {}
    shown: dict[str, Tensor] = {}
    for name, arm in arms.items():
        found[name], shown[name] = _sampled(arm, chosen, measures, world.target, draw)
        print(f"{name}: {found[name]['seconds']:.2f} s", flush=True)
    print(_table(found))
    grid(torch.cat([shown[name] for name in ROWS]), SHOWN).save(ROOT.parent / "docs/images" / f"few-steps-{model}.png")
    about = {"prompts": prompts, "draw": draw, "date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions()}
    rows = {name: row | {"config": asdict(arms[name][2])} for name, row in found.items()}
    record.save({**about, "arms": rows}, ROOT / "results" / f"few_steps_{model}.json")


def _sampled(
    arm: tuple[str, str, NullTTAConfig], prompts: list[str], measures: Mapping[str, Any], target: str, draw: int
) -> tuple[dict[str, Any], Tensor]:
    """Return the scores by measure and prompt with the cost per image, and the first pictures."""
    name, method, config = arm
    model, images = nulltta.load_model(name), list[Tensor]()
    # A model under NAG finds out once where the image's tokens are, by evaluations that are not counted here.
    warm = replace(config, num_inference_steps=1, inner_steps=(0, 0))
    nulltta.align(model, prompts[0], target, config=warm, method="plain", progress=False)
    began, evaluations = time.process_time(), 0
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        seeds = [own_seed(draw, prompt) for prompt in part]
        with counted(model) as spent:
            images.append(
                nulltta.align(model, part, target, config=config, method=method, seed=seeds, progress=False).images
            )
        evaluations += spent.total
    seconds, drawn = time.process_time() - began, torch.cat(images)
    with torch.no_grad():
        scores = {each: measure(drawn, prompts).tolist() for each, measure in measures.items()}
    scores["all right"] = all_right(torch.tensor(scores["facts"])).tolist()
    cost = {"evaluations": evaluations / len(prompts), "seconds": seconds / len(prompts)}
    return {"scores": scores, **cost}, drawn[:SHOWN]


def _table(found: Mapping[str, Any]) -> str:
    """Return one row per arm: its cost, its means, and their differences from the first arm's."""
    first, *_ = found
    names = list(found[first]["scores"])
    lines = [f"| | evaluations | CPU seconds | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for arm, row in found.items():
        cells = []
        for name in names:
            gain = paired_gain(found[first]["scores"][name], row["scores"][name], np.random.default_rng(0))
            change = "" if arm == first else f" ({gain.mean:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
            cells.append(f"{np.mean(row['scores'][name]):.3f}{change}")
        lines.append(f"| {arm} | {row['evaluations']:.0f} | {row['seconds']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(few_steps)
