"""What does a fit cost? Measured on the embedded model, and projected for Stable Diffusion 1.5 and SDXL by FLOPs.

    python studies/fit_cost.py [--updates 10 --teraflops 125]

The embedded model's updates are timed by the processor's own clock, so that other work on the machine plays no part;
the trajectories of the first pool are timed apart. The projection takes the FLOPs of one row of each network from
studies/results/flops.json (`python studies/flops.py`), and a GPU that does so many teraFLOP per second, which must be
assumed: 125 is 40% of an A100's peak in bfloat16. The script prints Markdown and writes studies/results/fit_cost.json.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import typer

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.embedded.grammar import tuning_prompts
from nulltta.fit.settings import FitSettings
from nulltta.fit.training import FitProblem, fit
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results"
VALIDATION = 48


def fit_cost(
    updates: int = 10, teraflops: float = 125.0, steps: int = 50, out: Path = RESULTS / "fit_cost.json"
) -> None:
    """Time some updates, project a whole fit with the default settings, and print both."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions()}
    found["embedded"] = measured(updates)
    counts = json.loads((RESULTS / "flops.json").read_text())["models"]
    found["projected"] = {name: projected(entry["prices"], FitSettings(), steps) for name, entry in counts.items()}
    record.save(found, out)
    own = found["embedded"]
    print(
        f"embedded: {own['rows_per_second']:.1f} rows per second in updates, {own['seconds_per_trajectory']:.2f} s per "
        f"trajectory, {own['peak_mib']:.0f} MiB at most\n"
    )
    print("| model | PFLOP of updates | of trajectories | of validation | hours |", "|---" * 5 + "|", sep="\n")
    for name, flops in found["projected"].items():
        hours = sum(flops.values()) / (teraflops * 1e12) / 3600
        print(f"| {name} | {' | '.join(f'{value / 1e15:,.0f}' for value in flops.values())} | {hours:.1f} |")


def measured(updates: int) -> dict[str, float]:
    """Time the updates of a fit of the embedded model between the first pool and the first validation."""
    rows, pool = FitSettings.rows, 32
    settings = FitSettings(updates=updates + 1, pool=pool, refresh_every=updates + 2, validate_every=updates + 1)
    prompts: Sequence[str] = tuning_prompts(pool + 2)
    model, clip = nulltta.load_model("embedded"), rewards.load("clip")
    problem = FitProblem(model, clip, prompts[2:], prompts[:2], NullTTAConfig.preset("embedded"), settings)
    clock, stream = [time.process_time()], fit(problem)
    for _ in range(updates):
        next(stream)
        clock.append(time.process_time())
    stream.close()
    later = (clock[-1] - clock[1]) / (updates - 1)
    return {
        "rows_per_second": rows / later,
        "seconds_per_trajectory": (clock[1] - clock[0] - later) / (pool + 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def projected(price: Mapping[str, Sequence[int]], settings: FitSettings, T: int) -> dict[str, float]:
    """Count the FLOPs of a fit.

    Args:
        price: (forward, forward and backward) of one row of each network.
        settings: the fit's.
        T: the number of denoising steps.
    """
    denoiser, decoder, reward = (price[name] for name in ("denoiser", "decoder", "reward"))
    row = 2 * denoiser[0] + denoiser[1] + decoder[1] + reward[1]
    refreshed = settings.fresh * ((settings.updates - 1) // settings.refresh_every)
    picture = 2 * T * denoiser[0] + decoder[0] + reward[0]
    validated = VALIDATION * (1 + settings.updates // settings.validate_every)
    return {
        "updates": settings.updates * settings.rows * row,
        "trajectories": (settings.pool + refreshed) * 2 * T * denoiser[0],
        "validation": validated * picture,
    }


if __name__ == "__main__":
    typer.run(fit_cost)
