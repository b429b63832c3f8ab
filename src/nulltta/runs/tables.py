"""Tables of scores for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nulltta.display.formatting import SHORT_NAME, number, sign, signed
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.comparison import Score
from nulltta.evaluation.diagnosis import Diagnosis
from nulltta.evaluation.verdict import MeasureFinding


def score_tables(
    rows: Sequence[tuple[str, Mapping[str, Score]]], unit: str = "prompts", *, is_plain: bool = False
) -> list[Table]:
    """Return the tables of an aligned run, from the scores of each picture: for several, their gains and the means.

    Args:
        rows: the title and the scores of each picture.
        unit: what the pictures are of, in the plural.
        is_plain: whether the pictures were sampled plainly, so that there is no gain.
    """
    if len(rows) == 1:
        return [_means(rows[0][0], [rows[0][1]], is_plain=is_plain)]
    means = _means(f"mean of {len(rows)} {unit}", [scores for _, scores in rows], is_plain=is_plain)
    return [means] if is_plain else [_gains(rows), means]


def _means(title: str, scores: Sequence[Mapping[str, Score]], *, is_plain: bool) -> Table:
    """Return a table with a row per measure: means over the prompts for which it is defined."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(title, "bold"), overflow="fold")
    for heading in ("plain",) if is_plain else ("plain", "aligned", "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("" if is_plain else "role", style="dim", no_wrap=True)
    for name, first in scores[0].items():
        known = [prompt[name] for prompt in scores if not math.isnan(prompt[name].gain)]
        plain, aligned, gain = (
            fmean(values) if values else math.nan
            for values in ([s.plain for s in known], [s.aligned for s in known], [s.gain for s in known])
        )
        label = Text(f"  {name}" if first.role == "component" else name)
        values = (number(plain),) if is_plain else (number(plain), number(aligned), _gain(gain))
        table.add_row(label, *values, "" if is_plain else first.role)
    return table


def _gains(rows: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """Return a table of gains with a row per prompt and a column per measure."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text("gain (aligned − plain)", "bold"), overflow="fold", min_width=16)
    for name, score in rows[0][1].items():
        heading = name if len(name) <= SHORT_NAME else score.role
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
            interval = f"{signed(found.low)} to {signed(found.high)}"
        means = (number(float(np.mean(values))) for values in (before, after))
        table.add_row(Text(name), *means, _gain(gain), interval)
    return table


def diagnosis_section(diagnosis: Diagnosis) -> list[RenderableType]:
    """Return the diagnosis of a run: a table of its measures, how robust the gain is, and the verdict."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(f"is it hacked? {diagnosis.pictures} pictures", "bold"), overflow="fold")
    for heading in ("gain", f"95% interval over {diagnosis.unit}", "rose and fell together"):
        table.add_column(heading, justify="right")
    table.add_column("role", style="dim", no_wrap=True)
    for row in diagnosis_rows(diagnosis):
        table.add_row(*map(Text, row))
    verdict = diagnosis.verdict
    lines = [diagnosis_robustness(diagnosis), verdict.sentence]
    lines += [f"  because {reason}" for reason in verdict.reasons] if verdict.kind != "sound" else []
    return [table, *map(Text, filter(None, [*lines, *(f"  to do: {each}" for each in verdict.advice)])), Text()]


def diagnosis_rows(diagnosis: Diagnosis) -> list[tuple[str, str, str, str, str]]:
    """Return a row per measure: its name, gain, interval, share of joint rises and falls, and role."""
    texture = MeasureFinding("high frequencies", "held out", diagnosis.texture, math.nan)
    rows: list[tuple[str, str, str, str, str]] = []
    for each in (*diagnosis.measures, texture):
        gain = each.gain
        shown = ("–", "–") if gain is None else (signed(gain.mean), f"{signed(gain.low)} to {signed(gain.high)}")
        joint = "" if each.role == "target" or math.isnan(each.joint_fall) else f"{each.joint_fall:.0%}"
        rows.append((each.name, *shown, joint, each.role if each is not texture else "texture"))
    return rows


def diagnosis_robustness(diagnosis: Diagnosis) -> str:
    """Say how much of the gain withstands small changes, and how diverse the pictures of a prompt are."""
    parts = [f"{each.share:.0%} after {each.perturbation}" for each in diagnosis.survival]
    said = [f"of the gain is left: {', '.join(parts)}"] if parts else []
    if diagnosis.diversity is not None:
        before, after = diagnosis.diversity
        said.append(f"different pictures per prompt (Vendi score): {before:.2f} plain, {after:.2f} aligned")
    return "; ".join(said)


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
