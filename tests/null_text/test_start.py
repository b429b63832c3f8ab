"""Runs that start from a null text that was learnt before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import DoesNotFit, InvalidValue, LoadError, NullText, NullTTAConfig
from nulltta.algorithm.budget import evaluations
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import PromptForm, free_shapes
from nulltta.null_text.identity import identity
from nulltta.null_text.replay import replay
from nulltta.null_text.start import started
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(
    num_inference_steps=5, inner_steps=(2, 2), guidance_scale=3.0, annealing="auto", learning_rate=0.05
)
FROZEN = replace(CONFIG, inner_steps=(0, 0), num_particles=1)


def fitted(model: Any, prompt: str) -> FittedNullText:
    """Return a null text for all prompts, with random weights."""
    _, null = model.encode([prompt], [""])
    form, source = PromptForm(free_shapes(null), 5), torch.Generator().manual_seed(0)
    for parameter in form.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=source)
    steps = [step.timestep for step in model.schedule(5)]
    about = {"model": identity(model), "form": "prompt", "config": {"num_inference_steps": 5, "guidance_scale": 3.0}}
    return FittedNullText(steps, form.requires_grad_(False), (1, 5), about)


@pytest.fixture(scope="module")
def learnt() -> NullText:
    return nulltta.align(Gaussian(), "red", nearness, config=CONFIG, seed=3).null_text[0]


@pytest.mark.parametrize("config", [FROZEN, CONFIG], ids=["without inner steps", "plain"])
@pytest.mark.parametrize("kind", ["fitted", "learnt"])
def test_what_is_not_optimised_is_a_replay(kind: str, config: NullTTAConfig, learnt: NullText) -> None:
    model = Gaussian()
    start = fitted(model, "red") if kind == "fitted" else learnt
    method = "null-tta" if config is FROZEN else "plain"
    result = nulltta.align(model, ["red", "green"], nearness, config=config, method=method, seed=[4, 5], start=start)
    for b, (prompt, seed) in enumerate([("red", 4), ("green", 5)]):
        torch.testing.assert_close(result.images[b], replay(model, start, prompt=prompt, seeds=[seed])[0])
        without = replay(model, start, prompt=prompt, seeds=[seed], plain=True)
        torch.testing.assert_close(result.baseline[b], without[0])
        assert not torch.allclose(result.images[b], without[0], atol=1e-3)


def test_the_mask_comes_from_the_null_text(learnt: NullText) -> None:
    problem = nulltta.align(Gaussian(), ["red", "green"], nearness, config=CONFIG, method="plain").problem
    ours = replace(problem, null={**problem.null, "mask": torch.tensor([[1, 0], [1, 0]])})
    masked = replace(learnt, values=[{**value, "mask": torch.tensor([1, 1])} for value in learnt.values])
    assert torch.equal(started(ours, masked)(0)["mask"], torch.ones(2, 2, dtype=torch.long))


def test_what_is_learnt_beyond_the_start_is_carried_from_step_to_step() -> None:
    model, config = Gaussian(), replace(CONFIG, optimise_between=(0.0, 0.4))
    start = fitted(model, "red")
    null_text = nulltta.align(model, "red", nearness, config=config, start=start).null_text[0]
    cond, null = model.encode(["red"], [""])
    beyond = [
        value["mean"] - start.embedding(t, null, cond)["mean"][0]
        for t, value in zip(null_text.timesteps, null_text.values, strict=True)
    ]
    assert not torch.allclose(beyond[0], beyond[1], atol=1e-4)
    for later in beyond[2:]:
        torch.testing.assert_close(later, beyond[1])


def test_plain_sampling_under_it_does_not_claim_that_it_moved_nothing(learnt: NullText, tmp_path: Path) -> None:
    under, without = (
        nulltta.align(Gaussian(), "red", nearness, config=CONFIG, method="plain", start=start)
        for start in (learnt, None)
    )
    assert all(bool(step.kl.isnan().all()) for step in under.trace)
    assert all(step.kl.tolist() == [0.0] for step in without.trace)
    under.save(tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())["results"][0]
    assert result["kl"] == {"largest_step": None, "total": None}
    assert {step["kl"] for step in result["trace"]} == {None}


def test_the_first_inner_step_sees_what_was_learnt_before(learnt: NullText) -> None:
    scratch, started = (
        nulltta.align(Gaussian(), "red", nearness, config=replace(CONFIG, num_particles=1), seed=3, start=start)
        for start in (None, learnt)
    )
    assert float(started.trace[-1].inner_rewards[0]) > float(scratch.trace[-1].inner_rewards[0])
    assert torch.equal(started.baseline, scratch.baseline)


def test_it_takes_the_evaluations_that_are_counted(learnt: NullText) -> None:
    for config in (CONFIG, FROZEN, replace(CONFIG, optimise_between=(0.6, 1.0), budget=48)):
        model = Gaussian()
        nulltta.align(model, "red", nearness, config=config, start=learnt)
        assert (model.with_gradient, model.without_gradient) == evaluations(config, started=True)


def test_a_file_starts_a_run_of_the_model_that_it_was_made_for(
    model: Any, config: NullTTAConfig, tmp_path: Path, learnt: NullText
) -> None:
    learn = nulltta.align(model, "a cat", "brightness", config=config)
    learn.null_text[0].save(tmp_path / "n.safetensors", noise=True)
    given = {"config": config, "method": "plain", "seed": 2}
    from_file, from_value = (
        nulltta.align(model, "a dog", "brightness", start=start, **given)
        for start in (tmp_path / "n.safetensors", learn.null_text[0])
    )
    torch.testing.assert_close(from_file.images, from_value.images)
    with pytest.raises(DoesNotFit, match="was made for"):
        nulltta.align(model, "a cat", "brightness", config=config, start=learnt)
    with pytest.raises(LoadError, match="no file"):
        nulltta.align(model, "a cat", "brightness", config=config, start=tmp_path / "missing.safetensors")
    with pytest.raises(InvalidValue, match=r"null-tta and plain, not best-of-n") as refused:
        nulltta.align(model, "a cat", "brightness", config=config, method="best-of-n", start=learn.null_text[0])
    assert refused.value.field == "start"
