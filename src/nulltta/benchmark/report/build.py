"""The page of one or several benchmarks, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from nulltta.benchmark.analysis import OURS, PLAIN, Panel, panels
from nulltta.benchmark.contenders import ABLATIONS, CONTENDERS, RIVALS, SWEEPS
from nulltta.benchmark.measures import HELD_OUT, HIGH_FREQUENCY
from nulltta.benchmark.plan import Plan
from nulltta.benchmark.report import figures, words
from nulltta.benchmark.report.document import Block, Grid, Heading, Items, Picture, Text
from nulltta.benchmark.report.gallery import gallery
from nulltta.benchmark.store import BenchmarkFolder, ImageRow
from nulltta.evaluation.bootstrap import Gain

METHOD = (
    "Gains are paired, prompt by prompt from the same noise, in standard deviations (SD) of plain's scores over "
    "prompts; 95% percentile bootstrap over prompts, a prompt's seeds averaged first; not corrected for the number of "
    "comparisons. An evaluation is one branch through the denoiser; one that is differentiated counts twice. Seconds "
    "and hours are of sampling alone: the processor's on a CPU, the clock's on a GPU."
)


@dataclass(frozen=True)
class Study:
    """A folder of rows.

    about: what plan.json tells beside the plan: the request, the date, versions, units.
    """

    store: BenchmarkFolder
    plan: Plan
    about: Mapping[str, Any]
    rows: Sequence[ImageRow]

    @cached_property
    def panels(self) -> list[Panel]:
        return panels(self.plan, self.rows)

    @property
    def trade_off(self) -> tuple[str, str] | None:
        """The two rewards of the sums among the targets."""
        parts = self.about.get("request", {}).get("trade_off") or ()
        return (str(parts[0]), str(parts[1])) if parts else None

    def is_sum(self, panel: Panel) -> bool:
        return self.trade_off is not None and panel.target not in self.about["request"]["targets"]

    def held_out(self, panel: Panel) -> str:
        """The measure to set against the target: `clip-b`, or the first that is no part of it."""
        others = [name for name in panel.measures if name not in panel.target and name != HIGH_FREQUENCY]
        return HELD_OUT if HELD_OUT in panel.measures else (others or [panel.target])[0]


def blocks(studies: Sequence[Study]) -> list[Block]:
    """The whole page: what came of it, then the evidence, then how it was done."""
    page: list[Block] = [Heading("Null-TTA against its rivals at equal cost", 1), *_conclusions(studies)]
    for number, study in enumerate(studies):
        for target, group in groupby(study.panels, key=lambda panel: panel.target):
            shown = [panel for panel in group if not study.is_sum(panel)]
            if shown:
                page += [Heading(f"Target {target}"), *_target(study, shown, f"{number}-{_slug(study, target)}")]
        page += _trade_off(study, number)
    return [*page, Heading("How it was done"), *(block for study in studies for block in _protocol(study))]


def _conclusions(studies: Sequence[Study]) -> Iterator[Block]:
    for study in studies:
        for panel in study.panels:
            if not study.is_sum(panel) and (said := words.conclusion(panel, study.held_out(panel))):
                yield Items(said)


def _target(study: Study, shown: Sequence[Panel], slug: str) -> Iterator[Block]:
    """Plots over all budgets, and the tables and the gallery of each."""
    held_out = study.held_out(shown[0])
    yield Picture(
        f"pareto-{slug}", figures.pareto(shown, held_out),
        f"Gain in the target against gain in {held_out}: up and to the right is better. 95% intervals.",
    )  # fmt: skip
    yield Picture(f"cost-{slug}", figures.against_cost(shown), "The target's gain against what was spent on it.")
    for i, panel in enumerate(shown):
        yield Heading(panel.budget or "No budget", 3)
        yield table(panel, [name for name in panel.results if name in RIVALS], held_out)
        for label, group in (("Ablations", ABLATIONS), ("Sweeps", SWEEPS)):
            if names := [name for name in panel.results if name in group]:
                yield Heading(f"{label} at {panel.budget}", 4)
                yield Items([f"{name}: {CONTENDERS[name].about}" for name in names])
                over = OURS if OURS in panel.results else PLAIN
                yield table(panel, [over, *names], held_out, over)
                yield Picture(
                    f"{label.lower()}-{slug}-{i}", figures.bars(panel, names, [panel.target, held_out], over),
                    f"{label}: against {over}, 95% intervals.",
                )  # fmt: skip
        names = [name for name in panel.results if name in RIVALS]
        if (found := gallery(study.store, study.plan, panel, names)) is not None:
            png, prompts = found
            rows = "; ".join(study.plan.prompts[prompt] for prompt in prompts)
            caption = f"The first prompts, seed {study.plan.seeds[0]}, unselected: {rows}."
            yield Picture(f"gallery-{slug}-{i}", png, caption)


def table(panel: Panel, names: Sequence[str], held_out: str, over: str = PLAIN) -> Grid:
    """A row a contender: what it spent, its mean target, gains over another, plain sampling or what was ablated, in
    every measure."""
    measures = list(dict.fromkeys([panel.target, held_out, *panel.measures]))
    header = [f"Δ to {over}", "evaluations", "seconds", f"{panel.target} (mean)", *(f"Δ {name}" for name in measures)]
    rows = []
    for name in names:
        result = panel.results[name]
        cells = [name, f"{result.cost:.0f}", f"{result.seconds:.1f}", f"{result.mean(panel.target):.4f}"]
        gains = (None if name == over else panel.gain(name, measure, over) for measure in measures)
        rows.append([*cells, *(cell(gain) for gain in gains)])
    return Grid(header, rows)


def cell(gain: Gain | None) -> str:
    """ "+1.03 (+0.73 to +1.39)", in SD of plain; in the measure's own unit where plain does not vary."""
    return "–" if gain is None else words.in_sd(gain).replace(" SD", "")


def _trade_off(study: Study, number: int) -> list[Block]:
    sums = [panel for panel in study.panels if study.is_sum(panel)]
    if study.trade_off is None or not sums:
        return []
    first, second = study.trade_off
    page: list[Block] = [Heading(f"Trade-off of {first} and {second}")]
    for i, (budget, group) in enumerate(groupby(sorted(sums, key=lambda p: p.budget), key=lambda p: p.budget)):
        caption = f"{budget}: from all weight on {second} to all weight on {first}."
        shown = sorted(group, key=lambda panel: study.plan.targets.index(panel.target))
        page.append(Picture(f"trade-off-{number}-{i}", figures.trade_off(shown, (first, second)), caption))
    return page


def _protocol(study: Study) -> Iterator[Block]:
    plan, request = study.plan, study.about.get("request", {})
    done = len(study.rows)
    state = "complete" if done >= plan.images else f"{done} of {plan.images} images so far"
    spent = sum(row.seconds for row in study.rows) / 3600
    yield Text(
        f"Model {plan.model}; {len(plan.prompts)} prompts, seeds {', '.join(map(str, plan.seeds))}, {len(plan.arms)} "
        f"arms, {state}; {study.about.get('date')}; {spent:.2f} hours of sampling. {METHOD}"
    )
    yield Text(
        "Units (SD of plain samples of the tuning prompts): "
        + ", ".join(f"{name} {unit:g}" for name, unit in study.about.get("units", {}).items())
        + ". Versions: "
        + ", ".join(f"{name} {version}" for name, version in study.about.get("versions", {}).items())
        + "."
    )
    settings = request.get("settings", {})
    yield Grid(
        ["contender", "what it is", "settings, in those units"],
        [
            [name, contender.about, ", ".join(f"{k} {v}" for k, v in settings.get(name, {}).items()) or "–"]
            for name, contender in RIVALS.items()
        ],
        words=True,
    )


def _slug(study: Study, target: str) -> str:
    return str(study.plan.targets.index(target))
