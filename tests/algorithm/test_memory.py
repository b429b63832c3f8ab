"""A run that does not fit into memory continues with fewer rows at a time and gives the same result."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.memory import MicroBatch
from nulltta.contracts import Embedding, NoiseStep
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(num_inference_steps=4, inner_steps=(1, 3), guidance_scale=3.0, annealing="auto")


class Small(Gaussian):
    """Runs out of memory beyond a number of rows, with gradient and without."""

    def __init__(self, with_gradient: int, without: int) -> None:
        super().__init__()
        self.limits = {True: with_gradient, False: without}

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        if len(x) > self.limits[any(t.requires_grad for t in embedding.values())]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().predict(x, step, embedding)


def test_a_run_that_does_not_fit_halves_its_rows_with_a_warning_and_the_same_result() -> None:
    prompts = ["red", "green", "red"]
    expected = align(Gaussian(), prompts, nearness, config=CONFIG)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = align(Small(with_gradient=1, without=6), prompts, nearness, config=CONFIG)
    assert [str(warning.message) for warning in said] == [
        "out of memory with 9 at a time: going on with 4",  # candidates, both branches each
        "out of memory with 4 at a time: going on with 2",
        "out of memory with 3 at a time: going on with 1",  # prompts, with gradient
    ]
    torch.testing.assert_close(found.candidates, expected.candidates, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.rewards, expected.rewards, rtol=0, atol=1e-5)


def test_each_row_is_computed_once_and_the_number_that_fits_is_kept() -> None:
    seen: list[list[int]] = []

    def function(rows: Tensor) -> Tensor:
        if len(rows) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(rows.tolist())
        return rows

    memory = MicroBatch()
    with pytest.warns(UserWarning, match="out of memory with 10 at a time: going on with 5"):
        memory.map(function, 10)
    assert seen == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    seen.clear()
    memory.map(function, 7)
    assert seen == [[0, 1, 2, 3, 4], [5, 6]]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("another failure")])
def test_a_single_row_that_does_not_fit_and_other_errors_are_raised(error: RuntimeError) -> None:
    def function(rows: Tensor) -> Any:
        raise error

    with pytest.raises(type(error), match=str(error)):
        MicroBatch(rows=1).map(function, 4)


def test_a_given_micro_batch_bounds_the_rows_without_changing_the_result() -> None:
    prompts = ["red", "green", "red"]
    expected = align(Gaussian(), prompts, nearness, config=CONFIG)
    found = align(Small(with_gradient=2, without=4), prompts, nearness, config=CONFIG, micro_batch=2)
    torch.testing.assert_close(found.candidates, expected.candidates, rtol=0, atol=1e-5)
    with pytest.raises(NullTTAError, match="1 or more"):
        align(Gaussian(), "red", nearness, config=CONFIG, micro_batch=0)


def test_one_row_that_does_not_fit_recomputes_its_activations(checkpoint: Path) -> None:
    settings = NullTTAConfig(num_inference_steps=2, inner_steps=(2, 2), num_particles=1, guidance_scale=3.0)
    expected = align(nulltta.load_model(str(checkpoint)), "a cat", "brightness", config=settings)
    model: Any = nulltta.load_model(str(checkpoint))
    predict = model.predict

    def only_with_checkpoints(x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        if embedding["encoder_hidden_states"].requires_grad and not model.recompute:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found: Tensor = predict(x, step, embedding)
        return found

    model.predict = only_with_checkpoints
    with pytest.warns(UserWarning, match="going on with activations recomputed"):
        found = align(model, "a cat", "brightness", config=settings)
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-5)
