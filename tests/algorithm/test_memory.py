"""A run that does not fit into memory continues with fewer rows at a time and gives the same result."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.memory import MicroBatch
from nulltta.baselines.catalogue import BASELINES
from nulltta.contracts import Embedding, NoiseStep
from nulltta.errors import OutOfMemory
from nulltta.rewards import load
from nulltta.rewards.compose import Standardised
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
    with pytest.warns(UserWarning, match="going on with more activations recomputed"):
        found = align(model, "a cat", "brightness", config=settings)
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-5)


class FewImages(Gaussian):
    """Memory for decoding, and for scoring plain samples of, so many images at once."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.seen = images, 0

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        self._hold(x)
        return super().predict(x, step, embedding)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        self._hold(x0)
        return super().decode(x0, detail)

    def _hold(self, rows: Tensor) -> None:
        self.seen = max(self.seen, len(rows))


@pytest.mark.parametrize("method", ["null-tta", "plain"])
def test_a_given_micro_batch_bounds_plain_sampling_references_and_previews_too(method: str) -> None:
    model = FewImages(2)

    def watched(images: Tensor, prompts: Any) -> Tensor:
        assert len(images) <= 2
        return nearness(images, prompts)

    previews: list[Any] = []
    found = align(
        model, ["red", "green"] * 4, watched, config=CONFIG, method=method, micro_batch=2,
        on_step=lambda step: previews.append(step.preview),
    )  # fmt: skip
    assert {len(preview) for preview in previews} == {len(found.baseline)} == {8}
    assert len(found.reward_components) == 1
    assert model.seen <= 4  # both branches of two


def test_a_standardised_reward_is_measured_on_no_more_samples_at_once() -> None:
    model = FewImages(2)

    def spread(images: Tensor, prompts: Any) -> Tensor:
        assert len(images) <= 2
        return images.flatten(1).mean(1)

    align(model, "red", Standardised(load(spread)), config=CONFIG, method="plain", micro_batch=2)
    assert model.seen <= 4


def test_the_decoder_recomputes_after_the_denoiser_with_the_same_image(checkpoint: Path) -> None:
    """In stages, each of which keeps less for the backward pass."""
    settings = NullTTAConfig(num_inference_steps=2, inner_steps=(2, 2), num_particles=1, guidance_scale=3.0)
    expected = align(nulltta.load_model(str(checkpoint)), "a cat", "brightness", config=settings)
    model: Any = nulltta.load_model(str(checkpoint))
    kept = [_kept_bytes(model)]
    while model.enable_checkpointing():
        kept.append(_kept_bytes(model))
    assert len(kept) == 3
    assert kept[0] > kept[1] > kept[2]
    found = align(model, "a cat", "brightness", config=settings)
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-5)


def _kept_bytes(model: Any) -> int:
    """What an inner step keeps for its backward pass."""
    _, null = model.encode(["a cat"], [""])
    null = {name: value.requires_grad_() for name, value in null.items()}
    step, x = model.schedule(4)[1], model.initial_latents(1, torch.Generator().manual_seed(0))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.decode(model.predict_x0(x, model.predict(x, step, null), step))
    return sum(kept.values())


class Tight(Gaussian):
    """A model whose gradient fits into memory only once activations are recomputed."""

    def __init__(self) -> None:
        super().__init__()
        self.recomputes = False

    def enable_checkpointing(self) -> bool:
        found, self.recomputes = not self.recomputes, True
        return found

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        if torch.is_grad_enabled() and not self.recomputes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().decode(x0, detail)


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("method", ["null-tta", *(name for name, each in BASELINES.items() if each.needs_gradient)])
def test_every_method_with_a_gradient_recomputes_activations_when_one_prompt_does_not_fit(method: str) -> None:
    model = Tight()
    found = align(model, ["red", "green"], nearness, config=CONFIG, method=method)
    assert model.recomputes
    assert bool(found.rewards.isfinite().all())


@pytest.mark.filterwarnings("ignore:out of memory")
def test_the_error_names_the_tiny_decoder_where_the_model_has_one_to_spare() -> None:
    def full(images: Tensor, prompts: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = nulltta.load_model("embedded")
    config = NullTTAConfig.embedded(num_inference_steps=2, num_particles=1)
    with pytest.raises(OutOfMemory, match="--inner-decoder tiny"):
        align(model, "a cat", full, config=config)
    with pytest.raises(OutOfMemory) as caught:
        align(Gaussian(), "red", full, config=CONFIG)
    assert "tiny" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_machine_out_of_memory_is_one_line_too(error: BaseException) -> None:
    class Full(Gaussian):
        def encode(self, prompts: Any, negatives: Any) -> Any:
            raise error

    with pytest.raises(OutOfMemory, match="out of memory: give fewer prompts"):
        align(Full(), "red", nearness, config=CONFIG)
