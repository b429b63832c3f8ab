"""`nulltta rewards`: the list of known rewards, and scores of pictures that lie in files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nulltta.cli.flags import DEVICE, REWARD_SOURCE
from nulltta.cli.messages import quiet

if TYPE_CHECKING:
    from rich.table import Table

    from nulltta.rewards.catalogue import ListedReward

app = typer.Typer(help="List the rewards that can be named, or score pictures with them.")


@app.callback(invoke_without_command=True)
def _rewards(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from nulltta.rewards import catalogue

    if as_json:
        print(json.dumps([asdict(row) for row in catalogue()], indent=1, ensure_ascii=False))
    else:
        Console().print(_table(catalogue()))


@app.command()
def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures; with --prompts, their folder.")],
    reward: Annotated[list[str], typer.Option(help="A name or a sum, as for align; several give a column each.")],
    reward_source: Annotated[str | None, REWARD_SOURCE] = None,
    prompt: Annotated[str | None, typer.Option(help="What the pictures should show.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="CSV", help="The columns file and prompt: a line a picture of the folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="Where the scores go (default: stdout).")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.")] = 8,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: the reward's own)"),
    ] = None,
) -> None:
    """Score pictures: CSV with a line a picture and a column a reward; a sum's components have columns too."""
    with quiet():
        from nulltta.runs.scores import Scoring, run

        run(
            Scoring(
                images=images, prompt=prompt, prompts=prompts, rewards=reward, reward_source=reward_source, out=out,
                batch_size=batch_size, device=device, dtype=dtype,
            )
        )  # fmt: skip


def _table(rows: list[ListedReward]) -> Table:
    """A reward a row; licence and source of its weights stand under what it is, so that 80 columns are enough."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    table.caption = "grad.: gives a gradient; size: of its download; local: needs no download"
    for heading in ("name", "grad.", "size", "local"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    table.add_column("what it is; licence, source", overflow="fold")
    for row in rows:
        what = Text(row.summary)
        if about := ", ".join(filter(None, (row.licence, row.source))):
            what.append(f"\n{about}", "dim")
        size = f"{row.gigabytes:.1f} GB" if row.gigabytes else "–"
        local = Text("yes", "green") if row.present else Text("no", "dim")
        table.add_row(Text(row.name, "bold"), "yes" if row.differentiable else "no", size, local, what)
    return table
