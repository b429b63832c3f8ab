"""How many FLOPs does one image take? Counted on the meta device, for the published release and for ours.

    python studies/flops.py [--model sd15 --model sdxl --inner-steps 5 55]

Ours is counted with the full and with the tiny decoder. The script prints a Markdown table and writes
studies/results/flops.json. It needs no weights and no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from nulltta.algorithm import schedules
from nulltta.benchmark.costs.meters import flops
from nulltta.benchmark.costs.stand_ins import MeasuredModel, denoise, measured_model, no_tokens
from nulltta.config import NullTTAConfig
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "flops.json"
TAESD = {"latent_channels": 4}  # diffusers' AutoencoderTiny as published


@dataclass(frozen=True)
class Prices:
    """The FLOPs of one row: forward alone, and forward with backward to the inputs (weights are frozen)."""

    denoiser: tuple[int, int]
    decoder: tuple[int, int]
    tiny: tuple[int, int]
    reward: tuple[int, int]


def main(
    model: Annotated[list[str] | None, typer.Option(help="sd15, sdxl or embedded; may be repeated.")] = None,
    inner_steps: tuple[int, int] = (5, 55),
    out: Path = RESULTS,
) -> None:
    """Count the FLOPs of one image."""
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions(), "models": {}}
    print(
        "| model | T, n_min n_max, K | release | ours, full decoder | tiny decoder | plain sampling |",
        "|---" * 6 + "|",
        sep="\n",
    )
    for name in model or ["sd15", "sdxl"]:
        thing = measured_model(name, "meta")
        config = NullTTAConfig(inner_steps=inner_steps)
        price = prices(thing)
        total = {"release": release(price, config), "full": ours(price, config, price.decoder),
                 "tiny": ours(price, config, price.tiny),
                 "plain": plain(price, config)}  # fmt: skip
        found["models"][name] = {"prices": vars(price), "totals": total, "inner_steps": inner_steps}
        cells = [f"{total[k] / 1e12:,.0f} ({total['release'] / total[k]:.1f}×)" for k in ("full", "tiny")]
        setting = f"{config.num_inference_steps}, {inner_steps[0]} {inner_steps[1]}, {config.num_particles}"
        ends = [f"{total[k] / 1e12:,.0f}" for k in ("release", "plain")]
        print("|", " | ".join([name, setting, ends[0], *cells, ends[1]]), "|")
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save(found, out)


def prices(thing: MeasuredModel) -> Prices:
    """Count one row of each part."""
    from diffusers import AutoencoderTiny

    model: Any = thing.model
    pipeline = model.pipeline
    device = str(next(pipeline.unet.parameters()).device)
    size = pipeline.unet.config.sample_size
    x = torch.zeros(1, pipeline.unet.config.in_channels, size, size, device=device)
    tokens = no_tokens(pipeline, 1, device)
    tiny = model.tiny_decoder or AutoencoderTiny(**TAESD).to(device).eval().requires_grad_(False)
    pixels = torch.zeros(1, 3, 8 * size, 8 * size, device=device)
    prompts = ["a cat"]
    thing.reward(pixels, prompts)  # text features are encoded once
    return Prices(
        denoiser=_both_ways(lambda each: denoise(pipeline, x, each), tokens),
        decoder=_both_ways(lambda x0: pipeline.vae.decode(x0).sample, x),
        tiny=_both_ways(lambda x0: tiny.decode(x0).sample, x),
        reward=_both_ways(lambda images: thing.reward(images, prompts), pixels),
    )


def _both_ways(function: Any, at: torch.Tensor) -> tuple[int, int]:
    """Return the FLOPs of a call forward, and forward and backward."""
    leaf = at.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            function(at)

    return flops(forward), flops(lambda: torch.autograd.grad(function(leaf).sum(), leaf))


def _inner(config: NullTTAConfig) -> int:
    """Return the number of inner steps of one image."""
    return sum(schedules.inner_step_counts(config))


def _shared(price: Prices, config: NullTTAConfig) -> int:
    """Return the FLOPs that both spend on candidates: K latents, both branches T times, T + 1 decodings and scores."""
    T, K = config.num_inference_steps, config.num_particles
    return 2 * K * T * price.denoiser[0] + K * (T + 1) * (price.decoder[0] + price.reward[0])


def release(price: Prices, config: NullTTAConfig) -> int:
    """Count the release: two branches with gradient per inner step; both branches at φ and at φ' per denoising step."""
    inner = _inner(config) * (2 * price.denoiser[1] + price.decoder[1] + price.reward[1])
    return inner + 4 * config.num_inference_steps * price.denoiser[0] + _shared(price, config)


def ours(price: Prices, config: NullTTAConfig, decoder: tuple[int, int]) -> int:
    """Count ours: one branch with gradient per inner step; one branch at φ and at φ' per denoising step."""
    inner = _inner(config) * (price.denoiser[1] + decoder[1] + price.reward[1])
    return inner + 2 * config.num_inference_steps * price.denoiser[0] + _shared(price, config)


def plain(price: Prices, config: NullTTAConfig) -> int:
    """Count ordinary sampling, decoded once."""
    return 2 * config.num_inference_steps * price.denoiser[0] + price.decoder[0]


if __name__ == "__main__":
    typer.run(main)
