"""Sampling from networks in training: a pipeline around them, and grids of images that show progress."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

GRID_PROMPTS = (
    "a cat face on a blue background, noto style",
    "a pizza on a pink background, noto style",
    "a rocket on a black background, fluent style",
    "an octopus on a white background, fluent style",
    "two red apples on a yellow background, noto style",
    "three bananas on a purple background, noto style",
    "two foxes on a gray background, fluent style",
    "a panda and a rose on a white background, fluent style",
    "a castle and a star on a green background, noto style",
    "a ghost and a penguin on an orange background, fluent style",
)
GRID_GUIDANCE = (1.0, 3.0, 6.0)


def pipeline(learner: Any, autoencoder: Any, scheduler: Any, tokenizer: Any) -> Any:
    """Assemble a stock `StableDiffusionPipeline` from the networks."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=learner.text_encoder,
        tokenizer=tokenizer,
        unet=learner.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def sample_images(pipe: Any, prompts: list[str], guidance: float = 3.0, steps: int = 25, seed: int = 0) -> torch.Tensor:
    """Sample images (B, 3, 64, 64) in [0, 1] by DDIM with η = 1; each prompt's seed is `seed` plus its index."""
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(prompts))]
    images = pipe(
        prompts,
        guidance_scale=guidance,
        num_inference_steps=steps,
        eta=1.0,
        generator=generators,
        output_type="pt",
    ).images
    found: torch.Tensor = images.float().cpu()
    return found


def sample_grid(pipe: Any) -> Image.Image:
    """Draw GRID_PROMPTS from left to right, with one row per guidance scale, at twice their size."""
    images = torch.cat([sample_images(pipe, list(GRID_PROMPTS), scale) for scale in GRID_GUIDANCE])
    return grid(images, columns=len(GRID_PROMPTS))


def grid(images: torch.Tensor, columns: int) -> Image.Image:
    """Arrange images (B, 3, H, W) in [0, 1] in rows, at twice their size; an incomplete last row is left out."""
    rows = [torch.cat(list(images[k : k + columns]), 2) for k in range(0, len(images) - columns + 1, columns)]
    picture = Image.fromarray((torch.cat(rows, 1) * 255).byte().permute(1, 2, 0).numpy())
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
