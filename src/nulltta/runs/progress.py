"""Show on the terminal how a run goes: a progress bar, and lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nulltta.contracts import OnStep, Step
from nulltta.runs.formatting import SHORT_NAME, number


@contextmanager
def progress(console: Console, reward: str, batches: int, steps: int) -> Iterator[OnStep]:
    """Show a progress bar over the steps of all batches; yields the `on_step` to call after each step.

    Args:
        console: where the bar appears.
        reward: the name of the reward.
        batches: the number of batches.
        steps: the number of steps of each, see `nulltta.alignment.expected_steps`.

    Beside the bar is the mean reward of the batch's selected clean estimates, at its first step and now.
    """
    columns = (
        TextColumn("[bold]aligning[/]{task.fields[batch]}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TextColumn("{task.description}", markup=False, style="cyan"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=batches * steps, batch="")
        first, label = 0.0, reward if len(reward) <= SHORT_NAME else "reward"

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
            bar.live.transient = True  # leave the terminal to the error message
            bar.live.stop()
            bar.disable = True
            raise


def _reward(step: Step) -> float:
    """Return the mean reward of the selected candidates; NaN for a method that scores nothing on its way."""
    if step.candidate_rewards.numel():
        return float(step.selected_rewards.mean())
    return float(step.inner_rewards[-1].nanmean()) if len(step.inner_rewards) else math.nan


def print_line(console: Console, line: str) -> None:
    """Print a line of text as it is, without markup, colours or breaks."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
