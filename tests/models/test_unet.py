from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta

from ..tiny import save_stable_diffusion

SCHEDULERS: list[dict[str, Any]] = [
    {},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
]


@pytest.fixture(scope="module", params=SCHEDULERS, ids=["epsilon", "v", "v, zero terminal SNR"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return nulltta.load_model(save_stable_diffusion(tmp_path_factory.mktemp("sd"), **request.param), device="cpu")


def _at(model: Any, index: int, eta: float = 1.0) -> tuple[Any, torch.Tensor, torch.Tensor]:
    from dataclasses import replace

    generator = torch.Generator().manual_seed(0)
    x, prediction = (torch.randn((2, 4, 8, 8), generator=generator) for _ in range(2))
    return replace(model.schedule(10)[index], eta=eta), x, prediction


@pytest.mark.parametrize("index", [0, 4, 9])
def test_clean_and_transition_are_the_schedulers_own(any_model: Any, index: int) -> None:
    for eta in (0.0, 0.3, 1.0):
        step, x, prediction = _at(any_model, index, eta)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        scheduler = copy.deepcopy(any_model.scheduler)
        scheduler.set_timesteps(10)
        theirs = scheduler.step(prediction, step.timestep, x, eta=eta, variance_noise=noise)
        mean, std = any_model.step_distribution(x, prediction, step)
        torch.testing.assert_close(any_model.predict_x0(x, prediction, step), theirs.pred_original_sample)
        torch.testing.assert_close(mean + std * noise, theirs.prev_sample)


def test_consistency_weighs_the_same_distance_in_epsilon_and_in_v(tmp_path: Path) -> None:
    """‖Δε‖² = ᾱ‖Δv‖², so on one noise schedule the weights differ by ᾱ."""
    models = [nulltta.load_model(save_stable_diffusion(tmp_path / str(i), **SCHEDULERS[i])) for i in range(2)]
    for eps, v in zip(*(model.schedule(20) for model in models), strict=True):
        assert v.consistency == pytest.approx(eps.alpha_bar * eps.consistency, rel=1e-3)


def test_consistency_is_the_papers_coefficient(model: Any) -> None:
    betas = model.scheduler.betas.double()
    for step in model.schedule(20):
        alpha, alpha_bar = 1 - betas[step.timestep], (1 - betas)[: step.timestep + 1].prod()
        assert step.consistency == pytest.approx(float((1 - alpha) / (2 * alpha * (1 - alpha_bar))), rel=1e-4)


def test_every_coefficient_is_finite(any_model: Any) -> None:
    for step in any_model.schedule(10):
        assert 0 < step.consistency < float("inf")


def test_embeddings_are_the_pipelines_own(model: Any) -> None:
    cond, null = model.encode(["a cat", "a dog"], ["", "ugly"])
    theirs = model.pipeline.encode_prompt(["a cat", "a dog"], "cpu", 1, True, negative_prompt=["", "ugly"])
    assert torch.equal(cond["encoder_hidden_states"], theirs[0])
    assert torch.equal(null["encoder_hidden_states"], theirs[1])


def test_a_prompt_too_long_is_cut_with_a_warning_that_names_what_was_lost(model: Any) -> None:
    with pytest.warns(UserWarning, match="longer than 77 tokens; cut off: '.*tail'"):
        model.encode(["x" * 80 + " tail"], [""])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(["short"], [""])


def test_half_precision_runs_and_keeps_the_null_text_in_float32(checkpoint: Path, config: Any) -> None:
    model = nulltta.load_model(checkpoint, device="cpu", dtype=torch.bfloat16)
    result = nulltta.align(model, "a cat", "brightness", config=config)
    assert result.null_text[0].values[-1]["encoder_hidden_states"].dtype == torch.float32
    assert result.images.dtype == torch.float32
    assert bool(result.trace[-1].kl.isfinite().all())
