"""Every baseline on a real (tiny) Stable Diffusion, on a flow and on the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm import schedules
from nulltta.algorithm.memory import MicroBatch
from nulltta.alignment import METHODS, expected_steps
from nulltta.baselines import (
    BASELINES,
    DAS,
    DATE,
    DNO,
    DPS,
    Baseline,
    BestOfN,
    FKSteering,
    LiDAR,
    NoiseTilt,
    ReNO,
)
from nulltta.rewards import load
from nulltta.testing import Gaussian, nearness

from ..tiny_families import FAMILIES

SUITED: dict[str, dict[str, Any]] = {"dps": {"scale": 2.0}, "das": {"threshold": 1.0}}
"""Settings that show the effect of a method within a few steps; other methods keep their published ones."""


def _short(name: str, baseline: Baseline) -> Any:
    """A baseline's method with three samples, particles or iterations."""
    count = {baseline.cost.count: 3} if baseline.cost and baseline.cost.count else {}
    settings = count | SUITED.get(name, {})
    return replace(cast("Any", baseline.method), **settings) if settings else baseline.method


TRIED: dict[str, Any] = {
    **{name: _short(name, baseline) for name, baseline in BASELINES.items()},
    "dno, regularised": DNO(iterations=3, regularisation=1.0, permutations=2),
}
GRADIENT = [name for name, baseline in BASELINES.items() if baseline.needs_gradient]
RAISES_WITHIN_THREE_STEPS = ["best-of-n", "dno", "dno, regularised", "reno", "prompt-embedding", "shared-null"]
RAISES_ON_A_FLOW = [*RAISES_WITHIN_THREE_STEPS, "dps"]  # the particles of DAS and FK are drawn, not chosen
PROMPTS, SEEDS = ["a cat", "a red dog"], [3, 1]

PROMPT = "a fox on a blue background, noto style"
EMBEDDED = NullTTAConfig.embedded(num_inference_steps=3, num_particles=2, inner_steps=(2, 4))

every = pytest.mark.parametrize("name", TRIED)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def test_a_baseline_is_a_method_by_its_name() -> None:
    assert set(BASELINES) < set(METHODS)
    config = NullTTAConfig(num_inference_steps=4, num_particles=1, guidance_scale=3.0)
    by_name = align(Gaussian(), "red", nearness, config=config, method="best-of-n")
    by_value = align(Gaussian(), "red", nearness, config=config, method=BestOfN())
    assert torch.equal(by_name.candidates, by_value.candidates)
    assert by_name.candidates.shape[1] == 16


@pytest.mark.parametrize("name", METHODS)
def test_it_yields_as_many_steps_as_a_progress_bar_is_told(name: str) -> None:
    config = NullTTAConfig(num_inference_steps=3, num_particles=1, inner_steps=(1, 1), guidance_scale=3.0)
    result = align(Gaussian(), "red", nearness, config=config, method=name)
    assert len(result.trace) == expected_steps(name, config)


@every
def test_its_result_is_complete_repeatable_and_independent_of_the_batch(
    model: Any, config: NullTTAConfig, name: str
) -> None:
    batch = align(model, PROMPTS, "colourfulness", config=config, seed=SEEDS, method=TRIED[name])
    assert batch.images.shape == (2, 3, 16, 16)
    assert bool(((batch.images >= 0) & (batch.images <= 1)).all())
    torch.testing.assert_close(batch.rewards, batch.problem.reward(batch.images, PROMPTS))
    for step in batch.trace:
        assert step.inner_rewards.shape[1:] == step.selected.shape == step.kl.shape == (2,)
        assert step.candidate_rewards.dim() == 2
    alone = align(model, PROMPTS[1], "colourfulness", config=config, seed=SEEDS[1], method=TRIED[name])
    torch.testing.assert_close(alone.candidates[0], batch.candidates[1], rtol=0, atol=1e-4)
    again = align(model, PROMPTS[1], "colourfulness", config=config, seed=SEEDS[1], method=TRIED[name])
    assert torch.equal(again.candidates, alone.candidates)


@every
def test_a_flow_is_sampled_too(flow: Any, name: str) -> None:
    config = NullTTAConfig(num_inference_steps=3, inner_steps=(2, 2), num_particles=2, guidance_scale=4.0)
    result = align(flow, PROMPTS, brightness, config=config, seed=SEEDS, method=TRIED[name])
    assert bool(result.images.isfinite().all())
    plain = align(flow, PROMPTS, brightness, config=config, seed=SEEDS, method="plain")
    if name in RAISES_ON_A_FLOW:
        assert bool((result.rewards >= plain.rewards - 1e-6).all())
        assert bool((result.rewards > plain.rewards + 1e-6).any())


@every
def test_on_the_embedded_model(embedded: Any, name: str) -> None:
    model, clip, plain = embedded
    result = align(model, PROMPT, clip, config=EMBEDDED, method=TRIED[name])
    if isinstance(TRIED[name], BestOfN | DNO | ReNO):  # plain sampling's image is among their candidates
        assert float(result.rewards) >= float(plain.rewards) - 1e-5
    if name in RAISES_WITHIN_THREE_STEPS:
        assert float(result.rewards) > float(plain.rewards) + 1e-5
    torch.testing.assert_close(result.rewards, clip(result.images, [PROMPT]).detach())


@pytest.mark.parametrize("name", ["best-of-n", "das", "dno"])
def test_micro_batches_do_not_change_the_result(model: Any, config: NullTTAConfig, name: str) -> None:
    whole = align(model, PROMPTS, "colourfulness", config=config, method=TRIED[name])
    parts = align(model, PROMPTS, "colourfulness", config=config, method=_two_at_a_time(TRIED[name]))
    torch.testing.assert_close(parts.candidates, whole.candidates, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prompts", [["red"], ["red", "green", "red"]])
def test_the_cost_is_the_one_in_each_docstring(prompts: list[str]) -> None:
    T, n, K = 5, 3, 2
    config = NullTTAConfig(
        num_inference_steps=T, inner_steps=(1, 3), num_particles=K, guidance_scale=3.0, annealing="auto"
    )
    gamma = schedules.annealing_coefficient("auto", T)
    inner = sum(schedules.inner_step_count(i, gamma, (1, 3)) for i in range(T))
    null_tta = (inner, 2 * K * T + 2 * T)
    expected = {
        "best-of-n": (0, 2 * T * n),
        "dps": (2 * T, 0),
        "das": (2 * T * n, 0),
        "fk": (0, 2 * T * n),
        "dno": (2 * T * n, 2 * T),
        "dno, regularised": (2 * T * n, 2 * T),
        "reno": (2 * T * n, 2 * T),
        "noise-tilt": (2 * T, 0),
        "clean-tilt": (0, 2 * T),
        "lidar": (0, 2 * 3 * n + 2 * T),
        "date": (1, 2 * T),
        "prompt-embedding": null_tta,
        "shared-null": (inner, null_tta[1] + 2 * K * T + T),
    }
    for name, cost in expected.items():
        model = Gaussian()
        align(model, prompts, nearness, config=config, method=TRIED[name])
        found = (model.with_gradient / len(prompts), model.without_gradient / len(prompts))
        assert found == cost, name


@pytest.mark.parametrize("name", GRADIENT)
def test_a_reward_without_gradient_is_refused_by_those_that_need_one(name: str) -> None:
    def size(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return nearness(images, prompts)

    def detached(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return nearness(images.detach(), prompts)

    def rounded(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.flatten(1).round().sum(1)

    size.differentiable = False  # type: ignore[attr-defined]
    config = NullTTAConfig(num_inference_steps=3, num_particles=1, guidance_scale=3.0)
    for reward, says in (
        (size, "gives no gradient: choose a method"),
        (detached, "detaches"),
        (rounded, "zero for every"),
    ):
        with pytest.raises(NullTTAError, match=says) as caught:
            align(Gaussian(), "red", reward, config=config, method=TRIED[name])
        assert reward.__name__ in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GRADIENT)
def test_float16_is_refused_by_those_that_differentiate_through_it(name: str) -> None:
    class Half(Gaussian):
        dtype = torch.float16

    model = Half()
    config = NullTTAConfig(num_inference_steps=3, num_particles=1, guidance_scale=3.0)
    with pytest.raises(NullTTAError, match="bfloat16 or float32"):
        align(model, "red", nearness, config=config, method=TRIED[name])


@pytest.mark.parametrize("name", [name for name in TRIED if name.split(",")[0] not in GRADIENT])
def test_a_reward_without_gradient_is_accepted_by_the_others(name: str) -> None:
    def size(images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert not images.requires_grad
        return nearness(images, prompts)

    size.differentiable = False  # type: ignore[attr-defined]
    config = NullTTAConfig(
        num_inference_steps=3, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0, zeroth_order_directions="white"
    )  # the closed-form model encodes no other words
    assert len(align(Gaussian(), "red", size, config=config, method=TRIED[name]).images) == 1


@pytest.mark.parametrize(
    ("rival", "settings", "says"),
    [
        (BestOfN, {"samples": 0}, "samples must be a whole number, 1 or more"),
        (DPS, {"scale": -1.0}, "scale must be a number, 0 or more"),
        (DAS, {"particles": 2.0}, "particles"),
        (DAS, {"temperature": 0.0}, "temperature must be a number above 0"),
        (DAS, {"annealing": "soon"}, "annealing must be a number, 0 or more or 'auto'"),
        (DAS, {"resampling": "best"}, "multinomial, systematic, ssp"),
        (FKSteering, {"potential": "sum"}, "difference, max"),
        (FKSteering, {"times": (0.5, 1.0)}, "times must be fractions"),
        (FKSteering, {"reward_weight": float("nan")}, "reward_weight"),
        (DNO, {"iterations": -1}, "iterations"),
        (ReNO, {"clip": -0.1}, "clip"),
        (NoiseTilt, {"strength": 1.5}, "strength must lie between 0 and 1, not 1.5"),
        (NoiseTilt, {"gradient_at": "noise"}, "gradient_at must be one of latents, estimates, not 'noise'"),
        (LiDAR, {"lookahead_steps": 0}, "lookahead_steps must be a whole number, 1 or more"),
        (LiDAR, {"temperature": 0.0}, "temperature must be a number above 0"),
        (DATE, {"length": -1.0}, "length must be a number, 0 or more"),
        (DATE, {"share": 2.0}, "share must be at most 1, not 2"),
    ],
)
def test_bad_settings_are_refused_by_name(rival: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(NullTTAError, match=says) as caught:
        rival(**settings)
    assert "\n" not in str(caught.value)


def test_settings_are_keyword_only_and_frozen() -> None:
    with pytest.raises(TypeError):
        BestOfN(4)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        BestOfN().samples = 4  # type: ignore[misc]


def _two_at_a_time(method: Any) -> Any:
    return lambda problem: method(replace(problem, memory=MicroBatch(2)))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = FAMILIES["sd3"].save(tmp_path_factory.mktemp("flow") / "model")
    return nulltta.load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def embedded() -> Any:
    """Return the embedded model, its scorer, and plain sampling's result for PROMPT."""
    model, clip = nulltta.load_model("embedded", device="cpu"), load("clip", device="cpu")
    return model, clip, align(model, PROMPT, clip, config=EMBEDDED, method="plain")
