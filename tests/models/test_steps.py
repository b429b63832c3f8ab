"""The stochastic steps of diffusions and flows, against closed forms and the samplers they are said to equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from nulltta.models.steps import ObservedStep, step_distribution

from .schedules import steps_of

TRAINED: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KINDS = ["epsilon", "v_prediction", "flow"]
ETAS = [0.0, 0.3, 0.7, 1.0]


class Linear:
    """A process of one kind on data N(m, τ²): its exact prediction is linear in x."""

    def __init__(self, kind: str, mean: float, variance: float) -> None:
        self.kind, self.mean, self.variance = kind, mean, variance
        if kind == "flow":
            self.scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
        else:
            clean = {"timestep_spacing": "trailing", "clip_sample": False}
            self.scheduler = DDIMScheduler(**TRAINED, prediction_type=kind, **clean)

    def schedule(self, count: int) -> list[ObservedStep]:
        return steps_of(self.scheduler, count)

    def predict(self, x: Tensor, step: ObservedStep) -> Tensor:
        a, b = step.signal, step.noise
        residual = (x - a * self.mean) / (a**2 * self.variance + b**2)
        x0, eps = self.mean + a * self.variance * residual, b * residual
        return {"epsilon": eps, "v_prediction": a * eps - b * x0, "flow": eps - x0}[self.kind]

    def affine(self, step: ObservedStep) -> tuple[float, float, float]:
        """The step's mean as k·x + l, and its deviation."""
        x = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
        mean, std = step_distribution(x, self.predict(x, step), step)
        low, high = mean.flatten().tolist()
        return high - low, low, std


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", ETAS)
def test_a_known_clean_image_gives_the_exact_marginal_after_any_step(kind: str, eta: float) -> None:
    process = Linear(kind, mean=0.7, variance=0.0)
    for step in process.schedule(8):
        a, b, a_next, b_next = step.signal, step.noise, step.signal_next, step.noise_next
        k, offset, std = process.affine(replace(step, eta=eta))
        assert k * a * 0.7 + offset == pytest.approx(a_next * 0.7, abs=2e-4)
        assert (k * b) ** 2 + std**2 == pytest.approx(b_next**2, abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", ETAS)
def test_the_marginals_of_gaussian_data_stay_right_at_every_noise_level(kind: str, eta: float) -> None:
    process = Linear(kind, mean=0.7, variance=0.25)
    steps = process.schedule(500)
    a, b = steps[0].signal, steps[0].noise
    mean, variance = a * 0.7, a**2 * 0.25 + b**2
    for step in steps:
        k, offset, std = process.affine(replace(step, eta=eta))
        mean, variance = k * mean + offset, k**2 * variance + std**2
        a, b = step.signal_next, step.noise_next
        assert mean == pytest.approx(a * 0.7, abs=0.02)
        assert variance == pytest.approx(a**2 * 0.25 + b**2, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_eta_is_the_share_of_the_posteriors_deviation(kind: str) -> None:
    process = Linear(kind, mean=0.0, variance=1.0)
    step = process.schedule(10)[4]
    a, b, a_next, b_next = step.signal, step.noise, step.signal_next, step.noise_next
    # x = (a/a')·x' + noise of variance b² − (a/a')²b'²: Bayes' rule for x' given x and x0
    posterior = (1 / b_next**2 + (a / a_next) ** 2 / (b**2 - (a / a_next) ** 2 * b_next**2)) ** -0.5
    for eta in ETAS:
        assert process.affine(replace(step, eta=eta))[2] == pytest.approx(eta * posterior, abs=1e-6)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver
@pytest.mark.parametrize("index", [0, 5, 9])
def test_euler_ancestral_and_sde_dpm_solver_are_the_ancestral_step(index: int) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    ddim = DDIMScheduler(**TRAINED, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False)
    steps = steps_of(ddim, 10)
    step, source = steps[index], torch.Generator().manual_seed(0)
    x, eps, noise = (torch.randn((2, 4, 8, 8), generator=source) for _ in range(3))
    mean, std = step_distribution(x, eps, step)
    ratios = torch.tensor([*(((1 - s.alpha_bar) / s.alpha_bar) ** 0.5 for s in steps), 0.0])  # k-diffusion's σ

    ancestral = EulerAncestralDiscreteScheduler(**TRAINED)
    ancestral.set_timesteps(10)
    ancestral.sigmas, ancestral.is_scale_input_called = ratios, True
    ancestral.timesteps = torch.tensor([float(s.timestep) for s in steps])
    now, then = float(ratios[index]), float(ratios[index + 1])
    fixed = torch.Generator().manual_seed(3)
    theirs = ancestral.step(eps, ancestral.timesteps[index], x * (1 + now**2) ** 0.5, generator=fixed).prev_sample
    same = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    ours = (mean + std * same) * (1 + then**2) ** 0.5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    sde = DPMSolverMultistepScheduler(**TRAINED, algorithm_type="sde-dpmsolver++", solver_order=1)
    sde.set_timesteps(10)
    sde.sigmas, sde.timesteps = ratios, ancestral.timesteps
    sde.set_begin_index(index)
    theirs = sde.step(eps, sde.timesteps[index], x, variance_noise=noise).prev_sample
    torch.testing.assert_close(mean + std * noise, theirs, rtol=1e-4, atol=1e-4)


def _kl(step: ObservedStep, moved: Tensor) -> float:
    """KL of the step under two predictions that differ by `moved`, over ‖moved‖²."""
    x = torch.zeros_like(moved)
    (a, std), (b, _) = (step_distribution(x, v, step) for v in (moved, torch.zeros_like(moved)))
    return float((a - b).square().sum() / (2 * std**2) / moved.square().sum())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_exact_is_paper_at_a_thousand_steps_up_to_the_posterior_variance(kind: str) -> None:
    """The paper's Gaussians have variance β_t, the ancestral step's β̃_t = β_t(1−ᾱ_{t−1})/(1−ᾱ_t): the ratio."""
    process = Linear(kind, mean=0.0, variance=1.0)
    moved = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    for step in process.schedule(1000)[:-1:37]:
        ratio = (1 - step.alpha_bar) / (1 - step.alpha_bar_previous)
        assert _kl(step, moved) == pytest.approx(ratio * step.consistency, rel=5e-3)
        if step.timestep > 200:
            assert ratio == pytest.approx(1, abs=0.02)


def test_the_flows_paper_coefficient_is_the_exact_one_at_a_thousand_steps() -> None:
    """In equal steps of σ, where the sampler's step is the training step; the same ratio of variances."""
    steps = steps_of(FlowMatchEulerDiscreteScheduler(shift=1.0), 1000)
    moved = torch.ones((1, 1, 1, 1), dtype=torch.float64)
    assert steps[0].consistency == pytest.approx(_kl(steps[0], moved), rel=1e-4)
    for step in steps[1:-1:37]:
        ratio = (1 - step.alpha_bar) / (1 - step.alpha_bar_previous)
        assert _kl(step, moved) == pytest.approx(ratio * step.consistency, rel=1e-2)
