"""Every learned reward from a tiny checkpoint in the official format, through the public path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import load

from .checkpoints import (
    SIDE,
    aesthetic_directory,
    aesthetic_v2_5_directory,
    clip_directory,
    cyclereward_directory,
    hps_directory,
    imagereward_directory,
    mlp_state,
    mps_directory,
    naflex_directory,
    siglip2_directory,
    siglip_directory,
)
from .official import learned, naflex
from .pictures import picture, tensor

PROMPTS = ["a red cat", "the sun over a blue sea"]
BUILD: dict[str, Callable[[Path], Path]] = {
    "clipscore": clip_directory,
    "pickscore": clip_directory,
    "pickscore-logits": clip_directory,
    "siglip": siglip_directory,
    "siglip/2": siglip2_directory,
    "siglip/naflex": naflex_directory,
    "aesthetic": aesthetic_directory,
    "hpsv2": hps_directory,
    "hpsv2.1": lambda folder: hps_directory(folder, "HPS_v2.1_compressed.pt"),
    "imagereward": imagereward_directory,
    "cyclereward": cyclereward_directory,
    "aesthetic-v2.5": aesthetic_v2_5_directory,
    "mps": mps_directory,
}


def _load(name: str, source: Path | str, **settings: Any) -> Reward:
    return load(name.partition("/")[0], source, device="cpu", **settings)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = BUILD[name](tmp_path_factory.mktemp(name.replace("/", "-")))
        return made[name]

    return get


def _images(size: int = SIDE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.cat([tensor(picture(size, size, seed), dtype) for seed in range(2)])


@pytest.mark.parametrize("name", BUILD)
def test_scores_are_those_of_a_straightforward_computation(checkpoints: Any, name: str) -> None:
    folder, images = checkpoints(name), _images()
    reward = _load(name, folder)
    ours = reward(images, PROMPTS)
    expected = learned(name, folder, images, PROMPTS).detach()
    assert (reward.name, reward.differentiable, ours.dtype, ours.shape) == (
        name.partition("/")[0], True, torch.float32, (2,),
    )  # fmt: skip
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert (expected[0] - expected[1]).abs() > 1e-3  # pictures and prompts matter
    alone = torch.cat([reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in BUILD if not name.startswith("aesthetic")])
def test_the_prompt_matters(checkpoints: Any, name: str) -> None:
    reward, images = _load(name, checkpoints(name)), _images()[:1].repeat(2, 1, 1, 1)
    first, second = reward(images, PROMPTS)
    assert abs(float(first - second)) > 1e-5


@pytest.mark.parametrize("name", BUILD)
def test_the_gradient_to_the_pixels_matches_finite_differences(checkpoints: Any, name: str) -> None:
    reward = _load(name, checkpoints(name), dtype=torch.float64)
    images = (_images(40, torch.float64) * 0.4 + 0.3).requires_grad_()  # larger than the tower, away from 0 and 1
    (gradient,) = torch.autograd.grad(reward(images, PROMPTS).sum(), images)
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).sum() for sign in (1, -1)]
    numerical = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numerical, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", BUILD)
def test_a_bfloat16_tower_scores_in_float32(checkpoints: Any, name: str) -> None:
    exact = _load(name, checkpoints(name))(_images(), PROMPTS)
    coarse = _load(name, checkpoints(name), dtype=torch.bfloat16)(_images(), PROMPTS)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", BUILD)
def test_a_file_is_a_source_too(checkpoints: Any, name: str) -> None:
    folder = checkpoints(name)
    file = next(file for pattern in ("*.pth", "*.pt", "*.safetensors") for file in folder.glob(pattern))
    expected = _load(name, folder)(_images(), PROMPTS)
    assert torch.equal(_load(name, str(file))(_images(), PROMPTS), expected)


@pytest.mark.parametrize("name", ["siglip/2", "siglip/naflex"])
def test_siglip_2_reads_lower_case_padded_on_the_right(checkpoints: Any, name: str) -> None:
    reward: Any = _load(name, checkpoints(name))
    a, b, c, end, pad = 6, 7, 8, 1, 0
    assert reward.encoder.tokenize("CAB").tolist() == [[c, a, b, end, *[pad] * 12]]


def test_naflex_reads_a_picture_in_its_own_shape(checkpoints: Any) -> None:
    pictures = [picture(14, 49, seed) for seed in range(2)]  # 2×7 patches of 16
    reward = _load("siglip/naflex", checkpoints("siglip/naflex"))
    ours = reward(torch.cat([tensor(image) for image in pictures]), PROMPTS)
    expected = naflex(checkpoints("siglip/naflex"), pictures, PROMPTS).detach()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_prompts_are_encoded_once(checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reward: Any = load("clipscore", checkpoints("clipscore"), device="cpu")
    reward(_images(), PROMPTS)
    monkeypatch.setattr(reward.encoder.model, "get_text_features", None)
    reward(_images(), PROMPTS[::-1])


def test_the_parameters_are_frozen(checkpoints: Any) -> None:
    reward = load("imagereward", checkpoints("imagereward"), device="cpu")
    assert len(reward.networks) == 2
    for module in reward.networks:
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_imagereward_cuts_prompts_to_35_tokens(checkpoints: Any) -> None:
    reward = load("imagereward", checkpoints("imagereward"), device="cpu")
    long = "a " * 40
    first, second = (reward(_images()[:1], [prompt]) for prompt in (long, long + "zebra"))
    assert torch.equal(first, second)


def test_an_mlp_of_another_width_is_refused(checkpoints: Any, tmp_path: Path) -> None:
    clip_directory(tmp_path)
    torch.save(mlp_state(17), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    with pytest.raises(LoadError, match="do not lead from 24 features to 1 score"):
        load("aesthetic", tmp_path, device="cpu")
