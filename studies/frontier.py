"""How much reward does each saving cost? Every saving on its own, plain sampling and best-of-N, on the embedded model.

    python studies/frontier.py [--prompts 16 --seed 1 --batch-size 8] [--only exact --only plain] [--plot-only]

Every variant samples the same tuning prompts from the same noise. The script prints a Markdown table and writes
studies/results/frontier.json and docs/images/frontier.png; a variant that the file holds already, with the same
settings, is not run again. Differences to "exact" are paired, with 95% bootstrap intervals over prompts. The cosine
compares the gradient of the inner steps with the exact one at φ' = φ, over all steps of plain sampling.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import rewards
from nulltta.algorithm import schedules
from nulltta.algorithm.budget import evaluations
from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta, plain
from nulltta.alignment import align, make_problem
from nulltta.baselines import BestOfN
from nulltta.benchmark.costs.stand_ins import EXACT
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Stream
from nulltta.embedded.grammar import tuning_prompts
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import facts
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "frontier.json"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "frontier.png"
VARIANTS: Mapping[str, dict[str, Any]] = {
    "exact": {},
    "tiny decoder": {"inner_decoder": "tiny"},
    "first half of the steps": {"optimise_between": (0.0, 0.5)},
    "last half": {"optimise_between": (0.5, 1.0)},
    "half, twice as long": {"inner_steps": (2, 6), "learning_rate": 0.02},
    "last third, long steps": {"inner_steps": (3, 8), "learning_rate": 0.025, "optimise_between": (0.66, 1.0)},
    "no inner steps": {"inner_steps": (0, 0)},
}
SAMPLES = (2, 4, 8, 16)  # N of best-of-N


def main(
    prompts: int = 16,
    seed: int = 1,
    batch_size: int = 8,
    threads: int = 1,
    only: Annotated[list[str] | None, typer.Option(help="Run these variants again.")] = None,
    plot_only: bool = False,
    out: Path = RESULTS,
    image: Path = PLOT,
) -> None:
    """Measure the missing variants, then print and plot all."""
    torch.set_num_threads(threads)
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"rows": {}}
    model = nulltta.load_model("embedded")
    chosen = tuning_prompts(prompts)
    for name, config, method in _runs():
        asked = {"config": asdict(config), "prompts": chosen, "seed": seed, "batch_size": batch_size}
        there = found["rows"].get(name)
        if plot_only or (there and there["asked"] == _plain(asked) and name not in (only or ())):
            continue
        found["rows"][name] = {"asked": asked, **measure(model, chosen, config, method, seed, batch_size)}
        if config.inner_decoder != "full":
            found["rows"][name]["cosine"] = cosine(model, chosen[:4], config, seed)
        found |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": threads, "versions": record.versions()}
        out.parent.mkdir(parents=True, exist_ok=True)
        record.save(found, out)
        print(f"{name}: {found['rows'][name]['seconds']:.1f} s per prompt", flush=True)
    print(markdown(found["rows"]))
    plot(found["rows"], image)


def _runs() -> Iterator[tuple[str, NullTTAConfig, Callable[[Problem], Stream]]]:
    """Yield the name, the settings and the method of every variant."""
    preset = NullTTAConfig.embedded()
    for name, changes in VARIANTS.items():
        yield name, replace(EXACT, **changes), null_tta
    yield "the preset", preset, null_tta
    inner, others = evaluations(preset)
    yield "the preset, half its inner steps", replace(preset, budget=inner + others), null_tta
    yield "plain", preset, plain
    for samples in SAMPLES:
        yield f"best of {samples}", preset, BestOfN(samples=samples)


def measure(
    model: GuidedModel, prompts: Sequence[str], config: NullTTAConfig, method: Callable[[Problem], Stream], seed: int,
    batch_size: int,
) -> dict[str, Any]:  # fmt: skip
    """Sample with one variant and return its scores by prompt, its evaluations and its time."""
    measures = {name: rewards.load(name) for name in ("clip", "clip-b")} | {"facts": facts()}
    scores: dict[str, list[float]] = {name: [] for name in measures}
    seconds, inner = 0.0, 0
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        began = time.perf_counter()
        result = align(model, batch, "clip", config=config, seed=seed, method=method)
        seconds += time.perf_counter() - began
        inner += sum(int((~step.inner_rewards.isnan()).sum()) for step in result.trace)
        with torch.no_grad():
            for name, function in measures.items():
                scores[name] += function(result.images, batch).tolist()
    return {"scores": scores, "seconds": seconds / len(prompts), "inner": inner / len(prompts),
            "evaluations": _evaluations(config, method, inner / len(prompts))}  # fmt: skip


def _evaluations(config: NullTTAConfig, method: Callable[[Problem], Stream], inner: float) -> float:
    """Return the denoiser evaluations per prompt; a forward pass with a backward pass counts two."""
    if method is null_tta:
        return 2 * inner + evaluations(config)[1]
    return 2 * config.num_inference_steps * (method.samples if isinstance(method, BestOfN) else 1)


def cosine(model: GuidedModel, prompts: Sequence[str], config: NullTTAConfig, seed: int) -> list[float]:
    """Return the mean cosine over the prompts at each denoising step."""
    problem = make_problem(model, prompts, "clip", config, seed)
    exact = replace(config, inner_decoder="full")
    x, s = problem.latents[:, 0], config.guidance_scale
    gamma = schedules.annealing_coefficient(config.annealing, config.num_inference_steps)
    found = []
    for i, step in enumerate(problem.schedule()):
        null, cond = predict_branches(model, x, step, problem.null, problem.cond)
        anneal = schedules.regularisation(i, gamma)
        objective = Objective(model, problem.reward, problem.prompts, config, step, x, cond, null, problem.null, anneal)
        ours, theirs = (_flat(autograd(J, problem.null)[1]) for J in (objective, replace(objective, config=exact)))
        found.append(torch.cosine_similarity(ours, theirs).mean().item())
        mean, std = model.step_distribution(x, model.guide(null, cond, s), step)
        x = mean + std * problem.noise(i, step, x, particles=1)[:, 0]
    return found


def _flat(gradient: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Concatenate all tensors of a gradient: (B, numbers)."""
    return torch.cat([value.flatten(1) for value in gradient.values()], dim=1)


def markdown(rows: Mapping[str, Any]) -> str:
    """Format one row per variant; the difference to exact is paired."""
    lines = [
        "| variant | inner steps | evaluations | s | clip | against exact (95% interval) | clip-b | facts | cosine |",
        "|---" * 9 + "|",
    ]
    exact = rows["exact"]["scores"]["clip"]
    for name, row in rows.items():
        mean = {measure: np.mean(values) for measure, values in row["scores"].items()}
        gain = paired_gain(exact, row["scores"]["clip"], np.random.default_rng(0))
        cosines = f"{np.mean(row['cosine']):.2f}" if "cosine" in row else ""
        lines.append(
            f"| {name} | {row['inner']:.0f} | {row['evaluations']:.0f} | {row['seconds']:.1f} | {mean['clip']:.4f} | "
            f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) | {mean['clip-b']:.4f} | {mean['facts']:.3f} | "
            f"{cosines} |"
        )
    return "\n".join(lines)


def plot(rows: Mapping[str, Any], image: Path) -> None:
    """Plot the mean reward against seconds per prompt, every variant by name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    kinds = {
        "best of": ("tab:gray", "s"),
        "plain": ("tab:gray", "s"),
        "the preset": ("tab:red", "o"),
        "exact": ("k", "o"),
    }
    for name, row in rows.items():
        colour, marker = next((style for start, style in kinds.items() if name.startswith(start)), ("tab:blue", "o"))
        place = (row["seconds"], float(np.mean(row["scores"]["clip"])))
        axes.plot(*place, marker, color=colour, markersize=5)
        turned = {"rotation": 35, "rotation_mode": "anchor"} if colour != "tab:gray" else {"va": "top"}
        axes.annotate(name, place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour, **turned)
    baseline = [rows[name] for name in ("plain", *(f"best of {n}" for n in SAMPLES)) if name in rows]
    line = np.array([(row["seconds"], np.mean(row["scores"]["clip"])) for row in baseline])
    axes.plot(*line.T, color="tab:gray", linewidth=0.8)
    axes.set(xlabel="seconds per prompt, in batches", ylabel="clip (target), mean", ylim=_without_outliers(rows))
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=130)


def _without_outliers(rows: Mapping[str, Any]) -> tuple[float, float]:
    """Return limits from plain sampling upwards; variants below it are only in the table."""
    means = [float(np.mean(row["scores"]["clip"])) for row in rows.values()]
    floor = float(np.mean(rows["plain"]["scores"]["clip"])) if "plain" in rows else min(means)
    room = max(means) - floor
    return floor - 0.05 * room, max(means) + 0.25 * room  # for the names above


def _plain(value: Any) -> Any:
    """Return the value as JSON stores it."""
    return json.loads(json.dumps(value))


if __name__ == "__main__":
    typer.run(main)
