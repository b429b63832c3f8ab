"""`nulltta export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A null text of `nulltta fit --form tokens`.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The textual inversion, .safetensors or .pt; its name is what prompts call it.",
            show_default=False,
        ),
    ],
) -> None:
    """Write a null text of tokens as a textual inversion for diffusers, AUTOMATIC1111, Forge and ComfyUI."""
    with quiet():
        from nulltta.null_text import loading, textual_inversion

        textual_inversion.require_format(out)
        if out.exists():
            raise InvalidValue(f"'{out}' exists: choose another file, or delete it", "out")
        textual_inversion.export(loading.load(file), out)
        print(
            f"{out} is written. Negative prompt in ComfyUI, from models/embeddings: embedding:{out.stem}; in "
            f"AUTOMATIC1111 and Forge, from embeddings: {out.stem}"
        )
