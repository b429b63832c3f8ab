"""The pipeline's own decoder, called as its own call does, with gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.findings import Findings
from nulltta.models.frozen import Frozen
from nulltta.models.offload import state_of


class Decoder:
    """Clean latents -> images, as the pipeline decodes them.

    Attributes:
        frames: the decoder's output is a video: "all" of it is kept, or the "first" frame; None for images.
        differentiable: whether images carry a gradient with respect to latents.
        recompute: whether its activations are recomputed in the backward pass instead of being stored.
    """

    def __init__(self, pipeline: Any, found: Findings) -> None:
        self.pipeline, self.found = pipeline, found
        self.frames: str | None = None
        self.differentiable = True
        self.recompute = False
        self._upcast: Any = None
        self._frozen: Frozen | None = None

    def __call__(self, x0: Tensor) -> Tensor:
        """Images (N, 3, H, W), or frames (N, F, 3, H, W), in [0, 1]."""
        vae, found = self.vae, self.found
        if self._frozen is None or self._frozen.network is not vae:
            self._frozen = Frozen(vae, beside_others=True)
        self._frozen.recompute = self.recompute
        z, frames = found.decoder_input(x0).to(vae.dtype), found.decoder_rows
        images = self.images(_first(self._called(self._frozen, z if frames == 1 else z.flatten(0, 1))))
        return images if frames == 1 else images.reshape(len(x0), frames, *images.shape[1:])

    def tiny(self, decoder: Any, x0: Tensor) -> Tensor:
        """By another decoder of the same latents, scaled by its own configuration."""
        scale, shift = decoder.config.get("scaling_factor", 1.0), decoder.config.get("shift_factor") or 0.0
        return unit_range(_first(decoder.decode((x0 / scale + shift).to(decoder.dtype))))

    @property
    def vae(self) -> Any:
        """The pipeline's autoencoder, or the float32 copy of it that is used where its call upcasts it."""
        vae = self.pipeline.vae
        if not (self.found.upcasts and vae.dtype == torch.float16):
            return vae
        if self._upcast is None:  # built anew, not copied: hooks on the pipeline's own stay there
            copied = type(vae).from_config(vae.config)
            copied.load_state_dict(state_of(vae))
            device = self.pipeline._execution_device
            self._upcast = copied.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
        return self._upcast

    def images(self, output: Tensor) -> Tensor:
        """The decoder's output in [0, 1], frames before channels."""
        if output.dim() == 5:
            output = output[:, :, 0] if self.frames == "first" else output.transpose(1, 2)
        return unit_range(output)

    def _called(self, vae: Any, z: Tensor) -> Any:
        args, kwargs = self.found.decoder_call
        count = len(z)

        def each(value: Any) -> Any:
            if isinstance(value, torch.Generator):
                return None
            if not isinstance(value, Tensor):
                return value
            if value.shape[1:] == z.shape[1:]:
                return z
            return value[:1].detach().expand(count, *value.shape[1:]) if value.dim() and len(value) == 2 else value

        return vae.decode(*map(each, args), **{name: each(value) for name, value in kwargs.items()})


def unit_range(images: Tensor) -> Tensor:
    """Decoder output in [−1, 1] -> float32 images in [0, 1]; no gradient where it is clamped."""
    return (images.float() / 2 + 0.5).clamp(0, 1)


def _first(output: Any) -> Tensor:
    first = output if isinstance(output, Tensor) else output[0]
    if not isinstance(first, Tensor):
        raise InvalidValue(f"the decoder returns a {type(first).__name__} instead of images")
    return first
