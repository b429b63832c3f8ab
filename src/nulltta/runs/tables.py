"""What a run says on the terminal: how far it is, and a table of what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nulltta.contracts import OnStep, Step
from nulltta.evaluation.comparison import Score
from nulltta.runs.figures import number

SHORT = 16  # characters of a name that fits beside the numbers of a line


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
        first, label = 0.0, reward if len(reward) <= SHORT else "reward"

        def on_step(step: Step) -> None:
            nonlocal first
            now = _reward(step)
            first = now if step.index == 0 else first
            done = int(bar.tasks[task].completed) + 1
            batch = f" batch {min(batches, 1 + (done - 1) // steps)}/{batches}" if batches > 1 else ""
            description = "" if math.isnan(now) else f"{label} {number(first)} → {number(now)}"
            bar.update(task, advance=1, description=description, batch=batch)

        try:
            yield on_step
        except BaseException:
            bar.live.transient = True  # leave the terminal to what went wrong
            bar.live.stop()
            bar.disable = True
            raise


def _reward(step: Step) -> float:
    """The mean over the batch of what went on; NaN for a method that scores nothing on its way."""
    if step.candidate_rewards.numel():
        return float(step.selected_rewards.mean())
    return float(step.inner_rewards[-1].nanmean()) if len(step.inner_rewards) else math.nan


def score_tables(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> list[Table]:
    """What came of the prompts; rows: (prompt, scores). Of several, each one's gains stand above the means."""
    if len(rows) == 1:
        return [_means(rows[0][0], [rows[0][1]])]
    return [_gains(rows), _means(f"mean of {len(rows)} prompts", [scores for _, scores in rows])]


def _means(title: str, scores: Sequence[Mapping[str, Score]]) -> Table:
    """A row a measure: plain, aligned, the gain; means over the prompts that it says something about."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(title, "bold"), overflow="fold")
    for heading in ("plain", "aligned", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("role", style="dim", no_wrap=True)
    for name, first in scores[0].items():
        known = [prompt[name] for prompt in scores if not math.isnan(prompt[name].gain)]
        plain, aligned, gain = (
            fmean(values) if values else math.nan
            for values in ([s.plain for s in known], [s.aligned for s in known], [s.gain for s in known])
        )
        label = Text(f"  {name}" if first.role == "component" else name)
        table.add_row(label, number(plain), number(aligned), _signed(gain), first.role)
    return table


def _gains(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """A row a prompt, a column a measure."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text("gain (aligned − plain)", "bold"), overflow="fold", min_width=16)
    for name, score in rows[0][1].items():
        heading = name if len(name) <= SHORT else score.role
        table.add_column(Text(heading), justify="right", overflow="fold", min_width=len("+0.000"))
    for prompt, scores in rows:
        table.add_row(Text(prompt), *(_signed(score.gain) for score in scores.values()))
    return table


def _signed(gain: float) -> Text:
    if math.isnan(gain):
        return Text(number(gain), style="dim")
    return Text(f"+{number(gain)}" if gain > 0 else number(gain), "green" if gain > 0 else "red" if gain < 0 else "")
