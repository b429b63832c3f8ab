"""Does aligning help? Plain against aligned sampling on held-out compositions, paired, by measures nobody optimised.

    python studies/smoke.py [--prompts 32 --seed 0 --reward clip] [any setting of `nulltta align`]

The script prints a Markdown table and writes studies/results/smoke.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import rewards
from nulltta.algorithm.budget import evaluations
from nulltta.cli.flags import config_flags
from nulltta.config import NullTTAConfig
from nulltta.embedded.grammar import test_prompts
from nulltta.evaluation.bootstrap import Gain, paired_gain
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.evaluation.measures import held_out_measures
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "smoke.json"
UNOPTIMISED = ("colourfulness", "brightness")


@config_flags
def smoke(
    prompts: Annotated[int, typer.Option(help="Number of prompts, from the beginning of a fixed list.")] = 32,
    seed: int = 0,
    reward: str = "clip",
    model: str = "embedded",
    batch_size: int = 8,
    out: Path = RESULTS,
    *,
    settings: dict[str, Any],
) -> None:
    """Compare plain with aligned sampling."""
    config = NullTTAConfig.preset(model, **settings)
    chosen = test_prompts(prompts)
    comparisons, seconds = sample(chosen, reward, model, config, seed, batch_size)
    selection, _ = sample(chosen, reward, model, replace(config, inner_steps=(0, 0), noise_tilt=0.0), seed, batch_size)
    gains = measure_gains(comparisons)
    own = measure_gains(comparisons, over=selection)
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "model": model, "reward": reward, "prompts": prompts, "seed": seed,
        "config": asdict(config), "branches": branches(comparisons[0], config),
        "seconds_per_prompt": seconds / prompts, "threads": torch.get_num_threads(), "versions": record.versions(),
    }  # fmt: skip
    print(markdown(gains, own, about))
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save({
        **about, "gains": {name: as_json(gain) for name, gain in gains.items()},
        "over_selection": {name: as_json(gain) for name, gain in own.items()},
        "scores": [{"prompt": c.prompt, **{name: asdict(score) for name, score in c.scores.items()},
                    "selection": {name: score.aligned for name, score in alone.scores.items()}}
                   for c, alone in zip(comparisons, selection, strict=True)],
    }, out)  # fmt: skip


def sample(
    prompts: Sequence[str], target: str, source: str, config: NullTTAConfig, seed: int, batch_size: int
) -> tuple[list[Comparison], float]:
    """Sample every prompt plainly and aligned from the same noise; return all measures, and the seconds it took."""
    model, reward = nulltta.load_model(source), rewards.load(target)
    measures = held_out_measures(model) | {name: rewards.load(name) for name in UNOPTIMISED}
    comparisons: list[Comparison] = []
    began = time.perf_counter()
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        comparisons += compare(nulltta.align(model, batch, reward, config=config, seed=seed), measures)
        print(f"{len(comparisons)}/{len(prompts)}", file=sys.stderr)
    return comparisons, time.perf_counter() - began


def measure_gains(comparisons: Sequence[Comparison], over: Sequence[Comparison] | None = None) -> dict[str, Gain]:
    """Compare aligned images with plain ones, or with the aligned ones of another run, measure by measure.

    Every interval comes from the same fixed stream of resamples.
    """
    gains = {}
    for name in comparisons[0].scores:
        aligned = [comparison.scores[name].aligned for comparison in comparisons]
        if over is None:
            before = [comparison.scores[name].plain for comparison in comparisons]
        else:
            before = [comparison.scores[name].aligned for comparison in over]
        gains[name] = paired_gain(before, aligned, np.random.default_rng(0))
    return gains


def branches(comparison: Comparison, config: NullTTAConfig) -> dict[str, int]:
    """Count the denoiser evaluations of one prompt: aligned with and without gradient, and plain."""
    with_gradient = sum(len(step.inner_rewards) for step in comparison.trace)
    return {"with_gradient": with_gradient, "without": evaluations(config)[1], "plain": 2 * config.num_inference_steps}


def markdown(gains: Mapping[str, Gain], own: Mapping[str, Gain], about: Mapping[str, Any]) -> str:
    """Format one row per measure.

    A row holds the means, the gain of aligned over plain with its 95% interval, the same in standard deviations of
    plain's scores, and the gain over selection alone, which has the same candidates and no inner steps.
    """
    target = next(iter(gains))
    settings = ", ".join(f"{name} {value}" for name, value in about["config"].items())
    cost = about["branches"]
    lines = [
        "| measure | plain | selection alone | aligned | gain over plain (95% interval) | in SD of plain | better "
        "| gain over selection alone |",
        "|---" * 8 + "|",
    ]
    for name, gain in gains.items():
        label = f"{name} (target)" if name == target else name
        spreads = "–" if gain.in_spreads is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*gain.in_spreads)
        cells = [label, *(f"{mean:.4f}" for mean in (gain.plain, own[name].plain, gain.aligned)), _interval(gain),
                 spreads, f"{gain.wins:.0%}", _interval(own[name])]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([
        *lines, "",
        f"{about['date']}, model {about['model']}, {about['prompts']} prompts of held-out compositions, "
        f"seed {about['seed']}, paired; 95% percentile bootstrap over prompts, 10,000 resamples.",
        f"Settings: {settings}.",
        f"Cost of a prompt: {cost['with_gradient']} denoiser evaluations with gradient and {cost['without']} without, "
        f"against plain sampling's {cost['plain']}; {about['seconds_per_prompt']:.1f} s for both samplings "
        f"with {about['threads']} threads.",
    ])  # fmt: skip


def _interval(gain: Gain) -> str:
    """ "+0.0590 (+0.0423 to +0.0799)"."""
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def as_json(gain: Gain) -> dict[str, Any]:
    """Return a gain's fields, and the gain in standard deviations of plain's scores."""
    return {**asdict(gain), "in_spreads": gain.in_spreads}


if __name__ == "__main__":
    typer.run(smoke)
