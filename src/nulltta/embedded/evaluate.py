"""Measure the shipped embedded model and write the figures of its model card.

    python -m nulltta.embedded.evaluate                    # prints the tables
    python -m nulltta.embedded.evaluate --card docs/model-card.md

Everything is measured on held-out compositions of objects, background and style, which training never saw.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import WEIGHTS
from .grammar import Size, parse, sample, test_prompts
from .judge import FACTS, Judge, compare, load_judge
from .render import render_batch, to_unit
from .scorers import NAMES, Scorer, load_scorer
from .train.judge import accuracy as judge_accuracy
from .train.sampling import sample_images
from .train.scorers import accuracy as scorer_accuracy

GUIDANCE = (1.0, 3.0, 5.0, 7.5)
CHUNK = 50
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def verdicts(judge: Judge, images: Tensor, prompts: Sequence[str]) -> dict[str, float]:
    """Return the share of images that show each fact, and the mean of these shares as "facts".

    Args:
        judge: reads the images.
        images: (B, 3, H, W) in [0, 1].
        prompts: B prompts, each of which states all four facts.
    """
    found = [
        compare(parse(prompt, judge.size), shown) for prompt, shown in zip(prompts, judge.read(images), strict=True)
    ]
    shares = {fact: sum(one[fact] for one in found) / len(found) for fact in FACTS}
    return {"facts": sum(shares.values()) / len(shares), **shares}


def draw_all(pipe: Any, prompts: Sequence[str], guidance: float, steps: int) -> Tensor:
    """Sample one image per prompt, (B, 3, 64, 64), by the stock pipeline: DDIM with η = 1, seed k for prompt k."""
    starts = range(0, len(prompts), CHUNK)
    return torch.cat([sample_images(pipe, list(prompts[k : k + CHUNK]), guidance, steps, seed=k) for k in starts])


def sampling(pipe: Any, judge: Judge, scorers: Sequence[Scorer], prompts: Sequence[str], steps: int) -> Any:
    """Return for each guidance scale the judge's `verdicts` and the mean of each scorer, ready for JSON."""
    table = {}
    for scale in GUIDANCE:
        images = draw_all(pipe, prompts, scale, steps)
        with torch.no_grad():
            scores = {scorer.name: float(scorer(images, prompts).mean()) for scorer in scorers}
        table[f"{scale:g}"] = verdicts(judge, images, prompts) | scores
        print(f"guidance {scale:g}: {table[f'{scale:g}']}", flush=True)
    return table


@torch.no_grad()
def reconstruction(vae: Any, judge: Judge, n: int = 500) -> dict[str, float]:
    """Measure the autoencoder on n held-out scenes: L1 on [0, 1], PSNR in dB, and how often the objects survive."""
    rng = random.Random(11)
    scenes = [sample(rng, judge.size, held=True) for _ in range(n)]
    images = to_unit(render_batch(scenes, rng))
    again = (vae(images * 2 - 1) / 2 + 0.5).clamp(0, 1)
    squared = (again - images).pow(2).mean((1, 2, 3))
    shown = judge.read(again)
    objects = sum(set(a.objects) == set(b.objects) for a, b in zip(scenes, shown, strict=True)) / n
    psnr = float((-10 * squared.log10()).mean())
    return {"l1": float((again - images).abs().mean()), "psnr": psnr, "objects": objects}


def measure(folder: Path, n: int, steps: int) -> dict[str, Any]:
    """Return all figures for n prompts and `steps` denoising steps, ready for JSON."""
    from diffusers import StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline.from_pretrained(folder / "sd")
    pipe.set_progress_bar_config(disable=True)
    judge, scorers = load_judge(folder=folder), [load_scorer(name, folder=folder) for name in NAMES]
    size: Size = judge.size
    return {
        "size": size,
        "training": json.loads((folder / "training.json").read_text()),
        "megabytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        "prompts": n,
        "steps": steps,
        "reconstruction": reconstruction(pipe.vae, judge),
        "judge": {"trained": judge_accuracy(judge, held=False), "held out": judge_accuracy(judge, held=True)},
        "scorers": {scorer.name: scorer_accuracy(scorer, size) for scorer in scorers},
        "sampling": sampling(pipe, judge, scorers, test_prompts(n, 0, size), steps),
    }


def row(cells: Sequence[object]) -> str:
    """Format the cells of a row of a Markdown table."""
    return "| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def markdown(figures: Mapping[str, Any]) -> str:
    """Format figures as the measured part of the model card."""
    columns = ("facts", *FACTS, *NAMES)
    table = figures["sampling"]
    made, judged = figures["reconstruction"], figures["judge"]
    lines = [
        f"Plain sampling by stock diffusers, DDIM η = 1, {figures['steps']} steps; {figures['prompts']} prompts of "
        "held-out compositions, one image each. Share of images that show each fact, and scorers' means:",
        "",
        row(["guidance", *columns]),
        row(["---"] * (len(columns) + 1)),
        *(row([scale, *(table[scale][column] for column in columns)]) for scale in table),
        "",
        f"Autoencoder on fresh renders of held-out compositions: L1 {made['l1']:.4f} (of a range of 1), "
        f"PSNR {made['psnr']:.1f} dB; the judge still reads the objects off {made['objects']:.1%}.",
        "",
        row(["judge's accuracy on fresh renders", *FACTS]),
        row(["---"] * 5),
        *(row([which, *judged[which].values()]) for which in judged),
        "",
        "Scorers on renders of held-out compositions, the right caption against four that differ from it in one "
        "fact each: " + ", ".join(f"{name} {share:.1%}" for name, share in figures["scorers"].items()) + ".",
        "",
        row(["stage", "minutes", "steps"]),
        row(["---"] * 3),
        *(row([stage, f"{run['minutes']:.0f}", run["steps"]]) for stage, run in figures["training"]["stages"].items()),
        "",
        f"Trained on {figures['training']['machine']}. Shipped files: {figures['megabytes']:.1f} MB.",
    ]
    return "\n".join(lines)


def fill(card: Path, text: str) -> None:
    """Replace the text between the two markers of a model card."""
    before, rest = card.read_text().split(START)
    card.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Measure, print, and fill in the model card if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--card", type=Path, help="the model card to fill in; figures go beside it as .json")
    args = parser.parse_args()
    figures = measure(args.weights, args.prompts, args.steps)
    print(markdown(figures))
    if args.card:
        args.card.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
        fill(args.card, markdown(figures))


if __name__ == "__main__":
    main()
