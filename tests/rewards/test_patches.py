"""Patches of pictures of any shape, against transformers' own processors."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import Qwen2VLImageProcessorPil, Siglip2ImageProcessorPil
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as qwen
from transformers.models.siglip2 import image_processing_pil_siglip2 as siglip2

from nulltta import NullTTAError
from nulltta.rewards.patches import NaflexPatches, QwenPatches, naflex_resize, smart_resize
from nulltta.rewards.preprocess import Preprocess

from .pictures import picture, tensor

SIZES = [(96, 96), (200, 150), (300, 225), (448, 600)]  # where Pillow 13 too goes across first


@pytest.mark.parametrize("size", SIZES)
def test_qwens_patches_are_those_of_the_official_processor(size: tuple[int, int]) -> None:
    processor = Qwen2VLImageProcessorPil()
    patches, grid = QwenPatches.from_config(processor.to_dict())(tensor(picture(*size)))
    theirs = processor(picture(*size), return_tensors="pt")
    assert torch.equal(grid, theirs["image_grid_thw"])
    std = torch.tensor(processor.image_std)[:, None]
    difference = ((patches - theirs["pixel_values"]).view(len(patches), 3, -1) * std).abs()
    assert difference.mean() < 0.001
    assert difference.max() < 0.005


@pytest.mark.parametrize("size", SIZES)
def test_naflexs_patches_are_those_of_the_official_processor_without_its_padding(size: tuple[int, int]) -> None:
    processor = Siglip2ImageProcessorPil()
    patches, grid = NaflexPatches.from_config(processor.to_dict())(tensor(picture(*size)))
    theirs = processor(picture(*size), return_tensors="pt")
    assert torch.equal(grid, theirs["spatial_shapes"])
    assert patches.shape[1] == theirs["pixel_attention_mask"].sum()
    difference = (patches - theirs["pixel_values"][:, : patches.shape[1]]).abs() * 0.5
    assert difference.mean() < 0.001
    assert difference.max() < 0.005


def test_pictures_that_need_no_resizing_agree_to_the_last_bits() -> None:
    first, second = picture(84, 112), picture(84, 112, seed=1)
    processor = Qwen2VLImageProcessorPil()
    patches, grid = QwenPatches.from_config(processor.to_dict())(torch.cat([tensor(first), tensor(second)]))
    theirs = processor([first, second], return_tensors="pt")
    assert torch.equal(grid, theirs["image_grid_thw"])
    torch.testing.assert_close(patches, theirs["pixel_values"], rtol=0, atol=1e-6)
    naflex = Siglip2ImageProcessorPil(patch_size=7, max_num_patches=12 * 16)
    patches, grid = NaflexPatches.from_config(naflex.to_dict())(tensor(first))
    theirs = naflex(first, return_tensors="pt")
    assert grid.tolist() == theirs["spatial_shapes"].tolist() == [[12, 16]]
    torch.testing.assert_close(patches, theirs["pixel_values"], rtol=0, atol=1e-6)


def test_sizes_are_the_official_ones() -> None:
    generator = random.Random(0)
    for _ in range(300):
        height, width = generator.randint(16, 3000), generator.randint(16, 3000)
        limits = generator.choice([(56 * 56, 28 * 28 * 1280), (200 * 200, 400 * 400)])
        assert smart_resize(height, width, 28, *limits) == qwen.smart_resize(height, width, 28, *limits)
        patch, most = generator.choice([(16, 256), (14, 1024)])
        official = siglip2.get_image_size_for_max_num_patches(height, width, patch, most)
        assert naflex_resize(height, width, patch, most) == official


def test_the_limits_in_pixels_are_read_in_both_spellings() -> None:
    old = QwenPatches.from_config({"min_pixels": 3136, "max_pixels": 12845056})
    new = QwenPatches.from_config({"size": {"shortest_edge": 3136, "longest_edge": 12845056}})
    assert (old.fewest, old.most) == (new.fewest, new.most) == (3136, 12845056)
    assert old == new


@pytest.mark.parametrize(
    "patches",
    [
        QwenPatches(Preprocess(crop=False), patch=2, merge=2, frames=2, fewest=4 * 8, most=4 * 8),
        NaflexPatches(Preprocess(crop=False, mode="bilinear"), patch=2, most=6),
    ],
)
def test_the_gradient_is_that_of_the_filter(patches: QwenPatches | NaflexPatches) -> None:
    images = torch.rand((2, 3, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.4 + 0.3
    assert torch.autograd.gradcheck(lambda x: patches(x)[0], (images.requires_grad_(),))


def test_pictures_more_elongated_than_qwen_takes_are_refused() -> None:
    with pytest.raises(NullTTAError, match="images of 2×402 pixels: Qwen-VL takes images whose sides differ"):
        QwenPatches.from_config({})(torch.rand(1, 3, 2, 402))
