"""`nulltta diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nulltta.cli.flags import Device
from nulltta.cli.messages import quiet


def diagnose(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders of `nulltta align`: one run, or several that differ in seed."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="REWARD", help="A reward that was not optimised, to measure with; may be repeated."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="The run's reward, where it is a function of your own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = None,
) -> None:
    """Say whether the reward of a run is being hacked, why, and what to do about it."""
    with quiet():
        from nulltta.runs.diagnose import DiagnoseRequest, run

        run(DiagnoseRequest(folders=folders, against=against or [], reward=reward, as_json=as_json, device=device))
