"""Show how a run goes: a progress bar on the terminal or in a notebook, and lines of text."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nulltta.contracts import OnStep, Step
from nulltta.display.formatting import SHORT_NAME, number
from nulltta.display.terminal import notes


def progress_bar(console: Console, verb: str, unit: str, *, transient: bool = False) -> Progress:
    """Return a bar whose task's description stands behind its count: "fitting ━━━━ 3/9 updates clip 0.912 0:00:07"."""
    columns = (
        TextColumn(f"[bold]{verb}[/]"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.description}", markup=False, style="cyan"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, transient=transient)


@contextmanager
def progress(console: Console, reward: str, batches: int, steps: int, *, verb: str = "aligning") -> Iterator[OnStep]:
    """Show a progress bar over the steps of all batches; yields the `on_step` to call after each step.

    Beside the bar is the mean reward of the batch's selected clean estimates, at its first step and now.

    Args:
        console: where the bar appears.
        reward: the name of the reward.
        batches: the number of batches.
        steps: the number of steps of each, see `nulltta.alignment.expected_steps`.
        verb: what is done.
    """
    with progress_bar(console, verb, "steps") as bar:
        task, course = bar.add_task("", total=batches * steps), _RewardCourse(reward)

        def on_step(step: Step) -> None:
            done = int(bar.tasks[task].completed) + 1
            batch = f"batch {min(batches, 1 + (done - 1) // steps)}/{batches} " if batches > 1 else ""
            bar.update(task, advance=1, description=f"{batch}{course.after(step)}")

        try:
            yield on_step
        except BaseException:
            bar.live.transient = True  # leave the terminal to the error message
            bar.live.stop()
            bar.disable = True
            raise


def watched(show: bool | None, reward: str, steps: int) -> AbstractContextManager[OnStep]:
    """Show the progress of a run to whoever watches it; gives the `on_step` to call after each step.

    Args:
        show: whether to show it; None for yes in a notebook and where stderr is a terminal.
        reward: the name of the reward.
        steps: how many steps are expected.
    """
    console = notes()
    if show is False or (show is None and not in_notebook() and not console.is_terminal):
        return nullcontext(_nothing)
    return _in_notebook(reward, steps) if in_notebook() else progress(console, reward, 1, steps)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def _in_notebook(reward: str, steps: int) -> Iterator[OnStep]:
    """Show a bar below a notebook's cell."""
    from IPython.display import HTML, display

    course, began, done = _RewardCourse(reward), time.monotonic(), 0

    def shown(description: str, left: str = "") -> Any:
        bar = f'<progress value="{done}" max="{max(steps, done)}" style="width: 20em"></progress>'
        return HTML(f"{bar} {done}/{max(steps, done)} steps {escape(description)} {left}")

    handle: Any = display(shown("aligning"), display_id=True)

    def on_step(step: Step) -> None:
        nonlocal done
        done += 1
        seconds = (time.monotonic() - began) / done * max(0, steps - done)
        handle.update(shown(course.after(step), f"{seconds:.0f} s left"))

    yield on_step


class _RewardCourse:
    """Says how the mean reward of a batch changed since its first step."""

    def __init__(self, reward: str) -> None:
        self._label = reward if len(reward) <= SHORT_NAME else "reward"
        self._first = 0.0

    def after(self, step: Step) -> str:
        """Return "clip 0.812 → 0.907" after a step; nothing if the method scores nothing on its way."""
        now = _reward(step)
        self._first = now if step.index == 0 else self._first
        return "" if math.isnan(now) else f"{self._label} {number(self._first)} → {number(now)}"


def _reward(step: Step) -> float:
    """Return the mean reward of the selected candidates; NaN for a method that scores nothing on its way."""
    if step.candidate_rewards.numel():
        return float(step.selected_rewards.mean())
    return float(step.inner_rewards[-1].nanmean()) if len(step.inner_rewards) else math.nan


def _nothing(step: Step) -> None:
    pass


def print_line(console: Console, line: str) -> None:
    """Print a line of text as it is, without markup, colours or breaks."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
