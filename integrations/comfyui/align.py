"""The node that learns a null text: test-time alignment of the user's own MODEL, CLIP and VAE."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch

import nulltta
from nulltta import InvalidValue, NullTTAConfig

from .adapter import ComfyModel, progress
from .schemas import Input, Node


def align(
    model: Any, clip: Any, vae: Any, prompt: str, negative_prompt: str, reward: str, width: int, height: int, seed: int,
    steps: int, cfg: float, scheduler: str, fewest_inner_steps: int, most_inner_steps: int, candidates: int,
    learning_rate: float, kl_weight: float,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Return the aligned image, its latent and the null text that was learnt.

    Raises:
        InvalidValue: if the reward is the import path of a function, which a workflow must not import.
    """
    if ":" in reward:
        raise InvalidValue("must be made of known names in ComfyUI, not an import path", "reward")
    guided = ComfyModel(model, clip, vae, (height, width), scheduler)
    config = NullTTAConfig(
        num_inference_steps=steps, guidance_scale=cfg, inner_steps=(fewest_inner_steps, most_inner_steps),
        num_particles=candidates, learning_rate=learning_rate, kl_weight=kl_weight, annealing="auto",
    )  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():  # nodes run in inference mode
        result = nulltta.align(
            guided, prompt, reward, config=config, negative_prompt=negative_prompt, seed=seed, progress=False,
            on_step=progress(steps),
        )  # fmt: skip
        assert result.latents is not None
        samples = guided.denoiser.process_latent_out(result.latents).cpu()
    return result.images.movedim(1, -1).cpu(), {"samples": samples}, result.null_text[0]


ALIGN = Node(
    "NullTTAAlign", "Align Null Text",
    "Optimise the null text of a prompt while sampling, so that a reward of the image rises.",
    [
        Input("model", "MODEL", "Stable Diffusion or SDXL, with LoRAs or without."),
        Input("clip", "CLIP", "Encodes the prompts."),
        Input("vae", "VAE", "Decodes what the reward scores."),
        Input("prompt", "STRING", "What to draw; the reward reads it too.",
              options={"multiline": True, "default": ""}),
        Input("negative_prompt", "STRING", "The text from which the null text starts.",
              options={"multiline": True, "default": ""}),
        Input("reward", "STRING", "A reward's name or a sum, such as 0.7*pickscore + 0.3*aesthetic.",
              options={"default": "colourfulness"}),
        Input("width", "INT", "Of the image.", options={"default": 512, "min": 64, "max": 4096, "step": 8}),
        Input("height", "INT", "Of the image.", options={"default": 512, "min": 64, "max": 4096, "step": 8}),
        Input("seed", "INT", "The seed of the noise.", options={"default": 0, "min": 0, "max": 2**63 - 1}),
        Input("steps", "INT", "Denoising steps.", options={"default": 30, "min": 1, "max": 1000}),
        Input("cfg", "FLOAT", "The scale of guidance, above 1.",
              options={"default": 7.5, "min": 1.1, "max": 100.0, "step": 0.1}),
        Input("scheduler", lambda: comfy.samplers.KSampler.SCHEDULERS, "The noise levels."),
        Input("fewest_inner_steps", "INT", "Updates of the null text at the first denoising step.",
              options={"default": 5, "min": 0, "max": 1000}),
        Input("most_inner_steps", "INT", "Updates of the null text at the last denoising step.",
              options={"default": 25, "min": 0, "max": 1000}),
        Input("candidates", "INT", "Images drawn at each denoising step, of which the best is kept.",
              options={"default": 3, "min": 1, "max": 64}),
        Input("learning_rate", "FLOAT", "Adam's.",
              options={"default": 0.01, "min": 0.0, "max": 1.0, "step": 0.001}),
        Input("kl_weight", "FLOAT", "How strongly the null text is held to the negative prompt.",
              options={"default": 0.002, "min": 0.0, "max": 1.0, "step": 0.0005}),
    ],
    {"image": "IMAGE", "latent": "LATENT", "null_text": "NULL_TEXT"}, align,
)  # fmt: skip
