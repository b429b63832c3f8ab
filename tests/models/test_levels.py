"""Noise levels are those of the user's own scheduler; steps that do not lead from level to level are refused."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import pytest

from nulltta import NullTTAError
from nulltta.models.levels import ObservedStep

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
    with pytest.raises(NullTTAError, match="do not fall"):
        steps_of(_scheduler("FlowMatchEulerDiscreteScheduler", invert_sigmas=True), 5)
