"""`nulltta batch`: its flags, how far it is, its last line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nulltta.cli import flags
from nulltta.cli.flags import config_flags
from nulltta.cli.messages import INTERRUPTED, quiet, say
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.runs.request import RunSettings

if TYPE_CHECKING:
    from rich.progress import Progress

    from nulltta.batch.run import BatchEngineFactory, BatchProgress, ProgressDisplay

SOME_FAILED = 1  # the exit code where rows are in errors.jsonl
LINE_EVERY = 30.0  # seconds between two lines in a log


@config_flags
def batch(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            show_default=False,
            help="A .jsonl, .csv or .parquet file with a column 'prompt'; others: "
            "id, negative_prompt, seed, and the settings below, as in num_inference_steps.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", show_default=False, help="Where results go; the same one goes on where it was."),
    ],
    reward: Annotated[str, flags.REWARD] = "clip",
    reward_source: Annotated[str | None, flags.REWARD_SOURCE] = None,
    model: Annotated[str, flags.MODEL] = "embedded",
    seed: Annotated[int, typer.Option(help="Of the noise, for rows without one.")] = 0,
    negative_prompt: Annotated[str, typer.Option(help="The null text to start from, for rows without one.")] = "",
    guard: Annotated[str | None, flags.GUARD] = None,
    batch_size: Annotated[int, typer.Option(help="Rows at a time; results do not depend on it.")] = 8,
    micro_batch: Annotated[int | None, flags.MICRO_BATCH] = None,
    method: Annotated[str, flags.METHOD] = "null-tta",
    tiny_decoder: Annotated[str | None, flags.TINY_DECODER] = None,
    compiled: Annotated[bool, flags.COMPILE] = False,
    device: Annotated[str | None, flags.DEVICE] = None,
    dtype: Annotated[flags.Dtype | None, flags.DTYPE] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(metavar="local|ray", help="One worker here, or many through Ray.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a running cluster, as in auto or 10.0.0.1:6379.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Of Ray (default: one a GPU, else one a machine).", show_default=False, min=1)
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Align every row of TABLE: pictures, null texts and scores.parquet in FOLDER, bad rows in its errors.jsonl.

    A row that is done is not done again: after a crash, or with more rows, give the same command.
    """  # fmt: skip
    if engine == "local" and (ray_address, workers) != (None, None):
        raise InvalidValue("--ray-address and --workers go with --engine ray")
    shared = RunSettings(
        config=NullTTAConfig.preset(model, **settings), model=model, reward=reward, guard=guard, batch_size=batch_size,
        micro_batch=micro_batch, method=method, tiny_decoder=tiny_decoder, compile=compiled, device=device, dtype=dtype,
    )  # fmt: skip
    with quiet():
        from nulltta.batch.run import BatchRequest, local_engine, run

        factory: BatchEngineFactory = local_engine
        if reward_source is not None:
            from nulltta.rewards.expression import with_source

            shared = replace(shared, reward=with_source(reward, reward_source))
        if engine == "ray":
            from nulltta.batch.ray_engine import RayEngineFactory

            factory = RayEngineFactory(ray_address, workers)
        with _meter() as meter:
            standing = run(
                BatchRequest(
                    table=table, out=out, settings=shared, config=settings, seed=seed, negative_prompt=negative_prompt,
                    engine=factory,
                ),
                meter,
            )  # fmt: skip
        _conclude(standing, out)
    raise typer.Exit(INTERRUPTED if standing.interrupted else SOME_FAILED if standing.failures else 0)


class _Bar:
    """A `ProgressDisplay`: a bar over the rows, which also moves within a batch where its steps are seen."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=None, said="loading model and rewards")

    def begin(self, standing: BatchProgress) -> None:
        self.bar.reset(self.task, completed=standing.settled)  # so that the time left goes by this run's speed alone
        self.show(standing)

    def advance(self, rows: float) -> None:
        self.bar.advance(self.task, rows)

    def show(self, standing: BatchProgress) -> None:
        self.bar.update(self.task, total=standing.rows, completed=standing.settled, said=_words(standing))


class _Lines:
    """A `ProgressDisplay` for a log: a line now and then."""

    def __init__(self) -> None:
        self.next = 0.0

    def begin(self, standing: BatchProgress) -> None:
        self.show(standing)

    def advance(self, rows: float) -> None: ...

    def show(self, standing: BatchProgress) -> None:
        if (now := time.monotonic()) >= self.next and standing.settled < standing.rows:
            self.next = now + LINE_EVERY
            print(_words(standing), file=sys.stderr)


@contextmanager
def _meter() -> Iterator[ProgressDisplay]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("[bold]aligning[/]"), BarColumn(), TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=3600, transient=True) as bar:
        yield _Bar(bar)


def _words(standing: BatchProgress) -> str:
    """ "12 of 64 rows are finished, 1 failed; mean reward 0.880 → 0.935"."""
    from nulltta.runs.figures import number

    rows = [record["scores"] for record in standing.finished.values()]
    scores = [pair for row in rows if None not in (pair := (row["reward.plain"], row["reward.aligned"]))]
    if not scores:
        return str(standing)
    plain, aligned = map(fmean, zip(*scores, strict=True))
    return f"{standing}; mean reward {number(plain)} → {number(aligned)}"


def _conclude(standing: BatchProgress, out: Path) -> None:
    """The last line: what is done and where it is."""
    if standing.interrupted:
        say("interrupted", f"{standing}: the same command continues from there")
        return
    places = [str(out / "scores.parquet")] * bool(standing.finished)
    places += [f"reasons in {out / 'errors.jsonl'}"] * bool(standing.failures)
    print(f"{_words(standing)}: {', '.join(places)}")
