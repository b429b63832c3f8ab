"""How much of what Null-TTA would learn is shared across prompts and seeds? That bounds what `nulltta fit` can reach.

    python studies/fit_shared.py [--reward clip --prompts 32 --seeds 2 --every 5]

At some denoising steps of plain sampling, the gradient of a reward at the clean estimate is taken with respect to the
null text at φ' = φ, for every prompt and seed. The script prints, per step, the mean cosine of the gradients of one
prompt under two seeds, of two prompts under one seed and of two prompts under two seeds, with 95% bootstrap intervals
over prompts, and writes them into studies/results/fit_shared.json, beside those of other rewards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.contracts import Reward
from nulltta.embedded.grammar import test_prompts
from nulltta.evaluation.bootstrap import bootstrap_interval
from nulltta.fit.trajectories import TrajectorySampler
from nulltta.null_text.exact import steps_of
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "fit_shared.json"
PAIRS = ("same prompt, other seed", "other prompt, same seed", "other prompt, other seed")


def fit_shared(
    reward: str = "clip", prompts: int = 32, seeds: int = 2, every: int = 5, threads: int = 1, out: Path = RESULTS
) -> None:
    """Take the gradients, compare them and print a Markdown table."""
    torch.set_num_threads(threads)
    steps = gradients(rewards.load(reward), prompts, seeds, every)
    found = {str(i): compared(cosines(gradient)) for i, gradient in steps.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    others = json.loads(out.read_text()) if out.exists() else {}
    mine = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "prompts": prompts, "seeds": seeds, "steps": found,
            "versions": record.versions()}  # fmt: skip
    record.save({**others, reward: mine}, out)
    print(f"| denoising step | {' | '.join(PAIRS)} |", "|---" * 4 + "|", sep="\n")
    for i, row in found.items():
        cells = (f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in row.values())
        print(f"| {i} | {' | '.join(cells)} |")


def gradients(reward: Reward, count: int, seeds: int, every: int) -> dict[int, Tensor]:
    """Return the gradients (prompts, seeds, numbers) at every so many denoising steps."""
    model, config = nulltta.load_model("embedded"), NullTTAConfig.preset("embedded")
    texts, steps, memory = test_prompts(count), steps_of(model, config), MicroBatch(16)
    sampler = TrajectorySampler(model, steps, config, memory)
    found: dict[int, list[Tensor]] = {i: [] for i in range(every - 1, len(steps), every)}
    for seed in range(seeds):
        path = sampler(texts, [seed] * count)
        for i, parts in found.items():
            for start in range(0, count, 16):
                part = texts[start : start + 16]
                cond, null = model.encode(part, [""] * len(part))
                x = path[start : start + 16, i]
                with torch.no_grad():
                    eps_null, eps_cond = predict_branches(model, x, steps[i], null, cond)
                objective = Objective(model, reward, part, config, steps[i], x, eps_cond, eps_null, null, 0.0)
                _, gradient = autograd(objective, null)
                parts.append(torch.cat([value.flatten(1) for value in gradient.values()], 1))
    return {i: torch.cat(parts).reshape(seeds, count, -1).transpose(0, 1) for i, parts in found.items()}


def cosines(gradient: Tensor) -> np.ndarray:
    """Return the cosines (prompts, seeds, prompts, seeds) of gradients (prompts, seeds, numbers)."""
    unit = torch.nn.functional.normalize(gradient.double(), dim=-1)
    return np.asarray(torch.einsum("psn,qtn->psqt", unit, unit))


def compared(cosine: np.ndarray) -> Mapping[str, Any]:
    """Return the mean cosine of each kind of pair with its interval; a prompt's value is its mean over its pairs."""
    P, S = cosine.shape[:2]
    other_prompt, other_seed = ~np.eye(P, dtype=bool)[:, None, :, None], ~np.eye(S, dtype=bool)[None, :, None, :]
    wanted = (~other_prompt & other_seed, other_prompt & ~other_seed, other_prompt & other_seed)
    found = {}
    for name, mask in zip(PAIRS, wanted, strict=True):
        pairs = np.broadcast_to(mask, cosine.shape)
        values = [float(cosine[p][pairs[p]].mean()) for p in range(P)]
        found[name] = (float(np.mean(values)), *bootstrap_interval(values, np.random.default_rng(0)))
    return found


if __name__ == "__main__":
    typer.run(fit_shared)
