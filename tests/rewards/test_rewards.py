"""The closed-form rewards, sums of them, and callables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAError
from nulltta.rewards import load
from nulltta.rewards.closed_form import brightness, colourfulness, sharpness

from .formulas import FORMULAS


def _images(batch: int = 3, size: int = 16) -> Tensor:
    return torch.rand((batch, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_brightness_is_the_mean_pixel() -> None:
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.full((3, 4, 4), 0.25)])
    assert brightness(images).tolist() == [0.0, 1.0, 0.25]


def test_colourfulness_is_hasler_and_suesstrunks() -> None:
    import numpy as np

    images = _images()
    for image, ours in zip(images.numpy() * 255, colourfulness(images), strict=True):
        rg = image[0] - image[1]
        yb = 0.5 * (image[0] + image[1]) - image[2]
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert ours.item() * 255 == pytest.approx(expected)


def test_colourfulness_of_grey_is_zero_with_a_finite_gradient() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    value = colourfulness(grey)
    (gradient,) = torch.autograd.grad(value.sum(), grey)
    assert value.item() < 1e-6
    assert bool(gradient.isfinite().all())


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    import numpy as np

    images = _images()
    for image, ours in zip(images.numpy(), sharpness(images), strict=True):
        y = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
        assert ours.item() == pytest.approx(np.var(laplacian), rel=1e-6)
    assert sharpness(torch.full((1, 3, 5, 5), 0.3)).item() < 1e-12


def test_a_target_colour_is_the_mean_squared_distance() -> None:
    reward = load("target-colour:#ff0080")
    images = torch.tensor([1.0, 0.0, 128 / 255])[:, None, None].repeat(2, 1, 4, 4).view(2, 3, 4, 4)
    images[1, 1] += 0.5
    torch.testing.assert_close(reward(images, ["", ""]), torch.tensor([0.0, -0.25 / 3]))
    assert reward.name == "target-colour:#ff0080"


@pytest.mark.parametrize("text", ["target-colour", "target-colour:red", "target-colour:#ff00", "target-colour:#ff00gg"])
def test_an_unknown_colour_is_refused(text: str) -> None:
    with pytest.raises(NullTTAError, match="takes a colour, as in target-colour:#ff8800"):
        load(text)


def test_jpeg_is_the_size_of_the_image_as_given() -> None:
    """The published release scales images in [0, 1] again before coding, and so measures almost black ones."""
    import io

    from .pictures import picture, tensor

    images = torch.cat([tensor(picture(48, 64, seed)) for seed in range(2)])
    sizes = []
    for seed in range(2):
        picture(48, 64, seed).save(buffer := io.BytesIO(), format="JPEG", quality=95)
        sizes.append(len(buffer.getvalue()) / 1000)
    for name, sign in (("jpeg", -1.0), ("jpeg-incompressibility", 1.0)):
        reward = load(name)
        assert reward(images, ["", ""]).tolist() == pytest.approx([sign * size for size in sizes])
        assert not reward.differentiable
    assert sizes[0] != sizes[1]
    assert min(sizes) > 2


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_match_finite_differences(name: str) -> None:
    reward = load(name)
    if reward.differentiable:
        assert torch.autograd.gradcheck(lambda images: reward(images, ["", ""]), (_images(2, 4).requires_grad_(),))


def test_a_weighted_sum_is_the_sum() -> None:
    images = _images()
    total = load("0.7*brightness - 0.3*colourfulness")
    torch.testing.assert_close(total(images, []), 0.7 * brightness(images) - 0.3 * colourfulness(images))
    assert total.name == "0.7*brightness - 0.3*colourfulness"
    assert total.differentiable


def test_a_callable_becomes_a_reward_and_a_reward_is_returned_unchanged() -> None:
    reward = load(lambda images, prompts: images.mean((1, 2, 3)))
    assert reward.differentiable
    assert load(reward) is reward


@pytest.mark.parametrize("name", ["clop", "2*brightness + zorp", "Clip"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(NullTTAError, match=r"unknown reward .* known are clip, clip-b, .*pickscore, .*siglip"):
        load(name)
