"""Measures of images, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nulltta.evaluation.measures import high_frequency, pack, unpack


def test_high_frequency_is_the_deviation_of_what_is_finer_than_half_nyquist() -> None:
    n = torch.arange(16)
    fine, coarse = ((2 * math.pi * k / 16 * n).cos().expand(3, 16, 16) for k in (6, 2))
    images = torch.stack([0.5 + 0.2 * fine, 0.5 + 0.2 * coarse, 0.5 + 0.2 * fine.mT + 0.1 * coarse])
    assert high_frequency(images).tolist() == pytest.approx([0.2 / 2**0.5, 0.0, 0.2 / 2**0.5], abs=1e-6)


def test_packed_vectors_are_read_back() -> None:
    assert unpack(pack(np.array([0.25, -3.0]))).tolist() == [0.25, -3.0]
