"""Choosing among candidates by their scores."""

from __future__ import annotations

import torch

from nulltta.scoring import greedy, pick


def test_greedy_takes_the_first_best_and_never_nan() -> None:
    nan = float("nan")
    scores = torch.tensor([[0.1, 0.3, 0.2], [0.5, 0.5, 0.4], [nan, -9.0, nan], [nan, nan, nan]])
    assert greedy(scores).tolist() == [1, 0, 1, 0]


def test_pick_takes_an_element_of_each_row() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    assert pick(values, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]
