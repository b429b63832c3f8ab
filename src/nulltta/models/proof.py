"""The proof that what was found is what the stock pipeline does: predictions and images compared with its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.conditioning import NEGATIVES, PROMPTS
from nulltta.models.decoding import Decoder
from nulltta.models.findings import Findings
from nulltta.models.recording import StepRecord, Watch, record
from nulltta.models.stock_call import StandIn, StockCall

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Relative to the largest value: what rounding in another order amounts to."""
TENSOR_FLOAT = 1e-2
"""The same for float32 on CUDA, where convolutions round their inputs to TensorFloat-32 unless they are told not to."""


class NotEqual(InvalidValue):
    """What was found is not what the pipeline does."""


def require_equal(what: str, ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Refuse what is not equal up to the rounding of a dtype.

    Raises:
        NotEqual: with the difference.
    """
    theirs = theirs.float().to(ours.device)
    theirs = theirs.reshape(ours.shape) if ours.numel() == theirs.numel() else theirs
    if ours.shape != theirs.shape:
        raise NotEqual(f"{what} has shape {tuple(ours.shape)}, the pipeline's own {tuple(theirs.shape)}")
    size = max(float(theirs.abs().max()), 1e-6)
    difference = float((ours.float() - theirs).abs().max()) / size
    if not difference <= _tolerance(dtype, ours.device):
        raise NotEqual(f"{what} differs from the pipeline's own by {difference:.1e} of its size: not supported")


def _tolerance(dtype: torch.dtype, device: torch.device) -> float:
    """Return what rounding amounts to in a dtype on a device."""
    if dtype == torch.float32 and device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        return TENSOR_FLOAT
    return TOLERANCE.get(dtype, 1e-1)


def prove_decoder(stock: StockCall, found: Findings, decoder: Decoder, steps: int) -> None:
    """Our images of random clean latents are the pipeline's own.

    Raises:
        InvalidValue: if they are not.
    """
    shape = (1, *found.sample)
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
    last, dtypes = steps - 1, {stock.pipeline.vae.dtype}

    def on_step(index: int, step: StepRecord) -> Tensor | None:
        dtypes.add(step.sample.dtype)  # a pipeline may scale latents in half precision for a decoder in float32
        return x0.to(step.sample) if index == last else None

    call = stock.arguments(PROMPTS[:1], NEGATIVES[:1], found.steps)
    seen = record(stock.pipeline, call, Watch(StandIn(found.template, 1), on_step, stop_at="end"))
    theirs = _images(seen.result)
    _require_size(stock, theirs)
    flat = x0.flatten(1) if found.from_sample is None else x0.flatten(1)[:, found.from_sample]
    x = flat.reshape(1, *found.shape)
    if theirs.dim() == 5:
        decoder.frames = "all"
    elif decoder.frames is None and len(found.decoder_input.shape) == 4:
        decoder.frames = "first"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)  # another state than the recording's: a decoder that draws shows it
        ours, decoder.differentiable = _with_gradient(decoder, x.to(theirs.device))
    try:
        coarsest = max(dtypes, key=lambda dtype: TOLERANCE.get(dtype, 1e-1))
        require_equal("the decoded image", ours, theirs, coarsest)
    except InvalidValue:
        again = decoder(x.to(theirs.device))
        if not torch.equal(ours, again):
            raise InvalidValue(
                "the decoder draws noise that no seed fixes (decoder_inject_noise), which is not supported"
            ) from None
        raise


def _require_size(stock: StockCall, images: Tensor) -> None:
    """Refuse a size, or a number of frames, that the pipeline rounds to another in silence.

    A decoder that enlarges less than its pipeline's class assumes draws a whole fraction of the size: no rounding. A
    single frame is a fraction of any number, and what too few frames are rounded to.
    """
    shape = tuple(images.shape[1:])
    if shape[-3] == 4:
        raise InvalidValue(f"the pipeline's images have a fourth channel, such as transparency {shape}: not supported")
    if shape[-3] != 3:
        raise InvalidValue(
            f"the pipeline's images have shape {shape}, which is not red, green and blue before height and width: not "
            "supported"
        )
    drawn = {"height": images.shape[-2], "width": images.shape[-1]}
    drawn |= {"num_frames": images.shape[1]} if images.dim() == 5 else {}
    for name, actual in drawn.items():
        asked = stock.options.get(name)
        if asked is not None and (asked % actual or actual == 1 < asked):
            raise InvalidValue(f"cannot be {asked}: the pipeline draws {actual} instead", field=name)


def _with_gradient(decoder: Decoder, x: Tensor) -> tuple[Tensor, bool]:
    """Images of latents, and whether they carry a gradient; nothing is kept for a backward pass."""
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda _: torch.empty(0)):
        images = decoder(x.clone().requires_grad_())
    return images.detach(), images.requires_grad


def _images(result: Any) -> Tensor:
    first = result if isinstance(result, Tensor) else result[0]
    if isinstance(first, list):
        first = torch.stack([torch.as_tensor(each) for each in first])
    if not isinstance(first, Tensor):
        raise InvalidValue(f"the pipeline returns a {type(first).__name__} where output_type='pt' means a tensor")
    return first
