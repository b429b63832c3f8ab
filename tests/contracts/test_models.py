"""The contract of models, on a tiny checkpoint of every family through its real `from_pretrained`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, align
from nulltta.algorithm.randomness import seeded
from nulltta.testing import FamilyCase, ModelContract
from nulltta.testing.models import brightness, latents

PROMPTS, NEGATIVES = ["a cat", "two red dogs"], ["", "ugly"]

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver


@pytest.fixture(scope="module")
def model(case: FamilyCase, folder: Path) -> Any:
    return case.load(folder)


class TestFamilies(ModelContract):
    """The contract that also holds for models from outside."""

    @pytest.fixture
    def model(self, model: Any) -> Any:
        return model

    @pytest.fixture
    def learning_rate(self, case: FamilyCase) -> float | None:
        return case.learning_rate

    def levels(self, step: Any) -> tuple[tuple[float, float], tuple[float, float]]:
        return (step.signal, step.noise), (step.signal_next, step.noise_next)


def test_no_more_steps_than_the_model_was_trained_with(model: Any) -> None:
    trained = model.scheduler.config.num_train_timesteps
    with pytest.raises(nulltta.NullTTAError, match=f"{trained}"):
        model.schedule(trained + 1)


@pytest.mark.parametrize("index", [0, 4, 9])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_steps_are_the_schedulers_own(model: Any, index: int, eta: float) -> None:
    x, prediction, noise = (latents(model, 2, seed) for seed in (0, 1, 2))
    step = replace(model.schedule(10)[index], eta=eta)
    mean, std = model.step_distribution(x, prediction, step)
    if _has_ddim_levels(model):
        ddim = _ddim(model)
        ddim.set_timesteps(10)
        theirs = ddim.step(prediction, int(step.timestep), x, eta=eta, variance_noise=noise)
        clean, following = theirs.pred_original_sample, theirs.prev_sample
    elif eta not in (0, 1):  # for which diffusers has no scheduler
        clean, following = _closed_form(step, x, prediction, noise)
    elif step.kind == "flow":
        clean = x - step.noise * prediction
        following = _flow_step(model, index, eta, x, prediction, noise)
    else:
        scheduler = _recorded_dpm().from_config(model.scheduler.config, **_first_order(eta))
        scheduler.set_timesteps(10)
        scheduler.noises = iter([noise])
        scheduler.set_begin_index(index)
        following = scheduler.step(prediction, scheduler.timesteps[index], x).prev_sample
        clean = scheduler.model_outputs[-1]
    size = max(1.0, float(clean.abs().max()))  # near ᾱ = 0, x̂0 is large and a difference of larger numbers
    torch.testing.assert_close(model.predict_x0(x, prediction, step), clean, rtol=1e-5, atol=1e-6 * size)
    torch.testing.assert_close(mean + std * noise, following, rtol=1e-5, atol=1e-5)


def _closed_form(step: Any, x: Tensor, prediction: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return x̂0 and the step between two levels x = a·x0 + b·ε at a share η of the posterior's deviation."""
    a, b, a_next, b_next = step.signal, step.noise, step.signal_next, step.noise_next
    clean = x - b * prediction if step.kind == "flow" else (x - b * prediction) / a
    eps = (x - a * clean) / b
    std = step.eta * b_next * (1 - (a * b_next / (b * a_next)) ** 2) ** 0.5 if b_next else 0.0
    return clean, a_next * clean + (b_next**2 - std**2) ** 0.5 * eps + std * noise


def _flow_step(model: Any, index: int, eta: float, x: Tensor, prediction: Tensor, noise: Tensor) -> Tensor:
    """Return diffusers' Euler step of a flow, or at η = 1 its first-order SDE-DPM-Solver++, at the model's levels."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    steps = model.schedule(10)
    levels = torch.tensor([*(step.noise for step in steps), 0.0])
    sde = {"algorithm_type": "sde-dpmsolver++", "solver_order": 1, "prediction_type": "flow_prediction"}
    scheduler = DPMSolverMultistepScheduler(**sde, use_flow_sigmas=True) if eta else FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    scheduler.sigmas, scheduler.timesteps = levels, torch.tensor([float(step.timestep) for step in steps])
    scheduler.set_begin_index(index)
    options = {"variance_noise": noise} if eta else {}
    return torch.as_tensor(scheduler.step(prediction, scheduler.timesteps[index], x, **options).prev_sample)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_plain_sampling_is_the_stock_pipeline(case: FamilyCase, folder: Path, model: Any, eta: float) -> None:
    """A flow at η = 0 keeps the checkpoint's own scheduler; otherwise the scheduler is given this package's noise."""
    config = NullTTAConfig(num_inference_steps=5, guidance_scale=3.0, num_particles=1, eta=eta)
    result = align(model, PROMPTS, brightness, config=config, seed=5, method="plain", negative_prompt=NEGATIVES)
    x = result.problem.latents[:, 0]
    images = stock_images(case, folder, model, x, eta, [seeded([5] * 2, i, x, 1)[:, 0] for i in range(5)])
    torch.testing.assert_close(result.images, images, rtol=0, atol=1e-5)


def stock_images(case: FamilyCase, folder: Path, model: Any, x: Tensor, eta: float, noises: Sequence[Tensor]) -> Tensor:
    from diffusers import DiffusionPipeline

    absent = {name: None for name, part in model.pipeline.components.items() if part is None}
    stock = DiffusionPipeline.from_pretrained(folder, **absent)
    stock.set_progress_bar_config(disable=True)
    if _has_ddim_levels(model):
        stock.scheduler = _recorded_ddim().from_config(_ddim(model).config)
        stock.scheduler.noises, stock.scheduler.eta = iter(noises), eta
    elif "DPMSolver" in type(stock.scheduler).__name__:  # of first order, where the checkpoint's own is of second
        stock.scheduler = _recorded_dpm().from_config(stock.scheduler.config, **_first_order(eta))
        stock.scheduler.noises = iter(noises)
    elif eta:
        stock.scheduler = _recorded_flow().from_config(stock.scheduler.config)
        stock.scheduler.noises = (model.to_pipeline(noise) for noise in noises)
    call = case.arguments(model.to_pipeline(x), 5, 3.0)
    output = stock(PROMPTS, negative_prompt=NEGATIVES, **call)
    return torch.as_tensor(output.frames if hasattr(output, "frames") else output.images)


def _has_ddim_levels(model: Any) -> bool:
    """Return whether DDIM can take the checkpoint's timesteps; it cannot take PixArt's, which include both ends."""
    return model.schedule(10)[0].kind != "flow" and model.scheduler.config.timestep_spacing != "linspace"


def _ddim(model: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(model.scheduler.config, clip_sample=False)


def _first_order(eta: float) -> dict[str, Any]:
    return {"solver_order": 1, "algorithm_type": "sde-dpmsolver++" if eta else "dpmsolver++"}


def _recorded_ddim() -> Any:
    from diffusers import DDIMScheduler

    class Recorded(DDIMScheduler):
        """DDIM with given noise and η."""

        noises: Any
        eta: float

        def step(self, model_output: Tensor, timestep: int, sample: Tensor, return_dict: bool = True) -> Any:
            noise = next(self.noises)
            options = {"eta": self.eta, "variance_noise": noise, "return_dict": return_dict}
            return super().step(model_output, timestep, sample, **options)

    return Recorded


def _recorded_dpm() -> Any:
    from diffusers import DPMSolverMultistepScheduler

    class Recorded(DPMSolverMultistepScheduler):
        """DPM-Solver with given noise."""

        noises: Any

        def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True) -> Any:
            noise = next(self.noises)
            return super().step(model_output, timestep, sample, variance_noise=noise, return_dict=return_dict)

    return Recorded


def _recorded_flow() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    class Recorded(FlowMatchEulerDiscreteScheduler):
        """The ancestral step (SDE-DPM-Solver++ of first order) between the scheduler's own levels, with given noise."""

        noises: Any

        def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True) -> Any:
            if self.step_index is None:
                self._init_step_index(timestep)
            sigma, then = (float(self.sigmas[self.step_index + i]) for i in (0, 1))
            x0 = sample - sigma * model_output
            ratio = then * (1 - sigma) / (sigma * (1 - then)) if then else 0.0  # e^{-h}
            mean = then / sigma * ratio * sample + (1 - then) * (1 - ratio**2) * x0
            self._step_index += 1
            return (mean + then * (1 - ratio**2) ** 0.5 * next(self.noises),)

    return Recorded
