"""Learn HyperNoise for the few-step embedded model: a network that moves the initial noise of any prompt.

    python studies/hyper_noise.py --out build/learnt/hyper-noise [--weight 50 --updates 200]

The rival of a fitted null text (arXiv 2508.09968): it minimises ½‖Δ(x_T, c)‖² − λ·r(x_0), where x_0 is what the
distilled model makes of x_T + Δ in one step. λ is `--weight` divided by the reward's standard deviation over plain
samples. Prompts are drawn from the training compositions. Every fifty updates, pictures of tuning prompts from
the moved noise are compared with those from the noise itself. A stopped run goes on; the network of the averaged
weights is written to OUT.safetensors, for `nulltta bench run --fitted`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm import randomness
from nulltta.benchmark.noise_network import NoiseNetwork, tokens_in
from nulltta.benchmark.units import scales
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.grammar import sample, sample_caption
from nulltta.embedded.train.loop import Budget, Draws, Recipe, load_trained, train
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.null_text.exact import steps_of

MODEL, NAME, BATCH = "embedded-turbo", "hyper-noise", 16
CONFIG = NullTTAConfig.preset(MODEL, num_inference_steps=1).without_null_text()


def main(
    out: Annotated[Path, typer.Option(help="The network, without .safetensors; the state is beside it.")],
    weight: Annotated[float, typer.Option(help="λ times the reward's standard deviation.")] = 50.0,
    learning_rate: float = 1e-3,
    updates: int = 200,
    every: Annotated[int, typer.Option(help="Updates between validations.")] = 50,
    threads: int = 1,
) -> None:
    """Learn to the end, or go on."""
    torch.set_num_threads(threads)
    model, world = nulltta.load_model(MODEL), WORLDS[MODEL]
    reward = rewards.load(world.target)
    _, deviation = scales(model, [world.target], world.tuning_prompts(24), CONFIG)[world.target]
    network, folder = NoiseNetwork(model), out.with_suffix("")
    learnt = nn.ParameterDict({name.replace(".", "/"): value for name, value in network.learnt.items()})
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(
        NAME, learnt, partial(loss, model, network, reward, weight / deviation), BATCH, lr=learning_rate,
        betas=(0.9, 0.98), weight_decay=0.0, warmup=30, steps=updates, hold=0.3, ema=0.99, checkpoint_seconds=60,
    )  # fmt: skip
    for end in [*range(every, updates, every), updates]:
        train(recipe, Budget(folder, math.inf, end))
        load_trained(learnt, folder, NAME)  # the averaged weights; training goes on from its own checkpoint
        print(f"update {end}: {validated(model, network, reward, world.tuning_prompts(48))}", flush=True)
        about = {
            "reward": reward.name, "weight": weight, "learning_rate": learning_rate, "updates": end, "rows": BATCH,
            "config": asdict(CONFIG), "date": f"{datetime.now(UTC):%Y-%m-%d}",
        }  # fmt: skip
        network.save(out.with_suffix(".safetensors"), about)


def loss(
    model: GuidedModel, network: NoiseNetwork, reward: Reward, weight: float, draws: Draws
) -> tuple[Tensor, Mapping[str, float]]:
    """Return ½‖Δ‖² − λ·r of a batch of training prompts."""
    prompts = [sample_caption(draws.python, sample(draws.python, "cpu")) for _ in range(BATCH)]
    x = torch.randn(BATCH, *model.latent_shape, generator=draws.torch)
    images, nats = pictures(model, network, x, prompts)
    found = reward(images, prompts)
    value = (nats - weight * found).mean()
    return value, {"nats": nats.mean().item(), "reward": found.mean().item()}


def pictures(model: GuidedModel, network: NoiseNetwork | None, x: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Return the pictures (B, 3, H, W) of initial latents in one step, and ½‖Δ‖² (B,); without a network Δ is 0."""
    cond, _ = model.encode(prompts, [""] * len(prompts))
    step = steps_of(model, CONFIG)[0]
    shift = torch.zeros_like(x) if network is None else network(x, step.timestep, tokens_in(cond))
    moved = x + shift
    images = model.decode(model.predict_x0(moved, model.predict(moved, step, cond), step))
    return images, shift.flatten(1).square().sum(1) / 2


@torch.no_grad()
def validated(model: GuidedModel, network: NoiseNetwork, reward: Reward, prompts: list[str]) -> str:
    """Return the gains on tuning prompts, each with its own noise, in words."""
    seeds = [randomness.own_seed(0, prompt) for prompt in prompts]
    x = randomness.initial_latents(model, seeds, 1, 1)[:, 0]
    before, after = (pictures(model, each, x, prompts) for each in (None, network))
    parts = [f"{after[1].mean():.1f} nats"]
    measures: dict[str, Any] = {reward.name: reward, **held_out_measures(model)}
    for name, measure in measures.items():
        plain, moved = (measure(images, prompts).tolist() for images, _ in (before, after))
        gain = paired_gain(plain, moved, np.random.default_rng(0))
        parts.append(f"{name} {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
    return ", ".join(parts)


if __name__ == "__main__":
    typer.run(main)
