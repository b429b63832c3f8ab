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
from ..tokenizer import MAX_LENGTH, build_tokenizer, token_ids
from . import autoencoder
from .augment import Augmentation, Redrawn, other, usual
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


def contrast(logits: Tensor, captions: list[str]) -> tuple[Tensor, float]:
    """Return the symmetric cross-entropy of logits (B, B) and the accuracy; equal captions share the target."""
    same = torch.tensor([[a == b for b in captions] for a in captions], device=logits.device).float()
    target = same / same.sum(1, keepdim=True)
    loss = -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1).mean() / 2
    right = same.gather(1, logits.argmax(1, keepdim=True)).mean()
    return loss, float(right)


def build(name: str) -> nn.Module:
    """Return an untrained scorer's network: transformers' CLIPModel for "clip", `ConvClip` for "clip-b"."""
    tokenizer = build_tokenizer()
    begin, end, words = tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)
    if name == "clip-b":
        torch.manual_seed(77)
        return ConvClip(words, end)
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(5)
    tower = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    ends = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    text = {**tower, **ends, "vocab_size": words, "max_position_embeddings": MAX_LENGTH, "num_hidden_layers": 3}
    vision = {**tower, "image_size": 64, "patch_size": 8, "num_hidden_layers": 4}
    model: nn.Module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    return model


def loss(model: Any, tokenizer: Any, augment: Augmentation, scenes: list[Scene], draws: Draws) -> Any:
    """Return the contrastive loss of a batch of scenes, and the accuracy within the batch to log."""
    device = next(model.parameters()).device
    captions = [sample_caption(draws.python, scene) for scene in scenes]
    images = augment(to_unit(render_batch(scenes, draws.python)).to(device), draws.torch)
    seen = features(model.get_image_features(pixel_values=fit_pixels(images)))
    read = features(model.get_text_features(input_ids=token_ids(tokenizer, captions).to(device)))
    value, accuracy = contrast(model.logit_scale.clamp(max=4.0).exp() * seen @ read.T, captions)
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
        found: tuple[Tensor, dict[str, float]] = loss(
            model, tokenizer, augment, families(draws.python, batch, size), draws
        )
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
