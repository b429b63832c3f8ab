"""`nulltta align`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nulltta.cli.flags import NegativePrompt, OutFolder, PromptsFile, Seed, run_flags
from nulltta.cli.messages import INTERRUPTED, quiet
from nulltta.runs.request import AlignRequest, RunSettings, read_prompts


@run_flags()
def align(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What the pictures should show.", show_default=False),
    ] = None,
    prompts_file: PromptsFile = None,
    *,
    settings: RunSettings,
    seed: Seed = AlignRequest.seed,
    negative_prompt: NegativePrompt = AlignRequest.negative_prompt,
    save_null_text: Annotated[
        Literal["small", "exact"] | None,
        typer.Option(
            metavar="FORM",
            help="Save what was learnt for `nulltta replay`: small, or exact to include the noise of this run.",
        ),
    ] = None,
    out: OutFolder = AlignRequest.out,
) -> None:
    """Sample pictures of PROMPT that score higher on a reward, beside plain ones from the same noise."""
    request = AlignRequest(
        prompts=read_prompts(prompts or [], prompts_file), settings=settings, seed=seed,
        negative_prompt=negative_prompt, save_null_text=save_null_text, out=out,
    )  # fmt: skip
    with quiet():
        from nulltta.runs.align import run

        finished = run(request)
    raise typer.Exit(0 if finished else INTERRUPTED)
