"""The meters against counts by hand, and the formulas for FLOPs against counted runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from nulltta.benchmark.costs.meters import PartMeter, flops, peak_bytes
from nulltta.benchmark.costs.stand_ins import EXACT, measured_model

CPU = torch.device("cpu")


def test_flops_are_those_of_the_products_forward_and_back() -> None:
    x, w = torch.randn(8, 16), torch.randn(16, 32, requires_grad=True)
    assert flops(lambda: x @ w) == 2 * 8 * 16 * 32
    assert flops(lambda: torch.autograd.grad((x @ w).sum(), w)) == 2 * 2 * 8 * 16 * 32


def test_peak_memory_counts_tensors_that_are_alive_at_once() -> None:
    x = torch.zeros(1000)  # allocated before the call, so it is not counted

    def two_at_a_time() -> None:
        a = x + 1
        b = a + 1
        del a
        c = b + 1
        del b, c

    assert peak_bytes(two_at_a_time, CPU) == 2 * 4000
    assert peak_bytes(lambda: x.view(10, 100), CPU) == 0


def test_rows_are_counted_by_part_and_gradient() -> None:
    meter = PartMeter()
    double = meter.watch("denoiser", lambda x: 2 * x)
    double(torch.zeros(3, 2))
    double(torch.zeros(2, 2, requires_grad=True))
    assert meter.rows == {"denoiser without gradient": 3, "denoiser with gradient": 2}


def test_the_formulas_for_flops_agree_with_counted_runs(study: Callable[[str], ModuleType]) -> None:
    cost, counting, thing = study("cost"), study("flops"), measured_model("embedded")
    config = replace(EXACT, num_inference_steps=3, inner_steps=(2, 2), num_particles=2)
    price = counting.prices(thing)
    assert flops(lambda: cost.by_us(thing, ["a cat"], config)) == pytest.approx(
        counting.ours(price, config, price.decoder), rel=0.02
    )
    assert flops(lambda: cost.by_reference(thing, ["a cat"], config)) == pytest.approx(
        counting.release(price, config), rel=0.04
    )  # the reference encodes the prompt for the reward at every call


def test_both_implementations_sample_the_same_image(study: Callable[[str], ModuleType]) -> None:
    cost, thing = study("cost"), measured_model("embedded")
    config = replace(EXACT, num_inference_steps=3, inner_steps=(2, 2), num_particles=2)
    ours, theirs = (way(thing, ["a cat"], config) for way in (cost.by_us, cost.by_reference))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
