"""`nulltta rewards`: the list of known rewards, and scores of picture files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nulltta.cli.flags import Device, DtypeName, RewardSource
from nulltta.cli.messages import quiet

if TYPE_CHECKING:
    from rich.table import Table

    from nulltta.rewards.catalogue import ListedReward

app = typer.Typer(help="List the rewards that can be named, or score pictures with them.")


@app.callback(invoke_without_command=True)
def _rewards(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
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
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="The pictures; with --table, the folder that they are in."),
    ],
    reward: Annotated[
        list[str], typer.Option(help="A name or a sum, as for `nulltta align`; may be repeated, for a column each.")
    ],
    reward_source: RewardSource = None,
    prompt: Annotated[str | None, typer.Option(help="What the pictures should show.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="A table with the columns file and prompt, one line per picture."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="The file for the scores (default: standard output)")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures scored at a time.")] = 8,
    device: Device = None,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: the reward's own)"),
    ] = None,
) -> None:
    """Score pictures: CSV with one line per picture and one column per reward and per component of a sum."""
    with quiet():
        from nulltta.runs.scores import ScoreRequest, run

        run(
            ScoreRequest(
                images=images, prompt=prompt, table=table, rewards=reward, reward_source=reward_source, out=out,
                batch_size=batch_size, device=device, dtype=dtype,
            )
        )  # fmt: skip


def _table(rows: list[ListedReward]) -> Table:
    """Return a table with one row per reward; licence and source go below the summary, to fit 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 0), caption_justify="left")
    table.caption = "grad: has a gradient; size: of its download; here: needs no download"
    for heading in ("name", "grad", "size", "here"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    table.add_column("what it is; licence, source", overflow="fold")
    for row in rows:
        what = Text(row.summary)
        if about := ", ".join(filter(None, (row.licence, row.source))):
            what.append(f"\n{about}", "dim")
        size = _size(row.gigabytes)
        here = Text("yes", "green") if row.present else Text("no", "dim")
        table.add_row(Text(row.name, "bold"), "yes" if row.differentiable else "no", size, here, what)
    return table


def _size(gigabytes: float) -> str:
    """Return a size in words: "17 GB", "1.7 GB", "24 MB", "–" for nothing."""
    if not gigabytes:
        return "–"
    if gigabytes < 0.1:
        return f"{1000 * gigabytes:.2g} MB"
    return f"{gigabytes:.{int(gigabytes < 10)}f} GB"
