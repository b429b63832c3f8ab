"""The published experiments (Null-TTA, arXiv 2511.20889) with the real rewards, and the published numbers beside ours.

The caller gives the prompts; the paper used 50 in the style of COCO captions. Numbers that are not published, or not
known to us, are left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nulltta.algorithm.budget import spent
from nulltta.benchmark.analysis import Panel
from nulltta.benchmark.plan import Arm, Plan
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.rewards.catalogue import catalogue

SD15, SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
MEASURES = ("pickscore", "hpsv2", "aesthetic", "imagereward")
SEEDS = (42, 43, 44)
GIGABYTES = {SD15: 4.3, SDXL: 13.9}
"""The size of the parts that are used, in float32, from their numbers of parameters."""

Numbers = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One experiment.

    Attributes:
        title: what it shows.
        target: the reward that is raised.
        rows: the settings that differ from the published defaults, by label; plain sampling always comes first.
        measures: what is measured.
        published: the published numbers, by label and measure.
        model: the published model.
    """

    title: str
    target: str
    rows: Mapping[str, Mapping[str, Any]]
    measures: Sequence[str] = MEASURES
    published: Mapping[str, Numbers] = field(default_factory=dict)
    model: str = SD15


PLAIN_SD15 = dict(zip(MEASURES, (0.218, 0.279, 5.232, 0.339), strict=True))

TABLES: Mapping[int, PublishedTable] = {
    1: PublishedTable(
        title="SD-v1.5, target PickScore", target="pickscore", rows={"null-tta": {"inner_steps": (5, 55)}},
        published={
            "plain": PLAIN_SD15, "null-tta": dict(zip(MEASURES, (0.315, 0.294, 5.431, 0.946), strict=True)),
        },
    ),
    2: PublishedTable(
        title="SD-v1.5, target HPSv2", target="hpsv2", rows={"null-tta": {"inner_steps": (5, 115)}},
        published={"plain": PLAIN_SD15, "null-tta": {"hpsv2": 0.428}},
    ),
    3: PublishedTable(
        title="SD-v1.5, target HPSv2: candidates", target="hpsv2",
        rows={f"K = {K}": {"num_particles": K} for K in (1, 2, 3, 4)},
        published={"plain": PLAIN_SD15, "K = 3": {"hpsv2": 0.346}},
    ),
    4: PublishedTable(
        title="SD-v1.5, target HPSv2: annealing", target="hpsv2",
        rows={f"γ = {gamma:g}": {"annealing": gamma} for gamma in (0.0, 0.004, 0.008, 0.016)},
        published={"plain": PLAIN_SD15, "γ = 0.008": {"hpsv2": 0.346}},
    ),
    5: PublishedTable(
        title="SD-v1.5, target HPSv2: weights and inner steps", target="hpsv2",
        rows={
            **{f"λ1 = {weight:g}": {"reward_weight": weight} for weight in (50.0, 100.0, 200.0)},
            **{f"λ2 = {weight:g}": {"kl_weight": weight} for weight in (0.0005, 0.008)},
            **{f"n_max = {n}": {"inner_steps": (5, n)} for n in (55, 115)},
        },
        published={"plain": PLAIN_SD15, "λ1 = 100": {"hpsv2": 0.346}, "n_max = 115": {"hpsv2": 0.428}},
    ),
    6: PublishedTable(
        title="SD-v1.5, target JPEG size in kB, zeroth order", target="jpeg",
        rows={
            "null-tta": {
                "gradient": "zeroth-order", "zeroth_order_directions": "white", "zeroth_order_radius": 0.02,
            }
        },
        measures=("jpeg", "pickscore", "aesthetic"),
        published={
            "plain": {"jpeg": -81.5, "pickscore": 0.218, "aesthetic": 5.232},
            "null-tta": {"jpeg": -33.7, "pickscore": 0.204, "aesthetic": 4.649},
        },
    ),
    7: PublishedTable(
        title="SDXL, target PickScore", target="pickscore", rows={"null-tta": {"inner_steps": (5, 45)}}, model=SDXL,
        published={"null-tta": dict(zip(MEASURES, (0.282, 0.293, 5.613, 1.276), strict=True))},
    ),
}  # fmt: skip


def plan_of(
    table: PublishedTable,
    model: str,
    prompts: Sequence[str],
    seeds: int,
    sources: Mapping[str, str],
    changes: Mapping[str, Any],
    batch_size: int,
) -> Plan:
    """Make the plan of a table.

    Args:
        table: the experiment.
        model: what `load_model` takes.
        prompts: the prompts.
        seeds: how many of the published seeds to use.
        sources: where the weights of rewards are, by name, if not at the usual place.
        changes: the fields of the configuration that differ from the published ones in every row.
        batch_size: how many prompts are sampled together.

    Raises:
        InvalidValue: if a source is of a reward that the table does not use, or if there are not so many seeds.
    """
    if unknown := sorted(set(sources) - {table.target, *table.measures}):
        raise InvalidValue(
            f"has no reward '{unknown[0]}': it has {', '.join(dict.fromkeys((table.target, *table.measures)))}", "table"
        )
    if not 1 <= seeds <= len(SEEDS):
        raise InvalidValue(
            f"are {', '.join(map(str, SEEDS))}: give 1 to {len(SEEDS)} of them, not {seeds}", field="seeds"
        )

    def found(name: str) -> str:
        return f'{name}:"{sources[name]}"' if name in sources else name

    def arm(label: str, method: str, fields: Mapping[str, Any]) -> Arm:
        null_text_only = {"kl_target": None, "noise_tilt": 0.0} if method == "plain" else {}
        config = NullTTAConfig(**{**fields, **changes, **null_text_only})
        return Arm(name=label, target=found(table.target), method=method, config=asdict(config))

    arms = [arm("plain", "plain", {}), *(arm(label, "null-tta", fields) for label, fields in table.rows.items())]
    measures = [found(name) for name in table.measures if name != table.target]
    return Plan(
        model=model, prompts=prompts, seeds=SEEDS[:seeds], arms=arms, measures=measures, batch_size=batch_size,
        gallery=min(8, len(prompts)),
    )  # fmt: skip


def forecast(table: PublishedTable, plan: Plan) -> list[str]:
    """Describe what a run would do, cost and download, line by line, without loading anything."""
    images = len(plan.prompts) * len(plan.seeds)
    lines = [f"{table.title}: {plan.model}, {len(plan.prompts)} prompts, seeds {', '.join(map(str, plan.seeds))}"]
    total = 0
    for arm in plan.arms:
        config = NullTTAConfig(**arm.config).resolved(differentiable=table.target != "jpeg")
        each = 2 * config.num_inference_steps if arm.method == "plain" else spent(config)
        total += each * images
        lines.append(f"{arm.name}: {images} images, {each} denoiser evaluations each")
    lines.append(f"together {plan.images} images, {total} denoiser evaluations of one branch, a gradient counting two")
    wanted = {table.target, *table.measures}
    for row in catalogue():
        if row.name in wanted and row.gigabytes:
            state = "on the disk" if row.present else f"{row.gigabytes:g} GB to download"
            lines.append(f"{row.name}: {state}, unless --source gives another")
    if plan.model in GIGABYTES:
        lines.append(f"{plan.model}: {GIGABYTES[plan.model]:g} GB, if it is not in the hub's cache yet")
    kept = len(plan.arms) * plan.gallery
    lines.append(f"results: {plan.images / 1000:.2g} MB of rows, and {kept} pictures")
    lines.append(f"seconds on this machine: nulltta doctor --model {plan.model} --reward '{plan.targets[0]}'")
    return lines


def compared(table: PublishedTable, panel: Panel) -> list[list[str]]:
    """Return the cells of the table, one list per row: our number and, after a slash, the published one."""
    lines = [["", *table.measures]]
    for label, result in panel.results.items():
        published = table.published.get(label, {})
        cells = []
        for name in table.measures:
            number = f"{published[name]:g}" if name in published else "–"
            measured = next(found for found in panel.measures if found.partition(":")[0] == name)
            gain = None if label == "plain" else panel.gain(label, measured)
            ours = f"{result.mean(measured):.4g}"
            if gain is not None:
                ours += f" ({gain.mean:+.3g}, {gain.low:+.3g} to {gain.high:+.3g})"
            cells.append(f"{ours} / {number}")
        lines.append([label, *cells])
    return lines
