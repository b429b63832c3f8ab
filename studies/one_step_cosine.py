"""Does the clean estimate of one step point where the picture goes? Its gradient against the true effect, step by step.

    python studies/one_step_cosine.py [--prompts 8 --seed 1]

At each denoising step of plain sampling, two gradients with respect to the null text at that step are compared by their
cosine: that of the reward of the step's clean estimate, which the inner steps ascend, and that of the final picture's
reward, through all remaining steps and their noise. The embedded model samples deterministically (η = 0) in 25 steps
and in four; the one that was distilled to four steps draws its own noise. The script prints a Markdown table and writes
studies/results/one_step_cosine.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import nulltta
from nulltta.algorithm.embeddings import free
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.randomness import own_seed
from nulltta.alignment import make_problem
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, NoiseStep
from nulltta.embedded.grammar import tuning_prompts
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "one_step_cosine.json"
ARMS: Mapping[str, tuple[str, NullTTAConfig]] = {
    "25 steps, cfg": ("embedded", NullTTAConfig.embedded(eta=0.0)),
    "4 steps, cfg": ("embedded", NullTTAConfig.embedded(eta=0.0, num_inference_steps=4)),
    "4 steps, nag": ("embedded", NullTTAConfig.embedded(eta=0.0, num_inference_steps=4, guidance="nag")),
    "distilled, 4 steps, nag": ("embedded-turbo", NullTTAConfig.preset("embedded-turbo")),
    "the same, from the empty text": ("embedded-turbo", NullTTAConfig.preset("embedded-turbo", nag_null="empty")),
    "distilled, 2 steps, nag": ("embedded-turbo", NullTTAConfig.preset("embedded-turbo", num_inference_steps=2)),
}
"""The model and the settings of each arm."""


def main(
    prompts: int = 8,
    seed: int = 1,
    out: Annotated[Path, typer.Option(help="where the numbers are written")] = RESULTS,
) -> None:
    """Compare the two gradients at each step of every arm."""
    chosen = tuning_prompts(prompts)
    found: dict[str, list[float]] = {}
    print("| arm | cosine at each step, the noisiest first |\n|---|---|")
    for name, (model, config) in ARMS.items():
        seeds = [own_seed(seed, prompt) for prompt in chosen]
        problem = make_problem(nulltta.load_model(model), chosen, "clip", config, seeds)
        found[name] = cosines(problem)
        print(f"| {name} | {' '.join(f'{value:.2f}' for value in found[name])} |", flush=True)
    about = {"prompts": prompts, "seed": seed, "date": datetime.now(UTC).date().isoformat()}
    configs = {name: {"model": model, **asdict(config)} for name, (model, config) in ARMS.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save({**about, "cosine": found, "configs": configs}, out)


def cosines(problem: Problem) -> list[float]:
    """Return the cosine of the two gradients at each denoising step, as a mean over the prompts."""
    p, steps, found = problem, problem.schedule(), []
    x = p.latents[:, 0]
    for i, step in enumerate(steps):
        estimated = gradient(p, partial(_estimate, p, x, step))
        true = gradient(p, partial(_outcome, p, x, i, steps))
        found.append(torch.cosine_similarity(estimated, true).mean().item())
        with torch.no_grad():
            x = _moved(p, x, i, step, p.null)
    return found


def gradient(p: Problem, clean: Callable[[Embedding], Tensor]) -> Tensor:
    """Return ∇r of the clean latents that a null text leads to, at φ, (B, numbers)."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in free(p.null).items()}
    images = p.model.decode(clean({**p.null, **leaves}))
    found = torch.autograd.grad(p.reward(images, p.prompts).sum(), list(leaves.values()))
    return torch.cat([tensor.flatten(1) for tensor in found], 1)


def _guided(p: Problem, x: Tensor, step: NoiseStep, null: Embedding) -> Tensor:
    return p.model.guide(*predict_branches(p.model, x, step, null, p.cond), p.config.guidance_scale)


def _estimate(p: Problem, x: Tensor, step: NoiseStep, null: Embedding) -> Tensor:
    return p.model.predict_x0(x, _guided(p, x, step, null), step)


def _moved(p: Problem, x: Tensor, i: int, step: NoiseStep, null: Embedding) -> Tensor:
    mean, std = p.model.step_distribution(x, _guided(p, x, step, null), step)
    return mean + std * p.noise(i, step, x, 1)[:, 0]


def _outcome(p: Problem, x: Tensor, first: int, steps: Sequence[NoiseStep], null: Embedding) -> Tensor:
    """Return the final latents with a null text at the step with number `first` and φ at those after it."""
    x = _moved(p, x, first, steps[first], null)
    for i in range(first + 1, len(steps)):
        x = checkpoint(_moved, p, x, i, steps[i], p.null, use_reentrant=False)
    return x


if __name__ == "__main__":
    typer.run(main)
