"""Fitting a null text for all prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import nulltta
from nulltta import InvalidValue, LoadError, NullTTAConfig
from nulltta.evaluation.bootstrap import Gain
from nulltta.fit.settings import FitSettings
from nulltta.fit.training import FitProblem, FitStep, _rank, fit
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.replay import replay
from nulltta.rewards.compose import Custom
from nulltta.testing import Gaussian, nearness
from nulltta.testing.stock import stock_images

from ..tiny import save_stable_diffusion

CONFIG = NullTTAConfig(num_inference_steps=3, guidance_scale=4.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def darkness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return 1 - brightness(images, prompts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return nulltta.load_model(save_stable_diffusion(tmp_path_factory.mktemp("sd") / "sd"), device="cpu")


def settings(**changes: Any) -> FitSettings:
    small = {"updates": 12, "rows": 4, "pool": 8, "fresh": 4, "refresh_every": 3, "validate_every": 6}
    return FitSettings(**{**small, **changes})


def problem(model: Any, **changes: Any) -> FitProblem:
    prompts = ["a cat", "a dog", "two cats", "a rose", "a fox"]
    given = {"config": CONFIG, "settings": settings(), **changes}
    return FitProblem(model, Custom(brightness, "brightness"), prompts, ["a bird", "a tree", "an owl"], **given)


def drained(problem: FitProblem, checkpoint: Path | None = None) -> tuple[FittedNullText, list[FitStep]]:
    steps, stream = [], fit(problem, checkpoint)
    while True:
        try:
            steps.append(next(stream))
        except StopIteration as end:
            return end.value, steps


def same_weights(a: FittedNullText, b: FittedNullText) -> bool:
    ours, theirs = a.form.state_dict(), b.form.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_regularisers_it_finds_the_optimum_of_a_quadratic_reward() -> None:
    """One step, one prompt: x̂0 = √ᾱ·x + (1−ᾱ)·((1−s)·φ' + s·c), which should be (0.2, 0.4, 0.6) on average."""
    config = NullTTAConfig(num_inference_steps=1, guidance_scale=3.0, kl_weight=0.0)
    choices = settings(form="constant", updates=300, rows=32, pool=32, fresh=32, refresh_every=1000, learning_rate=0.05,
                       average=0.0, validate_every=300, between=(0.0, 1.0))  # fmt: skip
    toy = FitProblem(Gaussian(), Custom(nearness, "nearness"), ["red"], ["red", "green"], config, choices)
    null_text, _ = drained(toy)
    seeds = [1_000_000 + i for i in range(32)]
    latents = nulltta.algorithm.randomness.initial_latents(toy.model, seeds, 1, 1)
    x = latents.half().float().mean((0, 1)).flatten()
    alpha_bar, target, c = 0.1, torch.tensor([0.2, 0.4, 0.6]), torch.tensor([1.0, 0.0, 0.0])
    expected = (target - alpha_bar**0.5 * x - (1 - alpha_bar) * 3 * c) / ((1 - alpha_bar) * (1 - 3))
    cond, null = toy.model.encode(["red"], [""])
    torch.testing.assert_close(null_text.embedding(1.0, null, cond)["mean"][0], expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("form", ["constant", "steps", "prompt", "tokens"])
def test_it_raises_the_reward_on_prompts_that_it_has_not_seen(model: Any, form: Any) -> None:
    null_text, steps = drained(problem(model, settings=settings(form=form, updates=24, learning_rate=0.02)))
    assert [step.update for step in steps] == list(range(1, 25))
    gains = [step.gains for step in steps if step.gains]
    assert len(gains) == 4
    assert gains[-1]["brightness"].mean > 0
    best = max(found["brightness"].mean for found in gains)
    assert null_text.about["validation"]["gains"]["brightness"]["mean"] == pytest.approx(best)
    kept = [step.best for step in steps if step.best is not None]
    assert same_weights(kept[-1], null_text)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(model: Any) -> None:
    torch.manual_seed(1)
    first, _ = drained(problem(model))
    torch.manual_seed(2)  # the ambient generator plays no part
    again, _ = drained(problem(model))
    other, _ = drained(problem(model, settings=settings(seed=1)))
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("stop", [6, 7, 11])
def test_a_stopped_fit_goes_on_to_the_same_weights(
    model: Any, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.fit.training.SAVE_SECONDS", 0.0)
    whole, _ = drained(problem(model))
    state = tmp_path / "state"
    stream = fit(problem(model), state)
    for _ in range(stop):
        next(stream)
    stream.close()
    resumed, steps = drained(problem(model), state)
    assert steps[0].update == stop + 1
    assert same_weights(whole, resumed)
    assert whole.about["validation"] == resumed.about["validation"]


def test_the_state_of_another_fit_or_a_damaged_one_is_refused(model: Any, tmp_path: Path) -> None:
    state = tmp_path / "state"
    drained(problem(model), state)
    with pytest.raises(LoadError, match="the state of another fit"):
        drained(problem(model, settings=settings(rows=5)), state)
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(LoadError, match="damaged"):
        drained(problem(model), state)


def test_the_state_of_a_fit_to_another_picture_is_refused(model: Any, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    first, second = (model.called(image=picture, strength=1.0) for picture in pictures)
    drained(problem(first, settings=settings(updates=1)), tmp_path / "state")
    with pytest.raises(LoadError, match="the state of another fit"):
        drained(problem(second, settings=settings(updates=1)), tmp_path / "state")


def test_a_guard_that_keeps_falling_ends_the_fit(model: Any) -> None:
    choices = settings(updates=60, validate_every=2, learning_rate=0.02)
    null_text, steps = drained(problem(model, settings=choices, guards={"darkness": darkness}))
    assert len(steps) < 60
    assert {"brightness", "darkness"} == set(null_text.about["validation"]["gains"])


def _gain(mean: float) -> Gain:
    return Gain(8, plain=0.0, aligned=mean, mean=mean, low=mean - 0.1, high=mean + 0.1, spread=1.0, wins=0.5)


def test_a_validation_at_which_a_guard_fell_by_chance_is_better_than_one_at_which_it_surely_fell() -> None:
    held, chance, fell = (_gain(mean) for mean in (0.02, -0.02, -0.2))
    ranked = [
        _rank({"target": _gain(gain), "guard": guard}, "target", ["guard", "one that no prompt has"])
        for gain, guard in ((0.3, fell), (0.1, chance), (0.2, chance), (0.01, held), (0.05, held))
    ]
    assert sorted(ranked) == ranked


def test_what_cannot_be_fitted_is_refused(model: Any) -> None:
    with pytest.raises(InvalidValue, match="gives no gradient"):
        FitProblem(model, nulltta.rewards.load("jpeg"), ["a"], ["b", "c"], CONFIG)
    with pytest.raises(InvalidValue, match="2 prompts or more"):
        FitProblem(model, Custom(brightness, "brightness"), ["a"], ["b"], CONFIG)
    with pytest.raises(InvalidValue, match="kl_target is for test-time alignment"):
        FitProblem(model, Custom(brightness, "brightness"), ["a"], ["b", "c"], replace(CONFIG, kl_target=1.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("updates", 0), ("rows", 0), ("form", "words"), ("tokens", 0), ("average", 1.0), ("between", (0.5, 0.5)),
     ("pool", 3), ("learning_rate", 0.0), ("warmup", -1)],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        settings(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("nag_null", ["empty", "prompt"])
def test_a_null_text_is_fitted_and_applied_under_attention_guidance(model: Any, nag_null: Any) -> None:
    """The stock call, which has no null branch, gives the pictures of the replay."""
    config = NullTTAConfig.preset("2-step", eta=0.0, nag_null=nag_null)
    null_text, steps = drained(
        problem(model, config=config, settings=settings(form="steps", updates=2, validate_every=2))
    )
    assert steps[-1].gains
    assert null_text.between == (0, 2)  # all of so few steps
    ours = replay(model, null_text, prompt="a cat", seeds=[3])
    with null_text.apply(model.pipeline):
        theirs = stock_images(model, "a cat", "", config, seed=3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    plain = replay(model, null_text, prompt="a cat", seeds=[3], plain=True)
    assert float((ours - plain).abs().max()) > 0
    assert torch.allclose(plain, stock_images(model, "a cat", "", config, seed=3), rtol=0, atol=1e-5) == (
        nag_null == "prompt"  # φ is the prompt, so that nothing is guided
    )
    other = replace(config, nag_null="empty" if nag_null == "prompt" else "prompt")
    with pytest.raises(InvalidValue, match=f"must be {nag_null}, from which the null text to start from counts"):
        nulltta.align(model, "a cat", "brightness", config=other, start=null_text)
