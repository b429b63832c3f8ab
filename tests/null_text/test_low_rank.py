"""The differences of all steps as a product of two thin factors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAError
from nulltta.null_text.low_rank import factors, relative_error, require_rank, unfold


def _differences(rank: int, steps: int = 5, tokens: int = 6, width: int = 7) -> Tensor:
    source = torch.Generator().manual_seed(rank)
    return torch.einsum("lr,rtd->tld", torch.randn(tokens, rank, generator=source),
                        torch.randn(rank, steps, width, generator=source))  # fmt: skip


def test_a_matrix_of_low_rank_is_reproduced() -> None:
    exact = _differences(2)
    left, right = factors(exact, 2)
    assert (left.shape, right.shape) == ((6, 2), (2, 5, 7))
    assert left.dtype == right.dtype == torch.float16
    assert relative_error(unfold(left, right), exact) < 1e-3  # float16's rounding
    assert relative_error(unfold(*factors(exact, 6)), exact) < 1e-3  # a greater rank loses nothing


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_error_is_that_of_the_singular_values_left_out(rank: int) -> None:
    exact = _differences(6)
    values = torch.linalg.svdvals(exact.transpose(0, 1).reshape(6, -1))
    expected = float(values[rank:].norm() / values.norm())
    assert relative_error(unfold(*factors(exact, rank)), exact) == pytest.approx(expected, rel=1e-2)


def test_a_zero_difference_has_zero_error() -> None:
    assert relative_error(unfold(*factors(torch.zeros(5, 6, 7), 1)), torch.zeros(5, 6, 7)) == 0


@pytest.mark.parametrize("rank", [0, -1, 7, 1.0, True, "2"])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(NullTTAError, match="rank must be a whole number from 1 to 6"):
        require_rank(rank, 6)


def test_small_factors_of_a_huge_product_are_refused() -> None:
    thin = torch.zeros(1, dtype=torch.float16)
    with pytest.raises(ValueError, match="would unfold to 2048 GiB"):
        unfold(thin.expand(2**20, 1), thin.expand(1, 2**9, 2**10))
    with pytest.raises(ValueError, match="factors have shapes"):
        unfold(thin, thin)
