"""`nulltta replay`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nulltta.cli import INTERRUPTED
from nulltta.cli.flags import (
    BatchSize,
    Device,
    Dtype,
    Model,
    Offload,
    OutFolder,
    Overwrite,
    PromptsFile,
    RewardSource,
    call_flags,
)
from nulltta.cli.messages import quiet
from nulltta.runs.prompt_file import read_prompts
from nulltta.runs.request import ModelSettings, ReplayRequest, unused_folder


@call_flags
def replay(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A null text that `fit` or `align --save-null-text` wrote, a hub id, or 'embedded' for the one that "
            "ships.",
        ),
    ],
    model: Model = "embedded",
    *,
    of_call: dict[str, Any],
    seeds: Annotated[str | None, typer.Option(help="Seeds, one picture each, as in 0-7 or 0,3,5 (default: 0)")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What to show (default: the prompt that the null text was learnt for); may be repeated."),
    ] = None,
    prompts_file: PromptsFile = None,
    num_inference_steps: Annotated[
        int | None, typer.Option(help="Number of denoising steps (default: as recorded)")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Scale of classifier-free guidance, above 1 (default: as recorded)")
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help="0 for deterministic, 1 for ancestral sampling (default: as recorded)")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Make the aligned picture again, from the noise in the file, and compare it."),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Sample plain pictures too, to compare with.")] = False,
    reward: Annotated[str | None, typer.Option(help="A reward to score plain and replayed pictures with.")] = None,
    reward_source: RewardSource = None,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = ReplayRequest.batch_size,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = "none",
) -> None:
    """Sample pictures with the null text in FILE: no reward, no gradient, at the cost of plain sampling."""
    request = ReplayRequest(
        file=file, settings=ModelSettings(model=model, device=device, dtype=dtype, offload=offload, **of_call),
        seeds=seeds, prompts=read_prompts(prompt or [], prompts_file), num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale, eta=eta, exact=exact, plain=plain, reward=reward, reward_source=reward_source,
        out=unused_folder() if out is None else out, overwrite=overwrite, batch_size=batch_size,
    )  # fmt: skip
    with quiet():
        from nulltta.runs.replay import run

        finished = run(request)
    raise typer.Exit(0 if finished else INTERRUPTED)
