"""`nulltta replay`: pictures sampled under a learnt null text, at plain sampling's cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nulltta.cli.flags import DEVICE, REWARD_SOURCE
from nulltta.cli.messages import INTERRUPTED, quiet
from nulltta.runs.request import ModelSettings, ReplayRequest, read_prompts


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A null text: what `align --save-null-text` wrote.")],
    model: Annotated[str, typer.Option(help="'embedded', a diffusers directory, or a hub id.")] = "embedded",
    seeds: Annotated[str | None, typer.Option(help="A picture each: 0-7 or 0,3,5 (default: 0)")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to show (default: the prompt it was learnt for); may be repeated.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="More prompts, one a line.")
    ] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps (default: as recorded)")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Above 1 (default: as recorded)")] = None,
    eta: Annotated[float | None, typer.Option(help="0 deterministic, 1 ancestral (default: as recorded)")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The aligned picture again, from the noise in the file; compared with it.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Also plain sampling's pictures, to compare with.")] = False,
    reward: Annotated[str | None, typer.Option(help="Score plain against replay, as for align.")] = None,
    reward_source: Annotated[str | None, REWARD_SOURCE] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and result.json go.")] = Path("out"),
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.")] = 8,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)"),
    ] = None,
) -> None:
    """Sample pictures under the learnt null text of FILE: no reward, no gradient, plain sampling's cost."""
    asked = ReplayRequest(
        file=file, settings=ModelSettings(model=model, device=device, dtype=dtype), seeds=seeds,
        prompts=read_prompts(prompt or [], prompts_file),
        num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, eta=eta, exact=exact, plain=plain,
        reward=reward, reward_source=reward_source, out=out, batch_size=batch_size,
    )  # fmt: skip
    with quiet():
        from nulltta.runs.replay import run

        finished = run(asked)
    raise typer.Exit(0 if finished else INTERRUPTED)
