"""What a run says on the terminal: how far it is, and a table of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nulltta.cli.comparison import Score
from nulltta.cli.report import number
from nulltta.types import OnStep, Step


@contextmanager
def progress(console: Console, reward: str, batches: int, steps: int) -> Iterator[OnStep]:
    """A bar over all denoising steps of all batches; yields what is to be called after each of them.

    Beside it stands the reward of the clean estimates that went on, the mean of the batch: at its first step, and now.
    """
    columns = (
        TextColumn("[bold]aligning[/]{task.fields[batch]}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TextColumn("{task.description}", markup=False, style="cyan"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=batches * steps, batch="")
        first = 0.0

        def on_step(step: Step) -> None:
            nonlocal first
            now = float(step.candidate_rewards.gather(1, step.selected[:, None].cpu()).mean())
            first = now if step.index == 0 else first
            done = int(bar.tasks[task].completed) + 1
            batch = f" batch {1 + (done - 1) // steps}/{batches}" if batches > 1 else ""
            bar.update(task, advance=1, description=f"{reward} {number(first)} → {number(now)}", batch=batch)

        try:
            yield on_step
        except BaseException:
            bar.live.transient = True  # leave the terminal to what went wrong
            bar.live.stop()
            bar.disable = True
            raise


def score_table(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """A row a prompt, plain → aligned in each measure, and the means of several; rows: (prompt, scores)."""
    table = Table(box=SIMPLE_HEAD, show_footer=len(rows) > 1, pad_edge=False)
    table.add_column("plain → aligned", footer="mean", overflow="fold", min_width=16)
    for name in rows[0][1]:
        table.add_column(Text(name), footer=_arrow(_mean([scores[name] for _, scores in rows])))
    for prompt, scores in rows:
        table.add_row(Text(prompt), *map(_arrow, scores.values()))
    return table


def _arrow(score: Score | None) -> Text:
    if score is None or score.plain != score.plain:
        return Text("–", style="dim")
    style = "green" if score.gain > 0 else "red" if score.gain < 0 else ""
    return Text.assemble(f"{number(score.plain)} → ", (number(score.aligned), style))


def _mean(scores: Sequence[Score]) -> Score | None:
    """Over the prompts that the measure says something about."""
    known = [score for score in scores if score.gain == score.gain]
    if not known:
        return None
    return Score(fmean(score.plain for score in known), fmean(score.aligned for score in known))
