"""How to raise a reward without derivatives? Estimated gradients beside the exact one, and JPEG size with each
estimator.

    python studies/zeroth_order.py [--what cosines|tuning|jpeg ... --prompts 16 --seed 0 --batch-size 8 --threads 1]

"cosines" compares the estimates with the exact gradient. "tuning" compares settings on prompts that no table reports
on. "jpeg" compares the published estimator, CMA-ES and the preset on the test prompts: "selection only" takes no inner
steps and shows what choosing among K candidates gives by itself, and "exact" follows the gradient of a differentiable
stand-in for JPEG size, which is about the best that an estimate could do. The script prints Markdown tables and writes
them, part by part, to studies/results/zeroth_order.json.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

import nulltta
from nulltta import rewards
from nulltta.algorithm import randomness, schedules
from nulltta.algorithm.budget import spent
from nulltta.algorithm.embeddings import transform
from nulltta.algorithm.gradients import ZerothOrder, autograd
from nulltta.algorithm.objective import Objective
from nulltta.alignment import align, make_problem
from nulltta.config import Directions, NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.grammar import test_prompts, tuning_prompts
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.measures import Measure, held_out_measures
from nulltta.rewards.jpeg import QUALITY, JpegSize
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "zeroth_order.json"
Row = dict[str, Any]
Rows = Callable[[GuidedModel, Sequence[str], int], Iterator[Row]]
COSINE_PROMPTS, TUNING_PROMPTS = 4, 8
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

EVERYWHERE = {"optimise_between": (0.0, 1.0), "inner_steps": (4, 12), "num_particles": 4}
"""Short inner steps at every denoising step; the preset has long ones in the last third."""


def variant(directions: Directions, samples: int, radius: float, learning_rate: float = 0.01) -> dict[str, Any]:
    """Return the settings of one estimator with inner steps at every denoising step."""
    return {**late(directions, samples, radius, learning_rate), **EVERYWHERE}


def late(directions: Directions, samples: int, radius: float, learning_rate: float = 0.025) -> dict[str, Any]:
    """Return the settings of one estimator with inner steps in the last third, as in the preset."""
    return {"zeroth_order_directions": directions, "zeroth_order_samples": samples, "zeroth_order_radius": radius,
            "learning_rate": learning_rate}  # fmt: skip


TUNING = {
    "`cma`, μ = 0.05": variant("cma", 4, 0.05),
    "`cma`, μ = 0.1": variant("cma", 4, 0.1),
    "`cma`, μ = 0.2": variant("cma", 4, 0.2),
    "late `cma`, μ = 0.1, K = 4": late("cma", 4, 0.1),
    "late `cma`, μ = 0.1, K = 16": late("cma", 16, 0.1),
    "late `cma`, μ = 0.2, K = 16": late("cma", 16, 0.2),
}
FINAL: dict[str, dict[str, Any]] = {
    "none: selection only": {"inner_steps": (0, 0), "num_particles": EVERYWHERE["num_particles"]},
    "`white`, as published": variant("white", 4, 0.02),
    "`cma`": variant("cma", 4, 0.1),
    "the preset's": {},
    "exact": {"gradient": "autograd", "reward_weight": 50.0, **EVERYWHERE, "learning_rate": 0.01},
}


def main(
    what: Annotated[list[str] | None, typer.Option(help="cosines, tuning or jpeg; may be repeated. [all]")] = None,
    prompts: Annotated[int, typer.Option(help="Number of prompts of the JPEG table.")] = 16,
    seed: int = 0,
    batch_size: int = 8,
    threads: int = 1,
    out: Path = RESULTS,
) -> None:
    """Measure on the embedded model."""
    torch.set_num_threads(threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = nulltta.load_model("embedded")
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    parts: dict[str, tuple[list[str], Rows, Callable[[Sequence[Row]], str]]] = {
        "cosines": (test_prompts(COSINE_PROMPTS), cosines, cosine_table),
        "tuning": (tuning_prompts(TUNING_PROMPTS), partial(jpeg, TUNING, batch_size), jpeg_table),
        "jpeg": (test_prompts(prompts), partial(jpeg, FINAL, batch_size), jpeg_table),
    }
    for name in what or parts:
        chosen, measure, table = parts[name]
        about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "prompts": len(chosen), "seed": seed, "threads": threads,
                 "versions": record.versions()}  # fmt: skip
        rows: list[Row] = []
        for row in measure(model, chosen, seed):
            rows.append(row)
            found[name] = {**about, "rows": rows}
            record.save(found, out)
        print(table(rows))


def cosines(model: GuidedModel, prompts: Sequence[str], seed: int) -> Iterator[Row]:
    """Yield the mean cosine of the estimate ĝ to ∇J for the reward `clip`, at φ' = φ and three noise levels of plain
    sampling, by number of samples and radius."""
    objectives = list(_objectives(model, prompts, seed))
    exact = [_flat(autograd(objective, objective.null)[1]) for objective in objectives]
    for samples in (4, 16):
        for radius in (0.005, 0.02, 0.1):
            estimator = ZerothOrder(samples, radius)
            values = []
            for (i, objective), truth in zip(enumerate(objectives), exact, strict=True):
                generators = [randomness.generator(b, "bench", i) for b in range(len(prompts))]
                estimate = _flat(estimator(objective, objective.null, generators)[1])
                values.append(torch.cosine_similarity(estimate, truth))
            cosine = torch.stack(values)
            yield {"directions": "white", "samples": samples, "radius": radius, "cosine": cosine.mean().item(),
                   "positive": (cosine > 0).float().mean().item()}  # fmt: skip


def _objectives(model: GuidedModel, prompts: Sequence[str], seed: int) -> Iterator[Objective]:
    """Return the objectives at three noise levels of plain sampling."""
    problem = make_problem(model, prompts, "clip", NullTTAConfig.preset(model.name), seed)
    x, steps, s = problem.latents[:, 0], problem.schedule(), problem.config.guidance_scale
    gamma = schedules.annealing_coefficient(problem.config.annealing, len(steps))
    for i, step in enumerate(steps):
        with torch.no_grad():
            null, cond = (model.predict(x, step, branch) for branch in (problem.null, problem.cond))
            if i in (len(steps) // 8, len(steps) // 2, 7 * len(steps) // 8):
                yield Objective(model, problem.reward, problem.prompts, problem.config, step, x, cond, null,
                                problem.null, schedules.regularisation(i, gamma))  # fmt: skip
            mean, std = model.step_distribution(x, model.guide(null, cond, s), step)
            x = mean + std * problem.noise(i, step, x, particles=1)[:, 0]


def _flat(gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    """Concatenate all tensors of a gradient: (B, numbers)."""
    return torch.cat([value.flatten(1) for value in transform(gradient, torch.Tensor.float).values()], dim=1)


def jpeg(
    variants: Mapping[str, Mapping[str, Any]], batch_size: int, model: GuidedModel, prompts: Sequence[str], seed: int
) -> Iterator[Row]:
    """Yield −kB before and after for each variant, paired, with held-out scores and denoiser evaluations."""
    size = rewards.load("jpeg")
    soft = SoftJpegSize(align(model, prompts, size, method="plain", seed=seed).images)
    measures: dict[str, Measure] = {"jpeg": size, **held_out_measures(model), "clip": rewards.load("clip")}
    for name, changes in variants.items():
        config = NullTTAConfig.preset(model.name, **changes)
        target: Reward = soft if config.gradient == "autograd" else size
        began, compared = time.perf_counter(), []
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            compared += compare(nulltta.align(model, batch, target, config=config, seed=seed), measures)
        gains = {}
        for measure in measures:
            pairs = [comparison.scores[measure] for comparison in compared]
            before, after = [pair.plain for pair in pairs], [pair.aligned for pair in pairs]
            gains[measure] = asdict(paired_gain(before, after, np.random.default_rng(0)))
        seconds = (time.perf_counter() - began) / len(prompts)
        print(f"{name}: {seconds:.1f} s per prompt", file=sys.stderr)
        resolved = config.resolved(differentiable=target.differentiable)
        yield {"variant": name, "config": asdict(resolved), "gains": gains, "evaluations": spent(resolved),
               "soft_jpeg_correlation": soft.correlation, "seconds_per_prompt": seconds}  # fmt: skip


class SoftJpegSize(Reward):
    """A differentiable approximation of the size of a JPEG, which shows what a reward loses by having no gradient.

    The score in −kB is a + b·Σ log2(1 + |q|) over the quantised but unrounded coefficients q of an image's 8×8 blocks,
    as a coefficient takes about that many bits. a and b are fitted to `JpegSize` on the images given.
    """

    name = "soft-jpeg"

    def __init__(self, images: Tensor) -> None:
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, format="JPEG", quality=QUALITY)
        tables = Image.open(blank).quantization  # type: ignore[attr-defined]  # in reading order
        self.luma, self.chroma = (torch.tensor(tables[i], dtype=torch.float32).view(8, 8) for i in (0, 1))
        k = torch.arange(8.0)
        self.dct = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2  # DCT-II, orthonormal
        self.dct[0] /= math.sqrt(2)
        bits, sizes = self.bits(images), JpegSize("jpeg", -1)(images)
        self.slope = torch.cov(torch.stack([bits, sizes]))[0, 1] / bits.var()
        self.offset = sizes.mean() - self.slope * bits.mean()
        self.correlation = torch.corrcoef(torch.stack([bits, sizes]))[0, 1].item()

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - of the pixels alone
        return self.offset + self.slope * self.bits(images)

    def bits(self, images: Tensor) -> Tensor:
        """Estimate the bits of each image: (B, 3, H, W) -> (B,)."""
        ycc = torch.einsum("ij,bjhw->bihw", _TO_YCC, images.clamp(0, 1) * 255)
        return self._of(ycc[:, :1] - 128, self.luma) + self._of(avg_pool2d(ycc[:, 1:], 2), self.chroma)

    def _of(self, planes: Tensor, table: Tensor) -> Tensor:
        """Return the bits of planes that are quantised with one table."""
        blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)
        q = self.dct @ blocks @ self.dct.T / table
        return torch.log2(1 + q.abs()).flatten(1).sum(1)


def cosine_table(rows: Sequence[Row]) -> str:
    """Format one row per number of samples and radius."""
    lines = ["| directions | K | μ | cosine to ∇J | share above 0 |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['directions']} | {r['samples']} | {r['radius']:g} | {r['cosine']:.3f} | {r['positive']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def jpeg_table(rows: Sequence[Row]) -> str:
    """Format one row per variant: plain → aligned by measure, and the target's mean gain with its 95% interval."""
    target, *others = rows[0]["gains"]
    lines = [
        f"| inner steps | −kB | gain | better | {' | '.join(others)} | evaluations |",
        "|---" * (len(others) + 5) + "|",
    ]
    for row in rows:
        gain = row["gains"][target]
        cells = [
            row["variant"], f"{gain['plain']:.3f} → {gain['aligned']:.3f}",
            f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})", f"{gain['wins']:.0%}",
            *(f"{row['gains'][name]['plain']:.3f} → {row['gains'][name]['aligned']:.3f}" for name in others),
            str(row["evaluations"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
