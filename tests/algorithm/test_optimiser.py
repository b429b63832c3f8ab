"""Adam per prompt, and ascent along a gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.objective import Terms
from nulltta.algorithm.optimiser import Adam, GradientAscent, ascend
from nulltta.contracts import Embedding
from nulltta.errors import NullTTAError


def test_adam_is_torchs_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 5, generator=generator)
    ours: Embedding = {"tokens": start.clone()}
    adam = Adam(ours, 0.01)
    theirs = start.clone().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=0.01, maximize=True)
    for _ in range(20):
        gradient = torch.randn(2, 5, generator=generator)
        ours = adam.step(ours, {"tokens": gradient}, torch.ones(2, dtype=torch.bool))
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours["tokens"], theirs.detach(), rtol=1e-6, atol=1e-7)


def test_a_skipped_prompt_keeps_its_state() -> None:
    both, alone = {"tokens": torch.zeros(2, 3)}, {"tokens": torch.zeros(1, 3)}
    adam, single = Adam(both, 0.1), Adam(alone, 0.1)
    gradients = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    gradients[::2, 1] = torch.nan
    for i, gradient in enumerate(gradients):
        both = adam.step(both, {"tokens": gradient}, torch.tensor([True, i % 2 == 1]))
        if i % 2 == 1:
            alone = single.step(alone, {"tokens": gradient[1:]}, torch.tensor([True]))
    assert torch.equal(both["tokens"][1:], alone["tokens"])


def _objective(reward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Embedding], Terms]:
    def objective(null: Embedding) -> Terms:
        value = reward(null["tokens"])
        return Terms(value, value, torch.zeros_like(value))

    return objective


def _ascend(
    objective: Callable[[Embedding], Terms], skip: bool = False
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return ascend(
        objective, {"tokens": torch.zeros(2, 3)}, lambda null: GradientAscent(null, autograd, 0.1, skip_nonfinite=skip),
        steps=4, generators=[torch.Generator()] * 2,
    )  # fmt: skip


def test_ascent_climbs_and_records_the_reward_before_each_update() -> None:
    null, rewards = _ascend(_objective(lambda x: -(x - 1).square().sum(1)))
    assert rewards.shape == (4, 2)
    assert rewards[0].tolist() == [-3.0, -3.0]
    assert bool((rewards.diff(dim=0) > 0).all())
    assert bool((null["tokens"] > 0).all())


def test_a_non_finite_objective_fails_the_run() -> None:
    with pytest.raises(NullTTAError, match="not finite"):
        _ascend(_objective(lambda x: x.sum(1) / 0))


def test_release_conventions_skip_only_the_prompt_that_is_not_finite() -> None:
    infinite = torch.tensor([torch.inf, 0.0])
    null, _ = _ascend(_objective(lambda x: x.sum(1) + infinite), skip=True)
    assert bool((null["tokens"][0] == 0).all())
    assert bool((null["tokens"][1] > 0).all())


@pytest.mark.parametrize("skip", [False, True])
def test_a_gradient_that_is_not_finite_fails_the_run_under_every_convention(skip: bool) -> None:
    """The root has the value 0 there and the slope infinity."""
    with pytest.raises(NullTTAError, match="not finite: run the model and the reward in float32 or bfloat16"):
        _ascend(_objective(lambda x: x.square().sum(1).sqrt()), skip=skip)
