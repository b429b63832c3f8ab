"""Noise levels are those of the user's own scheduler; steps that do not lead from level to level are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.models.steps import ObservedStep
from nulltta.testing.stock import stock_images

from ..tiny_families import save_flux, save_sd3
from .schedules import steps_of

TRAINED: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' schedulers
SPACED = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"]


def _scheduler(name: str, **config: Any) -> Any:
    return getattr(diffusers, name)(**config)


def _ratio(step: ObservedStep) -> float:
    """σ/α, which k-diffusion and diffusers call sigma."""
    return step.noise / step.signal


def _require_sound(steps: list[ObservedStep]) -> None:
    assert all(a.alpha_bar_previous == pytest.approx(b.alpha_bar) for a, b in itertools.pairwise(steps))
    assert all(0 <= step.alpha_bar < step.alpha_bar_previous <= 1 for step in steps)
    assert all(0 < step.consistency < float("inf") for step in steps)


@pytest.mark.parametrize("spacing", SPACED)
def test_spaced_levels_are_kept(spacing: str) -> None:
    options = {spacing: True}
    scheduler = _scheduler("DPMSolverMultistepScheduler", **TRAINED, **options)
    steps = steps_of(scheduler, 8)
    scheduler.set_timesteps(8)
    assert [_ratio(step) for step in steps] == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)
    usual = steps_of(_scheduler("DPMSolverMultistepScheduler", **TRAINED), 8)
    assert abs(_ratio(steps[4]) / _ratio(usual[4]) - 1) > 0.05
    _require_sound(steps)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_schedulers_have_their_own_levels_and_preconditioning(name: str, kind: str) -> None:
    scheduler = _scheduler(name, prediction_type=kind)
    steps = steps_of(scheduler, 8)
    scheduler.set_timesteps(8)
    assert [_ratio(step) for step in steps] == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)
    assert {step.kind for step in steps} == {"preconditioned"}
    _require_sound(steps)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_timesteps_are_spaced_as_the_scheduler_says(name: str, spacing: str) -> None:
    scheduler = _scheduler(name, **TRAINED, timestep_spacing=spacing)
    steps = steps_of(scheduler, 7)
    scheduler.set_timesteps(7)
    assert [step.timestep for step in steps] == pytest.approx(scheduler.timesteps.tolist())
    assert [_ratio(step) for step in steps] == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-4)
    _require_sound(steps)


@pytest.mark.parametrize(
    "name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "DPMSolverMultistepScheduler",
             "UniPCMultistepScheduler"],
)  # fmt: skip
def test_flows_have_their_shift_whoever_schedules_them(name: str) -> None:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = _scheduler(name, **({"shift": 3.0} if name.startswith("Flow") else flow))
    steps = steps_of(scheduler, 6)
    assert len(steps) == 6
    scheduler.set_timesteps(6)
    expected = list(dict.fromkeys(round(sigma, 6) for sigma in scheduler.sigmas.tolist()))[:-1]
    assert [step.noise for step in steps] == pytest.approx(expected, abs=1e-5)
    assert all(step.signal == pytest.approx(1 - step.noise) for step in steps)
    assert {step.kind for step in steps} == {"flow"}
    _require_sound(steps)


def test_a_shift_that_was_set_on_the_object_counts() -> None:
    scheduler = _scheduler("FlowMatchEulerDiscreteScheduler", shift=1.0)
    before = steps_of(scheduler, 6)
    scheduler.set_shift(5.0)
    after = steps_of(scheduler, 6)
    assert after[3].noise == pytest.approx(5 * before[3].noise / (1 + 4 * before[3].noise), abs=1e-3)


@pytest.mark.parametrize(
    "name", ["EulerAncestralDiscreteScheduler", "DDPMScheduler", "PNDMScheduler", "HeunDiscreteScheduler",
             "LMSDiscreteScheduler", "DEISMultistepScheduler", "DDIMScheduler"],
)  # fmt: skip
def test_each_kind_of_scheduler_brings_its_levels(name: str) -> None:
    more = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") else {}
    more |= {"skip_prk_steps": True, "steps_offset": 1} if name == "PNDMScheduler" else {}
    steps = steps_of(_scheduler(name, **TRAINED, **more), 6)
    assert {step.kind for step in steps} == {"epsilon"}
    _require_sound(steps)


def test_zero_terminal_snr_starts_at_noise_alone_in_v() -> None:
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    steps = steps_of(_scheduler("DDIMScheduler", **TRAINED, **config, prediction_type="v_prediction"), 5)
    assert steps[0].alpha_bar == 0
    _require_sound(steps)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"clip_sample": True}, "its clip_sample changes the clean estimate, set it to False"),
        ({"thresholding": True, "clip_sample": False}, "its thresholding changes the clean estimate"),
        ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}, "zero terminal SNR"),
    ],
)
def test_what_is_not_a_step_between_levels_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(NullTTAError, match=says):
        steps_of(_scheduler("DDIMScheduler", **TRAINED, **config), 5)


def test_levels_that_rise_are_refused() -> None:
    scheduler = _scheduler("FlowMatchEulerDiscreteScheduler")
    with pytest.raises(NullTTAError, match="do not fall"):
        steps_of(scheduler, 3, sigmas=[0.2, 0.5, 0.9])


def test_a_flow_that_counts_from_noise_at_zero_to_data_at_one_is_turned_round() -> None:
    """As Mochi's, whose model predicts x0 − ε."""
    steps = steps_of(_scheduler("FlowMatchEulerDiscreteScheduler", invert_sigmas=True), 5)
    usual = steps_of(_scheduler("FlowMatchEulerDiscreteScheduler"), 5)
    assert {step.kind for step in steps} == {"reversed flow"}
    assert [step.noise for step in steps] == pytest.approx([step.noise for step in usual], abs=1e-5)
    _require_sound(steps)


def test_stochastic_sampling_leaves_the_levels_as_they_are() -> None:
    """Its noise is a run's η; x' = (1 − σ')·x̂0 + σ'·noise leads from one of its levels to the next."""
    steps = steps_of(_scheduler("FlowMatchEulerDiscreteScheduler", stochastic_sampling=True, shift=3.0), 5)
    usual = steps_of(_scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0), 5)
    assert [step.noise for step in steps] == [step.noise for step in usual]
    assert {step.kind for step in steps} == {"flow"}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DPMSolverMultistepScheduler", {"solver_order": 1}),
        ("DPMSolverMultistepScheduler", {"solver_order": 1, "use_flow_sigmas": True, "flow_shift": 3.0}),
        (
            "UniPCMultistepScheduler",
            {"solver_order": 1, "use_flow_sigmas": True, "flow_shift": 3.0, "disable_corrector": list(range(4))},
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_karras_sigmas": True}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_exponential_sigmas": True}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_beta_sigmas": True}),
    ],
)
def test_a_flow_model_is_sampled_as_by_its_pipeline(name: str, config: dict[str, Any], flow_pipeline: Any) -> None:
    flow = {"prediction_type": "flow_prediction"} if config.get("use_flow_sigmas") else {}
    flow_pipeline.scheduler = _scheduler(name, **flow, **config)
    settings = NullTTAConfig(num_inference_steps=4, guidance_scale=4.0, eta=0.0, num_particles=1)
    model: Any = nulltta.load_model(flow_pipeline)
    ours = align(model, "a cat", "brightness", config=settings, seed=2, method="plain").images
    torch.testing.assert_close(ours, stock_images(model, "a cat", "", settings, seed=2), rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def flow_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A live Stable Diffusion 3."""
    from diffusers import StableDiffusion3Pipeline

    folder = save_sd3(tmp_path_factory.mktemp("sd3") / "model", t5=False)
    return StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_a_scheduler_that_a_pipeline_cannot_call_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """Flux gives its scheduler noise levels and a shift, which these take only for flows."""
    pipeline: Any = nulltta.load_model(save_flux(tmp_path / "model"), device="cpu").pipeline  # type: ignore[attr-defined]
    pipeline.scheduler = _scheduler(name)
    with pytest.raises(NullTTAError, match="FluxPipeline's own call failed: ") as caught:
        nulltta.load_model(pipeline, height=16, width=16).encode(["a cat"], [""])
    assert "\n" not in str(caught.value)
