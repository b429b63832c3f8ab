"""`align`: a prompt and a reward in, aligned images and their null texts out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nulltta import rewards
from nulltta.algorithm import randomness
from nulltta.algorithm.memory import MicroBatch, is_out_of_memory
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta, plain
from nulltta.baselines import BASELINES
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, OnStep, Outcome, Reward, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.images import save_png, to_pil
from nulltta.models import load_model
from nulltta.null_text.capture import null_texts
from nulltta.null_text.value import NullText
from nulltta.rewards.compose import parts
from nulltta.scoring import pick, score
from nulltta.standardise import standardised

if TYPE_CHECKING:
    from PIL import Image

METHODS: Mapping[str, Callable[[Problem], Stream]] = {"null-tta": null_tta, "plain": plain, **BASELINES}


@dataclass(frozen=True)
class Result:
    """What a run made. Images are (B, ..., 3, H, W) in [0, 1].

    Attributes:
        candidates: (B, K, 3, H, W), the last step's, of which `images` are the best.
        rewards: (B,), of `images`.
        trace: one `Step` a denoising step, without previews.
        null_text: the learnt null text of each prompt.
        initial_rewards: (B, K), of the initial latents' clean estimates, where the method scored them.
    """

    images: Tensor
    candidates: Tensor
    rewards: Tensor
    trace: Sequence[Step]
    null_text: Sequence[NullText]
    initial_rewards: Tensor | None
    problem: Problem = field(repr=False)

    @cached_property
    def plain(self) -> Outcome:
        """Ordinary sampling of the same prompts from the same initial latents with the same kind of sampler and
        the first candidate's noise: sampled when first asked for, 2T denoiser branches a prompt."""
        return drain(plain(self.problem), lambda _: None)[0]

    @property
    def baseline(self) -> Tensor:
        """(B, 3, H, W): plain sampling's images."""
        return self.plain.candidates[:, 0]

    @property
    def baseline_rewards(self) -> Tensor:
        """(B,): plain sampling's rewards."""
        return self.plain.rewards[:, 0]

    @cached_property
    def reward_components(self) -> dict[str, Tensor]:
        """(B,) by name: what each part of a composed reward gives `images`, on its own scale."""
        return self._components(self.images, self.rewards)

    @cached_property
    def baseline_components(self) -> dict[str, Tensor]:
        """(B,) by name: the same of plain sampling's images."""
        return self._components(self.baseline, self.baseline_rewards)

    @torch.no_grad()
    def _components(self, images: Tensor, values: Tensor) -> dict[str, Tensor]:
        found = parts(self.problem.reward)
        if found == {self.problem.reward.name: self.problem.reward}:
            return {self.problem.reward.name: values}
        return {name: score(part, images, self.problem.prompts).cpu() for name, part in found.items()}

    def pil(self) -> list[Image.Image]:
        """The images, as PIL's."""
        return to_pil(self.images)

    def save(self, folder: str | Path) -> None:
        """Write the images as 000.png, 001.png, ... into a folder, made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(self.pil()):
            save_png(image, folder / f"{index:03d}.png")


def align(
    model: GuidedModel | Any,
    prompts: str | Sequence[str],
    reward: str | Reward | Callable[[Tensor, Sequence[str]], Tensor],
    *,
    config: NullTTAConfig | None = None,
    method: str | Callable[[Problem], Stream] = "null-tta",
    seed: int | Sequence[int] = 0,
    negative_prompt: str | Sequence[str] = "",
    latents: Tensor | None = None,
    guard: str | Reward | Callable[[Tensor, Sequence[str]], Tensor] | None = None,
    on_step: OnStep | None = None,
    micro_batch: int | None = None,
) -> Result:
    """Sample images whose reward was raised by optimising the null-text embedding (arXiv 2511.20889).

    Args:
        model: a `GuidedModel`, a live diffusers pipeline, or what `load_model` takes.
        prompts: one, or a batch; a prompt's result does not depend on what else is in its batch.
        reward: a name, an expression ("0.7*clip + 0.3*colourfulness") or a callable
            (images (B, 3, H, W) in [0, 1], prompts) -> (B,).
        config: the model's preset if None.
        method: "null-tta", "plain", the name of one of `nulltta.baselines`, or any (Problem) -> Stream.
        seed: an int gives every prompt the same noise (a paired comparison); or one a prompt.
        negative_prompt: the null text to start from; one, or one a prompt.
        latents: initial latents (B, K, C, h, w), or (K, C, h, w) for one prompt, instead of the seed's.
        guard: a second reward, watched and never optimised: where it falls, the prompt's null text is frozen.
        on_step: called after each denoising step.
        micro_batch: how many prompts (with gradient) or candidates (without) go through the networks at once; all of
            them if None. Where memory runs out it is halved, whatever it was; results stay the same up to rounding.

    Raises:
        NullTTAError: an argument is wrong, a reward or model failed, a number was not finite, or memory ran out.
    """
    run = METHODS.get(method) if isinstance(method, str) else method
    if not callable(run):
        raise InvalidValue(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    problem = make_problem(model, prompts, reward, config, seed, negative_prompt, latents, guard)
    problem = replace(problem, memory=MicroBatch(micro_batch))
    outcome, trace = drain(run(problem), on_step or (lambda _: None))
    return as_result(problem, outcome, trace)


def make_problem(
    model: GuidedModel | Any,
    prompts: str | Sequence[str],
    reward: str | Reward | Callable[[Tensor, Sequence[str]], Tensor],
    config: NullTTAConfig | None = None,
    seed: int | Sequence[int] = 0,
    negative_prompt: str | Sequence[str] = "",
    latents: Tensor | None = None,
    guard: str | Reward | Callable[[Tensor, Sequence[str]], Tensor] | None = None,
) -> Problem:
    """The `Problem` that `align`'s arguments state; refuses what makes none."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or any(not isinstance(prompt, str) or not prompt.strip() for prompt in prompts):
        raise InvalidValue("a prompt is empty: say what the picture should show")
    negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
    if len(negatives) != len(prompts):
        raise InvalidValue(f"{len(negatives)} negative prompts for {len(prompts)} prompts: give one, or one a prompt")
    seeds = randomness.per_prompt_seeds(seed, len(prompts))
    model = model if isinstance(model, GuidedModel) else load_model(model)
    config = config or NullTTAConfig.preset(model.name)
    cond, null = model.encode(prompts, negatives)
    reward = rewards.load(reward)
    problem = Problem(
        model, prompts, cond, null, reward, config.resolved(differentiable=reward.differentiable), seeds,
        _initial_latents(model, seeds, config.num_particles, latents).to(next(iter(null.values())).device),
        guard=None if guard is None else rewards.load(guard),
    )  # fmt: skip
    return standardised(problem)


def drain(stream: Stream, on_step: OnStep) -> tuple[Outcome, list[Step]]:
    """Run a method to its end: its outcome, and its steps without previews. Errors: those of `recorded`."""
    steps = recorded(stream)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            outcome, trace = end.value
            return outcome, trace
        on_step(step)


def recorded(stream: Stream) -> Generator[Step, None, tuple[Outcome, list[Step]]]:
    """A method's steps as they come; its value is what `drain` returns.

    Raises:
        NullTTAError: memory ran out, of a GPU or of the machine.
    """
    trace: list[Step] = []
    while True:
        try:
            step = next(stream)
        except StopIteration as end:
            return end.value, trace
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise InvalidValue(
                    "out of memory: give fewer prompts at a time, lower num_particles, or load the model in bfloat16"
                ) from error
            raise
        yield step
        trace.append(replace(step, preview=None))


def _initial_latents(model: GuidedModel, seeds: Sequence[int], particles: int, given: Tensor | None) -> Tensor:
    """(B, K, C, h, w): the caller's latents, checked, or the seeds' own."""
    if given is None:
        return randomness.initial_latents(model, seeds, particles)
    shape = model.latent_shape
    latents = given[None] if given.dim() == len(shape) + 1 and len(seeds) == 1 else given
    if latents.shape[:2] != (len(seeds), particles) or tuple(latents.shape[2:]) != shape:
        raise InvalidValue(f"latents have shape {tuple(given.shape)}: expected {(len(seeds), particles, *shape)}")
    return latents.float()


def as_result(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> Result:
    """What `align` returns, of what a method did."""
    return Result(
        images=pick(outcome.candidates, outcome.selected),
        candidates=outcome.candidates,
        rewards=pick(outcome.rewards, outcome.selected),
        trace=trace,
        null_text=null_texts(problem, outcome, trace) if outcome.nulls else [],
        initial_rewards=outcome.initial_rewards,
        problem=replace(problem, latents=outcome.initial_latents[:, None]),
    )
