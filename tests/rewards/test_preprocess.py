"""Preprocessing in torch, against the official processors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nulltta import NullTTAError
from nulltta.rewards import load
from nulltta.rewards.preprocess import Preprocess

from .checkpoints import clip_directory
from .pictures import picture, tensor

SIZES = [(96, 96), (150, 200), (224, 224), (300, 225), (512, 512), (767, 512)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["CLIPImageProcessorPil", "SiglipImageProcessorPil"])
def test_pixels_are_those_of_the_official_processors(size: tuple[int, int], kind: str) -> None:
    import transformers

    processor = getattr(transformers, kind)(**({"resample": 2} if kind.startswith("Siglip") else {}))
    preprocess = Preprocess.from_config(processor.to_dict())
    image = picture(*size)
    theirs = torch.from_numpy(processor(image)["pixel_values"][0])
    difference = (preprocess(tensor(image))[0] - theirs).abs() * torch.tensor(preprocess.std)[:, None, None]
    assert difference.mean() < 0.001
    assert difference.max() < 0.005  # 1.3 steps of 8 bits


@pytest.mark.parametrize("size", SIZES)
def test_odd_margins_are_cropped_as_by_torchvision(size: tuple[int, int]) -> None:
    height, width = size
    side = 224
    wide = (side, side * width // height) if height <= width else (side * height // width, side)
    image = picture(*size)
    resized = np.asarray(image.resize(wide[::-1], Image.Resampling.BICUBIC)) / 255
    top, left = (round((a - side) / 2) for a in wide)
    theirs = torch.from_numpy(resized[top : top + side, left : left + side]).permute(2, 0, 1)
    ours = Preprocess(half="round", mean=(0, 0, 0), std=(1, 1, 1))(tensor(image))[0]
    assert (ours - theirs).abs().max() < 0.005


def test_antialiasing_changes_the_pixels() -> None:
    image = picture(512, 512)
    ours = Preprocess(mean=(0, 0, 0), std=(1, 1, 1))(tensor(image))
    plain = torch.nn.functional.interpolate(tensor(image), size=(224, 224), mode="bicubic", align_corners=False)
    assert (ours - plain).abs().mean() > 0.01


def test_scores_differ_little_from_those_of_the_official_preprocessing(tmp_path: Path) -> None:
    """Means over six sizes; docs/rewards.md states this figure."""
    from transformers import CLIPImageProcessorPil

    folder = clip_directory(tmp_path)
    reward = load("clipscore", folder, device="cpu")
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    differences, scores = [], []
    for seed, size in enumerate(SIZES):
        image = picture(*size, seed=seed)
        theirs = torch.from_numpy(processor(image)["pixel_values"][0])[None]
        features = reward.encoder.model.get_image_features(pixel_values=theirs).pooler_output  # type: ignore[attr-defined]
        text = reward.encoder.text_features(["a cat"])  # type: ignore[attr-defined]
        official = torch.nn.functional.cosine_similarity(features, text)
        ours = reward(tensor(image), ["a cat"])
        differences.append((ours - official).abs())
        scores.append(ours)
    assert torch.cat(differences).mean() < 2e-4
    assert torch.cat(scores).std() > 10 * torch.cat(differences).mean()


def test_the_gradient_is_that_of_the_filter() -> None:
    images = torch.rand((1, 3, 9, 11), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.4 + 0.3
    assert torch.autograd.gradcheck(Preprocess((6, 6)), (images.requires_grad_(),))


@pytest.mark.parametrize(
    ("config", "size", "crop"),
    [
        ({"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}, (224, 224), True),
        ({"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}, (28, 28), True),
        ({"size": {"height": 384, "width": 384}, "resample": 2}, (384, 384), False),
    ],
)
def test_processor_configs_of_all_releases_are_read(
    config: dict[str, object], size: tuple[int, int], crop: bool
) -> None:
    preprocess = Preprocess.from_config(config)
    assert (preprocess.size, preprocess.crop) == (size, crop)


@pytest.mark.parametrize("config", [{"resample": 0}, {"do_resize": False}, {"size": 224, "crop_size": 200}])
def test_what_is_not_supported_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(NullTTAError, match="not supported"):
        Preprocess.from_config(config)


def test_half_precision_pictures_are_resized_in_float32() -> None:
    images = tensor(picture(40, 40)).bfloat16()
    assert torch.equal(Preprocess((28, 28))(images), Preprocess((28, 28))(images.float()))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(NullTTAError, match=r"\(3, 8, 8\)"):
        Preprocess()(torch.rand(3, 8, 8))
