"""HPSv3 from a tiny checkpoint under the official names, against the authors' computation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nulltta.errors import InvalidValue, LoadError
from nulltta.rewards import hpsv3, load

from .checkpoints import hpsv3_directory
from .official import hpsv3_ratings
from .pictures import picture, tensor

PROMPTS = ["a red cat", "the sun over a blue {sea}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hpsv3_directory(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 tokens per image instead of 256."""
    monkeypatch.setattr(hpsv3, "PIXELS", 84 * 112)


def test_the_score_is_the_mean_of_the_authors_computation(folder: Path) -> None:
    pictures = [picture(84, 112, seed) for seed in range(2)]
    images = torch.cat([tensor(image) for image in pictures])
    reward = load("hpsv3", folder, device="cpu")
    ours, expected = reward(images, PROMPTS), hpsv3_ratings(folder, pictures, PROMPTS)[:, 0]
    assert (reward.name, reward.differentiable, ours.dtype, ours.shape) == ("hpsv3", True, torch.float32, (2,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert abs(float(ours[0] - ours[1])) > 1e-3
    assert not torch.allclose(ours, reward(images, PROMPTS[::-1]), atol=1e-4)  # the prompt matters
    alone = torch.cat([reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)


def test_the_gradient_to_the_pixels_matches_finite_differences(folder: Path) -> None:
    """To 1e-3: the language model's RMS norms are float32 inside, whatever the model's dtype."""
    reward = load("hpsv3", folder, device="cpu", dtype=torch.float64)
    images = torch.cat([tensor(picture(90, 100, seed), torch.float64) for seed in range(2)]) * 0.4 + 0.3  # is resized
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), PROMPTS).sum(), images)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-4
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)


def test_a_bfloat16_model_scores_in_float32(folder: Path) -> None:
    image = tensor(picture(84, 112))
    exact = load("hpsv3", folder, device="cpu")(image, PROMPTS[:1])
    coarse = load("hpsv3", folder, device="cpu", dtype=torch.bfloat16)(image, PROMPTS[:1])
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("token", ["<|Reward|>", "<|image_pad|>", "<|im_end|>"])
def test_a_prompt_with_special_tokens_is_refused(folder: Path, token: str) -> None:
    with pytest.raises(InvalidValue, match="prompt with the model's own special token"):
        load("hpsv3", folder, device="cpu")(tensor(picture(84, 112)), [f"a cat {token}"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rm_head.3.bias", "HPSv3"),
        ("model.norm.weight", "the file lacks 'model.language_model.norm.weight'"),
        ("model.embed_tokens.weight", "the file lacks an embedding of"),
    ],
)
def test_missing_tensors_are_named(folder: Path, tmp_path: Path, name: str, says: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / "HPSv3.safetensors")
    del state[name]
    save_file(state, copy / "HPSv3.safetensors", {"format": "pt"})
    with pytest.raises(LoadError, match=says):
        load("hpsv3", copy, device="cpu")
