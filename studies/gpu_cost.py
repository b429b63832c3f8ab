"""What does an image cost on a GPU, at the sizes of Stable Diffusion 1.5 (512²) and SDXL (1024²)?

    python studies/gpu_cost.py [--model sd15 --model sdxl --device cuda --dtype bfloat16 --seconds 100]

The models have random weights, which cost what the published ones cost, and a ViT-H reward. For each of them the
script times one denoising step of the stock pipeline and of this package, one inner step with the full and with the
tiny decoder (also with activations recomputed), and one selection among 3 candidates; then short runs of 10 denoising
steps, of 3 inner steps and 3 candidates each, beside plain sampling and beside the published release's loop
(`nulltta.benchmark.costs.published_loop`). Whole runs are projected from the parts, and labelled as projected.

Every row is printed and written to studies/results/gpu_cost.json as soon as it is measured. A model stops taking new
rows after `--seconds`. Times are medians, after a warm-up and with the GPU synchronised. Memory is the peak of what a
row allocates beside what was there before it, which is the weights; on a CPU it is not measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.budget import evaluations
from nulltta.algorithm.gradients import ESTIMATORS
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.algorithm.optimiser import GradientAscent
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import look
from nulltta.alignment import make_problem
from nulltta.benchmark.costs import published_loop
from nulltta.benchmark.costs.stand_ins import MeasuredModel, measured_model
from nulltta.embedded.grammar import tuning_prompts
from nulltta.errors import first_line, is_out_of_memory
from nulltta.models import proof, tiny
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "gpu_cost.json"
STEPS, INNER, CANDIDATES = 10, 3, 3
"""The denoising steps of a short run, the inner steps of each of them, and the candidates."""
SIZES = {"sd15": "512²", "sdxl": "1024²", "embedded": "64²"}


def main(
    model: Annotated[list[str], typer.Option(help="sd15, sdxl or embedded; may be repeated")] = ["sd15", "sdxl"],  # noqa: B006
    device: str = "cuda",
    dtype: str = "bfloat16",
    seconds: Annotated[float, typer.Option(help="after how long a model takes no new rows")] = 100.0,
    repeats: Annotated[int, typer.Option(help="how often each part is timed")] = 7,
    out: Path = RESULTS,
) -> None:
    """Measure what parts of a run and short runs cost."""
    found: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "device": device_name(device), "dtype": dtype,
        "versions": record.versions(), "repeats": repeats,
        "short_run": {"denoising_steps": STEPS, "inner_steps": INNER, "candidates": CANDIDATES}, "models": {},
    }  # fmt: skip
    print(f"{found['device']}, torch {found['versions']['torch']}, {dtype}, {found['date']}")
    for name in model:
        rows: list[dict[str, Any]] = []
        found["models"][name] = rows
        print(f"\n{name}, {SIZES[name]}\n\n| | milliseconds | beside the weights, GiB | |", "|---" * 4 + "|", sep="\n")
        for row in measurements(name, torch.device(device), getattr(torch, dtype), seconds, repeats):
            rows.append(row)
            print(markdown(row), flush=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            record.save(found, out)


def measurements(
    name: str, device: torch.device, dtype: torch.dtype, seconds: float, repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model as they are measured."""
    meter = Meter(device, time.monotonic() + seconds, repeats)
    began = time.perf_counter()
    thing = measured_model(name, str(device), dtype)
    if device.type == "cuda":
        for network in (thing.pipeline.unet, thing.pipeline.vae):  # as `load_model` leaves them
            network.to(memory_format=torch.channels_last)
    yield meter.once("making the model", began)
    began = time.perf_counter()
    try:
        bench = Bench(thing, dtype)
    except NullTTAError as error:
        yield {"what": "observing and proving the model", "error": first_line(error)}
        proof.TOLERANCE = dict.fromkeys(proof.TOLERANCE, math.inf)  # what it costs does not depend on it
        bench = Bench(thing, dtype)
    yield meter.once("observing and proving the model, encoding a prompt", began)
    rows = {}
    for what, function in bench.parts().items():
        rows[what] = meter.row(what, function)
        yield rows[what]
    for what, function in bench.runs().items():
        rows[what] = meter.row(what, function, repeats=1, warm=False)
        yield rows[what]
    yield from ratios(rows)
    yield from projections(rows, thing)


@dataclass(frozen=True)
class Meter:
    """Times functions until a deadline.

    Attributes:
        device: where the work is done.
        deadline: `time.monotonic()` after which no further row is measured.
        repeats: how often a part is timed.
    """

    device: torch.device
    deadline: float
    repeats: int

    def once(self, what: str, began: float) -> dict[str, Any]:
        """Return the row of something that happened once and began at `time.perf_counter()` `began`."""
        self.synchronise()
        return {"what": what, "milliseconds": 1e3 * (time.perf_counter() - began)}

    def row(
        self, what: str, function: Callable[[], object], repeats: int | None = None, warm: bool = True
    ) -> dict[str, Any]:
        """Return the median time of a function and its peak of memory, or why there is none."""
        if time.monotonic() > self.deadline:
            return {"what": what, "skipped": "no time was left"}
        try:
            if warm:
                function()
            before = self.reset()
            times: list[float] = []
            while len(times) < (repeats or self.repeats) and not (times and time.monotonic() > self.deadline):
                self.synchronise()
                began = time.perf_counter()
                function()
                self.synchronise()
                times.append(1e3 * (time.perf_counter() - began))
        except (NullTTAError, RuntimeError) as error:
            self.reset()
            reason = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {first_line(error)}"
            return {"what": what, "error": reason}
        return {"what": what, "milliseconds": median(times), "all": times, **self.peak(before)}

    def synchronise(self) -> None:
        """Wait until the GPU has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset(self) -> int:
        """Start to measure memory anew; return the bytes that are allocated now."""
        if self.device.type != "cuda":
            return 0
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        return int(torch.cuda.memory_allocated(self.device))

    def peak(self, before: int) -> dict[str, float]:
        """Return the most GiB that were allocated beside `before` bytes; nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        peak = int(torch.cuda.max_memory_allocated(self.device))
        return {"peak_gib": (peak - before) / 2**30, "before_gib": before / 2**30}


class Bench:
    """One model's functions to time: the parts of a denoising step, and short runs."""

    def __init__(self, thing: MeasuredModel, dtype: torch.dtype) -> None:
        attach_tiny(thing)
        self.thing, self.dtype = thing, dtype
        self.config = replace(
            thing.config, num_inference_steps=STEPS, inner_steps=(INNER, INNER), num_particles=CANDIDATES,
            inner_decoder="full", optimise_between=(0.0, 1.0),
        )  # fmt: skip
        self.problem = make_problem(thing.model, tuning_prompts(1), thing.reward, self.config, seed=0)
        self.four = make_problem(thing.model, tuning_prompts(4), thing.reward, self.config, seed=[0, 1, 2, 3])
        self.stock = stock_of(thing)

    def parts(self) -> dict[str, Callable[[], object]]:
        """Return the parts of a denoising step by name."""
        one, four, model = self.problem, self.four, self.thing.model
        return {
            "denoising step under guidance, stock pipeline": self.stock_step,
            "denoising step under guidance, ours": partial(our_step, one),
            "one branch": partial(one_branch, one),
            "inner step, full decoder": partial(inner_step, one),
            "inner step, tiny decoder": partial(inner_step, one, "tiny"),
            "inner step, full decoder, denoiser recomputed": recomputing(model, partial(inner_step, one)),
            "inner step, full decoder, both recomputed": recomputing(model, partial(inner_step, one), decoder=True),
            f"selection among {CANDIDATES}": partial(selection, one),
            "inner step, full decoder, 4 prompts": partial(inner_step, four),
            "inner step, tiny decoder, 4 prompts": partial(inner_step, four, "tiny"),
            f"selection among {CANDIDATES}, 4 prompts": partial(selection, four),
        }

    def runs(self) -> dict[str, Callable[[], object]]:
        """Return the short runs by name."""
        none = replace(self.config, inner_steps=(0, 0))
        small = replace(self.config, inner_decoder="tiny")
        return {
            "run: plain sampling, 1 prompt": partial(self.align, 1, self.config, "plain"),
            "run: ours, 1 prompt": partial(self.align, 1, self.config),
            "run: published loop": partial(self.published, self.config),
            "run: published loop without inner steps": partial(self.published, none),
            "run: ours, tiny decoder, 1 prompt": partial(self.align, 1, small),
            "run: plain sampling, 4 prompts": partial(self.align, 4, self.config, "plain"),
            "run: ours, 4 prompts": partial(self.align, 4, self.config),
            "run: ours, tiny decoder, 4 prompts": partial(self.align, 4, small),
        }

    @torch.no_grad()
    def stock_step(self) -> Tensor:
        """Take one step as a stock call does: both branches in one call, guidance, the scheduler's step."""
        scheduler, p = self.stock.scheduler, self.problem
        scheduler.set_timesteps(STEPS)
        t = scheduler.timesteps[0]
        x = p.latents[:, 0].to(self.dtype)
        tokens = torch.cat([tokens_of(p.null), tokens_of(p.cond)]).to(self.dtype)
        null, cond = self.stock.unet(torch.cat([x, x]), t, encoder_hidden_states=tokens).sample.chunk(2)
        found: Tensor = scheduler.step(null + self.config.guidance_scale * (cond - null), t, x).prev_sample
        return found

    def align(self, count: int, config: NullTTAConfig, method: str = "null-tta") -> None:
        """Sample that many prompts in one batch."""
        seeds = list(range(count))
        align(
            self.thing.model, tuning_prompts(count), self.thing.reward, config=config, method=method, seed=seeds,
            progress=False,
        )  # fmt: skip

    def published(self, config: NullTTAConfig) -> None:
        """Sample one prompt with the published release's loop."""
        latents, published = self.problem.latents[0].to(self.dtype), replace(config, annealing=0.008)
        published_loop.run(self.stock, tuning_prompts(1)[0], self.thing.forgetful_reward, latents, published)


def stock_of(thing: MeasuredModel) -> Any:
    """Return the stock pipeline as the published loop calls it; SDXL's pooled embeddings are zeros there."""
    pipeline = thing.stock
    if pipeline.unet.config.addition_embed_type != "text_time":
        return pipeline

    def unet(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Any:
        added = {"text_embeds": x.new_zeros(len(x), 1280), "time_ids": x.new_zeros(len(x), 6)}
        return pipeline.unet(x, t, encoder_hidden_states=encoder_hidden_states, added_cond_kwargs=added)

    def encode_prompt(prompt: str, device: Any, *_: Any, negative_prompt: str) -> tuple[Tensor, Tensor]:
        cond, null = pipeline.encode_prompt(prompt, device=device, negative_prompt=negative_prompt)[:2]
        return cond, null

    return SimpleNamespace(scheduler=pipeline.scheduler, vae=pipeline.vae, unet=unet, encode_prompt=encode_prompt)


def attach_tiny(thing: MeasuredModel) -> None:
    """Give a model with random weights a tiny decoder with random weights."""
    from diffusers import AutoencoderTiny

    if getattr(thing.model, "tiny_decoder", None) is not None:
        return
    unet = thing.pipeline.unet
    with torch.device(unet.device):
        decoder = AutoencoderTiny()
    tiny.attach(thing.model, decoder.to(unet.dtype).eval().requires_grad_(False))


def tokens_of(embedding: Any) -> Tensor:
    """Return what the denoiser attends to."""
    tokens: Tensor = embedding["encoder_hidden_states"]
    return tokens


@torch.no_grad()
def our_step(p: Problem) -> Tensor:
    """Take one step as plain sampling does."""
    x, step = p.latents[:, 0], p.schedule()[0]
    null, cond = predict_branches(p.model, x, step, p.null, p.cond)
    mean, std = p.model.step_distribution(x, p.model.guide(null, cond, p.config.guidance_scale), step)
    return mean + std * p.noise(0, step, x, 1)[:, 0]


@torch.no_grad()
def one_branch(p: Problem) -> Tensor:
    """Evaluate one branch of the denoiser."""
    return p.model.predict(p.latents[:, 0], p.schedule()[0], p.null)


@torch.no_grad()
def inner_step(p: Problem, detail: str = "full") -> None:
    """Take one inner step: the objective and its gradient at φ, and Adam's step."""
    config, x, step = replace(p.config, inner_decoder=detail), p.latents[:, 0], p.schedule()[0]  # type: ignore[arg-type]
    still = torch.zeros_like(x)  # stands for the branches that are computed once per step
    objective = Objective(p.model, p.reward, p.prompts, config, step, x, still, still, p.null, 1.0)
    ascent = GradientAscent(p.null, ESTIMATORS["autograd"](config, p.model), config.learning_rate)
    ascent.step(objective, p.null, p.generators(0, "gradient"))


@torch.no_grad()
def selection(p: Problem) -> None:
    """Score the candidates of one step: both branches, decoder and reward."""
    look(p, p.latents, p.schedule()[0], p.null)


def recomputing(model: Any, function: Callable[[], object], decoder: bool = False) -> Callable[[], object]:
    """Return a function with the denoiser's activations recomputed in the backward pass, and maybe the decoder's."""

    def recomputed() -> None:
        with _recomputing(model, decoder):
            function()

    return recomputed


@contextmanager
def _recomputing(model: Any, decoder: bool) -> Iterator[None]:
    before = model.recompute, model.recompute_decoder
    model.recompute, model.recompute_decoder = True, decoder
    try:
        yield
    finally:
        model.recompute, model.recompute_decoder = before


def ratios(rows: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield ratios of rows that were measured."""
    stock, ours = (f"denoising step under guidance, {whose}" for whose in ("stock pipeline", "ours"))
    pairs = {
        "our denoising step over the stock one": (ours, stock),
        "the published loop over ours, 1 prompt": ("run: published loop", "run: ours, 1 prompt"),
        "ours over plain sampling, 1 prompt": ("run: ours, 1 prompt", "run: plain sampling, 1 prompt"),
        "ours over plain sampling, 4 prompts": ("run: ours, 4 prompts", "run: plain sampling, 4 prompts"),
    }
    for what, (above, below) in pairs.items():
        if (a := took(rows, above)) and (b := took(rows, below)):
            yield {"what": f"ratio: {what}", "ratio": a / b}
    if (a := took(rows, "run: published loop")) and (b := took(rows, "run: ours, 4 prompts")):
        yield {"what": "ratio: the published loop over ours, per image of 4 prompts", "ratio": 4 * a / b}


def projections(rows: dict[str, dict[str, Any]], thing: MeasuredModel) -> Iterator[dict[str, Any]]:
    """Yield the seconds of whole runs, projected from the parts."""
    published = NullTTAConfig(inner_steps=(5, 55))
    preset = NullTTAConfig.preset(thing.model.name)
    for label, config in (("published settings (100 steps of 5 to 55)", published), ("the family's preset", preset)):
        T, K = config.num_inference_steps, config.num_particles
        inner, without = evaluations(config)
        branch, select = took(rows, "one branch"), took(rows, f"selection among {CANDIDATES}")
        for detail in ("full", "tiny"):
            if branch and select and (each := took(rows, f"inner step, {detail} decoder")):
                spent = inner * each + T * select * K / CANDIDATES + (without - 2 * K * T) * branch
                yield projected(f"ours, {detail} decoder, {label}", config, spent)
        whole, rest = took(rows, "run: published loop"), took(rows, "run: published loop without inner steps")
        if whole and rest:
            spent = T * rest / STEPS + inner * (whole - rest) / (STEPS * INNER)
            yield projected(f"published loop, {label}", config, spent)


def projected(what: str, config: NullTTAConfig, milliseconds: float) -> dict[str, Any]:
    """Return the row of a run that was not made."""
    settings = {"denoising_steps": config.num_inference_steps, "inner_steps": evaluations(config)[0]}
    return {"what": f"projected: {what}", "seconds": milliseconds / 1e3, **settings}


def took(rows: dict[str, dict[str, Any]], what: str) -> float:
    """Return the milliseconds of a row; 0 if it was not measured."""
    return float(rows.get(what, {}).get("milliseconds", 0.0))


def device_name(device: str) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def markdown(row: dict[str, Any]) -> str:
    """Format one row."""
    note = row.get("error") or row.get("skipped") or ""
    if "ratio" in row:
        note = f"{row['ratio']:.2f}×"
    if "seconds" in row:
        note = f"{row['seconds']:.0f} s for {row['denoising_steps']} denoising steps, {row['inner_steps']} inner steps"
    cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, digits in (("milliseconds", 1), ("peak_gib", 2))]
    return f"| {row['what']} | {' | '.join(cells)} | {note} |"


if __name__ == "__main__":
    typer.run(main)
