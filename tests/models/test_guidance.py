"""The rules by which pipelines combine their branches are told apart by predictions of different lengths."""

from __future__ import annotations

import pytest
import torch

from nulltta.models.guidance import RULES, names_of

SCALE = 3.0


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_rule_is_recognised_by_what_it_makes(name: str, sign: int) -> None:
    cond = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    size = torch.linspace(0.5, 2.0, 6).view(1, 6, 1)  # the guided prediction is now longer and now shorter than cond
    null = cond * size + 0.01
    assert names_of(null, cond, SCALE, sign * RULES[name](null, cond, SCALE)) == {(name, sign)}


def test_what_no_rule_makes_is_not_recognised() -> None:
    null, cond = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    assert names_of(null, cond, SCALE, cond) == set()


def test_a_prediction_that_is_only_brought_down_is_never_longer_than_the_conditional_one() -> None:
    cond = torch.ones(1, 4, 8)
    null = cond * torch.tensor([0.5, 1.0, 1.25, 1.5]).view(1, 4, 1)
    lengths = RULES["rescaled down"](null, cond, SCALE).norm(dim=-1)
    expected = torch.tensor([[1.0, 1.0, 0.5, 0.0]]) * cond.norm(dim=-1)
    torch.testing.assert_close(lengths, expected)
