"""What a run prints on the terminal: its progress, and tables of scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nulltta.contracts import OnStep, Step
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.comparison import Score
from nulltta.runs.formatting import number, sign, signed

SHORT = 16
"""The number of characters in a name that fits beside the numbers of a line."""


@contextmanager
def progress(console: Console, reward: str, batches: int, steps: int) -> Iterator[OnStep]:
    """Show a progress bar over the denoising steps of all batches; yields the `on_step` to call after each step.

    Beside the bar is the mean reward of the batch's selected clean estimates, at its first step and now.
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
            bar.live.transient = True  # leave the terminal to the error message
            bar.live.stop()
            bar.disable = True
            raise


def _reward(step: Step) -> float:
    """Return the mean reward of the selected candidates; NaN for a method that scores nothing on its way."""
    if step.candidate_rewards.numel():
        return float(step.selected_rewards.mean())
    return float(step.inner_rewards[-1].nanmean()) if len(step.inner_rewards) else math.nan


def score_tables(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> list[Table]:
    """Return the tables of an aligned run, from the scores of each prompt: for several, their gains and the means."""
    if len(rows) == 1:
        return [_means(rows[0][0], [rows[0][1]])]
    return [_gains(rows), _means(f"mean of {len(rows)} prompts", [scores for _, scores in rows])]


def _means(title: str, scores: Sequence[Mapping[str, Score]]) -> Table:
    """Return a table with a row per measure: means over the prompts for which it is defined."""
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
        table.add_row(label, number(plain), number(aligned), _gain(gain), first.role)
    return table


def _gains(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """Return a table of gains with a row per prompt and a column per measure."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text("gain (aligned − plain)", "bold"), overflow="fold", min_width=16)
    for name, score in rows[0][1].items():
        heading = name if len(name) <= SHORT else score.role
        table.add_column(Text(heading), justify="right", overflow="fold", min_width=len("+0.000"))
    for prompt, scores in rows:
        table.add_row(Text(prompt), *(_gain(score.gain) for score in scores.values()))
    return table


def gain_table(samples: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """Return a table of what replay gained over plain sampling, one row per measure.

    Args:
        samples: the prompt and the scores of each picture. The 95% interval is over seeds if there is one prompt,
            else over the means of the prompts.
    """
    prompts = list(dict.fromkeys(prompt for prompt, _ in samples))
    unit = "seeds" if len(prompts) == 1 else "prompts"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(f"mean of {len(samples)} pictures", "bold"), overflow="fold")
    for heading in ("plain", "replay", "gain", f"95% interval over {unit}"):
        table.add_column(heading, justify="right")
    for name in samples[0][1]:
        known = [(prompt, scores[name]) for prompt, scores in samples if not math.isnan(scores[name].gain)]
        units = _units(known, by_prompt=len(prompts) > 1)
        if not units:
            table.add_row(Text(name), "–", "–", "–", "–")
            continue
        before, after = zip(*units, strict=True)
        gain, interval = float(np.mean(after) - np.mean(before)), "–"
        if len(units) > 1:
            found = paired_gain(before, after, np.random.default_rng(0))
            interval = f"{found.low:+.3f} to {found.high:+.3f}"
        means = (number(float(np.mean(values))) for values in (before, after))
        table.add_row(Text(name), *means, _gain(gain), interval)
    return table


def _units(samples: Sequence[tuple[str, Score]], *, by_prompt: bool) -> list[tuple[float, float]]:
    """Return the plain and the replayed score of each unit that the interval is over."""
    if not by_prompt:
        return [(score.plain, score.aligned) for _, score in samples]
    groups: dict[str, list[Score]] = {}
    for prompt, score in samples:
        groups.setdefault(prompt, []).append(score)
    return [(float(np.mean([s.plain for s in group])), float(np.mean([s.aligned for s in group])))
            for group in groups.values()]  # fmt: skip


def _gain(gain: float) -> Text:
    """Return a gain in green, a loss in red, and NaN dimmed."""
    return Text(signed(gain), "dim" if math.isnan(gain) else ("", "green", "red")[sign(gain)])
