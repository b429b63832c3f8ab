"""Stages 2 and 3: the two image-text scorers, trained to tell scenes apart that differ in one fact."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..grammar import Scene, Size, caption, draw, held_out, sample, sample_caption, vocabulary
from ..networks import ConvClip, fit_pixels
from ..render import render_batch, to_unit
from ..scorers import features
from ..tokenizer import build_tokenizer, token_ids
from . import autoencoder
from .augment import Redrawn, other, usual
from .loop import Budget, Draws, Recipe, load_trained, train

BATCH = 64
FAMILY = 4


def variant(scene: Scene, rng: random.Random, size: Size) -> Scene:
    """Draw a scene of the training compositions that differs from `scene` in one fact."""
    vocab = vocabulary(size)
    while True:
        fresh = draw(rng, vocab, scene.kind)
        change = rng.choice(("objects", "count", "background", "style"))
        if change == "count":
            changed = Scene(scene.objects[:1], rng.choice((1, 2, 3)), scene.background, scene.style)
        else:
            changed = replace(scene, **{change: getattr(fresh, change)})
        if changed != scene and not held_out(changed):
            return changed


def families(rng: random.Random, n: int, size: Size) -> list[Scene]:
    """Draw n scenes in families of FAMILY: one scene and three that each differ from it in one fact."""
    found: list[Scene] = []
    while len(found) < n:
        first = sample(rng, size)
        found += [first, *(variant(first, rng, size) for _ in range(FAMILY - 1))]
    return found[:n]


def contrast(logits: Tensor, fits: Tensor) -> tuple[Tensor, float]:
    """Return the symmetric cross-entropy of logits, and how often an image's likeliest caption fits it.

    Args:
        logits: (B, B), of images by captions.
        fits: (B, B), 1 where a caption fits an image and else 0; each has at least one that fits. What fits shares
            the target.
    """
    by_image = fits / fits.sum(1, keepdim=True) * logits.log_softmax(1)
    by_caption = fits.T / fits.T.sum(1, keepdim=True) * logits.T.log_softmax(1)
    right = fits.gather(1, logits.argmax(1, keepdim=True)).mean()
    return -(by_image + by_caption).sum(1).mean() / 2, float(right)


def build(name: str) -> nn.Module:
    """Return an untrained scorer's network: transformers' CLIPModel for "clip", `ConvClip` for "clip-b"."""
    tokenizer = build_tokenizer()
    if name == "clip":
        torch.manual_seed(5)
        return build_clip(tokenizer)
    torch.manual_seed(77)
    return ConvClip(len(tokenizer), tokenizer.eos_token_id)


def build_clip(tokenizer: Any, text_layers: int = 3) -> nn.Module:
    """Return an untrained CLIPModel of 64×64 images in patches of eight pixels, for a tokenizer's words and length."""
    from transformers import CLIPConfig, CLIPModel

    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tower = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    ends = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    text = {**tower, **ends, **words, "num_hidden_layers": text_layers}
    vision = {**tower, "image_size": 64, "patch_size": 8, "num_hidden_layers": 4}
    model: nn.Module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    return model


def loss(model: Any, tokenizer: Any, images: Tensor, captions: list[str], fits: Tensor) -> Any:
    """Return the contrastive loss of images (B, 3, H, W) in [0, 1], and the accuracy within the batch to log."""
    seen = features(model.get_image_features(pixel_values=fit_pixels(images)))
    read = features(model.get_text_features(input_ids=token_ids(tokenizer, captions).to(images.device)))
    value, accuracy = contrast(model.logit_scale.clamp(max=4.0).exp() * seen @ read.T, fits.to(seen))
    return value, {"accuracy": accuracy}


def run(name: str, size: Size, budget: Budget) -> None:
    """Train a scorer until its budget is spent; the augmentation needs the autoencoder's checkpoint."""
    redrawn = Redrawn(autoencoder.load(size, budget).to(budget.device))
    augment = usual(redrawn) if name == "clip" else other(redrawn)
    model, tokenizer = build(name), build_tokenizer()
    batch = BATCH if size == "cpu" else 4 * BATCH
    if name == "clip" and budget.device == "cpu":
        model.set_attn_implementation("eager")  # type: ignore[operator]  # see denoiser.plain_attention

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        scenes = families(draws.python, batch, size)
        captions = [sample_caption(draws.python, scene) for scene in scenes]
        images = augment(to_unit(render_batch(scenes, draws.python)).to(budget.device), draws.torch)
        equal = torch.tensor([[a == b for b in captions] for a in captions]).float()
        found: tuple[Tensor, dict[str, float]] = loss(model, tokenizer, images, captions, equal)
        return found

    train(Recipe(name, model, step, batch, lr=1e-3, weight_decay=0.05), budget)


def load(name: str, budget: Budget) -> nn.Module:
    """Load a trained scorer's network, in eval mode."""
    return load_trained(build(name), budget.folder, name)


@torch.no_grad()
def accuracy(scorer: Any, size: Size, n: int = 200, seed: int = 0) -> float:
    """Return how often the right caption of a held-out scene scores above four that each differ in one fact."""
    rng = random.Random(seed)
    scenes = [sample(rng, size, held=True) for _ in range(n)]
    prompts = [[caption(scene), *(caption(variant(scene, rng, size)) for _ in range(4))] for scene in scenes]
    images = to_unit(render_batch(scenes, rng)).repeat_interleave(5, 0)
    scores = scorer(images, [prompt for five in prompts for prompt in five]).view(n, 5)
    return float((scores[:, 1:].max(1).values < scores[:, 0]).float().mean())
