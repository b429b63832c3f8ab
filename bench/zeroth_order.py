"""Which directions should a gradient without derivatives look in? Cosines to the exact gradient, and JPEG size.

    python bench/zeroth_order.py [--prompts 16 --seed 0 --what cosines|jpeg|both --samples 4 --samples 16] [--threads 1]

Prints Markdown tables and writes bench/results/zeroth_order.json. In the JPEG table "selection only" takes no inner
steps: it shows what choosing among K candidates gives by itself, before any credit goes to the estimator.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import noise, rewards, schedules
from nulltta.alignment import pose
from nulltta.cli import record
from nulltta.cli.comparison import compare, held_out_measures
from nulltta.config import Directions, NullTTAConfig
from nulltta.directions import DIRECTIONS
from nulltta.embedding import transform
from nulltta.gradients import ZerothOrder, autograd
from nulltta.objective import Objective, guide
from nulltta.statistics import paired_gain
from nulltta.types import GuidedModel
from nulltta.world.grammar import test_prompts

RESULTS = Path(__file__).parent / "results" / "zeroth_order.json"
KINDS: tuple[Directions, ...] = ("words", "white", "antithetic")


def main(
    prompts: int = 16,
    seed: int = 0,
    what: str = "both",
    samples: Annotated[list[int] | None, typer.Option(help="K of the JPEG table; may be repeated.")] = None,
    batch_size: int = 8,
    threads: int = 1,
    out: Path = RESULTS,
) -> None:
    """Measure the estimators on the embedded model."""
    torch.set_num_threads(threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = nulltta.load_model("embedded")
    found: dict[str, Any] = {"prompts": prompts, "seed": seed, "threads": threads, "versions": record.versions()}
    if what in ("cosines", "both"):
        found["cosines"] = cosines(model, test_prompts(min(prompts, 4)), seed)
        print(cosine_table(found["cosines"]))
    if what in ("jpeg", "both"):
        found["jpeg"] = []
        for row in jpeg(model, test_prompts(prompts), seed, samples or [4], batch_size):
            found["jpeg"].append(row)
            record.save(found, out)
        print(jpeg_table(found["jpeg"]))
    record.save(found, out)


def cosines(model: GuidedModel, prompts: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Mean cosine of ĝ to ∇J, of the reward `clip`, at φ' = φ and three noise levels of plain sampling."""
    objectives = list(_objectives(model, prompts, seed))
    exact = [_flat(autograd(objective, objective.null)[1]) for objective in objectives]
    rows = []
    for kind in KINDS:
        directions = DIRECTIONS[kind](model)
        for samples in (4, 16):
            for radius in (0.005, 0.02, 0.1):
                estimator = ZerothOrder(samples, radius, directions)
                values = []
                for (i, objective), truth in zip(enumerate(objectives), exact, strict=True):
                    generators = [noise.generator(b, "bench", i) for b in range(len(prompts))]
                    estimate = _flat(estimator(objective, objective.null, generators)[1])
                    values.append(torch.cosine_similarity(estimate, truth))
                cosine = torch.stack(values)
                rows.append({"directions": kind, "samples": samples, "radius": radius, "cosine": cosine.mean().item(),
                             "positive": (cosine > 0).float().mean().item()})  # fmt: skip
    return rows


def _objectives(model: GuidedModel, prompts: Sequence[str], seed: int) -> Any:
    problem = pose(model, prompts, "clip", NullTTAConfig.preset(model.name), seed)
    x, steps, s = problem.latents[:, 0], problem.schedule(), problem.config.guidance_scale
    gamma = schedules.annealing_coefficient(problem.config.annealing, len(steps))
    for i, step in enumerate(steps):
        with torch.no_grad():
            null, cond = (model.predict(x, step, branch) for branch in (problem.null, problem.cond))
            if i in (len(steps) // 8, len(steps) // 2, 7 * len(steps) // 8):
                yield Objective(model, problem.reward, problem.prompts, problem.config, step, x, cond, null,
                                problem.null, schedules.regularisation(i, gamma))  # fmt: skip
            mean, std = model.transition(x, guide(model, null, cond, s), step)
            x = mean + std * problem.noise(i, step, x, particles=1)[:, 0]


def _flat(gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten(1) for value in transform(gradient, torch.Tensor.float).values()], dim=1)


def jpeg(
    model: GuidedModel, prompts: Sequence[str], seed: int, samples: Sequence[int], batch_size: int
) -> Iterator[dict[str, Any]]:
    """−kB before and after, paired, with the held-out scores, for each kind of directions."""
    base = NullTTAConfig.preset(model.name)
    variants = {"selection only": replace(base, inner_steps=(0, 0))}
    for kind, count in itertools.product(KINDS, samples):
        variants[f"{kind}, K = {count}"] = replace(base, zeroth_order_directions=kind, zeroth_order_samples=count)
    for name, config in variants.items():
        target = rewards.load("jpeg")
        measures = held_out_measures(model) | {"clip": rewards.load("clip")}
        began, compared = time.perf_counter(), []
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            compared += compare(model, batch, target, measures=measures, config=config, seed=seed)
        gains = {}
        for measure in compared[0].scores:
            pairs = [comparison.scores[measure] for comparison in compared]
            before, after = [pair.plain for pair in pairs], [pair.aligned for pair in pairs]
            gains[measure] = asdict(paired_gain(before, after, np.random.default_rng(0)))
        seconds = (time.perf_counter() - began) / len(prompts)
        print(f"{name}: {seconds:.1f} s a prompt", file=sys.stderr)
        yield {"variant": name, "config": asdict(config), "gains": gains, "seconds_per_prompt": seconds}


def cosine_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| directions | K | μ | cosine to ∇J | share above 0 |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['directions']} | {r['samples']} | {r['radius']:g} | {r['cosine']:.3f} | {r['positive']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def jpeg_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; each cell plain → aligned."""
    names = list(rows[0]["gains"])
    lines = [f"| directions | {' | '.join(names)} | s a prompt |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [f"{g['plain']:.3f} → {g['aligned']:.3f}" for g in row["gains"].values()]
        lines.append(f"| {row['variant']} | {' | '.join(cells)} | {row['seconds_per_prompt']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
