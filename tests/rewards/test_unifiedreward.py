"""UnifiedReward from a tiny checkpoint, against an answer that is written token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta.errors import InvalidValue, LoadError
from nulltta.rewards import load

from .checkpoints import instructblip_directory, qwen_directory
from .official import unifiedreward
from .pictures import picture, tensor

PROMPTS = ["a red cat", "the sun over a blue {sea}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_directory(tmp_path_factory.mktemp("unifiedreward"), "3")


def test_the_score_is_the_expectation_of_the_answer(folder: Path) -> None:
    pictures = [picture(96, 128, seed) for seed in range(2)]
    images = torch.cat([tensor(image) for image in pictures])
    reward: Any = load("unifiedreward", folder, device="cpu")
    ours = reward(images, PROMPTS)
    expected = [unifiedreward(folder, image, prompt) for image, prompt in zip(pictures, PROMPTS, strict=True)]
    torch.testing.assert_close(ours, torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-4)
    assert (reward.name, reward.differentiable, ours.dtype, ours.shape) == (
        "unifiedreward", True, torch.float32, (2,),
    )  # fmt: skip
    assert abs(float(ours[0] - ours[1])) > 1e-3
    again = reward(images, PROMPTS)  # from the right answers as its guesses
    torch.testing.assert_close(again, ours, rtol=1e-5, atol=1e-5)
    alone = torch.cat([reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(alone, ours, rtol=1e-4, atol=1e-4)
    swapped = reward(images.flip(0), PROMPTS)  # from guesses that belong to the other picture
    fresh = load("unifiedreward", folder, device="cpu")(images.flip(0), PROMPTS)
    torch.testing.assert_close(swapped, fresh, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(swapped, ours, atol=1e-3)


def test_a_right_guess_takes_one_pass(folder: Path) -> None:
    reward: Any = load("unifiedreward", folder, device="cpu")
    image, passes = tensor(picture(96, 128)), list[int]()
    hook = reward.networks[0].register_forward_hook(lambda *_: passes.append(1))
    reward(image, PROMPTS[:1])
    first = len(passes)
    reward(image, PROMPTS[:1])
    hook.remove()
    assert 1 <= first <= 13
    assert len(passes) == first + 1


def test_the_gradient_to_the_pixels_matches_finite_differences(folder: Path) -> None:
    """To 1e-3: the language model's RMS norms are float32 inside, whatever the model's dtype."""
    reward = load("unifiedreward", folder, device="cpu", dtype=torch.float64)
    images = torch.cat([tensor(picture(90, 100, seed), torch.float64) for seed in range(2)]) * 0.4 + 0.3
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), PROMPTS).sum(), images)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = noise + 200 * gradient / gradient.norm()  # so that rounding is small beside the slope
    step = 1e-5
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)


def test_a_bfloat16_model_scores_in_float32(folder: Path) -> None:
    image = tensor(picture(96, 128))
    coarse = load("unifiedreward", folder, device="cpu", dtype=torch.bfloat16)(image, PROMPTS[:1])
    assert coarse.dtype == torch.float32
    assert bool((coarse >= 1).all() and (coarse < 6).all())


def test_what_does_not_serve_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="prompt with the model's own special token"):
        load("unifiedreward", folder, device="cpu")(tensor(picture(96, 128)), ["a cat <|im_end|>"])
    with pytest.raises(LoadError, match="is not a Qwen-VL model, as UnifiedReward is"):
        load("unifiedreward", instructblip_directory(tmp_path), device="cpu")
