"""How many prompts does it take to learn where the reward rises, and how far should a fitted null text go there?

    python studies/fit_directions.py [--prompts 96] [--cache out/fit_directions.pt]

At some denoising steps of plain sampling of the embedded model, the gradient of `clip` at the clean estimate is taken
with respect to the null text, for training prompts and for the tuning prompts, of which nothing is learnt. Each
gradient is divided by its norm and averaged over the steps, which gives one direction per prompt. Two predictors of the
tuning prompts' directions are fitted to growing numbers of training prompts: their mean, and a ridge regression on the
prompt's embedding. Then pictures of the tuning prompts are sampled with Δ along what was predicted, at several lengths,
and compared with plain sampling, paired by prompt and noise.

The gradients are kept in the cache, from which a run that was stopped goes on. The script prints Markdown tables, with
95% bootstrap intervals over prompts, and writes studies/results/fit_directions.json.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm import randomness
from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.algorithm.sampling import denoise
from nulltta.contracts import GuidedModel
from nulltta.embedded import grammar
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.files import atomic
from nulltta.fit.trajectories import TrajectorySampler
from nulltta.null_text.exact import steps_of
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "fit_directions.json"
CONFIG = NullTTAConfig.preset("embedded")
TARGET, HELD_OUT = "clip", "clip-b"
STEPS = (16, 19, 22, 24)
TUNING, BATCH, FIRST_SEED, PICTURES_SEED = 48, 24, 5_000_000, 2_000_000
FIRST_SHIFTED = 8
"""The first denoising step at which Δ is used in pictures."""
LENGTHS = (1.0, 3.0, 8.0)
RIDGE = 0.1


def fit_directions(
    prompts: int = 96, threads: int = 1, cache: Path = Path("out/fit_directions.pt"), out: Path = RESULTS
) -> None:
    """Take the gradients, predict directions, sample pictures, and print the tables."""
    torch.set_num_threads(threads)
    model = nulltta.load_model("embedded")
    unit, features = directions(gradients(model, prompts, cache))
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions(), "cosines": {}}
    print("| training prompts | mean direction | ridge regression |", "|---" * 3 + "|", sep="\n")
    counts = [count for count in (24, 48, 96, 192, 384, 768, 1536) if count < prompts]
    for count in (*counts, prompts):
        each = predicted(unit, features, count)
        row = {name: float(cosine_similarity(rows, unit[:TUNING]).mean()) for name, rows in each.items()}
        found["cosines"][count] = row
        print(f"| {count} | {' | '.join(f'{cosine:.3f}' for cosine in row.values())} |", flush=True)
    print(f"\n| direction | length of Δ | {TARGET} | {HELD_OUT} |", "|---" * 4 + "|", sep="\n")
    found["pictures"] = {}
    for name, length, gains in pictures(model, predicted(unit, features, prompts)):
        found["pictures"][f"{name}, {length:g}"] = gains
        cells = ("{:+.4f} ({:+.4f} to {:+.4f})".format(*gain) for gain in gains)
        print(f"| {name} | {length:g} | {' | '.join(cells)} |", flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        record.save(found, out)


def gradients(model: GuidedModel, prompts: int, cache: Path) -> Mapping[str, Any]:
    """Return "g" (P, steps, L, D), "c" (P, L, D) and "prompts": the tuning prompts', then the training prompts'."""
    source, training = random.Random(5), dict[str, None]()
    while len(training) < prompts:
        training[grammar.caption(grammar.sample(source))] = None
    texts = [*grammar.tuning_prompts(TUNING), *training]
    held: dict[str, Any] = torch.load(cache) if cache.exists() else {"prompts": []}
    sampler = TrajectorySampler(model, steps_of(model, CONFIG), CONFIG, MicroBatch(16))
    for start in range(len(held["prompts"]), len(texts), BATCH):
        part = texts[start : start + BATCH]
        g, c = of_prompts(sampler, part, [FIRST_SEED + start + i for i in range(len(part))])
        held = {
            "prompts": [*held["prompts"], *part],
            "g": torch.cat([held["g"], g]) if start else g, "c": torch.cat([held["c"], c]) if start else c,
        }  # fmt: skip
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic(cache) as temporary:
            torch.save(held, temporary)
    return {name: values[: len(texts)] for name, values in held.items() if name in ("prompts", "g", "c")}


def of_prompts(sampler: TrajectorySampler, texts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the gradients (B, steps, L, D) of some prompts and their embeddings (B, L, D)."""
    model, clip, path = sampler.model, rewards.load(TARGET), sampler(texts, seeds)
    cond, null = model.encode(texts, [""] * len(texts))
    (name,) = null
    found = []
    for i in STEPS:
        x, step = path[:, i], sampler.steps[i]
        with torch.no_grad():
            eps_null, eps_cond = predict_branches(model, x, step, null, cond)
        objective = Objective(model, clip, texts, CONFIG, step, x, eps_cond, eps_null, null, 0.0)
        found.append(autograd(objective, null)[1][name].detach())
    return torch.stack(found, 1), cond[name]


def directions(held: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return one unit direction (P, L·D) and one vector of features per prompt."""
    unit = normalize(normalize(held["g"].flatten(2), dim=2).mean(1), dim=1)
    text = held["c"].float()
    return unit, torch.cat([text.flatten(1), 5 * text.mean(1)], 1)


def predicted(unit: Tensor, features: Tensor, count: int) -> dict[str, Tensor]:
    """Return the tuning prompts' directions (48, L·D) as predicted from some training prompts, by predictor."""
    known, mean = slice(TUNING, TUNING + count), unit[TUNING : TUNING + count].mean(0)
    centred = features - features[known].mean(0)
    centred = centred / centred[known].norm(dim=1).mean()
    kernel = centred[known] @ centred[known].T + RIDGE * torch.eye(count)
    ridge = mean + centred[:TUNING] @ centred[known].T @ torch.linalg.solve(kernel, unit[known] - mean)
    return {"mean": mean.expand(TUNING, -1), "ridge": ridge}


def pictures(model: GuidedModel, along: Mapping[str, Tensor]) -> Iterator[tuple[str, float, list[Any]]]:
    """Yield (predictor, length, gains in the target and in the held-out scorer) of pictures with such a Δ."""
    scorers, texts = [rewards.load(name) for name in (TARGET, HELD_OUT)], grammar.tuning_prompts(TUNING)
    plain = scores(model, texts, None, scorers)
    for length in LENGTHS:
        for name, direction in along.items():
            moved = scores(model, texts, length * normalize(direction, dim=1), scorers)
            both = [paired_gain(*pair, np.random.default_rng(0)) for pair in zip(plain, moved, strict=True)]
            yield name, length, [(gain.mean, gain.low, gain.high) for gain in both]


@torch.no_grad()
def scores(model: GuidedModel, texts: Sequence[str], shift: Tensor | None, scorers: Sequence[Any]) -> list[list[float]]:
    """Return each scorer's scores of pictures with Δ (48, L·D), or of plain ones."""
    steps, seeds = steps_of(model, CONFIG), [PICTURES_SEED + i for i in range(len(texts))]
    cond, null = model.encode(texts, [""] * len(texts))
    (name,) = null
    moved = null if shift is None else {name: null[name] + shift.view_as(null[name])}

    def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return predict_branches(model, x, steps[i], moved if i >= FIRST_SHIFTED else null, cond)

    def noise(i: int, x: Tensor) -> Tensor:
        return randomness.seeded(seeds, i, x, 1)[:, 0]

    x = randomness.initial_latents(model, seeds, 1, len(steps))[:, 0]
    *_, (_, _, x) = denoise(model, x, steps, branches, noise, CONFIG.guidance_scale)
    images = model.decode(x)
    return [scorer(images, texts).tolist() for scorer in scorers]


if __name__ == "__main__":
    typer.run(fit_directions)
