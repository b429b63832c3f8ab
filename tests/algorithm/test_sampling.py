"""Properties of the sampling loop, on a Gaussian in closed form and on a real (tiny) Stable Diffusion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm import schedules
from nulltta.algorithm.budget import evaluations, planned
from nulltta.algorithm.randomness import seeded
from nulltta.alignment import make_problem
from nulltta.benchmark.costs.published_loop import run as run_release
from nulltta.errors import RewardError
from nulltta.rewards.closed_form import brightness
from nulltta.testing import Gaussian, nearness

from ..tiny import save_stable_diffusion

SHORT = NullTTAConfig(num_inference_steps=5, inner_steps=(1, 3), guidance_scale=3.0, annealing="auto")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_zero_inner_steps_and_one_candidate_is_the_stock_pipeline(tmp_path: Path, prediction: str) -> None:
    from diffusers import StableDiffusionPipeline

    spacing = {"timestep_spacing": "trailing"} if prediction == "v_prediction" else {}
    checkpoint = save_stable_diffusion(tmp_path / "sd", prediction, **spacing)
    config = NullTTAConfig(num_inference_steps=7, inner_steps=(0, 0), num_particles=1, guidance_scale=3.0)
    result = align(nulltta.load_model(str(checkpoint)), "a cat", "brightness", config=config, seed=5)

    stock = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    latents = result.problem.latents[:, 0]
    noises = iter([seeded([5], i, latents, 1)[:, 0] for i in range(7)])
    stock.scheduler = _Recorded.from_config(stock.scheduler.config)
    stock.scheduler.noises = noises
    arguments = {"num_inference_steps": 7, "guidance_scale": 3.0, "eta": 1.0}
    image = stock("a cat", negative_prompt="", latents=latents, output_type="pt", **arguments).images
    torch.testing.assert_close(result.images, image, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.images, result.baseline, rtol=0, atol=1e-5)


def test_a_prompts_result_is_the_same_alone_and_in_any_batch(model: Any, config: NullTTAConfig) -> None:
    prompts, seeds = ["a cat", "a red dog", "the sun"], [3, 1, 4]
    batch = align(model, prompts, "colourfulness", config=config, seed=seeds)
    for i in (0, 2):
        alone = align(model, prompts[i], "colourfulness", config=config, seed=seeds[i])
        torch.testing.assert_close(batch.images[i], alone.images[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(batch.rewards[i], alone.rewards[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(
            batch.null_text[i].values[-1]["encoder_hidden_states"],
            alone.null_text[0].values[-1]["encoder_hidden_states"],
            rtol=0,
            atol=1e-4,
        )


def test_the_same_seed_gives_the_same_bits(model: Any, config: NullTTAConfig) -> None:
    first, second = (align(model, "a cat", "colourfulness", config=config, seed=3) for _ in range(2))
    assert torch.equal(first.candidates, second.candidates)
    assert not torch.equal(first.candidates, align(model, "a cat", "colourfulness", config=config, seed=4).candidates)


@pytest.mark.parametrize("prompts", [["red"], ["red", "green", "red"]])
def test_an_inner_step_differentiates_one_branch_and_reuses_the_conditional_one(prompts: list[str]) -> None:
    model, T, K = Gaussian(), SHORT.num_inference_steps, SHORT.num_particles
    result = align(model, prompts, nearness, config=SHORT)
    gamma = schedules.annealing_coefficient("auto", T)
    inner = sum(schedules.inner_step_count(i, gamma, SHORT.inner_steps) for i in range(T))
    assert inner > T
    assert model.with_gradient == inner * len(prompts)
    assert model.without_gradient == (2 * K * T + 2 * T) * len(prompts)  # at most T(2 + 2K) + 2K
    assert evaluations(SHORT) == (inner, 2 * K * T + 2 * T)
    before = model.without_gradient
    _ = result.baseline
    assert model.without_gradient - before == 2 * T * len(prompts)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimise_between": (0.4, 1.0)}, {"optimise_between": (0.2, 0.6)}, {"inner_steps": (0, 0)},
        {"inner_steps": (0, 2)}, {"budget": 50}, {"budget": 41},
    ],
)  # fmt: skip
def test_the_cost_is_the_predicted_one(changes: dict[str, Any]) -> None:
    model, config = Gaussian(), replace(SHORT, **changes)
    result = align(model, "red", nearness, config=config)
    assert (model.with_gradient, model.without_gradient) == evaluations(config)
    assert [len(step.inner_rewards) for step in result.trace] == planned(config)
    if config.budget:
        assert config.budget - 3 <= 2 * model.with_gradient + model.without_gradient <= config.budget


def test_without_reward_weight_the_null_text_stays(model: Any, config: NullTTAConfig) -> None:
    result = align(model, "a cat", "brightness", config=replace(config, reward_weight=0.0))
    for step, learnt in zip(result.trace, result.null_text[0].values, strict=True):
        assert torch.equal(learnt["encoder_hidden_states"], result.problem.null["encoder_hidden_states"][0])
        assert step.kl.item() == 0.0


def test_a_quadratic_reward_on_gaussian_data_reaches_its_known_optimum() -> None:
    """One denoising step: J is quadratic in φ', so its maximum has a closed form."""
    config = NullTTAConfig(
        num_inference_steps=1, inner_steps=(3000, 3000), num_particles=1, guidance_scale=3.0, reward_weight=1.0,
        kl_weight=0.05, prior_variance=0.5, learning_rate=0.003,
    )  # fmt: skip
    result = align(Gaussian(), "red", nearness, config=config, seed=1)
    step = Gaussian().schedule(1)[0]
    x, c = result.problem.latents[0, 0].flatten(), torch.tensor([1.0, 0.0, 0.0])
    target, s, alpha_bar = torch.tensor([0.2, 0.4, 0.6]), 3.0, step.alpha_bar
    # x̂0 = √ᾱ·x + (1−ᾱ)(s·c + (1−s)·φ'): the reward is −‖a·φ' − b‖², the regularisers −q·‖φ'‖².
    a = (1 - alpha_bar) * (1 - s)
    b = target - alpha_bar**0.5 * x - (1 - alpha_bar) * s * c
    q = 0.05 * (step.consistency * (s - 1) ** 2 * (1 - alpha_bar) * alpha_bar + 1 / (2 * 0.5))
    optimum = a * b / (a**2 + q)
    torch.testing.assert_close(result.null_text[0].values[0]["mean"], optimum, rtol=0, atol=1e-3)


def test_alignment_raises_the_reward(model: Any) -> None:
    config = NullTTAConfig(num_inference_steps=4, inner_steps=(5, 5), num_particles=2, guidance_scale=5.0)
    result = align(model, ["a cat", "a dog"], "colourfulness", config=config)
    assert bool((result.rewards > result.baseline_rewards).all())
    first = result.trace[0]
    assert bool((first.inner_rewards[-1] > first.inner_rewards[0]).all())
    assert bool((first.kl > 0).all())


def test_gradients_flow_to_the_null_text_only_and_the_weights_stay(model: Any, config: NullTTAConfig) -> None:
    modules = [model.pipeline.unet, model.pipeline.vae, model.pipeline.text_encoder]
    before = [_digest(module) for module in modules]
    align(model, "a cat", "brightness", config=config)
    assert [_digest(module) for module in modules] == before
    parameters = [p for module in modules for p in module.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in parameters)


@pytest.mark.parametrize("reward", ["colourfulness", "nan sometimes"])
def test_release_conventions_reproduce_the_published_loop(checkpoint: Path, reward: str) -> None:
    from diffusers import StableDiffusionPipeline

    from nulltta.rewards.closed_form import colourfulness

    def nan_sometimes(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return colourfulness(images, prompts).masked_fill(images[:, 0, 0, 0] > 0.47, torch.nan)

    function = colourfulness if reward == "colourfulness" else nan_sometimes
    config = NullTTAConfig(num_inference_steps=8, inner_steps=(2, 6), annealing=0.1, conventions="release")
    latents = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    ours = align(nulltta.load_model(str(checkpoint)), "a cat", function, config=config, latents=latents)
    stock = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)
    for module in (stock.unet, stock.vae, stock.text_encoder):
        module.requires_grad_(False)
    theirs = run_release(stock, "a cat", function, latents, config)

    assert ours.initial_rewards is not None
    close = {"rtol": 1e-3, "atol": 1e-7}
    for i, step in enumerate(ours.trace):
        torch.testing.assert_close(step.inner_rewards[:, 0], torch.tensor(theirs.inner[i]), **close)
        selected = torch.nan_to_num(step.candidate_rewards[0], nan=-torch.inf)
        torch.testing.assert_close(selected, torch.tensor(theirs.candidates[i]), **close)
    torch.testing.assert_close(ours.images[0], theirs.image, rtol=0, atol=1e-4)
    if reward == "nan sometimes":
        assert any(value == 0 for row in theirs.inner for value in row)


def test_candidates_are_chosen_greedily_and_the_best_image_is_returned() -> None:
    result = align(Gaussian(), ["red", "green"], nearness, config=SHORT, seed=2)
    for step in result.trace:
        assert torch.equal(step.selected, step.candidate_rewards.argmax(1))
    assert torch.equal(result.rewards, result.trace[-1].candidate_rewards.max(1).values)
    torch.testing.assert_close(result.rewards, nearness(result.images, ["red", "green"]))


def test_the_first_candidates_noise_does_not_depend_on_their_number() -> None:
    problem = make_problem(Gaussian(), "red", nearness, replace(SHORT, num_particles=3), seed=6)
    single = make_problem(Gaussian(), "red", nearness, replace(SHORT, num_particles=1), seed=6)
    assert torch.equal(problem.latents[:, :1], single.latents)


def _zero_gradient(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return (images * 10).round().mean((1, 2, 3))


def _detached(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.detach().mean((1, 2, 3))


def _wrong_shape(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean()


def _not_a_tensor(images: Tensor, prompts: Sequence[str]) -> list[float]:
    return [0.0] * len(images)


def _nan(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return brightness(images) * torch.nan


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (_zero_gradient, "no gradient"),
        (_detached, "no gradient"),
        (_wrong_shape, r"shape \(\) for"),
        (_not_a_tensor, "returned list"),
        (_nan, "not finite"),
    ],
)
def test_a_reward_that_fails_fails_the_run(model: Any, config: NullTTAConfig, reward: Any, says: str) -> None:
    with pytest.raises(NullTTAError, match=says) as caught:
        align(model, "a cat", reward, config=config)
    assert reward.__name__ in str(caught.value)


def test_a_rewards_own_exception_is_not_swallowed(model: Any, config: NullTTAConfig) -> None:
    def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise KeyError("mine")

    with pytest.raises(RewardError, match="reward 'broken' failed: KeyError: 'mine'") as caught:
        align(model, "a cat", broken, config=config)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_reward_marked_as_without_gradient_is_never_differentiated(model: Any, config: NullTTAConfig) -> None:
    def size(images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert not images.requires_grad
        return images.mean((1, 2, 3))

    size.differentiable = False  # type: ignore[attr-defined]
    assert len(align(model, "a cat", size, config=config).images) == 1
    with pytest.raises(NullTTAError, match="'size' gives no gradient: choose another gradient"):
        align(model, "a cat", size, config=replace(config, gradient="autograd"))


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _recorded() -> type:
    from diffusers import DDIMScheduler

    class Recorded(DDIMScheduler):
        """DDIM with given noise."""

        noises: Any

        def step(
            self, model_output: Tensor, timestep: int, sample: Tensor, eta: float = 0.0, return_dict: bool = True
        ) -> Any:
            noise = next(self.noises)
            return super().step(model_output, timestep, sample, eta=eta, variance_noise=noise, return_dict=return_dict)

    return Recorded


_Recorded = _recorded()
