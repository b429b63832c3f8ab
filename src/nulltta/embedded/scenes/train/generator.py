"""Stage "generator": the denoiser of 16×16 latents and its own text encoder, by the emoji world's loss and schedule.

On a GPU, where a step of a few images would leave most of it idle, batches and data are larger.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...train.denoiser import Learner, build_scheduler, encode_scenes, fit
from ...train.loop import Budget, drawn_ahead, load_trained
from ...train.sampling import grid, pipeline, sample_images
from ..grammar import sample, training_caption
from ..judge import SceneJudge
from ..prompts import tuning_prompts
from ..render import render
from ..verdicts import shares
from . import autoencoder
from .text import LENGTH, tokenizer

NAME = "generator"
BATCH = 32
GPU_BATCH = 256
STEPS = 9000
SCENES = 60_000
GPU_SCENES = 240_000
DRAWN_AT_ONCE = 250
LOOK_PROMPTS = 48
LOOK_STEPS = 15
LOOK_MINUTES = 30.0
GPU_LOOK_MINUTES = 1.0


def build() -> Learner:
    """Return the untrained networks: attention on the 8×8 level alone, since a level of 16×16 is slow on a CPU."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(12)
    words = tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=6,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(64, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id,
    )
    return Learner(unet, CLIPTextModel(text))


def draw(rng: random.Random) -> tuple[Tensor, list[str]]:
    """Draw DRAWN_AT_ONCE training scenes and their captions, of which a fifth is wrong in one thing."""
    pairs = [sample(rng) for _ in range(DRAWN_AT_ONCE)]
    return render([shown for _, shown in pairs], rng), [training_caption(stated, rng) for stated, _ in pairs]


def draw_scenes(n: int, workers: int = 0) -> Iterator[tuple[Tensor, list[str]]]:
    """Yield n training scenes and their captions in batches; n is rounded up to a multiple of DRAWN_AT_ONCE."""
    return drawn_ahead(f"{NAME} scenes", draw, range(-(-n // DRAWN_AT_ONCE)), workers)


def run(budget: Budget, scenes: int | None = None) -> None:
    """Train to the end of the stage, or as long as the budget says. Needs the autoencoder's checkpoint."""
    on_gpu = budget.device != "cpu"
    decoder, n = autoencoder.load(budget).to(budget.device), scenes or (GPU_SCENES if on_gpu else SCENES)
    drawn = draw_scenes(n, budget.workers)
    data = encode_scenes(budget.folder / f"latents-{n}.safetensors", decoder, tokenizer(), drawn)
    fit(
        NAME,
        build(),
        data,
        decoder,
        GPU_BATCH if on_gpu else BATCH,
        partial(look, budget.folder, decoder, GPU_LOOK_MINUTES if on_gpu else LOOK_MINUTES),
        budget,
        STEPS if budget.minutes == math.inf else None,
        checkpoint_seconds=60.0 if on_gpu else 480.0,
    )


def look(folder: Path, decoder: Any, every: float, module: nn.Module, spent: float) -> None:
    """Write what the averaged weights draw to folder/grid-MINUTES.png, and what the judge says to verdicts.jsonl.

    Nothing is drawn until `every` minutes of training after the last line.
    """
    log = folder / "verdicts.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])["minutes"] if log.exists() else -every
    if spent / 60 < last + every:
        return
    pipe = pipeline(module, decoder, build_scheduler(), tokenizer())
    prompts = tuning_prompts(LOOK_PROMPTS)
    images = sample_images(pipe, prompts, guidance=3.0, steps=LOOK_STEPS)
    found = {"minutes": round(spent / 60, 1), **shares(SceneJudge().verdicts(images, prompts), prompts)}
    with log.open("a") as lines:
        lines.write(json.dumps(found) + "\n")
    grid(images, columns=12).save(folder / f"grid-{spent / 60:05.1f}.png")


def load(budget: Budget) -> Learner:
    """Return the trained (averaged) networks, in eval mode."""
    return load_trained(build(), budget.folder, NAME)
