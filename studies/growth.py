"""How does cost grow with denoising steps, inner steps, candidates and prompts? FLOPs and seconds, each fitted by a
line.

    python studies/growth.py [--threads 2]

The script prints a Markdown table with the R² of each line and writes studies/results/growth.json.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from nulltta.alignment import align
from nulltta.benchmark.costs.meters import flops
from nulltta.benchmark.costs.stand_ins import MeasuredModel, measured_model
from nulltta.config import NullTTAConfig
from nulltta.embedded.grammar import tuning_prompts
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "growth.json"
BASE: dict[str, Any] = {"num_inference_steps": 6, "inner_steps": (3, 3), "optimise_between": (0.0, 1.0)}
SWEEPS: dict[str, tuple[int, ...]] = {
    "denoising steps": (3, 6, 12, 24), "inner steps": (1, 2, 4, 8), "candidates": (1, 2, 4, 8), "prompts": (1, 2, 4, 8),
}  # fmt: skip


def main(threads: int = 2, repeats: int = 3, out: Path = RESULTS) -> None:
    """Sweep one setting at a time, the others as in BASE."""
    torch.set_num_threads(threads)
    thing = measured_model("embedded")
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": threads, "versions": record.versions()}
    found |= {"base": BASE, "sweeps": {}}
    for name, values in SWEEPS.items():
        found["sweeps"][name] = sweep(thing, name, values, repeats)
    print(markdown(found["sweeps"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save(found, out)


def sweep(thing: MeasuredModel, name: str, values: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Measure FLOPs and the seconds of the fastest run at each value, and how straight both lines are."""
    row: dict[str, Any] = {"values": values, "flops": [], "seconds": []}
    for value in values:
        config, prompts = setting(name, value)
        row["flops"].append(flops(lambda: _sample(thing, prompts, config)))  # noqa: B023 - called at once
        row["seconds"].append(min(_seconds(thing, prompts, config) for _ in range(repeats)))
    return row | {f"{what}_r2": r_squared(values, row[what]) for what in ("flops", "seconds")}


def setting(name: str, value: int) -> tuple[NullTTAConfig, list[str]]:
    """Return the settings and the prompts of one point of a sweep."""
    config = NullTTAConfig.embedded(**BASE)
    changes: dict[str, dict[str, Any]] = {
        "denoising steps": {"num_inference_steps": value}, "inner steps": {"inner_steps": (value, value)},
        "candidates": {"num_particles": value}, "prompts": {},
    }  # fmt: skip
    return replace(config, **changes[name]), tuning_prompts(value if name == "prompts" else 1)


def r_squared(x: tuple[int, ...], y: list[float]) -> float:
    """Return R² of the least-squares line through the points."""
    fit = np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - np.sum((np.array(y) - fit) ** 2) / np.sum((np.array(y) - np.mean(y)) ** 2))


def _sample(thing: MeasuredModel, prompts: list[str], config: NullTTAConfig) -> None:
    """Sample once and discard the images."""
    align(thing.model, prompts, thing.reward, config=config, seed=list(range(len(prompts))))


def _seconds(thing: MeasuredModel, prompts: list[str], config: NullTTAConfig) -> float:
    """Return the seconds of one run."""
    began = time.perf_counter()
    _sample(thing, prompts, config)
    return time.perf_counter() - began


def markdown(sweeps: dict[str, Any]) -> str:
    """Format one row per sweep."""
    lines = ["| | GFLOP | R² of a line | seconds | R² |", "|---" * 5 + "|"]
    for name, row in sweeps.items():
        cells = [" · ".join(f"{v / 1e9:.0f}" for v in row["flops"]), f"{row['flops_r2']:.6f}",
                 " · ".join(f"{v:.2f}" for v in row["seconds"]), f"{row['seconds_r2']:.3f}"]  # fmt: skip
        lines.append(f"| {', '.join(map(str, row['values']))} {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
