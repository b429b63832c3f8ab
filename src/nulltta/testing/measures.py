"""What every measure must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from nulltta.evaluation.measures import Measure
from nulltta.testing.images import smooth_images


class MeasureContract:
    """Tests of a measure, which a subclass provides as the fixture `measure`.

    Attributes:
        prompts: the prompts of three test images. The measure must say something about one of them.
        size: height and width of the test images.
    """

    prompts: ClassVar[Sequence[str]] = ("a fox on a blue background, noto style", "two red dogs", "")
    size: ClassVar[tuple[int, int]] = (64, 64)

    @pytest.fixture
    def measure(self) -> Measure:
        raise NotImplementedError("a subclass of MeasureContract provides its measure as a fixture of this name")

    @pytest.fixture
    def images(self) -> Tensor:
        """Three smooth, coloured images, (3, 3, H, W)."""
        return smooth_images(3, self.size)

    def test_it_gives_one_number_per_image_or_nan_where_it_does_not_apply(
        self, measure: Measure, images: Tensor
    ) -> None:
        values = measure(images, list(self.prompts))
        assert values.shape == (3,)
        assert values.is_floating_point()
        assert not bool(values.isinf().any())
        assert bool(values.isfinite().any())

    def test_it_is_repeatable_and_leaves_the_images_alone(self, measure: Measure, images: Tensor) -> None:
        before = images.clone()
        first = measure(images, list(self.prompts))
        torch.testing.assert_close(measure(images, list(self.prompts)), first, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(images, before)

    def test_an_image_measures_alone_as_in_a_batch(self, measure: Measure, images: Tensor) -> None:
        batch = measure(images, list(self.prompts))
        alone = torch.cat([measure(images[i : i + 1], [self.prompts[i]]) for i in range(3)])
        torch.testing.assert_close(alone, batch, rtol=1e-4, atol=1e-5, equal_nan=True)

    def test_it_is_finite_or_nan_on_flat_images(self, measure: Measure) -> None:
        flat = torch.tensor([0.0, 1.0, 0.5])[:, None, None, None].expand(3, 3, *self.size)
        assert not bool(measure(flat, list(self.prompts)).isinf().any())
