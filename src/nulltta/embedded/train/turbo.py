"""Distil an embedded model to a few steps without guidance, as a LoRA that stock diffusers loads.

    python -m nulltta.embedded.train.turbo
    python -m nulltta.embedded.scenes.train.turbo

The student is a consistency model (arXiv 2303.01469): at every latent on a deterministic trajectory of the teacher it
predicts where the trajectory ends. The teacher samples under classifier-free guidance, so that the guidance is folded
into the student, which needs one evaluation per step; what is learnt is a LoRA, as for latent consistency models (arXiv
2311.05556). A trajectory has `LEVELS` steps, so few that all can be run to their end before training: the student needs
no target of its own making. The steps are DDIM's, or those of second order of DPM-Solver++ 2M (arXiv 2211.01095).

A stopped run resumes from its last trajectory or checkpoint. The LoRA is written to `--weights` at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from .. import WEIGHTS, grammar
from ..tokenizer import token_ids
from .denoiser import channel_weights
from .loop import Budget, Draws, Recipe, draws, has_bfloat16, load_trained, train
from .sampling import GRID_PROMPTS, grid, sample_images

NAME = "turbo"
LEVELS = 8
GUIDANCE = 3.0
STARTS = (8, 6, 4, 2)
"""The levels of a student's four steps."""
CHUNK = 48
RANK = 22
BATCH = 48
HUBER = 1e-3
TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
)  # fmt: skip
"""The layers that a LoRA of latent consistency models adapts."""


@dataclass(frozen=True)
class Teacher:
    """An embedded model that is distilled, and how.

    Attributes:
        weights: the folder of the model's weights, where the LoRA goes as well.
        caption: draws a training caption.
        shown: the prompts of the pictures that show progress.
        captions: how many captions have trajectories.
        steps: the updates of the student.
        order: of the teacher's steps: 1 for DDIM's, 2 for DPM-Solver++ 2M's.
        starts: the levels at which its trajectories start, of which the first is `LEVELS`.
        rank: of the LoRA.
        noisiest: the share of a batch that is kept for the noisiest level; the rest is spread over all levels.
    """

    weights: Path
    caption: Callable[[random.Random], str]
    shown: tuple[str, ...]
    captions: int
    steps: int
    order: int = 1
    starts: tuple[int, ...] = STARTS
    rank: int = RANK
    noisiest: float = 0.0

    def load(self) -> Any:
        """Return the stock pipeline, frozen."""
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(self.weights / "sd", safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        for part in (pipe.vae, pipe.text_encoder, pipe.unet):
            part.eval().requires_grad_(False)
        return pipe


def _caption(rng: random.Random) -> str:
    return grammar.sample_caption(rng, grammar.sample(rng, "cpu"))


EMOJI = Teacher(WEIGHTS, _caption, GRID_PROMPTS, captions=1536, steps=400)
"""The embedded model."""


class Adapters(nn.Module):
    """The adapters of a denoiser as one module that learns, while the denoiser itself stays frozen.

    Args:
        unet: the denoiser, to which adapters are added.
        rank: theirs.
    """

    def __init__(self, unet: Any, rank: int = RANK) -> None:
        from peft import LoraConfig

        super().__init__()
        torch.manual_seed(21)
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS)))
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): value for name, value in unet.named_parameters() if value.requires_grad}
        )


def noise_levels(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Return the timesteps of the levels 1 to LEVELS, and ᾱ of the levels 0 (clean) to LEVELS."""
    stride = scheduler.config.num_train_timesteps // LEVELS
    timesteps = stride * torch.arange(1, LEVELS + 1) - 1
    return timesteps, torch.cat([torch.ones(1), scheduler.alphas_cumprod[timesteps]])


@torch.no_grad()
def trajectories(
    teacher: Teacher, pipe: Any, ids: Tensor, stream: Generator, autocast: bool = False
) -> dict[str, Tensor]:
    """Return the teacher's trajectories for captions (B, L).

    The first starts in noise, each further one at a level to which the end of the one before is renoised, as a student
    renoises its clean estimate.

    Args:
        teacher: what is distilled.
        pipe: its pipeline.
        ids: the captions' tokens.
        stream: draws the noise.
        autocast: whether the teacher computes in bfloat16.

    Returns:
        "x" (n, C, h, w), the latents on the way; "level" (n,), theirs; "end" (n, C, h, w), where the trajectory ended;
        "ids" (n, L).
    """
    timesteps, alpha_bar = noise_levels(pipe.scheduler)
    log_snr = 0.5 * (alpha_bar / (1 - alpha_bar)).log()
    empty = token_ids(pipe.tokenizer, [""])
    context = pipe.text_encoder(input_ids=torch.cat([empty.expand_as(ids), ids])).last_hidden_state
    shape = (len(ids), pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    x0, rows = torch.zeros(shape), list[tuple[Tensor, Tensor, Tensor, Tensor]]()
    for top in teacher.starts:
        x, way = mixed(x0, torch.randn(shape, generator=stream), alpha_bar[top]), list[Tensor]()
        for level in range(top, 0, -1):
            way.append(x)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                v = pipe.unet(torch.cat([x, x]), timesteps[level - 1], context).sample
            v_null, v_cond = v.float().chunk(2)
            before, x0 = x0, clean(x, v_null + GUIDANCE * (v_cond - v_null), alpha_bar[level])
            target = x0
            if teacher.order == 2 and 1 < level < top:  # the first step has no estimate before it; the last ends at x0
                ahead = (log_snr[level - 1] - log_snr[level]) / (log_snr[level] - log_snr[level + 1])
                target = x0 + 0.5 * ahead * (x0 - before)
            x = mixed(target, noise_of(x, target, alpha_bar[level]), alpha_bar[level - 1])
        levels = torch.arange(top, 0, -1)
        rows += [(x, level.expand(len(x)), x0, ids) for x, level in zip(way, levels, strict=True)]
    return dict(zip(("x", "level", "end", "ids"), map(torch.cat, zip(*rows, strict=True)), strict=True))


def simulate(
    folder: Path, teacher: Teacher, pipe: Any, chunks: Iterable[int], size: int = CHUNK, autocast: bool = False
) -> dict[str, Tensor]:
    """Return the trajectories of chunks of training captions by number, those of earlier runs from the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for k in chunks:
        path = folder / f"trajectories-{k}.safetensors"
        if not path.exists():
            draw = draws(f"{NAME} trajectories", k)
            ids = token_ids(pipe.tokenizer, [teacher.caption(draw.python) for _ in range(size)])
            chunk = trajectories(teacher, pipe, ids, draw.torch, autocast)
            save_file({key: _halved(value) for key, value in chunk.items()}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        found.append(load_file(path))
    return {key: torch.cat([each[key] for each in found]) for key in found[0]}


def _halved(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value.contiguous()


def levels_of(batch: int, noisiest: float) -> Tensor:
    """Return the levels (batch,) of a batch's rows: a share at the noisiest level, the rest spread over all levels."""
    kept = round(noisiest * batch)
    return torch.cat([torch.full((kept,), LEVELS), 1 + torch.arange(batch - kept) % LEVELS])


def loss(
    pipe: Any, data: Mapping[str, Tensor], rows: Sequence[Tensor], weights: Tensor, level: Tensor, streams: Draws
) -> tuple[Tensor, dict[str, float]]:
    """Return the pseudo-Huber distance of the student's clean estimates from the ends of the teacher's trajectories.

    Args:
        pipe: the pipeline with the student's adapters.
        data: what `simulate` returns.
        rows: the rows of `data` at each level from 1.
        weights: of the latents' channels (`channel_weights`).
        level: (B,), the levels of a batch's rows.
        streams: the random streams of the step.
    """
    place = torch.rand(len(level), generator=streams.torch)
    chosen = torch.stack([rows[n - 1][int(p * len(rows[n - 1]))] for n, p in zip(level.tolist(), place, strict=True)])
    error = errors(pipe, data, chosen)
    value = (((error + HUBER**2).sqrt() - HUBER) * weights).mean()
    return value, {"squared": error.mean().item(), "first": error[level == LEVELS].mean().item()}


def errors(pipe: Any, data: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
    """Return the squared errors (B, C, h, w) of the student's clean estimates at the chosen rows (B,) of `data`."""
    timesteps, alpha_bar = noise_levels(pipe.scheduler)
    x, level = data["x"][chosen].float(), data["level"][chosen]
    with torch.no_grad():
        context = pipe.text_encoder(input_ids=data["ids"][chosen]).last_hidden_state
    found = clean(x, pipe.unet(x, timesteps[level - 1], context).sample, alpha_bar[level])
    return (found - data["end"][chosen].float()).square()


@torch.no_grad()
def held_out_errors(pipe: Any, data: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the student's mean squared error at each level of its four steps, on captions that it does not learn."""
    rows = {level: (data["level"] == level).nonzero()[:, 0] for level in STARTS}
    return {f"level {level}": errors(pipe, data, chosen).mean().item() for level, chosen in rows.items()}


def mixed(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return √ᾱ·x0 + √(1−ᾱ)·ε, with one ᾱ for all rows or one (B,) per row."""
    signal, sigma = (v.view(-1, 1, 1, 1) for v in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    return signal * x0 + sigma * noise


def clean(x: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the clean estimate √ᾱ·x − √(1−ᾱ)·v of a v-prediction, with one ᾱ for all rows or one (B,) per row."""
    signal, sigma = (s.view(-1, 1, 1, 1) for s in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    return signal * x - sigma * v


def noise_of(x: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the noise that makes latents of a clean estimate, at one ᾱ."""
    noise: Tensor = (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    return noise


def as_distilled(pipe: Any) -> Any:
    """Give a pipeline the scheduler of its distilled levels, and return it."""
    from diffusers import LCMScheduler

    # A large scaling of the timesteps takes the clean estimate as it is at every level but the clean one.
    config = {**pipe.scheduler.config, "original_inference_steps": LEVELS, "timestep_scaling": 1e6}
    pipe.scheduler = LCMScheduler.from_config(config)
    return pipe


def report(
    folder: Path,
    pipe: Any,
    prompts: Sequence[str],
    held_out: Mapping[str, Tensor],
    module: nn.Module,  # noqa: ARG001 - the loop's signature
    spent: float,
) -> None:
    """Write what the averaged weights draw in 1, 2, 4 and 8 steps, and add their held-out errors to held-out.jsonl."""
    with (folder / "held-out.jsonl").open("a") as log:
        print(json.dumps({"minutes": spent / 60, **held_out_errors(pipe, held_out)}), file=log)
    scheduler = pipe.scheduler
    as_distilled(pipe)
    rows = [sample_images(pipe, list(prompts), guidance=1.0, steps=steps) for steps in (1, 2, 4, 8)]
    pipe.scheduler = scheduler
    grid(torch.cat(rows), columns=len(prompts)).save(folder / f"grid-{spent / 60:05.1f}.png")


def run(
    teacher: Teacher,
    pipe: Any,
    budget: Budget,
    data: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor],
    batch: int = BATCH,
) -> Adapters:
    """Train on trajectories to the end, from the checkpoint if there is one, and return the adapters."""
    weights = channel_weights(pipe.vae, data["end"][:64].float())
    rows = [(data["level"] == level).nonzero()[:, 0] for level in range(1, LEVELS + 1)]
    adapters = Adapters(pipe.unet, teacher.rank)
    recipe = Recipe(
        NAME,
        adapters,
        partial(loss, pipe, data, rows, weights, levels_of(batch, teacher.noisiest)),
        batch,
        lr=1e-3,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        steps=teacher.steps,
        hold=0.5,
        ema=0.99,
        checkpoint_seconds=300.0,
        on_checkpoint=partial(report, budget.folder, pipe, teacher.shown, held_out),
    )
    train(recipe, budget)
    return adapters


def export(pipe: Any, adapters: Adapters, budget: Budget, folder: Path) -> None:
    """Write the averaged adapters in half precision, in the format of diffusers' LoRA loader."""
    from peft import get_peft_model_state_dict

    load_trained(adapters, budget.folder, NAME)
    layers = {name: value.half() for name, value in get_peft_model_state_dict(pipe.unet).items()}
    pipe.save_lora_weights(folder, unet_lora_layers=layers)
    as_distilled(pipe).scheduler.save_pretrained(folder / "scheduler")


def main(teacher: Teacher = EMOJI, out: Path = Path("build/turbo")) -> None:
    """Train and export, as the command line says.

    Args:
        teacher: what is distilled.
        out: where checkpoint, log and pictures go by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after this many steps, and write no weights")
    parser.add_argument(
        "--captions", type=int, default=teacher.captions, help=f"training captions, in parts of {CHUNK}"
    )
    parser.add_argument("--out", type=Path, default=out, help="checkpoint, log and pictures")
    parser.add_argument("--weights", type=Path, default=teacher.weights / NAME, help="where the LoRA is written")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    budget = Budget(args.out, math.inf, args.steps, "cpu", autocast=has_bfloat16("cpu"))
    pipe = teacher.load()
    chunks = args.captions // CHUNK
    data = simulate(args.out, teacher, pipe, range(chunks), autocast=budget.autocast)
    held_out = simulate(args.out, teacher, pipe, [chunks], autocast=budget.autocast)
    adapters = run(teacher, pipe, budget, data, held_out)
    if args.steps is None:
        export(pipe, adapters, budget, args.weights)


if __name__ == "__main__":
    main()
