"""Stage 4: the denoiser and the text encoder, trained together on latents that are computed once.

They learn v-prediction over a schedule that ends in nearly pure noise. Stable Diffusion's own schedule leaves a trace
of the image at t = T; on an 8×8 grid that trace shows the background, and the network would ignore the caption.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..autoencoder import PatchAutoencoder
from ..grammar import Size, sample, sample_caption
from ..render import render_batch
from ..tokenizer import build_tokenizer, token_ids
from . import autoencoder, scorers
from .loop import Budget, Draws, Recipe, State, load_trained, train
from .sampling import pipeline, sample_grid

NAME = "denoiser"
BATCH = 48
SCENES: dict[Size, int] = {"cpu": 40_000, "gpu": 120_000}
EMPTY_SHARE = 0.1


def build_unet() -> Any:
    """Return an untrained denoiser of 8×8 latents with cross-attention on every level."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(11)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        layers_per_block=1,
        block_out_channels=(112, 224),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_betas() -> list[float]:
    """Return Stable Diffusion's 1000 betas with √ᾱ rescaled to end at 0.01 instead of 0.07 (arXiv 2305.08891).

    It does not end at 0, as with `rescale_betas_zero_snr`, because there DDIMScheduler's step at η = 1 takes the root
    of a negative rounding error, and for some numbers of steps the stock image is NaN.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    signal = (1 - betas).cumprod(0).sqrt()
    signal = signal[0] - (signal[0] - signal) * (signal[0] - 0.01) / (signal[0] - signal[-1])
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), signal.square()])
    return [round(beta, 8) for beta in (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()]


def build_scheduler() -> Any:
    """Return DDIM with v-prediction and trailing spacing over `build_betas`."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        trained_betas=build_betas(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # no effect here, but the stock pipeline warns about any other value
    )


class Learner(nn.Module):
    """The denoiser and the text encoder, which learn together."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


@dataclass(frozen=True)
class Data:
    """Training data.

    Attributes:
        latents: (N, C, h, w), of training scenes.
        ids: (N, L), the token ids of one caption per scene.
        empty: (L,), the token ids of the empty prompt.
    """

    latents: Tensor
    ids: Tensor
    empty: Tensor


@torch.no_grad()
def encode_scenes(
    path: Path, model: PatchAutoencoder, tokenizer: Any, drawn: Iterable[tuple[Tensor, list[str]]]
) -> Data:
    """Encode training scenes and their captions, or load them from `path` if an earlier run encoded the same ones.

    The first batch is drawn and encoded in either case. A file that begins with another one was made by another
    autoencoder or by another version of the world, and is replaced.

    Args:
        path: where the data is kept.
        model: the autoencoder, on the device where it encodes.
        tokenizer: what `token_ids` takes.
        drawn: batches of images (B, 3, 64, 64), uint8, and B captions.
    """

    def encoded(batch: tuple[Tensor, list[str]]) -> tuple[Tensor, Tensor]:
        images, captions = batch
        return model.latents(images.to(model.device).float() / 127.5 - 1).cpu(), token_ids(tokenizer, captions)

    batches = iter(drawn)
    first = encoded(next(batches))
    if path.exists():
        kept = Data(**load_file(path))
        if _begins_with(kept, *first):
            return kept
        print(f"{path} was made by another autoencoder or of other scenes: it is made anew", flush=True)
    latents, ids = zip(first, *map(encoded, batches), strict=True)
    empty = token_ids(tokenizer, [""])[0]
    partial_path = path.with_suffix(".part")
    save_file({"latents": torch.cat(latents), "ids": torch.cat(ids), "empty": empty}, partial_path)
    partial_path.replace(path)
    return Data(**load_file(path))


def _begins_with(data: Data, latents: Tensor, ids: Tensor) -> bool:
    """Return whether data begins with these latents, whose variance is 1, up to the rounding of another device."""
    n = len(ids)
    return torch.equal(data.ids[:n], ids) and torch.allclose(data.latents[:n], latents, rtol=0.0, atol=0.02)


def draw_scenes(size: Size, n: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Yield n training scenes of the emoji world and their captions, in batches."""
    rng = random.Random(4)
    for start in range(0, n, 256):
        scenes = [sample(rng, size) for _ in range(min(256, n - start))]
        yield render_batch(scenes, rng), [sample_caption(rng, scene) for scene in scenes]


@torch.no_grad()
def channel_weights(model: Any, latents: Tensor) -> Tensor:
    """Return weights (C, 1, 1) of mean 1: how far an error in each latent channel moves the pixels.

    The latents are white, so that without weights the finest detail would count as much as the background's colour.
    """
    clean, effect = model.pixels(latents), []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += 0.3
        effect.append((model.pixels(moved) - clean).pow(2).mean().sqrt())
    weights = torch.stack(effect)
    return (weights / weights.mean())[:, None, None]


def loss(
    learner: Any, data: Data, weights: Tensor, alpha_bar: Tensor, batch: int, draws: Draws
) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted squared error of v = √ᾱ ε − √(1−ᾱ) x0 on a batch in which one caption in ten is empty."""
    device, stream = data.latents.device, draws.torch
    chosen = torch.randint(0, len(data.latents), (batch,), generator=stream)
    x0 = data.latents[chosen.to(device)]
    empty = torch.rand(batch, 1, generator=stream) < EMPTY_SHARE
    ids = torch.where(empty, data.empty, data.ids[chosen]).to(device)
    noise = torch.randn(x0.shape, generator=stream).to(device)
    # stratified: one timestep in each of `batch` equal intervals, so that the loss varies less
    place = (torch.randperm(batch, generator=stream) + torch.rand(batch, generator=stream)) / batch
    t = (place * len(alpha_bar)).long().clamp(max=len(alpha_bar) - 1).to(device)
    signal, sigma = (v.view(-1, 1, 1, 1) for v in (alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()))
    context = learner.text_encoder(input_ids=ids).last_hidden_state
    v = learner.unet(signal * x0 + sigma * noise, t, context).sample.float()
    error = (v - (signal * noise - sigma * x0)).pow(2)
    value = (error * weights).mean()
    return value, {"plain": error.mean().item()}


def plain_attention(learner: Any) -> None:
    """Compute attention as two matrix products, whose backward pass is faster in bfloat16 on a CPU."""
    from diffusers.models.attention_processor import AttnProcessor

    learner.unet.set_attn_processor(AttnProcessor())
    learner.text_encoder.set_attn_implementation("eager")


def draw_grid(folder: Path, decoder: Any, module: nn.Module, spent: float) -> None:
    """Write sampled images of the averaged weights to folder/grid-MINUTES.png, to look at while training."""
    pipe = pipeline(module, decoder, build_scheduler(), build_tokenizer())
    sample_grid(pipe).save(folder / f"grid-{spent / 60:05.1f}.png")


def run(size: Size, budget: Budget, scenes: int | None = None) -> State:
    """Train until the budget is spent, from the checkpoints of the autoencoder and of `clip`."""
    decoder, n = autoencoder.load(size, budget).to(budget.device), scenes or SCENES[size]
    data = encode_scenes(budget.folder / f"latents-{n}.safetensors", decoder, build_tokenizer(), draw_scenes(size, n))
    learner, batch = build(budget, warm=True), BATCH if size == "cpu" else 10 * BATCH
    return fit(NAME, learner, data, decoder, batch, partial(draw_grid, budget.folder, decoder), budget)


def fit(
    name: str,
    learner: Learner,
    data: Data,
    decoder: PatchAutoencoder,
    batch: int,
    on_checkpoint: Callable[[nn.Module, float], None],
    budget: Budget,
    steps: int | None = None,
    checkpoint_seconds: float = 480.0,
) -> State:
    """Train a denoiser and its text encoder.

    Args:
        name: the stage's name, which names the checkpoint and seeds the draws.
        learner: what learns.
        data: latents and captions, on the CPU.
        decoder: the autoencoder that made the latents.
        batch: images per step.
        on_checkpoint: see `Recipe`.
        budget: how long to train, and where.
        steps: the length of the stage; None if the budget's minutes set it.
        checkpoint_seconds: how often a checkpoint is written.
    """
    if budget.device == "cpu" and budget.autocast:
        plain_attention(learner)
    data = Data(data.latents.to(budget.device), data.ids, data.empty)
    weights = channel_weights(decoder, data.latents[:64])
    alpha_bar = build_scheduler().alphas_cumprod.to(budget.device)
    recipe = Recipe(
        name,
        learner,
        partial(loss, learner, data, weights, alpha_bar, batch),
        batch,
        lr=8e-4,
        betas=(0.9, 0.98),
        steps=steps,
        hold=0.5,
        ema=0.999,
        checkpoint_seconds=checkpoint_seconds,
        on_checkpoint=on_checkpoint,
    )
    return train(recipe, budget)


def build(budget: Budget, warm: bool = False) -> Learner:
    """Return untrained networks; with `warm`, the text encoder starts from the text tower of the `clip` scorer."""
    from transformers import CLIPTextModel

    clip: Any = scorers.build("clip")
    if warm:
        clip = scorers.load("clip", budget)
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(_text_tower(text, clip))
    return Learner(build_unet(), text)


def _text_tower(text: nn.Module, clip: nn.Module) -> dict[str, Tensor]:
    """Return the scorer's text weights under the names of CLIPTextModel, which differ between releases."""
    found = clip.state_dict()
    prefix = "" if next(iter(text.state_dict())).startswith("text_model.") else "text_model."
    return {key: found[prefix + key] for key in text.state_dict()}


def load(budget: Budget) -> Learner:
    """Load the trained (averaged) networks, in eval mode."""
    return load_trained(build(budget), budget.folder, NAME)
