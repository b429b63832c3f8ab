"""`align`: from a prompt and a reward to aligned images and their null texts."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from nulltta import rewards
from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import transform
from nulltta.algorithm.memory import ANY_RUN, MicroBatch
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta, plain
from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import BASELINES
from nulltta.baselines.particles import refuse_null_text_settings
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, OnStep, Outcome, Reward, Step, Stream
from nulltta.display.notebook import ShownPicture, pictures_html
from nulltta.display.progress import watched
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue, out_of_memory_as_error
from nulltta.images import to_pil
from nulltta.models import load_model
from nulltta.models.nag import with_guidance
from nulltta.null_text.capture import about_model, null_texts
from nulltta.null_text.start import AnyStart, require_started, started
from nulltta.null_text.value import NullText
from nulltta.prompts import EncodedPrompt, require_prompts, require_text
from nulltta.rewards.compose import Custom, measured, parts, unmeasured
from nulltta.scoring import pick, score_finished

if TYPE_CHECKING:
    from PIL import Image

METHODS: Mapping[str, Callable[[Problem], Stream]] = {
    "null-tta": null_tta, "plain": plain, **{name: baseline.method for name, baseline in BASELINES.items()}
}  # fmt: skip
"""The methods by name."""
PLAIN_SAMPLES = 8
"""The plain samples per prompt, of seeds 0 to 7, from which z(reward) takes a prompt's mean and deviation."""

AnyReward: TypeAlias = str | Reward | Callable[[Tensor, Sequence[str]], Tensor]
"""What is accepted as a reward: a name, an expression, a `Reward` or a callable (images, prompts) -> (B,)."""


@dataclass(frozen=True, repr=False)
class Result:
    """The result of `align`. Images are (B, ..., 3, H, W) in [0, 1].

    Attributes:
        images: (B, 3, H, W), the aligned images.
        candidates: (B, K, 3, H, W), the last step's candidates, of which `images` are the best.
        rewards: (B,), of `images`.
        trace: one `Step` per denoising step, without previews.
        null_text: the learnt null text of each prompt; empty for methods that learn none.
        initial_rewards: (B, K), of the clean estimates of the initial latents; None if the method did not score them.
        problem: what the method was given, with the initial latents that were kept.
        latents: (B, C, h, w), what `images` were decoded from; None if the method does not return them.
        asked: the arguments of `align` that the problem does not hold, by name, for `save`.
    """

    images: Tensor
    candidates: Tensor
    rewards: Tensor
    trace: Sequence[Step]
    null_text: Sequence[NullText]
    initial_rewards: Tensor | None
    problem: Problem
    latents: Tensor | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def plain(self) -> Outcome:
        """Plain sampling from the same initial latents with the same kind of sampler and the first candidate's noise.

        It is computed when it is first read and takes 2T denoiser branches per prompt.

        Raises:
            OutOfMemory: if memory runs out.
        """
        problem = replace(self.problem, start=None)
        return MethodRun(plain(problem), problem).finish()

    @property
    def baseline(self) -> Tensor:
        """(B, 3, H, W), plain sampling's images."""
        return self.plain.candidates[:, 0]

    @property
    def baseline_rewards(self) -> Tensor:
        """(B,), plain sampling's rewards."""
        return self.plain.rewards[:, 0]

    @cached_property
    def reward_components(self) -> dict[str, Tensor]:
        """The scores (B,) of `images` under each part of a composed reward, by name, on the part's own scale."""
        return self._components(self.rewards, self.scored)

    @cached_property
    def baseline_components(self) -> dict[str, Tensor]:
        """The scores (B,) of plain sampling's images under each part of a composed reward, by name."""
        return self._components(self.baseline_rewards, self.baseline_scored)

    @torch.no_grad()
    def scored(self, reward: Reward) -> Tensor:
        """Score `images` by another reward: (B,), on the CPU.

        Raises:
            InvalidValue: if it reads latents and the method does not return them.
            RewardError: if it fails.
        """
        return _scores(self.problem, reward, self.images, self.latents, self.problem.prompts).cpu()

    @torch.no_grad()
    def baseline_scored(self, reward: Reward) -> Tensor:
        """Score plain sampling's images by another reward: (B,), on the CPU.

        Raises:
            RewardError: if it fails.
        """
        latents = None if self.plain.latents is None else self.plain.latents[:, 0]
        return _scores(self.problem, reward, self.baseline, latents, self.problem.prompts).cpu()

    def _components(self, values: Tensor, scored: Callable[[Reward], Tensor]) -> dict[str, Tensor]:
        found = parts(self.problem.reward)
        if found == {self.problem.reward.name: self.problem.reward}:
            return {self.problem.reward.name: values}
        return {name: scored(part) for name, part in found.items()}

    def pil(self) -> list[Image.Image]:
        """Return the images as PIL images."""
        return to_pil(self.images)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write what `nulltta align` writes: the plain and the aligned pictures, figures and result.json.

        The pictures hold their prompt, their seed and, where the model and the reward were given by name, the command
        that makes them again. Plain pictures are sampled for it if `plain` was not read before.

        Args:
            folder: where to write; it is created if it does not exist.
            overwrite: whether the results of another run in that folder may be replaced.

        Raises:
            InvalidValue: if a file cannot be written, or the folder holds another run.
        """
        # The writer belongs to the layer of runs, above this one, with all that draws its figures.
        import_module("nulltta.runs.saving").save(self, Path(folder), overwrite=overwrite)

    def __repr__(self) -> str:
        size, reward = "×".join(map(str, self.images.shape[-2:])), self.problem.reward.name
        values = ", ".join(f"{value:.4g}" for value in self.rewards.tolist())
        return f"Result of {len(self.images)} pictures of {size} pixels, {reward}: {values}"

    def _repr_html_(self) -> str:
        """Show plain and aligned pictures side by side in a notebook, sampling the plain ones if need be."""
        target = self.problem.reward.name
        rows = []
        for b, prompt in enumerate(self.problem.prompts):
            pair = (
                ("plain", self.baseline, {target: self.baseline_rewards, **self.baseline_components}),
                ("aligned", self.images, {target: self.rewards, **self.reward_components}),
            )
            shown = [
                ShownPicture(name, to_pil(images[b : b + 1])[0], {key: float(each[b]) for key, each in scores.items()})
                for name, images, scores in pair
            ]
            rows.append((prompt, shown))
        return pictures_html(rows)


def align(
    model: GuidedModel | Any,
    prompts: str | Sequence[str],
    reward: AnyReward,
    *,
    config: NullTTAConfig | None = None,
    method: str | Callable[[Problem], Stream] = "null-tta",
    seed: int | Sequence[int] = 0,
    negative_prompt: str | Sequence[str] = "",
    latents: Tensor | None = None,
    start: AnyStart | None = None,
    guard: None = None,
    on_step: OnStep | None = None,
    micro_batch: int | None = None,
    progress: bool | None = None,
) -> Result:
    """Sample images while raising their reward by optimising the null-text embedding (arXiv 2511.20889).

    Args:
        model: a `GuidedModel`, a live diffusers pipeline, or what `load_model` takes.
        prompts: one prompt, or a batch; a prompt's result does not depend on what else is in its batch.
        reward: a name, an expression ("0.7*clip + 0.3*colourfulness") or a callable
            (images (B, 3, H, W) in [0, 1], prompts) -> (B,).
        config: the settings; the model's preset if None.
        method: "null-tta", "plain", the name of one of `nulltta.baselines`, or any callable (Problem) -> Stream.
        seed: an int gives every prompt the same noise, as in a paired comparison; or one per prompt. Several seeds
            for a single prompt give several pictures of it.
        negative_prompt: the text of φ; one, or one per prompt. For empty ones see `NullTTAConfig.nag_null`.
        latents: initial latents (B, K, C, h, w), or (K, C, h, w) for one prompt, instead of the seed's.
        start: a null text that was learnt before (a `NullText`, a `FittedNullText` or a file of either), from which φ'
            starts at every denoising step; φ if None. The objective still holds φ' to φ. The method "plain" samples
            under it without optimising it.
        guard: always None. A reward that is only watched did no more than choosing among candidates (docs/log.md).
        on_step: called after each denoising step.
        micro_batch: how many prompts (with gradient) or candidates (without) go through the networks at once; all of
            them if None. Whatever it is, it is halved when memory runs out; results stay the same up to rounding.
        progress: whether to show a progress bar; None for yes in a notebook and on a terminal.

    Returns:
        The result. Ctrl-C in a notebook or an interactive console keeps the best so far, with a warning: the clean
        estimates after the last step, or the best iteration's images, and no null text.

    Raises:
        InvalidValue: if an argument is wrong.
        LoadError: if a model, a reward or a null text does not load.
        DoesNotFit: if the null text to start from was made for another model.
        RewardError: if the reward fails, is not finite, or gives no gradient although one is needed.
        OutOfMemory: if memory runs out even for a single prompt or candidate.
    """
    run = METHODS.get(method) if isinstance(method, str) else method
    if not callable(run):
        raise InvalidValue(f"must be one of {', '.join(METHODS)}, not {method!r}", "method")
    if guard is not None:
        raise InvalidValue(
            "is no longer offered: add it to the reward as a sum, or bound the step (kl_target)", "guard"
        )
    if start is not None:
        require_started(method)
    if method == "plain" and config is not None:
        refuse_null_text_settings(config)
    problem = make_problem(model, prompts, reward, config, seed, negative_prompt, latents, micro_batch, start)
    method_run = MethodRun(run(problem), problem)
    steps = expected_steps(method if isinstance(method, str) else "null-tta", problem.config)
    with watched(progress, problem.reward.name, steps) as show:
        outcome = _outcome(method_run, problem, show, on_step)
    result = as_result(problem, outcome, method_run.trace)
    return replace(result, asked={
        "reward": reward, "method": method, "negative_prompt": negative_prompt, "latents": latents is not None,
        "start": start,
    })  # fmt: skip


def _outcome(run: MethodRun, problem: Problem, show: OnStep, on_step: OnStep | None) -> Outcome:
    """Run a method to its end, or to the Ctrl-C of a user who sits before it; then return the best so far."""
    best: Step | None = None
    try:
        for step in run:
            if best is None or step.timestep > 0 or _mean_reward(step) >= _mean_reward(best):
                best = step
            show(step)
            if on_step is not None:
                on_step(step)
    except KeyboardInterrupt:
        if best is None or best.decode_preview is None or not hasattr(sys, "ps1"):
            raise
        run.close()
        warnings.warn(f"stopped after step {len(run.trace)}: the pictures are the best so far", stacklevel=3)
        return _outcome_so_far(problem, best)
    return run.outcome


def _mean_reward(step: Step) -> float:
    """Return the mean reward of what a step kept; the lowest number for a step that scored nothing."""
    return float(step.selected_rewards.mean()) if step.candidate_rewards.numel() else -math.inf


def _outcome_so_far(problem: Problem, step: Step) -> Outcome:
    """Return the clean estimates of a step as the outcome of a run that was stopped there."""
    images = step.preview
    assert images is not None
    scored = bool(step.candidate_rewards.numel())
    rewards = step.selected_rewards if scored else _scores(problem, problem.reward, images, None, problem.prompts)
    first = torch.zeros(len(images), dtype=torch.long)
    return Outcome(images[:, None], rewards[:, None], first, problem.latents[:, 0])


def expected_steps(method: str, config: NullTTAConfig) -> int:
    """Return how many `Step`s a method of `METHODS` yields for one batch, for progress bars."""
    T = config.num_inference_steps
    return BASELINES[method].steps(T) if method in BASELINES else T


def make_problem(
    model: GuidedModel | Any,
    prompts: str | Sequence[str],
    reward: AnyReward,
    config: NullTTAConfig | None = None,
    seed: int | Sequence[int] = 0,
    negative_prompt: str | Sequence[str] = "",
    latents: Tensor | None = None,
    micro_batch: int | None = None,
    start: AnyStart | None = None,
) -> Problem:
    """Return the `Problem` that `align`'s arguments state.

    Every z(...) of the reward that has no mean and deviation yet is measured, which takes 2T denoiser
    branches for each of `PLAIN_SAMPLES` images per prompt.

    Raises:
        InvalidValue: if an argument is wrong.
        LoadError: if a model, a reward or a null text does not load.
        DoesNotFit: if the null text to start from was made for another model.
        RewardError: if a z(...) cannot be measured.
        OutOfMemory: if memory runs out.
    """
    prompts = _texts(prompts, "a prompt")
    require_prompts(prompts)
    if len(prompts) == 1 and isinstance(seed, Sequence) and seed:
        prompts = prompts * len(seed)
    negatives = _texts(negative_prompt, "a negative prompt")
    negatives = negatives * len(prompts) if isinstance(negative_prompt, str) else negatives
    if len(negatives) != len(prompts):
        raise InvalidValue(f"{len(negatives)} negative prompts for {len(prompts)} prompts: give one, or one per prompt")
    seeds, memory = randomness.per_prompt_seeds(seed, len(prompts)), MicroBatch(micro_batch)
    with out_of_memory_as_error(*ANY_RUN):
        model = model if isinstance(model, GuidedModel) else load_model(model)
        config = config or NullTTAConfig.preset(model.name)
        model = with_guidance(model, config)
        _warn_of_unknown_words(model, prompts)
        cond, null = model.encode(prompts, config.negatives(prompts, negatives))
        reward = rewards.load(reward)
        reward.require_model(model)
        problem = Problem(
            model, prompts, cond, null, reward, config.resolved(differentiable=reward.differentiable), seeds,
            _initial_latents(model, seeds, config, latents).to(next(iter(null.values())).device),
            about=about_model(model, config.num_inference_steps), memory=memory,
            gradient_memory=MicroBatch(micro_batch, model.enable_checkpointing),
        )  # fmt: skip
        return _measured(problem if start is None else replace(problem, start=started(problem, start)))


def _texts(given: str | Sequence[str], what: str) -> list[str]:
    """Return one text or several as a list, each of them checked."""
    if isinstance(given, str) or hasattr(given, "shape"):  # a tensor would otherwise be taken apart
        given = [given]  # type: ignore[list-item]
    texts = list(given)
    for text in texts:
        require_text(text, what)
    return texts


def as_result(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> Result:
    """Return the `Result` of what a method did."""
    return Result(
        images=pick(outcome.candidates, outcome.selected),
        candidates=outcome.candidates,
        rewards=pick(outcome.rewards, outcome.selected),
        trace=trace,
        null_text=null_texts(problem, outcome, trace) if outcome.nulls else [],
        initial_rewards=outcome.initial_rewards,
        problem=replace(problem, latents=outcome.initial_latents[:, None]),
        latents=None if outcome.latents is None else pick(outcome.latents, outcome.selected),
    )


def _warn_of_unknown_words(model: GuidedModel, prompts: Sequence[str]) -> None:
    """Warn of words that a model of our own never saw: it draws something else in their place."""
    if (world := WORLDS.get(model.name)) is None:
        return
    texts = [prompt for prompt in prompts if not isinstance(prompt, EncodedPrompt)]
    if unknown := dict.fromkeys(word for text in texts for word in world.unknown_words(text)):
        named = ", ".join(map(repr, unknown))
        warnings.warn(f"the {model.name} model does not know {named}: it draws {world.draws}", stacklevel=3)


def _initial_latents(
    model: GuidedModel, seeds: Sequence[int], config: NullTTAConfig, given: Tensor | None
) -> Tensor:  # fmt: skip
    """Return the caller's latents, checked, or the seeds' own: (B, K, C, h, w)."""
    if given is None:
        return randomness.initial_latents(model, seeds, config.num_particles, config.num_inference_steps)
    shape = model.latent_shape
    latents = given[None] if given.dim() == len(shape) + 1 and len(seeds) == 1 else given
    expected = (len(seeds), config.num_particles, *shape)
    if tuple(latents.shape) != expected:
        raise InvalidValue(f"must have shape {expected}, not {tuple(given.shape)}", "latents")
    return latents.float()


def _measured(problem: Problem) -> Problem:
    """Measure every z(...) of the reward that has no mean and deviation yet."""
    if not unmeasured(problem.reward):
        return problem
    distinct = list(dict.fromkeys(problem.prompts))
    samples = [_plain_samples(problem, problem.prompts.index(prompt)) for prompt in distinct]
    images, latents = map(torch.cat, zip(*samples, strict=True))
    prompts = [prompt for prompt in distinct for _ in range(PLAIN_SAMPLES)]

    def scores(reward: Reward) -> Tensor:
        return _scores(problem, reward, images, latents, prompts)

    with torch.no_grad():
        reward = measured(problem.reward, scores, prompts)
    return replace(problem, reward=reward)


def _plain_samples(problem: Problem, b: int) -> tuple[Tensor, Tensor]:
    """Return plain samples of prompt b, whatever the run's seed and the rest of its batch: images (8, 3, H, W) and
    latents (8, C, h, w)."""
    seeds = list(range(PLAIN_SAMPLES))
    cond, null = (
        transform(branch, lambda t: t[b : b + 1].repeat_interleave(PLAIN_SAMPLES, 0))
        for branch in (problem.cond, problem.null)
    )
    steps = problem.config.num_inference_steps
    latents = randomness.initial_latents(problem.model, seeds, 1, steps).to(problem.latents)
    prompts, unused = [problem.prompts[b]] * PLAIN_SAMPLES, Custom(_zero, "none")
    single = replace(problem, prompts=prompts, cond=cond, null=null, reward=unused, seeds=seeds, latents=latents,
                     start=None)  # fmt: skip
    outcome = MethodRun(plain(single), single).finish()
    assert outcome.latents is not None
    return outcome.candidates[:, 0], outcome.latents[:, 0]


def _scores(p: Problem, reward: Reward, images: Tensor, latents: Tensor | None, prompts: Sequence[str]) -> Tensor:
    """Score images (N, 3, H, W) and the latents that they were decoded from, as many at once as fit into memory."""

    def of(rows: Tensor) -> Tensor:
        own = None if latents is None else latents[rows]
        return score_finished(reward, images[rows], own, [prompts[row] for row in rows.tolist()])

    return torch.cat(p.memory.map(of, len(images)))


def _zero(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.zeros(len(prompts), device=images.device)
