"""A table of what replay gained over plain sampling, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.comparison import Score
from nulltta.runs.figures import number


def gain_table(samples: Sequence[tuple[str, Mapping[str, Score]]]) -> Table:
    """A row a measure; samples: (prompt, scores). The interval is over seeds where there is one prompt, else over
    prompts, each by the mean of its seeds."""
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
        style = "green" if gain > 0 else "red" if gain < 0 else ""
        means = (number(float(np.mean(values))) for values in (before, after))
        table.add_row(Text(name), *means, Text(f"{gain:+.3f}", style), interval)
    return table


def _units(samples: Sequence[tuple[str, Score]], *, by_prompt: bool) -> list[tuple[float, float]]:
    """Plain and replay of each unit that the interval is over."""
    if not by_prompt:
        return [(score.plain, score.aligned) for _, score in samples]
    groups: dict[str, list[Score]] = {}
    for prompt, score in samples:
        groups.setdefault(prompt, []).append(score)
    return [(float(np.mean([s.plain for s in group])), float(np.mean([s.aligned for s in group])))
            for group in groups.values()]  # fmt: skip
