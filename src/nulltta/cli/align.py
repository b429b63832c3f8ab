"""`nulltta align`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nulltta.cli import INTERRUPTED
from nulltta.cli.flags import NegativePrompt, OutFolder, Overwrite, PromptsFile, Seed, Seeds, refuse_numbers, run_flags
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue
from nulltta.runs.prompt_file import read_rows
from nulltta.runs.request import AlignRequest, RunSettings, unused_folder


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
    seeds: Seeds = None,
    negative_prompt: NegativePrompt = AlignRequest.negative_prompt,
    save_null_text: Annotated[
        Literal["small", "exact"] | None,
        typer.Option(
            metavar="FORM",
            help="Save what was learnt for `nulltta replay`: small, or exact to include the noise of this run.",
        ),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpeg", "webp"],
        typer.Option(metavar="FORMAT", help="Format of the pictures: png, jpeg or webp; figures are PNG."),
    ] = AlignRequest.image_format,
    video_format: Annotated[
        Literal["gif", "mp4"],
        typer.Option(metavar="FORMAT", help="Format of a video, beside the picture of all its frames: gif or mp4."),
    ] = AlignRequest.video_format,
    out: OutFolder = None,
    overwrite: Overwrite = False,
) -> None:
    """Sample pictures of PROMPT that score higher on a reward, beside plain ones from the same noise."""
    refuse_numbers(prompts or [])
    if prompts and prompts_file is not None and prompts_file.suffix == ".jsonl":
        raise InvalidValue("holds prompts with seeds of their own: give no other prompts beside it", field="prompts")
    request = AlignRequest.of_rows(
        read_rows(prompts or [], prompts_file), prompts_file, seeds, settings=settings, seed=seed,
        negative_prompt=negative_prompt, save_null_text=save_null_text, image_format=image_format,
        video_format=video_format, out=unused_folder() if out is None else out, overwrite=overwrite,
    )  # fmt: skip
    with quiet():
        from nulltta.runs.align import run

        finished = run(request)
    raise typer.Exit(0 if finished else INTERRUPTED)
