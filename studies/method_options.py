"""Which options of the method help? Each alone and in combination, at equal cost, on tuning prompts.

    python studies/method_options.py [--prompts 24 --budget 200] [--only "the preset, tuned"]
    python studies/method_options.py --model scenes --prompts 36 --batch-size 12 --against plain

Every arm samples the same tuning prompts, each prompt from a noise of its own, with at most the budget of denoiser
evaluations per image, counted while it samples. The script prints a Markdown table of the differences from one of the
arms, in hundredths of each measure, paired by prompt, with 95% bootstrap intervals, and writes
studies/results/method_options.json, or method_options_scenes.json; an arm that the file holds already, with the same
settings, is not run again.

`Variant` is Null-TTA's loop with the options that the package does not have: normalised gradient steps in place of
Adam, several candidates at some of the denoising steps only, φ' held within its bound after every inner step, and an
objective that looks several denoising steps ahead at early ones.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm import schedules
from nulltta.algorithm.embeddings import free, transform
from nulltta.algorithm.gradients import Function, autograd
from nulltta.algorithm.objective import Objective, Terms, predict_branches
from nulltta.algorithm.optimiser import GradientAscent, ascend
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.randomness import initial_latents, own_seed
from nulltta.algorithm.sampling import null_tta, plain
from nulltta.algorithm.tilt import tilted
from nulltta.algorithm.trust_region import within
from nulltta.algorithm.views import clean_slope, look, predicted, preview
from nulltta.baselines import DNO, DPS, BestOfN, FKSteering, NoiseTilt, ReNO
from nulltta.baselines.particles import move, predict
from nulltta.benchmark.contenders import filled
from nulltta.benchmark.counting import counted
from nulltta.benchmark.repeated import BestOf
from nulltta.contracts import Embedding, GuidedModel, ModelWrapper, NoiseStep, Outcome, Step, Stream
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.runs import record
from nulltta.scoring import greedy, pick

RESULTS = Path(__file__).parent / "results"
UNITS = {"embedded": 0.033, "scenes": 0.07642}
"""The standard deviation of a world's target over plain samples of its tuning prompts, in which settings are given."""


class NormalisedAscent:
    """Steps along the normalised gradient with momentum, each as long as Adam's first: rate·√D over D numbers."""

    def __init__(self, null: Embedding, learning_rate: float, momentum: float = 0.5) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity = transform(free(null), torch.zeros_like)

    def step(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor]:
        terms, gradient = autograd(objective, null, generators)
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradient.values()]).sum(0).sqrt().clamp(min=1e-20)
        numbers = sum(value[0].numel() for value in gradient.values())
        moved = dict(null)
        for name, g in gradient.items():
            unit = g / norm.view(-1, *[1] * (g.dim() - 1)) * numbers**0.5
            self.velocity[name] = self.momentum * self.velocity[name] + (1 - self.momentum) * unit
            moved[name] = null[name] + self.learning_rate * self.velocity[name]
        return moved, terms.reward


class Held:
    """An ascent whose φ' is drawn back towards φ after each step, by the divergence before the step."""

    def __init__(
        self, start: Callable[[Embedding], Any], origin: Embedding, kl_target: float | None, null: Embedding
    ) -> None:
        self.inner, self.origin = start(null), origin
        self.kl_target = math.inf if kl_target is None else kl_target

    def step(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor]:
        spent: list[Tensor] = []

        def watched(null: Embedding) -> Terms:
            terms = objective(null)
            spent.append(terms.kl.detach())
            return terms

        moved, rewards = self.inner.step(watched, null, generators)
        shrink = (self.kl_target / spent[-1].clamp(min=1e-9)).sqrt().clamp(max=1)
        for name, value in free(moved).items():
            start = self.origin[name]
            moved[name] = start + shrink.view(-1, *[1] * (value.dim() - 1)) * (value - start)
        return moved, rewards


@dataclass(frozen=True, kw_only=True)
class Ahead(Objective):
    """J whose clean estimate is taken after deterministic denoising steps under φ' to the noise levels `further`."""

    cond: Embedding
    further: Sequence[NoiseStep] = ()

    def __call__(self, null: Embedding) -> Terms:
        watched = replace(self, model=_Watched(self, null))
        return Objective.__call__(watched, null)


class _Watched(ModelWrapper):
    """A model whose clean estimate looks ahead."""

    def __init__(self, ahead: Ahead, null: Embedding) -> None:
        super().__init__(ahead.model)
        self.ahead, self.null = ahead, null

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        x0 = self.model.predict_x0(x, prediction, step)
        for following in self.ahead.further:
            noise = (x - step.alpha_bar**0.5 * x0) / (1 - step.alpha_bar) ** 0.5
            x = following.alpha_bar**0.5 * x0 + (1 - following.alpha_bar) ** 0.5 * noise
            eps = self.model.guide(
                *predict_branches(self.model, x, following, self.null, self.ahead.cond),
                self.ahead.config.guidance_scale,
            )
            x0, step = self.model.predict_x0(x, eps, following), following
        return x0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Null-TTA with further options.

    Attributes:
        normalised: take normalised gradient steps instead of Adam's.
        choose: (from, to), the share of the denoising steps at which `num_particles` candidates are drawn; one
            elsewhere.
        ahead: how many denoising steps the objective looks ahead, itself included.
        until: the share of the denoising steps up to which it does.
        hold: draw φ' back towards φ after every inner step, by the divergence that the step saw, as far as the
            `kl_target` takes, and not only after the last one. It costs nothing, but needs conventions "exact".
        budget: the most denoiser evaluations per prompt.
    """

    normalised: bool = False
    choose: tuple[float, float] = (0.0, 1.0)
    ahead: int = 1
    until: float = 0.0
    hold: bool = False
    budget: int = 200

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, cfg, s = problem, problem.config, problem.config.guidance_scale
        T, steps, gamma = (
            cfg.num_inference_steps,
            p.schedule(),
            schedules.annealing_coefficient(cfg.annealing, len(p.schedule())),
        )
        counts, drawn = self.planned(cfg), self.candidates(cfg)
        start: Any = partial(NormalisedAscent, learning_rate=cfg.learning_rate) if self.normalised else (
            lambda null: GradientAscent(null, autograd, cfg.learning_rate)
        )  # fmt: skip
        if self.hold:
            start = partial(Held, start, p.null, cfg.kl_target)
        null, moved = dict(p.null), False
        view = look(p, p.latents[:, : drawn[0]], steps[0], null)
        selected = greedy(view.rewards)
        x, eps, eps_cond = (pick(v, selected) for v in (p.latents[:, : drawn[0]], view.eps_null, view.eps_cond))
        initial = x
        for i, (step, n, K) in enumerate(zip(steps, counts, drawn, strict=True)):
            eps_null = predicted(p.model, p.memory, x, step, p.null) if moved or n else eps
            anneal = schedules.regularisation(i, gamma)
            objective = Ahead(
                model=p.model, reward=p.reward, prompts=p.prompts, config=cfg, step=step, x=x, eps_cond=eps_cond,
                eps_null=eps_null, null=p.null, anneal=anneal, cond=p.cond, further=self._further(steps, i),
            )  # fmt: skip
            null, inner = ascend(objective, null, start, steps=n, generators=p.generators(i, "gradient"))
            if n:
                moved = True
                eps = predicted(p.model, p.memory, x, step, null)
            kl = objective.kl(eps)
            if cfg.kl_target is not None and moved:
                null, eps, kl = within(objective, null, eps, cfg.kl_target)
            mean, std = p.model.step_distribution(x, p.model.guide(eps, eps_cond, s), step)
            noise = p.noise(i, step, x, K)
            if cfg.noise_tilt and n and std > 0:
                noise = tilted(noise, clean_slope(p, x, step, eps, eps_cond), cfg.noise_tilt)
            latents = mean[:, None] + std * noise
            view = look(p, latents, steps[i + 1] if i + 1 < T else None, null)
            selected = greedy(view.rewards)
            x, eps, eps_cond = (pick(values, selected) for values in (latents, view.eps_null, view.eps_cond))
            yield Step(i, step.timestep, inner, view.rewards, selected, kl.cpu(), preview(p, view, selected))
        return Outcome(view.images, view.rewards, greedy(view.rewards), initial, latents=view.x0)

    def candidates(self, config: NullTTAConfig) -> list[int]:
        """Return how many candidates each denoising step draws."""
        T = config.num_inference_steps
        first, end = (round(share * T) for share in self.choose)
        return [config.num_particles if first <= i < end else 1 for i in range(T)]

    def planned(self, config: NullTTAConfig) -> list[int]:
        """Return as many inner steps of each denoising step as the budget covers, in proportion to n_i."""
        shape = [30 * n for n in schedules.inner_step_counts(config)]
        steps = range(sum(shape) + 1)
        return schedules.afforded(
            shape, max(n for n in steps if self._cost(config, schedules.afforded(shape, n)) <= self.budget)
        )

    def _cost(self, config: NullTTAConfig, counts: Sequence[int]) -> int:
        """Return the evaluations per prompt; a projection is counted once per step, as it usually is."""
        drawn, optimised = self.candidates(config), [i for i, n in enumerate(counts) if n]
        after = len(counts) - optimised[0] if optimised else 0
        inner = sum(n * (2 + 4 * (self._reach(len(counts), i) - 1)) for i, n in enumerate(counts))
        projected = 0 if config.kl_target is None else after
        return inner + 2 * (drawn[0] + sum(drawn[:-1])) + after + len(optimised) + projected

    def _reach(self, T: int, i: int) -> int:
        """Return how many denoising steps, itself included, the objective of the i-th one takes."""
        return min(self.ahead, T - i) if i < round(self.until * T) else 1

    def _further(self, steps: Sequence[NoiseStep], i: int) -> list[NoiseStep]:
        """Return the noise levels beyond the i-th at which the objective predicts, spread over what is left."""
        reach, left = self._reach(len(steps), i), len(steps) - i
        return [steps[i + left * k // reach] for k in range(1, reach)]


@dataclass(frozen=True)
class RolledOut:
    """A method that starts from the best of several initial latents, by the reward of plain samples of a few steps.

    It costs 2·starts·steps evaluations beside the method's own.

    Attributes:
        method: what runs from there.
        starts: how many initial latents are tried.
        steps: the denoising steps of the plain samples, whose η is 0.
    """

    method: Callable[[Problem], Stream]
    starts: int
    steps: int = 5

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        short = replace(problem.config, num_inference_steps=self.steps, eta=0.0, kl_target=None, noise_tilt=0.0)
        p, T = replace(problem, config=short), problem.config.num_inference_steps
        x = starts = initial_latents(p.model, p.seeds, self.starts, T).to(p.latents)
        for step in p.schedule():
            x, _ = move(p, x, predict(p, x, step), step)
        best = pick(starts, greedy(look(p, x, None).rewards))
        K = problem.config.num_particles
        return (yield from self.method(replace(problem, latents=torch.stack([best] * K, 1))))


TUNED: dict[str, Any] = {"reward_weight": 5.0, "kl_weight": 0.008, "learning_rate": 0.025, "num_particles": 2}
NEXT: dict[str, Any] = {"num_inference_steps": 10, "kl_target": 2.0, "num_particles": 1, "optimise_between": (0.6, 1.0)}
HELD: dict[str, Any] = {"kl_target": 2.0, "conventions": "exact", "num_particles": 1}
EARLY: dict[str, Any] = {"num_inference_steps": 10, "optimise_between": (0.3, 1.0)}
ARMS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "the preset, tuned": ({}, {}),
    "K = 1": ({"num_particles": 1}, {}),
    "K = 1, tilt 0.3": ({"num_particles": 1, "noise_tilt": 0.3}, {}),
    "K = 2, tilt 0.3": ({"noise_tilt": 0.3}, {}),
    "K = 1, tilt 0.3, held within 2 nats": ({**HELD, "noise_tilt": 0.3}, {"hold": True}),
    "T = 10, normalised, held within 2 nats, K = 1, tilt 0.3": (
        {**NEXT, **HELD, "noise_tilt": 0.3}, {"normalised": True, "hold": True},
    ),
    "T = 10, K = 1, tilt 0.3": ({"num_particles": 1, "num_inference_steps": 10, "noise_tilt": 0.3}, {}),
    "K = 1, tilt 0.3, window 0.3 to 1": ({"num_particles": 1, "optimise_between": (0.3, 1.0), "noise_tilt": 0.3}, {}),
    "T = 10, normalised, kl_target 2, K = 1": (NEXT, {"normalised": True}),
    "window 0.3 to 0.8": ({"optimise_between": (0.3, 0.8)}, {}),
    "K = 1, tilt 0.5": ({"num_particles": 1, "noise_tilt": 0.5}, {}),
    "T = 10": ({"num_inference_steps": 10}, {}),
    "T = 10, window 0.3 to 1": (EARLY, {}),
    "T = 10, window 0.3 to 1, 2 steps ahead until 0.6": (EARLY, {"ahead": 2, "until": 0.6}),
    "T = 10, window 0.3 to 1, 4 steps ahead until 0.6": (EARLY, {"ahead": 4, "until": 0.6}),
    "K = 3 in the first 40%": ({"num_particles": 3}, {"choose": (0.0, 0.4)}),
    "K = 3 in the last 40%": ({"num_particles": 3}, {"choose": (0.6, 1.0)}),
    "normalised": ({}, {"normalised": True}),
    "kl_target 2": ({"kl_target": 2.0}, {}),
}  # fmt: skip
"""The settings of `NullTTAConfig` and of `Variant` that each arm changes."""
TEN: dict[str, Any] = {"num_inference_steps": 10}
FIVE: dict[str, Any] = {"num_inference_steps": 5, "eta": 0.0}
RIVALS: Mapping[str, tuple[Mapping[str, Any], Callable[[float], Any]]] = {
    "NTRK, best of 2": ({}, lambda _: BestOf(NoiseTilt(strength=0.3), 2)),
    "DPS, best of 2": ({}, lambda unit: BestOf(DPS(scale=2.0 / unit), 2)),
    "plain": ({}, lambda _: plain),
    "plain, T = 5, η = 0": (FIVE, lambda _: plain),
    "best of 20, T = 5, η = 0": (FIVE, lambda _: BestOfN(samples=20)),
    "best of 10, T = 10": (TEN, lambda _: BestOfN(samples=10)),
    "FK, 10 particles, T = 10": (
        TEN,
        lambda unit: FKSteering(particles=10, reward_weight=3.0 / unit, potential="difference"),
    ),
    "NTRK 0.5, best of 5, T = 10": (TEN, lambda _: BestOf(NoiseTilt(strength=0.5), 5)),
    "NTRK 0.8, best of 5, T = 10": (TEN, lambda _: BestOf(NoiseTilt(strength=0.8), 5)),
    "NTRK 0.5, best of 10, T = 5": ({**TEN, "num_inference_steps": 5}, lambda _: BestOf(NoiseTilt(strength=0.5), 10)),
    "DPS, best of 5, T = 10": (TEN, lambda unit: BestOf(DPS(scale=2.0 / unit), 5)),
    "DNO, T = 5": ({**FIVE, "eta": 1.0}, lambda _: DNO(learning_rate=0.1, regularisation=0.0, iterations=9)),
    "ReNO, T = 5, η = 0": (FIVE, lambda unit: ReNO(reward_weight=1.0 / unit, learning_rate=80.0, iterations=9)),
}
"""The settings of `NullTTAConfig` that each rival changes, and the rival for a target's standard deviation."""
ONE: dict[str, Any] = {**TUNED, "num_particles": 1}
TILTED: dict[str, Any] = {**ONE, "noise_tilt": 0.5, "optimise_between": (0.0, 1.0), "inner_steps": (1, 1)}
ROLLED: dict[str, Any] = {**ONE, "num_inference_steps": 10, "eta": 0.0, "optimise_between": (0.3, 1.0)}
COMPOSED: Mapping[str, tuple[Mapping[str, Any], Callable[[Any], Any], int]] = {
    "T = 10, K = 1, tilt 0.5, best of 3": ({**TILTED, **TEN}, lambda method: BestOf(method, 3), 66),
    "10 rollouts, then T = 10, η = 0, K = 1": (ROLLED, lambda method: RolledOut(method, 10), 100),
    "14 rollouts, then T = 10, η = 0, K = 1": (ROLLED, lambda method: RolledOut(method, 14), 60),
    "10 rollouts, then T = 5, η = 0, K = 1": (
        {**ROLLED, "num_inference_steps": 5, "optimise_between": (0.0, 1.0)},
        lambda method: RolledOut(method, 10),
        100,
    ),
    "10 rollouts, then T = 10, K = 1, tilt 0.5": (
        {**ONE, **TEN, "noise_tilt": 0.5, "optimise_between": (0.0, 1.0)},
        lambda method: RolledOut(method, 10),
        100,
    ),
}
"""Null-TTA inside another method: its settings, what is made of it, and the evaluations per run out of 200."""
NAMES = (*ARMS, *RIVALS, *COMPOSED)


def method_options(
    prompts: int = 24,
    budget: int = 200,
    draw: int = 0,
    batch_size: int = 8,
    only: Annotated[list[str] | None, typer.Option(help="Run these arms again, and no others.")] = None,
    against: Annotated[str, typer.Option(help="The arm that the others are compared with.")] = "the preset, tuned",
    model: str = "embedded",
    out: Annotated[Path | None, typer.Option(help="Where the rows are kept.")] = None,
) -> None:
    """Run the missing arms, then print all."""
    out = out or RESULTS / ("method_options.json" if model == "embedded" else f"method_options_{model}.json")
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"arms": {}}
    loaded, world = nulltta.load_model(model), WORLDS[model]
    chosen = world.tuning_prompts(prompts)
    measures = {world.target: rewards.load(world.target), **held_out_measures(loaded)}
    for name in only or NAMES:
        config, method = made(name, model, budget)
        asked = json.loads(json.dumps({
            "config": asdict(config), "method": named(method), "prompts": chosen,
            "draw": draw, "batch_size": batch_size,
        }))  # fmt: skip
        there = found["arms"].get(name)
        if not only and there and there["asked"] == asked:
            continue
        row = run(loaded, chosen, measures, world.target, config, method, draw, batch_size)
        found["arms"][name] = {"asked": asked, **row}
        found |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions()}
        out.parent.mkdir(parents=True, exist_ok=True)
        record.save(found, out)
        print(f"{name}: {row['evaluations']:.0f} evaluations, {row['seconds']:.1f} s", file=sys.stderr, flush=True)
    print(table({name: found["arms"][name] for name in NAMES if name in found["arms"]}, against))


def named(method: Any) -> str:
    """Return a method's name with its settings, without the addresses of functions, which differ between runs."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", getattr(method, "__name__", repr(method)))


def made(name: str, model: str, budget: int) -> tuple[NullTTAConfig, Any]:
    """Return the configuration and the method of an arm."""
    unit = UNITS[model]

    def preset(settings: Mapping[str, Any]) -> NullTTAConfig:
        weight = {"reward_weight": settings["reward_weight"] / unit} if "reward_weight" in settings else {}
        return NullTTAConfig.preset(model, **{**settings, **weight})

    if name in RIVALS:
        settings, rival = RIVALS[name]
        return preset(settings), rival(unit)
    if name in COMPOSED:
        settings, compose, part = COMPOSED[name]
        return filled(preset(settings), part * budget // 200), compose(null_tta)
    changes, options = ARMS[name]
    config = preset({**TUNED, **changes})
    if options or config.kl_target is not None:
        return config, Variant(**options, budget=budget)
    return filled(config, budget), null_tta


def run(
    model: GuidedModel, prompts: Sequence[str], measures: Mapping[str, Any], target: str, config: NullTTAConfig,
    method: Any, draw: int, batch: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the scores of one arm by measure and prompt, its evaluations, nats and CPU seconds per prompt."""
    scores: dict[str, list[float]] = {name: [] for name in measures}
    nats: list[float] = []
    total, seconds = 0, 0.0
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        began = time.process_time()
        with counted(model) as evaluations:
            result = nulltta.align(
                model, part, measures[target], config=config, method=method, seed=[own_seed(draw, p) for p in part]
            )
            images = result.images
        seconds, total = seconds + time.process_time() - began, total + evaluations.total
        nats += torch.stack([step.kl for step in result.trace]).sum(0).tolist()
        with torch.no_grad():
            for name, measure in measures.items():
                scores[name] += measure(images, part).tolist()
    scores["all right"] = [float(share > 0.999) for share in scores["facts"]]
    return {"scores": scores, "kl": nats, "evaluations": total / len(prompts), "seconds": seconds / len(prompts)}


def table(arms: Mapping[str, Any], first: str) -> str:
    """Format one row per arm: its cost, its nats, and its difference from the arm `first` in each measure."""
    names = list(arms[first]["scores"])
    lines = [f"| | evaluations | CPU seconds | nats | {' | '.join(f'Δ {name}, hundredths' for name in names)} |"]
    lines.append("|---" * (len(names) + 4) + "|")
    for arm, row in arms.items():
        cells = []
        for name in names:
            gain = paired_gain(arms[first]["scores"][name], row["scores"][name], np.random.default_rng(0))
            mean, low, high = 100 * gain.mean, 100 * gain.low, 100 * gain.high
            cells.append(f"({100 * gain.plain:.2f})" if arm == first else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        cost = f"{row['evaluations']:.0f} | {row['seconds']:.1f} | {np.mean(row['kl']):.1f}"
        lines.append(f"| {arm} | {cost} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(method_options)
