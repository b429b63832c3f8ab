"""What a report says, section by section: the templates turn it into HTML and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from nulltta.benchmark.analysis import OURS, PLAIN, Panel, panels
from nulltta.benchmark.contenders import ABLATIONS, CONTENDERS, RIVALS, SWEEPS
from nulltta.benchmark.difficulty import thirds
from nulltta.benchmark.family import ComparisonFamily
from nulltta.benchmark.measures import ALL_RIGHT, HIGH_FREQUENCY
from nulltta.benchmark.plan import Plan
from nulltta.benchmark.report import figures, hacking, words
from nulltta.benchmark.report.gallery import gallery
from nulltta.benchmark.store import BenchmarkFolder, ImageRow
from nulltta.benchmark.tuned import parsed_settings
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue

METHOD = (
    "Gains are paired, prompt by prompt from the same noise, in standard deviations (SD) of plain's scores over "
    "prompts; every prompt has a noise of its own in each draw. Intervals are 95% percentile bootstrap intervals over "
    "prompts, with the draws of a prompt averaged first, and are not corrected for the number of comparisons. "
    "Contenders are compared over the prompts and draws that both have; the unit is the SD of all of plain's images, "
    "and means and shares are plain's plus the difference where both have images. What the sentences call ahead or "
    "behind, and the tables mark with a star, has a p-value below 0.05 in a paired permutation test of signs, "
    "corrected by Holm's method over all comparisons of the report. An evaluation is one branch through the denoiser; "
    "one that is differentiated counts twice. Seconds and hours are of sampling alone, as processor time on a CPU and "
    "as wall time on a GPU."
)


@dataclass(frozen=True)
class Study:
    """A benchmark that is reported on.

    Attributes:
        folder: where its pictures are.
        plan: what it samples.
        about: what plan.json holds beside the plan: the request, the date, versions, units.
        rows: what was sampled so far.
    """

    folder: BenchmarkFolder
    plan: Plan
    about: Mapping[str, Any]
    rows: Sequence[ImageRow]

    @cached_property
    def panels(self) -> list[Panel]:
        """One panel per target and budget."""
        return panels(self.plan, self.rows)

    @property
    def trade_off(self) -> tuple[str, str] | None:
        """The two rewards whose sums are among the targets."""
        parts = self.about.get("request", {}).get("trade_off") or ()
        return (str(parts[0]), str(parts[1])) if parts else None

    def is_sum(self, panel: Panel) -> bool:
        """Say whether a panel's target is a sum of the trade-off."""
        return self.trade_off is not None and panel.target not in self.about["request"]["targets"]

    def held_out(self, panel: Panel) -> str:
        """Return the measure to set against the target: the first held-out scorer of the model's world, or the first
        measure that is not part of the target."""
        world = WORLDS.get(self.plan.model)
        held_out = [name for name in (world.held_out if world else ()) if name in panel.measures]
        others = [name for name in panel.measures if name not in panel.target and name != HIGH_FREQUENCY]
        return (held_out or others or [panel.target])[0]

    @property
    def groups(self) -> dict[str, list[int]]:
        """The numbers of the prompts in each third, by how often plain sampling gets them right, and of each kind."""
        world, rates = WORLDS.get(self.plan.model), self.about.get("plain rates")
        found: dict[str, list[int]] = {}
        if rates is not None:
            found |= zip(("hardest third", "middle third", "easiest third"), thirds(rates), strict=True)
        if world is not None:
            for number, prompt in enumerate(self.plan.prompts):
                with suppress(InvalidValue):
                    found.setdefault(world.kind(prompt), []).append(number)
        return found


@dataclass(frozen=True)
class ReportFigure:
    """A PNG with its caption; `name` is that of its file beside a Markdown page, without the suffix."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class ReportTable:
    """A table of cells; the first column holds names."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class VariantSection:
    """Ablations or sweeps at one budget, with what each is."""

    title: str
    variants: Mapping[str, str]
    table: ReportTable
    figure: ReportFigure


@dataclass(frozen=True)
class BudgetSection:
    """The rivals at one budget, whether they hack the target, the variants of Null-TTA, and pictures."""

    title: str
    table: ReportTable
    groups: ReportTable | None
    hacking: ReportTable | None
    variants: Sequence[VariantSection]
    gallery: ReportFigure | None


@dataclass(frozen=True)
class TargetSection:
    """One target at all budgets; a trade-off has figures only."""

    title: str
    figures: Sequence[ReportFigure]
    budgets: Sequence[BudgetSection] = ()


@dataclass(frozen=True)
class Protocol:
    """How one benchmark was done, and the contenders with their settings."""

    paragraphs: Sequence[str]
    contenders: ReportTable


@dataclass(frozen=True)
class Report:
    """A whole report: the conclusions (one list per target and budget), the evidence, how it was done, and a note of
    whoever had it written."""

    conclusions: Sequence[Sequence[str]]
    targets: Sequence[TargetSection]
    protocols: Sequence[Protocol]
    note: str = ""
    title: str = "Null-TTA against its rivals at equal cost"

    @property
    def figures(self) -> Iterator[ReportFigure]:
        """All figures in order."""
        for target in self.targets:
            yield from target.figures
            for budget in target.budgets:
                yield from (variant.figure for variant in budget.variants)
                if budget.gallery is not None:
                    yield budget.gallery


def report_of(studies: Sequence[Study], note: str = "") -> Report:
    """Write the report of one or several benchmarks, with a note at its head."""
    family = ComparisonFamily([panel for study in studies for panel in study.panels if not study.is_sum(panel)])
    return Report(
        conclusions=[
            said
            for study in studies
            for panel in study.panels
            if not study.is_sum(panel) and (said := words.conclusion(panel, study.held_out(panel), family))
        ],
        targets=[section for number, study in enumerate(studies) for section in _targets(study, number, family)],
        protocols=[_protocol(study) for study in studies],
        note=note,
    )


def _targets(study: Study, number: int, family: ComparisonFamily) -> Iterator[TargetSection]:
    """Return the sections of a benchmark, the trade-off last; `number` tells its figures from other benchmarks'."""
    for target, group in groupby(study.panels, key=lambda panel: panel.target):
        if shown := [panel for panel in group if not study.is_sum(panel)]:
            slug = f"{number}-{study.plan.targets.index(target)}"
            held_out = study.held_out(shown[0])
            plots = [
                ReportFigure(
                    f"pareto-{slug}", figures.pareto(shown, held_out),
                    f"Gain in the target against gain in {held_out}: up and to the right is better. 95% intervals.",
                ),
                ReportFigure(f"cost-{slug}", figures.against_cost(shown), "The target's gain against its cost."),
            ]  # fmt: skip
            if ALL_RIGHT in shown[0].measures:
                caption = "Gain in the target against gain in the share of images with everything right. 95% intervals."
                plots.append(ReportFigure(f"all-right-{slug}", figures.pareto(shown, ALL_RIGHT), caption))
            budgets = [_budget(study, panel, held_out, f"{slug}-{i}", family) for i, panel in enumerate(shown)]
            yield TargetSection(f"Target {target}", plots, budgets)
    if plots := list(_trade_off(study, number)):
        yield TargetSection("Trade-off of {} and {}".format(*study.trade_off or ()), plots)


def _budget(study: Study, panel: Panel, held_out: str, slug: str, family: ComparisonFamily) -> BudgetSection:
    """Return the section of one target at one budget."""
    rivals = [name for name in panel.results if name in RIVALS]
    over = OURS if OURS in panel.results else PLAIN
    variants = []
    for label, group in (("Ablations", ABLATIONS), ("Sweeps", SWEEPS)):
        if names := [name for name in panel.results if name in group]:
            bars = figures.bars(panel, names, [panel.target, held_out], over)
            plot = ReportFigure(f"{label.lower()}-{slug}", bars, f"{label}: against {over}, 95% intervals.")
            abouts = {name: CONTENDERS[name].about for name in names}
            shown = table(panel, [over, *names], held_out, family, over)
            variants.append(VariantSection(f"{label} at {panel.budget}", abouts, shown, plot))
    return BudgetSection(
        panel.budget or "No budget", table(panel, rivals, held_out, family), _groups(study, panel),
        _hacking(panel, rivals), variants,
        _gallery(study, panel, rivals, slug),
    )  # fmt: skip


def _groups(study: Study, panel: Panel) -> ReportTable | None:
    """Make a table with the percentage of images with everything right, in all and by groups of prompts."""
    if ALL_RIGHT not in panel.measures or not (groups := study.groups):
        return None
    rows = []
    for name in panel.results:
        shares = [panel.level(name, ALL_RIGHT, group) for group in (None, *groups.values())]
        rows.append([name, *("–" if math.isnan(share) else f"{100 * share:.1f}" for share in shares)])
    sizes = (f"{group} ({len(numbers)})" for group, numbers in groups.items())
    return ReportTable(["everything right, %", "all", *sizes], rows)


def _hacking(panel: Panel, names: Sequence[str]) -> ReportTable | None:
    """Make a table with the verdict on each contender and its reasons; None with too few prompts for any."""
    found = hacking.verdicts(panel, [name for name in names if name != PLAIN])
    rows = [[name, said.kind, "; ".join(said.reasons)] for name, said in found.items()]
    return ReportTable(["is the reward hacked?", "verdict", "because"], rows) if rows else None


def _gallery(study: Study, panel: Panel, names: Sequence[str], slug: str) -> ReportFigure | None:
    """Return the pictures of the first prompts, where they were kept."""
    if (found := gallery(study.folder, study.plan, panel, names)) is None:
        return None
    png, prompts = found
    rows = "; ".join(study.plan.prompts[prompt] for prompt in prompts)
    caption = f"The first prompts that were sampled, seed {study.plan.seeds[0]}, unselected: {rows}."
    return ReportFigure(f"gallery-{slug}", png, caption)


def table(
    panel: Panel, names: Sequence[str], held_out: str, family: ComparisonFamily, over: str = PLAIN
) -> ReportTable:
    """Make a table with one row per contender: its images and what they cost, its nats, its mean target, and its gain
    over another one in every measure, in standard deviations of plain sampling, with a star where it stands the
    correction."""
    measures = list(dict.fromkeys([panel.target, held_out, *panel.measures]))
    costs = ["images", "evaluations", "seconds", "nats"]
    header = [f"Δ to {over}", *costs, f"{panel.target} (mean)", *(f"Δ {name}" for name in measures)]
    rows = []
    for name in names:
        result = panel.results[name]
        seconds = "–" if math.isnan(result.seconds) else f"{result.seconds:.1f}"
        spent = [str(len(result.rows)), f"{result.cost:.0f}", seconds, f"{result.nats:.1f}"]
        gains = (_gain_cell(panel, name, measure, family, over) for measure in measures)
        rows.append([name, *spent, f"{panel.level(name, panel.target):.4f}", *gains])
    return ReportTable(header, rows)


def _gain_cell(panel: Panel, name: str, measure: str, family: ComparisonFamily, over: str) -> str:
    gain = None if name == over else panel.gain(name, measure, over)
    if gain is None:
        return "–"
    star = "" if family.verdict(panel, name, measure, over) == "tie" else "*"
    return words.in_sd(gain).replace(" SD", "") + star


def _trade_off(study: Study, number: int) -> Iterator[ReportFigure]:
    """Return one figure per budget of what is reached in both rewards."""
    if study.trade_off is None:
        return
    first, second = study.trade_off
    sums = sorted((panel for panel in study.panels if study.is_sum(panel)), key=lambda panel: panel.budget)
    for i, (budget, group) in enumerate(groupby(sums, key=lambda panel: panel.budget)):
        shown = sorted(group, key=lambda panel: study.plan.targets.index(panel.target))
        caption = f"{budget}: from all weight on {second} to all weight on {first}."
        yield ReportFigure(f"trade-off-{number}-{i}", figures.trade_off(shown, (first, second)), caption)


def _protocol(study: Study) -> Protocol:
    """Return how a benchmark was done."""
    plan, done = study.plan, len(study.rows)
    state = "complete" if done >= plan.images else f"{done} of {plan.images} images so far"
    timed = [row.seconds for row in study.rows if row.seconds is not None]
    of = "" if len(timed) == done else f" of the {len(timed)} images that were timed"
    hours = sum(timed) / 3600
    how = (
        f"Model {plan.model}; {len(plan.prompts)} prompts, {len(plan.seeds)} draws of noise, {len(plan.arms)} "
        f"arms, {state}; {study.about.get('date')}; {hours:.2f} hours of sampling{of}. {METHOD}"
    )
    units = ", ".join(f"{name} {unit:g}" for name, unit in study.about.get("units", {}).items())
    versions = ", ".join(f"{name} {version}" for name, version in study.about.get("versions", {}).items())
    tuned = parsed_settings(study.about.get("request", {}).get("settings", ()))
    rows = [
        [name, contender.about, *(_listed(each.settings.get(name, {})) for each in tuned)]
        for name, contender in RIVALS.items()
    ]
    header = ["contender", "what it is", *(f"settings for {each.target}, {each.budget} evaluations" for each in tuned)]
    scales = f"Units (SD of plain samples of the tuning prompts): {units}. Versions: {versions}."
    nearest = (
        "A contender takes the settings of its target and of the nearest budget, in those units; one without settings "
        "takes its defaults, which are the published ones where there are any."
    )
    return Protocol([how, scales, nearest], ReportTable(header, rows))


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "–"
