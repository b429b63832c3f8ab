"""`nulltta batch`: its flags, its progress bar and its last line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nulltta.cli import INTERRUPTED
from nulltta.cli.flags import run_flags
from nulltta.cli.messages import quiet, say
from nulltta.display import terminal
from nulltta.errors import InvalidValue
from nulltta.runs.request import RunSettings

if TYPE_CHECKING:
    from rich.progress import Progress

    from nulltta.batch.run import BatchEngineFactory, BatchProgress, ProgressDisplay

SOME_FAILED = 1
"""The exit code if errors.jsonl has rows."""
LINE_EVERY = 30.0
"""Seconds between two lines in a log."""


@run_flags()
def batch(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            show_default=False,
            help="A .jsonl, .csv or .parquet file with a column 'prompt'. Other columns: id, negative_prompt, seed, "
            "and the settings below, as in num_inference_steps.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="The folder for results, or an address such as s3://bucket/results; given again, it is resumed.",
        ),
    ],
    *,
    settings: RunSettings,
    given: dict[str, Any],
    seed: Annotated[int, typer.Option(help="The seed of the initial noise for rows without one.")] = 0,
    negative_prompt: Annotated[str, typer.Option(help="The null text to start from for rows without one.")] = "",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(metavar="local|ray", help="One worker here, or several through Ray.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Ray cluster, as in auto or 10.0.0.1:6379.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of Ray workers (default: one per GPU, else one per machine)", show_default=False, min=1
        ),
    ] = None,
) -> None:
    """Align every row of TABLE: pictures, null texts and scores.parquet in FOLDER, failed rows in its errors.jsonl.

    Finished rows are not sampled again: after a crash, or with more rows, give the same command.
    """  # fmt: skip
    if engine == "local" and (ray_address, workers) != (None, None):
        raise InvalidValue("--ray-address and --workers need --engine ray")
    with quiet():
        from nulltta.batch.run import BatchRequest, local_engine, run

        factory: BatchEngineFactory = local_engine
        if settings.reward_source is not None:
            from nulltta.rewards.expression import with_source

            settings = replace(
                settings, reward=with_source(settings.reward, settings.reward_source), reward_source=None
            )
        if engine == "ray":
            from nulltta.batch.ray_engine import RayEngineFactory

            factory = RayEngineFactory(ray_address, workers)
        request = BatchRequest(
            table=table, out=out, settings=settings, config=given, seed=seed, negative_prompt=negative_prompt,
            engine=factory,
        )  # fmt: skip
        with _meter() as meter:
            standing = run(request, meter)
        _conclude(standing, out)
    raise typer.Exit(INTERRUPTED if standing.interrupted else SOME_FAILED if standing.failed else 0)


class _Bar:
    """A `ProgressDisplay` that shows a bar over the rows; of a batch in this process it shows every step."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=None, said="loading model and rewards")

    def begin(self, standing: BatchProgress) -> None:
        self.bar.reset(self.task, completed=standing.settled)  # the time left is estimated from this run alone
        self.show(standing)

    def advance(self, rows: float) -> None:
        self.bar.advance(self.task, rows)

    def show(self, standing: BatchProgress) -> None:
        self.bar.update(self.task, total=standing.rows, completed=standing.settled, said=_words(standing))


class _Lines:
    """A `ProgressDisplay` that prints a line every `LINE_EVERY` seconds, for a log."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.next = 0.0

    def begin(self, standing: BatchProgress) -> None:
        self.show(standing)

    def advance(self, rows: float) -> None: ...

    def show(self, standing: BatchProgress) -> None:
        if (now := time.monotonic()) >= self.next and standing.settled < standing.rows:
            self.next = now + LINE_EVERY
            self.write(_words(standing))


@contextmanager
def _meter() -> Iterator[ProgressDisplay]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from nulltta.display.progress import print_line

    console = terminal.notes()
    if not console.is_terminal:
        yield _Lines(lambda line: print_line(console, line))
        return
    columns = (
        TextColumn("[bold]aligning[/]"), BarColumn(), TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=3600, transient=True) as bar:
        yield _Bar(bar)


def _words(standing: BatchProgress) -> str:
    """Return the progress in words: "12 of 64 rows are finished, 1 failed; mean reward 0.880 → 0.935"."""
    from nulltta.display.formatting import number

    if not standing.scored:
        return str(standing)
    plain, aligned = standing.plain / standing.scored, standing.aligned / standing.scored
    return f"{standing}; mean reward {number(plain)} → {number(aligned)}"


def _conclude(standing: BatchProgress, out: str) -> None:
    """Print the last line: what is finished and where it is."""
    if standing.interrupted:
        say("interrupted", f"{standing}: the same command continues from there")
        return
    place = out.rstrip("/")
    places = [f"{place}/scores.parquet"] * bool(standing.finished)
    places += [f"reasons in {place}/errors.jsonl"] * bool(standing.failed)
    print(f"{_words(standing)}: {', '.join(places)}")
