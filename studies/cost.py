"""What does one image cost? Our implementation beside a straightforward reference, alternating in the same process.

    python studies/cost.py [--model embedded --prompts 1 --prompts 8 --repeats 3] [any setting of `nulltta align`]

The reference (`nulltta.benchmark.costs.published_loop`) spends what the published release spends: it takes one prompt
at a time, differentiates both branches and the full decoder in every inner step, and encodes the prompt for the reward
at every call. "exact" is our implementation with the same settings, which samples the same images from the same seeds.
"savings" is ours with the settings given on the command line, or with the preset of the embedded model.

The script prints Markdown and writes studies/results/cost.json. The ratio of the times is the result. Memory is the
peak of the tensors made during a run of two denoising steps, per image in flight. FLOPs are those of one prompt's whole
run. Adam amplifies rounding over many steps, so the largest pixel difference between exact and reference is reported
beside the difference between two runs of the reference with different numbers of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from nulltta.algorithm import randomness, schedules
from nulltta.algorithm.problem import Problem
from nulltta.alignment import align, make_problem
from nulltta.benchmark.costs import published_loop
from nulltta.benchmark.costs.meters import flops, peak_bytes, watching
from nulltta.benchmark.costs.stand_ins import MeasuredModel, measured_model
from nulltta.cli.flags import config_flags
from nulltta.config import NullTTAConfig
from nulltta.embedded.grammar import tuning_prompts
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "cost.json"


@config_flags
def main(
    model: Annotated[str, typer.Option(help="embedded, or sd15 or sdxl with random weights.")] = "embedded",
    prompts: Annotated[list[int] | None, typer.Option(help="Prompts in one batch; may be repeated. [1 and 8]")] = None,
    repeats: int = 3,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int = 2,
    compiled: Annotated[bool, typer.Option(help="Compile the denoiser for our runs.")] = False,
    out: Path = RESULTS,
    *,
    settings: dict[str, Any],
) -> None:
    """Measure what one image costs."""
    torch.set_num_threads(threads)
    thing = measured_model(model, device, getattr(torch, dtype))
    saving = replace(thing.config, **settings) if settings or model != "embedded" else NullTTAConfig.embedded()
    found: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "model": model, "device": device, "dtype": dtype, "threads": threads,
        "versions": record.versions(), "command": {"repeats": repeats, **settings}, "rows": [],
    }  # fmt: skip
    configs = {"reference": thing.config, "exact": thing.config, "savings": saving}
    found["flops"] = work(thing, configs)
    if device == "cpu":
        found["difference_by_threads"] = difference_by_threads(thing, threads)
    print(about(found))
    for count in prompts or [1, 8]:
        row = compare(thing, configs, tuning_prompts(count), repeats, compiled)
        found["rows"].append(row)
        print(markdown(row))
        out.parent.mkdir(parents=True, exist_ok=True)
        record.save(found, out)


Ways = dict[str, Callable[[NullTTAConfig], Tensor]]


def _ways(thing: MeasuredModel, prompts: Sequence[str]) -> Ways:
    ours = partial(by_us, thing, prompts)
    return {"reference": partial(by_reference, thing, prompts), "exact": ours, "savings": ours}


def work(thing: MeasuredModel, configs: Mapping[str, NullTTAConfig]) -> dict[str, int]:
    """Count the FLOPs of one image, by implementation."""
    return {name: flops(lambda: way(configs[name])) for name, way in _ways(thing, tuning_prompts(1)).items()}  # noqa: B023


def difference_by_threads(thing: MeasuredModel, threads: int) -> float:
    """Measure what rounding does: the largest pixel difference between two runs of the reference with different numbers
    of threads."""
    images = []
    for count in (threads, 1 if threads > 1 else 2):
        torch.set_num_threads(count)
        images.append(by_reference(thing, tuning_prompts(1), thing.config))
    torch.set_num_threads(threads)
    return (images[0] - images[1]).abs().max().item()


def compare(
    thing: MeasuredModel, configs: Mapping[str, NullTTAConfig], prompts: Sequence[str], repeats: int, compiled: bool
) -> dict[str, Any]:
    """Measure all implementations in turn: seconds, rows evaluated and memory, per image."""
    ways = _ways(thing, prompts)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            with _compiled(thing.pipeline.unet, compiled and name != "reference"):
                began = time.perf_counter()
                images[name] = way(configs[name])
                seconds[name].append(time.perf_counter() - began)
    row: dict[str, Any] = {"prompts": len(prompts), "compiled": compiled}
    for name, way in ways.items():
        in_flight = 1 if name == "reference" else len(prompts)
        row[name] = _figures(thing, way, configs[name], len(prompts), in_flight) | {
            "seconds": median(seconds[name]) / len(prompts), "all_seconds": seconds[name],
        }  # fmt: skip
    row["differences"] = (images["reference"] - images["exact"]).abs().amax((1, 2, 3)).tolist()
    return row


def _figures(
    thing: MeasuredModel, way: Callable[[NullTTAConfig], Tensor], config: NullTTAConfig, images: int, in_flight: int
) -> dict[str, Any]:
    """Measure rows and memory per image."""
    short = replace(config, num_inference_steps=2, inner_steps=(1, 1))
    with watching(thing.stock) as theirs, watching(thing.pipeline) as ours:
        way(config)
    parts = ours if ours.rows else theirs
    device = next(thing.pipeline.unet.parameters()).device
    return {
        "rows": {part: rows / images for part, rows in sorted(parts.rows.items())},
        "forward_seconds": {part: spent / images for part, spent in parts.seconds.items()},
        "peak_megabytes": peak_bytes(lambda: way(short), device) / in_flight / 2**20,
    }


def by_us(thing: MeasuredModel, prompts: Sequence[str], config: NullTTAConfig) -> Tensor:
    """Sample with our implementation: (B, 3, H, W)."""
    return align(thing.model, prompts, thing.reward, config=config, seed=list(range(len(prompts)))).images


def by_reference(thing: MeasuredModel, prompts: Sequence[str], config: NullTTAConfig) -> Tensor:
    """Sample with the reference, one prompt after another, from the same latents and noise: (B, 3, H, W)."""
    gamma = schedules.annealing_coefficient(config.annealing, config.num_inference_steps)
    problem = make_problem(thing.model, prompts, thing.reward, config, seed=list(range(len(prompts))))
    images = []
    for b, prompt in enumerate(prompts):
        latents = problem.latents[b]
        draw = _noise(problem, b, latents)
        straight = replace(config, annealing=gamma, inner_decoder="full")
        images.append(published_loop.run(thing.stock, prompt, thing.forgetful_reward, latents, straight, draw).image)
    return torch.stack(images)


def _noise(problem: Problem, b: int, latents: Tensor) -> Callable[[int], Tensor]:
    return lambda i: randomness.seeded([problem.seeds[b]], i, latents[:1], len(latents))[0]


@contextmanager
def _compiled(network: Any, on: bool) -> Iterator[None]:
    """Compile the network inside the block if `on`."""
    if on:
        network.compile()
    yield
    network._compiled_call_impl = None


def about(found: Mapping[str, Any]) -> str:
    """Format the figures that do not depend on the number of prompts."""
    counts = found["flops"]
    lines = ["GFLOP per image: " + ", ".join(
        f"{name} {count / 1e9:.0f} ({counts['reference'] / count:.2f}×)" for name, count in counts.items()
    )]  # fmt: skip
    if "difference_by_threads" in found:
        lines.append(
            "Largest pixel difference between runs of the reference with different numbers of threads: "
            f"{found['difference_by_threads']:.1e}"
        )
    return "\n".join([*lines, ""])


def markdown(row: dict[str, Any]) -> str:
    """Format the table of one batch size, with the ratios."""
    ways = {name: row[name] for name in ("reference", "exact", "savings")}
    theirs = ways["reference"]
    lines = [f"| per image, in batches of {row['prompts']} | {' | '.join(ways)} |", "|---" * 4 + "|"]
    figures = {
        "seconds": ("seconds", "{:.2f}"), "peak_megabytes": ("peak memory, MiB", "{:.1f}"),
    }  # fmt: skip
    for key, (label, form) in figures.items():
        cells = [f"{form.format(way[key])} ({theirs[key] / way[key]:.2f}×)" for way in ways.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for name in sorted({part for way in ways.values() for part in way["rows"]}):
        counts = [f"{way['rows'].get(name, 0):.0f}" for way in ways.values()]
        lines.append(f"| {name} | {' | '.join(counts)} |")
    differences = ", ".join(f"{value:.0e}" for value in sorted(row["differences"]))
    lines += ["", f"Largest pixel difference between exact and reference, by image: {differences}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
